"""Quantum Fisher information against finite differences, PennyLane, closed forms and true infidelities."""

from __future__ import annotations

import math

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import Tensor

from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.quantum import engines, fisher
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.fisher import metric_tensor, quantum_fisher, shift_fisher_diagonal, state_jacobian
from qunlearn.quantum.layer import QuantumLayer, weights_by_depth
from qunlearn.quantum.states import fidelity
from tests.quantum.cases import CIRCUITS, SMALL, dense, draw, every_circuit

ALL = {**CIRCUITS, "shared": SMALL}
PAULI_CARDS = ["ring-cz", "reupload", "sim-01", "sim-02", "sim-09", "sim-10", "sim-12", "sim-15", "strongly-entangling"]


def numeric_jacobian(circuit: Circuit, x: Tensor, w: Tensor, step: float = 1e-5) -> Tensor:
    """By central differences of states that are built gate by gate."""
    rows = []
    for sample in x.unbind(0):
        slopes = []
        for k in range(len(w)):
            unit = torch.zeros_like(w)
            unit[k] = step
            slopes.append(
                (dense(circuit, sample, w + unit) - dense(circuit, sample, w - unit)).reshape(-1) / (2 * step)
            )
        rows.append(torch.stack(slopes))
    return torch.stack(rows)


def numeric_metric(circuit: Circuit, x: Tensor, w: Tensor) -> Tensor:
    slopes = numeric_jacobian(circuit, x, w)
    states = torch.stack([dense(circuit, sample, w).reshape(-1) for sample in x])
    found = torch.zeros(len(w), len(w), dtype=torch.float64)
    for state, rows in zip(states, slopes, strict=True):
        along = rows @ state.conj()
        found += (rows.conj() @ rows.T - torch.outer(along.conj(), along)).real
    return found / len(x)


@pytest.mark.parametrize("circuit", ALL.values(), ids=ALL)
def test_jacobian_and_metric_equal_finite_differences(circuit: Circuit) -> None:
    x, w = draw(circuit)
    found = state_jacobian(circuit, x, w)
    assert found.shape == (3, circuit.weights, 2**circuit.qubits)
    assert (found - numeric_jacobian(circuit, x, w)).abs().max() < 1e-8
    metric = metric_tensor(circuit, x, w)
    assert (metric - numeric_metric(circuit, x, w)).abs().max() < 1e-8
    assert torch.equal(quantum_fisher(circuit, x, w), 4 * metric)
    assert metric.abs().max() > 1e-3


@pytest.mark.parametrize(
    "card", ["ring-cz", "sim-03", "sim-06", "sim-14", "sim-19", "strongly-entangling", "efficient-su2"]
)
def test_metric_equals_pennylane_s(card: str) -> None:
    circuit = load_circuit(card, qubits=3, depth=2)
    x, w = draw(circuit, batch=1)
    node = qml.QNode(circuit.to_pennylane(), qml.device("default.qubit", wires=circuit.qubits))
    theirs = qml.adjoint_metric_tensor(node)(
        qml.numpy.array(x[0].numpy(), requires_grad=False), qml.numpy.array(w.numpy())
    )
    assert np.abs(metric_tensor(circuit, x, w).numpy() - np.asarray(theirs)).max() < 1e-10


def test_quantum_fisher_equals_pennylane_s() -> None:
    circuit = load_circuit("ring-cz", qubits=3, depth=1)
    x, w = draw(circuit, batch=1)
    node = qml.QNode(circuit.to_pennylane(), qml.device("default.qubit", wires=circuit.qubits))
    theirs = qml.gradients.quantum_fisher(node)(
        qml.numpy.array(x[0].numpy(), requires_grad=False), qml.numpy.array(w.numpy())
    )
    assert np.abs(quantum_fisher(circuit, x, w).numpy() - np.asarray(theirs)).max() < 1e-10


@every_circuit
def test_blocks_are_parts_of_the_whole(circuit: Circuit) -> None:
    x, w = draw(circuit)
    full = metric_tensor(circuit, x, w)
    assert torch.allclose(metric_tensor(circuit, x, w, blocks="diagonal"), torch.diag(full.diagonal()), atol=1e-13)
    layer = metric_tensor(circuit, x, w, blocks="layer")
    same = torch.zeros_like(full, dtype=torch.bool)
    for indices in weights_by_depth(circuit).values():
        same[torch.tensor(indices)[:, None], torch.tensor(indices)] = True
    assert torch.allclose(layer, torch.where(same, full, 0.0), atol=1e-13)
    if circuit.depth > 1:
        assert full[~same].abs().max() > 1e-3, "the case must have something between layers"


def test_samples_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = CIRCUITS["ring-cz"]
    x, w = draw(circuit, batch=7)
    whole = metric_tensor(circuit, x, w)
    monkeypatch.setattr(fisher, "NUMBERS", 2 * circuit.weights * 2**circuit.qubits)
    assert torch.allclose(metric_tensor(circuit, x, w), whole, atol=1e-14)
    mean = torch.stack([metric_tensor(circuit, row[None], w) for row in x]).mean(0)
    assert torch.allclose(mean, whole, atol=1e-14)


