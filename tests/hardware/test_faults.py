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


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
