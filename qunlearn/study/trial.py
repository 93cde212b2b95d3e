"""What a worker does with a unit of tasks: train models, tune a method, or unlearn and evaluate."""

from __future__ import annotations

import copy
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from qunlearn import methods
from qunlearn.data import Split
from qunlearn.errors import NumericalError
from qunlearn.evaluation import Judge, Predictions, predict
from qunlearn.methods import Unlearned
from qunlearn.methods.base import train_own_way
from qunlearn.methods.unlearn import unlearn_all
from qunlearn.models import load_model
from qunlearn.models.files import REBUILDABLE, model_files
from qunlearn.study.conditions import conditions, exact, seed_of, trained, under
from qunlearn.study.prepare import model_of, split_of
from qunlearn.study.store import Store, read_json
from qunlearn.study.task import Kind, Task, Unit, canonical
from qunlearn.study.tuning import is_tuned, settings_of, tune
from qunlearn.training.counting import Counts
from qunlearn.training.recipe import recipe_of
from qunlearn.training.replicas import obstacle
from qunlearn.training.trace import Trace
from qunlearn.training.train import Trained, fit_all, of_classes, refit_all, required_recipe

PREDICTIONS = "predictions.safetensors"
TRACE = "trace.safetensors"


@dataclass(frozen=True)
class Ended:
    """How a task ended: the seconds that it took, or why it failed."""

    task: Task
    seconds: float = 0.0
    error: Exception | None = None


@dataclass(frozen=True)
class Made:
    """What is kept of a task: `content` and the files are determined by it, `seconds` isn't."""

    content: dict[str, Any]
    seconds: float
    files: dict[str, bytes] = field(default_factory=dict)


Finish = Callable[[], Made]
"""What is left to do for one task, after what is done for all tasks of its unit at once."""


def run_unit(unit: Unit, store: Store, folder: str) -> Iterator[Ended]:
    """Do what the tasks of a unit say, together, and keep the outcomes that are wanted; one that fails harms no other.

    Nothing is kept of a task that fails. `folder` is where the user's files and modules lie.
    """
    start, first = time.perf_counter(), unit.tasks[0]
    try:
        split = split_of(first.settings, first.request, folder)
        found = _work_of(first.kind)(unit.tasks, split, store, folder)
    except Exception as error:
        found = [error] * len(unit.tasks)
    share = (time.perf_counter() - start) / len(unit.tasks)
    beside = {"together": list(unit.seeds)} if len(unit.seeds) > 1 and first.kind in _WORK else {}
    for task, finish in zip(unit.tasks, found, strict=True):
        if task.key in unit.wanted:
            yield _keep(task, finish, beside, share, store)


def _keep(task: Task, finish: Finish | Exception, beside: dict[str, Any], share: float, store: Store) -> Ended:
    """Save the outcome of one task; `share` are its seconds of what was done for all tasks of its unit."""
    start = time.perf_counter()
    try:
        if isinstance(finish, Exception):
            raise finish
        outcome = finish()
        total = share + time.perf_counter() - start
        store.save(task, outcome.content | beside, {"seconds": outcome.seconds, "total_seconds": total}, outcome.files)
    except Exception as error:
        return Ended(task, error=error)
    return Ended(task, total)


def restore(settings: dict[str, Any], kind: Kind, key: str, split: Split, store: Store) -> nn.Module:
    """A kept model, with its recipe and its trace; a user's own is filled into what the factory makes."""
    fresh = None if settings["model"]["factory"] is None else model_of(settings, split.train, 0)
    return _loaded(store.folder(kind, key), settings, fresh)


def _loaded(folder: Path, settings: dict[str, Any], fresh: nn.Module | None) -> nn.Module:
    made = read_json(folder / "model.json").get("factory") is not None
    model = load_model(folder, into=fresh if made else None).to(settings["run"]["device"])
    model.recipe = recipe_of(model)  # type: ignore[assignment]
    if (folder / TRACE).is_file():
        model.trace = Trace.from_bytes((folder / TRACE).read_bytes())  # type: ignore[assignment]
    return model


def kept_as(task: Task) -> tuple[Kind, str]:
    """Under which kind and key the model of a trial lies: that of `none` and `retrain` was there before."""
    assert task.method is not None
    assert task.original is not None
    if task.method["name"] == "none":
        return "original", task.original
    return ("retrained", task.retrained[0]) if task.method["name"] == "retrain" else ("trial", task.key)


def _train(tasks: Sequence[Task], split: Split, store: Store, folder: str) -> list[Finish | Exception]:
    fresh = [at_work(model_of(task.settings, split.train, task.seed), task) for task in tasks]
    seeds = [task.seed for task in tasks]
    start = time.perf_counter()
    if tasks[0].method is not None:
        trained = [_own_way(task, model, split) for task, model in zip(tasks, fresh, strict=True)]
    elif tasks[0].kind == "original":
        recipe = required_recipe(fresh[0])
        trained = fit_all(fresh, split.original, split.validation, recipe, seeds=seeds, progress=_silent)
    else:
        trained = refit_all(fresh, split, seeds=seeds, progress=_silent)
    seconds = (time.perf_counter() - start) / len(tasks)
    return [
        one if isinstance(one, Exception) else functools.partial(_trained, task, split, one, seconds)
        for task, one in zip(tasks, trained, strict=True)
    ]


