"""What a study will cost, before it starts: a few real steps of its own models and methods are timed, and scaled."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from qunlearn import methods
from qunlearn.data import Dataset, Split
from qunlearn.evaluation import Judge, predict
from qunlearn.evaluation.audit import Auditor
from qunlearn.methods import Unlearned
from qunlearn.methods.unlearn import unlearn_all
from qunlearn.study.conditions import conditions, trained, under
from qunlearn.study.executors import START_UP
from qunlearn.study.plan import Plan
from qunlearn.study.prepare import model_of, recipe_of, split_of
from qunlearn.study.task import Task, Unit, canonical, units_of
from qunlearn.study.tuning import settings_of
from qunlearn.training.replicas import obstacle
from qunlearn.training.train import fit_all, of_classes

#: Seconds that baselines and report take.
REPORT = 8.0
#: Batches of every set that are timed; an epoch is that many times longer as it has more samples.
BATCHES = 8
#: Epochs that are timed, so that what happens once weighs less.
EPOCHS = 3
#: Samples that predictions with noise, shots or a backend are timed on.
FEW = 64
#: Kinds of tasks that look at what trials left.
LATER = ("shadow", "population", "ranking", "audit")
#: Seconds in which a ranking judges a trial.
RANKED = 0.02
#: Seconds from which a method is timed again, since its first run may also have imported or compiled something.
LONG = 0.2
#: Seconds that a batch with noise, shots or a backend may take for training to be timed on more than one.
SLOW = 0.3


@dataclass(frozen=True)
class Estimate:
    """What a plan costs.

    Attributes:
        seconds: of one worker, by the key of the task.
        gradient_evaluations: samples differentiated, by the key of the task; NaN for a method that was not tried.
    """

    seconds: dict[str, float]
    gradient_evaluations: dict[str, float]

    def wall(self, units: Sequence[Unit], workers: int) -> float:
        """Seconds until these units are done and reported, if nothing else runs on this machine."""
        times = [sum(self.seconds[task.key] for task in unit.tasks) for unit in units]
        busy = min(workers, len(times))
        return START_UP + max(sum(times) / busy, *times) + REPORT if times else 0.0


@dataclass(frozen=True)
class _Cost:
    """Of one epoch, or of one evaluation."""

    seconds: float
    gradient_evaluations: float = 0.0

    def times(self, factor: float) -> _Cost:
        return _Cost(self.seconds * factor, self.gradient_evaluations * factor)

    def beside(self, unit: _Cost) -> _Cost:
        return _Cost(self.seconds / unit.seconds, self.gradient_evaluations / unit.gradient_evaluations)


def estimate(plan: Plan, patience: float = 10.0) -> Estimate:
    """Time each kind of task of the plan on a part of its own data, for about `patience` seconds in all.

    What the time does not suffice for, and methods of the user's own, are taken to need the seconds that others of the
    kind do on average; tasks are tried in the order of their keys, which is none. How many gradients a method takes
    that was not tried is left open: they differ a hundredfold in it, and which are tried in time differs from run to
    run.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.study.settings.run.threads)
    try:
        meter = _Meter(str(plan.study.folder), time.thread_time() + patience)
        units = {unit.key: unit for unit in units_of(plan.tasks, {task.key for task in plan.tasks})}
        ranked = {task.key: task for task in plan.of("ranking")}
        found: dict[tuple[str, int], _Cost] = {}
        for task in sorted(plan.tasks, key=lambda task: (task.kind in LATER, task.key)):
            if _alike(task) not in found:
                unit = units[task.unit]
                late = task.kind in LATER
                found[_alike(task)] = meter.later(task, unit, ranked) if late else meter.cost(task, unit)
        costs = {task.key: found[_alike(task)] for task in plan.tasks}
    finally:
        torch.set_num_threads(threads)
    return Estimate(
        {key: cost.seconds for key, cost in costs.items()},
        {key: cost.gradient_evaluations for key, cost in costs.items()},
    )


