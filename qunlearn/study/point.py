"""One point of a study's grid with one request: its split, and the models, tunings and trials on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from qunlearn.data import Dataset, ForgetRequest, Split
from qunlearn.errors import InputError, QunlearnError
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.task import Task as MethodTask
from qunlearn.methods.unlearn import task_of
from qunlearn.study.conditions import conditions, is_alone, is_condition, trained
from qunlearn.study.config import Settings
from qunlearn.study.grid import MethodChoice, StudyConfig, column_of
from qunlearn.study.plugins import source_hash
from qunlearn.study.prepare import circuit_of, identities_of, model_identity, model_of, split_of
from qunlearn.study.task import CORRUPTION, Kind, Task, canonical, circuit_name, hash_of
from qunlearn.study.tuning import REVISION as TUNING_REVISION
from qunlearn.study.tuning import is_tuned, settings_of, tuning_request
from qunlearn.training.loop import REVISION as LOOP_REVISION
from qunlearn.training.replicas import obstacle
from qunlearn.training.trace import Trace

REVISION = 4  # of what a trial computes beside the method: raise it when evaluation changes results
CONDITIONS = 1  # likewise of what it computes with noise, shots or a backend
_COLUMNS = {"data.split_seed", "model.circuit", "model.qubits", "model.depth", "model.entanglement"} | {
    "model.encoder", "model.head", "data.dataset", "protocol"
}  # fmt: skip


@dataclass(frozen=True)
class _Untrained:
    """An untrained model, and what is known of it alone: `alone` where models like it are not trained together."""

    model: nn.Module
    identity: dict[str, Any]
    entanglement: str | None
    alone: bool


class Models:
    """The untrained models of a study's cells, each made once."""

    def __init__(self) -> None:
        self._found: dict[str, _Untrained] = {}

    def of(self, settings: dict[str, Any], data: Dataset) -> _Untrained:
        """That of a cell, for samples like `data`."""
        parts = [settings[table] for table in ("model", "training", "run")]
        key = canonical([*parts, list(data.x.shape[1:]), len(data.classes)])
        if key not in self._found:
            model, card = model_of(settings, data, 0), settings["model"]["factory"] is None
            # The pattern of the two-qubit gates, also where it is the card's own.
            pattern = dict(circuit_of(settings).settings).get("entanglement") if card else None
            self._found[key] = _Untrained(model, model_identity(settings), pattern, obstacle(model) is not None)
        return self._found[key]


