"""An audit of one saved model beside the original and retrained models of a study."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qunlearn.data import Split
from qunlearn.errors import CorruptFileError, InputError, UnknownNameError
from qunlearn.evaluation.audit import AUDITS, Audit, Auditor
from qunlearn.models import load_model
from qunlearn.study.grid import StudyConfig
from qunlearn.study.plan import Plan, make_plan
from qunlearn.study.prepare import model_of, split_of
from qunlearn.study.store import Store, read_json
from qunlearn.study.task import Task, units_of
from qunlearn.study.trial import restore, run_unit


@dataclass(frozen=True)
class Audited:
    """What was audited, and what came of it: the columns that name the cell and the request, and the findings."""

    place: dict[str, Any]
    audit: Audit


def audit_model(
    path: str | Path,
    study: StudyConfig,
    root: Path,
    *,
    where: Mapping[str, str] | None = None,
    families: Sequence[str] | None = None,
    say: Callable[[str], None] = print,
) -> Audited:
    """Audit a saved model beside a study's original and retrained models.

    Args:
        path: the folder of a trial, or what `qunlearn.save_model` wrote.
        study: what the model was trained and made to forget.
        root: the study's results folder; models that are not there are trained, and not kept.
        where: columns of the study's table and their values, such as ``{"request": "5 %"}``: the first cell that fits;
            where not given that of the trial, or the first.
        families: of audits; all if None.
        say: told what has to be trained first.

    Raises:
        InputError: where there is no model, or it is not of the cell's kind.
        UnknownNameError: for a column, a value or a family that is not there.
    """
    for name in families or ():
        if name not in AUDITS:
            raise UnknownNameError("family of audits", name, AUDITS)
    plan = make_plan(study)
    task = _reference(plan, where or {}, _row_of(Path(path)))
    split = split_of(task.settings, task.request, str(study.folder))
    model = _load(path, task, split)
    original, others = _beside(plan, task, split, Store(root), say)
    auditor = Auditor(split, original=original, retrained=others)
    found = auditor(model, audits=families, seed=task.settings["data"]["split_seed"])
    place = {name: value for name, value in task.row.items() if name not in ("trial", "method", "seed")}
    return Audited(place, found)


def _row_of(path: Path) -> dict[str, Any]:
    """The identifying columns of a trial whose folder this is; nothing of any other model."""
    try:
        found: dict[str, Any] = read_json(path / "result.json").get("row", {})
        return found
    except CorruptFileError:
        return {}


def _reference(plan: Plan, where: Mapping[str, str], row: Mapping[str, Any]) -> Task:
    """The trial of an untouched original in the cell that is asked for."""
    untouched = [task for task in plan.of("trial") if task.method == {"name": "none"}]
    columns = [name for name in untouched[0].row if name not in ("study", "trial", "method")]
    for name, value in where.items():
        if name not in columns:
            raise UnknownNameError("column", name, columns)
        values = [str(task.row[name]) for task in untouched]
        if value not in values:
            raise UnknownNameError(f"{name} of this study", value, dict.fromkeys(values))
    wanted = where or {name: str(row[name]) for name in columns if name in row}
    for task in untouched:
        if all(str(task.row[name]) == value for name, value in wanted.items()):
            return task
    if where:
        raise InputError(f"expected a cell of this study with {dict(where)}, got none; see its table")
    return untouched[0]


def _load(path: str | Path, task: Task, split: Split) -> nn.Module:
    """The model, one of the user's own filled into what the study's factory makes."""
    fresh = None
    if task.settings["model"]["factory"] is not None:
        fresh = model_of(task.settings, split.train, 0)
    model = load_model(path, into=fresh).to(task.settings["run"]["device"])
    with torch.no_grad():
        try:
            model.eval()(split.test.x[:1].to(next(iter(model.state_dict().values())).device))
        except (RuntimeError, InputError) as error:
            raise InputError(
                f"expected a model for samples of {split.train.name} at {path}, got one that refuses them ({error}); "
                "name the study that it is from"
            ) from error
    return model


def _beside(
    plan: Plan, task: Task, split: Split, store: Store, say: Callable[[str], None]
) -> tuple[nn.Module, list[nn.Module]]:
    """The original and the retrained models of a trial, from the results folder, or trained now."""
    needed = [one for one in plan.tasks if one.key in task.needs]
    there, _ = Store(store.root).finished(needed) if store.root.is_dir() else (set(), [])
    with tempfile.TemporaryDirectory() as folder:
        fresh, missing = Store(folder), {one.key for one in needed} - there
        if missing:
            say(f"{len(missing)} original and retrained models are not in {store.root}: training them")
        for unit in units_of(plan.tasks, missing):
            for ended in run_unit(unit, fresh, str(plan.study.folder)):
                if ended.error is not None:
                    raise ended.error

        def found(one: Task) -> nn.Module:
            place = fresh if one.key in missing else store
            return restore(task.settings, one.kind, one.key, split, place)

        models = {one.key: found(one) for one in needed}
    assert task.original is not None
    return models[task.original], [models[key] for key in task.retrained]