def _alike(task: Task) -> tuple[str, int]:
    """The same for tasks that cost the same: those of one unit that share a cell, which differ in the seed alone."""
    return task.unit, id(task.settings)


class _Meter:
    """Times one task of each kind and remembers it for the others of the kind."""

    def __init__(self, folder: str, deadline: float) -> None:
        self.folder, self.deadline = folder, deadline
        self.epochs: dict[str, _Cost] = {}
        self.methods: dict[str, _Cost] = {}
        self.evaluations: dict[str, _Cost] = {}
        self.audits: dict[str, _Cost] = {}
        self.slow: set[str] = set()
        self.alone: dict[str, bool] = {}

    def cost(self, task: Task, unit: Unit) -> _Cost:
        """What the task costs one worker, as one of its unit: trials that differ in noise alone unlearn once."""
        size = len(unit.seeds)
        split = split_of(task.settings, task.request, self.folder)
        if task.kind in ("original", "retrained"):
            data = split.original if task.kind == "original" else split.retain
            training = task.settings["training"]
            epoch = self._epoch(task, split, size).times(len(data))
            return epoch.times(expected_epochs(training["epochs"], training["patience"]))
        assert task.method is not None
        if task.kind == "tuning":
            tried = settings_of(task.settings, task.method, task.seed)
            return self._unlearning(task, split, size).times(len(tried))
        evaluation = self._evaluation(task, split)
        if task.method["name"] in ("none", "retrain"):
            return evaluation
        unlearning = self._unlearning(task, split, size).times(size / len(unit.tasks))
        return _Cost(unlearning.seconds + evaluation.seconds, unlearning.gradient_evaluations)

    def later(self, task: Task, unit: Unit, rankings: Mapping[str, Task]) -> _Cost:
        """What a task of the audits costs one worker; methods have equal chances to be among the best."""
        if task.kind == "ranking":
            return _Cost(RANKED * len(task.after))
        split = split_of(task.settings, task.request, self.folder)
        if task.kind == "audit":
            one = self._auditing(task, split)
            return one.times(1 + len(task.retrained) / len(unit.tasks))
        numbers, part, training = len(task.extra["numbers"]), task.extra["part"], task.settings["training"]
        size = 1 if self._alone(task, split) else numbers
        cost = _Cost(0.0)
        if not (part == "unlearned" and task.uses):  # what starts from nothing is trained first
            data = split.retain if part == "retrained" else split.train
            epochs = expected_epochs(training["epochs"], training["patience"])
            cost = self._epoch(task, split, size).times(len(data) * numbers * epochs)
        if part == "unlearned":
            own = self._unlearning(task, split, size).times(numbers)
            cost = _Cost(cost.seconds + own.seconds, cost.gradient_evaluations + own.gradient_evaluations)
        methods_there = len(rankings[task.ranking].extra["trials"]) if task.ranking else 1
        return cost.times(min(1.0, task.extra["best"] / methods_there) if task.ranking else 1.0)

    def _go_on(self, known: Mapping[str, _Cost]) -> bool:
        """Whether one more may be timed: in time, and the first of a kind in any case."""
        return not known or time.thread_time() < self.deadline

    def _alone(self, task: Task, split: Split) -> bool:
        """Whether models like the task's are trained one by one."""
        key = _model_key(task, task.settings)
        if key not in self.alone:
            self.alone[key] = obstacle(model_of(task.settings, split.train, 0)) is not None
        return self.alone[key]

    def _auditing(self, task: Task, split: Split) -> _Cost:
        """Of one model, by an audit of two that are untrained: the second stands for the retrained ones."""
        key = canonical([_model_key(task, task.settings), task.extra["families"]])
        if key not in self.audits and self._go_on(self.audits):
            models = [_fitted(task, split, seed) for seed in range(3)]
            start = _now(task)
            Auditor(split, original=models[0], retrained=models[1:2])(models[2], audits=task.extra["families"])
            self.audits[key] = _Cost((_now(task) - start) / 2)
        return self.audits.get(key) or _mean(list(self.audits.values()))

    def _epoch(self, task: Task, split: Split, size: int) -> _Cost:
        """Of training, for one sample."""
        key = f"{size} {_model_key(task, trained(task.settings))}"
        if key not in self.epochs and self._go_on(self.epochs):
            batch, models = self._batch(task, split, size)
            if batch > SLOW:
                self.slow.add(key)
            batches, epochs = self._much(task, key)
            part = _thin(split.original, batches * task.settings["training"]["batch_size"])
            validation = of_classes(split.validation, split.retain)
            if key in self.slow and validation is not None:  # as small a part of it, which is else as long as the epoch
                validation = _thin(validation, math.ceil(len(validation) * len(part) / len(split.original)))
            recipe = dataclasses.replace(recipe_of(task.settings), epochs=epochs, patience=None)
            start = _now(task)
            fit_all(models, part, validation, recipe, seeds=range(size), progress=_silent)
            self.epochs[key] = _Cost((_now(task) - start) / (size * len(part) * epochs), 1.0)
        return self.epochs.get(key) or _mean(list(self.epochs.values()))

    def _batch(self, task: Task, split: Split, size: int) -> tuple[float, list[nn.Module]]:
        """Seconds of one batch where noise, shots or a backend bear on training, and the models, warmed up."""
        recipe = dataclasses.replace(recipe_of(task.settings), epochs=1, patience=None)
        models = [_at_work(task, split, seed) for seed in range(size)]
        first, seconds = _thin(split.original, recipe.batch_size), 0.0
        for _ in range(2 if conditions(trained(task.settings)) else 1):  # the first is slower
            start = _now(task)
            fit_all(models, first, None, recipe, seeds=range(size), progress=_silent)
            seconds = _now(task) - start
        return (seconds if conditions(trained(task.settings)) else 0.0), models

    def _much(self, task: Task, key: str) -> tuple[int, int]:
        """How many batches and epochs are timed."""
        return (1, 1) if key in self.slow else (BATCHES, EPOCHS)

    def _unlearning(self, task: Task, split: Split, size: int) -> _Cost:
        """Of a method, as it is set: what one of its epochs costs beside one of training, times its epochs."""
        method = methods.get(task.method or "")
        epochs = getattr(method, "epochs", 1)
        training = self._epoch(task, split, size).times(len(split.train))
        key = canonical([task.method, task.request, size])
        # What a user's method does, only a worker may suffer; an untrained model carries no trace.
        ours = type(method).__module__.startswith("qunlearn.") and not method.trains
        if key not in self.methods and ours and time.thread_time() < self.deadline:
            self.methods[key] = self._one_epoch(task, split, method, size).beside(training)
        known = list(self.methods.values()) or [_Cost(1.0)]
        factor = self.methods.get(key) or _Cost(_mean(known).seconds, math.nan)
        epoch = _Cost(factor.seconds * training.seconds, factor.gradient_evaluations * training.gradient_evaluations)
        return epoch.times(expected_epochs(epochs, getattr(method, "patience", None)))

    def _one_epoch(self, task: Task, split: Split, method: Any, size: int) -> _Cost:
        batches, most = self._much(task, f"{size} {_model_key(task, trained(task.settings))}")
        share = min(batches * task.settings["training"]["batch_size"] / len(split.train), 1.0)
        part, models, epochs = _share(split, share), [_at_work(task, split)] * size, 1
        if hasattr(method, "epochs"):
            epochs = min(most, method.epochs)
            method = dataclasses.replace(method, epochs=epochs)
        times: list[float] = []
        for timed in ("none", method, method):
            if len(times) == 2 and times[1] < LONG:
                break
            start = _now(task)
            try:
                found = unlearn_all(models, part, method=timed, seeds=range(size), progress=_silent)
                gradients = next(one for one in found if isinstance(one, Unlearned)).record.counts.gradient_evaluations
            except Exception:  # an untrained model may be more than a method can bear; its trial will tell
                gradients = len(part.train) * epochs
            times.append(_now(task) - start)
        return _Cost(max(min(times[1:]) - times[0], 0.0) / size, gradients).times(1 / (share * epochs))

    def _evaluation(self, task: Task, split: Split) -> _Cost:
        key = canonical([_model_key(task, task.settings), task.request, len(task.retrained)])
        if key not in self.evaluations and self._go_on(self.evaluations):
            model = _fitted(task, split)
            known = predict(model, split)
            judge = Judge(split, original=known, retrained=[dataclasses.replace(known) for _ in task.retrained])
            judge(model)  # the first finds what is the same for all methods
            start = _now(task)
            judge(model)
            self.evaluations[key] = _Cost(_now(task) - start + _predicting(task, model, split))
        return self.evaluations.get(key) or _mean(list(self.evaluations.values()))


