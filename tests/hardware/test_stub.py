"""The stub service, against the unmodified client: what the other tests of this folder take for granted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import urllib3.util.retry

from qunlearn.errors import ServiceError
from tests.hardware.faults import Fate, Faults, SimulatedClock
from tests.hardware.stub import Device, LostError, StubService

pytest.importorskip("qiskit_ibm_runtime")
pytest.importorskip("qiskit_aer")

from qiskit import QuantumCircuit, transpile
from qiskit.circuit import ParameterVector
from qiskit_ibm_runtime import Batch, IBMBackend, QiskitRuntimeService
from qiskit_ibm_runtime.exceptions import (
    IBMRuntimeError,
    RuntimeInvalidStateError,
    RuntimeJobFailureError,
    RuntimeJobMaxTimeoutError,
    RuntimeJobNotFound,
)
from qiskit_ibm_runtime.executor_sampler import Sampler
from urllib3.util import Retry

ANGLES = np.array([[np.pi, 0, 0], [0, np.pi, 0], [0, 0, np.pi], [1.0, 0.4, 0.2]])


def circuit(backend: Any) -> Any:
    """Three rotations and a CNOT, each wire into its own bit, on the machine's own gates."""
    angles = ParameterVector("t", 3)
    drawn = QuantumCircuit(3, 3)
    for wire in range(3):
        drawn.ry(angles[wire], wire)
    drawn.cx(0, 1)
    drawn.measure(range(3), range(3))
    return transpile(drawn, backend, optimization_level=1, seed_transpiler=1)


def submit(mode: Any, *tags: str, shots: int = 1000, **options: Any) -> Any:
    """One job with the four rows of angles."""
    backend = mode if isinstance(mode, IBMBackend) else mode._backend
    sampler = Sampler(mode=mode, options={"default_shots": shots, "environment": {"job_tags": list(tags)}, **options})
    return sampler.run([(circuit(backend), ANGLES)])


def test_the_client_sees_a_true_backend(stub: StubService) -> None:
    backend = QiskitRuntimeService().backend("ibm_stub")

    assert isinstance(backend, IBMBackend)
    assert (backend.num_qubits, backend.status().operational, backend.status().status_msg) == (5, True, "active")
    assert backend.target.num_qubits == 5
    assert 0 < backend.properties().gate_error("cx", [0, 1]) < 0.1


@pytest.mark.parametrize("twirling", [False, True])
def test_a_job_end_to_end_gives_the_right_counts(stub: StubService, twirling: bool) -> None:
    service = QiskitRuntimeService()
    with Batch(backend=service.backend("ibm_stub")) as batch:
        job = submit(batch, "a", "b", twirling={"enable_gates": twirling, "enable_measure": twirling})

    bits = job.result()[0].data.c
    shots = bits.num_shots

    assert [bits[row].get_counts() for row in range(3)] == [{"011": shots}, {"010": shots}, {"100": shots}]
    ones = bits[3].to_bool_array(order="little").mean(axis=0)
    p = np.sin(np.array([1.0, 0.4, 0.2]) / 2) ** 2
    expected = np.array([p[0], p[0] * (1 - p[1]) + p[1] * (1 - p[0]), p[2]])
    assert np.abs(ones - expected).max() < 5 * 0.5 / np.sqrt(shots)
    assert stub.sessions[job.session_id]["mode"] == "batch"
    assert not stub.sessions[job.session_id]["accepting_jobs"]


def test_a_job_is_found_again_by_its_tags_and_its_id(stub: StubService) -> None:
    backend = QiskitRuntimeService().backend("ibm_stub")
    ids = [submit(backend, "run", f"unit-{k}").job_id() for k in range(23)]

    service = QiskitRuntimeService()
    assert {job.job_id() for job in service.jobs(limit=None, job_tags=["run"])} == set(ids)
    (found,) = service.jobs(limit=100, job_tags=["run", "unit-7"])
    assert (found.job_id(), found.tags, found.status()) == (ids[7], ["run", "unit-7"], "DONE")
    assert found.result()[0].data.c[0].get_counts() == {"011": 1000}
    assert service.jobs(limit=None, job_tags=["run", "unit-77"]) == []
    with pytest.raises(RuntimeJobNotFound):
        service.job("job-9999")


def test_a_job_is_listed_late_and_found_by_id_at_once(stub: StubService) -> None:
    clock = SimulatedClock()
    stub.now, stub.fate = clock.now, Fate(Faults(listing_delay=60.0))
    service = QiskitRuntimeService()
    key = submit(service.backend("ibm_stub"), "late").job_id()

    clock.wait(59.0)
    assert service.jobs(job_tags=["late"]) == []
    assert service.job(key).job_id() == key
    clock.wait(1.0)
    assert [job.job_id() for job in service.jobs(job_tags=["late"])] == [key]


def test_states_usage_and_cancelling(stub: StubService) -> None:
    clock = SimulatedClock()
    stub.now, stub.queue, stub.run = clock.now, 10.0, 5.0
    job = submit(QiskitRuntimeService().backend("ibm_stub"), "x", max_execution_time=30)

    assert (job.status(), job.usage(), stub.jobs[job.job_id()].cost) == ("QUEUED", 0, 30)
    clock.wait(12.0)
    assert job.status() == "RUNNING"
    clock.wait(5.0)
    assert (job.status(), job.usage()) == ("DONE", 2.0)
    with pytest.raises(RuntimeInvalidStateError):
        job.cancel()

    other = submit(QiskitRuntimeService().backend("ibm_stub"), "y")
    other.cancel()
    assert stub.jobs[other.job_id()].state(clock.now()) == "Cancelled"


