"""What a method is. A method computes; the base class checks, copies, seeds, times, counts and judges.

Writing one means a frozen dataclass whose fields are hyper-parameters, decorated with `registry.register`: a
`GradientMethod` returns its `phases`, and the one loop runs them; any other `Method` writes `run` itself.

No method can report its own success, and none changes the model it was given.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import nn

from qunlearn.data import Dataset, count_duplicates
from qunlearn.errors import InputError, NumericalError, UnsupportedError
from qunlearn.methods.certificate import Kind
from qunlearn.methods.hyper import check_hyper
from qunlearn.methods.task import Record, Task, Unlearned, Work
from qunlearn.training.counting import Counts
from qunlearn.training.loop import Progress
from qunlearn.training.recipe import Recipe
from qunlearn.training.replicas import check_alike
from qunlearn.training.seeds import Seeds
from qunlearn.training.train import check_outputs, matched, required_recipe

#: What a quantum strategy can do to what circuit states tell of the forget set: nothing (it suppresses); erase where
#: angles between two encodings move; or where a trained encoder moves, too; or erasing is what it aims at.
Strategy = Literal[
    "", "suppresses", "can erase by re-uploading", "can erase by re-uploading or encoder", "aims to erase"
]


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """One way to unlearn; call it with a model and a task.

    The fields of an instance are its hyper-parameters and nothing else; `hyper` declares them.

    Attributes:
        name: what users call it.
        needs: the parts of a `Task` that it cannot do without, checked before any work.
        revision: of its code; raised whenever its results change, so that stored results are not taken for new ones.
        trains: whether it unlearns only from originals that its own `train` made, which records a `Trace`.
        reshapes: whether the unlearned model may hold tensors of other shapes (a kernel model drops samples).
        certifies: the kind of `Guarantee` that it can give; None for none.
        strategy: of a quantum strategy, what it can do to circuit states; empty for every other method.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})
    revision: ClassVar[int] = 1
    trains: ClassVar[bool] = False
    reshapes: ClassVar[bool] = False
    certifies: ClassVar[Kind | None] = None
    strategy: ClassVar[Strategy] = ""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            check_hyper(self.name, item, getattr(self, item.name))

    @final
    def __call__(self, model: nn.Module, task: Task, *, seed: int = 0, progress: Progress | None = None) -> Unlearned:
        """Unlearns the task's forget set from a copy of the model.

        Raises:
            InputError: before any work, for a task that lacks what the method needs, for empty or
                overlapping sets, or for a model that does not fit the data.
            UnsupportedError: for a module that ignores ``torch.func.functional_call``.
            DivergedError: where the method leaves the finite numbers; `last_good` is the last finite state.
        """
        (found,) = self.together([model], task, seeds=[seed], progress=progress)
        if isinstance(found, NumericalError):
            raise found
        return found

    @final
    def together(
        self,
        models: Sequence[nn.Module],
        task: Task | Sequence[Task],
        *,
        seeds: Sequence[int],
        progress: Progress | None = None,
    ) -> list[Unlearned | NumericalError]:
        """Unlearns the task's forget set from copies of several models of one architecture, a seed each.

        Each comes out as it would alone, but for rounding. Gradient methods move all at once where that is faster
        (`qunlearn.training.replicas.obstacle` says where not, and so does the record); anything else takes them one
        by one. Where the method diverges, the error stands in the model's place.

        Where every model has a task of its own, all move at once if the tasks differ in a forget set of one size
        alone.

        Raises:
            InputError: as for one model, and for models of different architectures.
        """
        check_alike(models, seeds)
        tasks = [task] * len(models) if isinstance(task, Task) else list(task)
        if len(tasks) != len(models):
            raise InputError(f"expected one task, or one for each of {len(models)} models, got {len(tasks)}")
        for one in tasks[:1] if isinstance(task, Task) else tasks:
            self.check_task(one)
        for data in (tasks[0].forget, tasks[0].retain, tasks[0].validation):
            if data is not None:
                check_outputs(models[0], data)
        # Methods do not share random streams: each setting of each method has its own for every seed.
        scope = f"{self.name} {json.dumps(self.hyperparameters(), sort_keys=True)}"
        works = [Work(Seeds(seed, scope), Counts(), progress) for _, seed in zip(models, seeds, strict=True)]
        parents = [fingerprint(model) for model in models]
        with torch.random.fork_rng(devices=[]):
            copies = [copy.deepcopy(model) for model in models]
            results = (
                self.run_all(copies, task, works) if isinstance(task, Task) else self.run_each(copies, tasks, works)
            )
        return [
            result if isinstance(result, NumericalError) else self._unlearned(model, result, own, work, parent)
            for model, result, own, work, parent in zip(models, results, tasks, works, parents, strict=True)
        ]

    def _unlearned(
        self, model: nn.Module, result: nn.Module, task: Task, work: Work, parent: str
    ) -> Unlearned | NumericalError:
        try:
            self._check_outcome(model, result, parent)
        except NumericalError as error:
            return error
        removed = _removed(model, task)
        result.removed_ids = removed  # type: ignore[assignment]
        return Unlearned(result.eval(), self._record(task, work, parent, removed))

    def _record(self, task: Task, work: Work, parent: str, removed: frozenset[int]) -> Record:
        return Record(
            method=self.name,
            revision=self.revision,
            hyperparameters=self.hyperparameters(),
            seed=work.seeds.seed,
            seconds=work.seconds,
            counts=work.counts,
            candidates=work.candidates,
            chosen=work.chosen,
            history=work.history,
            duplicates_in_retain=count_duplicates(task.forget, task.retain),
            parent=parent,
            removed=_hash_ids(removed),
            notes=work.notes,
            guarantee=work.guarantee.to_dict() if work.guarantee is not None else None,
            details=work.details,
        )

    def train(
        self,
        model: nn.Module,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> nn.Module:
        """An original that this method can unlearn from; only where `trains` says so.

        Args:
            model: freshly initialised, left alone; the original is made of its parts.
            data: the training set.
            validation: picks epochs; never the test set.
            recipe: how to train; taken from ``model.recipe``.
            seed: of everything random.
            progress: called after every epoch.

        Returns:
            A new module, perhaps of another class, with ``recipe``, ``trace`` (a `Trace`) and ``training_counts``
            (a `Counts`).

        Raises:
            InputError: for a model that it cannot use, before any work.
        """
        raise UnsupportedError(f"expected a method that trains its own originals, got {self.name}; use qunlearn.train")

    def check_model(self, model: nn.Module, data: Dataset) -> None:  # noqa: B027 (most methods take any model)
        """Refuses a freshly initialised model that `train` or `run` could not use; cheap, and before any work.

        Raises:
            InputError: says what to change.
        """

    @abstractmethod
    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """The unlearned model; `model` is a copy that may be changed in place."""

    def run_all(
        self, models: Sequence[nn.Module], task: Task, works: Sequence[Work]
    ) -> list[nn.Module | NumericalError]:
        """`run` for every model, each with its own work; sets the seconds that each took."""
        return [self._timed(model, task, work) for model, work in zip(models, works, strict=True)]

    def run_each(
        self, models: Sequence[nn.Module], tasks: Sequence[Task], works: Sequence[Work]
    ) -> list[nn.Module | NumericalError]:
        """`run_all` where every model has a task of its own."""
        each = zip(models, tasks, works, strict=True)
        return [found for model, task, work in each for found in self.run_all([model], task, [work])]

    def _timed(self, model: nn.Module, task: Task, work: Work) -> nn.Module | NumericalError:
        begun = time.perf_counter()
        try:
            return self.run(model, task, work)
        except NumericalError as error:
            return error
        finally:
            work.seconds = time.perf_counter() - begun

    def hyperparameters(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return dataclasses.asdict(self)

    def check_task(self, task: Task) -> None:
        """Refuses a task that lacks what the method needs, or that it cannot serve; before any work.

        Raises:
            InputError: says what to supply or change.
        """
        for need in sorted(self.needs):
            if getattr(task, need) is None:
                raise InputError(f"expected a task with a {need} for {self.name}, got none; {_HOW_TO_SUPPLY[need]}")
        for name, data in (("forget", task.forget), ("retain", task.retain)):
            if len(data.y) == 0:
                raise InputError(f"expected samples in the {name} set, got none")
        if task.forget.x.shape[1:] != task.retain.x.shape[1:]:
            raise InputError(
                f"expected forget samples of shape {tuple(task.retain.x.shape[1:])} like the retain set's, "
                f"got {tuple(task.forget.x.shape[1:])}"
            )
        common = sorted(set(task.forget.ids.tolist()) & set(task.retain.ids.tolist()))
        if common:
            raise InputError(f"expected forget and retain sets with no id in common, got {len(common)}: {common[:5]}")

    def _tensors(self, model: nn.Module) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of a model, or where shapes may change the names alone."""
        return {name: () if self.reshapes else tuple(t.shape) for name, t in model.state_dict().items()}

    def _check_outcome(self, given: nn.Module, result: nn.Module, parent: str) -> None:
        before, after = self._tensors(given), self._tensors(result)
        if before != after or result is given or fingerprint(given) != parent:
            raise InputError(f"expected {self.name} to return a changed copy of the model with the same tensors")
        for name, tensor in result.state_dict().items():
            if tensor.dtype.is_floating_point and not bool(tensor.isfinite().all()):
                raise NumericalError(f"expected finite numbers, got others in {name} after {self.name}")


def train_own_way(
    method: Method, fresh: nn.Module, data: Dataset, validation: Dataset | None, seed: int
) -> nn.Module | NumericalError:
    """What `Method.train` makes of a fresh model that carries a recipe; where it diverges, the error in its place."""
    valid = None if validation is None else matched(validation, fresh)
    try:
        return method.train(fresh, matched(data, fresh), validation=valid, recipe=required_recipe(fresh), seed=seed)
    except NumericalError as error:
        return error


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and buffers, with their names."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


_HOW_TO_SUPPLY = {
    "forget": "pass the samples to forget",
    "retain": "pass the samples to keep",
    "validation": "pass validation=, samples that were not trained on",
    "request": "pass request=, such as ForgetRequest.of_class(0)",
    "recipe": "train the original by qunlearn.train, or pass recipe=qunlearn.Recipe(...)",
    "trace": "train the original by the method's own train(task), which records it",
}


def _removed(model: nn.Module, task: Task) -> frozenset[int]:
    return frozenset(getattr(model, "removed_ids", frozenset())) | frozenset(task.forget.ids.tolist())


def _hash_ids(ids: frozenset[int]) -> str:
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()
