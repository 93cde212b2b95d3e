"""Kernel-guided unlearning: its teacher against kernel ridge by hand, what the teacher knows, and what is learnt."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods import KernelGuided, Task
from qunlearn.methods.kernel_guided import STEPS, decided, embedded, fidelities, left_out
from qunlearn.models import HybridClassifier, QuantumKernelClassifier
from qunlearn.models.stream import Stream
from qunlearn.quantum import load_circuit
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Samples
from tests.methods.cases import hybrid_model, make_task, plain_model
from tests.methods.learnt import accuracy, clusters

TASK = make_task()


def memo_of(task: Task, model: nn.Module | None = None, seed: int = 0, **settings: Any) -> tuple[Net, dict[str, Any]]:
    """What the method prepares, with the teacher's answers."""
    method, net = KernelGuided(**settings), Net(model or hybrid_model())
    memo = method.prepare(net, task, torch.Generator().manual_seed(seed))
    stream = Stream(torch.Generator().manual_seed(0))
    return net, method.calibrate(net, memo, stream) if memo else memo


def states(number: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(number, 8, dtype=torch.complex128, generator=generator)
    return torch.nn.functional.normalize(drawn, dim=1)


def test_decisions_are_those_of_kernel_ridge_regression() -> None:
    retain, other, ridge = states(12), states(5, seed=1), 0.3
    labels = torch.nn.functional.one_hot(torch.arange(12) % 3, 3).double()
    a, b = retain.numpy(), other.numpy()
    kernel = np.array([[abs(np.vdot(x, y)) ** 2 for y in a] for x in a])
    cross = np.array([[abs(np.vdot(x, y)) ** 2 for y in a] for x in b])
    wanted = cross @ np.linalg.inv(kernel + ridge * np.eye(12)) @ labels.numpy()
    (found,) = decided(retain, labels, ridge, [other])
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


def test_leaving_one_out_equals_solving_without_it() -> None:
    retain = states(9)
    labels = torch.nn.functional.one_hot(torch.arange(9) % 2, 2).double()
    found = left_out(retain, labels, 0.1)
    for one in range(9):
        others = torch.arange(9) != one
        (wanted,) = decided(retain[others], labels[others], 0.1, [retain[[one]]])
        torch.testing.assert_close(found[[one]], wanted, rtol=0, atol=1e-12)


def test_the_embedding_is_the_circuit_with_other_weights() -> None:
    model = hybrid_model()
    (one,), (again,), (other,) = (embedded(Net(model), [TASK.retain.x], seed) for seed in (1, 1, 2))
    torch.testing.assert_close(one.abs().square().sum(1), torch.ones(30, dtype=torch.float64))
    assert torch.equal(one, again)
    now = QuantumKernelClassifier.embedding_of(model).gram(TASK.retain.x)
    # One unitary behind a single encoding: whatever the weights are, fidelities are those of the encoding alone.
    torch.testing.assert_close(fidelities(one, one), now, rtol=0, atol=1e-12)
    torch.testing.assert_close(fidelities(one, one), fidelities(other, other), rtol=0, atol=1e-12)
    uploading = hybrid_model(reupload=True)
    (one,), (other,) = (embedded(Net(uploading), [TASK.retain.x], seed) for seed in (1, 2))
    assert float((fidelities(one, one) - fidelities(other, other)).abs().max()) > 0.1


def test_the_teacher_does_not_depend_on_labels_or_weights_that_saw_the_forget_set() -> None:
    flipped = dataclasses.replace(
        TASK, forget=Dataset(TASK.forget.x, (TASK.forget.y + 1) % 3, TASK.forget.ids), validation=TASK.validation
    )
    _, memo = memo_of(TASK, hybrid_model(reupload=True))
    _, other = memo_of(flipped, hybrid_model(reupload=True))
    _, elsewhere = memo_of(TASK, hybrid_model(seed=5, reupload=True))
    assert torch.equal(memo["targets"], other["targets"])
    torch.testing.assert_close(memo["forget"], elsewhere["forget"], rtol=0, atol=1e-12)


def test_principal_components_are_learnt_from_the_retain_set() -> None:
    circuit = load_circuit("ring-cz", qubits=2, depth=1)
    model = HybridClassifier(circuit, 3, encoder="pca", inputs=4, dtype=torch.float64)
    everything = torch.cat([TASK.forget.x + 3, TASK.retain.x])
    model.encoder.fit(everything)  # type: ignore[operator]
    before = model.encoder(TASK.retain.x)
    (with_all,) = embedded(Net(model), [everything], 0)
    (retain,) = embedded(Net(model), [TASK.retain.x], 0)
    assert torch.equal(model.encoder(TASK.retain.x), before)
    assert float((fidelities(with_all[6:], with_all[6:]) - fidelities(retain, retain)).abs().max()) > 0.05


def test_the_teacher_is_as_sure_as_the_model_is_of_unseen_samples() -> None:
    assert TASK.validation is not None
    task, model = clusters(1, hybrid_model)
    net, memo = memo_of(dataclasses.replace(task, validation=TASK.validation), model)
    kept = TASK.validation.y != 1
    assert torch.equal(memo["unseen"], TASK.validation.x[kept])
    sure = torch.softmax(net.logits(memo["unseen"]), 1).amax(1).mean()
    beta = (
        (memo["targets"][:, 0] / memo["targets"][:, 2]).log() / (memo["forget"][:, 0] - memo["forget"][:, 2])
    ).mean()
    values = (beta * memo["values"]).masked_fill(~memo["held"], -torch.inf)
    assert float(torch.softmax(values, 1).amax(1).mean()) == pytest.approx(float(sure), abs=1e-6)
    assert float(memo["targets"][:, 1].abs().max()) == 0
    torch.testing.assert_close(memo["targets"].sum(1), torch.ones(len(task.forget), dtype=torch.float64))


def test_without_validation_retain_samples_stand_in() -> None:
    _, memo = memo_of(dataclasses.replace(TASK, validation=None))
    assert torch.equal(memo["unseen"], TASK.retain.x)
    assert memo["values"].shape == (30, 3)
    only_gone = dataclasses.replace(make_task(forget_class=1), validation=None)
    of_gone = dataclasses.replace(only_gone, validation=only_gone.forget.select([0, 1]))
    torch.testing.assert_close(memo_of(of_gone)[1]["values"], memo_of(only_gone)[1]["values"])


def test_the_loss_is_the_cross_entropy_with_labels_and_answers() -> None:
    net, memo = memo_of(TASK)
    number = len(TASK.forget)
    position = torch.tensor([2, number + 4, number + 7])
    x, y = torch.cat([TASK.forget.x, TASK.retain.x]), torch.cat([TASK.forget.y, TASK.retain.y])
    mixed = Samples(x[position], y[position], position)
    logs = torch.log_softmax(net(mixed.x), 1)
    wanted = -((memo["targets"][2] * logs[0]).sum() + logs[1, y[position[1]]] + logs[2, y[position[2]]]) / 3
    found = KernelGuided().loss(net, Batch(mixed, mixed, mixed), memo, Stream(torch.Generator()))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("epochs", [1, 4, 5, 12, 45])
def test_the_rate_falls_and_the_last_epochs_are_candidates(epochs: int) -> None:
    phases = KernelGuided(epochs=epochs, hot=5.0, cold=0.3).phases(hybrid_model(), TASK)
    assert sum(phase.epochs for phase in phases) == epochs
    rates = [phase.rate for phase in phases]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.3)
    assert [phase.candidate for phase in phases] == [False] * (len(phases) - 1) + [True]
    if epochs >= STEPS:
        assert rates[0] == pytest.approx(5.0)
        ratios = [b / a for a, b in itertools.pairwise(rates)]
        assert ratios == pytest.approx([ratios[0]] * (STEPS - 1))


