"""How far a study is, and how its models do, from its results folder alone."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from qunlearn.study.conditions import conditions
from qunlearn.study.executors import cores
from qunlearn.study.machines import mixture
from qunlearn.study.progress import duration
from qunlearn.study.results import Study
from qunlearn.study.store import read_json
from qunlearn.study.task import Task, corruption_of


def study_status(root: str | Path) -> dict[str, Any]:
    """What is done, failed and left, the time left, and how to go on."""
    study = Study(root)
    reports = study.store.failures()
    done = [task for task in study.tasks if study.is_done(task)]
    failed = [task for task in study.tasks if task.key in reports]
    known = {task.key for task in (*done, *failed)}
    left = [task for task in study.tasks if task.key not in known]
    found: dict[str, Any] = {"study": study.name, "done": len(done), "failed": len(failed), "left": len(left)}
    if sentence := mixture(study.root):
        found["machines"] = sentence
    if left:
        found["time left"] = _time_left(study, done, left)
        found["go on"] = f"qunlearn run {root}"
    elif failed:
        found["go on"] = f"qunlearn run {root} --retry-failed"
    return found


def _time_left(study: Study, done: list[Task], left: list[Task]) -> str:
    """By what the tasks of each kind took so far."""
    taken: dict[str, list[float]] = {}
    for task in done:
        timing = read_json(study.store.folder(task.kind, task.key) / "timing.json")
        taken.setdefault(task.kind, []).append(float(timing["total_seconds"]))
    if not taken:
        return "not known yet"
    usual = mean(seconds for times in taken.values() for seconds in times)
    workers = max(1, cores() // int(study.config["run"]["threads"]))
    total = sum(mean(taken[task.kind]) if task.kind in taken else usual for task in left)
    return f"about {duration(total / workers)} on {workers} worker{'s' if workers > 1 else ''}"


def accuracy_line(root: str | Path) -> str:
    """The originals' mean test accuracy beside that of logistic regression; empty before any trial is done."""
    study = Study(root)
    untouched = [task for task in study.trials if task.method == {"name": "none"} and study.is_done(task)]
    if not untouched:
        return ""
    kept = _alike(untouched[0])  # where noise is swept, the first of its strengths; no controls beside the circuit
    first = [task for task in untouched if task.request == untouched[0].request and _alike(task) == kept]
    rows = [study.store.result("trial", task.key)["row"] for task in first]
    line = f"Original models: test accuracy {mean(row['accuracy_test'] for row in rows):.1%}"
    by_features: dict[str, list[float]] = {}
    spoilt = corruption_of(untouched[0].settings)
    for row in (row for row in study.baselines if row.get("corruption", "") == spoilt):
        by_features.setdefault(row["features"], []).append(row["accuracy_test"])
    beside = ", ".join(f"{mean(values):.1%} on {features}" for features, values in by_features.items())
    return f"{line}; logistic regression {beside}" if beside else line


def _alike(task: Task) -> tuple[Any, ...]:
    """What originals that are averaged share."""
    return conditions(task.settings), task.settings["model"]["control"], corruption_of(task.settings)
