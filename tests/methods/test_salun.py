"""SalUn: its mask once more in NumPy, and a complement that no optimizer moves by a bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qunlearn.methods import RandomLabel, SalUn
from qunlearn.training import Recipe
from qunlearn.training.net import Net
from tests.methods.by_hand import Array, array, task_slopes, values_of
from tests.methods.cases import hybrid_model, make_task, plain_model
from tests.methods.learnt import accuracy, clusters, loss

MODELS: dict[str, Callable[[], nn.Module]] = {"plain": plain_model, "hybrid": hybrid_model}
TASK = make_task()


def slopes(model: nn.Module) -> dict[str, Array]:
    found = task_slopes(values_of(model), array(TASK.forget.x), TASK.forget.y.numpy())
    return {name: np.abs(g.mean(0)) for name, g in found.items()}


def top(sizes: dict[str, Array], share: float) -> dict[str, Array]:
    """Everything above the value that stands at the share's place."""
    ranked = np.sort(np.concatenate([g.ravel() for g in sizes.values()]))[::-1]
    least = ranked[int(share * len(ranked)) - 1]
    return {name: g >= least for name, g in sizes.items()}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("kind", MODELS)
def test_the_mask_is_the_top_share_of_all_forget_gradients(kind: str, share: float) -> None:
    model = MODELS[kind]()
    found, wanted = SalUn(share=share).mask(Net(model), TASK), top(slopes(model), share)
    assert all(np.array_equal(found[name].numpy(), mask) for name, mask in wanted.items())
    assert sum(int(mask.sum()) for mask in found.values()) == int(share * sum(m.size for m in wanted.values()))


def test_by_kind_angles_are_ranked_among_angles() -> None:
    model = hybrid_model()
    found, sizes = SalUn(share=0.25, ranking="kind").mask(Net(model), TASK), slopes(model)
    angles = {"quantum.weights": sizes.pop("quantum.weights")}
    for wanted in (top(angles, 0.25), top(sizes, 0.25)):
        assert all(np.array_equal(found[name].numpy(), mask) for name, mask in wanted.items())
    assert int(found["quantum.weights"].sum()) == 6
    assert list(found) == [name for name, _ in model.named_parameters()]
    plain = SalUn(share=0.25, ranking="kind").mask(Net(plain_model()), TASK)
    together = SalUn(share=0.25).mask(Net(plain_model()), TASK)
    assert all(torch.equal(plain[name], together[name]) for name in together), "without angles there is one kind"


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("schedule", ["mixed", "alternate"])
@pytest.mark.parametrize("kind", MODELS)
def test_what_is_not_salient_keeps_its_bits_and_the_rest_moves(kind: str, schedule: Any, optimizer: str) -> None:
    model, recipe = MODELS[kind](), Recipe(optimizer=optimizer, weight_decay=0.1, learning_rate=0.05)
    task = dataclasses.replace(TASK, recipe=recipe, validation=None)
    salun = SalUn(share=0.4, epochs=3, schedule=schedule, batch_size=8)
    mask, result = salun.mask(Net(model), task), salun(model, task).model
    for name, p in model.named_parameters():
        new, salient = result.get_parameter(name), mask[name]
        assert torch.equal(new[~salient], p[~salient])
        assert bool((new[salient] != p[salient]).all())


def test_replicas_hold_each_its_own_complement() -> None:
    models = [hybrid_model(seed) for seed in range(3)]
    task = dataclasses.replace(TASK, recipe=Recipe(weight_decay=0.1), validation=None)
    salun = SalUn(share=0.3, epochs=2, batch_size=8)
    masks = [salun.mask(Net(model), task) for model in models]
    assert not torch.equal(masks[0]["quantum.weights"], masks[1]["quantum.weights"])
    for model, mask, found in zip(models, masks, salun.together(models, task, seeds=range(3)), strict=True):
        for name, p in model.named_parameters():
            assert torch.equal(found.model.get_parameter(name)[~mask[name]], p[~mask[name]])  # type: ignore[union-attr]


def test_with_all_parameters_salient_it_is_random_label() -> None:
    """The first step of both under one memo: the same gradient and the same labels."""
    model = plain_model()
    task = dataclasses.replace(TASK, validation=None)
    salun, labels = SalUn(share=1.0), RandomLabel()
    memo = salun.prepare(Net(model), task, torch.Generator().manual_seed(0))
    other = labels.prepare(Net(model), task, torch.Generator().manual_seed(0))
    assert torch.equal(memo["labels"], other["labels"])
    assert all(bool(mask.all()) for mask in memo["mask"].values())
    (ours,), (theirs,) = salun.phases(model, task), labels.phases(model, task)
    assert (ours.data, ours.epochs, theirs.project) == (theirs.data, theirs.epochs, None)
    assert ours.loss.__func__ is theirs.loss.__func__  # type: ignore[attr-defined]


def test_a_share_of_nothing_moves_one_parameter() -> None:
    found = SalUn(share=0.0).mask(Net(plain_model()), TASK)
    assert sum(int(mask.sum()) for mask in found.values()) == 1


def test_salun_forgets_a_class_that_a_model_has_learnt_with_half_its_parameters() -> None:
    for make in (plain_model, hybrid_model):
        task, model = clusters(1, make)
        after = SalUn(epochs=20, learning_rate=0.01)(model, task).model
        assert accuracy(model, task.forget) == accuracy(model, task.retain) == 1.0
        assert accuracy(after, task.forget) < 0.05
        assert accuracy(after, task.retain) > 0.95
        assert loss(after, task.forget) > 1.0
        moved = sum(int((after.get_parameter(n) != p).sum()) for n, p in model.named_parameters())
        assert moved <= sum(p.numel() for p in model.parameters()) // 2
