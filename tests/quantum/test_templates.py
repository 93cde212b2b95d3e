"""Template cards and encodings against the libraries they follow, as unitaries or states in float64.

Qiskit's first qubit is the least significant, ours the most: its circuits are compared with bits reversed.
Weights: PennyLane's [layer, wire, angle] is ours (layer * wires + wire) * angles + angle, that is, its
flattened array; Qiskit numbers column by column and so do our cards: equal vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pennylane as qml
import pytest
import torch
from numpy.typing import NDArray
from qiskit.circuit.library import efficient_su2, real_amplitudes, z_feature_map, zz_feature_map
from qiskit.quantum_info import Operator

from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.engines import state

Matrix = NDArray[np.complex128]
SIZES = pytest.mark.parametrize("depth", [1, 2, 3])
WIRES = pytest.mark.parametrize("qubits", [1, 2, 3, 4, 5])
ATOL = 1e-12


def draw(*shape: int) -> NDArray[np.float64]:
    return np.random.default_rng(sum(shape)).uniform(-4, 4, shape)


def unitary(circuit: Circuit, weights: NDArray[np.float64]) -> Matrix:
    """The unitary of a circuit without encoding: basis states in, as amplitudes, columns out."""
    assert circuit.features == 0
    size = 2**circuit.qubits
    fed = replace(circuit, amplitude=True, features=size)
    columns = state(fed, torch.eye(size, dtype=torch.float64), torch.as_tensor(weights.reshape(-1)))
    return columns.reshape(size, size).T.numpy()


def encoded(encoding: str | dict[str, object], x: NDArray[np.float64]) -> Matrix:
    """The state that an encoding makes of one sample."""
    circuit = load_circuit("sim-01", qubits=len(x), encoding=encoding)
    first = replace(circuit, gates=tuple(gate for gate in circuit.gates if gate.angle is None or gate.angle.factors))
    return state(first, torch.as_tensor(x), torch.zeros(circuit.weights)).reshape(-1).numpy()


def qiskit_matrix(circuit: Any, values: NDArray[np.float64]) -> Matrix:
    bound = circuit.assign_parameters(values)
    return np.asarray(Operator(bound).reverse_qargs().data)


def same_up_to_phase(ours: Matrix, theirs: Matrix) -> None:
    overlap = np.vdot(theirs, ours) / np.vdot(theirs, theirs)
    assert abs(abs(overlap) - 1) < ATOL
    np.testing.assert_allclose(ours, overlap * theirs, rtol=0, atol=ATOL)


@SIZES
@WIRES
def test_basic_entangler_is_pennylanes_template(qubits: int, depth: int) -> None:
    weights = draw(depth, qubits)
    operator = qml.BasicEntanglerLayers(weights, wires=range(qubits))
    ours = unitary(load_circuit("basic-entangler", qubits=qubits, depth=depth, encoding="none"), weights)
    np.testing.assert_allclose(ours, qml.matrix(operator, wire_order=range(qubits)), rtol=0, atol=ATOL)


def test_basic_entangler_takes_another_rotation_as_the_template_does() -> None:
    weights = draw(2, 3)
    operator = qml.BasicEntanglerLayers(weights, wires=range(3), rotation=qml.RY)
    circuit = load_circuit("basic-entangler", qubits=3, depth=2, encoding="none", rotations="ry")
    np.testing.assert_allclose(unitary(circuit, weights), qml.matrix(operator, wire_order=range(3)), rtol=0, atol=ATOL)


@SIZES
@WIRES
def test_strongly_entangling_is_pennylanes_template(qubits: int, depth: int) -> None:
    weights = draw(depth, qubits, 3)
    operator = qml.StronglyEntanglingLayers(weights, wires=range(qubits))
    ours = unitary(load_circuit("strongly-entangling", qubits=qubits, depth=depth, encoding="none"), weights)
    np.testing.assert_allclose(ours, qml.matrix(operator, wire_order=range(qubits)), rtol=0, atol=ATOL)


@SIZES
@WIRES
@pytest.mark.parametrize(("name", "make"), [("real-amplitudes", real_amplitudes), ("efficient-su2", efficient_su2)])
def test_qiskit_ansatz_cards_are_the_library_functions(
    name: str, make: Callable[..., Any], qubits: int, depth: int
) -> None:
    circuit = load_circuit(name, qubits=qubits, depth=depth, encoding="none")
    weights = draw(circuit.weights)
    theirs = qiskit_matrix(make(qubits, reps=depth), weights)
    np.testing.assert_allclose(unitary(circuit, weights), theirs, rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("linear", "linear"), ("reverse-linear", "reverse_linear"), ("all", "full")]
)
def test_the_patterns_of_qiskit_ansatz_cards_are_the_librarys(ours: str, theirs: str) -> None:
    circuit = load_circuit("real-amplitudes", qubits=4, depth=2, encoding="none", entanglement=ours)
    weights = draw(circuit.weights)
    expected = qiskit_matrix(real_amplitudes(4, reps=2, entanglement=theirs), weights)
    np.testing.assert_allclose(unitary(circuit, weights), expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("repeats", [1, 2, 3])
@WIRES
def test_zz_encoding_is_qiskits_feature_map(qubits: int, repeats: int) -> None:
    x = draw(qubits)
    make = zz_feature_map if qubits > 1 else z_feature_map
    theirs = qiskit_matrix(make(qubits, reps=repeats), x)[:, 0]
    same_up_to_phase(encoded({"name": "zz", "repeats": repeats}, x), theirs)


def test_zz_encoding_takes_qiskits_entanglement_and_alpha() -> None:
    x = draw(4)
    theirs = qiskit_matrix(zz_feature_map(4, reps=1, entanglement="linear", alpha=1.3), x)[:, 0]
    same_up_to_phase(encoded({"name": "zz", "entanglement": "linear", "scale": 1.3}, x), theirs)


@pytest.mark.parametrize("repeats", [1, 2])
@WIRES
def test_iqp_encoding_is_pennylanes_embedding(qubits: int, repeats: int) -> None:
    x = draw(qubits)
    operator = qml.IQPEmbedding(x, wires=range(qubits), n_repeats=repeats)
    theirs = qml.matrix(operator, wire_order=range(qubits))[:, 0]
    np.testing.assert_allclose(encoded({"name": "iqp", "repeats": repeats}, x), theirs, rtol=0, atol=ATOL)


@pytest.mark.parametrize("rotation", ["X", "Y"])
def test_angle_encoding_is_pennylanes_embedding(rotation: str) -> None:
    x = draw(4)
    operator = qml.AngleEmbedding(x, wires=range(4), rotation=rotation)
    theirs = qml.matrix(operator, wire_order=range(4))[:, 0]
    np.testing.assert_allclose(encoded(f"r{rotation.lower()}", x), theirs, rtol=0, atol=ATOL)


@pytest.mark.parametrize("width", [1, 3, 6, 8])
def test_amplitude_encoding_is_pennylanes_embedding(width: int) -> None:
    x = draw(width)

    def prepare() -> Any:
        qml.AmplitudeEmbedding(x, wires=range(3), pad_with=0.0, normalize=True)
        return qml.state()

    circuit = load_circuit("sim-01", qubits=3, encoding="amplitude", features=width)
    ours = state(replace(circuit, gates=()), torch.as_tensor(x), torch.zeros(circuit.weights))
    theirs = qml.QNode(prepare, qml.device("default.qubit", wires=3))()
    np.testing.assert_allclose(ours.reshape(-1).numpy(), theirs, rtol=0, atol=ATOL)
