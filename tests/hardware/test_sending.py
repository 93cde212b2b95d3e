"""What `submit` makes of each answer, with a service of a few lines: every job once, and every refusal named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qunlearn.errors import InputError, ServiceError
from qunlearn.hardware import clock
from qunlearn.hardware.journal import HEARTBEAT, Journal, Row
from qunlearn.hardware.service import Remote
from qunlearn.hardware.submit import TRIES, _Sending


class AnswerError(Exception):
    """An error of the client with an HTTP status."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


class Service(Remote):
    """A service that lists jobs late, and answers as scripted.

    An entry for a submission: "ok"; a status that refuses it; "lost" (accepted, no answer); "dropped" (neither);
    "unseen" (accepted and answered, but its id is not known yet); "ended" (the batch takes no more jobs).
    """

    def __init__(self, script: list[str | int], delay: float = 0.0) -> None:
        super().__init__(SimpleNamespace(active_account=lambda: {"token": "s3cret"}), SimpleNamespace())
        self.script, self.delay = script, delay
        self.accepted: list[tuple[str, float, list[str]]] = []
        self.posts = self.opened = 0
        self.unseen: set[str] = set()
        self.accepting = True
        self.service.jobs, self.service.job = self._jobs, self._job

    def open_batch(self, say: Any) -> None:
        self.opened += 1
        self.accepting = True
        self.batch = SimpleNamespace(
            session_id=f"b-{self.opened}", details=lambda: {"accepting_jobs": self.accepting}, close=lambda: None
        )

    def post(self, pubs: Any, options: dict[str, Any]) -> str:
        self.posts += 1
        what = self.script.pop(0) if self.script else "ok"
        if isinstance(what, int):
            raise AnswerError(what)
        if what == "ended":
            self.accepting = False
            raise AnswerError(400)
        if what == "dropped":
            raise ConnectionError("reset by peer, s3cret")
        name = f"j-{len(self.accepted)}"
        self.accepted.append((name, clock.now(), options["tags"]))
        if what == "lost":
            raise ConnectionError("no answer")
        if what == "unseen":
            self.unseen.add(name)
        return name

    def _jobs(self, job_tags: list[str], **_: Any) -> list[Any]:
        return [
            SimpleNamespace(job_id=lambda name=name: name, tags=tags)
            for name, at, tags in self.accepted
            if set(job_tags) <= set(tags) and clock.now() >= at + self.delay
        ]

    def _job(self, name: str) -> Any:
        if name in self.unseen:
            raise AnswerError(404)
        return next(SimpleNamespace(tags=tags) for other, _, tags in self.accepted if other == name)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that waiting moves on."""
    now = [1000.0]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    monkeypatch.setattr(clock, "wait", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def send(folder: Path, remote: Service, rows: list[Row] | None = None, said: list[str] | None = None) -> list[Row]:
    journal = Journal(folder, ["aa", "bb"])
    for row in rows or [Row(0, "aa"), Row(1, "bb")]:
        journal.write(row)
    planned: Any = SimpleNamespace(pubs=lambda number: [], options=lambda row: {"tags": [row.family, row.tag]})
    sending = _Sending(planned, journal, remote, 60.0, (said if said is not None else []).append)
    sending.send_all([row for row in journal.rows() if row.state in ("planned", "posting")])
    return journal.rows()


def states(rows: list[Row]) -> list[str]:
    return [row.state for row in rows]


@pytest.mark.parametrize("what", ["ok", "lost", "dropped", "unseen", 500, 503, 408, 429])
@pytest.mark.parametrize("delay", [0.0, 59.0])
def test_every_job_is_accepted_once(tmp_path: Path, time: list[float], what: str | int, delay: float) -> None:
    remote = Service([what, what, "ok", "lost"], delay)
    rows = send(tmp_path, remote)
    assert states(rows) == ["submitted", "submitted"]
    assert sorted(tags[1] for _, _, tags in remote.accepted) == ["qunlearn-aa-1", "qunlearn-bb-1"]
    assert {row.job_id: row.tag for row in rows} == {name: tags[1] for name, _, tags in remote.accepted}


def test_an_unknown_outcome_waits_out_the_listing(tmp_path: Path, time: list[float]) -> None:
    remote = Service(["dropped"])
    said: list[str] = []
    send(tmp_path, remote, said=said)
    assert remote.accepted[0][1] >= 1000.0 + 60.0 + 2 * HEARTBEAT
    assert "s3cret" not in " ".join(said)


@pytest.mark.parametrize("listed", [False, True])
def test_a_row_found_in_posting(tmp_path: Path, time: list[float], listed: bool) -> None:
    remote = Service([], delay=50.0)
    if listed:  # accepted just before the process died
        remote.accepted.append(("j-0", 990.0, ["qunlearn-aa", "qunlearn-aa-1"]))
    rows = send(tmp_path, remote, [Row(0, "aa", "posting", at=990.0), Row(1, "bb")])
    assert states(rows) == ["submitted", "submitted"]
    assert remote.posts == (1 if listed else 2)
    if not listed:
        assert remote.accepted[1][1] >= 990.0 + 60.0


def test_a_planned_row_whose_job_is_there_is_not_sent(tmp_path: Path, time: list[float]) -> None:
    """As of a copy of the folder from before the jobs were sent."""
    remote = Service([])
    first = send(tmp_path / "one", remote)
    copy = send(tmp_path / "copy", remote)
    assert remote.posts == 2
    assert [row.job_id for row in copy] == [row.job_id for row in first]


def test_a_lost_row_takes_the_newest_attempt(tmp_path: Path, time: list[float]) -> None:
    remote = Service([])
    for number in (1, 2):
        remote.accepted.append((f"j-{number}", 0.0, ["qunlearn-aa", f"qunlearn-aa-{number}"]))
    rows = send(tmp_path, remote, [Row(0, "aa", "posting", at=time[0], attempt=0), Row(1, "bb")])
    assert (rows[0].job_id, rows[0].attempt) == ("j-2", 2)


def test_a_refused_job_is_named_and_the_others_go_on(tmp_path: Path, time: list[float]) -> None:
    rows = send(tmp_path, Service([400]))
    assert states(rows) == ["failed", "submitted"]
    assert rows[0].reason == "refused by the service: status 400"


@pytest.mark.parametrize("code", [401, 403])
def test_an_account_that_may_not_is_told_and_nothing_is_lost(tmp_path: Path, time: list[float], code: int) -> None:
    with pytest.raises(InputError, match=r"job 2 of 2: expected an account that may submit.*1 of 2 jobs are submitted"):
        send(tmp_path, Service(["ok", code]))
    assert states(Journal(tmp_path, ["aa", "bb"]).rows()) == ["submitted", "planned"]


def test_a_batch_that_ended_is_opened_anew(tmp_path: Path, time: list[float]) -> None:
    remote = Service(["ended"])
    rows = send(tmp_path, remote)
    assert [(row.state, row.batch) for row in rows] == [("submitted", "b-2"), ("submitted", "b-2")]


@pytest.mark.parametrize(("what", "words"), [(429, "busy"), ("dropped", f"sent {TRIES} times")])
def test_giving_up_keeps_the_rows(tmp_path: Path, time: list[float], what: str | int, words: str) -> None:
    with pytest.raises(ServiceError, match=words):
        send(tmp_path, Service([what] * 100))
    assert states(Journal(tmp_path, ["aa", "bb"]).rows()) == ["planned", "planned"]
