"""Several models at once, each on samples of its own: what each would be alone."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods import get
from qunlearn.methods.task import Task, Unlearned
from qunlearn.training import Recipe
from qunlearn.training.phases import Phase, same_phases
from qunlearn.training.train import Trained, fit, fit_all
from tests.methods.cases import blobs, plain_model

SEEDS = (5, 0, 2)
RECIPE = Recipe(epochs=3, batch_size=8, optimizer="sgd")  # Adam makes steps of the rounding where a gradient is zero
DATA, VALIDATION = Dataset(*blobs(0, 48)), Dataset(*blobs(1, 18), ids=torch.arange(100, 118))
ROWS = torch.stack([torch.randperm(48, generator=torch.Generator().manual_seed(i))[:30].sort().values for i in SEEDS])


def close(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.allclose(t, other.state_dict()[name], atol=1e-6, rtol=0) for name, t in one.state_dict().items())


def test_trained_at_once_on_rows_of_ones_own_as_alone() -> None:
    models = [plain_model(seed) for seed in SEEDS]
    found = fit_all(models, DATA, VALIDATION, RECIPE, seeds=SEEDS, rows=ROWS)
    for model, seed, row, one in zip(models, SEEDS, ROWS, found, strict=True):
        assert isinstance(one, Trained)
        wanted, counts = fit(model, DATA.select(row), VALIDATION, RECIPE, seed=seed)
        assert close(one.model, wanted)
        assert one.counts == counts
    assert not close(found[0].model, fit(models[0], DATA, VALIDATION, RECIPE, seed=SEEDS[0])[0])  # type: ignore[union-attr]


def test_history_is_what_each_epoch_measured() -> None:
    (found,) = fit_all([plain_model(0)], DATA, VALIDATION, RECIPE, seeds=[0])
    assert isinstance(found, Trained)
    assert [row["epoch"] for row in found.history] == [0, 1, 2, 3]
    assert found.history[0]["loss"] is None
    losses = [row["validation_loss"] for row in found.history]
    assert losses[found.kept] == min(losses)
    with torch.no_grad():
        logits = found.model(VALIDATION.x).double()
    assert torch.nn.functional.cross_entropy(logits, VALIDATION.y).item() == pytest.approx(losses[found.kept], abs=1e-6)
    (blind,) = fit_all([plain_model(0)], DATA, None, RECIPE, seeds=[0])
    assert isinstance(blind, Trained)
    assert blind.kept == 3
    assert [row["validation_loss"] for row in blind.history] == [None] * 4


def tasks() -> list[Task]:
    """One a seed: forget sets of one size, partly of samples that others don't have."""
    retain = DATA.select(torch.arange(24))
    places = [24 + row[row < 24][:10] for row in ROWS]
    return [Task(DATA.select(place), retain, VALIDATION, recipe=RECIPE) for place in places]


@pytest.mark.parametrize(
    "method",
    [
        "fine-tune", "neggrad-plus", "random-label", "scrub", "adaprob", "lca", "gradient-ascent", "fisher-penalty",
        "noisy-fine-tune", "eu-k", "q-mul", "none", "retrain",
    ],
)  # fmt: skip
def test_unlearned_at_once_from_tasks_of_ones_own_as_alone(method: str) -> None:
    chosen, models = get(method), [plain_model(seed) for seed in SEEDS]
    assert len({len(task.forget) for task in tasks()}) == 1
    for model, seed, task, one in zip(
        models, SEEDS, tasks(), chosen.together(models, tasks(), seeds=SEEDS), strict=True
    ):
        assert isinstance(one, Unlearned)
        alone = chosen(model, task, seed=seed)
        assert close(one.model, alone.model)
        assert one.record.counts == alone.record.counts
        assert one.record.chosen == alone.record.chosen
        assert one.model.removed_ids == alone.model.removed_ids


def test_tasks_that_differ_in_more_are_taken_one_by_one_and_come_out_alike() -> None:
    chosen, models, own = get("fine-tune"), [plain_model(seed) for seed in SEEDS], tasks()
    own[1] = Task(own[1].forget.select(torch.arange(4)), own[1].retain, VALIDATION, recipe=RECIPE)
    for model, seed, task, one in zip(models, SEEDS, own, chosen.together(models, own, seeds=SEEDS), strict=True):
        assert isinstance(one, Unlearned)
        assert close(one.model, chosen(model, task, seed=seed).model)
    with pytest.raises(InputError, match="one for each of 3 models, got 2"):
        chosen.together(models, own[:2], seeds=SEEDS)


def constant(scale: object) -> Any:
    """A loss that holds a value."""
    return lambda *given: scale


def test_phases_are_the_same_if_their_code_and_values_are() -> None:
    one = Phase("forget", constant(1.0))
    assert same_phases([one], [Phase("forget", constant(1.0))])
    assert not same_phases([one], [Phase("forget", constant(2.0))])
    assert not same_phases([one], [Phase("retain", one.loss)])
    assert not same_phases([one], [one, one])
    assert not same_phases([Phase("forget", constant(torch.ones(1)))], [Phase("forget", constant(torch.ones(1)))])
    parts = [Phase("forget", functools.partial(constant, scale)) for scale in (1.0, 1.0, 2.0)]
    assert same_phases(parts[:1], parts[1:2])
    assert not same_phases(parts[:1], parts[2:])
