"""The work of a study: tasks (a model to train, a method to tune, a trial to run), and the units they come in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["original", "retrained", "tuning", "trial", "ranking", "shadow", "population", "audit"]
CORRUPTION = ("label_flips", "feature_noise", "swap")
"""The keys of ``[data]`` that spoil training samples."""


def corruption_of(settings: dict[str, Any]) -> str:
    """How the training set of a cell is corrupted, in words; empty where it is not."""
    data = settings["data"]
    return ", ".join(f"{key} {data[key]}" for key in CORRUPTION if key in data)


def circuit_name(model: dict[str, Any]) -> str:
    """How the tables call the circuit of a model's settings: with the control in its place, if there is one."""
    control = {"twin": " (classical twin)", "frozen": " (frozen)"}.get(model["control"] or "", "")
    return f"{model['circuit']}{control}"


@dataclass(frozen=True)
class Task:
    """One result of a study; plain JSON data, so that any executor can send it.

    Attributes:
        key: hash of all that determines the result.
        kind: what is made.
        settings: the cell of the grid, as `Settings.to_dict` gives it.
        request: the forget request; of an original under the sound protocol any one that shares it.
        seed: of initialisation, order and method.
        original: key of the original model that a trial or a tuning starts from.
        retrained: keys of the retrained models that a trial is compared with.
        method: name and hyper-parameters, as the study file gives them; of a model, the method that trains it.
        row: the identifying columns of the record.
        tuning: key of the tuning whose choice a trial uses.
        unit: key of the first task of its unit; its own where it is alone.
        trial: key of the trial whose model is audited.
        ranking: key of the ranking that says whether a method is among the best.
        uses: keys of other tasks that must be done first: blocks of models.
        after: keys of tasks that must have ended first, well or not.
        extra: what is particular to the kind: of a block of models ``part`` and ``numbers``, of an audit its families.
    """

    key: str
    kind: Kind
    settings: dict[str, Any]
    request: dict[str, Any]
    seed: int
    original: str | None = None
    retrained: tuple[str, ...] = ()
    method: dict[str, Any] | None = None
    row: dict[str, Any] = field(default_factory=dict)
    tuning: str | None = None
    unit: str = ""
    trial: str | None = None
    ranking: str | None = None
    uses: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """A task of which nothing else is said is a unit of its own."""
        object.__setattr__(self, "unit", self.unit or self.key)

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the tasks that must be done first."""
        single = (self.original, self.tuning, self.trial, self.ranking)
        return (*(key for key in single if key), *self.retrained, *self.uses)

    @property
    def title(self) -> str:
        """A few words for messages."""
        what = f"{self.row['method']} on {self.row['request']}" if "method" in self.row else ""
        own = f" of {self.method['name']}" if self.method and not what else ""
        named = {
            "tuning": f"tuning of {what}",
            "audit": f"audit of {what}",
            "ranking": f"ranking on {self.row.get('request')}",
            "shadow": f"{_many(self.extra)} shadow models{f' of {what}' if what else ''}",
            "population": f"{_many(self.extra)} models for forgetting quality{f' of {what}' if what else ''}",
        }
        what = named.get(self.kind, what or f"{self.kind} model{own}")
        return f"{what}, split {self.settings['data']['split_seed']}, seed {self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """The task as JSON data, without what only some kinds have and this one has not."""
        return {name: value for name, value in asdict(self).items() if value or name not in _OF_SOME}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Task:
        """The task that `to_dict` wrote."""
        values: dict[str, Any] = {name: tuple(value) if name in _KEYS else value for name, value in data.items()}
        return cls(**values)


_OF_SOME = ("trial", "ranking", "uses", "after", "extra")
_KEYS = ("retrained", "uses", "after")


def _many(extra: dict[str, Any]) -> str:
    return f"{len(extra.get('numbers', ()))}"


@dataclass(frozen=True)
class Unit:
    """Tasks that differ in nothing but the seed, or the noise of their predictions; one worker computes them together.

    Attributes:
        tasks: all of them, also those that are done: the last bits of a result depend on who is computed with it.
        wanted: keys of those whose outcome is to be kept.
    """

    tasks: tuple[Task, ...]
    wanted: frozenset[str]

    @classmethod
    def alone(cls, task: Task) -> Unit:
        """A unit of one task."""
        return cls((task,), frozenset({task.key}))

    @property
    def key(self) -> str:
        """What names the unit, also where some of its tasks had to be left out."""
        return self.tasks[0].unit

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the tasks, each once."""
        return tuple(dict.fromkeys(task.seed for task in self.tasks))

    @property
    def needs(self) -> frozenset[str]:
        """Keys of the tasks that must be done first."""
        return frozenset(key for task in self.tasks for key in task.needs)

    @property
    def after(self) -> frozenset[str]:
        """Keys of the tasks that must have ended first."""
        return frozenset(key for task in self.tasks for key in task.after)

    @property
    def left(self) -> tuple[Task, ...]:
        """The tasks that are wanted."""
        return tuple(task for task in self.tasks if task.key in self.wanted)

    def lost(self, failed: AbstractSet[str]) -> frozenset[str]:
        """Keys of the tasks that need a failed one."""
        return frozenset(task.key for task in self.tasks if not failed.isdisjoint(task.needs))

    def without(self, keys: frozenset[str]) -> Unit:
        """The unit without some tasks."""
        return Unit(tuple(task for task in self.tasks if task.key not in keys), self.wanted - keys)

    def to_dict(self) -> dict[str, Any]:
        """The unit as JSON data."""
        return {"tasks": [task.to_dict() for task in self.tasks], "wanted": sorted(self.wanted)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Unit:
        """The unit that `to_dict` wrote."""
        return cls(tuple(Task.from_dict(task) for task in data["tasks"]), frozenset(data["wanted"]))


def units_of(tasks: Iterable[Task], wanted: AbstractSet[str]) -> list[Unit]:
    """The units that hold a wanted task, whole, in the order of their first tasks."""
    found: dict[str, list[Task]] = {}
    for task in tasks:
        found.setdefault(task.unit, []).append(task)
    units = (Unit(tuple(members), frozenset(wanted & {task.key for task in members})) for members in found.values())
    return [unit for unit in units if unit.wanted]


def canonical(data: Any) -> str:
    """JSON text that is the same for equal data. NaN is written as null, which every reader understands."""
    return canonical_again(_finite(data))


def canonical_again(data: Any) -> str:
    """`canonical` of what was read from JSON, much faster: all keys are texts there, and no number is NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def json_text(data: Any) -> str:
    """JSON for a file: in the order given, a line a key of the outermost level, NaN as null."""
    lines = (f"{json.dumps(str(key))}: {json.dumps(_finite(value), ensure_ascii=False)}" for key, value in data.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


_PLAIN = frozenset((str, int, bool, type(None)))  # most of what there is, and always finite


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): value if type(value) in _PLAIN else _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [value if type(value) in _PLAIN else _finite(value) for value in data]
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    return data


def hash_of(data: Any) -> str:
    """The first 24 hexadecimal digits of the SHA-256 of the canonical JSON: a key."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:24]
