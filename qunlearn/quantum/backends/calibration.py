"""A device's calibration as noise of our own circuit, so that our engines run what the device is expected to do.

The recipe is that of Qiskit Aer's ``NoiseModel.from_backend``: after each gate a depolarizing channel on its wires,
then thermal relaxation of each of them for the gate's duration, the first so strong that both together have the
calibrated error of the gate; and the readout errors of each qubit. Crosstalk, leakage and drift are in no calibration.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qunlearn.errors import UnsupportedError
from qunlearn.quantum.backends.device import cut_device
from qunlearn.quantum.backends.transpiling import Prepared, active_qubits, prepare
from qunlearn.quantum.circuit import Angle, Channel, Circuit, Factor, Gate
from qunlearn.quantum.gates import GATES
from qunlearn.quantum.sampling import measurement_bases

if TYPE_CHECKING:
    from qiskit.providers import BackendV2

DENSITY_QUBITS = 8  # so many wires the density engine takes
_FOREVER = 1e9  # seconds, for times that a calibration does not know
_ADDITIVE = {"rx", "ry", "rz", "p", "rxx", "ryy", "rzz", "cp", "crx", "cry", "crz"}
# The gate is S on its first wire, sqrt(X) on its second, CX, X on its first, up to a phase.
_ECR = (("s", (0,)), ("sx", (1,)), ("cx", (0, 1)), ("x", (0,)))


def device_noise(circuit: Circuit, device: BackendV2, *, seed: int = 0, layout: Sequence[int] | None = None) -> Circuit:
    """An opened circuit as the device would run it: transpiled, with the noise of the device's calibration.

    Wire i of the result is wire i of the circuit; qubits that are only passed through follow as further wires. The
    features are the same angles. Where all observables are measured together, the turn to their basis is part of the
    circuit, and the observables are words of Z; else they stay as they are, and the turns count as perfect.

    A circuit that would pass through qubits that the density engine has no room for is laid on as few as it has wires.

    Args:
        circuit: an opened circuit without noise of its own.
        device: a device with a calibration.
        seed: of the transpiler.
        layout: the physical qubit that each wire starts on; the transpiler's choice if None.
    """
    together = len(measurement_bases(circuit.observables)) == 1
    prepared = prepare(circuit, device, seed=seed, layout=layout, turned=together)
    if layout is None and len(active_qubits(prepared.isa[0])) > max(DENSITY_QUBITS, circuit.qubits):
        device = cut_device(device, quiet_qubits(device, circuit.qubits))
        prepared = prepare(circuit, device, seed=seed, turned=together)
    return prepared_noise(prepared, device)


def prepared_noise(prepared: Prepared, device: BackendV2, basis: int = 0) -> Circuit:
    """What a prepared circuit does in one basis, with the noise of the device's calibration; see `device_noise`.

    Its observables are those of the basis, in order.

    Raises:
        UnsupportedError: for a gate that our table cannot express.
    """
    isa, layout = prepared.isa[basis], prepared.layouts[basis]
    passed = [qubit for qubit in active_qubits(isa) if qubit not in layout]
    wires = {qubit: wire for wire, qubit in enumerate([*layout, *passed])}
    gates: list[Gate] = []
    channels: list[Channel] = []
    for row in isa.data:
        if row.operation.name in ("barrier", "measure", "delay"):
            continue
        qubits = tuple(isa.find_bit(qubit).index for qubit in row.qubits)
        gates += _gates(row.operation, tuple(wires[qubit] for qubit in qubits))
        for name, on, strengths in _errors(device.target, row.operation.name, qubits):
            channels.append(Channel(name, tuple(wires[qubit] for qubit in on), strengths, len(gates) - 1))
    letters = prepared.bases[basis].letters
    turned = letters.strip("I") != ""
    words = [prepared.circuit.observables[index] for index in prepared.bases[basis].observables]
    return dataclasses.replace(
        prepared.circuit,
        qubits=len(wires),
        gates=tuple(gates),
        observables=tuple(_word(word, turned) + "I" * len(passed) for word in words),
        channels=tuple(channels),
        readout=tuple(_readout(device.target, qubit) for qubit in wires),
    )


def _word(word: str, turned: bool) -> str:
    return "".join("I" if letter == "I" else "Z" for letter in word) if turned else word


def _gates(operation: Any, wires: tuple[int, ...]) -> Iterator[Gate]:
    """A gate of a device as gates of the table; a sum of angles becomes one gate for each of them."""
    name = operation.name
    if name == "ecr":
        yield from (Gate(part, tuple(wires[place] for place in on)) for part, on in _ECR)
    elif name not in GATES:
        raise UnsupportedError(f"expected gates of the table or ecr, got {name} on wires {list(wires)}")
    elif not GATES[name].has_angle:
        yield Gate(name, wires)
    else:
        for angle in _angles(name, operation.params[0]):
            yield Gate(name, wires, angle)


def _angles(name: str, value: Any) -> list[Angle]:
    """The angle of a gate as angles of one feature each, which add up to it."""
    parameters = sorted(getattr(value, "parameters", ()), key=lambda parameter: parameter.index)
    if not parameters:
        return [Angle(offset=float(value))]
    scales = [value.gradient(parameter) for parameter in parameters]
    if not all(isinstance(scale, int | float) for scale in scales) or (len(scales) > 1 and name not in _ADDITIVE):
        raise UnsupportedError(f"expected an angle that is a sum of multiples of angles, got {value} in {name}")
    offset = float(value.bind(dict.fromkeys(parameters, 0.0)))
    factors = [(Factor(parameter.index),) for parameter in parameters]
    parts = [Angle(float(scale), factor) for scale, factor in zip(scales, factors, strict=True) if scale]
    return [dataclasses.replace(parts[0], offset=offset), *parts[1:]] if parts else [Angle(offset=offset)]


def _errors(
    target: Any, name: str, qubits: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...], tuple[float, ...]]]:
    """Channel, qubits and strengths of what a gate of the device does wrong."""
    facts = (target.get(name) or {}).get(qubits)
    time, error = getattr(facts, "duration", None) or 0.0, getattr(facts, "error", None) or 0.0
    relaxations = [Relaxation.of(target, qubit, time) for qubit in qubits]
    depolarizing = _depolarizing(error, [relaxation.trace for relaxation in relaxations])
    if depolarizing > 0:
        yield "depolarizing", qubits, (depolarizing,)
    for qubit, relaxation in zip(qubits, relaxations, strict=True):
        if time > 0:
            yield "thermal-relaxation", (qubit,), (relaxation.t1, relaxation.t2, time)


@dataclass(frozen=True)
class Relaxation:
    """How a qubit relaxes towards 0: times of relaxation and coherence and the time that passes, in seconds."""

    t1: float
    t2: float
    time: float

    @classmethod
    def of(cls, target: Any, qubit: int, time: float) -> Relaxation:
        """By the calibration; what it does not know takes for ever."""
        known = None if target.qubit_properties is None else target.qubit_properties[qubit]
        t1 = getattr(known, "t1", None) or _FOREVER
        t2 = getattr(known, "t2", None) or 2 * t1
        return cls(t1, min(t2, 2 * t1), time)

    @property
    def trace(self) -> float:
        """Of its Pauli transfer matrix."""
        return 1 + 2 * math.exp(-self.time / self.t2) + math.exp(-self.time / self.t1)


def _depolarizing(error: float, traces: Sequence[float]) -> float:
    """How likely the state is lost, so that with relaxation (traces of its matrices) the gate has its average error.

    With F the average fidelity of the relaxation and d the dimension: p = d (error - (1 - F)) / (d F - 1).
    """
    dimension = 2.0 ** len(traces)
    fidelity = (math.prod(traces) / dimension + 1) / (dimension + 1)
    wanted = min(error, dimension / (dimension + 1)) - (1 - fidelity)
    return min(max(0.0, dimension * wanted / (dimension * fidelity - 1)), 1.0)


def _readout(target: Any, qubit: int) -> tuple[float, float]:
    """(P(read 1 | 0), P(read 0 | 1)); where both are not known, the mean of both stands for each."""
    facts = (target.get("measure") or {}).get((qubit,))
    mean = getattr(facts, "error", None) or 0.0
    up, down = getattr(facts, "prob_meas1_prep0", None), getattr(facts, "prob_meas0_prep1", None)
    return (mean, mean) if up is None or down is None else (float(up), float(down))


def quiet_qubits(device: BackendV2, count: int) -> tuple[int, ...]:
    """So many connected qubits with little error: grown from each qubit by the best coupler, the best of all kept."""
    target = device.target
    errors = _coupler_errors(target)
    found: list[tuple[float, tuple[int, ...]]] = []
    for start in range(target.num_qubits):
        chosen, total = [start], _readout(target, start)[0]
        while len(chosen) < count:
            edges = [(e + _readout(target, b)[0], b) for (a, b), e in errors.items() if a in chosen and b not in chosen]
            if not edges:
                break
            best, qubit = min(edges)
            chosen.append(qubit)
            total += best
        if len(chosen) == count:
            found.append((total, tuple(sorted(chosen))))
    if not found:
        raise UnsupportedError(f"expected {count} connected qubits on {device.name}, got fewer")
    return min(found)[1]


def _coupler_errors(target: Any) -> dict[tuple[int, int], float]:
    """The error of the two-qubit gate between each two qubits, in both directions."""
    errors: dict[tuple[int, int], float] = {}
    for name in target.operation_names:
        for qubits, facts in (target.get(name) or {}).items():
            if qubits is not None and len(qubits) == 2:
                error = getattr(facts, "error", None) or 0.0
                for pair in (qubits, qubits[::-1]):
                    errors[pair] = min(error, errors.get(pair, math.inf))
    return errors
