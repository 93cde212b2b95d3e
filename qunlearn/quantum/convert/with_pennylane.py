"""Circuits to and from PennyLane, whose first wire is the most significant bit, as ours is."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from qunlearn.errors import InputError, UnsupportedError
from qunlearn.quantum.channels import CHANNELS
from qunlearn.quantum.circuit import Channel, Circuit
from qunlearn.quantum.convert.angles import evaluate
from qunlearn.quantum.convert.tracing import Row, Trace, Tracer, Vector, all_z

# Our name, and what a PennyLane operation of that kind calls itself.
NAMES: dict[str, str] = {
    "id": "Identity",
    "x": "PauliX",
    "y": "PauliY",
    "z": "PauliZ",
    "h": "Hadamard",
    "s": "S",
    "sdg": "Adjoint(S)",
    "t": "T",
    "tdg": "Adjoint(T)",
    "sx": "SX",
    "rx": "RX",
    "ry": "RY",
    "rz": "RZ",
    "p": "PhaseShift",
    "cx": "CNOT",
    "cy": "CY",
    "cz": "CZ",
    "ch": "CH",
    "swap": "SWAP",
    "crx": "CRX",
    "cry": "CRY",
    "crz": "CRZ",
    "cp": "ControlledPhaseShift",
    "rxx": "IsingXX",
    "ryy": "IsingYY",
    "rzz": "IsingZZ",
}
_OURS = {theirs: ours for ours, theirs in NAMES.items()}
_CHANNELS = {
    "amplitude-damping": "AmplitudeDamping",
    "phase-damping": "PhaseDamping",
    "bit-flip": "BitFlip",
    "phase-flip": "PhaseFlip",
}
_STATES = ("AmplitudeEmbedding", "StatePrep")


def to_pennylane(circuit: Circuit) -> Callable[..., Any]:
    """A quantum function (features, weights) that returns expectation values, to wrap in a QNode.

    Features ``(batch, features)`` or ``(features,)``, weights ``(weights,)``, in any interface of PennyLane;
    radians. Wires are 0 to ``qubits - 1``. Amplitude encoding uses `qml.AmplitudeEmbedding`. Channels become those of
    PennyLane, for ``default.mixed`` and its like, and readout errors part of the observables, so that a QNode gives
    what is read.
    """
    import pennylane as qml

    apply = {name: _operation(qml, name) for name in {gate.name for gate in circuit.gates}}
    steps = circuit.steps

    def function(features: Any = None, weights: Any = None) -> list[Any]:
        if circuit.amplitude:
            _embed(qml, circuit, features)
        for gate in steps:
            if isinstance(gate, Channel):
                _strike(qml, gate)
            elif gate.angle is None:
                apply[gate.name](wires=list(gate.wires))
            else:
                angle = evaluate(gate.angle, lambda k: features[..., k], lambda k: weights[..., k])
                apply[gate.name](angle, wires=list(gate.wires))
        return [qml.expval(_read_out(qml, circuit, word)) for word in circuit.observables]

    return function


def _operation(qml: Any, name: str) -> Callable[..., Any]:
    theirs = NAMES[name]
    if theirs.startswith("Adjoint("):
        return qml.adjoint(getattr(qml, theirs[8:-1]))  # type: ignore[no-any-return]
    return getattr(qml, theirs)  # type: ignore[no-any-return]


def _strike(qml: Any, channel: Channel) -> None:
    """Apply PennyLane's channel of the same kind."""
    strengths, (wire, *others) = CHANNELS[channel.name].full(channel.strengths), channel.wires
    if others:
        qml.QubitChannel(CHANNELS[channel.name].kraus(strengths, len(channel.wires)), wires=list(channel.wires))
    elif channel.name == "depolarizing":
        qml.DepolarizingChannel(0.75 * strengths[0], wires=wire)  # there p is that of X, Y or Z, not of losing all
    elif channel.name == "bit-phase-flip":
        qml.PauliError("Y", strengths[0], wires=wire)
    elif channel.name == "thermal-relaxation":
        t1, t2, time, excited = strengths
        qml.ThermalRelaxationError(excited, t1, t2, time, wires=wire)
    else:
        getattr(qml, _CHANNELS[channel.name])(strengths[0], wires=wire)


