"""What a plan says a study will cost, beside what it then costs."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch

from qunlearn.study.estimate import Estimate, estimate, expected_epochs
from qunlearn.study.executors import START_UP, Outcome
from qunlearn.study.plan import make_plan
from qunlearn.study.progress import StudyProgress, duration
from qunlearn.study.reading import read_study
from qunlearn.study.results import Study
from qunlearn.study.store import Store
from qunlearn.study.task import Kind, Task, units_of
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


def test_progress_counts_down_at_the_speed_of_each_kind(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    kinds: tuple[Kind, ...] = ("original", "trial")
    row = {"request": "all", "method": "any"}
    tasks = [Task(f"{kind}{n}", kind, {"data": {"split_seed": 0}}, {}, 0, row=row) for kind in kinds for n in range(4)]
    with StudyProgress(tasks, {task.key: 10.0 for task in tasks}, workers=2) as progress:
        assert progress.seconds_left() == 40.0
        progress.update(Outcome(tasks[0], "done", seconds=10.0))
        now = START_UP + 5.0
        assert progress.seconds_left() == pytest.approx(35.0)
        progress.update(Outcome(tasks[4], "done", seconds=30.0))  # a trial takes three times what was expected
        now = START_UP + 20.0
        assert progress.seconds_left() == pytest.approx((3 * 10 + 3 * 30) / 2)
        progress.update(Outcome(tasks[5], "failed", "no way"))
        assert progress.seconds_left() == pytest.approx((3 * 10 + 2 * 30) / 2)
        for task in (*tasks[1:4], *tasks[6:]):
            progress.update(Outcome(task, "done", seconds=10.0))
        assert progress.seconds_left() == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line == f"failed: {tasks[5].title}: no way" for line in lines)
    assert lines[-1].startswith("8 of 8 done, ")


@pytest.mark.parametrize(("seconds", "words"), [(3.4, "3 s"), (600, "10 min"), (3 * 3600, "3.0 h")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
