"""Circuits to and from Qiskit, whose first qubit is the least significant bit: the order is turned here alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qunlearn.errors import InputError, UnsupportedError
from qunlearn.quantum.channels import CHANNELS
from qunlearn.quantum.circuit import Channel, Circuit
from qunlearn.quantum.convert.amplitude import rotation_tree
from qunlearn.quantum.convert.angles import evaluate
from qunlearn.quantum.convert.tracing import Row, Trace, Tracer, Vector, all_z
from qunlearn.quantum.gates import GATES

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import SparsePauliOp

_FLIPS = {"bit-flip": "X", "phase-flip": "Z", "bit-phase-flip": "Y"}
_METADATA = "qunlearn_observables"
# w[3] of a ParameterVector, w_3 of our OpenQASM 3, and _w_3_, which is how Qiskit writes w[3] there.
_ELEMENT = re.compile(r"_?(.+?)(?:\[(\d+)\]|_(\d+)_?)")


def qiskit_label(word: str) -> str:
    """A Pauli string or bit string of ours in Qiskit's order, or back: qubit 0 stands on the right there."""
    return word[::-1]


def qiskit_observables(circuit: Circuit) -> list[SparsePauliOp]:
    """The circuit's observables as Qiskit operators, in order."""
    from qiskit.quantum_info import SparsePauliOp

    return [SparsePauliOp(qiskit_label(word)) for word in circuit.observables]


def to_qiskit(circuit: Circuit) -> QuantumCircuit:
    """A Qiskit circuit with ParameterVectors ``x`` and ``w``, qubit i being wire i. Bind them by object.

    Amplitude encoding is exported as `rotation_tree`, because Qiskit's state preparation takes no parameters:
    ``x`` then has ``2**qubits - 1`` elements, the angles that `tree_angles` computes from the features.
    The observables are kept in the metadata; `qiskit_observables` makes operators of them.

    Channels become error instructions of Qiskit Aer, which its simulators run where they stand. Readout errors are no
    part of a Qiskit circuit: `qiskit_readout` has them.

    Raises:
        UnsupportedError: for channels, where Qiskit Aer is not installed.
    """
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector

    tree = rotation_tree(circuit)
    x, w = ParameterVector("x", tree.features), ParameterVector("w", tree.weights)
    made = QuantumCircuit(tree.qubits, metadata={_METADATA: list(tree.observables)})
    for gate in tree.steps:
        if isinstance(gate, Channel):
            made.append(_error(gate), gate.wires)
            continue
        angle = [] if gate.angle is None else [evaluate(gate.angle, x.__getitem__, w.__getitem__)]
        getattr(made, gate.name)(*angle, *gate.wires)
    return made


def qiskit_readout(circuit: Circuit) -> Any:
    """The readout errors as a noise model of Qiskit Aer, for its simulators; None if there are none.

    Raises:
        UnsupportedError: where Qiskit Aer is not installed.
    """
    if not circuit.readout:
        return None
    noise = _aer_noise()
    model = noise.NoiseModel()
    for wire, (zero, one) in enumerate(circuit.readout):
        model.add_readout_error(noise.ReadoutError([[1 - zero, zero], [one, 1 - one]]), [wire])
    return model


def _aer_noise() -> Any:
    try:
        from qiskit_aer import noise
    except ImportError as error:
        raise UnsupportedError(
            "expected Qiskit Aer for noise in Qiskit, got an environment without it; install qunlearn[ibm], or export "
            "circuit.without_noise()"
        ) from error
    return noise


def _error(channel: Channel) -> Any:
    """Aer's error of the same kind, as an instruction."""
    noise, strengths = _aer_noise(), CHANNELS[channel.name].full(channel.strengths)
    share = strengths[0]
    if channel.name == "depolarizing":
        made = noise.depolarizing_error(share, len(channel.wires))
    elif channel.name == "thermal-relaxation":
        made = noise.thermal_relaxation_error(*strengths)
    elif channel.name in _FLIPS:
        made = noise.pauli_error([(_FLIPS[channel.name], share), ("I", 1 - share)])
    else:
        made = getattr(noise, channel.name.replace("-", "_") + "_error")(share)
    return made.to_instruction()


