"""The way to a real device: the runtime's own client against a stub of its service."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")

from qunlearn.errors import ServiceError
from qunlearn.quantum import engines
from qunlearn.quantum.backends.device import find_device, is_local
from qunlearn.quantum.backends.mitigation import Mitigation
from qunlearn.quantum.backends.runtime import Runtime
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from tests.hardware.conftest import lead_to
from tests.hardware.faults import Faults
from tests.hardware.stub import TOKEN, StubService

FEATURES = torch.tensor([[0.3], [1.2], [2.5]], dtype=torch.float64)
NOTHING = torch.zeros(0, dtype=torch.float64)
CIRCUIT = Circuit(2, (Gate("ry", (0,), Angle(factors=(Factor(0),))), Gate("cx", (0, 1))), ("ZI", "ZZ", "XX"), 1, 0)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubService]:
    service = StubService()
    lead_to(service, tmp_path, monkeypatch)
    yield service
    service.close()


@pytest.mark.parametrize("mode", ["job", "batch"])
def test_a_batch_of_rows_is_one_job_of_the_account(stub: StubService, mode: str) -> None:
    backend = Runtime("ibm_stub", shots=1000, mode=mode, mitigation=Mitigation(readout=True), seconds=60)
    assert not is_local(backend.device)
    assert backend.name == "ibm_stub"
    for calls in (1, 2):
        found = backend.expectations(CIRCUIT, FEATURES, NOTHING)
        assert len(stub.jobs) == backend.spent.jobs == calls
    exact = engines.expectations(CIRCUIT, FEATURES, NOTHING)
    assert float((found - exact).abs().max()) < 0.2
    assert backend.spent.circuits == 2 * (3 * 2 + 2)
    backend.close()


def test_the_device_comes_through_the_account_of_the_environment(stub: StubService) -> None:
    device = find_device("ibm_stub", qubits=5)
    assert (device.name, device.num_qubits) == ("ibm_stub", 5)
    assert not stub.jobs


def test_a_job_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = StubService(faults=Faults(failed=1.0))
    lead_to(service, tmp_path, monkeypatch)
    with pytest.raises(ServiceError, match=r"the result of job \S+ on ibm_stub, got RuntimeJobFailureError") as caught:
        Runtime("ibm_stub", shots=100).expectations(CIRCUIT, FEATURES, NOTHING)
    assert TOKEN not in str(caught.value)
    service.close()


def test_a_submission_is_not_repeated_by_the_client(stub: StubService) -> None:
    backend = Runtime("ibm_stub", shots=100)
    stub.fate.script(["error_after"])
    with pytest.raises(ServiceError, match="the result of a job on ibm_stub"):
        backend.expectations(CIRCUIT, FEATURES, NOTHING)
    assert len(stub.jobs) == 1
