"""From a study to its tasks: every model to train once, every trial, each under a key of all that determines it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qunlearn import methods
from qunlearn.data import ForgetRequest, Split
from qunlearn.errors import InputError, QunlearnError
from qunlearn.methods.base import GradientMethod
from qunlearn.study.conditions import conditions, is_alone, is_condition, trained
from qunlearn.study.config import Settings
from qunlearn.study.grid import MethodChoice, StudyConfig, column_of
from qunlearn.study.names import check_names
from qunlearn.study.plugins import import_plugins, source_hash
from qunlearn.study.prepare import circuit_of, data_identity, model_identity, model_of, split_of
from qunlearn.study.task import Kind, Task, canonical, hash_of
from qunlearn.study.tuning import REVISION as TUNING_REVISION
from qunlearn.study.tuning import is_tuned, settings_of, tuning_request
from qunlearn.training.loop import REVISION as LOOP_REVISION
from qunlearn.training.replicas import obstacle

FORMAT = 1
REVISION = 2  # of what a trial computes beside the method: raise it when evaluation changes results
_COLUMNS = {"data.split_seed", "model.circuit", "model.qubits", "model.depth", "model.entanglement"} | {
    "model.encoder", "model.head", "data.dataset", "protocol"
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A study's tasks: models, then tuning, then trials in the order of the tables."""

    study: StudyConfig
    tasks: tuple[Task, ...]

    def of(self, kind: str) -> list[Task]:
        """The tasks of one kind, in order."""
        return [task for task in self.tasks if task.kind == kind]

    def to_dict(self) -> dict[str, Any]:
        """What ``plan.json`` holds."""
        return {
            "format": FORMAT,
            "study": self.study.to_dict(),
            "folder": str(self.study.folder),
            "tasks": [task.to_dict() for task in self.tasks],
        }


def make_plan(study: StudyConfig) -> Plan:
    """All tasks of a study. Builds every data set, split and model once, so that what cannot work is refused here.

    Raises:
        InputError: for a name that isn't known, a circuit that refuses a knob, a request that fits no sample.
    """
    import_plugins(str(study.folder), study.settings.plugins.modules)
    check_names(study)
    models: dict[str, Task] = {}
    tunings: dict[str, Task] = {}
    trials: list[Task] = []
    for cell in study.cells():
        for request in study.requests:
            found = _Cell(study, cell, request)
            for task in found.models():
                models.setdefault(task.key, task)
            for task in found.tunings.values():
                tunings.setdefault(task.key, task)
            trials += found.trials()
    ordered = sorted(models.values(), key=lambda task: task.kind != "original")
    return Plan(study, (*ordered, *tunings.values(), *_sharing(trials)))


def _sharing(trials: Sequence[Task]) -> Iterator[Task]:
    """The trials, those of one unit that unlearn the same models and differ in the noise of predictions alone."""
    seeds = {task.key: task.seed for task in trials}
    homes: dict[str, str] = {}
    for task in trials:
        work = canonical([trained(task.settings), task.request, task.method, seeds[task.unit]])
        yield replace(task, unit=homes.setdefault(work, task.unit))


