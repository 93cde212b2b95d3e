"""A service on the loopback, and what a client finds in its environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hardware.driver import Driver
from tests.hardware.stub import StubService


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubService]:
    """A service without faults, and an environment that leads to it; no account of the user's is in reach."""
    pytest.importorskip("qiskit_ibm_runtime")
    service = StubService()
    lead_to(service, tmp_path, monkeypatch)
    yield service
    service.close()


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """What makes processes quickly; set its `environment` before use."""
    with Driver(tmp_path_factory.mktemp("processes")) as one:
        yield one


@pytest.fixture(scope="module")
def driver(stub: StubService, processes: Driver) -> Driver:
    """Processes that come to the service of the module, whose `stub` lasts as long as the module."""
    processes.environment = stub.environment
    return processes


def lead_to(service: StubService, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment so that a client comes to this service."""
    from qiskit_ibm_runtime.accounts import management

    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(management, "_DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(home / ".qiskit" / "qiskit-ibm.json"))
