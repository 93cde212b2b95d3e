"""A small plan for the stub's machine, and a world in which its jobs are sent: one service, one simulated clock."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import qunlearn as qu
from qunlearn import hardware
from qunlearn.errors import QunlearnError
from tests.hardware.conftest import lead_to
from tests.hardware.faults import Fate, Faults, SimulatedClock, named
from tests.hardware.life import KilledError, Mortal
from tests.hardware.stub import FINAL, Job, StubService

#: Within so many seconds the service lists a job.
LISTING = 60.0
JOBS = 3


def bundle() -> Any:
    """Two models of three wires, on two sets of six samples in all."""
    circuit = qu.load_circuit("ring-cz", qubits=3, depth=1)
    made = {
        name: qu.HybridClassifier(circuit, classes=2, generator=torch.Generator().manual_seed(seed))
        for seed, name in enumerate(["original", "adaprob"])
    }
    x = torch.rand(6, circuit.features, generator=torch.Generator().manual_seed(5)) * 3
    data = qu.Dataset(x, [0, 1] * 3)
    return hardware.Bundle(made, {"forget": data.select([0, 1]), "test": data.select([2, 3, 4, 5])})


@dataclass(frozen=True)
class Planned:
    """A plan that was made once, and what its jobs give when nothing goes wrong.

    Attributes:
        folder: of the plan, nothing submitted.
        values: by model and set.
    """

    folder: Path
    values: dict[str, dict[str, Any]]


@dataclass
class World:
    """One service and one clock for all processes of a story."""

    stub: StubService
    clock: SimulatedClock
    folder: Path
    seed: int
    told: list[str] = field(default_factory=list)

    def live(self, command: str, at: int | None = None, **options: Any) -> Any:
        """One command in a process of its own, which dies at step `at` if that is given; None if it ended early.

        What the package says to its user (its own errors) is an end too; any other error fails the test.
        """
        mortal = Mortal(at)
        try:
            with mortal.watched():
                return getattr(hardware, command)(self.folder, **options)
        except KilledError:
            self.told.append(f"{command}: killed at step {at}")
        except QunlearnError as error:
            self.told.append(f"{command}: {error}")
        return None

    def calm(self) -> None:
        """From here on nothing goes wrong but the delay of the listing."""
        self.stub.faults = Faults(listing_delay=LISTING, jitter=True, seed=self.seed)
        self.stub.fate = Fate(self.stub.faults)

    def bring_home(self, **options: Any) -> Any:
        """Submit what is left and collect, as a user would on a good day."""
        self.live("submit", listing_delay=LISTING, **options)
        for _ in range(50):
            collected = self.live("collect")
            if all(job.state(self.clock.now()) in FINAL for job in self.stub.jobs.values()):
                return self.live("collect") if collected is None else collected
            self.clock.wait(60.0)
        raise AssertionError(f"the jobs never end: {self.told}")

    def by_work(self) -> dict[str, list[Job]]:
        """The service's jobs by the tag that all attempts at one unit of work share."""
        found: dict[str, list[Job]] = {}
        for job in self.stub.jobs.values():
            (tag,) = [tag for tag in job.tags if tag.count("-") == 1]
            found.setdefault(tag, []).append(job)
        return found


@contextmanager
def world(planned: Path, home: Path, faults: Faults, *, queue: float = 0.0, run: float = 0.0) -> Iterator[World]:
    """A copy of a plan, and a service to send it to."""
    import urllib3.util.retry

    from qunlearn.hardware import clock as package_clock

    clock = SimulatedClock()
    folder = home / f"plan-{faults.seed}"
    shutil.copytree(planned, folder)
    stub = StubService(faults=faults, now=clock.now, wait=clock.wait, queue=queue, run=run)
    with pytest.MonkeyPatch.context() as patch:
        lead_to(stub, home, patch)
        patch.setattr(package_clock, "now", clock.now)
        patch.setattr(package_clock, "wait", clock.wait)
        # The client's own pauses between tries.
        patch.setattr(urllib3.util.retry, "time", SimpleNamespace(sleep=clock.wait, time=time.time))
        try:
            yield World(stub, clock, folder, faults.seed)
        finally:
            stub.close()
            shutil.rmtree(folder)


