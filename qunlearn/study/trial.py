"""What a worker does with one task: train a model, tune a method, or unlearn and evaluate."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from qunlearn.data import Split
from qunlearn.evaluation import Predictions, evaluate, predict
from qunlearn.methods import unlearn
from qunlearn.models import load_model, save_model
from qunlearn.study.prepare import model_of, split_of
from qunlearn.study.store import Store
from qunlearn.study.task import Kind, Task, canonical
from qunlearn.study.tuning import is_tuned, settings_of, tune
from qunlearn.training.counting import Counts
from qunlearn.training.recipe import recipe_of
from qunlearn.training.train import fit, refit, required_recipe

PREDICTIONS = "predictions.safetensors"


@dataclass(frozen=True)
class _Outcome:
    """What is kept of a task: `content` is determined by it, `seconds` isn't; `write` puts files into a folder."""

    content: dict[str, Any]
    seconds: float
    write: Callable[[Path], None]


def run_task(task: Task, store: Store, folder: str) -> None:
    """Do what the task says and keep its outcome; nothing is kept where it raises.

    `folder` is where the user's files and modules lie.
    """
    start = time.perf_counter()
    split = split_of(task.settings, task.request, folder)
    if task.kind == "trial":
        outcome = _run_trial(task, split, store, folder)
    else:
        outcome = _run_tuning(task, split, store) if task.kind == "tuning" else _train(task, split)
    total = time.perf_counter() - start
    store.save(task, outcome.content, {"seconds": outcome.seconds, "total_seconds": total}, outcome.write)


def restore(settings: dict[str, Any], kind: Kind, key: str, split: Split, store: Store) -> nn.Module:
    """A kept model, with its recipe; the weights of a user's own are filled into what the factory makes."""
    fresh = None if settings["model"]["factory"] is None else model_of(settings, split.train, 0)
    model = load_model(store.folder(kind, key), into=fresh).to(settings["run"]["device"])
    model.recipe = recipe_of(model)  # type: ignore[assignment]
    return model


def kept_as(task: Task) -> tuple[Kind, str]:
    """Under which kind and key the model of a trial lies: that of `none` and `retrain` was there before."""
    assert task.method is not None
    assert task.original is not None
    if task.method["name"] == "none":
        return "original", task.original
    return ("retrained", task.retrained[0]) if task.method["name"] == "retrain" else ("trial", task.key)


def _train(task: Task, split: Split) -> _Outcome:
    fresh = model_of(task.settings, split.train, task.seed)
    start = time.perf_counter()
    if task.kind == "original":
        recipe = required_recipe(fresh)
        model, counts = fit(fresh, split.original, split.validation, recipe, seed=task.seed, progress=_silent)
    else:
        model, counts = refit(fresh, split, seed=task.seed, progress=_silent)
    seconds = time.perf_counter() - start

    def write(folder: Path) -> None:
        _save_model(task, model, folder)
        if task.kind == "retrained":  # an original serves several requests, and each has sets of its own
            predict(model, split).save(folder / PREDICTIONS)

    content = {"config": task.settings, "seed": task.seed, "record": {"counts": vars(counts)}}
    return _Outcome(content, seconds, write)


def _run_tuning(task: Task, split: Split, store: Store) -> _Outcome:
    assert task.original is not None
    assert task.method is not None
    model = restore(task.settings, "original", task.original, split, store)
    tried = settings_of(task.settings, task.method, task.seed)
    start = time.perf_counter()
    record = tune(model, split, tried, task.seed)
    seconds = time.perf_counter() - start
    return _Outcome({"config": task.settings, "row": task.row, "record": record}, seconds, lambda folder: None)


def _run_trial(task: Task, split: Split, store: Store, folder: str) -> _Outcome:
    assert task.original is not None
    assert task.method is not None
    retrained = [_retrained_predictions(str(store.root), key) for key in task.retrained]
    cell, request = canonical(task.settings), canonical(task.request)
    original = _original_predictions(str(store.root), task.original, cell, request, folder)
    if task.method["name"] == "retrain":  # the model is there already
        figures = evaluate(retrained[0], split, original=original, retrained=retrained)
        key = task.retrained[0]
        record = {"method": "retrain", **store.result("retrained", key)["record"]}
        return _outcome(task, figures, record, store.seconds("retrained", key), None)
    model = restore(task.settings, "original", task.original, split, store)
    tuned = store.result("tuning", task.tuning)["record"] if task.tuning else {"hyperparameters": {}, "searched": []}
    method = {**task.method, **tuned["hyperparameters"]}
    unlearned = unlearn(model, split, method=method, seed=task.seed, progress=_silent)
    figures = evaluate(unlearned.model, split, original=original, retrained=retrained)
    record = unlearned.record.to_dict()
    seconds = record.pop("seconds")
    if task.tuning:
        chosen = {name: tuned["hyperparameters"][name] for name in tuned["searched"]}
        record["tuning"] = {"key": task.tuning, "hyperparameters": chosen, "counts": tuned["counts"]}
    changed = unlearned.model if kept_as(task)[0] == "trial" else None
    return _outcome(task, figures, record, seconds, changed)


def _outcome(
    task: Task, figures: dict[str, float], record: dict[str, Any], seconds: float, model: nn.Module | None
) -> _Outcome:
    """The row and the record; the model only if it is not one of those kept already."""
    counts = {name: record["counts"][name] for name in Counts.__dataclass_fields__}
    if is_tuned(task.settings):
        tuning = record["tuning"]["counts"] if task.tuning else vars(Counts())
        counts["tuning_gradient_evaluations"] = tuning["gradient_evaluations"]
    content = {"config": task.settings, "row": {**task.row, **figures, **counts}, "record": record}
    return _Outcome(content, seconds, functools.partial(_save_model, task, model))


def _save_model(task: Task, model: nn.Module | None, folder: Path) -> None:
    if model is not None:
        save_model(model, folder, factory=task.settings["model"]["factory"])


@functools.lru_cache(maxsize=256)
def _retrained_predictions(root: str, key: str) -> Predictions:
    return Predictions.load(Store(root).folder("retrained", key) / PREDICTIONS)


@functools.lru_cache(maxsize=64)
def _original_predictions(root: str, key: str, settings: str, request: str, folder: str) -> Predictions:
    cell = json.loads(settings)
    split = split_of(cell, json.loads(request), folder)
    return predict(restore(cell, "original", key, split, Store(root)), split)


def _silent(done: int, total: int, known: str) -> None:
    """Shows nothing: the driver shows the study's progress."""
