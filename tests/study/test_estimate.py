"""What a plan says a study will cost, beside what it then costs."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch

from qunlearn.study.estimate import Estimate, estimate, expected_epochs
from qunlearn.study.executors import START_UP
from qunlearn.study.plan import Plan, make_plan
from qunlearn.study.progress import StudyProgress, duration
from qunlearn.study.reading import read_study
from qunlearn.study.results import Study
from qunlearn.study.store import Store
from qunlearn.study.task import Task, units_of
from qunlearn.study.trial import run_unit


def test_gradient_evaluations_are_those_then_counted(tiny: Path, finished: tuple[Path, str]) -> None:
    plan, study = make_plan(read_study(tiny)), Study(finished[0])
    expected = estimate(plan).gradient_evaluations
    counted = {
        task.key: study.store.result(task.kind, task.key)["record"]["counts"]["gradient_evaluations"]
        for task in plan.tasks
        if task.row.get("method") != "retrain"
    }
    assert sum(expected.values()) == pytest.approx(sum(counted.values()), rel=0.15)
    for task in plan.tasks:
        if task.kind != "trial":
            assert expected[task.key] == counted[task.key]
        elif task.row["method"] in ("none", "retrain"):
            assert expected[task.key] == 0


def test_gradients_of_methods_that_were_not_tried_are_left_open(tiny: Path) -> None:
    plan = make_plan(read_study(tiny))
    patient, hasty = estimate(plan, patience=600.0), estimate(plan, patience=0.0)
    for task in plan.tasks:
        known, found = patient.gradient_evaluations[task.key], hasty.gradient_evaluations[task.key]
        assert math.isfinite(known)
        untried = task.kind == "trial" and task.row["method"] not in ("none", "retrain")
        assert math.isnan(found) if untried else found == known  # what else was tried differs from run to run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "changes"),
    [("quickstart.toml", ["seed=[0]", "retrained=2"]), ("published-iris.toml", ["seed=[0, 1]", "retrained=2"])],
)
def test_seconds_are_within_a_factor_of_two(file: str, changes: list[str], tmp_path: Path) -> None:
    plan = make_plan(read_study(Path(__file__).parents[2] / "studies" / file, changes))
    expected, store = estimate(plan), Store(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.thread_time()  # of this thread alone: what else runs on the machine does not count
        for unit in units_of(plan.tasks, {task.key for task in plan.tasks}):
            assert all(ended.error is None for ended in run_unit(unit, store, str(plan.study.folder)))
        taken = time.thread_time() - start
    finally:
        torch.set_num_threads(threads)
    assert taken / 2 <= sum(expected.seconds.values()) <= taken * 2


def test_wall_time_knows_workers_and_the_longest_task() -> None:
    tasks = [Task(key, "original", {}, {}, 0, unit=unit) for key, unit in (("a", "a"), ("b", "a"), ("c", "c"))]
    cost, units = Estimate({"a": 8.0, "b": 2.0, "c": 4.0}, {}), units_of(tasks, {"a", "b", "c"})
    one, two, many = (cost.wall(units, workers) for workers in (1, 2, 8))
    assert one - two == pytest.approx(14 - 10)
    assert two == many > 10  # of a and b together
    assert cost.wall([], 2) == 0


@pytest.mark.parametrize(
    ("epochs", "patience", "expected"), [(10, None, 10), (15, 15, 15), (5, 15, 5), (100, 15, 15 + 85 / 6)]
)
def test_expected_epochs(epochs: int, patience: int | None, expected: float) -> None:
    assert expected_epochs(epochs, patience) == expected


def test_progress_counts_down(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from qunlearn.study.executors import Outcome

    plan: Plan = make_plan(read_study(tiny))
    tasks = list(plan.tasks[:4])
    with StudyProgress(tasks, {task.key: 10.0 for task in tasks}, workers=2) as progress:
        before = progress.seconds_left()
        assert before == pytest.approx(20.0, rel=0.01)
        progress.update(Outcome(tasks[0], "done"))
        # Done at once, where start-up and half a task were expected: the rest is expected to go as quickly.
        assert progress.seconds_left() == pytest.approx(15.0 * START_UP / (START_UP + 5.0), rel=0.01)
        progress.update(Outcome(tasks[1], "failed", "no way"))
        progress.update(Outcome(tasks[2], "done"))
        progress.update(Outcome(tasks[3], "done"))
        assert progress.seconds_left() == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"failed: {tasks[1].title}: no way"
    assert lines[-1].startswith("4 of 4 done, ")


@pytest.mark.parametrize(("seconds", "words"), [(3.4, "3 s"), (600, "10 min"), (3 * 3600, "3.0 h")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