def _read_out(qml: Any, circuit: Circuit, word: str) -> Any:
    """The observable that a word is with readout errors: each P becomes a I + b P, where wires are read wrongly."""
    if not circuit.readout or set(word) == {"I"}:
        return _observable(qml, word)
    factors = []
    for wire, (letter, (zero, one)) in enumerate(zip(word, circuit.readout, strict=True)):
        if letter != "I":
            factors.append(qml.sum((one - zero) * qml.I(wire), (1 - zero - one) * getattr(qml, letter)(wire)))
    return qml.prod(*factors)


def _observable(qml: Any, word: str) -> Any:
    factors = [getattr(qml, letter)(wire) for wire, letter in enumerate(word) if letter != "I"]
    return qml.prod(*factors) if factors else qml.Identity(0)


def _embed(qml: Any, circuit: Circuit, features: Any) -> None:
    if bool(qml.math.any(qml.math.sum(features**2, axis=-1) == 0)):
        raise InputError("expected samples that are not zero for amplitude encoding, got a zero vector")
    qml.AmplitudeEmbedding(features, wires=range(circuit.qubits), pad_with=0.0, normalize=True)


def from_pennylane(source: Any, *, features: int = 0, weights: int | tuple[int, ...] = 0) -> Circuit:
    """A circuit from a PennyLane quantum function of (features, weights), a QNode, or a tape.

    The function is run with numbers, and from a few runs it is found how every angle depends on them. It may
    take one argument alone if there are only features, or only weights. Operations outside the gate table are
    decomposed by PennyLane's own rules; global phases are dropped. Without measurements, Z on every wire is
    observed. Wires that are not 0, 1, ... are numbered in the order of the QNode's device, or of their first use.

    Args:
        source: the function, QNode or tape.
        features: how many features it takes, as a vector.
        weights: how many weights it takes as a vector, or the shape of the array that it takes, which then is
            flattened row by row. For a tape: 0 keeps its numbers, the number of its trainable parameters makes
            each of them a weight.

    Raises:
        InputError: if the function cannot be called with arguments of this size.
        UnsupportedError: for mid-circuit measurements, other measurements than expectation values of Pauli
            words, gates without decomposition, and angles of another form than ours.
    """
    import pennylane as qml

    shape = (weights,) if isinstance(weights, int) else tuple(weights)
    order = list(source.device.wires) if isinstance(source, qml.QNode) and source.device.wires else None
    tape_of = _tape_runner(qml, source, features, shape)

    def run(x: Vector, w: Vector) -> Trace:
        return _read(qml, tape_of(x, w), order, x)

    return Tracer(run, features, math.prod(shape)).circuit()


def _tape_runner(qml: Any, source: Any, features: int, shape: tuple[int, ...]) -> Callable[[Vector, Vector], Any]:
    if isinstance(source, qml.tape.QuantumScript):
        trainable = list(source.trainable_params)
        if features or math.prod(shape) not in (0, len(trainable)):
            raise InputError(
                f"expected 0 features and 0 or {len(trainable)} weights for this tape, whose parameters are numbers, "
                f"got {features} and {math.prod(shape)}; give the quantum function instead"
            )
        return lambda x, w: source.bind_new_parameters(list(w), trainable) if len(w) else source
    function = source.func if isinstance(source, qml.QNode) else source
    if not callable(function):
        raise InputError(f"expected a quantum function, a QNode or a tape, got {type(source).__name__}")
    return lambda x, w: _call(qml, function, torch.from_numpy(x), torch.from_numpy(w).reshape(shape))


