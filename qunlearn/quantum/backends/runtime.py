"""IBM devices, fake ones and simulators through the runtime's Sampler; a batch of rows is one job.

The Sampler is the client-side one of ``qiskit_ibm_runtime.executor_sampler``; the primitives of the package's top level
are deprecated. Fake devices and simulators run in its local mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qunlearn.errors import InputError, ServiceError, UnsupportedError
from qunlearn.quantum.backends.base import Backend
from qunlearn.quantum.backends.device import cut_device, find_device, is_local, never_repeat_posts, scrub, token_of
from qunlearn.quantum.backends.mitigation import Mitigation, Work, combine, construct
from qunlearn.quantum.backends.transpiling import (
    Floats,
    Prepared,
    Size,
    active_qubits,
    check_isa,
    prepare,
)
from qunlearn.quantum.circuit import Circuit

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.providers import BackendV2

__all__ = ["Prepared", "Runtime", "Size", "check_isa", "prepare", "run_locally"]

MODES = ("job", "batch")
POLL_SECONDS = 5  # between two questions whether a job is done
MOST_PUBS = 50  # more in one job have made the service's compiler fail
_WIDEST = 11  # of a density matrix: 64 MiB
# Entries of a density matrix that cost as much as one shot whose noise is drawn (measured with Aer 0.18, at 8 qubits).
_ENTRIES_PER_SHOT = 150


class Runtime(Backend):
    """A device of the runtime, real or fake, or an `AerSimulator`.

    Args:
        device: a name, see `find_device`, or a device of Qiskit's interface.
        shots: measurements of each circuit in each basis.
        mitigation: what is done against errors.
        gradient: see `Backend`.
        seed: of the transpiler and of all that is drawn in local mode.
        optimization_level: of the transpiler.
        layout: the physical qubit that each wire starts on; the transpiler's choice if None.
        mode: "job", or "batch", in which the service runs this backend's jobs one after the other. (Sessions are billed
            by the hour, and are not for the open plan.)
        service: the runtime service to ask for a real device; the user's account if None.
        seconds: the time on the device after which the service stops a job.
        **options: of `Backend`, such as `repetitions`.

    A job that fails raises `ServiceError`, which names it.

    Attributes:
        errors: standard errors ``(rows, observables)`` of the last job's values.

    Raises:
        InputError: see `find_device`.
        UnsupportedError: for dynamical decoupling where durations of gates aren't known.
    """

    name = "runtime"

    def __init__(
        self,
        device: str | BackendV2,
        *,
        shots: int | None = 1000,
        mitigation: Mitigation | None = None,
        gradient: str = "parameter-shift",
        seed: int = 0,
        optimization_level: int = 3,
        layout: Sequence[int] | None = None,
        mode: str = "job",
        service: Any = None,
        seconds: int | None = None,
        **options: Any,
    ) -> None:
        self.device = find_device(device, service)
        self.name = str(self.device.name)
        super().__init__(shots=1000 if shots is None else shots, gradient=gradient, seed=seed, **options)
        if mode not in MODES:
            raise InputError(f"expected mode 'job' or 'batch', got {mode!r}")
        self.mitigation = Mitigation() if mitigation is None else mitigation
        if self.mitigation.dynamical_decoupling and not _has_durations(self.device):
            raise UnsupportedError(
                f"expected a device with known durations of gates for dynamical decoupling, got {self.name}; take a "
                "fake or real device, or leave dynamical_decoupling out"
            )
        self.optimization_level, self.layout, self.mode, self.seconds = optimization_level, layout, mode, seconds
        self.errors: Floats = np.empty((0, 0))
        self._works: dict[Circuit, Work] = {}
        self._batch: Any = None

    def work(self, circuit: Circuit) -> Work:
        """The circuits in the device's gates for an opened circuit, kept for the next call."""
        if circuit not in self._works:
            prepared = prepare(
                circuit,
                self.device,
                optimization_level=self.optimization_level,
                seed=self.seed,
                layout=self.layout,
            )
            self._works[circuit] = construct(prepared, self.mitigation)
        return self._works[circuit]

    def run(self, circuit: Circuit, angles: Floats) -> Floats:
        """The values ``(rows, observables)`` of an opened circuit at angles ``(rows, K)`` in radians: one job."""
        work = self.work(circuit)
        assert self.shots is not None
        results = self._results(work.pubs(angles), self.shots)
        values, self.errors = combine(work, work.counts(results, rows=len(angles)))
        return values

    def close(self) -> None:
        """Close the batch, if one was opened: no further job goes into it."""
        if self._batch is not None:
            self._batch.close()
            self._batch = None

    def circuits_per_row(self, circuit: Circuit) -> int:
        """How many circuits a row of angles takes: bases times the factors of the extrapolation."""
        return super().circuits_per_row(circuit) * self.mitigation.cost().circuits

    def _start(self, circuit: Circuit, angles: Floats) -> None:
        super()._start(circuit, angles)
        calibration = sum(not piece.takes_rows for piece in self.work(circuit).pieces)
        self.spent.circuits += calibration
        rows = len(angles) * self.circuits_per_row(circuit)
        taken, asked = self.mitigation.shots_taken(self.shots or 1), self.shots or 1
        self.spent.executions += calibration * taken + rows * (taken - asked)

    def _results(self, work: list[tuple[Any, ...]], shots: int) -> list[Any]:
        """The Sampler's results of all PUBs."""
        options = self.mitigation.sampler_options()
        if is_local(self.device):
            return run_locally(self.device, work, shots, [self.child_seed() for _ in work], options)
        if len(work) > MOST_PUBS:
            raise UnsupportedError(f"expected at most {MOST_PUBS} circuits in a job, got {len(work)} bases and copies")
        options |= {"default_shots": shots}
        options |= {} if self.seconds is None else {"max_execution_time": self.seconds}
        job: Any = None
        try:
            job = self._submit(work, options)
            return list(job.result(poll_interval=POLL_SECONDS))
        except Exception as error:
            text = scrub(f"{type(error).__name__}: {error}", token_of(self.device.service))
        which = "a job" if job is None else f"job {job.job_id()}"
        raise ServiceError(f"expected the result of {which} on {self.name}, got {text}")

    def _submit(self, work: list[tuple[Any, ...]], options: dict[str, Any]) -> Any:
        """One job on a real device."""
        from qiskit_ibm_runtime import Batch
        from qiskit_ibm_runtime.executor_sampler import Sampler

        never_repeat_posts(self.device.service)
        if self.mode == "batch" and self._batch is None:
            self._batch = Batch(backend=self.device)
        return Sampler(mode=self._batch or self.device, options=options).run(work)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_works": {}, "_batch": None}


