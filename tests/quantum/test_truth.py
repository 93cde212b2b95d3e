"""Every engine, card and encoding, against PennyLane and Qiskit, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given, settings
from qiskit.primitives import StatevectorEstimator

from qunlearn.quantum.card import available_cards, load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.convert import qiskit_observables, tree_angles
from qunlearn.quantum.engines import expectations
from qunlearn.quantum.layer import QuantumLayer
from tests.quantum.cases import circuits, every_engine, gradients

BATCH = 3
VALUES, GRADIENTS = 1e-10, 1e-9
# A Z on every wire, and words that see all letters, more than one wire, and no wire.
WORDS = ["ZIII", "IZII", "IIZI", "IIIZ", "XYIZ", "IYXX", "IIII"]

ENCODINGS = [
    ("rx", False),
    ("rx", True),
    ("ry-rz", False),
    ("ry-rz", True),
    ("rx-ry-rz", False),
    ("rx-ry-rz", True),
    ("zz", False),
    ("zz", True),
    ("iqp", False),
    ("iqp", True),
    ("amplitude", False),
    ("none", False),
]


def draws(circuit: Circuit, seed: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Features ``(batch, features)`` and weights ``(weights,)`` of a generator, float64, with gradients."""
    generator = torch.Generator().manual_seed(seed)
    x = 4 * torch.rand(BATCH, circuit.features, generator=generator, dtype=torch.float64) - 2
    w = 8 * torch.rand(circuit.weights, generator=generator, dtype=torch.float64) - 4
    return x.requires_grad_(), w.requires_grad_()


def pennylane_expectations(circuit: Circuit, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Expectation values ``(batch, observables)`` by default.qubit."""
    device = qml.device("default.qubit", wires=circuit.qubits)
    node = qml.QNode(circuit.to_pennylane(), device, interface="torch", diff_method="backprop")
    columns = [torch.as_tensor(value).expand(len(x)) for value in node(x, w)]
    return torch.stack(columns, dim=1)


def qiskit_expectations(circuit: Circuit, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Expectation values ``(batch, observables)`` by the exact estimator: one PUB, parameters bound by object."""
    exported = circuit.to_qiskit()
    inputs = (tree_angles(circuit, x) if circuit.amplitude else x).detach().numpy()
    vectors = {"x": inputs, "w": np.tile(w.detach().numpy(), (len(inputs), 1))}
    parameters = tuple(exported.parameters)
    values = [vectors[p.vector.name][:, p.index] for p in parameters]
    observables: Any = [[operator] for operator in qiskit_observables(circuit)]
    pub = (exported, observables, {parameters: np.stack(values, axis=-1)}) if parameters else (exported, observables)
    result = StatevectorEstimator(default_precision=0.0).run([pub]).result()[0]
    return torch.as_tensor(np.asarray(result.data.evs).T).expand(len(inputs), len(circuit.observables))


def check(circuit: Circuit, with_qiskit: bool = True) -> None:
    """Both engines, PennyLane and Qiskit give the same values, and the first three the same gradients."""
    x, w = draws(circuit)
    theirs = pennylane_expectations(circuit, x, w)
    also = qiskit_expectations(circuit, x, w) if with_qiskit else theirs.detach()
    slopes = gradients(theirs, x, w)
    for engine in ("torch", "fused"):
        layer = QuantumLayer(circuit, engine=engine, dtype=torch.float64)
        ours = torch.func.functional_call(layer, {"weights": w}, (x,))
        assert ours.shape == (BATCH, len(circuit.observables))
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, theirs, rtol=0, atol=VALUES)
        torch.testing.assert_close(ours.detach(), also, rtol=0, atol=VALUES)
        for mine, other in zip(gradients(ours, x, w), slopes, strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=GRADIENTS)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("card", sorted(available_cards()))
def test_every_card_is_what_pennylane_and_qiskit_say(card: str, depth: int) -> None:
    words = WORDS if "observables" in available_cards()[card].knobs and depth == 2 else None
    check(load_circuit(card, qubits=4, depth=depth, observables=words))


@pytest.mark.parametrize(("encoding", "reupload"), ENCODINGS)
def test_every_encoding_is_what_pennylane_and_qiskit_say(encoding: str, reupload: bool) -> None:
    check(load_circuit("ring-cz", qubits=4, depth=2, encoding=encoding, reupload=reupload, observables=WORDS))


