"""State erasure: what can move a state, which neighbours are aimed at, and what is left afterwards."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods import Task, get
from qunlearn.methods.state_erasure import StateErasure, advantage, erasing_weights, infidelity, states_now
from qunlearn.models import HybridClassifier
from qunlearn.quantum import load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.engines import state
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training import train
from qunlearn.training.net import Net
from tests.methods.cases import hybrid_model, make_task, plain_model
from tests.methods.learnt import accuracy

Array = NDArray[np.complex128]


def kernel(circuit: Circuit, x: Tensor, weights: Tensor) -> Tensor:
    states = state(circuit, x, weights).flatten(1)
    return (states.conj() @ states.T).abs().square()


@pytest.mark.parametrize("card", ["ring-cz", "sim-02", "sim-13", "sim-14"])
@pytest.mark.parametrize("reupload", [False, True])
def test_the_erasing_weights_are_those_that_move_fidelities(card: str, reupload: bool) -> None:
    """The fact of encode-once circuits, and its converse: at generic angles none but these moves one."""
    circuit = load_circuit(card, qubits=4, depth=2, encoding="ry", reupload=reupload)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(6, circuit.features, generator=generator, dtype=torch.float64) * 2
    weights = torch.rand(circuit.weights, generator=generator, dtype=torch.float64) * 6
    before = kernel(circuit, x, weights)
    moves = []
    for index in range(circuit.weights):
        turned = weights.clone()
        turned[index] += 0.7
        if float((kernel(circuit, x, turned) - before).abs().max()) > 1e-9:
            moves.append(index)
    found = erasing_weights(circuit)
    assert set(moves) <= set(found), "a weight that moves a fidelity was called idle"
    assert reupload == bool(moves)
    assert reupload or found == ()


def test_the_cone_of_an_encoding_gate_is_followed_through_entanglers() -> None:
    upload = Angle(factors=(Factor(0),))
    gates = (
        Gate("rx", (0,), upload), Gate("ry", (0,), Angle(weight=0)), Gate("ry", (1,), Angle(weight=1)),
        Gate("ry", (2,), Angle(weight=2)), Gate("cx", (1, 0)), Gate("rx", (0,), upload),
        Gate("ry", (0,), Angle(weight=3)), Gate("rx", (2,), Angle(factors=(Factor(1),), weight=4)),
    )  # fmt: skip
    circuit = Circuit(3, gates, ("ZII",), 2, 5)
    assert erasing_weights(circuit) == (0, 1, 2, 4)


def test_a_model_in_which_nothing_can_erase_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match="angles behind the encoding are one unitary for all inputs"):
        StateErasure()(hybrid_model(), make_task())
    with pytest.raises(InputError, match="expected a model with one circuit for state-erasure, got none"):
        StateErasure()(plain_model(), make_task())
    circuit = load_circuit("ring-cz", qubits=4, depth=2, reupload=True)
    frozen = HybridClassifier(circuit, 3, control="frozen", dtype=torch.float64)
    with pytest.raises(InputError, match="expected a trained encoder or angles before the last encoding gate"):
        StateErasure()(frozen, make_task())


def test_an_encode_once_circuit_behind_a_trained_encoder_is_taken() -> None:
    circuit = load_circuit("ring-cz", qubits=2, depth=1)
    model = HybridClassifier(circuit, 3, encoder="cnn", inputs=(1, 4, 4), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(24, 1, 4, 4, generator=generator, dtype=torch.float64), torch.arange(24) % 3
    data = Dataset(x, y)
    task = Task(data.select(range(6)), data.select(range(6, 24)))
    result = StateErasure(epochs=15, repair=1, erase_weight=20.0)(model, task).model
    nearer = [mean_fidelity(m, task) for m in (model, result)]
    assert nearer[1] > nearer[0]
    moved = dict(result.named_parameters())
    assert any(not torch.equal(p, moved[n]) for n, p in model.named_parameters() if n.startswith("encoder."))


def mean_fidelity(model: nn.Module, task: Task) -> float:
    """Of forget samples with all retain samples of their class."""
    ours, theirs = (states_now(Net(model), data.x).numpy() for data in (task.forget, task.retain))
    same = (task.forget.y[:, None] == task.retain.y).numpy()
    return float((np.abs(ours.conj() @ theirs.T) ** 2)[same].mean())


@pytest.mark.parametrize("forget_class", [None, 1])
def test_neighbours_are_the_retain_samples_of_greatest_fidelity(forget_class: int | None) -> None:
    task, model = make_task(forget_class=forget_class), hybrid_model(reupload=True)
    memo = StateErasure(neighbours=3).prepare(Net(model), task, torch.Generator())
    layer = model.quantum
    assert isinstance(layer, QuantumLayer)
    with torch.no_grad():
        ours, theirs = (layer.state(d.x).flatten(1).numpy() for d in (task.forget, task.retain))
    for row, label, near in zip(ours, task.forget.y.tolist(), memo["near"].tolist(), strict=True):
        fidelities = np.abs(theirs.conj() @ row) ** 2
        if forget_class is None:  # of its own class alone; of a deleted class, of all that are left
            fidelities[(task.retain.y != label).numpy()] = -1
        assert near == np.argsort(-fidelities, kind="stable")[:3].tolist()


def test_neighbours_by_inputs_are_of_any_class_and_never_more_than_there_are() -> None:
    task, model = make_task(), hybrid_model(reupload=True)
    memo = StateErasure(neighbours=2, nearest="inputs").prepare(Net(model), task, torch.Generator())
    distance = np.linalg.norm(task.forget.x.numpy()[:, None] - task.retain.x.numpy(), axis=2)
    assert memo["near"].tolist() == np.argsort(distance, axis=1, kind="stable")[:, :2].tolist()
    many = StateErasure(neighbours=500).prepare(Net(model), task, torch.Generator())
    assert many["near"].shape == (6, 10), "10 retain samples of each class"


def random_states(seed: int, number: int, size: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(number, size, dtype=torch.complex128, generator=generator)
    return torch.nn.functional.normalize(drawn, dim=1)


def by_hand(ours: Array, theirs: Array) -> float:
    """Two folds, measurement by measurement."""
    total = 0.0
    for fitted, scored in ((0, 1), (1, 0)):
        rho = [sum(np.outer(s, s.conj()) for s in side[fitted::2]) / len(side[fitted::2]) for side in (ours, theirs)]
        values, vectors = np.linalg.eigh(rho[0] - rho[1])
        for k in range(len(values)):
            if values[k] > 0:
                seen = [
                    np.mean([abs(np.vdot(vectors[:, k], s)) ** 2 for s in side[scored::2]]) for side in (ours, theirs)
                ]
                total += (seen[0] - seen[1]) / 2
    return float(total)


def test_the_advantage_is_that_of_fitted_measurements() -> None:
    ours, theirs = random_states(0, 7), random_states(1, 9)
    assert float(advantage(ours, theirs)) == pytest.approx(by_hand(ours.numpy(), theirs.numpy()), abs=1e-12)
    zero, one = torch.eye(2, dtype=torch.complex128).expand(4, 2, 2).unbind(1)
    assert float(advantage(zero, one)) == pytest.approx(1)
    assert float(infidelity(zero, one)) == 1
    assert float(infidelity(ours, ours * 1j)) == pytest.approx(0)
    assert float(advantage(ours[:1], theirs[:1])) == pytest.approx(float(infidelity(ours[:1], theirs[:1])))


@pytest.fixture(scope="module")
def task() -> Task:
    return dataclasses.replace(make_task(forget_class=1, retain=60, forget=30), validation=None)


def deeper() -> HybridClassifier:
    circuit = load_circuit("ring-cz", qubits=4, depth=4, reupload=True)
    return HybridClassifier(circuit, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def original(task: Task) -> nn.Module:
    data = Dataset(torch.cat([task.forget.x, task.retain.x]), torch.cat([task.forget.y, task.retain.y]))
    model = train(deeper(), data, epochs=60, learning_rate=0.02, keep="last", progress=False)
    assert accuracy(model, task.forget) > 0.9 < accuracy(model, task.retain)
    return model


def held_out(model: nn.Module) -> float:
    """The advantage between unseen samples of the forgotten class and of the others, on the whole register."""
    fresh = make_task(seed=5, forget_class=1, retain=120, forget=60)
    ours, theirs = (states_now(Net(model), data.x).numpy() for data in (fresh.forget, fresh.retain))
    return by_hand(ours, theirs[np.random.default_rng(0).permutation(len(theirs))])


@pytest.mark.parametrize("objective", ["targets", "helstrom"])
def test_it_erases_what_editing_the_head_only_hides(task: Task, original: nn.Module, objective: str) -> None:
    settings: dict[str, Any] = {"learning_rate": 0.02, "batch_size": 32}
    hidden = get({"name": "head-only", "epochs": 30, **settings})(original, task, seed=0).model
    erased = get({"name": "state-erasure", "objective": objective, "erase_weight": 5.0, **settings})(
        original, task, seed=0
    ).model
    assert accuracy(hidden, task.forget) < 0.1
    assert accuracy(erased, task.forget) < 0.1
    assert accuracy(erased, task.retain) > 0.9
    assert held_out(hidden) == pytest.approx(held_out(original), abs=1e-12)
    assert held_out(erased) < held_out(original) - 0.1


def test_the_repair_cannot_bring_back_what_was_erased(task: Task, original: nn.Module) -> None:
    """Without a step of erasing, the repair alone: the fidelities of all pairs stay, the outputs do not."""
    moved = StateErasure(epochs=1, rate=0.0, repair=5, learning_rate=0.05)(original, task, seed=0).model
    before, after = (states_now(Net(m), task.retain.x) for m in (original, moved))
    assert float((before - after).abs().max()) > 1e-3, "the last angles were to move"
    fidelities = [(states.conj() @ states.T).abs().square() for states in (before, after)]
    torch.testing.assert_close(*fidelities, rtol=0, atol=1e-12)
    heads = [dict(m.named_parameters())["head.fc1.weight"] for m in (original, moved)]
    assert not torch.equal(*heads)


def test_the_hold_keeps_retain_states_where_they_were(task: Task, original: nn.Module) -> None:
    def kept(weight: float) -> float:
        method = StateErasure(epochs=15, repair=1, hold_weight=weight, learning_rate=0.02, batch_size=32)
        result = method(original, task, seed=0).model
        before, after = (states_now(Net(m), task.retain.x).numpy() for m in (original, result))
        # The repair turns all states alike, hence Gram matrices.
        grams = [np.abs(states.conj() @ states.T) ** 2 for states in (before, after)]
        return float(np.abs(grams[0] - grams[1]).mean())

    assert kept(20.0) < 0.5 * kept(0.0)


def test_counts_equal_hand_counts() -> None:
    method = StateErasure(epochs=1, repair=1, batch_size=32)
    counts = method(hybrid_model(reupload=True), make_task()).record.counts
    # States of both sets (36); 6 forget samples with a neighbour each and 30 retain samples; a repair (30); the
    # original and the repaired model measured on forget and validation sets.
    assert counts.gradient_evaluations == 12 + 30 + 30
    assert counts.circuit_evaluations == 36 + 72 + 2 * (6 + 18)
    assert counts.hardware_circuits == counts.circuit_evaluations + 72 * 48
