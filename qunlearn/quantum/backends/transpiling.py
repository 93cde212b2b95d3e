"""From an opened circuit to a device's own gates, and from what the device counted back to our order of bits.

Wire i is measured into classical bit i before transpiling. So the measurements carry the layout, whatever the
transpiler does, and no observable ever has to be moved to other qubits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qunlearn.errors import InputError, UnsupportedError
from qunlearn.quantum.backends.device import check_size
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.sampling import Basis, basis_gates, measurement_bases

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.providers import BackendV2

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REGISTER = "c"
TRIALS = 8  # transpilations with different seeds, of which the one with the least error is kept
MAX_OUTCOMES_QUBITS = 20  # counts are kept for every outcome
_SIMULATOR_GATES = ("id", "rz", "sx", "x", "cx", "measure", "reset", "delay")
# What the Sampler's twirling takes. Angles of controlled rotations are bound wrongly by Aer 0.18.
_TAKEN = {"id", "rx", "rz", "h", "x", "sx", "s", "t", "cx", "cz", "ecr", "measure", "reset", "delay"}
_NOT_GATES = {"barrier", "delay", "measure"}


@dataclass(frozen=True)
class Size:
    """What a circuit takes: gates one after the other, gates on two qubits, and those one after the other."""

    depth: int
    two_qubit_gates: int
    two_qubit_depth: int

    @classmethod
    def of(cls, circuit: QuantumCircuit) -> Size:
        """The size of a Qiskit circuit, its measurements left out."""
        gates = circuit.copy()
        gates.data = [row for row in circuit.data if row.operation.name not in _NOT_GATES]
        return cls(
            depth=gates.depth(),
            two_qubit_gates=sum(len(row.qubits) == 2 for row in gates.data),
            two_qubit_depth=gates.depth(lambda row: len(row.qubits) == 2),
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A circuit in the gates of a device, once for every basis in which it is measured.

    Attributes:
        circuit: the opened circuit (its features are its angles).
        bases: what is measured together.
        isa: for every basis the circuit to run; register ``"c"`` holds wire i in bit i.
        before: size of the circuit of the first basis as it was given.
        after: and after transpiling.
        layouts: for every basis, the physical qubit on which wire i is measured.
        device: name of the device.
    """

    circuit: Circuit
    bases: tuple[Basis, ...]
    isa: tuple[QuantumCircuit, ...]
    before: Size
    after: Size
    layouts: tuple[tuple[int, ...], ...]
    device: str

    @property
    def layout(self) -> tuple[int, ...]:
        """The physical qubit of wire i at the end of the circuit of the first basis."""
        return self.layouts[0]


def prepare(
    circuit: Circuit,
    device: BackendV2,
    *,
    optimization_level: int = 3,
    seed: int = 0,
    layout: Sequence[int] | None = None,
    trials: int = TRIALS,
    turned: bool = True,
) -> Prepared:
    """Transpile an opened circuit for a device, with the measurements of its observables.

    Args:
        circuit: an opened circuit without noise of its own.
        device: what it will run on.
        optimization_level: Qiskit's, from 0 to 3.
        seed: of the transpiler; its trials use seeds drawn from it.
        layout: the physical qubit that each wire starts on; the transpiler's choice if None.
        trials: transpilations of which the one with the least calibrated error is kept.
        turned: whether the circuit ends with the turn to its basis. Without, there is one circuit, whose state before
            the measurement is that of the given circuit in every respect.

    Raises:
        InputError: for a device that is too small, or a layout that does not fit.
        UnsupportedError: for a circuit with weights or with noise, or where the result breaks the device's rules.
    """
    _check(circuit, device, layout)
    bases = measurement_bases(circuit.observables)
    bases = bases if turned else (Basis("I" * circuit.qubits, tuple(range(len(circuit.observables)))),)
    plain = [_measured(circuit, basis, fence=not turned) for basis in bases]
    target, seeds = target_of(device, circuit.qubits), _seeds(seed, trials)
    isa = [_best([_transpile(plain[0], target, optimization_level, s, layout) for s in seeds], target)]
    start = list(isa[0].layout.initial_index_layout(filter_ancillas=True)) if isa[0].layout else layout
    isa += [_transpile(other, target, optimization_level, seeds[0], start) for other in plain[1:]]
    for made in isa:
        check_isa(made, device)
    layouts = tuple(_layout(made, circuit.qubits) for made in isa)
    return Prepared(circuit, bases, tuple(isa), Size.of(plain[0]), Size.of(isa[0]), layouts, str(device.name))


def _check(circuit: Circuit, device: BackendV2, layout: Sequence[int] | None) -> None:
    if circuit.weights or circuit.amplitude:
        raise UnsupportedError("expected an opened circuit, got one with weights; call open_circuit first")
    if getattr(circuit, "noisy", False):
        raise UnsupportedError(
            "expected a circuit without noise for a device, which has its own; load the circuit without noise=, or "
            "use circuit.without_noise()"
        )
    if circuit.qubits > MAX_OUTCOMES_QUBITS:
        raise UnsupportedError(f"expected at most {MAX_OUTCOMES_QUBITS} qubits for a device, got {circuit.qubits}")
    check_size(device, circuit.qubits)
    if layout is not None and (
        len(layout) != circuit.qubits
        or len(set(layout)) != len(layout)
        or not all(0 <= q < (device.num_qubits or math.inf) for q in layout)
    ):
        raise InputError(
            f"expected {circuit.qubits} different qubits of {device.name} as the layout, got {list(layout)}"
        )