@pytest.mark.parametrize("card", ["ring-cz", "sim-06", "strongly-entangling"])
@pytest.mark.parametrize("qubits", [1, 2, 3, 5, 6, 9])
def test_other_widths_are_what_pennylane_and_qiskit_say(qubits: int, card: str) -> None:
    check(load_circuit(card, qubits=qubits, depth=2, encoding="ry-rz", reupload=True, observables=letters(qubits)))


def letters(qubits: int) -> list[str]:
    """A Z on every wire, and two words with other letters."""
    singles = ["I" * wire + "Z" + "I" * (qubits - wire - 1) for wire in range(qubits)]
    return [*singles, ("XYZ" * qubits)[:qubits], ("IYX" * qubits)[:qubits]]


@given(circuits(amplitude=False))
def test_random_circuits_are_what_pennylane_and_qiskit_say(circuit: Circuit) -> None:
    check(circuit)


@pytest.mark.slow
@settings(max_examples=400)
@given(circuits(amplitude=False))
def test_many_random_circuits_are_what_pennylane_and_qiskit_say(circuit: Circuit) -> None:
    check(circuit)


@settings(max_examples=25)
@given(circuits())
def test_features_may_be_amplitudes_and_angles_at_once(circuit: Circuit) -> None:
    check(replace(circuit, amplitude=True), with_qiskit=False)  # whose export cannot say this


@pytest.mark.parametrize("features", [1, 3, 5, 16])
def test_amplitudes_are_padded_and_normalised_alike(features: int) -> None:
    check(load_circuit("strongly-entangling", qubits=4, depth=1, encoding="amplitude", features=features))


def test_a_circuit_that_no_exchange_of_wires_leaves_alone() -> None:
    """CX and controlled rotations, not CZ, and a different angle on each wire; every exchange changes the values."""
    circuit = Circuit(
        3,
        (
            Gate("rx", (0,), Angle(factors=(Factor(0),))),
            Gate("ry", (1,), Angle(factors=(Factor(1),))),
            Gate("cx", (0, 2)),
            Gate("cry", (2, 1), Angle(weight=0)),
            Gate("ch", (1, 0)),
            Gate("crx", (0, 2), Angle(weight=1)),
            Gate("sx", (1,)),
        ),
        ("ZII", "IZI", "IIZ", "XYZ"),
        features=2,
        weights=2,
    )
    check(circuit)
    x, w = draws(circuit)
    values = expectations(circuit, x, w, "torch")
    for order in [(1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1)]:
        gates = tuple(Gate(g.name, tuple(order[wire] for wire in g.wires), g.angle) for g in circuit.gates)
        exchanged = Circuit(3, gates, circuit.observables, 2, 2)
        assert (expectations(exchanged, x, w, "torch") - values).abs().amax() > 0.05


@every_engine
@pytest.mark.parametrize("encoding", ["rx-ry-rz", "zz", "amplitude"])
def test_one_sample_needs_no_batch_axis(encoding: str, engine: str) -> None:
    circuit = load_circuit("ring-cz", qubits=3, depth=2, encoding=encoding)
    x, w = draws(circuit)
    sample = x[1].detach().requires_grad_()
    node = qml.QNode(circuit.to_pennylane(), qml.device("default.qubit", wires=3), interface="torch")
    theirs, ours = torch.stack(node(sample, w)), expectations(circuit, sample, w, engine)
    assert ours.shape == theirs.shape == (3,)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=VALUES)
    for mine, other in zip(gradients(ours, sample, w), gradients(theirs, sample, w), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=GRADIENTS)


def test_x_on_wire_0_of_two_is_read_on_wire_0_everywhere() -> None:
    circuit = Circuit(2, (Gate("x", (0,)),), ("ZI", "IZ"), 0, 0)
    x, w = torch.zeros(1, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    expected = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    for values in (
        expectations(circuit, x, w, "torch"),
        expectations(circuit, x, w, "fused"),
        pennylane_expectations(circuit, x, w),
        qiskit_expectations(circuit, x, w),
    ):
        torch.testing.assert_close(values.real.to(torch.float64), expected, rtol=0, atol=1e-15)
