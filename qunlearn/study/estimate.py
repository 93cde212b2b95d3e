"""What a study will cost, before it starts: a few real steps of its own models and methods are timed, and scaled."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from qunlearn import methods
from qunlearn.data import Dataset, Split
from qunlearn.errors import QunlearnError
from qunlearn.evaluation import evaluate, predict
from qunlearn.study.executors import START_UP
from qunlearn.study.plan import Plan
from qunlearn.study.prepare import model_of, recipe_of, split_of
from qunlearn.study.task import Task, canonical
from qunlearn.training.train import fit, of_classes

#: Batches of every set that are timed; an epoch is that many times longer as it has more samples.
BATCHES = 8


@dataclass(frozen=True)
class Estimate:
    """What a plan costs.

    Attributes:
        seconds: of one worker, by the key of the task.
        gradient_evaluations: samples differentiated, by the key of the task.
    """

    seconds: dict[str, float]
    gradient_evaluations: dict[str, float]

    def wall(self, keys: list[str], workers: int) -> float:
        """Seconds until the tasks of these keys are done; no less than the longest of them takes."""
        times = [self.seconds[key] for key in keys]
        busy = min(workers, len(times))
        return START_UP + max(sum(times) / busy, *times) if times else 0.0


@dataclass(frozen=True)
class _Cost:
    """Of one epoch, or of one evaluation."""

    seconds: float
    gradient_evaluations: float = 0.0

    def times(self, factor: float) -> _Cost:
        return _Cost(self.seconds * factor, self.gradient_evaluations * factor)


def estimate(plan: Plan, patience: float = 4.0) -> Estimate:
    """Time each kind of task of the plan on a part of its own data, for about `patience` seconds in all.

    Methods that the time does not suffice for are taken to cost what the others do on average.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.study.settings.run.threads)
    try:
        meter = _Meter(str(plan.study.folder), time.perf_counter() + patience)
        costs = {task.key: meter.cost(task) for task in plan.tasks}
    finally:
        torch.set_num_threads(threads)
    return Estimate(
        {key: cost.seconds for key, cost in costs.items()},
        {key: cost.gradient_evaluations for key, cost in costs.items()},
    )