def _own_way(task: Task, fresh: nn.Module, split: Split) -> Trained | NumericalError:
    """An original or a retrained model as a method trains it."""
    assert task.method is not None
    of_all = task.kind == "original"
    data = split.original if of_all else split.retain
    validation = split.validation if of_all or split.protocol == "published" else of_classes(split.validation, data)
    model = train_own_way(methods.get(task.method), fresh, data, validation, task.seed)
    if isinstance(model, NumericalError):
        return model
    counts = getattr(model, "training_counts", Counts())
    history = list(getattr(model, "training_history", []))
    return Trained(model, counts, history, getattr(model, "training_kept", history[-1]["epoch"] if history else 0))


def _trained(task: Task, split: Split, found: Trained, seconds: float) -> Made:
    model, trace = found.model, getattr(found.model, "trace", None)
    files = _model_files(task, model)
    if isinstance(trace, Trace) and task.kind == "original":
        files[TRACE] = trace.to_bytes()
    if task.kind == "retrained":  # an original serves several requests, and each has sets of its own
        files[PREDICTIONS] = _predict(model, task.settings, task.request, "retrained", task.key, split).to_bytes()
    why = None if task.method else obstacle(model)
    notes = [f"Several models like this are trained one by one: {why}."] if why else []
    record = {"counts": vars(found.counts), "notes": notes, "history": found.history, "kept": found.kept}
    own = {"method": task.method["name"]} if task.method else {}
    return Made({"config": task.settings, "seed": task.seed, "record": record | own}, seconds, files)


def _tune(tasks: Sequence[Task], split: Split, store: Store, folder: str) -> list[Finish | Exception]:
    return [functools.partial(_tuned, task, split, store) for task in tasks]


def _tuned(task: Task, split: Split, store: Store) -> Made:
    assert task.original is not None
    assert task.method is not None
    model = at_work(restore(task.settings, "original", task.original, split, store), task)
    tried = settings_of(task.settings, task.method, task.seed)
    start = time.perf_counter()
    record = tune(model, split, tried, task.seed)
    seconds = time.perf_counter() - start
    return Made({"config": task.settings, "row": task.row, "record": record}, seconds)


def _run_trials(tasks: Sequence[Task], split: Split, store: Store, folder: str) -> list[Finish | Exception]:
    assert tasks[0].method is not None
    if tasks[0].method["name"] == "retrain":  # the models are there already
        return [functools.partial(_retrained, task, split, store, folder) for task in tasks]
    tuned = choice_of(tasks[0], store)
    method = {**tasks[0].method, **(tuned["hyperparameters"] if tuned else {})}
    alike = {task.seed: task for task in reversed(tasks)}  # others differ in the noise of their predictions alone
    seeds = list(dict.fromkeys(task.seed for task in tasks))
    models = [at_work(_original(alike[seed], split, store), alike[seed]) for seed in seeds]
    done = unlearn_all(models, split, method=method, seeds=seeds, progress=_silent)
    found = dict(zip(seeds, done, strict=True))
    return [_finish_of(task, found[task.seed], split, store, folder) for task in tasks]


def _finish_of(task: Task, done: Unlearned | Exception, split: Split, store: Store, folder: str) -> Finish | Exception:
    return done if isinstance(done, Exception) else functools.partial(_unlearned, task, done, split, store, folder)


def choice_of(task: Task, store: Store) -> dict[str, Any] | None:
    """The record of the tuning that chose a trial's hyper-parameters, if any did."""
    return store.result("tuning", task.tuning)["record"] if task.tuning else None


def _unlearned(task: Task, unlearned: Unlearned, split: Split, store: Store, folder: str) -> Made:
    figures = _figures(task, _said(task, unlearned.model, split, store, folder), store, folder)
    record = unlearned.record.to_dict()
    seconds = record.pop("seconds")
    if tuned := choice_of(task, store):
        chosen = {name: tuned["hyperparameters"][name] for name in tuned["searched"]}
        record["tuning"] = {"key": task.tuning, "hyperparameters": chosen, "counts": tuned["counts"]}
    changed = unlearned.model if kept_as(task)[0] == "trial" else None
    return _outcome(task, figures, record, seconds, changed)


def _retrained(task: Task, split: Split, store: Store, folder: str) -> Made:
    key = task.retrained[0]
    figures = _figures(task, _predictions(str(store.root), "retrained", key, *_place(task), folder), store, folder)
    record = {"method": "retrain", **store.result("retrained", key)["record"]}
    return _outcome(task, figures, record, store.seconds("retrained", key), None)


def _figures(task: Task, found: Predictions, store: Store, folder: str) -> dict[str, float | str]:
    assert task.original is not None
    return _judge(str(store.root), task.original, task.retrained, *_place(task), folder).row(found)


