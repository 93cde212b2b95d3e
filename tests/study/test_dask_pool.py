"""How units are sent to Dask workers: to whom, how many at once, and what happens when nobody takes them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qunlearn.errors import InputError, ServiceError
from qunlearn.study import dask_pool, host
from qunlearn.study.dask_pool import DaskPool
from qunlearn.study.plan import make_plan
from qunlearn.study.reading import read_study
from qunlearn.study.store import Store
from qunlearn.study.task import Unit

pytest.importorskip("distributed")


class FakeClient:
    """Two workers, the second with a GPU; takes note of what is submitted, and does it at once."""

    status = "running"

    def __init__(self) -> None:
        self.scheduler = self
        self.address = "tcp://scheduler"
        self.sizes: list[int] = []
        self.submitted: list[tuple[Any, str]] = []

    def scheduler_info(self) -> dict[str, Any]:
        return {"workers": {"tcp://plain": {"resources": {}}, "tcp://gpu": {"resources": {"GPU": 1.0}}}}

    def run(self, function: Any, *arguments: Any, workers: Sequence[str], on_error: str) -> dict[str, Any]:
        return {address: function(*arguments) for address in workers}

    def submit(self, function: Any, given: dict[str, Any], *, resources: Any, **_: Any) -> Any:
        self.sizes.append(len(given["units"]))
        tasks = [task for unit in given["units"] for task in unit["tasks"]]
        self.submitted += [(resources, task["settings"]["run"]["device"]) for task in tasks]
        future: Any = Future()
        future.status = "finished"
        future.set_result([{"key": task["key"], "status": "done", "message": "", "seconds": 0.0} for task in tasks])
        return future


def test_units_for_a_gpu_go_where_one_is(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, client = read_study(tiny), FakeClient()
    tasks = [replace(task, unit=task.key) for task in make_plan(study).of("retrained")]
    on_gpu = [replace(task, settings={**task.settings, "run": {"device": "cuda"}}) for task in tasks[:2]]
    units = [Unit.alone(task) for task in (*on_gpu, *tasks[2:])]
    pool = DaskPool(Store(tmp_path), study, client, {}, say=lambda line: None)
    pool.check(1.0)
    assert {outcome.task.key for outcome in pool.run(units, set(), set())} == {task.key for task in tasks}
    assert [needs for needs, device in client.submitted if device == "cuda"] == [{"GPU": 1}] * 2
    assert [needs for needs, device in client.submitted if device == "cpu"] == [None] * 2
    monkeypatch.setattr(FakeClient, "scheduler_info", lambda self: {"workers": {"tcp://plain": {"resources": {}}}})
    pool = DaskPool(Store(tmp_path), study, client, {}, say=lambda line: None)
    pool.check(1.0)
    with pytest.raises(InputError, match="--resources GPU=1"):
        list(pool.run(units, set(), set()))


def test_cheap_units_are_sent_in_chunks_that_leave_work_for_others(tiny: Path, tmp_path: Path) -> None:
    study = read_study(tiny, ["seed=[0, 1, 2, 3, 4, 5]", "run.together=1"])
    tasks = make_plan(study).of("original")
    for seconds, most in ((0.0, 3), (1.0, 2), (60.0, 1)):
        client = FakeClient()
        pool = DaskPool(Store(tmp_path), study, client, {task.key: seconds for task in tasks}, say=lambda line: None)
        pool.check(1.0)
        assert len(list(pool.run([Unit.alone(task) for task in tasks], set(), set()))) == len(tasks) == 6
        assert sum(client.sizes) == 6
        assert max(client.sizes) == most


def test_an_answer_that_was_lost_with_its_worker_is_asked_for_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, client, submit = read_study(tiny), FakeClient(), FakeClient.submit

    def lose_the_first(self: FakeClient, *given: Any, **options: Any) -> Any:
        future = submit(self, *given, **options)
        if len(self.sizes) == 1:
            future.status = "lost"  # as Dask says when a worker dies before its answer was fetched
        return future

    monkeypatch.setattr(FakeClient, "submit", lose_the_first)
    tasks = make_plan(study).of("original")
    pool = DaskPool(Store(tmp_path), study, client, {}, say=lambda line: None)
    pool.check(1.0)
    outcomes = list(pool.run([Unit.alone(task) for task in tasks], set(), set()))
    assert sorted(outcome.task.key for outcome in outcomes) == sorted(task.key for task in tasks)
    assert sum(client.sizes) == len(tasks) + client.sizes[0]


class Refusing(FakeClient):
    """Workers that see no results folder as soon as they have work, and one more a look that never does."""

    def __init__(self, sign: Path, more: int = 0) -> None:
        super().__init__()
        self.sign, self.more, self.looks = sign, more, 0

    def scheduler_info(self) -> dict[str, Any]:
        self.looks += 1
        late: dict[str, Any] = {
            f"tcp://late{number}": {"resources": {}} for number in range(min(self.more, self.looks - 2))
        }
        return {"workers": {"tcp://plain": {"resources": {}}, **late}}

    def submit(self, function: Any, given: dict[str, Any], **_: Any) -> Any:
        self.sizes.append(len(given["units"]))
        self.sign.unlink(missing_ok=True)
        future: Any = Future()
        future.status = "error"
        future.set_exception(ServiceError(host.refusal(given)))
        return future


@pytest.mark.parametrize(("renewed", "more"), [(False, 0), (True, 0), (True, 2)], ids=["there", "waits", "all-come"])
def test_refused_by_all_it_stops_unless_jobs_are_still_to_come(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renewed: bool, more: int
) -> None:
    monkeypatch.setattr(dask_pool, "SEES", 0.0)
    monkeypatch.setattr(dask_pool, "LOOK", 0.0)
    study, client, said = read_study(tiny), Refusing(tmp_path / host.SIGN, more), list[str]()
    pool = DaskPool(
        Store(tmp_path), study, client, {}, limit=3, renew=(lambda: None) if renewed else None, say=said.append
    )
    pool.check(1.0)
    units = [Unit.alone(task) for task in make_plan(study).of("original")]

    class Waited(Exception):  # noqa: N818
        pass

    def sleep(seconds: float) -> None:
        if client.looks > 50:
            raise Waited

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(Waited if renewed and not more else ServiceError) as raised:
        list(pool.run(units, set(), set()))
    assert len(client.sizes) == 1  # nothing is sent to who has refused
    refused = ["tcp://plain", *(f"tcp://late{number}" for number in range(more))]
    assert [line.partition(",")[0] for line in said if line.startswith("not used")] == [
        f"not used: worker {address}" for address in refused
    ]
    if raised.type is ServiceError:
        assert all(f"worker {address}, on " in str(raised.value) for address in refused)