def target_of(device: BackendV2, qubits: int) -> Any:
    """The device's target; for a simulator, which takes any gate, the gates that devices have, on `qubits` wires.

    So a circuit is folded, twirled and struck by noise on a simulator as it is on a device.

    Raises:
        UnsupportedError: for a simulator with noise on other gates, which would not strike.
    """
    from qiskit.transpiler import Target

    if device.target.build_coupling_map() is not None:
        return device.target
    noise = getattr(device.options, "noise_model", None)
    names = set(_SIMULATOR_GATES) if noise is None else {*noise.noise_instructions} & _TAKEN
    strange = sorted({*(() if noise is None else noise.noise_instructions)} - _TAKEN)
    if strange:
        raise UnsupportedError(
            f"expected noise on gates of a device ({', '.join(sorted(_TAKEN))}), got noise on {', '.join(strange)}; "
            "give the noise model as noise_model= of backend 'aer'"
        )
    names |= {"rz", "sx", "x", "measure"} | (set() if names & {"cx", "cz", "ecr"} else {"cx"})
    return Target.from_configuration(basis_gates=sorted(names), num_qubits=qubits)


def _seeds(seed: int, trials: int) -> list[int]:
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(max(1, trials), np.uint32) >> 1]


def _measured(circuit: Circuit, basis: Basis, fence: bool = False) -> QuantumCircuit:
    """The circuit as Qiskit's, turned to the basis, with every wire measured into the bit of its number.

    With a fence the transpiler leaves in what a measurement of Z does not see.
    """
    from qiskit import ClassicalRegister

    turned = dataclasses.replace(circuit, gates=circuit.gates + basis_gates(basis))
    made = turned.to_qiskit()
    made.metadata = {}
    made.add_register(ClassicalRegister(circuit.qubits, REGISTER))
    if fence:
        made.barrier()
    made.measure(range(circuit.qubits), range(circuit.qubits))
    return made


def _transpile(
    circuit: QuantumCircuit, target: Any, level: int, seed: int, layout: Sequence[int] | None
) -> QuantumCircuit:
    from qiskit.transpiler import generate_preset_pass_manager

    manager = generate_preset_pass_manager(
        target=target,
        optimization_level=level,
        seed_transpiler=seed,
        initial_layout=None if layout is None else list(layout),
    )
    return manager.run(circuit)


def _best(candidates: list[QuantumCircuit], target: Any) -> QuantumCircuit:
    """The one with the least calibrated error; with equal errors the first."""
    return min(candidates, key=lambda made: (round(_error(made, target), 9), Size.of(made).two_qubit_gates))


def _error(circuit: QuantumCircuit, target: Any) -> float:
    """Minus the logarithm of the probability that nothing goes wrong, by the device's calibration."""
    total = 0.0
    for name, qubits in instructions(circuit):
        facts = target[name].get(qubits) if target.get(name) else None
        error = getattr(facts, "error", None) or 0.0
        total -= math.log(max(1.0 - error, 1e-9))
    return total


def instructions(circuit: QuantumCircuit) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Name and physical qubits of every instruction, barriers left out."""
    for row in circuit.data:
        if row.operation.name != "barrier":
            yield row.operation.name, tuple(circuit.find_bit(qubit).index for qubit in row.qubits)


def check_isa(circuit: QuantumCircuit, device: BackendV2) -> None:
    """Raises `UnsupportedError` for a gate that the device lacks, or that it lacks on those qubits.

    The runtime's Sampler does not check this before it submits.
    """
    target = target_of(device, circuit.num_qubits)
    for number, (name, qubits) in enumerate(instructions(circuit)):
        if not target.instruction_supported(name, qubits):
            known = name in target.operation_names
            what = f"coupled qubits for {name}" if known else f"gates from {', '.join(sorted(target.operation_names))}"
            raise UnsupportedError(
                f"instruction {number}: expected {what} on {device.name}, got {name} on {list(qubits)}; prepare the "
                "circuit for this device"
            )


def _layout(circuit: QuantumCircuit, qubits: int) -> tuple[int, ...]:
    """Where each wire is measured, read from the measurements themselves."""
    found = {
        circuit.find_bit(row.clbits[0]).index: circuit.find_bit(row.qubits[0]).index
        for row in circuit.data
        if row.operation.name == "measure"
    }
    return tuple(found[wire] for wire in range(qubits))


def active_qubits(circuit: QuantumCircuit) -> tuple[int, ...]:
    """The physical qubits on which anything acts, sorted."""
    return tuple(sorted({qubit for _, qubits in instructions(circuit) for qubit in qubits}))


def bind(circuit: QuantumCircuit, angles: Floats) -> tuple[QuantumCircuit, Floats]:
    """The circuit and the columns of ``(rows, K)`` that it still takes, in the order of its parameters."""
    columns = [parameter.index for parameter in circuit.parameters]
    return circuit, np.ascontiguousarray(np.asarray(angles, dtype=np.float64)[:, columns])


def outcomes(result: Any, qubits: int, rows: int | None = None) -> Ints:
    """Counts ``(rows, 2**qubits)`` of one result of the Sampler: the one place where bit order is converted.

    Bit i of the register is wire i. Qiskit calls it the i-th from the right; here wire 0 is the most significant.
    """
    data = getattr(result.data, REGISTER)
    if data.num_bits != qubits:
        raise InputError(f"expected results of {qubits} measured wires, got {data.num_bits}")
    shots = data.to_bool_array(order="little")  # the last axis is the register, bit 0 first
    shots = shots.reshape(-1, shots.shape[-2], qubits)
    index = shots @ (1 << np.arange(qubits - 1, -1, -1, dtype=np.int64))
    index += np.arange(len(index), dtype=np.int64)[:, None] << qubits
    counts = np.bincount(index.ravel(), minlength=len(index) << qubits).reshape(len(index), -1).astype(np.int64)
    return counts if rows is None else np.broadcast_to(counts, (rows, counts.shape[1]))
