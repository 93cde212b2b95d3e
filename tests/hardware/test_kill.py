"""True processes, truly killed (SIGKILL), at the steps of submit and collect that others can notice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qiskit_ibm_runtime")
pytest.importorskip("qiskit_aer")

from tests.hardware.driver import HASTE, Driver
from tests.hardware.faults import Fate, Faults
from tests.hardware.stub import StubService
from tests.hardware.world import JOBS, LISTING, Planned, make_plan

KILLED = -9
#: In the quick selection each so manieth step, beside those around the first submission.
STRIDE = 25


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    return make_plan(tmp_path_factory.mktemp("planned"))


@pytest.fixture(scope="module")
def stub() -> Iterator[StubService]:
    """A service with a clock of its own, on which a job is listed in time, as the children's clocks see it.

    Long before: on a machine that has much to do, a request takes its time too.
    """
    late = Faults(listing_delay=0.1 * LISTING * HASTE)
    service = StubService(faults=late)
    service.fate = Fate(late)
    yield service
    service.close()


def fresh(stub: StubService, planned: Planned, folder: Path) -> Path:
    """The plan anew, and a service that has seen nothing of it."""
    stub.jobs.clear()
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(planned.folder, folder))


def steps_of(driver: Driver, command: str, folder: Path, **options: Any) -> list[str]:
    """The steps of a command that is left to live."""
    lived = driver.call(command, folder, **options)
    assert lived.code == 0, lived.output
    assert len(lived.steps) > 3 * JOBS
    return lived.steps


def some(steps: list[str]) -> list[int]:
    """Steps for the quick selection."""
    first = [at + k for at, what in enumerate(steps) if what == "POST /experimental/jobs" for k in range(-1, 4)][:5]
    return sorted({*first, *range(0, len(steps), STRIDE)})


def kill_at(driver: Driver, command: str, folder: Path, at: int, **options: Any) -> None:
    """Kill a command at a step, and run it again."""
    killed = driver.call(command, folder, at=at, **options)
    assert killed.code == KILLED, killed.output
    lived = driver.call(command, folder, **options)
    assert lived.code == 0, lived.output


def submit_killed_at_steps(stub: StubService, driver: Driver, planned: Planned, home: Path, quick: bool) -> None:
    folder = fresh(stub, planned, home / "plan")
    steps = steps_of(driver, "submit", folder, listing_delay=LISTING)
    for at in some(steps) if quick else range(len(steps)):
        fresh(stub, planned, folder)
        kill_at(driver, "submit", folder, at, listing_delay=LISTING)
        tags = [tag for job in stub.jobs.values() for tag in job.tags if tag.count("-") == 1]
        assert len(tags) == len(set(tags)) == JOBS, f"killed at step {at}, {steps[at]}: {sorted(tags)}"


def collect_killed_at_steps(stub: StubService, driver: Driver, planned: Planned, home: Path, quick: bool) -> None:
    import numpy as np

    from qunlearn import hardware

    folder = fresh(stub, planned, home / "plan")
    steps_of(driver, "submit", folder, listing_delay=LISTING)
    kept = shutil.copytree(folder, home / "submitted")
    steps = steps_of(driver, "collect", folder)
    for at in some(steps) if quick else range(len(steps)):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        kill_at(driver, "collect", folder, at)
        found = hardware.load(folder)
        assert found.complete, f"killed at step {at}, {steps[at]}"
        for model, sets in planned.values.items():
            for name, values in sets.items():
                assert np.array_equal(found.values[model][name], values), f"killed at step {at}, {steps[at]}"
    assert len(stub.jobs) == JOBS


def test_submit_is_killed_at_some_steps(stub: StubService, driver: Driver, planned: Planned, tmp_path: Path) -> None:
    submit_killed_at_steps(stub, driver, planned, tmp_path, quick=True)


def test_collect_is_killed_at_some_steps(stub: StubService, driver: Driver, planned: Planned, tmp_path: Path) -> None:
    collect_killed_at_steps(stub, driver, planned, tmp_path, quick=True)


@pytest.mark.slow
def test_submit_is_killed_at_every_step(stub: StubService, driver: Driver, planned: Planned, tmp_path: Path) -> None:
    submit_killed_at_steps(stub, driver, planned, tmp_path, quick=False)


@pytest.mark.slow
def test_collect_is_killed_at_every_step(stub: StubService, driver: Driver, planned: Planned, tmp_path: Path) -> None:
    collect_killed_at_steps(stub, driver, planned, tmp_path, quick=False)