class _Meter:
    """Times one task of each kind and remembers it for the others of the kind."""

    def __init__(self, folder: str, deadline: float) -> None:
        self.folder, self.deadline = folder, deadline
        self.epochs: dict[str, _Cost] = {}
        self.methods: dict[str, _Cost] = {}
        self.evaluations: dict[str, _Cost] = {}

    def cost(self, task: Task) -> _Cost:
        """What the task costs one worker."""
        split = split_of(task.settings, task.request, self.folder)
        if task.kind != "trial":
            data = split.original if task.kind == "original" else split.retain
            training = task.settings["training"]
            epoch = self._epoch(task, split).times(len(data))
            return epoch.times(expected_epochs(training["epochs"], training["patience"]))
        evaluation = self._evaluation(task, split)
        assert task.method is not None
        if task.method["name"] in ("none", "retrain"):
            return evaluation
        unlearning = self._unlearning(task, split)
        return _Cost(unlearning.seconds + evaluation.seconds, unlearning.gradient_evaluations)

    def _epoch(self, task: Task, split: Split) -> _Cost:
        """Of training, for one sample."""
        key = _model_key(task)
        if key not in self.epochs:
            part = _thin(split.original, _samples(task, len(split.original)))
            recipe = dataclasses.replace(recipe_of(task.settings), epochs=1, patience=None)
            model = model_of(task.settings, split.train, 0)
            fit(model, _thin(part, recipe.batch_size), None, recipe, seed=0, progress=_silent)  # the first is slower
            start = time.perf_counter()
            fit(model, part, of_classes(split.validation, split.retain), recipe, seed=0, progress=_silent)
            self.epochs[key] = _Cost((time.perf_counter() - start) / len(part), 1.0)
        return self.epochs[key]

    def _unlearning(self, task: Task, split: Split) -> _Cost:
        method = methods.get(task.method or "")
        epochs = getattr(method, "epochs", None)
        one = method if epochs is None else dataclasses.replace(method, epochs=1)  # type: ignore[call-arg]
        passes = 1.0 if epochs is None else expected_epochs(epochs, getattr(method, "patience", None))
        epoch = self._epoch(task, split).times(len(split.train))
        key = canonical([task.method, task.request])
        if key not in self.methods and time.perf_counter() < self.deadline:
            self.methods[key] = _relative(self._one_pass(task, split, one), epoch)
        known = list(self.methods.values())
        usual = _Cost(
            sum(cost.seconds for cost in known) / max(len(known), 1) or 1.0,
            sum(cost.gradient_evaluations for cost in known) / max(len(known), 1) or 1.0,
        )
        factor = self.methods.get(key, usual)
        seconds, gradients = factor.seconds * epoch.seconds, factor.gradient_evaluations * epoch.gradient_evaluations
        return _Cost(seconds, gradients).times(passes)

    def _one_pass(self, task: Task, split: Split, method: Any) -> _Cost:
        share = _samples(task, len(split.train)) / len(split.train)
        forget = _thin(split.forget, math.ceil(len(split.forget) * share))
        retain = _thin(split.retain, math.ceil(len(split.retain) * share))
        train = split.train.select(torch.isin(split.train.ids, torch.cat([forget.ids, retain.ids])).nonzero().flatten())
        part = dataclasses.replace(split, train=train, forget=forget, retain=retain)
        model = _fitted(task, split)
        start = time.perf_counter()
        try:
            record = methods.unlearn(model, part, method=method, seed=0, progress=_silent).record
        except QunlearnError:  # an untrained model may be more than a method can bear
            return _Cost(time.perf_counter() - start, float(len(train))).times(1 / share)
        return _Cost(time.perf_counter() - start, float(record.counts.gradient_evaluations)).times(1 / share)

    def _evaluation(self, task: Task, split: Split) -> _Cost:
        key = canonical([_model_key(task), task.request, len(task.retrained)])
        if key not in self.evaluations:
            model = _fitted(task, split)
            known = [predict(model, split) for _ in range(min(3, 1 + len(task.retrained)))]
            start = time.perf_counter()
            pool = [dataclasses.replace(known[-1]) for _ in task.retrained]
            evaluate(predict(model, split), split, original=known[0], retrained=pool)
            self.evaluations[key] = _Cost(time.perf_counter() - start)
        return self.evaluations[key]


def expected_epochs(epochs: int, patience: int | None) -> float:
    """How many epochs a training runs that may stop early: what patience takes and a quarter of the rest."""
    return epochs if patience is None or patience >= epochs else patience + (epochs - patience) / 4


def _fitted(task: Task, split: Split) -> nn.Module:
    """An untrained model that has seen the data, as far as it needs to."""
    model: Any = model_of(task.settings, split.train, 0)
    if hasattr(model, "fit"):
        model.fit(split.train.x)
    return model  # type: ignore[no-any-return]


def _samples(task: Task, available: int) -> int:
    return min(available, BATCHES * int(task.settings["training"]["batch_size"]))


def _thin(data: Dataset, samples: int) -> Dataset:
    """Evenly spaced samples, so that every class keeps its share."""
    return data.select(np.unique(np.linspace(0, len(data) - 1, min(samples, len(data))).round().astype(np.int64)))


def _relative(cost: _Cost, unit: _Cost) -> _Cost:
    return _Cost(cost.seconds / unit.seconds, cost.gradient_evaluations / unit.gradient_evaluations)


def _model_key(task: Task) -> str:
    parts = {key: task.settings[key] for key in ("model", "run")}
    return canonical({**parts, "batch_size": task.settings["training"]["batch_size"]})


def _silent(done: int, total: int, known: str) -> None:
    """Shows nothing."""
