"""A circuit with its angles laid open."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from qunlearn.errors import UnsupportedError
from qunlearn.quantum.backends import open_circuit
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Angle, Channel, Circuit, Factor, Gate
from qunlearn.quantum.engines import torch_engine
from qunlearn.quantum.gates import FOUR_TERMS, TWO_TERMS
from tests.quantum.cases import SMALL, draw, every_circuit

NOTHING = torch.zeros(0, dtype=torch.float64)


@every_circuit
def test_the_opened_circuit_gives_the_values_of_the_circuit(circuit: Circuit) -> None:
    opened, (x, w) = open_circuit(circuit), draw(circuit)
    angles = opened.angles(x, w)
    assert angles.shape == (3, opened.circuit.features)
    assert angles.dtype == torch.float64
    found = torch_engine.expectations(opened.circuit, angles, NOTHING)
    assert torch.allclose(found, torch_engine.expectations(circuit, x, w), rtol=0, atol=1e-12)


@every_circuit
def test_every_open_gate_has_an_angle_of_its_own(circuit: Circuit) -> None:
    opened = open_circuit(circuit)
    angles = [gate.angle for gate in opened.circuit.gates if gate.angle is not None and not gate.angle.constant]
    assert [angle for angle in angles if angle] == [Angle(factors=(Factor(k),)) for k in range(len(angles))]
    assert opened.circuit.features == len(angles) == len(opened.rules)
    assert opened.circuit.weights == 0
    assert opened.circuit.observables == circuit.observables


@every_circuit
def test_derivatives_go_through_the_angles(circuit: Circuit) -> None:
    opened, (x, w) = open_circuit(circuit), draw(circuit)
    x.requires_grad_()
    w.requires_grad_()
    found = torch_engine.expectations(opened.circuit, opened.angles(x, w), NOTHING).sin().sum()
    exact = torch_engine.expectations(circuit, x, w).sin().sum()
    for mine, theirs in zip(*(torch.autograd.grad(value, (x, w)) for value in (found, exact)), strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-10)


def test_angles_take_any_leading_axes_and_keep_the_batch() -> None:
    opened, (x, w) = open_circuit(SMALL), draw(SMALL, 6)
    assert torch.equal(opened.angles(x.reshape(2, 3, 2), w).flatten(0, 1), opened.angles(x, w))
    assert opened.angles(x[0], w).shape == (opened.circuit.features,)
    assert opened.angles(x[:0], w).shape == (0, opened.circuit.features)
    alone = load_circuit("sim-19", qubits=2, encoding="none")
    assert open_circuit(alone).angles(torch.zeros(5, 0), draw(alone)[1]).shape == (5, alone.weights)


def test_rules_come_from_the_gate_table_and_are_empty_where_nothing_is_felt() -> None:
    gates = (
        Gate("ry", (0,), Angle(weight=0)),
        Gate("crx", (0, 1), Angle(factors=(Factor(0),))),
        Gate("ry", (1,), Angle(offset=0.3)),
        Gate("rz", (0,), Angle(weight=1)),  # before a measurement of Z
        Gate("cp", (0, 1), Angle(2.0, (Factor(0),), 1)),
    )
    opened = open_circuit(Circuit(2, gates, ("ZI", "IZ"), 1, 2))
    assert opened.rules == (TWO_TERMS, FOUR_TERMS, (), ())
    assert opened.by_weight == (0, 2, 3)
    assert opened.by_feature == (1, 3)
    assert opened.positions(features=True, weights=False) == (1,)
    assert opened.positions(features=False, weights=True) == (0,)
    noisy = Circuit(2, gates, ("ZI", "IZ"), 1, 2, channels=(Channel("depolarizing", (0, 1), (0.1,), 1),))
    assert len(open_circuit(noisy).circuit.channels) == 1


def test_opening_is_kept_and_opens_nothing_twice() -> None:
    opened = open_circuit(SMALL)
    assert open_circuit(copy.deepcopy(SMALL)) is opened
    assert open_circuit(opened.circuit).circuit == opened.circuit


def test_amplitudes_become_a_tree_that_noise_does_not_strike() -> None:
    circuit = load_circuit("sim-13", qubits=2, encoding="amplitude").with_noise({"depolarizing": 0.1, "readout": 0.02})
    opened = open_circuit(circuit)
    tree = len(opened.circuit.gates) - len(circuit.gates)
    assert [c.after for c in opened.circuit.channels] == [c.after + tree for c in circuit.channels]
    assert opened.circuit.readout == circuit.readout
    assert opened.by_feature == (0, 1, 2)
    assert opened.positions(features=True, weights=False) == (0, 1, 2, 3)  # of the amplitudes


def test_rows_of_amplitudes_are_prepared_and_weighted_by_their_norm() -> None:
    circuit = load_circuit("sim-13", qubits=2, encoding="amplitude")
    opened, w = open_circuit(circuit), draw(circuit)[1]
    turned = opened.angles(torch.ones(1, 4), w)[:, 3:].numpy()
    rows = np.concatenate([np.array([[0.0, 2.0, 0.0, 0.0], [0.0] * 4]), np.repeat(turned, 2, 0)], axis=1)
    angles, factors = opened.rows(rows)
    assert np.isfinite(angles).all()
    assert factors.tolist() == [4.0, 0.0]
    found = torch_engine.expectations(opened.circuit, torch.from_numpy(angles[:1]), NOTHING)
    exact = torch_engine.expectations(circuit, torch.tensor([[0.0, 2.0, 0.0, 0.0]], dtype=torch.float64), w)
    assert torch.allclose(found, exact, rtol=0, atol=1e-12)


def test_features_in_amplitudes_and_angles_are_refused() -> None:
    gate = Gate("ry", (0,), Angle(math.pi, (Factor(0),)))
    with pytest.raises(UnsupportedError, match="expected features in the amplitudes only"):
        open_circuit(Circuit(1, (gate,), ("Z",), 2, 0, amplitude=True))