def _said(task: Task, model: nn.Module, split: Split, store: Store, folder: str) -> Predictions:
    """The predictions of what a method left; of the untouched original those that it is judged beside."""
    kind, key = kept_as(task)
    if kind == "original":
        return _predictions(str(store.root), kind, key, *_place(task), folder)
    return _predict(model, task.settings, task.request, kind, key, split)


def _place(task: Task) -> tuple[str, str]:
    """Cell and request of a task, as caches take them."""
    return canonical(task.settings), canonical(task.request)


def at_work(model: nn.Module, task: Task) -> nn.Module:
    """The model as it is trained or unlearned in the task: exactly, or under the conditions of its cell."""
    cell = trained(task.settings)
    return under(model, cell, seed_of(cell, task.key)) if conditions(cell) else model


def _predict(
    model: nn.Module, settings: dict[str, Any], request: dict[str, Any], kind: Kind, key: str, split: Split
) -> Predictions:
    """What a kept model says under the conditions of a cell; what is drawn for it is the same whoever asks."""
    if not conditions(settings):
        return predict(model, split)
    bare = model_of(exact(settings), split.train, 0)
    if type(bare) is type(model):
        bare.load_state_dict(model.state_dict())
    else:  # what a method trained its own way
        bare = copy.deepcopy(model)
    return predict(under(bare, settings, seed_of(settings, kind, key, request)), split)


def _outcome(
    task: Task, figures: dict[str, float | str], record: dict[str, Any], seconds: float, model: nn.Module | None
) -> Made:
    """The row and the record; the model only if it is not one of those kept already."""
    counts = {name: record["counts"][name] for name in Counts.__dataclass_fields__}
    if is_tuned(task.settings):
        tuning = record["tuning"]["counts"] if task.tuning else vars(Counts())
        counts["tuning_gradient_evaluations"] = tuning["gradient_evaluations"]
    row = {**task.row, **figures, **counts, **_vouched(record.get("guarantee"))}
    content = {"config": task.settings, "row": row, "record": record}
    return Made(content, seconds, _model_files(task, model) if model is not None else {})


def _vouched(guarantee: dict[str, Any] | None) -> dict[str, Any]:
    """The columns of a guarantee; the numbers of a mere estimate have names of their own, and never share a column."""
    if guarantee is None:
        return {}
    own = "" if guarantee["kind"] in ("exact", "certified") else "_estimated"
    numbers = {f"{name}{end}": None for name in ("epsilon", "delta") for end in ("", "_estimated")}
    return {"certificate": guarantee["kind"]} | numbers | {f"{n}{own}": guarantee[n] for n in ("epsilon", "delta")}


def _model_files(task: Task, model: nn.Module) -> dict[str, bytes]:
    rebuilt = type(model).__name__ in REBUILDABLE
    weights, card = model_files(model, factory=None if rebuilt else task.settings["model"]["factory"])
    return {"model.safetensors": weights, "model.json": card}


@functools.lru_cache(maxsize=256)
def _predictions(root: str, kind: Kind, key: str, settings: str, request: str, folder: str) -> Predictions:
    """What an original or a retrained model says in a cell; those of retrained models are kept with them."""
    cell, store = json.loads(settings), Store(root)
    if kind == "retrained" and trained(cell) == cell:
        kept = Predictions.load(store.folder("retrained", key) / PREDICTIONS)
        if kept.complete:
            return kept
    split = split_of(cell, json.loads(request), folder)
    return _predict(restore(cell, kind, key, split, store), cell, json.loads(request), kind, key, split)


@functools.lru_cache(maxsize=64)
def _judge(root: str, original: str, retrained: tuple[str, ...], settings: str, request: str, folder: str) -> Judge:
    split = split_of(json.loads(settings), json.loads(request), folder)
    before = _predictions(root, "original", original, settings, request, folder)
    others = [_predictions(root, "retrained", key, settings, request, folder) for key in retrained]
    return Judge(split, original=before, retrained=others)


def _original(task: Task, split: Split, store: Store) -> nn.Module:
    """The original of a trial, which is left alone; a hybrid one, small as it is, is read once."""
    assert task.original is not None
    if task.settings["model"]["factory"] is None:
        return _hybrid(str(store.root), task.original, canonical(task.settings["run"]))
    return restore(task.settings, "original", task.original, split, store)


@functools.lru_cache(maxsize=64)
def _hybrid(root: str, key: str, run: str) -> nn.Module:
    return _loaded(Store(root).folder("original", key), {"run": json.loads(run)}, None)


def _silent(done: int, total: int, known: str) -> None:
    """Shows nothing: the driver shows the study's progress."""


_WORK: dict[Kind, Callable[[Sequence[Task], Split, Store, str], list[Finish | Exception]]] = {
    "original": _train,
    "retrained": _train,
    "tuning": _tune,
    "trial": _run_trials,
}


def _work_of(kind: Kind) -> Callable[[Sequence[Task], Split, Store, str], list[Finish | Exception]]:
    if kind in _WORK:
        return _WORK[kind]
    from qunlearn.study.audit_work import WORK

    return WORK[kind]
