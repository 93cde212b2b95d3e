"""Qiskit Aer: exact values or counts; without noise, with a noise model of Aer, or with the noise of the circuit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit, transpile
from qiskit.quantum_info import SparsePauliOp

from qunlearn.errors import QunlearnError, UnknownNameError, UnsupportedError
from qunlearn.quantum.backends.base import Backend
from qunlearn.quantum.backends.device import need_extra
from qunlearn.quantum.backends.opened import Floats
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.convert import qiskit_label
from qunlearn.quantum.sampling import basis_gates, measurement_bases, values_of_outcomes

if TYPE_CHECKING:
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel

METHODS = ("automatic", "statevector", "density_matrix", "matrix_product_state", "stabilizer", "tensor_network")
# Unknown to Aer (ch), or silently run at wrong angles where those are broadcast (its issues 2323, 2391 and 2403).
_DECOMPOSED = ["ch", "crx", "cry", "crz", "cp"]
_FEW = 14  # up to so many qubits threads cost more than they save
_WIDE, _WIDEST = 10, 13  # qubits of a density matrix: where shots could be drawn one by one instead, and at most


@dataclass(frozen=True, eq=False)
class _Built:
    """A circuit as Aer takes it, and which observables are read from it."""

    circuit: QuantumCircuit
    observables: tuple[int, ...]


class Aer(Backend):
    """Qiskit Aer on this machine; a batch is one job with broadcast parameters.

    Without shots the values are exact, those of a noisy circuit from its density matrix, readout errors included. With
    shots they are means of the counts that Aer draws.

    Args:
        shots: measurements of each circuit in each basis; None for exact values.
        gradient: see `Backend`.
        seed: of the counts; every job draws from a child seed, given to Aer as ``seed_simulator``.
        repetitions: of SPSA.
        step: of SPSA.
        noise_model: of Aer. Circuits are brought to its basis gates first, since noise strikes no other.
        method: of Aer; None for statevectors, and density matrices for noise on up to 10 qubits.
        simulator: an `AerSimulator` of your own, such as ``AerSimulator.from_backend(device)``, instead.
        **options: for `AerSimulator`, such as ``device="GPU"``.

    Raises:
        InputError: if Qiskit Aer is not installed.
        UnknownNameError: for a method or an option that Aer does not have.
    """

    name = "aer"

    def __init__(
        self,
        *,
        shots: int | None = None,
        gradient: str = "parameter-shift",
        seed: int = 0,
        repetitions: int = 1,
        step: float = 0.1,
        noise_model: NoiseModel | None = None,
        method: str | None = None,
        simulator: AerSimulator | None = None,
        **options: Any,
    ) -> None:
        need_extra()
        super().__init__(shots=shots, gradient=gradient, seed=seed, repetitions=repetitions, step=step)
        if method is not None and method not in METHODS:
            raise UnknownNameError("method of Aer", method, METHODS)
        known = _options()
        for name in options:
            if name not in known:
                raise UnknownNameError("option of Aer", name, known)
        self.noise_model, self.method, self.simulator, self.options = noise_model, method, simulator, options
        if simulator is not None and noise_model is None:
            self.noise_model = simulator.options.noise_model
        self._built: dict[Circuit, list[_Built]] = {}

    def run(self, circuit: Circuit, angles: Floats) -> Floats:
        """The values ``(rows, observables)`` of an opened circuit at angles ``(rows, K)``: one job of Aer."""
        if circuit not in self._built:
            self._built[circuit] = self._build(circuit)
        built = self._built[circuit]
        rows = len(angles) if angles.shape[1] or self.shots is not None else 1  # equal rows have equal exact values
        results = iter(self._execute(circuit, [part.circuit for part in built], angles[:rows]))
        values = np.empty((rows, len(circuit.observables)))
        for part in built:
            words = [qiskit_label(circuit.observables[k]) for k in part.observables]
            for row in range(rows):
                values[row, list(part.observables)] = _read(next(results), words)
        return values if rows == len(angles) else values.repeat(len(angles), axis=0)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": {}}

    def _execute(self, circuit: Circuit, circuits: list[QuantumCircuit], angles: Floats) -> list[dict[str, Any]]:
        """What Aer says of every circuit at every row, circuit by circuit."""
        options: dict[str, Any] = {"method": self._method(circuit)}
        if all(made.parameters and not set(_DECOMPOSED) & set(made.count_ops()) for made in circuits):
            binds = [{place: angles[:, place.index].tolist() for place in made.parameters} for made in circuits]
            options["parameter_binds"] = binds
        else:
            circuits = [_bound(made, row) for made in circuits for row in angles]
        if self.shots is not None:
            options |= {"shots": self.shots, "seed_simulator": self.child_seed()}
            options |= {"noise_model": self._with_readout(circuit)} if circuit.readout else {}
        found = self._simulator(circuit).run(circuits, **options).result()
        if not found.success:
            raise QunlearnError(f"expected a result of Qiskit Aer, got: {found.status}")
        return [found.data(number) for number in range(len(found.results))]

    def _simulator(self, circuit: Circuit) -> AerSimulator:
        from qiskit_aer import AerSimulator

        if self.simulator is not None:
            return self.simulator
        threads = {"max_parallel_threads": 1} if circuit.qubits <= _FEW else {}
        return AerSimulator(**{"noise_model": self.noise_model, **threads, **self.options})

    def _method(self, circuit: Circuit) -> str:
        """What Aer simulates by, checked to be exact where exact values are wanted."""
        noisy = bool(circuit.channels) or self.noise_model is not None
        dense = "density_matrix" if circuit.qubits <= (_WIDEST if self.shots is None else _WIDE) else "statevector"
        method = self.method or (dense if noisy else "statevector")
        if noisy and self.shots is None and method != "density_matrix":
            raise UnsupportedError(
                f"expected shots, or a density matrix of at most {_WIDEST} qubits, for exact values under noise, got "
                f"{circuit.qubits} qubits and method {method!r}; set shots"
            )
        return method

    def _with_readout(self, circuit: Circuit) -> NoiseModel:
        """The noise model with the circuit's readout errors."""
        from qiskit_aer.noise import NoiseModel, ReadoutError

        model = NoiseModel()
        for wire, (one, zero) in enumerate(circuit.readout):
            model.add_readout_error(ReadoutError([[1 - one, one], [zero, 1 - zero]]), [wire])
        return model

    def _build(self, circuit: Circuit) -> list[_Built]:
        """The circuit with what is saved of its state, or one circuit with measurements for each basis."""
        if circuit.noisy and self.noise_model is not None:
            raise UnsupportedError(
                "expected noise in the circuit or in a noise model of Aer, got both; use circuit.without_noise()"
            )
        if self.shots is None:
            made, places = self._prepared(circuit)
            _save_values(made, circuit.observables, places, circuit.readout or self._readout(places))
            return [_Built(made, tuple(range(len(circuit.observables))))]
        built = []
        for basis in measurement_bases(circuit.observables):
            turned = replace(circuit, gates=circuit.gates + basis_gates(basis))
            made, places = self._prepared(turned)
            made.add_register(ClassicalRegister(circuit.qubits, "c"))
            made.measure(places, range(circuit.qubits))
            built.append(_Built(made, basis.observables))
        return built

    def _prepared(self, circuit: Circuit) -> tuple[QuantumCircuit, list[int]]:
        """The circuit in gates that the simulator knows, and the qubit on which each wire ends."""
        made, simulator = circuit.to_qiskit(), self._simulator(circuit)
        if self.noise_model is None and simulator.coupling_map is None:
            return made.decompose(_DECOMPOSED), list(range(circuit.qubits))
        found = transpile(made, simulator, optimization_level=1, seed_transpiler=0)
        places = range(circuit.qubits) if found.layout is None else found.layout.final_index_layout()
        return found, list(places)

    def _readout(self, places: list[int]) -> tuple[tuple[float, float], ...]:
        """The readout errors of Aer's noise model on these qubits, as a circuit states them; () without any."""
        model = self.noise_model
        if model is None or not (model._local_readout_errors or model._default_readout_error):
            return ()
        if any(len(qubits) > 1 for qubits in model._local_readout_errors):
            raise UnsupportedError(
                "expected readout errors of single qubits for exact values, got joint ones; set shots"
            )
        errors = [model._local_readout_errors.get((place,), model._default_readout_error) for place in places]
        tables = [np.eye(2) if error is None else error.probabilities for error in errors]
        return tuple((float(table[0][1]), float(table[1][0])) for table in tables)


