"""Circuits to PennyLane, Qiskit and OpenQASM 3 and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from qiskit import QuantumCircuit, qasm3
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import efficient_su2, zz_feature_map
from qiskit.quantum_info import SparsePauliOp, Statevector

from qunlearn.errors import InputError, UnsupportedError
from qunlearn.quantum.card import available_cards, load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.convert import qiskit_label, rotation_tree, tree_angles
from qunlearn.quantum.gates import GATES

FEATURES, WEIGHTS = 3, 5


def plain(circuit: Circuit) -> list[tuple[str, tuple[int, ...], Angle | None]]:
    """The gates without the layers they belong to, which no other format knows."""
    return [(gate.name, gate.wires, gate.angle) for gate in circuit.gates]


@st.composite
def angles(draw: st.DrawFn) -> Angle:
    """Angles in the form that the converters write: one plain factor, or a product with roots."""
    chosen = sorted(draw(st.sets(st.integers(0, FEATURES - 1), max_size=3)))
    weight = draw(st.none() | st.integers(0, WEIGHTS - 1))
    offset = draw(st.sampled_from([0.0, 0.5, -math.pi / 4, 2.25]))
    if not chosen and weight is None:
        return Angle(offset=offset)
    scale = draw(st.sampled_from([1.0, -1.0, 2.0, 0.3, -math.pi]))
    forms = st.sampled_from([(1.0, 0.0), (-1.0, math.pi), (1.0, 0.75)])
    lone = len(chosen) == 1 and weight is None
    return Angle(scale, tuple(Factor(k) if lone else Factor(k, *draw(forms)) for k in chosen), weight, offset)


@st.composite
def circuits(draw: st.DrawFn) -> Circuit:
    qubits = draw(st.integers(1, 3))
    names = [name for name, spec in GATES.items() if spec.wires <= qubits]
    gates = []
    for name in draw(st.lists(st.sampled_from(names), max_size=12)):
        wires = draw(st.permutations(range(qubits)))[: GATES[name].wires]
        gates.append(Gate(name, tuple(wires), draw(angles()) if GATES[name].has_angle else None))
    words = draw(st.lists(st.text("IXYZ", min_size=qubits, max_size=qubits), min_size=1, max_size=3))
    return Circuit(qubits, tuple(gates), tuple(words), FEATURES, WEIGHTS)


@given(circuits())
def test_json_round_trip(circuit: Circuit) -> None:
    assert Circuit.from_json(circuit.to_json()) == circuit


@given(circuits())
def test_pennylane_round_trip(circuit: Circuit) -> None:
    back = Circuit.from_pennylane(circuit.to_pennylane(), features=FEATURES, weights=WEIGHTS)
    same = back.qubits == circuit.qubits  # wires at the end that nothing names are unknown to PennyLane
    assert back == circuit if same else plain(back) == plain(circuit)


@given(circuits())
def test_openqasm3_round_trip(circuit: Circuit) -> None:
    assert Circuit.from_openqasm3(circuit.to_openqasm3()) == circuit


@given(circuits())
def test_qiskit_round_trip(circuit: Circuit) -> None:
    back = Circuit.from_qiskit(circuit.to_qiskit())
    assert plain(back) == plain(circuit)
    assert (back.qubits, back.observables) == (circuit.qubits, circuit.observables)
    used = {gate.angle.weight for gate in circuit.gates if gate.angle}
    assert back.weights == (WEIGHTS if used != {None} and used else 0)


@given(circuits(), st.integers(0, 2**31))
def test_qiskit_and_pennylane_run_the_same_circuit(circuit: Circuit, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.uniform(-3, 3, FEATURES), rng.uniform(-6, 6, WEIGHTS)
    device = qml.device("default.qubit", wires=circuit.qubits)
    theirs = [float(value) for value in qml.QNode(circuit.to_pennylane(), device)(x, w)]
    np.testing.assert_allclose(statevector_expectations(circuit, x, w), theirs, rtol=0, atol=1e-12)


def statevector_expectations(circuit: Circuit, x: np.ndarray, w: np.ndarray) -> list[float]:
    """By Qiskit's state vector, bound by object."""
    exported = circuit.to_qiskit()
    values = {p: float((x if p.vector.name == "x" else w)[p.index]) for p in exported.parameters}
    state = Statevector(exported.assign_parameters(values))
    return [float(state.expectation_value(SparsePauliOp(word[::-1])).real) for word in circuit.observables]