def _has_durations(device: BackendV2) -> bool:
    facts = device.target.get("x") or {}
    return any(getattr(known, "duration", None) for known in facts.values())


def run_locally(
    device: BackendV2,
    work: Sequence[tuple[Any, ...]],
    shots: int,
    seeds: Sequence[int],
    options: dict[str, Any] | None = None,
) -> list[Any]:
    """The Sampler's results of all PUBs in its local mode, on the qubits that the circuits use alone.

    Each PUB draws from a seed of its own. (With one seed for all, as the local mode has it, the shots of a circuit and
    of its folded copies would be drawn alike, and the errors of their values would cancel as they never do.)

    Args:
        device: a fake device, a part of one, or an `AerSimulator`.
        work: PUBs of circuits in the device's gates.
        shots: of each circuit.
        seeds: one for each PUB.
        options: of the Sampler, such as those of `Mitigation.sampler_options`.
    """
    from qiskit_ibm_runtime.executor_sampler import Sampler

    simulator, used = simulator_of(device, [pub[0] for pub in work], shots)
    results = []
    for pub, seed in zip(work, seeds, strict=True):
        local = {"seed_simulator": seed, "angle_decimals": 14}  # by default angles are rounded to 1e-5 quarter turns
        sampler = Sampler(mode=simulator, options={**(options or {}), "default_shots": shots, "simulator": local})
        results += list(sampler.run([(_on(pub[0], used), *pub[1:])]).result())
    return results


def simulator_of(
    device: BackendV2, circuits: Sequence[QuantumCircuit], shots: int
) -> tuple[Any, tuple[int, ...] | None]:
    """A simulator with the noise of the qubits that circuits use, and these qubits; None for a simulator as it is."""
    from qiskit_aer import AerSimulator

    if isinstance(device, AerSimulator):
        return device, None
    used = tuple(sorted({qubit for circuit in circuits for qubit in active_qubits(circuit)}))
    dense = len(used) <= _WIDEST and 4 ** len(used) <= _ENTRIES_PER_SHOT * shots
    how = {"method": "density_matrix"} if dense else {"method": "statevector", "shot_branching_enable": True}
    return AerSimulator.from_backend(cut_device(device, used), **how), used


def _on(circuit: QuantumCircuit, used: Sequence[int] | None) -> QuantumCircuit:
    """The circuit on some of its qubits alone, renumbered in their order."""
    if used is None:
        return circuit
    from qiskit import QuantumCircuit, QuantumRegister

    register = QuantumRegister(len(used), "q")
    place = {qubit: register[i] for i, qubit in enumerate(used)}
    made = QuantumCircuit(register, *circuit.cregs, global_phase=circuit.global_phase)
    for row in circuit.data:
        on = [place[i] for q in row.qubits if (i := circuit.find_bit(q).index) in place]
        if on:
            made.append(row.operation, on, row.clbits)
    return made