def from_qiskit(source: QuantumCircuit) -> Circuit:
    """A circuit from a Qiskit circuit of gates of the table, qubit i being wire i.

    A ParameterVector ``x`` becomes the features; all other parameters become weights, in the order of their
    vector if it is a single one, else in that of ``source.parameters``. Barriers and the global phase are
    dropped. Observables that `to_qiskit` kept are read back, else it is Z on every qubit.

    Raises:
        UnsupportedError: for gates outside the table, for measurements, and for angles of another form than
            scale * product(sign * feature + shift) * weight + offset.
    """
    names: dict[str, None] = {}
    for parameter in source.parameters:
        vector = getattr(parameter, "vector", None)
        names.update(dict.fromkeys([parameter.name] if vector is None else [element.name for element in vector]))
    return from_named(source, names, tuple((source.metadata or {}).get(_METADATA, ())))


def from_named(source: QuantumCircuit, names: Iterable[str], observables: tuple[str, ...]) -> Circuit:
    """A circuit from a Qiskit circuit and the names of all its parameters, also of those that no gate uses."""
    x, w = _slots(names)
    parameters = {parameter.name: parameter for parameter in source.parameters}
    words = observables or all_z(source.num_qubits)

    def bind(features: Vector, weights: Vector) -> Any:
        pairs = zip([*x, *w], [*features, *weights], strict=True)
        return source.assign_parameters({parameters[n]: float(v) for n, v in pairs if n in parameters})

    def run(features: Vector, weights: Vector) -> Trace:
        return Trace(tuple(_rows(bind(features, weights))), source.num_qubits, words)

    _check_definitions(bind(np.linspace(0.3, 0.9, len(x)), np.linspace(1.1, 2.3, len(w))))
    return Tracer(run, len(x), len(w)).circuit()


def _slots(names: Iterable[str]) -> tuple[list[str | None], list[str | None]]:
    """The parameters' names, sorted into places of features and of weights; None where a place is unused."""
    split = {name: _ELEMENT.fullmatch(name) for name in names}
    features = {int(m[2] or m[3]): name for name, m in split.items() if m and m[1] == "x"}
    others = [name for name, m in split.items() if not (m and m[1] == "x")]
    matches = [m for name in others if (m := split[name])]
    if len(matches) == len(others) and len({m[1] for m in matches}) == 1:
        weights = {int(m[2] or m[3]): m[0] for m in matches}
    else:
        weights = dict(enumerate(others))
    if len(features) + len(weights) != len(split):
        raise InputError(f"expected one parameter for each index, got {', '.join(split)}; use one ParameterVector")
    return _line_up(features), _line_up(weights)


def _line_up(places: dict[int, str]) -> list[str | None]:
    return [places.get(index) for index in range(max(places, default=-1) + 1)]


def _rows(bound: Any) -> Iterable[Row]:
    for number, instruction in enumerate(bound.data):
        operation = instruction.operation
        if operation.name == "barrier":
            continue
        name = _name(operation)
        if name not in GATES or instruction.clbits:
            raise UnsupportedError(
                f"instruction {number}: expected gates of the table, got {name!r}; decompose first "
                f"(gates of the table: {', '.join(GATES)})"
            )
        wires = tuple(bound.find_bit(bit).index for bit in instruction.qubits)
        yield name, wires, float(operation.params[0]) if GATES[name].has_angle else None


def _name(operation: Any) -> str:
    """The gate's name; the id of OpenQASM 3's standard library comes as u with three zeros."""
    return "id" if operation.name == "u" and not any(operation.params) else str(operation.name)


def _check_definitions(bound: Any) -> None:
    """Refuses gates that carry a name of the table but were defined by the user as something else."""
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.quantum_info import Operator

    standard = get_standard_gate_name_mapping()
    for (name, _, angle), operation in zip(_rows(bound), _operations(bound), strict=True):
        if operation.name == "u" or operation.base_class is standard[name].base_class:
            continue
        wires = GATES[name].wires
        order = [*range(wires)][::-1]
        theirs = Operator(operation).data.reshape((2,) * 2 * wires)
        theirs = theirs.transpose([*order, *(wires + axis for axis in order)]).reshape(2**wires, 2**wires)
        ours = GATES[name].matrix(None if angle is None else torch.tensor(angle, dtype=torch.float64)).numpy()
        if abs(abs(np.vdot(ours, theirs)) - 2**wires) > 1e-9:
            raise UnsupportedError(f"expected {name!r} to be the gate of the table, got another definition; rename it")


def _operations(bound: Any) -> list[Any]:
    return [i.operation for i in bound.data if i.operation.name != "barrier"]