@pytest.mark.parametrize("card", sorted(available_cards()))
def test_every_card_survives_every_format(card: str) -> None:
    circuit = load_circuit(card, qubits=3, depth=2)
    size: dict[str, Any] = {"features": circuit.features, "weights": circuit.weights}
    gates = rotation_tree(circuit)  # of a card that encodes amplitudes; other circuits as they are
    for back, expected in (
        (Circuit.from_qiskit(circuit.to_qiskit()), gates),
        (Circuit.from_openqasm3(circuit.to_openqasm3()), gates),
        (Circuit.from_pennylane(circuit.to_pennylane(), **size), circuit),
    ):
        assert plain(back) == plain(expected)
        assert back.observables == circuit.observables
        assert (back.features, back.weights) == (expected.features, circuit.weights)


@pytest.mark.parametrize("encoding", ["zz", "iqp", "rx-ry-rz"])
def test_products_of_features_survive_every_format(encoding: str) -> None:
    circuit = load_circuit("ring-cz", qubits=3, depth=2, encoding=encoding, reupload=True)
    traced = Circuit.from_pennylane(circuit.to_pennylane(), features=3, weights=circuit.weights)
    assert plain(Circuit.from_qiskit(circuit.to_qiskit())) == plain(circuit)
    assert plain(Circuit.from_openqasm3(circuit.to_openqasm3())) == plain(circuit)
    assert plain(traced) == plain(circuit)


# PennyLane


def test_a_pennylane_function_with_templates() -> None:
    def function(inputs: torch.Tensor, weights: torch.Tensor) -> Any:
        qml.AngleEmbedding(math.pi * inputs, wires=range(3), rotation="Y")
        qml.StronglyEntanglingLayers(weights, wires=range(3))
        qml.adjoint(qml.S)(2)
        qml.CRX(inputs[0] * weights[0, 0, 0] / 2 + 1, wires=[2, 0])
        return qml.expval(qml.Z(0) @ qml.X(2)), qml.expval(qml.Y(1))

    circuit = Circuit.from_pennylane(function, features=3, weights=(2, 3, 3))
    assert circuit.weights == 18
    assert circuit.observables == ("ZIX", "IYI")
    assert circuit.gates[0] == Gate("ry", (0,), Angle(math.pi, (Factor(0),)))
    assert circuit.gates[-1] == Gate("crx", (2, 0), Angle(0.5, (Factor(0),), 0, 1.0))
    x, w = torch.rand(3, dtype=torch.float64), torch.rand(2, 3, 3, dtype=torch.float64)
    node = qml.QNode(function, qml.device("default.qubit", wires=3))
    expected = [float(value) for value in node(x, w)]
    np.testing.assert_allclose(statevector_expectations(circuit, x.numpy(), w.flatten().numpy()), expected, atol=1e-12)


def test_a_qnode_keeps_the_order_of_its_devices_wires() -> None:
    node = qml.QNode(lambda w: (qml.RX(w[0], "b"), qml.CNOT(["b", "a"]), qml.expval(qml.Z("a")))[-1],
                     qml.device("default.qubit", wires=["a", "b"]))  # fmt: skip
    circuit = Circuit.from_pennylane(node, weights=1)
    assert plain(circuit) == [("rx", (1,), Angle(weight=0)), ("cx", (1, 0), None)]
    assert circuit.observables == ("ZI",)


def test_a_tape_keeps_its_numbers_or_trains_them() -> None:
    tape = qml.tape.QuantumScript([qml.RX(0.25, 0), qml.CNOT([0, 1]), qml.PhaseShift(0.5, 1)], [])
    kept, trained = Circuit.from_pennylane(tape), Circuit.from_pennylane(tape, weights=2)
    assert plain(kept)[::2] == [("rx", (0,), Angle(offset=0.25)), ("p", (1,), Angle(offset=0.5))]
    assert plain(trained)[::2] == [("rx", (0,), Angle(weight=0)), ("p", (1,), Angle(weight=1))]
    assert kept.observables == ("ZI", "IZ")
    with pytest.raises(InputError, match="0 or 2 weights for this tape"):
        Circuit.from_pennylane(tape, weights=1)


