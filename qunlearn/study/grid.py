"""A study as data: what its file says, and the cells of its grid."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from qunlearn import methods
from qunlearn.data import ForgetRequest
from qunlearn.errors import InputError
from qunlearn.methods import Method
from qunlearn.study.config import Settings
from qunlearn.study.task import CORRUPTION, canonical

#: Methods that a study always holds, the last where models are audited: no audit convinces that does not expose it.
CONTROLS = ("none", "retrain", "head-only")
#: Lists of the grid that are no key of the file's tables.
OWN_AXES = ("request", "method", "seed")
#: Kinds of forget requests that a file may hold.
REQUESTS = ("fraction", "class", "ids", "corrupted")
#: Keys that cannot be swept: they say how to run, not what.
FIXED = ("run.workers", "run.together", "plugins.modules", "tuning.budget", "audit", "cluster")
#: Tables of which parts may be swept as one, for keys that change together.
TABLES = ("model", "training", "noise")


@dataclass(frozen=True)
class MethodChoice:
    """A method of the grid: its name, its hyper-parameters, and how the tables call it."""

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    @classmethod
    def read(cls, value: Any) -> MethodChoice:
        """From a name, or from a table with `name`. Raises `InputError` for anything else."""
        if isinstance(value, str):
            return cls(value, {}, value)
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise InputError(f"expected the name of a method, or a table with `name`, got {value!r}")
        parameters = {key: item for key, item in value.items() if key not in ("name", "label")}
        shown = ", ".join(f"{key}={item}" for key, item in parameters.items())
        label = value.get("label", f"{value['name']}({shown})" if shown else value["name"])
        if not isinstance(label, str) or not label:
            raise InputError(f"expected a text as label, got {label!r}")
        return cls(value["name"], parameters, label)

    def to_config(self) -> dict[str, Any]:
        """What `qunlearn.methods.get` takes."""
        return {"name": self.name, **self.parameters}

    @cached_property
    def method(self) -> Method:
        """The method itself. Raises as `qunlearn.methods.get` does."""
        return methods.get(self.to_config())

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What determines the method's work, for keys."""
        return {"name": self.method.name, "revision": self.method.revision, **self.method.hyperparameters()}


