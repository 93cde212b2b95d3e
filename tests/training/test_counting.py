"""Shift circuits against hand counts and PennyLane's own tapes, and what a sample costs in a model."""

from __future__ import annotations

import numpy as np
import pennylane as qml
import pytest
from torch import nn

from qunlearn.quantum import QuantumLayer, load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.describe import describe
from qunlearn.training.counting import INPUTS, Price, shift_circuits

MIXED = Circuit(
    qubits=2,
    gates=(
        Gate("rx", (0,), Angle(factors=(Factor(0),))),  # a feature: 2 terms
        Gate("h", (1,)),
        Gate("crx", (0, 1), Angle(weight=0)),  # a weight on a controlled rotation: 4 terms
        Gate("ry", (1,), Angle(weight=0)),  # the same weight again: 2 terms
        Gate("rz", (1,), Angle(offset=0.3)),  # a constant: none
        Gate("cz", (0, 1)),
        Gate("crz", (1, 0), Angle(factors=(Factor(1),))),  # a feature on a controlled rotation: 4 terms
        Gate("ry", (0,), Angle(weight=1, factors=(Factor(1),))),  # both: 2 terms, counted once
    ),
    observables=("ZI", "IZ"),
    features=2,
    weights=2,
)
REUPLOAD = load_circuit("reupload", qubits=3, depth=2)
AMPLITUDE = load_circuit("basic-entangler", qubits=3, depth=2, encoding="amplitude")


@pytest.mark.parametrize(
    ("circuit", "of_weights", "of_features", "of_both"),
    [
        (MIXED, 4 + 2 + 2, 2 + 4 + 2, 4 + 2 + 2 + 2 + 4),
        # 4 qubits, 2 layers: 3 rotations a wire in each, behind 3 encoding rotations a wire.
        (load_circuit("ring-cz", qubits=4, depth=2), 2 * 24, 2 * 12, 2 * 36),
        # Sim et al.'s circuit 14: two columns of RY and two rings of CRX on 4 wires.
        (load_circuit("sim-14", qubits=4, depth=1, encoding="none"), 2 * 8 + 4 * 8, 0, 2 * 8 + 4 * 8),
        # Amplitude encoding is a tree of 7 rotations on 3 wires; basic-entangler has a rotation a wire and layer.
        (AMPLITUDE, 2 * 6, 2 * 7, 2 * 13),
    ],
)
def test_shift_circuits_equal_hand_counts(circuit: Circuit, of_weights: int, of_features: int, of_both: int) -> None:
    assert shift_circuits(circuit, weights=True, features=False) == of_weights
    assert shift_circuits(circuit, weights=False, features=True) == of_features
    assert shift_circuits(circuit, weights=True, features=True) == of_both
    assert shift_circuits(circuit, weights=False, features=False) == 0
    described = describe(circuit)
    assert described.shift_circuits() == of_weights
    assert described.shift_circuits(features=True) == of_both


@pytest.mark.parametrize(
    "circuit",
    [MIXED, REUPLOAD, load_circuit("sim-14", qubits=3, depth=2, encoding="none")],
    ids=["mixed", "reupload", "sim-14"],
)
@pytest.mark.parametrize(("weights", "features"), [(True, False), (False, True), (True, True)])
def test_shift_circuits_are_the_tapes_that_pennylane_makes(circuit: Circuit, weights: bool, features: bool) -> None:
    rng = np.random.default_rng(0)
    with qml.queuing.AnnotatedQueue() as queue:
        circuit.to_pennylane()(rng.random(circuit.features), rng.random(circuit.weights))
    tape = qml.tape.QuantumScript.from_queue(queue)
    angles = [gate.angle for gate in circuit.gates if gate.angle is not None]
    assert len(angles) == len(tape.get_parameters(trainable_only=False))
    tape.trainable_params = [
        i for i, a in enumerate(angles) if (weights and a.weight is not None) or (features and a.factors)
    ]
    tapes = qml.gradients.param_shift(tape)[0] if tape.trainable_params else []
    assert shift_circuits(circuit, weights=weights, features=features) == len(tapes)


def test_the_price_of_a_sample_depends_on_what_is_differentiated() -> None:
    model = nn.Sequential(nn.Linear(4, 2), QuantumLayer(MIXED), nn.Linear(2, 3))
    price = Price(model)
    assert price.circuits == 1
    for names, wanted in (
        ({"2.weight", "2.bias"}, 0),
        ({"1.weights"}, 8),
        ({"1.weights", "2.bias"}, 8),
        ({"0.bias"}, 8),
        ({INPUTS}, 8),
        ({INPUTS, "1.weights"}, 14),
        ({name for name, _ in model.named_parameters()}, 14),
        (set(), 0),
    ):
        assert price.shifts(frozenset(names)) == wanted, names
        assert price.shifts(frozenset(names)) == wanted, "the second answer is the first"


def test_circuits_in_a_row_are_priced_one_by_one() -> None:
    model = nn.Sequential(QuantumLayer(MIXED), QuantumLayer(MIXED))
    price = Price(model)
    assert price.circuits == 2
    assert price.shifts(frozenset({"1.weights"})) == 8
    assert price.shifts(frozenset({"0.weights"})) == 8 + 8, "the second circuit by its features"
    assert price.shifts(frozenset({"0.weights", "1.weights"})) == 8 + 14


def test_a_lone_layer_and_a_model_without_circuits_have_prices() -> None:
    assert Price(QuantumLayer(MIXED)).shifts(frozenset({"weights"})) == 8
    assert Price(nn.Linear(2, 2)).circuits == 0
    assert Price(nn.Linear(2, 2)).shifts(frozenset({"weight", INPUTS})) == 0