def _call(qml: Any, function: Callable[..., Any], features: torch.Tensor, weights: torch.Tensor) -> Any:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    takes = sum(parameter.kind in kinds for parameter in inspect.signature(function).parameters.values())
    arguments = [features, weights] if takes >= 2 else [weights if len(features) == 0 else features][:takes]
    try:
        return qml.tape.make_qscript(function)(*arguments)
    except Exception as error:
        raise InputError(
            f"expected a quantum function of {len(features)} features and weights of shape {tuple(weights.shape)}, "
            f"got {type(error).__name__} when calling it with them: {error}"
        ) from error


def _read(qml: Any, tape: Any, order: list[Any] | None, features: Vector) -> Trace:
    wires = _wire_numbers(tape, order)
    operations, amplitude = list(tape.operations), False
    if operations and operations[0].name in _STATES:
        _check_state(operations.pop(0), wires, features)
        amplitude = True
    rows = tuple(row for operation in operations for row in _rows(qml, operation, wires))
    observables = tuple(_word(qml, measurement, wires) for measurement in tape.measurements)
    return Trace(rows, len(wires), observables or all_z(len(wires)), amplitude)


def _wire_numbers(tape: Any, order: list[Any] | None) -> dict[Any, int]:
    labels = list(tape.wires)
    if order is not None:
        return {label: number for number, label in enumerate(order)}
    if all(isinstance(label, int) and label >= 0 for label in labels):
        return {number: number for number in range(max(labels, default=0) + 1)}
    return {label: number for number, label in enumerate(labels)}


def _check_state(operation: Any, wires: dict[Any, int], features: Vector) -> None:
    got = np.asarray(_numbers(operation.data[0]))
    padded = np.zeros(got.shape[-1])
    padded[: len(features)] = features[: got.shape[-1]]
    direct = [wires[label] for label in operation.wires] == list(range(len(wires)))
    same = len(features) and got.ndim == 1 and np.allclose(got, padded / np.linalg.norm(padded), atol=1e-12)
    if not (direct and same):
        raise UnsupportedError(
            f"{operation.name}: expected the features, zero-padded and normalised, on all wires in order; prepare "
            "other states by gates"
        )


def _numbers(value: Any) -> Any:
    """A parameter of an operation as NumPy array or number."""
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


def _rows(qml: Any, operation: Any, wires: dict[Any, int]) -> list[Row]:
    if operation.name in ("GlobalPhase", "Barrier") or (operation.name == "Identity" and len(operation.wires) != 1):
        return []
    if operation.name in _OURS:
        return [_row(operation, wires)]
    if operation.name == "MultiRZ" and len(operation.wires) == 2:
        return _rows(qml, qml.IsingZZ(operation.data[0], wires=operation.wires), wires)
    if not isinstance(operation, qml.operation.Operator) or not operation.has_decomposition:
        raise UnsupportedError(
            f"expected gates of the table ({', '.join(NAMES)}), got {operation.name!r}, for which PennyLane has no "
            "decomposition; replace it by gates of the table"
        )
    with qml.QueuingManager.stop_recording():
        steps: Sequence[Any] = operation.decomposition()
    return [row for step in steps for row in _rows(qml, step, wires)]


def _row(operation: Any, wires: dict[Any, int]) -> Row:
    if any(np.ndim(_numbers(value)) for value in operation.data):
        raise UnsupportedError(
            f"{operation.name}: expected one number for the angle, got an array; write the function for one sample"
        )
    angle = float(operation.data[0]) if operation.data else None
    return _OURS[operation.name], tuple(wires[label] for label in operation.wires), angle


def _word(qml: Any, measurement: Any, wires: dict[Any, int]) -> str:
    terms = dict(getattr(measurement.obs, "pauli_rep", None) or {})
    if not isinstance(measurement, qml.measurements.ExpectationMP) or len(terms) != 1:
        raise UnsupportedError(f"expected expectation values of Pauli words, got {measurement}; return qml.expval")
    (term, coefficient), letters = terms.popitem(), ["I"] * len(wires)
    if abs(complex(coefficient) - 1) > 1e-12:
        raise UnsupportedError(f"expected a Pauli word with coefficient 1, got {measurement}; scale it in the head")
    for label, letter in term.items():
        letters[wires[label]] = letter
    return "".join(letters)