def test_an_amplitude_encoded_function_is_recognised() -> None:
    circuit = load_circuit("ring-cz", qubits=2, depth=1, encoding="amplitude", features=3)
    back = Circuit.from_pennylane(circuit.to_pennylane(), features=3, weights=circuit.weights)
    assert back.amplitude
    assert plain(back) == plain(circuit)

    def reversed_wires(features: torch.Tensor) -> Any:
        qml.AmplitudeEmbedding(features, wires=[1, 0], normalize=True, pad_with=0.0)
        return qml.expval(qml.Z(0))

    with pytest.raises(UnsupportedError, match="on all wires in order"):
        Circuit.from_pennylane(reversed_wires, features=4)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda x, w: qml.RX(torch.sin(x[0]), 0), "expected an angle of the form"),
        (lambda x, w: qml.RX(x[0] ** 2, 0), "expected an angle of the form"),
        (lambda x, w: qml.RX(x[0] + x[1], 0), "expected an angle of the form"),
        (lambda x, w: qml.RX(w[0] * w[1], 0), "at most one weight"),
        (lambda x, w: qml.RX(x[0], 0) if x[0] > 0.2 else qml.RY(x[0], 0), "gates that change with their values"),
        (lambda x, w: qml.RX(x.reshape(-1, 1)[:, 0], 0), "one number for the angle"),
        (lambda x, w: qml.measure(0), "has no decomposition"),
    ],
)
def test_functions_that_cannot_be_traced_are_refused(body: Any, message: str) -> None:
    def function(features: torch.Tensor, weights: torch.Tensor) -> Any:
        body(features, weights)
        return qml.expval(qml.Z(0))

    with pytest.raises(UnsupportedError, match=message):
        Circuit.from_pennylane(function, features=2, weights=2)


@pytest.mark.parametrize(
    "measure", [lambda: qml.probs(wires=0), lambda: qml.expval(qml.Z(0) + qml.X(0)), lambda: qml.expval(2 * qml.Z(0))]
)
def test_other_measurements_are_refused(measure: Any) -> None:
    with pytest.raises(UnsupportedError, match="Pauli word"):
        Circuit.from_pennylane(lambda x, w: (qml.RX(w[0], 0), measure())[1], weights=1)


def test_a_function_of_another_size_is_refused() -> None:
    circuit = load_circuit("ring-cz", qubits=2)
    with pytest.raises(InputError, match="expected a quantum function of 1 features and weights of shape"):
        Circuit.from_pennylane(circuit.to_pennylane(), features=1, weights=circuit.weights)
    with pytest.raises(InputError, match="expected a quantum function, a QNode or a tape, got int"):
        Circuit.from_pennylane(3)


# Qiskit and OpenQASM 3


@pytest.mark.parametrize("qubits", [1, 3])
def test_library_circuits_of_qiskit(qubits: int) -> None:
    ansatz = efficient_su2(qubits, reps=1)
    circuit = Circuit.from_qiskit(ansatz)
    assert (circuit.features, circuit.weights) == (0, ansatz.num_parameters)
    w = np.linspace(-3, 3, circuit.weights)
    state = Statevector(ansatz.assign_parameters(w))
    expected = [state.expectation_value(SparsePauliOp(word[::-1])).real for word in circuit.observables]
    np.testing.assert_allclose(statevector_expectations(circuit, np.zeros(0), w), expected, atol=1e-12)


def test_the_zz_feature_map_of_qiskit_is_read_as_features_and_products() -> None:
    circuit = Circuit.from_qiskit(zz_feature_map(2, reps=1))
    assert (circuit.features, circuit.weights) == (2, 0)
    pi = math.pi
    assert Gate("p", (1,), Angle(2.0, (Factor(0, -1.0, pi), Factor(1, -1.0, pi)))) in circuit.gates


def test_parameters_go_by_name_and_index_not_by_alphabet() -> None:
    qc, x, w = QuantumCircuit(2), ParameterVector("x", 3), ParameterVector("theta", 12)
    qc.rx(2 * x[1] + 0.5, 0)
    qc.barrier()
    qc.ry(w[10], 1)
    circuit = Circuit.from_qiskit(qc)
    assert (circuit.features, circuit.weights) == (3, 12)
    assert plain(circuit) == [("rx", (0,), Angle(2.0, (Factor(1),), None, 0.5)), ("ry", (1,), Angle(weight=10))]
    loose = QuantumCircuit(1)
    loose.rx(Parameter("a"), 0)
    loose.rx(Parameter("b"), 0)
    assert [gate.angle for gate in Circuit.from_qiskit(loose).gates] == [Angle(weight=0), Angle(weight=1)]