def expected_epochs(epochs: int, patience: int | None) -> float:
    """How many epochs a training runs that may stop early: what patience takes and a sixth of the rest."""
    return epochs if patience is None or patience >= epochs else patience + (epochs - patience) / 6


def _fitted(task: Task, split: Split, seed: int = 0) -> nn.Module:
    """An untrained model that has seen the data, as far as it needs to."""
    model: Any = model_of(task.settings, split.train, seed)
    if hasattr(model, "fit"):
        model.fit(split.train.x)
    return model  # type: ignore[no-any-return]


def _at_work(task: Task, split: Split, seed: int = 0) -> nn.Module:
    """The same as it is trained and unlearned, with the noise of its cell if that bears on training."""
    return under(_fitted(task, split, seed), trained(task.settings), seed)


def _predicting(task: Task, model: nn.Module, split: Split) -> float:
    """Seconds that predictions on all sets take longer because of noise, shots or a backend."""
    if not conditions(task.settings):
        return 0.0
    some = _thin(split.retain, FEW).x
    slow = under(model, task.settings, 0).eval()
    with torch.no_grad():
        slow(some)  # the first is slower
        start = _now(task)
        slow(some)
        taken = _now(task) - start
    return taken * sum(len(data) for data in split.sets().values()) / len(some)


