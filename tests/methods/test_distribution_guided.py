"""Distribution-guided unlearning: its targets and Lagrangian once more in NumPy, its dual variable in the loop."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from qunlearn.data import Dataset
from qunlearn.methods import LCA, DistributionGuided, Task, Unlearned
from qunlearn.methods.distribution_guided import anchored
from qunlearn.models.stream import Stream
from qunlearn.training.loop import no_samples, samples_of
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch
from tests.methods.cases import blobs, hybrid_model, make_task, plain_model
from tests.methods.learnt import accuracy, clusters

Array = npt.NDArray[np.float64]


def outputs(model: nn.Module, x: Tensor) -> Array:
    with torch.no_grad():
        return np.asarray(torch.softmax(model(x).double(), 1).numpy())


def logits(model: nn.Module, x: Tensor) -> Array:
    with torch.no_grad():
        return np.asarray(model(x).double().numpy())


def kl(p: Array, q: Array) -> float:
    return float(np.where(p > 0, p * (np.log(np.where(p > 0, p, 1)) - np.log(q)), 0).sum(1).mean())


def many_classes() -> tuple[nn.Module, Task]:
    """Five classes, of which 2 and 4 are deleted and some samples of 0 forgotten."""
    x, y = blobs(0, 60, classes=5)
    data = Dataset(x, y)
    gone = (y == 2) | (y == 4) | ((y == 0) & (torch.arange(60) < 20))
    return plain_model(1, classes=5), Task(
        data.select(gone.nonzero().flatten()), data.select((~gone).nonzero().flatten())
    )


@pytest.mark.parametrize(("beta", "temperature"), [(0.0, 1.0), (0.3, 0.5), (0.7, 2.0), (1.0, 1.0)])
@pytest.mark.parametrize("similarity", ["probability", "cosine"])
def test_targets_are_the_formula(similarity: str, beta: float, temperature: float) -> None:
    model, task = many_classes()
    method = DistributionGuided(beta=beta, temperature=temperature, similarity=similarity)  # type: ignore[arg-type]
    found = method.targets(Net(model), task).numpy()
    for row, label in zip(found, task.forget.y.tolist(), strict=True):
        own = task.forget.x[task.forget.y == label]
        allowed = [c for c in (0, 1, 3) if c != label]
        if similarity == "probability":
            s = outputs(model, own).mean(0)[allowed]
        else:
            mean = logits(model, own).mean(0)
            others = [logits(model, task.retain.x[task.retain.y == c]).mean(0) for c in allowed]
            cosines = np.array([mean @ o / np.linalg.norm(mean) / np.linalg.norm(o) for o in others])
            s = (1 + cosines) / 2
        powers = s ** (1 / temperature)
        wanted = np.zeros(5)
        wanted[allowed] = (1 - beta) * powers / powers.sum() + beta / len(allowed)
        assert row == pytest.approx(wanted, rel=1e-10)
        assert row[label] == row[2] == row[4] == 0


@pytest.mark.parametrize("make", [plain_model, hybrid_model])
def test_the_uniform_baseline_is_label_complement_augmentation_in_expectation(
    make: type[nn.Module],
) -> None:
    """Equal gradients, and values apart by ln(K - 1); in the released form of LCA, the mean over its wrong labels."""
    model, task = make(), make_task(forget_class=1)
    net, nobody = Net(model), torch.Generator().manual_seed(0)
    uniform, lca = DistributionGuided(beta=1.0), LCA(beta=1.0)
    forget = samples_of(task.forget)
    memo = {**uniform.prepare(net, task, nobody), "mu": torch.zeros((), dtype=torch.float64)}
    batch = Batch(forget, samples_of(task.retain), no_samples(forget))

    def of_lca(net: Net) -> Tensor:
        whole = lca.loss(net, batch, lca.prepare(net, task, nobody), Stream())
        return whole - cross_entropy(net(task.retain.x), task.retain.y)

    def replicated(net: Net) -> Tensor:
        log_outputs = log_softmax(net(task.forget.x), 1)
        return -torch.stack([log_outputs[:, c].mean() for c in (0, 2)]).mean()

    def of_ours(net: Net) -> Tensor:
        return uniform.loss(net, batch, memo, Stream(torch.Generator()))

    ours = net.gradient(of_ours)
    for other in (of_lca, replicated):
        theirs = net.gradient(other)
        assert all(torch.allclose(ours[name], g, rtol=1e-9, atol=1e-12) for name, g in theirs.items())
        apart = other(net) - of_ours(net)
        assert float(apart.detach()) == pytest.approx(np.log(2), rel=1e-9)


def test_the_loss_is_the_lagrangian() -> None:
    model, task = plain_model(1), make_task(forget_class=2)
    method = DistributionGuided(epsilon=0.07, multiplier=3.0, anchors=7, anchor_batch=5)
    memo = method.prepare(Net(model), task, torch.Generator().manual_seed(4))
    student = plain_model(5)
    forget = samples_of(task.forget)
    batch = Batch(forget.take(torch.tensor([4, 1, 9])), no_samples(forget), no_samples(forget))
    found = method.loss(Net(student), batch, memo, Stream(torch.Generator().manual_seed(6)))
    drawn = torch.randint(0, 7, (5,), generator=torch.Generator().manual_seed(6))
    q = method.targets(Net(model), task).numpy()[[4, 1, 9]]
    anchors = memo["anchors"]
    of_draw = kl(outputs(model, anchors[drawn]), outputs(student, anchors[drawn]))
    wanted = kl(q, outputs(student, task.forget.x[[4, 1, 9]])) + 3.0 * (of_draw - 0.07)
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-10)
    assert len(anchors) == 7
    anchor = kl(outputs(model, anchors), outputs(student, anchors))
    assert anchor > 0.07
    assert anchor != of_draw

    raised = method.dual_step(Net(student), memo, Stream())
    assert float(raised["mu"]) == pytest.approx(3.0 + 5.0 * (anchor - 0.07), rel=1e-10)
    lowered = DistributionGuided(epsilon=100.0).dual_step(Net(student), memo, Stream())
    assert float(lowered["mu"]) == 0.0


def test_the_dual_variable_moves_from_epoch_to_epoch() -> None:
    """Where nothing else moves the anchors keep within epsilon, and mu falls by eta epsilon an epoch, to 0."""
    model, task = hybrid_model(), dataclasses.replace(make_task(forget_class=0), validation=None)
    method = DistributionGuided(
        epochs=6, epsilon=0.1, multiplier=1.0, dual_rate=2.5, learning_rate=1e-15, batch_size=64
    )
    forget = kl(method.targets(Net(model), task).numpy(), outputs(model, task.forget.x))
    wanted = [forget - max(0.0, 1 - 0.25 * epoch) * 0.1 for epoch in range(1, 7)]
    alone = [h["loss"] for h in method(model, task).record.history]
    assert alone == pytest.approx(wanted, rel=1e-9)
    for found in method.together([model, model], task, seeds=[0, 1]):
        assert isinstance(found, Unlearned)
        assert [h["loss"] for h in found.record.history] == pytest.approx(wanted, rel=1e-9)


def test_a_tight_constraint_holds_the_anchors() -> None:
    task, model = clusters(1, hybrid_model)

    def strayed(**settings: float) -> float:
        method = DistributionGuided(epochs=60, learning_rate=0.02, anchors=60, **settings)  # type: ignore[arg-type]
        result = method(model, task).model
        return kl(outputs(model, task.retain.x), outputs(result, task.retain.x))

    free, held = strayed(multiplier=0.0, dual_rate=0.0), strayed(epsilon=0.005, dual_rate=50.0)
    assert held < 0.02
    assert free > 3 * held


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_class_is_led_to_its_targets_and_the_others_stay(beta: float) -> None:
    task, model = clusters(0)
    method = DistributionGuided(epochs=150, beta=beta, learning_rate=0.02)
    assert accuracy(model, task.forget) == 1
    result = method(model, task).model
    assert accuracy(result, task.forget) == 0
    assert accuracy(result, task.retain) > 0.95
    targets = method.targets(Net(model), task).numpy()
    assert kl(targets, outputs(result, task.forget.x)) < 0.1 < kl(targets, outputs(model, task.forget.x))


def test_anchors_are_drawn_class_by_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 5 + [2] * 20)
    chosen = anchored(labels, 12, torch.Generator().manual_seed(0))
    assert labels[chosen].bincount().tolist() == [4, 4, 4]
    assert len(set(chosen.tolist())) == 12
    assert chosen.tolist() == sorted(chosen.tolist())
    assert labels[anchored(labels, 29, torch.Generator())].bincount().tolist() == [12, 5, 12]
    assert len(anchored(labels, 1000, torch.Generator())) == 75
    draws = {tuple(anchored(labels, 12, torch.Generator().manual_seed(s)).tolist()) for s in range(5)}
    assert len(draws) == 5