class Point:
    """One point of the grid with one request: the split, and the tasks on it.

    Attributes:
        refused: by label of a method that cannot work here, why.
    """

    def __init__(self, study: StudyConfig, cell: Settings, request: dict[str, Any], label: str, models: Models) -> None:
        self.study, self.request, self.label, self.values = study, request, label, cell.model_dump(mode="json")
        self.settings = cell.settled()
        for key in ("workers", "together"):  # the first changes no figure, the second is told by the units
            del self.settings["run"][key]
        self.trained = trained(self.settings)
        self.split = self._split()
        self.fresh = self._fresh(models)
        self.together = 1 if self.fresh.alone or is_alone(self.trained) else study.settings.run.together
        self.identity = hash_of(self._identity())
        self.identities = identities_of(self.settings, request, str(study.folder))
        self.sets = {name: identity for name, identity in self.identities.items() if name != "original"}
        self.refused = self._refused()
        self.choices = [choice for choice in study.methods if choice.label not in self.refused]
        self.originals = list(self._models("original", study.seeds))
        self.retrained = list(self._models("retrained", study.retrained_seeds()))
        self.own = {choice.label: self._own(choice) for choice in self.choices if choice.method.trains}
        self.tunings = dict(self._tunings()) if is_tuned(self.settings) else {}

    def place(self) -> dict[str, Any]:
        """What names the point in tables."""
        row = self.row(MethodChoice("none"), 0)
        return {name: value for name, value in row.items() if name not in ("study", "method", "seed")}

    def models(self) -> list[Task]:
        """Every model that a trial or a tuning of this cell needs."""
        for_tuning = [self._tuning_original()] if self.tunings else []
        own = [task for originals, retrained in self.own.values() for task in (*originals, *retrained)]
        return [*self.originals, *for_tuning, *self.retrained, *own]

    def _own(self, choice: MethodChoice) -> tuple[list[Task], list[Task]]:
        """Originals and retrained models as a method trains them, of the same seeds."""
        originals = self._models("original", self.study.seeds, choice)
        return list(originals), list(self._models("retrained", self.study.retrained_seeds(), choice))

    def of(self, choice: MethodChoice) -> tuple[list[Task], list[Task]]:
        """The originals that a method starts from, and the retrained models that it is compared with."""
        return self.own.get(choice.label, (self.originals, self.retrained))

    def trials(self) -> Iterator[Task]:
        """The rows of this cell, by method, then by seed."""
        for choice in self.choices:
            if choice.name == "retrain":
                yield from self._references(choice)
                continue
            gradient = isinstance(choice.method, GradientMethod) and not choice.method.trains
            for group in shared_out(range(len(self.originals)), self.together if gradient else 1):
                yield from _unit(self._of_originals(choice, group))

    def _of_originals(self, choice: MethodChoice, group: Sequence[int]) -> Iterator[Task]:
        """The trials of a method that start from the originals at these positions."""
        originals, retrained = self.of(choice)
        seeds = [originals[index].seed for index in group]
        for index in group:
            chosen = retrained[index : index + 1] if self.study.settings.paired else retrained
            keys = tuple(task.key for task in chosen)
            yield self._trial(choice, originals[index].seed, originals[index].key, keys, seeds)

    def _references(self, choice: MethodChoice) -> Iterator[Task]:
        """A row for each retrained model, compared with the others (if paired, with the next)."""
        keys = [task.key for task in self.retrained]
        for index, model in enumerate(self.retrained):
            others = keys[index + 1 :] + keys[:index]
            chosen = others[:1] if self.study.settings.paired else others
            yield self._trial(choice, model.seed, self.originals[0].key, (model.key, *chosen))

    def _split(self) -> Split:
        try:
            return split_of(self.settings, self.request, str(self.study.folder))
        except QunlearnError as error:
            raise InputError(f"{self.study.where('request')}: request {self.request}: {error}") from error

    def _fresh(self, models: Models) -> _Untrained:
        """The untrained model of the cell."""
        try:
            return models.of(self.trained, self.split.train)
        except QunlearnError as error:
            raise InputError(f"{self.study.where('model.circuit')}: {error}") from error

    def _identity(self) -> dict[str, Any]:
        plugins = {name: source_hash(name) for name in self.settings["plugins"]["modules"]}
        model, run = self.fresh.identity, self.trained["run"]
        found = {"model": model, "training": self.settings["training"], "run": run, "plugins": plugins}
        return found | ({"noise": self.trained["noise"]} if "noise" in self.trained else {})

    def _refused(self) -> dict[str, str]:
        """By label the methods that cannot work with the cell's model, or cannot meet the request, and why."""
        found: dict[str, str] = {}
        for choice in self.study.methods:
            method = choice.method
            if "trace" in method.needs and not method.trains:
                found[choice.label] = "it needs a trace, which only a method that trains its own originals can leave"
                continue
            try:
                method.check_model(self.fresh.model, self.split.original)
                method.check_task(replace(self._task, trace=Trace(method.name)) if method.trains else self._task)
            except QunlearnError as error:
                found[choice.label] = str(error)
        return found

    @cached_property
    def _task(self) -> MethodTask:
        """What a method would work on."""
        return task_of(self.split, self.fresh.model)

    def _models(self, kind: Kind, seeds: Sequence[int], choice: MethodChoice | None = None) -> Iterator[Task]:
        for group in shared_out(seeds, self.together if choice is None else 1):
            yield from _unit(self._model(kind, seed, group, self.identities, choice) for seed in group)

    def _model(
        self, kind: Kind, seed: int, group: Sequence[int], found: dict[str, str], choice: MethodChoice | None = None
    ) -> Task:
        """An original or a retrained model, trained on sets of these identities; by `choice` its own way."""
        training = found["original" if kind == "original" else "retain"]
        sets = {"training": training, "validation": found["validation"]}
        rules = {"protocol": self.split.protocol, "loop": LOOP_REVISION}
        determined = {"kind": kind, "identity": self.identity, "sets": sets, "rules": rules, "seed": seed}
        key = hash_of(determined | _group(group) | ({"method": choice.identity} if choice else {}))
        return Task(key, kind, self.trained, self.request, seed, method=choice.to_config() if choice else None)

    def _tuning_settings(self) -> dict[str, Any]:
        """The cell in which methods are tuned: where corrupted samples are to go, with others corrupted."""
        if "corrupted" not in self.request:
            return self.trained
        return {**self.trained, "data": {**self.trained["data"], "corruption_seed": self.study.tuning_seed()}}

    def _tuning_original(self) -> Task:
        """The original model that tunings start from, whose seed is no other's."""
        settings, seed = self._tuning_settings(), self.study.tuning_seed()
        sets = identities_of(settings, self.request, str(self.study.folder))
        return replace(self._model("original", seed, [seed], sets), settings=settings)

    def _tunings(self) -> Iterator[tuple[str, Task]]:
        """The tuning of every method that has something to search, by label."""
        original, settings = self._tuning_original(), self._tuning_settings()
        reported = [{key: item for key, item in one.items() if key not in CORRUPTION} for one in self.study.requests]
        request = tuning_request(self.split, reported, original.seed)
        sets = identities_of(settings, request, str(self.study.folder))
        shared = {
            "kind": "tuning",
            "identity": self.identity,
            "sets": {name: sets[name] for name in ("forget", "retain", "validation")},
            "models": [original.key],
            "rules": {"protocol": self.split.protocol, "loop": LOOP_REVISION, "tuning": TUNING_REVISION},
            "seed": original.seed,
        }
        label = ForgetRequest.from_config(request).label
        for choice in self.choices:
            config = choice.to_config()
            tried = settings_of(self.settings, config, original.seed)
            if len(tried) == 1:
                continue
            own = {
                "name": choice.name,
                "revision": tried[0].revision,
                "tried": [one.hyperparameters() for one in tried],
            }
            row = {**self.row(choice, original.seed, of_trial=False), "request": label}
            key = hash_of({**shared, "method": own})
            task = Task(key, "tuning", settings, request, original.seed, original.key, (), config, row)
            yield choice.label, task

    def _trial(
        self, choice: MethodChoice, seed: int, original: str, retrained: tuple[str, ...], group: Sequence[int] = ()
    ) -> Task:
        tuning = self.tunings.get(choice.label)
        determined: dict[str, Any] = {
            "kind": "trial",
            "identity": self.identity,
            "sets": self.sets,
            "models": [original, *retrained],
            "method": choice.identity,
            "request": ForgetRequest.from_config(self.request).to_config(),
            "rules": {"protocol": self.split.protocol, "loop": LOOP_REVISION, "trial": REVISION},
            "seed": seed,
        }
        if tuning is not None:
            determined["tuning"] = tuning.key
        if found := conditions(self.settings):
            determined["conditions"] = found
            determined["rules"] |= {"conditions": CONDITIONS}
        row, config = self.row(choice, seed), choice.to_config()
        key = hash_of({**determined, **_group(group), "row": row})
        row = {"study": row["study"], "trial": key, **row}
        chosen_by = tuning.key if tuning else None
        return Task(key, "trial", self.settings, self.request, seed, original, retrained, config, row, chosen_by)

    def row(self, choice: MethodChoice, seed: int, of_trial: bool = True) -> dict[str, Any]:
        """The identifying columns of what is done with a method and a seed."""
        swept = self._swept
        if not of_trial and self.values["noise"]["during"] != "all":  # what is tuned exactly serves every noise
            swept = {name: value for name, value in swept.items() if not is_condition(name)}
        named = {column_of(name): value for name, value in swept.items()}
        return {**self._columns, "method": choice.label, "seed": seed, **named}

    @cached_property
    def _columns(self) -> dict[str, Any]:
        data, model = self.settings["data"], self.settings["model"]
        hybrid = model["factory"] is None
        return {
            "study": self.study.name,
            "protocol": self.settings["protocol"],
            "dataset": data["dataset"] or data["file"],
            "split_seed": data["split_seed"],
            "circuit": circuit_name(model) if hybrid else model["factory"],
            "qubits": model["qubits"] if hybrid else None,
            "depth": model["depth"] if hybrid else None,
            "entanglement": self.fresh.entanglement,
            "encoder": model["encoder"] if hybrid else None,
            "head": model["head"] if hybrid else None,
            "request": self.label,
        }

    @cached_property
    def _swept(self) -> dict[str, Any]:
        """What of the swept keys has no column yet, by dotted name."""
        names = [name for name in self.study.swept() if name not in _COLUMNS]
        return {name: _shown(_lookup(self.values, name)) for name in names}


def shared_out(items: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """The items in order, in as few parts of at most `size` as there can be, as equal as they can be.

    >>> shared_out(range(5), 2)
    [(0,), (1, 2), (3, 4)]
    """
    parts = math.ceil(len(items) / size)
    borders = [len(items) * part // parts for part in range(parts + 1)]
    return [tuple(items[start:end]) for start, end in itertools.pairwise(borders)]


def _unit(tasks: Iterator[Task]) -> Iterator[Task]:
    first = next(tasks)
    yield first
    yield from (replace(task, unit=first.key) for task in tasks)


def _group(seeds: Sequence[int]) -> dict[str, Any]:
    """What a key holds of the seeds computed together; nothing of one alone, who is the same in any study."""
    return {"together": list(seeds)} if len(seeds) > 1 else {}


def _shown(value: Any) -> Any:
    """A value as a cell of a table holds it."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _lookup(settings: dict[str, Any], name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = value[part]
    return value
