"""One point of a study's grid with one request: its split, and the models, tunings and trials on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from qunlearn import methods
from qunlearn.data import ForgetRequest, Split
from qunlearn.errors import InputError, QunlearnError
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.unlearn import task_of
from qunlearn.study.conditions import conditions, is_alone, is_condition, trained
from qunlearn.study.config import Settings
from qunlearn.study.grid import MethodChoice, StudyConfig, column_of
from qunlearn.study.plugins import source_hash
from qunlearn.study.prepare import circuit_of, data_identity, model_identity, model_of, split_of
from qunlearn.study.task import CORRUPTION, Kind, Task, hash_of
from qunlearn.study.tuning import REVISION as TUNING_REVISION
from qunlearn.study.tuning import is_tuned, settings_of, tuning_request
from qunlearn.training.loop import REVISION as LOOP_REVISION
from qunlearn.training.replicas import obstacle
from qunlearn.training.trace import Trace

REVISION = 4  # of what a trial computes beside the method: raise it when evaluation changes results
_COLUMNS = {"data.split_seed", "model.circuit", "model.qubits", "model.depth", "model.entanglement"} | {
    "model.encoder", "model.head", "data.dataset", "protocol"
}  # fmt: skip


class Point:
    """One point of the grid with one request: the split, and the tasks on it.

    Attributes:
        refused: by label of a method that cannot work here, why.
    """

    def __init__(self, study: StudyConfig, cell: Settings, request: dict[str, Any], label: str) -> None:
        self.study, self.request, self.label, self.values = study, request, label, cell.model_dump(mode="json")
        self.settings = cell.settled()
        for key in ("workers", "together"):  # the first changes no figure, the second is told by the units
            del self.settings["run"][key]
        self.trained = trained(self.settings)
        self.split = self._split()
        self.together = study.settings.run.together
        self.fresh = self._fresh()
        self.identity = hash_of(self._identity())
        self.sets = {name: data_identity(data) for name, data in self.split.sets().items()}
        if len(self.split.corrupted):
            self.sets["clean"] = data_identity(self.split.clean)
        self.entanglement = self._entanglement()
        self.refused = self._refused()
        self.choices = [choice for choice in study.methods if choice.label not in self.refused]
        self.originals = list(self._models("original", study.seeds))
        self.retrained = list(self._models("retrained", study.retrained_seeds()))
        self.own = {choice.label: self._own(choice) for choice in self.choices if _trains(choice)}
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
        config = choice.to_config()
        originals = self._models("original", self.study.seeds, config)
        return list(originals), list(self._models("retrained", self.study.retrained_seeds(), config))

    def of(self, choice: MethodChoice) -> tuple[list[Task], list[Task]]:
        """The originals that a method starts from, and the retrained models that it is compared with."""
        return self.own.get(choice.label, (self.originals, self.retrained))

    def trials(self) -> Iterator[Task]:
        """The rows of this cell, by method, then by seed."""
        for choice in self.choices:
            if choice.name == "retrain":
                yield from self._references(choice)
                continue
            gradient = isinstance(methods.get(choice.to_config()), GradientMethod) and not _trains(choice)
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

    def _fresh(self) -> nn.Module:
        """An untrained model of the cell."""
        try:
            return model_of(self.trained, self.split.train, 0)
        except QunlearnError as error:
            raise InputError(f"{self.study.where('model.circuit')}: {error}") from error

    def _identity(self) -> dict[str, Any]:
        try:
            if is_alone(self.trained) or obstacle(self.fresh) is not None:
                self.together = 1
            model = model_identity(self.trained)
        except QunlearnError as error:
            raise InputError(f"{self.study.where('model.circuit')}: {error}") from error
        plugins = {name: source_hash(name) for name in self.settings["plugins"]["modules"]}
        run = self.trained["run"]
        found = {"model": model, "training": self.settings["training"], "run": run, "plugins": plugins}
        return found | ({"noise": self.trained["noise"]} if "noise" in self.trained else {})

    def _refused(self) -> dict[str, str]:
        """By label the methods that cannot work with the cell's model, or cannot meet the request, and why."""
        found: dict[str, str] = {}
        for choice in self.study.methods:
            method = methods.get(choice.to_config())
            if "trace" in method.needs and not method.trains:
                found[choice.label] = "it needs a trace, which only a method that trains its own originals can leave"
                continue
            trace = Trace(method.name) if method.trains else None
            try:
                method.check_model(self.fresh, self.split.original)
                method.check_task(task_of(self.split, self.fresh, trace=trace))
            except QunlearnError as error:
                found[choice.label] = str(error)
        return found

    def _entanglement(self) -> str | None:
        """The pattern of the two-qubit gates, also where it is the card's own."""
        if self.settings["model"]["factory"] is not None:
            return None
        return dict(circuit_of(self.settings).settings).get("entanglement")

    def _models(self, kind: Kind, seeds: Sequence[int], method: dict[str, Any] | None = None) -> Iterator[Task]:
        for group in shared_out(seeds, self.together if method is None else 1):
            yield from _unit(self._model(kind, seed, group, method) for seed in group)

    def _model(
        self, kind: Kind, seed: int, group: Sequence[int], method: dict[str, Any] | None, split: Split | None = None
    ) -> Task:
        split = split or self.split
        trained_on = split.original if kind == "original" else split.retain
        sets = {"training": data_identity(trained_on), "validation": data_identity(split.validation)}
        rules = {"protocol": self.split.protocol, "loop": LOOP_REVISION}
        determined = {"kind": kind, "identity": self.identity, "sets": sets, "rules": rules, "seed": seed}
        key = hash_of(determined | _group(group) | ({"method": self.method(method)} if method else {}))
        return Task(key, kind, self.trained, self.request, seed, method=method)

    def method(self, config: dict[str, Any]) -> dict[str, Any]:
        """What determines a method's work, for keys."""
        method = methods.get(config)
        return {"name": method.name, "revision": method.revision, **method.hyperparameters()}

    def _tuning_settings(self) -> dict[str, Any]:
        """The cell in which methods are tuned: where corrupted samples are to go, with others corrupted."""
        if "corrupted" not in self.request:
            return self.trained
        return {**self.trained, "data": {**self.trained["data"], "corruption_seed": self.study.tuning_seed()}}

    def _tuning_original(self) -> Task:
        """The original model that tunings start from, whose seed is no other's."""
        settings, seed = self._tuning_settings(), self.study.tuning_seed()
        split = self.split if settings == self.trained else split_of(settings, self.request, str(self.study.folder))
        return replace(self._model("original", seed, [seed], None, split), settings=settings)

    def _tunings(self) -> Iterator[tuple[str, Task]]:
        """The tuning of every method that has something to search, by label."""
        original, settings = self._tuning_original(), self._tuning_settings()
        reported = [{key: item for key, item in one.items() if key not in CORRUPTION} for one in self.study.requests]
        request = tuning_request(self.split, reported, original.seed)
        sets = split_of(settings, request, str(self.study.folder)).sets()
        shared = {
            "kind": "tuning",
            "identity": self.identity,
            "sets": {name: data_identity(sets[name]) for name in ("forget", "retain", "validation")},
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
        determined = {
            "kind": "trial",
            "identity": self.identity,
            "sets": self.sets,
            "models": [original, *retrained],
            "method": self.method(choice.to_config()),
            "request": ForgetRequest.from_config(self.request).to_config(),
            "rules": {"protocol": self.split.protocol, "loop": LOOP_REVISION, "trial": REVISION},
            "seed": seed,
        }
        if tuning is not None:
            determined["tuning"] = tuning.key
        if found := conditions(self.settings):
            determined["conditions"] = found
        row, config = self.row(choice, seed), choice.to_config()
        key = hash_of({**determined, **_group(group), "row": row})
        row = {"study": row["study"], "trial": key, **row}
        chosen_by = tuning.key if tuning else None
        return Task(key, "trial", self.settings, self.request, seed, original, retrained, config, row, chosen_by)

    def row(self, choice: MethodChoice, seed: int, of_trial: bool = True) -> dict[str, Any]:
        """The identifying columns of what is done with a method and a seed."""
        data, model = self.settings["data"], self.settings["model"]
        hybrid = model["factory"] is None
        row = {
            "study": self.study.name,
            "protocol": self.settings["protocol"],
            "dataset": data["dataset"] or data["file"],
            "split_seed": data["split_seed"],
            "circuit": _circuit_name(model) if hybrid else model["factory"],
            "qubits": model["qubits"] if hybrid else None,
            "depth": model["depth"] if hybrid else None,
            "entanglement": self.entanglement,
            "encoder": model["encoder"] if hybrid else None,
            "head": model["head"] if hybrid else None,
            "request": self.label,
            "method": choice.label,
            "seed": seed,
        }
        swept = [name for name in self.study.swept() if name not in _COLUMNS]
        if not of_trial and self.values["noise"]["during"] != "all":  # what is tuned exactly serves every noise
            swept = [name for name in swept if not is_condition(name)]
        return row | {column_of(name): _shown(_lookup(self.values, name)) for name in swept}


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


def _circuit_name(model: dict[str, Any]) -> str:
    control = {"twin": " (classical twin)", "frozen": " (frozen)"}.get(model["control"] or "", "")
    return f"{model['circuit']}{control}"


def _trains(choice: MethodChoice) -> bool:
    return methods.get(choice.to_config()).trains


def _shown(value: Any) -> Any:
    """A value as a cell of a table holds it."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _lookup(settings: dict[str, Any], name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = value[part]
    return value
