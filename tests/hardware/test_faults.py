"""Jobs through a service that fails in every way, by processes that die at any step: none is doubled, none is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qiskit_ibm_runtime")
pytest.importorskip("qiskit_aer")

from qunlearn import hardware
from tests.hardware.faults import Faults
from tests.hardware.life import Mortal
from tests.hardware.stub import TOKEN
from tests.hardware.world import JOBS, LISTING, Planned, World, check_jobs, check_values, make_plan, story, world

QUICK, ALL = 40, 200


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """A plan of three jobs, and the values that they give."""
    return make_plan(tmp_path_factory.mktemp("planned"))


@pytest.mark.parametrize("seed", range(QUICK))
def test_no_job_is_lost_or_doubled(planned: Planned, tmp_path: Path, seed: int) -> None:
    story(planned, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(QUICK, ALL))
def test_no_job_is_lost_or_doubled_in_more_runs(planned: Planned, tmp_path: Path, seed: int) -> None:
    story(planned, tmp_path, seed)


def _without_the_look_up(patch: pytest.MonkeyPatch) -> None:
    from qunlearn.hardware.service import Remote

    patch.setattr(Remote, "find", lambda self, row: [])


def _without_the_row_before(patch: pytest.MonkeyPatch) -> None:
    from qunlearn.hardware.journal import Journal, Row

    move = Journal.move

    def moved(self: Journal, row: Row, state: Any, **changes: Any) -> Row:
        return row if state == "posting" else move(self, row, state, **changes)

    patch.setattr(Journal, "move", moved)


def _with_the_clients_own_repeats(patch: pytest.MonkeyPatch) -> None:
    from qunlearn.hardware import service

    patch.setattr(service, "never_repeat_posts", lambda service: None)


def _without_waiting_for_the_listing(patch: pytest.MonkeyPatch) -> None:
    from qunlearn.hardware.submit import _Sending

    settle = _Sending._settle

    def hasty(self: Any, row: Any) -> Any:
        self.delay = -1e9
        return settle(self, row)

    patch.setattr(_Sending, "_settle", hasty)


@pytest.mark.parametrize(
    "spoil",
    [
        _without_the_look_up,
        _without_the_row_before,
        _with_the_clients_own_repeats,
        _without_waiting_for_the_listing,
    ],
)
def test_these_runs_notice_a_missing_safeguard(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[pytest.MonkeyPatch], None]
) -> None:
    spoil(monkeypatch)
    with pytest.raises(AssertionError, match="was sent"):
        stories(planned, tmp_path)


def stories(planned: Planned, home: Path) -> None:
    """Those of the quick selection, up to the first that fails."""
    for seed in range(QUICK):
        story(planned, home, seed)


def steps_of(here: World, command: str, **options: Any) -> int:
    """How many steps a command takes that is left to live."""
    with Mortal().watched() as mortal:
        getattr(hardware, command)(here.folder, **options)
    return len(mortal.steps)


def test_death_at_every_step_of_submit(planned: Planned, tmp_path: Path) -> None:
    calm = Faults(listing_delay=LISTING)
    with world(planned.folder, tmp_path, calm) as here:
        steps = steps_of(here, "submit", listing_delay=LISTING)
    assert steps > 8 * JOBS
    for at in range(steps):
        with world(planned.folder, tmp_path, calm) as here:
            assert here.live("submit", at, listing_delay=LISTING) is None
            here.live("submit", listing_delay=LISTING)
            check_jobs(here, False, f"killed at step {at} of {steps}")


def test_death_at_every_step_of_collect(planned: Planned, tmp_path: Path) -> None:
    with world(planned.folder, tmp_path, Faults()) as here:
        here.live("submit")
        kept = shutil.copytree(here.folder, tmp_path / "submitted")
        steps = steps_of(here, "collect")
        assert steps > 3 * JOBS
        for at in range(steps):
            shutil.rmtree(here.folder)
            shutil.copytree(kept, here.folder)
            assert here.live("collect", at) is None
            check_values(here, here.live("collect"), planned, f"killed at step {at} of {steps}")
        assert len(here.stub.jobs) == JOBS


def test_status_changes_nothing(planned: Planned, tmp_path: Path) -> None:
    with world(planned.folder, tmp_path, Faults(), queue=100.0) as here:
        for command, said in ((None, "planned"), ("submit", "queued"), ("collect", "done")):
            if command:
                here.live(command)
            if command == "collect":
                here.clock.wait(200.0)
            before = contents(here.folder)
            assert said in str(here.live("status")).lower()
            assert contents(here.folder) == before


def test_collecting_needs_the_folder_and_the_account_alone(planned: Planned, tmp_path: Path) -> None:
    with world(planned.folder, tmp_path, Faults()) as here:
        here.live("submit")
        elsewhere = tmp_path / "another machine"
        here.folder.rename(elsewhere)
        collected = hardware.collect(elsewhere)
        assert collected.complete
        check_values(here, collected, planned, "elsewhere")
        assert not [name for name, content in contents(elsewhere).items() if TOKEN[:12].encode() in content]
        elsewhere.rename(here.folder)


def test_a_batch_that_the_service_closes_is_opened_anew(planned: Planned, tmp_path: Path) -> None:
    with world(planned.folder, tmp_path, Faults()) as here:

        def close_the_first(method: str, path: str, when: str) -> None:
            if (method, path, when) == ("POST", "/jobs", "after") and len(here.stub.sessions) == 1:
                here.stub.sessions[min(here.stub.sessions)]["accepting_jobs"] = False

        here.stub.watch = close_the_first
        assert here.live("submit") is not None, here.told
        assert [len({job.session for job in here.stub.jobs.values()}), len(here.stub.jobs)] == [2, JOBS]


def test_jobs_are_sent_one_by_one_where_there_are_no_batches(planned: Planned, tmp_path: Path) -> None:
    with world(planned.folder, tmp_path, Faults()) as here:
        here.stub.batches = False
        assert here.bring_home().complete
        assert {job.session for job in here.stub.jobs.values()} == {None}
        assert len(here.stub.jobs) == JOBS


@pytest.mark.parametrize(
    ("ends", "reason", "said"),
    [
        ("Failed", ("The dilution refrigerator is warm", 9999), ("refrigerator", "--retry-failed")),
        ("Cancelled", None, ("cancelled", "--retry-failed")),
        ("Cancelled", ("Ran too long", 1305), ("limit",)),
    ],
)
def test_a_job_that_failed_is_named_with_what_can_be_done(
    planned: Planned, tmp_path: Path, ends: str, reason: tuple[str, int] | None, said: tuple[str, ...]
) -> None:
    with world(planned.folder, tmp_path, Faults(), queue=10.0) as here:
        here.live("submit")
        first = min(here.stub.jobs)
        here.stub.jobs[first].ends, here.stub.jobs[first].reason = ends, reason
        here.clock.wait(20.0)
        collected = here.live("collect")
        assert not collected.complete
        assert len(collected.status.failed) == 1
        for words in (first, *said):
            assert words in str(collected.status)
        assert first in str(here.live("status"))

        here.live("submit")
        assert len(here.stub.jobs) == JOBS, "failed jobs are sent again on demand alone"
        here.live("submit", retry_failed=True)
        here.clock.wait(20.0)
        again = here.live("collect")
        assert again.complete
        check_values(here, again, planned, "sent again")
        assert len(here.stub.jobs) == JOBS + 1


def test_an_account_that_may_not_submit_and_later_may(planned: Planned, tmp_path: Path) -> None:
    with world(planned.folder, tmp_path, Faults()) as here:
        here.stub.fate.script(["", "denied"])
        assert here.live("submit") is None
        assert "expected an account that may submit jobs" in here.told[-1]
        assert len(here.stub.jobs) == 1
        assert here.bring_home().complete
        assert len(here.stub.jobs) == JOBS


def test_a_job_that_the_service_finds_too_large_does_not_stop_the_others(planned: Planned, tmp_path: Path) -> None:
    with world(planned.folder, tmp_path, Faults()) as here:
        here.stub.fate.script(["too_large"])
        found = here.live("submit")
        assert (found.counts["failed"], len(here.stub.jobs)) == (1, JOBS - 1)
        assert "413" in str(found)
        here.live("submit", retry_failed=True)
        assert here.live("collect").complete
        assert len(here.stub.jobs) == JOBS


@pytest.mark.parametrize("strike", ["lost_before", "throttled", "error_before"])
def test_a_service_that_is_away_for_long(planned: Planned, tmp_path: Path, strike: str) -> None:
    with world(planned.folder, tmp_path, Faults()) as here:
        here.stub.fate.script([strike] * 40)
        assert here.live("submit") is None
        assert "job 1 of 3" in here.told[-1]
        assert not here.stub.jobs
        here.calm()
        assert here.bring_home().complete
        assert len(here.stub.jobs) == JOBS


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