class _Cell:
    """One point of the grid with one request: the split, and the tasks on it."""

    def __init__(self, study: StudyConfig, cell: Settings, request: dict[str, Any]) -> None:
        self.study, self.request, self.values = study, request, cell.model_dump(mode="json")
        self.settings = cell.settled()
        for key in ("workers", "together"):  # the first changes no figure, the second is told by the units
            del self.settings["run"][key]
        self.trained = trained(self.settings)
        self.split = self._split()
        self.together = study.settings.run.together
        self.identity = hash_of(self._identity())
        self.sets = {name: data_identity(data) for name, data in self.split.sets().items()}
        self.entanglement = self._entanglement()
        self.originals = list(self._models("original", study.seeds))
        self.retrained = list(self._models("retrained", study.retrained_seeds()))
        self.tunings = dict(self._tunings()) if is_tuned(self.settings) else {}

    def models(self) -> list[Task]:
        """Every model that a trial or a tuning of this cell needs."""
        for_tuning = self._models("original", [self.study.tuning_seed()]) if self.tunings else ()
        return [*self.originals, *for_tuning, *self.retrained]

    def trials(self) -> Iterator[Task]:
        """The rows of this cell, by method, then by seed."""
        for choice in self.study.methods:
            if choice.name == "retrain":
                yield from self._references(choice)
                continue
            gradient = isinstance(methods.get(choice.to_config()), GradientMethod)
            for group in shared_out(range(len(self.originals)), self.together if gradient else 1):
                yield from _unit(self._of_originals(choice, group))

    def _of_originals(self, choice: MethodChoice, group: Sequence[int]) -> Iterator[Task]:
        """The trials of a method that start from the originals at these positions."""
        seeds = [self.originals[index].seed for index in group]
        for index in group:
            chosen = self.retrained[index : index + 1] if self.study.settings.paired else self.retrained
            retrained = tuple(task.key for task in chosen)
            yield self._trial(choice, self.originals[index].seed, self.originals[index].key, retrained, seeds)

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

    def _identity(self) -> dict[str, Any]:
        try:
            if is_alone(self.trained) or obstacle(model_of(self.trained, self.split.train, 0)) is not None:
                self.together = 1
            model = model_identity(self.trained)
        except QunlearnError as error:
            raise InputError(f"{self.study.where('model.circuit')}: {error}") from error
        plugins = {name: source_hash(name) for name in self.settings["plugins"]["modules"]}
        run = self.trained["run"]
        found = {"model": model, "training": self.settings["training"], "run": run, "plugins": plugins}
        return found | ({"noise": self.trained["noise"]} if "noise" in self.trained else {})

    def _entanglement(self) -> str | None:
        """The pattern of the two-qubit gates, also where it is the card's own."""
        if self.settings["model"]["factory"] is not None:
            return None
        return dict(circuit_of(self.settings).settings).get("entanglement")

    def _models(self, kind: Kind, seeds: Sequence[int]) -> Iterator[Task]:
        for group in shared_out(seeds, self.together):
            yield from _unit(self._model(kind, seed, group) for seed in group)

    def _model(self, kind: Kind, seed: int, group: Sequence[int]) -> Task:
        trained_on = self.split.original if kind == "original" else self.split.retain
        sets = {"training": data_identity(trained_on), "validation": data_identity(self.split.validation)}
        rules = {"protocol": self.split.protocol, "loop": LOOP_REVISION}
        determined = {"kind": kind, "identity": self.identity, "sets": sets, "rules": rules, "seed": seed}
        key = hash_of(determined | _group(group))
        return Task(key, kind, self.trained, self.request, seed)

    def _tunings(self) -> Iterator[tuple[str, Task]]:
        """The tuning of every method that has something to search, by label."""
        (original,) = self._models("original", [self.study.tuning_seed()])
        request = tuning_request(self.split, self.study.requests, original.seed)
        sets = split_of(self.settings, request, str(self.study.folder)).sets()
        shared = {
            "kind": "tuning",
            "identity": self.identity,
            "sets": {name: data_identity(sets[name]) for name in ("forget", "retain", "validation")},
            "models": [original.key],
            "rules": {"protocol": self.split.protocol, "loop": LOOP_REVISION, "tuning": TUNING_REVISION},
            "seed": original.seed,
        }
        label = ForgetRequest.from_config(request).label
        for choice in self.study.methods:
            config = choice.to_config()
            tried = settings_of(self.settings, config, original.seed)
            if len(tried) == 1:
                continue
            own = {
                "name": choice.name,
                "revision": tried[0].revision,
                "tried": [one.hyperparameters() for one in tried],
            }
            row = {**self._row(choice, original.seed, of_trial=False), "request": label}
            key = hash_of({**shared, "method": own})
            task = Task(key, "tuning", self.trained, request, original.seed, original.key, (), config, row)
            yield choice.label, task

    def _trial(
        self, choice: MethodChoice, seed: int, original: str, retrained: tuple[str, ...], group: Sequence[int] = ()
    ) -> Task:
        method, tuning = methods.get(choice.to_config()), self.tunings.get(choice.label)
        determined = {
            "kind": "trial",
            "identity": self.identity,
            "sets": self.sets,
            "models": [original, *retrained],
            "method": {"name": choice.name, "revision": method.revision, **method.hyperparameters()},
            "request": ForgetRequest.from_config(self.request).to_config(),
            "rules": {"protocol": self.split.protocol, "loop": LOOP_REVISION, "trial": REVISION},
            "seed": seed,
        }
        if tuning is not None:
            determined["tuning"] = tuning.key
        if found := conditions(self.settings):
            determined["conditions"] = found
        row, config = self._row(choice, seed), choice.to_config()
        key = hash_of({**determined, **_group(group), "row": row})
        row = {"study": row["study"], "trial": key, **row}
        chosen_by = tuning.key if tuning else None
        return Task(key, "trial", self.settings, self.request, seed, original, retrained, config, row, chosen_by)

    def _row(self, choice: MethodChoice, seed: int, of_trial: bool = True) -> dict[str, Any]:
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
            "request": ForgetRequest.from_config(self.request).label,
            "method": choice.label,
            "seed": seed,
        }
        swept = [name for name in self.study.swept() if name not in _COLUMNS]
        if not of_trial and self.values["noise"]["during"] != "all":  # what is tuned exactly serves every noise
            swept = [name for name in swept if not is_condition(name)]
        return row | {column_of(name): _lookup(self.values, name) for name in swept}


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


def _lookup(settings: dict[str, Any], name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = value[part]
    return value