def test_gates_outside_the_table_are_named() -> None:
    qc = QuantumCircuit(3, 1)
    qc.ccx(0, 1, 2)
    with pytest.raises(UnsupportedError, match="expected gates of the table, got 'ccx'; decompose first"):
        Circuit.from_qiskit(qc)
    measured = QuantumCircuit(1, 1)
    measured.measure(0, 0)
    with pytest.raises(UnsupportedError, match="got 'measure'"):
        Circuit.from_qiskit(measured)
    other = QuantumCircuit(1)
    other.rx(Parameter("a").sin(), 0)
    with pytest.raises(UnsupportedError, match="expected an angle of the form"):
        Circuit.from_qiskit(other)


def test_a_gate_that_borrows_a_name_is_refused() -> None:
    text = 'OPENQASM 3.0;\ninclude "stdgates.inc";\ngate rzz(t) a, b { rz(t) a; }\nqubit[2] q;\nrzz(0.3) q[0], q[1];\n'
    with pytest.raises(UnsupportedError, match="expected 'rzz' to be the gate of the table"):
        Circuit.from_openqasm3(text)


def test_openqasm3_by_qiskit_is_read_too() -> None:
    circuit = load_circuit("ring-cz", qubits=3, depth=1, encoding="zz")
    back = Circuit.from_openqasm3(qasm3.dumps(circuit.to_qiskit()))
    assert plain(back) == plain(circuit)
    assert (back.features, back.weights) == (3, circuit.weights)


def test_openqasm3_text_is_as_documented() -> None:
    gates = (Gate("rx", (0,), Angle(2.0, (Factor(0, -1.0, 0.5),), 1, -0.25)), Gate("cx", (0, 1)))
    assert Circuit(2, gates, ("ZI", "XY"), 1, 2).to_openqasm3().splitlines() == [
        "OPENQASM 3.0;",
        'include "stdgates.inc";',
        "// observables: ZI XY",
        "input float[64] x_0;",
        "input float[64] w_0;",
        "input float[64] w_1;",
        "qubit[2] q;",
        "rx(2.0 * (0.5 - x_0) * w_1 + (-0.25)) q[0];",
        "cx q[0], q[1];",
    ]
    with pytest.raises(InputError, match="expected OpenQASM 3 that Qiskit can import"):
        Circuit.from_openqasm3("not a program")


def test_the_order_of_bits_is_turned() -> None:
    assert qiskit_label("XIZ") == "ZIX"


# Amplitudes


@pytest.mark.parametrize("qubits", [1, 2, 3, 4])
def test_the_rotation_tree_prepares_the_amplitudes_with_their_signs(qubits: int) -> None:
    circuit = load_circuit("ring-cz", qubits=qubits, depth=1, encoding="amplitude", features=2**qubits)
    tree = rotation_tree(circuit)
    samples = torch.randn(6, 2**qubits, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    samples[0, 1:] = 0
    samples[1, : 2 ** (qubits - 1)] = 0
    samples[2] *= 1e-200
    preparation = Circuit(qubits, tree.gates[: -len(circuit.gates)], tree.observables, tree.features, 0)
    exported = preparation.to_qiskit()
    for sample, row in zip(samples, tree_angles(circuit, samples), strict=True):
        bound = exported.assign_parameters({p: float(row[p.index]) for p in exported.parameters})
        state = Statevector(bound.reverse_bits()).data
        expected = (sample / sample.abs().max()).numpy()
        np.testing.assert_allclose(state, expected / np.linalg.norm(expected), rtol=0, atol=1e-14)
    assert tree.features == 2**qubits - 1
    assert not tree.amplitude


def test_amplitude_mistakes_are_refused() -> None:
    circuit = load_circuit("ring-cz", qubits=2, depth=1, encoding="amplitude", features=3)
    with pytest.raises(InputError, match="zero or not finite"):
        tree_angles(circuit, torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]))
    with pytest.raises(InputError, match=r"expected features of shape \(batch, 3\), got \(2, 4\)"):
        tree_angles(circuit, torch.ones(2, 4))
    node = qml.QNode(circuit.to_pennylane(), qml.device("default.qubit", wires=2))
    with pytest.raises(InputError, match="zero vector"):
        node(torch.zeros(3, dtype=torch.float64), torch.zeros(circuit.weights, dtype=torch.float64))
    mixed = Circuit(1, (Gate("rx", (0,), Angle(factors=(Factor(0),))),), ("Z",), 2, 0, amplitude=True)
    with pytest.raises(UnsupportedError, match="features in the amplitudes only"):
        rotation_tree(mixed)
    assert rotation_tree(Circuit(1, (), ("Z",), 0, 0)).features == 0