def _options() -> list[str]:
    from qiskit_aer import AerSimulator

    return [name for name, _ in AerSimulator._default_options().items()]


def _save_values(
    made: QuantumCircuit, words: Sequence[str], places: list[int], readout: Sequence[tuple[float, float]]
) -> None:
    """Has Aer save the value of every Pauli string; a misread letter P counts as (zero - one) + (1 - one - zero) P."""
    for number, word in enumerate(words):
        terms: list[tuple[str, tuple[int, ...], float]] = [("", (), 1.0)]
        for wire, letter in enumerate(word):
            if letter != "I":
                one, zero = readout[wire] if readout else (0.0, 0.0)
                read = [(letters + letter, (*at, wire), c * (1 - one - zero)) for letters, at, c in terms]
                terms = read + [(letters, at, c * (zero - one)) for letters, at, c in terms if zero != one]
        operator = SparsePauliOp.from_sparse_list(terms, num_qubits=len(word))
        made.save_expectation_value(operator, places, label=str(number))


def _read(data: dict[str, Any], words: Sequence[str]) -> Floats:
    """The values of observables, in Qiskit's order of letters, from what Aer says of one circuit."""
    if "counts" not in data:
        return np.array([data[str(number)] for number in range(len(words))])
    outcomes = np.array([int(key, 16) for key in data["counts"]], dtype=np.int64)
    return values_of_outcomes(outcomes, np.array(list(data["counts"].values())), words)


def _bound(made: QuantumCircuit, row: Floats) -> QuantumCircuit:
    return made.assign_parameters({place: row[place.index] for place in made.parameters})
