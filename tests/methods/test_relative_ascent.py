"""Relative ascent: a round by hand, and what its numbers mean."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.data import Dataset
from qunlearn.methods import RelativeAscent
from qunlearn.training import Recipe
from tests.methods.cases import hybrid_model, make_task, plain_model
from tests.methods.learnt import accuracy, clusters, loss


def slope(model: nn.Module, data: Dataset) -> list[Tensor]:
    return list(torch.autograd.grad(cross_entropy(model(data.x), data.y), list(model.parameters())))


@torch.no_grad()
def moved(model: nn.Module, steps: list[Tensor]) -> None:
    for parameter, step in zip(model.parameters(), steps, strict=True):
        parameter.sub_(step)


@pytest.mark.parametrize(("ascent", "descent", "rate"), [(1, 1, 0.5), (3, 1, 0.25), (1, 2, 1.0)])
def test_rounds_climb_on_the_forget_set_and_descend_on_the_retain_set(ascent: int, descent: int, rate: float) -> None:
    """Gradient descent with momentum 0.9, one batch a pass; a change of the rate begins with none."""
    task = dataclasses.replace(make_task(), validation=None, recipe=Recipe(optimizer="sgd", batch_size=64))
    method = RelativeAscent(epochs=2, ascent=ascent, descent=descent, ascent_rate=rate, learning_rate=0.05)
    found, wanted = method(hybrid_model(), task).model, hybrid_model()
    momenta, last = [torch.zeros_like(p) for p in wanted.parameters()], None
    for up in ([True] * ascent + [False] * descent) * 2:
        if last is not None and up != last and rate != 1:
            momenta = [torch.zeros_like(m) for m in momenta]
        slopes = slope(wanted, task.forget if up else task.retain)
        momenta = [0.9 * m + (-g if up else g) for m, g in zip(momenta, slopes, strict=True)]
        moved(wanted, [0.05 * (rate if up else 1) * m for m in momenta])
        last = up
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))


def test_each_direction_has_momentum_of_its_own() -> None:
    """Adam's first step goes by the sign of the slope alone; carried momentum would turn it."""
    task = dataclasses.replace(make_task(), validation=None, recipe=Recipe(batch_size=64))
    found, wanted = RelativeAscent(epochs=1, learning_rate=1e-3)(plain_model(), task).model, plain_model()
    moved(wanted, [-0.5e-3 * g.sign() for g in slope(wanted, task.forget)])
    moved(wanted, [1e-3 * g.sign() for g in slope(wanted, task.retain)])
    apart = [(a - b).detach().abs().max() for a, b in zip(found.parameters(), wanted.parameters(), strict=True)]
    assert float(torch.stack(apart).max()) < 1e-5


def test_the_ends_of_rounds_alone_are_candidates() -> None:
    phases = RelativeAscent(epochs=2, ascent=8, descent=3).phases(plain_model(), make_task())
    assert [(p.data, p.epochs, p.candidate) for p in phases] == [
        ("forget", 8, False),
        ("retain", 1, False),
        ("retain", 1, False),
        ("retain", 1, True),
    ] * 2


def test_a_class_is_forgotten_and_the_others_are_kept() -> None:
    task, model = clusters(2)
    result = RelativeAscent(epochs=30, ascent_rate=0.5)(model, task).model
    assert accuracy(result, task.forget) < 0.1
    assert loss(result, task.forget) > loss(model, task.forget) + 2
    assert accuracy(result, task.retain) > 0.95
