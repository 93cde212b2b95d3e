"""JiT's loss once more in NumPy, its derivatives by finite differences, and what it does around forget samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qunlearn.methods import JiT
from qunlearn.methods.curvature import flattened, unflattened
from qunlearn.models.stream import Stream
from qunlearn.training import Recipe
from qunlearn.training.loop import no_samples, samples_of
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch
from tests.methods.by_hand import Array, array, logits_of, values_of
from tests.methods.cases import hybrid_model, make_task, plain_model
from tests.methods.learnt import accuracy, clusters, everything

MODELS: dict[str, Callable[[], nn.Module]] = {"plain": plain_model, "hybrid": hybrid_model}
TASK = make_task()
BATCH = Batch(*(samples_of(TASK.forget), *[no_samples(samples_of(TASK.forget))] * 2))


def stream(seed: int = 5) -> Stream:
    return Stream(torch.Generator().manual_seed(seed))


def by_formula(values: dict[str, Array], still: dict[str, Array], method: JiT) -> float:
    """The mean over samples of the mean over draws; what is held constant has the other values."""
    x = array(TASK.forget.x)
    drawn = torch.randn(method.draws * len(x), 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    noise, total = method.sigma * array(drawn).reshape(method.draws, len(x), 4), 0.0
    for k in range(method.draws):
        near = x + noise[k]
        if method.variant == "released":
            near = np.clip(near, x.min(), x.max())
        far = np.linalg.norm(logits_of(values, x) - logits_of(still, near), axis=1)
        total += float((far / np.linalg.norm(near - x, axis=1)).mean()) / method.draws
    return total * (len(x) if method.variant == "released" else 1)


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("kind", MODELS)
def test_loss_and_derivatives_are_the_formula_s(kind: str, variant: Any) -> None:
    model = MODELS[kind]()
    method, net = JiT(draws=3, sigma=0.7, variant=variant), Net(model)
    values = values_of(model)
    found = float(method.loss(net, BATCH, {}, stream()).detach())
    assert found == pytest.approx(by_formula(values, values, method), rel=1e-12)
    slope = net.gradient(lambda n: method.loss(n, BATCH, {}, stream()))
    along = unflattened(torch.linspace(-1, 1, len(flattened(slope)), dtype=torch.float64), slope)

    def moved(step: float) -> float:
        there = {name: value + step * array(along[name]) for name, value in values.items()}
        return by_formula(there, there if variant == "paper" else values, method)

    numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6
    assert float((flattened(slope) * flattened(along)).sum()) == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize(("variant", "forwards", "gradients"), [("paper", 1 + 4, 1 + 4), ("released", 1 + 4, 1)])
def test_disturbed_samples_are_counted(variant: Any, forwards: int, gradients: int) -> None:
    task = dataclasses.replace(TASK, validation=None)
    counts = JiT(draws=4, variant=variant, batch_size=64)(hybrid_model(), task).record.counts
    measured = 2 * 6  # the forget set, before and after
    assert counts.circuit_evaluations == 6 * forwards + measured
    assert counts.gradient_evaluations == 6 * gradients


def test_each_step_takes_its_own_batch_s_gradient_alone() -> None:
    """Two batches by descent with momentum, by hand: nothing else of the first batch's gradient is left."""
    task = dataclasses.replace(TASK, validation=None, recipe=Recipe(optimizer="sgd", batch_size=3))
    seen: list[tuple[dict[str, torch.Tensor], Batch]] = []

    class Noting(JiT):
        def loss(self, net: Net, batch: Batch, *given: Any) -> torch.Tensor:
            seen.append(({name: p.detach().clone() for name, p in net.parameters.items()}, batch))
            return super().loss(net, batch, {}, stream())

    model = plain_model()
    after = Noting(learning_rate=0.01, draws=2)(model, task).model
    (start, first), (middle, second) = seen
    slopes = []
    for parameters, batch in ((start, first), (middle, second)):
        net = Net(model).at(parameters)
        slopes.append(flattened(net.gradient(lambda n, batch=batch: JiT(draws=2).loss(n, batch, {}, stream()))))  # type: ignore[misc]
    one = flattened(start) - 0.01 * slopes[0]
    two = one - 0.01 * (0.9 * slopes[0] + slopes[1])
    assert torch.allclose(flattened(middle), one, atol=1e-14, rtol=0)
    assert torch.allclose(flattened(dict(after.named_parameters())), two, atol=1e-14, rtol=0)


def test_outputs_around_forget_samples_stop_moving() -> None:
    task, model = clusters(0, hybrid_model)
    after = JiT(epochs=40, learning_rate=0.003)(model, task).model

    def moves(found: nn.Module) -> float:
        x = task.forget.x.repeat(20, 1)
        noise = 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
        with torch.no_grad():
            return float(((found(x) - found(x + noise)).norm(dim=1) / noise.norm(dim=1)).mean())

    assert moves(after) < 0.5 * moves(model)
    assert accuracy(model, everything(task)) == 1.0
    assert accuracy(after, task.forget) < 0.1
    assert accuracy(after, task.retain) > 0.9


def test_neither_labels_nor_retain_samples_play_a_part() -> None:
    task, model = clusters(1)
    other = dataclasses.replace(
        task,
        forget=dataclasses.replace(task.forget, y=(task.forget.y + 1) % 3),
        retain=dataclasses.replace(task.retain, x=task.retain.x * 0),
    )
    one, two = (JiT(epochs=2)(model, each, seed=3).model for each in (task, other))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), model.parameters(), strict=True))


def test_no_disturbance_and_dead_units_give_finite_derivatives() -> None:
    model = plain_model()
    with torch.no_grad():
        model.get_parameter("0.bias").fill_(-1e3)
    for method in (JiT(sigma=0.0), JiT(sigma=0.0, variant="released"), JiT(), JiT(variant="released")):
        slope = Net(model).gradient(lambda n, method=method: method.loss(n, BATCH, {}, stream()))  # type: ignore[misc]
        assert float(flattened(slope).abs().max()) == 0.0