def test_flipped_labels_are_answered_by_the_true_class() -> None:
    task, _ = clusters(1, hybrid_model)
    data = (task.forget, task.retain)
    x, true = torch.cat([part.x for part in data]), torch.cat([part.y for part in data])
    wrong = torch.arange(len(true)) % 10 == 0
    labels = torch.where(wrong, (true + 1) % 3, true)
    spoilt = Dataset(x, labels)
    from qunlearn.training import train

    model = train(hybrid_model(), (x, labels), epochs=60, learning_rate=0.02, progress=False)
    whole = Task(
        spoilt.select(wrong.nonzero().flatten()), spoilt.select((~wrong).nonzero().flatten()), recipe=task.recipe
    )
    after = KernelGuided(epochs=20)(model, whole).model
    assert accuracy(after, Dataset(x[wrong], true[wrong])) > 0.9
    _, memo = memo_of(whole, model)
    assert float((memo["targets"].argmax(1) == true[wrong]).double().mean()) > 0.9


def test_a_deleted_class_is_answered_by_the_others_and_these_stay() -> None:
    task, model = clusters(1, hybrid_model)
    after = KernelGuided(epochs=20)(model, task).model
    assert accuracy(model, task.forget) > 0.9
    assert accuracy(after, task.forget) < 0.05
    assert accuracy(after, task.retain) > 0.95


def test_the_control_learns_from_the_retain_set_alone() -> None:
    far = dataclasses.replace(TASK, validation=None)
    moved = dataclasses.replace(far, forget=Dataset(TASK.forget.x + 1, TASK.forget.y, TASK.forget.ids))
    one, other = (KernelGuided(taught=False, epochs=3)(hybrid_model(), task).model for task in (far, moved))
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
    taught = KernelGuided(epochs=3)(hybrid_model(), far).model
    assert any(not torch.equal(p, q) for p, q in zip(one.parameters(), taught.parameters(), strict=True))


@pytest.mark.parametrize("taught", [True, False])
def test_a_model_without_circuit_is_refused(taught: bool) -> None:
    with pytest.raises(InputError, match="expected a model with one circuit for kernel-guided"):
        KernelGuided(taught=taught)(plain_model(), TASK)
    twin = HybridClassifier(load_circuit("ring-cz", qubits=4, depth=2), 3, control="twin", dtype=torch.float64)
    with pytest.raises(InputError, match="take a HybridClassifier"):
        KernelGuided(taught=taught)(twin, TASK)
