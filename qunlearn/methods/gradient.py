"""Methods by gradient: they say what to descend, and the one loop runs it, for one model or for several at once."""

from __future__ import annotations

import copy
import dataclasses
import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from qunlearn.errors import NumericalError
from qunlearn.methods.base import Method
from qunlearn.methods.hyper import hyper
from qunlearn.methods.task import Task, Work
from qunlearn.training.loop import DivergedError, Outcome, run_phases, samples_of
from qunlearn.training.net import Net, Tensors, check_functional
from qunlearn.training.phases import Memo, Phase, Samples, same_phases
from qunlearn.training.recipe import Recipe
from qunlearn.training.replicas import joinable, obstacle
from qunlearn.training.selection import Rule, keep_accuracy, keep_forgotten, keep_last


@dataclass(frozen=True, kw_only=True)
class GradientMethod(Method):
    """A method that descends losses: it returns its `phases`, and the one loop runs them.

    The optimizer is the recipe's, afresh (Adam where there is no recipe).
    """

    epochs: int = hyper(5, "passes over the data that drive the method", low=1)
    learning_rate: float | None = hyper(
        None, "step size; none takes the recipe's, or 0.001", low=0, search=(0.03, 3.0), of_recipe=True
    )
    batch_size: int | None = hyper(None, "samples a step; none takes the recipe's, or 32", low=1)
    patience: int | None = hyper(None, "stop after this many epochs without a better one", low=1)

    @abstractmethod
    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """What the loop runs, in order."""

    def start(self, model: nn.Module, task: Task, generator: torch.Generator) -> nn.Module:
        """The model from which the first epoch starts, made of a copy; as it is, unless parts are drawn anew.

        The untouched model stays a candidate all the same.
        """
        return model

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """What the losses need and is computed once, at the original weights (targets, importances)."""
        return {}

    def rule(self, task: Task) -> Rule:
        """Which epoch is kept: the protocol's rule, the same for every method."""
        return rule_of(task)

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """Runs the phases and returns the model at the epoch that the rule keeps."""
        if why := obstacle(model):
            work.notes.append(f"Several models like this are unlearned one by one: {why}.")
        (found,) = self._in_step([model], [task], [work])
        if isinstance(found, NumericalError):
            raise found
        return found

    def run_all(
        self, models: Sequence[nn.Module], task: Task, works: Sequence[Work]
    ) -> list[nn.Module | NumericalError]:
        """All models in step, each counted its share of the seconds; one by one where that is faster."""
        if len(models) == 1 or obstacle(models[0]):
            return super().run_all(models, task, works)
        return self._shared_time(models, [task] * len(models), works)

    def run_each(
        self, models: Sequence[nn.Module], tasks: Sequence[Task], works: Sequence[Work]
    ) -> list[nn.Module | NumericalError]:
        """All models in step where their tasks allow it; see `together`."""
        alike = len(models) > 1 and not obstacle(models[0]) and self._alike(models, tasks)
        return self._shared_time(models, tasks, works) if alike else super().run_each(models, tasks, works)

    def _alike(self, models: Sequence[nn.Module], tasks: Sequence[Task]) -> bool:
        """Whether tasks differ in a forget set of one size alone, and no phase holds anything of its own task."""
        first, run_all = tasks[0], type(self).run_all
        return run_all is GradientMethod.run_all and all(
            (task.retain is first.retain and task.validation is first.validation and task.recipe == first.recipe)
            and task.unseen is first.unseen
            and len(task.forget) == len(first.forget)
            and (task.protocol, task.retained_classes) == (first.protocol, first.retained_classes)
            and same_phases(self.phases(models[0], task), self.phases(models[0], first))
            for task in tasks[1:]
        )

    def _shared_time(
        self, models: Sequence[nn.Module], tasks: Sequence[Task], works: Sequence[Work]
    ) -> list[nn.Module | NumericalError]:
        begun = time.perf_counter()
        found = self._in_step(models, tasks, works)
        for work in works:
            work.seconds = (time.perf_counter() - begun) / len(works)
        return found

    def _in_step(
        self, models: Sequence[nn.Module], tasks: Sequence[Task], works: Sequence[Work]
    ) -> list[nn.Module | NumericalError]:
        """Runs the phases on all models at once; one by one where what was prepared for each task cannot be joined."""
        check_functional(models[0], tasks[0].retain.x[:1])
        nets = [Net(model, work.counts) for model, work in zip(models, works, strict=True)]
        memos = [
            self.prepare(net, task, work.seeds.generator("prepare"))
            for net, task, work in zip(nets, tasks, works, strict=True)
        ]
        parts = [slice(None)]
        if any(task is not tasks[0] for task in tasks) and not joinable(memos):
            parts = [slice(place, place + 1) for place in range(len(nets))]
        outcomes = [out for part in parts for out in self._moved(nets[part], memos[part], tasks[part], works[part])]
        return [_written(out, work) for out, work in zip(outcomes, works, strict=True)]

    def _moved(
        self, nets: Sequence[Net], memos: Sequence[Memo], tasks: Sequence[Task], works: Sequence[Work]
    ) -> list[Outcome | DivergedError]:
        """What the loop leaves of each; only their forget sets may differ."""
        task, models = tasks[0], [net.module for net in nets]
        own = tasks if any(other is not task for other in tasks) else [task]
        watches = [one.watch for one in own]
        forget = [samples_of(one.forget) for one in own]
        places = torch.arange(len(own) * len(task.forget)).reshape(len(own), -1)
        return run_phases(
            nets,
            self.phases(models[0], task),
            forget=Samples(*(torch.cat(parts) for parts in zip(*forget, strict=True))),
            retain=samples_of(task.retain),
            recipe=self._settings(task.recipe),
            seeds=[work.seeds for work in works],
            watch=watches[0] if len(own) == 1 else watches,
            rule=self.rule(task),
            memos=memos,
            starts=self._starts(models, tasks, works),
            progress=works[0].progress,
            rows=None if len(own) == 1 else {"forget": places},
        )

    def _starts(
        self, models: Sequence[nn.Module], tasks: Sequence[Task], works: Sequence[Work]
    ) -> list[Tensors] | None:
        if type(self).start is GradientMethod.start:
            return None
        started = (
            self.start(copy.deepcopy(model), task, work.seeds.generator("start"))
            for model, task, work in zip(models, tasks, works, strict=True)
        )
        return [Net(start).state() for start in started]

    def _settings(self, recipe: Recipe | None) -> Recipe:
        """The recipe's optimizer with this method's settings."""
        base = recipe or Recipe(learning_rate=0.001)
        return dataclasses.replace(
            base,
            learning_rate=base.learning_rate if self.learning_rate is None else self.learning_rate,
            batch_size=base.batch_size if self.batch_size is None else self.batch_size,
            patience=self.patience,
        )


def rule_of(task: Task) -> Rule:
    """The rule of the task's protocol; without a validation set, the last epoch."""
    if task.validation is None:
        return keep_last
    return keep_accuracy if task.protocol == "published" else keep_forgotten


def _written(out: Outcome | DivergedError, work: Work) -> nn.Module | NumericalError:
    """The model that the loop left, what the record says of it written to the work."""
    if isinstance(out, DivergedError):
        return out
    work.candidates = [candidate.to_dict() for candidate in out.candidates]
    work.chosen, work.history = out.chosen, out.history
    return out.net.write_back()