def _thin(data: Dataset, samples: int) -> Dataset:
    """Evenly spaced samples, so that every class keeps its share."""
    return data.select(np.unique(np.linspace(0, len(data) - 1, min(samples, len(data))).round().astype(np.int64)))


def _share(split: Split, share: float) -> Split:
    """The split with that share of its forget and retain samples."""
    forget = _thin(split.forget, math.ceil(len(split.forget) * share))
    retain = _thin(split.retain, math.ceil(len(split.retain) * share))
    kept = torch.isin(split.train.ids, torch.cat([forget.ids, retain.ids]))
    return dataclasses.replace(split, train=split.train.select(kept), forget=forget, retain=retain)


def _mean(costs: list[_Cost]) -> _Cost:
    return _Cost(
        sum(cost.seconds for cost in costs) / len(costs), sum(cost.gradient_evaluations for cost in costs) / len(costs)
    )


def _model_key(task: Task, cell: dict[str, Any]) -> str:
    """What models cost alike; how strong noise is changes nothing."""
    parts = {key: cell[key] for key in ("model", "run")}
    noise = {key: value if isinstance(value, str) else True for key, value in cell.get("noise", {}).items()}
    return canonical({**parts, "noise": noise, "batch_size": task.settings["training"]["batch_size"]})


def _now(task: Task) -> float:
    """Seconds of this thread on a processor, so that what else runs here does not count; else those of the clock."""
    if task.settings["run"]["device"] == "cpu" and "backend" not in task.settings["run"]:
        return time.thread_time()
    if task.settings["run"]["device"] != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def _silent(done: int, total: int, known: str) -> None:
    """Shows nothing."""
