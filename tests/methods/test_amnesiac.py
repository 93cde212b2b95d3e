"""Recorded steps taken back, against the training written again in NumPy."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import qunlearn as qu
from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods import Amnesiac, Task
from qunlearn.training import Recipe, train
from tests.methods.cases import blobs, hybrid_model, plain_model

RECIPE = Recipe(epochs=3, optimizer="sgd", learning_rate=0.05, batch_size=6, keep="last")
PURE = Amnesiac(epochs=0)


def linear() -> nn.Linear:
    model = nn.Linear(4, 3).double()
    nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(model.bias)
    return model


def data(number: int = 30) -> Dataset:
    return Dataset(*blobs(0, number), ids=torch.arange(number) * 3 + 7)


def vector(model: nn.Module) -> NDArray[np.float64]:
    found: NDArray[np.float64] = nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    return found


def batches_of(trace: Any) -> list[list[int]]:
    """The ids of every recorded batch."""
    parts = torch.split(trace.tensors["batches"], trace.tensors["lengths"].tolist())
    return [part.tolist() for part in parts]


def numpy_steps(samples: Dataset, batches: list[list[int]]) -> list[NDArray[np.float64]]:
    """How far softmax regression moves in every batch: descent with momentum 0.9, from the formula."""
    rows = {int(i): k for k, i in enumerate(samples.ids)}
    theta, momentum, steps = vector(linear()).copy(), np.zeros(15), []
    for batch in batches:
        at = [rows[i] for i in batch]
        x, hot = samples.x.numpy()[at], np.eye(3)[samples.y.numpy()[at]]
        logits = x @ theta[:12].reshape(3, 4).T + theta[12:]
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        error = (share - hot) / len(batch)
        momentum = 0.9 * momentum + np.concatenate([(error.T @ x).ravel(), error.sum(0)])
        steps.append(-0.05 * momentum)
        theta = theta + steps[-1]
    return steps


def test_the_record_is_how_far_every_batch_moved_the_parameters() -> None:
    model: Any = PURE.train(linear(), data(), recipe=RECIPE, seed=1)
    batches = batches_of(model.trace)
    assert [len(batch) for batch in batches] == [6] * 15
    for epoch in range(3):
        assert sorted(i for batch in batches[5 * epoch : 5 * epoch + 5] for i in batch) == data().ids.tolist()
    steps = numpy_steps(data(), batches)
    np.testing.assert_allclose(model.trace.tensors["deltas"].numpy(), steps, atol=1e-7)
    np.testing.assert_allclose(vector(model), vector(linear()) + np.sum(steps, 0), atol=1e-12)


@pytest.mark.parametrize("gone", [[7], [10, 94], [7, 10, 13, 16]])
def test_the_steps_of_batches_with_forget_samples_are_subtracted(gone: list[int]) -> None:
    samples = data()
    recipe = dataclasses.replace(RECIPE, batch_size=3)
    model: Any = PURE.train(linear(), samples, recipe=recipe, seed=1)
    forget = torch.isin(samples.ids, torch.tensor(gone))
    found = qu.unlearn(model, samples.select(forget), samples.select(~forget), method=PURE, progress=False)
    batches = batches_of(model.trace)
    steps = numpy_steps(samples, batches)
    taken = [step for step, batch in zip(steps, batches, strict=True) if set(batch) & set(gone)]
    assert len(taken) >= 3 * len(gone) - 3
    np.testing.assert_allclose(vector(found.model), vector(model) - np.sum(taken, 0), atol=1e-6)


def test_an_only_batch_s_step_taken_back_leaves_the_model_as_it_was_drawn() -> None:
    samples, once = data(), Recipe(epochs=1, batch_size=30)
    model: Any = PURE.train(plain_model(), samples, recipe=once)
    found = qu.unlearn(model, samples.select([0]), samples.select(range(1, 30)), method=PURE, progress=False)
    np.testing.assert_allclose(vector(found.model), vector(plain_model()), atol=1e-7)


@pytest.mark.parametrize("keep", ["loss", "last"])
def test_it_trains_as_training_does_and_records_to_the_kept_epoch(keep: Any) -> None:
    validation = Dataset(*blobs(1, 18), ids=range(1000, 1018))
    recipe = Recipe(epochs=8, learning_rate=0.2, batch_size=8, keep=keep)
    model: Any = PURE.train(hybrid_model(), data(), validation=validation, recipe=recipe, seed=5)
    settings = recipe.to_dict()
    plain = train(hybrid_model(), data(), validation=validation, seed=5, progress=False, **settings)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    kept = model.trace.facts["epoch"]
    assert kept == 8 if keep == "last" else 0 < kept < 8
    assert len(model.trace.tensors["deltas"]) == 4 * kept
    moved = model.trace.tensors["deltas"].double().sum(0).numpy()
    np.testing.assert_allclose(vector(hybrid_model()) + moved, vector(model), atol=1e-6)
    assert model.training_counts.gradient_evaluations == 8 * 30
    assert model.recipe == recipe


def test_a_later_request_takes_nothing_back_twice() -> None:
    samples, recipe = data(), dataclasses.replace(RECIPE, batch_size=3)
    model: Any = PURE.train(linear(), samples, recipe=recipe, seed=2)
    parts = [samples.select([0, 1]), samples.select([2, 3]), samples.select(range(4, 30))]
    both = [samples.select(range(4)), parts[2]]
    once: Any = qu.unlearn(model, parts[0], samples.select(range(2, 30)), method=PURE, progress=False).model
    twice: Any = qu.unlearn(once, parts[1], parts[2], method=PURE, progress=False).model
    at_once: Any = qu.unlearn(model, *both, method=PURE, progress=False).model
    np.testing.assert_allclose(vector(twice), vector(at_once), atol=1e-12)
    left = {i for batch in batches_of(twice.trace) for i in batch}
    assert not left & set(both[0].ids.tolist())
    assert twice.trace.tensors["ids"].tolist() == parts[2].ids.tolist()
    assert len(model.trace.tensors["deltas"]) == 30, "the original's record stays whole"


def loss(model: nn.Module, samples: Dataset) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(samples.x), samples.y))


def test_amnesiac_repairs_on_the_retain_set_and_a_validation_set_judges() -> None:
    samples = data(60)
    model: Any = PURE.train(plain_model(), samples, recipe=Recipe(epochs=20, learning_rate=0.02, batch_size=8))
    sets = samples.select(range(3)), samples.select(range(3, 60))
    pure = qu.unlearn(model, *sets, method=PURE, progress=False).model
    repaired = qu.unlearn(model, *sets, method=Amnesiac(epochs=10), progress=False).model
    assert loss(pure, sets[1]) > loss(model, sets[1]) + 0.1, "most batches of 20 epochs held one of three samples"
    assert loss(repaired, sets[1]) < loss(pure, sets[1]) - 0.1
    validation = Dataset(*blobs(1, 60), ids=range(1000, 1060))
    judged: Any = qu.unlearn(model, *sets, validation=validation, method=PURE, progress=False)
    assert [c["epoch"] for c in judged.record.candidates] == [0, 1]
    assert judged.record.chosen == 0, "a model that knows little loses too much accuracy"
    assert len(judged.model.trace.tensors["deltas"]) == len(model.trace.tensors["deltas"]), "nothing was taken back"


def test_several_models_unlearn_at_once_each_from_its_own_record() -> None:
    samples = data()
    models: list[Any] = [PURE.train(hybrid_model(s), samples, recipe=RECIPE, seed=s) for s in range(3)]
    task = Task(samples.select(range(4)), samples.select(range(4, 30)), recipe=RECIPE, trace=models[0].trace)
    together: list[Any] = PURE.together(models, task, seeds=range(3))
    for model, found in zip(models, together, strict=True):
        alone: Any = qu.unlearn(model, task.forget, task.retain, method=PURE, progress=False)
        np.testing.assert_allclose(vector(found.model), vector(alone.model), atol=1e-9)
        assert torch.equal(found.model.trace.tensors["deltas"], alone.model.trace.tensors["deltas"])


def test_a_record_that_would_be_too_large_is_refused_before_training() -> None:
    """100 epochs of 8 batches of 131 parameters in float32, and the ids: 0.0004 GiB."""
    recipe = Recipe(epochs=100, batch_size=4)
    with pytest.raises(InputError, match="800 steps of 131 parameters; take fewer epochs"):
        Amnesiac(memory=0.0004).train(plain_model(), data(), recipe=recipe)
    Amnesiac(memory=0.0005)._check_memory(plain_model(), 30, recipe)


def test_samples_under_other_ids_are_refused() -> None:
    samples = data()
    model: Any = PURE.train(linear(), samples, recipe=RECIPE)
    strange = Dataset(samples.x[:2], samples.y[:2], ids=[7, 8])
    with pytest.raises(InputError, match="got 1 under other ids"):
        qu.unlearn(model, strange, samples.select(range(1, 30)), method=PURE, progress=False)
