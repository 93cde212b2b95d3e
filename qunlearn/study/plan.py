"""From a study to its tasks: every model to train once, every trial, each under a key of all that determines it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from qunlearn.errors import InputError
from qunlearn.study.audit_plan import audit_tasks
from qunlearn.study.conditions import trained
from qunlearn.study.grid import CONTROLS, StudyConfig
from qunlearn.study.names import check_names
from qunlearn.study.plugins import import_plugins
from qunlearn.study.point import Models, Point
from qunlearn.study.task import Kind, Task, canonical

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """A study's tasks: models, tuning, trials in the order of the tables, and audits.

    Attributes:
        study: what was asked for.
        tasks: in the order in which they are begun.
        left_out: methods that refuse a cell or a request, each with where and why.
    """

    study: StudyConfig
    tasks: tuple[Task, ...]
    left_out: tuple[dict[str, Any], ...] = ()

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
            **({"left_out": list(self.left_out)} if self.left_out else {}),
        }


def make_plan(study: StudyConfig) -> Plan:
    """All tasks of a study. Builds every data set, split and model once, so that what cannot work is refused here.

    Raises:
        InputError: for a name that isn't known, a circuit that refuses a knob, a request that fits no sample.
    """
    import_plugins(str(study.folder), study.settings.plugins.modules)
    check_names(study)
    found: dict[Kind, dict[str, Task]] = {kind: {} for kind in get_args(Kind)}
    left_out: list[dict[str, Any]] = []
    trials: list[Task] = []
    audited: set[str] = set()
    models = Models()
    for cell, request, label in study.points():
        point = Point(study, cell, request, label, models)
        own = list(point.trials())
        work = canonical([point.trained, point.request])
        audits = [] if work in audited else audit_tasks(point, own)  # they look at models, whatever strikes later
        audited.add(work)
        for task in (*point.models(), *point.tunings.values(), *audits):
            found[task.kind].setdefault(task.key, task)
        trials += own
        left_out += [{**point.place(), "method": method, "reason": why} for method, why in point.refused.items()]
    _refuse_idle(study, trials, left_out)
    ordered = [task for kind in _BEFORE for task in found[kind].values()]
    last = sorted((task for kind in _AFTER for task in found[kind].values()), key=_turn)
    return Plan(study, (*ordered, *_sharing(trials), *last), tuple(left_out))


_BEFORE: tuple[Kind, ...] = ("original", "retrained", "tuning")
_AFTER: tuple[Kind, ...] = ("shadow", "population", "ranking", "audit")


def _turn(task: Task) -> int:
    """Models that wait for nothing, the ranking, what waits for it, audits."""
    if task.kind in ("ranking", "audit"):
        return 1 if task.kind == "ranking" else 3
    return 2 if task.ranking or task.uses else 0


def _refuse_idle(study: StudyConfig, trials: Sequence[Task], left_out: Sequence[dict[str, Any]]) -> None:
    """Refuse a study with a method that fits none of its cells; a control that does not is left out."""
    at_work = {task.row["method"] for task in trials}
    for choice in study.methods:
        if choice.label not in at_work and choice.name not in CONTROLS:
            why = next(one["reason"] for one in left_out if one["method"] == choice.label)
            raise InputError(f"{study.where('method')}: {choice.label} fits no part of this study: {why}")


def _sharing(trials: Sequence[Task]) -> Iterator[Task]:
    """The trials, those of one unit that unlearn the same models and differ in the noise of predictions alone."""
    homes: dict[str, str] = {}
    units: dict[str, str] = {}
    for task in trials:
        if task.key == task.unit:  # the first of its unit
            work = canonical([trained(task.settings), task.request, task.method, task.seed])
            units[task.key] = homes.setdefault(work, task.key)
        yield replace(task, unit=units[task.unit]) if units[task.unit] != task.unit else task