@dataclass(frozen=True)
class StudyConfig:
    """A study file, checked.

    Attributes:
        name: names the results folder.
        settings: the file's tables, defaults filled in.
        axes: swept keys by dotted name, in the order of the file, `data.split_seed` last; under the name of one of
            `TABLES`, parts of that table.
        requests: forget requests as `ForgetRequest.from_config` takes them, some with keys of the corruption beside.
        methods: always with "none" and "retrain", and with "head-only" where models are audited.
        seeds: of original models and methods.
        folder: where relative paths and the user's modules are found.
        text: the file itself.
        place: names the place of a key in the file, for messages.
    """

    name: str
    settings: Settings
    axes: tuple[tuple[str, tuple[Any, ...]], ...]
    requests: tuple[dict[str, Any], ...]
    methods: tuple[MethodChoice, ...]
    seeds: tuple[int, ...]
    folder: Path
    text: str
    place: Callable[[Sequence[str]], str] = field(default=".".join, compare=False)

    def where(self, key: str) -> str:
        """The place of a dotted key, in the grid if it is swept."""
        in_grid = key in OWN_AXES or key in dict(self.axes)
        table = key.partition(".")[0]
        if not in_grid and table in dict(self.axes):
            return self.place(["grid", table])
        return self.place(["grid", key] if in_grid else key.split("."))

    def points(self) -> Iterator[tuple[Settings, dict[str, Any], str]]:
        """Every cell with every request: settings with the request's corruption, the bare request, and its label."""
        for cell in self.cells():
            for request in self.requests:
                corruption = {f"data.{key}": value for key, value in request.items() if key in CORRUPTION}
                bare = {key: value for key, value in request.items() if key not in CORRUPTION}
                yield with_values(cell, corruption) if corruption else cell, bare, label_of(request)

    def cells(self) -> Iterator[Settings]:
        """The settings at every point of the product of `axes`, the last axis fastest, each once.

        Points can be equal where a part of a table sets what another axis sweeps, as for a control that has no pattern.
        """
        names, seen = [name for name, _ in self.axes], set()
        for values in itertools.product(*(values for _, values in self.axes)):
            cell = with_values(self.settings, dict(zip(names, values, strict=True)))
            if (text := canonical(cell.to_dict())) not in seen:
                seen.add(text)
                yield cell

    def swept(self) -> tuple[str, ...]:
        """The dotted names of all keys that differ between cells, those of parts of tables too."""
        names: dict[str, None] = {}
        for name, values in self.axes:
            parts = [f"{name}.{key}" for value in values for key in value] if name in TABLES else [name]
            names.update(dict.fromkeys(parts))
        return tuple(names)

    def retrained_seeds(self) -> tuple[int, ...]:
        """Seeds from 1000 on that no original uses, one for each retrained model of a split and request."""
        free = (seed for seed in itertools.count(1000) if seed not in self.seeds)
        return tuple(itertools.islice(free, self.settings.retrained))

    def tuning_seed(self) -> int:
        """The first seed from 3000 on that nothing reported uses, no split either."""
        splits = dict(self.axes).get("data.split_seed", (self.settings.data.split_seed,))
        taken = {*self.seeds, *self.retrained_seeds(), *splits}
        return next(seed for seed in itertools.count(3000) if seed not in taken)

    def to_dict(self) -> dict[str, Any]:
        """The study as JSON data: two studies with equal data have equal results."""
        settings = self.settings.to_dict()
        del settings["run"]["workers"]
        grid = {
            **{key: list(values) for key, values in self.axes},
            "request": list(self.requests),
            "method": [{**choice.to_config(), "label": choice.label} for choice in self.methods],
            "seed": list(self.seeds),
        }
        return {"name": self.name, **settings, "grid": grid}


def with_values(settings: Settings, values: dict[str, Any]) -> Settings:
    """The settings with some keys, by dotted name, or parts of a table, replaced and checked again."""
    data = settings.to_dict()
    for key, value in values.items():
        *tables, last = key.split(".")
        inner = data
        for table in tables:
            inner = inner.setdefault(table, {})
        inner[last] = {**inner.get(last, {}), **value} if key in TABLES and isinstance(value, dict) else value
    return Settings.model_validate(data)


def sweepable() -> tuple[str, ...]:
    """The dotted names of all keys that a grid may sweep."""
    names: list[str] = []
    for name, info in Settings.model_fields.items():
        default = info.get_default(call_default_factory=True)
        fields = getattr(type(default), "model_fields", None)
        names += [f"{name}.{inner}" for inner in fields] if fields else [name]
    return (*(name for name in names if name not in FIXED and name.partition(".")[0] not in FIXED), *TABLES)


def column_of(name: str) -> str:
    """How the tables call a swept key: ``noise_depolarizing`` for `noise.depolarizing`, ``shots`` for `run.shots`."""
    table, _, key = name.partition(".")
    if table == "noise":
        return f"noise_{key}"
    return key if name in ("run.shots", "run.backend") or (table == "data" and key in CORRUPTION) else name


def label_of(request: dict[str, Any]) -> str:
    """How the tables call a request: its label, and what is corrupted for it alone.

    >>> label_of({"corrupted": True, "label_flips": 0.1})
    'corrupted samples (10 % label flips)'
    """
    bare = {key: value for key, value in request.items() if key not in CORRUPTION}
    told = [
        f"{'-'.join(map(str, value[:2]))} swap {100 * value[2]:g} %"
        if key == "swap"
        else f"{100 * value:g} % {key.replace('_', ' ')}"
        for key, value in request.items()
        if key in CORRUPTION
    ]
    label = ForgetRequest.from_config(bare).label
    return f"{label} ({', '.join(told)})" if told else label