def make_plan(folder: Path) -> Planned:
    """Plan, and run once without any fault."""
    stub = StubService()
    with pytest.MonkeyPatch.context() as patch:
        lead_to(stub, folder, patch)
        plan_small(folder / "plan")
    stub.close()
    with world(folder / "plan", folder, Faults()) as calm:
        collected = calm.bring_home()
        assert len(calm.stub.jobs) == JOBS, calm.told
    return Planned(folder / "plan", collected.values)


def plan_small(folder: Path) -> Any:
    """The plan, through the account of the environment: three jobs."""
    return hardware.plan(bundle(), folder, backend="ibm_stub", shots=200, limits=limits(), limit_seconds=600)


def limits() -> Any:
    """Small enough for three jobs."""
    from qunlearn.hardware.cost import Limits

    return Limits(executions=800)


def story(planned: Planned, home: Path, seed: int) -> None:
    """A few processes that meet faults and are killed, then a good day; then every job is there once, and its counts.

    Raises:
        AssertionError: a job was sent twice, or one was lost, or its counts were mixed up.
    """
    generator = np.random.default_rng([seed, 1])
    faults, retry = Faults.drawn(seed, LISTING), seed % 3 == 0
    times = {"queue": float(generator.exponential(60)), "run": float(generator.exponential(10))}
    with world(planned.folder, home, faults, **times) as here:
        for _ in range(int(generator.integers(2, 7))):
            command = str(generator.choice(["submit", "status", "collect"], p=[0.6, 0.1, 0.3]))
            at = int(generator.integers(0, 90)) if generator.random() < 0.7 else None
            options = {"listing_delay": LISTING, "retry_failed": retry} if command == "submit" else {}
            here.live(command, at, **options)
            here.clock.wait(float(generator.exponential(20)))
        here.calm()
        collected = here.bring_home()
        check_jobs(here, retry, f"seed {seed}, {named(faults)}, {here.told}")
        check_values(here, collected, planned, f"seed {seed}, {here.told}")


def check_jobs(here: World, retry: bool, told: str) -> None:
    """One job for each unit of work, or one more for each that failed and was sent again on demand."""
    now = here.clock.now()
    works = here.by_work()
    assert len(works) == JOBS, f"expected {JOBS} units of work at the service, got {sorted(works)}: {told}"
    for tag, jobs in works.items():
        assert len({job.fingerprint for job in jobs}) == 1, f"{tag}: {told}"
        good = [job for job in jobs if job.state(now) == "Completed"]
        assert len(good) <= 1, f"{tag} was sent {len(jobs)} times: {told}"
        assert retry or len(jobs) == 1, f"{tag} was sent {len(jobs)} times: {told}"
        attempts = Counter(name for job in jobs for name in job.tags if name.count("-") == 2)
        assert set(attempts.values()) == {1}, f"an attempt was sent twice, {attempts}: {told}"


def check_values(here: World, collected: Any, planned: Planned, told: str) -> None:
    """What came home is what the jobs gave; where jobs failed, it is missing, and sending them again brings it."""
    now = here.clock.now()
    done = [any(job.state(now) == "Completed" for job in jobs) for jobs in here.by_work().values()]
    same = all(
        np.all(np.isnan(found) | (found == values))
        for model, sets in planned.values.items()
        for name, values in sets.items()
        for found in [collected.values[model][name]]
    )
    assert same, told
    assert collected.complete == all(done), told
    if not all(done):
        again = here.bring_home(retry_failed=True)
        assert again.complete, told
        check_jobs(here, True, told)
        check_values(here, again, planned, told)
