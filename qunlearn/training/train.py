"""Training a model, and training it again without what it must forget."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.data import Dataset, Split, as_dataset
from qunlearn.errors import InputError, NumericalError
from qunlearn.models import Ensemble, FrozenHead, QuantumKernelClassifier, reinitialise
from qunlearn.models.stream import Stream
from qunlearn.training.counting import Counts
from qunlearn.training.loop import DivergedError, Outcome, Progress, no_samples, run_phases, samples_of
from qunlearn.training.net import Net, check_functional, evaluating
from qunlearn.training.phases import Batch, Memo, Phase
from qunlearn.training.progress import shown
from qunlearn.training.recipe import Keep, Recipe, recipe_of
from qunlearn.training.replicas import check_alike, obstacle
from qunlearn.training.seeds import Seeds
from qunlearn.training.selection import Rule, Watch, keep_accuracy, keep_last, keep_loss


class Trained(NamedTuple):
    """What a training leaves.

    Attributes:
        model: at the epoch that was kept, with its ``recipe``.
        counts: what it cost.
        history: by epoch, the untrained model foremost as epoch 0: ``epoch``, ``loss`` (mean over the training
            samples as they were learnt from, in nats; None at epoch 0), ``validation_loss`` (in nats) and
            ``validation_accuracy`` (a share; both None without a validation set).
        kept: the epoch that was kept.
    """

    model: nn.Module
    counts: Counts
    history: list[dict[str, Any]]
    kept: int


RULES: dict[Keep, Rule] = {"loss": keep_loss, "accuracy": keep_accuracy, "last": keep_last}


def supervised(net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
    """Mean cross entropy on the retain part of the batch, in nats."""
    return cross_entropy(net(batch.retain.x), batch.retain.y)


def train(
    model: nn.Module,
    data: Any,
    *,
    validation: Any = None,
    epochs: int = 60,
    seed: int = 0,
    optimizer: str = "adam",
    learning_rate: float = 0.01,
    batch_size: int = 32,
    patience: int | None = None,
    weight_decay: float = 0.0,
    keep: Keep = "loss",
    progress: Progress | bool | None = None,
) -> nn.Module:
    """A trained copy of the model, with the `Recipe` as its ``recipe``; the given model is left alone.

    Minimises cross entropy from the given weights (`reinitialise` gives fresh ones). A model with a
    ``fit(x)`` method has its data-fitted parts fitted on the training inputs first.

    Args:
        model: maps inputs ``(batch, ...)`` to logits ``(batch, classes)``.
        data: a `Dataset`, a pair of arrays (x, y), or a torch ``Dataset``.
        validation: likewise; decides which epoch is kept. Never the test set.
        epochs: passes over the data, at least 1.
        seed: of the order of samples and of dropout.
        optimizer: ``"adam"`` or ``"sgd"`` (momentum 0.9).
        learning_rate: above 0.
        batch_size: samples a step.
        patience: stop after this many epochs without a better one.
        weight_decay: L2 coefficient.
        keep: which epoch is kept where a validation set is given, as in `Recipe`.
        progress: None shows a bar on a terminal, False shows nothing.

    Raises:
        InputError: for data or settings that cannot be used.
        UnsupportedError: for a module that ignores ``torch.func.functional_call``.
        DivergedError: where the loss leaves the finite numbers.
    """
    if isinstance(progress, bool):
        progress = None if progress else _silent
    recipe = Recipe(epochs, optimizer, learning_rate, batch_size, patience, weight_decay, keep)
    trained, _ = fit(model, data, validation, recipe, seed=seed, progress=progress)
    return trained


def fit(
    model: nn.Module, data: Any, validation: Any, recipe: Recipe, *, seed: int, progress: Progress | None = None
) -> tuple[nn.Module, Counts]:
    """`train` by a recipe; returns what it cost as well."""
    (found,) = fit_all([model], data, validation, recipe, seeds=[seed], progress=progress)
    if isinstance(found, NumericalError):
        raise found
    return found.model, found.counts


def fit_all(
    models: Sequence[nn.Module],
    data: Any,
    validation: Any,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    progress: Progress | None = None,
    rows: Tensor | None = None,
    phase: Phase | None = None,
) -> list[Trained | NumericalError]:
    """`fit` for several models of one architecture, a seed each; where one diverges, the error stands in its place.

    All are trained at once where that is faster (see `qunlearn.training.replicas.obstacle`), and each comes out as it
    would alone, but for rounding.

    Args:
        models: left alone.
        data: what they learn from.
        validation: picks each model's epoch.
        recipe: how they are trained.
        seeds: one a model.
        progress: called after every epoch.
        rows: int64 ``(models, n)``: the positions in `data` of the samples that each model learns from, where they
            differ; all if None.
        phase: what is descended, where it is not `supervised`.
    """
    check_alike(models, seeds)
    data = as_dataset(data, "training set")[0]
    if len(models) > 1 and obstacle(models[0]):
        parts = [data] * len(models) if rows is None else [data.select(row) for row in rows]
        each = zip(models, parts, seeds, strict=True)
        return [
            fit_all([m], part, validation, recipe, seeds=[s], progress=progress, phase=phase)[0] for m, part, s in each
        ]
    models = [copy.deepcopy(model) for model in models]
    data = matched(data, models[0])
    validation = None if validation is None else matched(as_dataset(validation, "validation set")[0], models[0])
    for number, model in enumerate(models):
        if callable(prepare := getattr(model, "fit", None)):
            prepare(data.x if rows is None else data.x[rows[number].to(data.x.device)])
    for part in (data, validation):
        if part is not None:
            check_outputs(models[0], part)
    check_functional(models[0], data.x[:1])
    samples = samples_of(data)
    with shown(progress, "training") as report:
        outcomes = run_phases(
            [Net(model) for model in models],
            [phase or Phase("retain", supervised, recipe.epochs)],
            forget=no_samples(samples),
            retain=samples,
            recipe=recipe,
            seeds=[Seeds(seed, "train") for seed in seeds],
            watch=Watch(validation=validation),
            rule=keep_last if validation is None else RULES[recipe.keep],
            progress=report,
            rows=None if rows is None else {"retain": rows},
        )
    return [out if isinstance(out, DivergedError) else _trained(out, recipe) for out in outcomes]


def _trained(out: Outcome, recipe: Recipe) -> Trained:
    model = out.net.write_back()
    model.recipe = recipe  # type: ignore[assignment]
    losses = [None, *(row["loss"] for row in out.history)]
    history = [
        {
            "epoch": candidate.epoch,
            "loss": loss,
            "validation_loss": candidate.validation_loss,
            "validation_accuracy": candidate.validation_accuracy,
        }
        for candidate, loss in zip(out.candidates, losses, strict=True)
    ]
    return Trained(model, out.net.counts, history, out.candidates[out.chosen].epoch)


def retrain(original: nn.Module, split: Split, *, seed: int, progress: Progress | bool | None = None) -> nn.Module:
    """A model trained from a fresh initialisation on the retain set, by the original's recipe.

    Under ``sound``, validation samples of classes that the retain set does not hold are left out; under
    ``published`` the validation set is used as it is.

    Args:
        original: a model that `train` made (it carries its recipe).
        split: the split of the data.
        seed: of initialisation, order and dropout; use seeds of no original.
        progress: None shows a bar on a terminal, False shows nothing.
    """
    if isinstance(progress, bool):
        progress = None if progress else _silent
    return refit(original, split, seed=seed, progress=progress)[0]


def refit(
    original: nn.Module, split: Split, *, seed: int, progress: Progress | None = None
) -> tuple[nn.Module, Counts]:
    """`retrain`; returns what it cost as well."""
    (found,) = refit_all([original], split, seeds=[seed], progress=progress)
    if isinstance(found, NumericalError):
        raise found
    return found.model, found.counts


def refit_all(
    models: Sequence[nn.Module], split: Split, *, seeds: Sequence[int], progress: Progress | None = None
) -> list[Trained | NumericalError]:
    """`refit` for several originals of one architecture and recipe, a seed each; see `fit_all`."""
    validation = split.validation if split.protocol == "published" else of_classes(split.validation, split.retain)
    check_alike(models, seeds)
    check_retrainable(models[0])
    fresh = [reinitialise(model, seed) for model, seed in zip(models, seeds, strict=True)]
    return fit_all(fresh, split.retain, validation, required_recipe(models[0]), seeds=seeds, progress=progress)


def check_retrainable(model: nn.Module) -> None:
    """Refuses models that no recipe trains: their reference is what the method that trained them makes."""
    if isinstance(model, (Ensemble, FrozenHead, QuantumKernelClassifier)):
        name = getattr(getattr(model, "trace", None), "method", "...")
        raise InputError(
            f"expected a model that qunlearn.train made, got {type(model).__name__}, which is trained another way; its "
            f"reference is methods.get({name!r}).train(fresh, split.retain), with a freshly initialised model"
        )


def required_recipe(model: nn.Module) -> Recipe:
    """The recipe a model carries; without one, an error that says where recipes come from."""
    recipe = recipe_of(model)
    if recipe is None:
        raise InputError(
            "expected a model with a recipe, got one without; train it by qunlearn.train, "
            "or set model.recipe = qunlearn.Recipe(...)"
        )
    return recipe


def of_classes(data: Dataset | None, like: Dataset) -> Dataset | None:
    """The samples of `data` whose class occurs in `like`; None where there are none."""
    if data is None:
        return None
    positions = torch.isin(data.y, like.y).nonzero().flatten()
    return data.select(positions) if len(positions) else None


def matched(data: Dataset, model: nn.Module) -> Dataset:
    """The data set with inputs in the model's real type and everything on the model's device."""
    parameter = next((p for p in model.parameters() if p.dtype.is_floating_point), None)
    if parameter is None or (data.x.dtype == parameter.dtype and data.x.device == parameter.device):
        return data
    return data.to(parameter.dtype, parameter.device)


@torch.no_grad()
def check_outputs(model: nn.Module, data: Dataset) -> None:
    """Refuses a model whose outputs are not logits ``(batch, classes)`` for all labels of the data."""
    with evaluating(model):
        logits = model(data.x[:2])
    classes = int(data.y.max()) + 1
    if logits.ndim != 2 or len(logits) != len(data.x[:2]) or logits.shape[1] < classes:
        raise InputError(
            f"expected logits of shape ({len(data.x[:2])}, {classes} or more classes), got {tuple(logits.shape)}"
        )


def _silent(done: int, total: int, known: str) -> None:
    """Shows nothing."""