def test_a_small_move_loses_the_fidelity_that_the_metric_says() -> None:
    circuit = CIRCUITS["iqp"]
    x, w = draw(circuit)
    step = 1e-3 * torch.randn(circuit.weights, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    before, after = engines.state(circuit, x, w), engines.state(circuit, x, w + step)
    lost = float((1 - fidelity(before, after)).mean())
    assert float(step @ quantum_fisher(circuit, x, w) @ step) / 4 == pytest.approx(lost, rel=1e-2)


def test_a_turned_wire_has_the_closed_form() -> None:
    """RY(a) RZ(b) on |0>: RY has information 1, RZ sin(a)^2, nothing between them."""
    circuit = Circuit(1, (Gate("ry", (0,), Angle(weight=0)), Gate("rz", (0,), Angle(weight=1))), ("Z",), 0, 2)
    w = torch.tensor([0.7, 1.1], dtype=torch.float64)
    found = quantum_fisher(circuit, torch.empty(1, 0, dtype=torch.float64), w)
    assert torch.allclose(found, torch.diag(torch.tensor([1.0, math.sin(0.7) ** 2], dtype=torch.float64)), atol=1e-14)


@pytest.mark.parametrize("card", PAULI_CARDS)
def test_the_shift_by_pi_is_the_diagonal(card: str) -> None:
    circuit = load_circuit(card, qubits=3, depth=2)
    x, w = draw(circuit)
    found = shift_fisher_diagonal(circuit, x, w)
    assert torch.allclose(found, quantum_fisher(circuit, x, w).diagonal(), atol=1e-12)
    assert found.max() > 0.1


def test_the_shift_by_pi_takes_scales_phases_and_idle_weights() -> None:
    gates = (
        Gate("h", (0,)),
        Gate("p", (0,), Angle(-0.7, (), 1, 0.2)),
        Gate("rx", (0,), Angle(weight=0)),
        Gate("rzz", (0, 1), Angle(2.0, (), 3)),
    )
    circuit = Circuit(2, gates, ("ZI",), 0, 4)
    x, w = draw(circuit)
    found = shift_fisher_diagonal(circuit, x, w)
    assert torch.allclose(found, quantum_fisher(circuit, x, w).diagonal(), atol=1e-12)
    assert found[2] == 0
    assert found[1] == pytest.approx(0.49)


@pytest.mark.parametrize(
    ("gates", "why"),
    [
        ((Gate("h", (0,)), Gate("crx", (0, 1), Angle(weight=0))), "has 3 eigenvalues"),
        ((Gate("rx", (0,), Angle(weight=0)), Gate("ry", (0,), Angle(weight=0))), "it turns several gates"),
        ((Gate("rx", (0,), Angle(factors=(Factor(0),), weight=0)),), "a feature multiplies it"),
    ],
    ids=["controlled", "shared", "features"],
)
def test_where_the_shift_by_pi_is_not_the_derivative_it_is_refused(gates: tuple[Gate, ...], why: str) -> None:
    circuit = Circuit(2, gates, ("ZI",), 1, 1)
    with pytest.raises(UnsupportedError, match=why):
        shift_fisher_diagonal(circuit, *draw(circuit))
    assert quantum_fisher(circuit, *draw(circuit)).shape == (1, 1)


def test_single_precision_is_computed_in_double() -> None:
    circuit = CIRCUITS["ring-cz"]
    x, w = draw(circuit, dtype=torch.float32)
    found = metric_tensor(circuit, x, w.requires_grad_())
    assert found.dtype == torch.float64
    assert torch.equal(found, metric_tensor(circuit, x.double(), w.detach().double()))
    assert not found.requires_grad


def test_what_it_cannot_take_is_refused() -> None:
    circuit = CIRCUITS["ring-cz"]
    x, w = draw(circuit)
    with pytest.raises(UnknownNameError, match="blocks"):
        metric_tensor(circuit, x, w, blocks="rows")  # type: ignore[arg-type]
    for features in (x[:0], x[0], x[:, :1]):
        with pytest.raises(InputError, match="at least one sample"):
            metric_tensor(circuit, features, w)
    with pytest.raises(UnsupportedError, match="without noise"):
        metric_tensor(circuit.with_noise({"depolarizing": 0.1}), x, w)


def test_overlaps_of_a_quantum_computer_are_counted_by_hand() -> None:
    circuit = load_circuit("ring-cz", qubits=2, depth=2)  # two layers of 6
    assert fisher.overlap_circuits(circuit, "diagonal") == 12
    assert fisher.overlap_circuits(circuit, "full") == 12 + 4 * 66
    assert fisher.overlap_circuits(circuit, "layer") == 2 * (6 + 4 * 15)


def test_weights_by_depth_are_the_layer_s_views() -> None:
    circuit = load_circuit("sim-10", qubits=3, depth=2)
    layer = QuantumLayer(circuit)
    assert weights_by_depth(circuit) == {"start": [0, 1, 2], "0": [3, 4, 5], "1": [6, 7, 8]}
    for name, view in layer.by_depth().items():
        assert torch.equal(view, layer.weights[weights_by_depth(circuit)[name]])
