"""The journal: rows that last, that beat while a request is under way, and that one command holds at a time."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qunlearn.errors import CorruptFileError, InputError, ServiceError
from qunlearn.files import write_bytes
from qunlearn.hardware import clock, files, journal
from qunlearn.hardware.journal import Journal, Row
from qunlearn.hardware.service import Remote, attempt_of, meaning, status_code
from qunlearn.hardware.status import Status, failure
from qunlearn.hardware.submit import again
from qunlearn.quantum.backends.device import never_repeat_posts


@pytest.fixture
def kept(tmp_path: Path) -> Journal:
    """A journal of three planned jobs."""
    made = Journal(tmp_path, ["aa", "bb", "cc"])
    for number, work in enumerate(made.works):
        made.write(Row(number, work))
    return made


def test_rows_are_read_as_written(kept: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: 1000.0)
    row = kept.move(kept.rows()[1], "submitted", job_id="j-1", batch="b", earlier=("j-0",), attempt=2)
    assert row == replace(
        Row(1, "bb"), state="submitted", at=1000.0, job_id="j-1", batch="b", earlier=("j-0",), attempt=2
    )
    assert Journal(kept.folder, kept.works).rows() == [Row(0, "aa"), row, Row(2, "cc")]
    assert (row.family, row.tag) == ("qunlearn-bb", "qunlearn-bb-2")


def test_a_row_is_on_the_disk_before_anything_follows(kept: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noted(name: str, real: Any) -> Any:
        def call(*given: Any) -> Any:
            calls.append(name)
            return real(*given)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    kept.move(kept.rows()[0], "posting")
    assert calls == ["fsync", "replace", "fsync"]  # the content, its name, the folder that holds the name


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"checksum": ""}', "other"])
def test_a_damaged_row_must_be_asked_for(kept: Journal, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: 50.0)
    text = kept.path(2).read_text() if damage == "other" else damage
    kept.path(1).write_text(text)
    lost = Row(1, "bb", "posting", 50.0, attempt=0)
    assert kept.rows() == [Row(0, "aa"), lost, Row(2, "cc")]
    assert kept.path(1).read_text() == text  # reading repairs nothing
    rows, said = kept.repair()
    assert rows[1] == lost
    assert "0001.json" in said[0]
    assert kept.repair() == (rows, [])


def test_the_time_of_a_row_is_refreshed_while_its_request_runs(kept: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "HEARTBEAT", 0.005)
    row = kept.move(kept.rows()[0], "posting")
    with kept.alive(row):
        time.sleep(0.05)
        between = kept.rows()[0].at
    after = kept.rows()[0].at
    assert row.at < between <= after
    time.sleep(0.02)
    assert kept.rows()[0].at == after


def test_two_commands_refuse_each_other(kept: Journal) -> None:
    with kept.locked(), pytest.raises(InputError, match="another command at work"), Journal(kept.folder, []).locked():
        pass
    with kept.locked():
        pass


def test_a_failed_job_is_planned_again_under_another_tag(kept: Journal) -> None:
    row = kept.move(kept.rows()[0], "failed", job_id="j-1", reason="cancelled")
    fresh = again(row, kept)
    assert (fresh.state, fresh.attempt, fresh.job_id, fresh.reason, fresh.earlier) == (
        "planned",
        2,
        None,
        None,
        ("j-1",),
    )
    assert again(kept.rows()[1], kept) == kept.rows()[1]


def test_what_is_told_of_failed_jobs() -> None:
    row = Row(3, "w", "failed", job_id="j-3", reason="error 1305: ran too long")
    assert failure(row).startswith("job 4 (j-3) failed: error 1305: ran too long; it ran into its")
    assert "plan again" in failure(row)
    found = Status(Path(), "p", "ibm_x", (row, Row(1, "v", "submitted", job_id="j")), (None, "QUEUED"))
    assert found.counts == {"failed": 1, "queued": 1}
    assert "retry-failed" in failure(replace(row, reason="it was cancelled"))


class AnswerError(Exception):
    """An error of the client with an HTTP status."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *((code, "refused") for code in (400, 404, 413, 422)),
        *((code, "denied") for code in (401, 403)),
        (429, "busy"),
        *((code, "unknown") for code in (408, 500, 503, -1)),
    ],
)
def test_what_an_answer_means(code: int, expected: str) -> None:
    assert meaning(AnswerError(code)) == expected
    hidden = RuntimeError("from None hides what it came from, but keeps it")
    hidden.__context__, hidden.__suppress_context__ = AnswerError(code), True
    assert meaning(hidden) == expected
    assert status_code(ValueError()) is None
    assert meaning(ConnectionError()) == "unknown"


def test_a_service_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(clock, "wait", waited.append)
    remote = Remote(SimpleNamespace(active_account=lambda: {"token": "s3cret"}))

    def away() -> None:
        raise ConnectionError("no route for s3cret")

    with pytest.raises(ServiceError, match="expected to list the jobs, got no answer") as caught:
        remote.patiently(away, "list the jobs")
    assert "s3cret" not in str(caught.value)
    assert sum(waited) > 240
    with pytest.raises(InputError, match="an account that may list"):
        remote.patiently(lambda: (_ for _ in ()).throw(AnswerError(403)), "list")


def test_the_client_does_not_repeat_posts() -> None:
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    adapter = HTTPAdapter(max_retries=Retry(total=5, connect=3, status_forcelist=[503], allowed_methods=None))
    client = SimpleNamespace(_session=SimpleNamespace(adapters={"https://": adapter}))
    never_repeat_posts(SimpleNamespace(_active_api_client=client, _api_clients={"crn": client}))
    assert not adapter.max_retries.is_retry("POST", 503)
    assert adapter.max_retries.is_retry("GET", 503)
    assert (adapter.max_retries.total, adapter.max_retries.connect, adapter.max_retries.other) == (5, 3, 0)


def test_attempts_are_read_from_tags() -> None:
    def job(*tags: str) -> Any:
        return SimpleNamespace(tags=list(tags))

    row = Row(0, "aa")
    assert attempt_of(row, job("qunlearn", "qunlearn-aa", "qunlearn-aa-3")) == 3
    assert attempt_of(row, job("qunlearn-ab-3", "qunlearn-aa-x")) == 0


def test_files_know_when_they_are_damaged(tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "deep" / "a.safetensors"
    write_bytes(path, files.tensor_bytes({"x": np.arange(3), "y": np.ones((2, 2))}, {"job": "j"}))
    arrays, note = files.read_tensors(path, "redo")
    assert note == {"job": "j"}
    assert arrays["x"].tolist() == [0, 1, 2]
    content = path.read_bytes()
    for spoilt in (content[:-1], content.replace(b'\\"job\\":\\"j\\"', b'\\"job\\":\\"k\\"'), b"", content[:-1] + b"!"):
        path.write_bytes(spoilt)
        with pytest.raises(CorruptFileError, match="redo"):
            files.read_tensors(path, "redo")
    write_bytes(path, files.json_bytes({"b": 1, "a": [0.1]}))
    assert files.read_json(path, "redo") == {"a": [0.1], "b": 1}
    assert json.loads(path.read_bytes())["checksum"]
    assert [other.name for other in path.parent.iterdir()] == ["a.safetensors"]
