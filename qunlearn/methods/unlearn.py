"""`unlearn`: one call from a model and its data to a model without some of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from qunlearn.data import (
    Dataset,
    ForgetRequest,
    Split,
    as_dataset,
    count_duplicates,
    forgets_corrupted,
    outsiders,
)
from qunlearn.errors import InputError, NumericalError
from qunlearn.methods.base import Method
from qunlearn.methods.registry import get
from qunlearn.methods.task import Task, Unlearned
from qunlearn.training.progress import Report, shown
from qunlearn.training.recipe import Recipe, recipe_of
from qunlearn.training.replicas import check_alike
from qunlearn.training.trace import Trace
from qunlearn.training.train import matched


def unlearn(
    model: nn.Module,
    forget: Any,
    retain: Any = None,
    *,
    method: str | dict[str, Any] | Method = "adaprob",
    validation: Any = None,
    request: ForgetRequest | None = None,
    recipe: Recipe | None = None,
    trace: Trace | None = None,
    seed: int = 0,
    progress: Report | bool | None = None,
) -> Unlearned:
    """Makes a copy of a model forget some of its training data.

    Args:
        model: any ``nn.Module`` that maps inputs ``(batch, ...)`` to logits ``(batch, classes)``; left alone.
        forget: a `Split` (which brings all sets), or the samples to forget: a `Dataset`, a pair of arrays
            (x, y), or a torch ``Dataset`` (read into memory).
        retain: the rest of the training samples, likewise; not with a split.
        method: a name, a table such as ``{"name": "scrub", "epochs": 10}``, or a method.
        validation: samples that were not trained on; they choose the epoch that is kept. Without them the last is.
        request: what was asked; taken from the split.
        recipe: how the model was trained; taken from ``model.recipe``.
        trace: what a training recorded, for methods that need it; taken from ``model.trace``.
        seed: of everything random in the method.
        progress: None shows a bar on a terminal, False shows nothing.

    Returns:
        The unlearned model and its record.

    Raises:
        InputError: for sets that are empty or overlap (judged by ids), or something the method needs and lacks.
        UnsupportedError: for a module that ignores ``torch.func.functional_call``.
        DivergedError: where the method leaves the finite numbers.
    """
    chosen = get(method)
    recipe = recipe or recipe_of(model)
    if isinstance(forget, Split):
        if retain is not None or validation is not None:
            raise InputError("expected either a split or forget and retain sets, got both; pass the split alone")
        task = task_of(forget, model, recipe=recipe, trace=trace)
    else:
        task = _task_of_sets(model, forget, retain, validation, request, recipe, trace)
    if isinstance(progress, bool):
        progress = None if progress else (lambda done, total, known: None)
    with shown(progress, chosen.name) as report:
        return chosen(model, task, seed=seed, progress=report)


def unlearn_all(
    models: Sequence[nn.Module],
    split: Split,
    *,
    method: str | dict[str, Any] | Method = "adaprob",
    seeds: Sequence[int],
    progress: Report | None = None,
) -> list[Unlearned | NumericalError]:
    """`unlearn` for several models of one architecture and recipe, a seed each, by one method on one split.

    Each comes out as it would alone, but for rounding; see `Method.together`. Where the method diverges, the error
    stands in the model's place.
    """
    check_alike(models, seeds)
    chosen = get(method)
    with shown(progress, chosen.name) as report:
        return chosen.together(models, task_of(split, models[0]), seeds=seeds, progress=report)


def task_of(split: Split, model: nn.Module, *, recipe: Recipe | None = None, trace: Trace | None = None) -> Task:
    """The task that a split makes for a model."""
    return Task(
        forget=matched(split.forget, model),
        retain=matched(split.retain, model),
        validation=matched(split.validation, model),
        request=split.request,
        recipe=recipe or recipe_of(model),
        trace=trace if trace is not None else getattr(model, "trace", None),
        protocol=split.protocol,
        unseen=matched(outsiders(split, split.validation).data, model) if forgets_corrupted(split) else None,
    )


def _task_of_sets(
    model: nn.Module,
    forget: Any,
    retain: Any,
    validation: Any,
    request: ForgetRequest | None,
    recipe: Recipe | None,
    trace: Trace | None,
) -> Task:
    if retain is None:
        raise InputError("expected a retain set beside the forget set, got none; pass both, or a split")
    forget_set, forget_ids = as_dataset(forget, "forget set")
    retain_set, retain_ids = as_dataset(retain, "retain set")
    if not (forget_ids and retain_ids):
        # Ids were made up for at least one side: they say nothing about overlap, so make them disjoint.
        retain_set = _renumbered(retain_set, int(forget_set.ids.max()) + 1)
        if duplicates := count_duplicates(forget_set, retain_set):
            warnings.warn(
                f"{duplicates} forget samples stand in the retain set as well; what is retained is not forgotten",
                stacklevel=3,
            )
    valid = None if validation is None else matched(as_dataset(validation, "validation set")[0], model)
    found = trace if trace is not None else getattr(model, "trace", None)
    return Task(matched(forget_set, model), matched(retain_set, model), valid, request, recipe, found)


def _renumbered(data: Dataset, first: int) -> Dataset:
    return Dataset(data.x, data.y, ids=torch.arange(first, first + len(data.y)), classes=data.classes, name=data.name)