@pytest.mark.parametrize(
    ("ends", "reason", "error"),
    [
        ("Failed", ("Internal error", 9999), RuntimeJobFailureError),
        ("Cancelled", ("Ran too long", 1305), RuntimeJobMaxTimeoutError),
        ("Cancelled", None, RuntimeInvalidStateError),
    ],
)
def test_jobs_that_fail(stub: StubService, ends: str, reason: tuple[str, int] | None, error: type[Exception]) -> None:
    stub.queue = 100.0
    job = submit(QiskitRuntimeService().backend("ibm_stub"), "x")
    stub.finish(ends=ends, reason=reason)

    with pytest.raises(error):
        job.result()


def test_the_client_repeats_a_submission_that_was_accepted(stub: StubService) -> None:
    """Why the package has to switch that off: one answer 5xx after accepting, and the service holds two jobs."""
    backend = QiskitRuntimeService().backend("ibm_stub")
    stub.fate.script(["error_after"])

    submit(backend, "twice")

    assert len(stub.by_tag("twice")) == 2


def test_submissions_are_not_repeated_once_the_adapters_are_told(stub: StubService) -> None:
    service = QiskitRuntimeService()
    backend = service.backend("ibm_stub")
    for adapter in service._active_api_client._session.adapters.values():
        old = adapter.max_retries
        adapter.max_retries = Retry(
            total=old.total,
            connect=old.connect,
            backoff_factor=old.backoff_factor,
            status_forcelist=old.status_forcelist,
        )
    stub.fate.script(["error_after", "error_before"])

    for _ in range(2):
        with pytest.raises(IBMRuntimeError):
            submit(backend, "once")

    assert len(stub.by_tag("once")) == 1


@pytest.mark.parametrize(("strike", "held"), [("lost_before", 0), ("lost_after", 1), ("throttled", 0), ("delayed", 1)])
def test_what_strikes_a_submission(stub: StubService, strike: str, held: int) -> None:
    waited: list[float] = []
    stub.wait = waited.append
    backend = QiskitRuntimeService().backend("ibm_stub")
    stub.fate.script([strike])

    if strike == "delayed":
        submit(backend, "x")
        assert waited == [5.0]
    else:
        with pytest.raises(IBMRuntimeError) as caught:
            submit(backend, "x")
        assert caught.value.__context__.status_code == (429 if strike == "throttled" else -1)

    assert len(stub.by_tag("x")) == held


@pytest.mark.parametrize(("strike", "held"), [("echo_before", 1), ("echo_after", 2)])
def test_the_answer_to_another_submission(stub: StubService, strike: str, held: int) -> None:
    backend = QiskitRuntimeService().backend("ibm_stub")
    stub.fate.script(["", strike])

    ids = [submit(backend, "x").job_id() for _ in range(2)]

    assert ids[0] == ids[1]
    assert len(stub.by_tag("x")) == held


def test_a_garbled_answer(stub: StubService) -> None:
    backend = QiskitRuntimeService().backend("ibm_stub")
    stub.fate.script(["garbled_after"])

    with pytest.raises(ValueError, match="Expecting value"):
        submit(backend, "x")

    assert len(stub.by_tag("x")) == 1


def test_answers_come_twice(stub: StubService) -> None:
    clock = SimulatedClock()
    stub.now, stub.queue = clock.now, 10.0
    job = submit(QiskitRuntimeService().backend("ibm_stub"), "x")
    assert job.status() == "QUEUED"
    stub.faults = Faults(repeated=1.0)

    clock.wait(20.0)
    assert job.status() == "QUEUED"  # the former answer
    clock.wait(20.0)
    assert job.status() == "DONE"
    assert [found.job_id() for found in QiskitRuntimeService().jobs(job_tags=["x"])] == [job.job_id()] * 2


def test_a_machine_in_maintenance_and_a_retired_one(stub: StubService) -> None:
    stub.devices = [Device("ibm_away", state="maintenance"), Device("ibm_gone", state="retired")]
    service = QiskitRuntimeService()

    status = service.backend("ibm_away").status()
    assert (status.operational, status.status_msg) == (False, "maintenance")
    with pytest.raises(Exception, match="No backend matches"):
        service.backend("ibm_gone")


def test_a_device_whose_configuration_comes_late(stub: StubService, monkeypatch: pytest.MonkeyPatch) -> None:
    from qunlearn.quantum.backends.device import find_device

    monkeypatch.setattr(urllib3.util.retry, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    service = QiskitRuntimeService()
    answers = iter([LostError] * 6)  # the client asks six times
    stub.watch = lambda method, path, when: fail(answers) if path.endswith("/configuration") else None

    with pytest.raises(ServiceError, match="run the same command again"):
        find_device("ibm_stub", service)
    assert find_device("ibm_stub", service).name == "ibm_stub"


def fail(errors: Iterator[type[Exception]]) -> None:
    """Raise the next error, until there are none left."""
    error = next(errors, None)
    if error is not None:
        raise error


def test_a_wrong_key_is_refused(stub: StubService, monkeypatch: pytest.MonkeyPatch) -> None:
    from ibm_cloud_sdk_core import ApiException, IAMTokenManager

    monkeypatch.setenv("QISKIT_IBM_TOKEN", "wrong")
    with pytest.raises(ApiException, match="could not be found"):
        IAMTokenManager("wrong", url=stub.url).get_token()


def test_faults_are_the_same_for_the_same_seed() -> None:
    fates = [Fate(Faults.drawn(seed, 60.0)) for seed in (1, 1, 2)]
    drawn = [[fate.strike(submission=True) for _ in range(200)] for fate in fates]

    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) > {""}
