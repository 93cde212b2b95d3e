"""What the command line says of accounts and machines with which nothing can be done: exit code 2, and no token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("qiskit_ibm_runtime")
pytest.importorskip("qiskit_aer")

from qunlearn.files import write_bytes
from qunlearn.study.plan import make_plan
from qunlearn.study.reading import read_study
from qunlearn.study.store import Store
from qunlearn.study.task import json_text
from tests.hardware.driver import Driver, Ended
from tests.hardware.stub import TOKEN, Device, StubService
from tests.study.conftest import run_alone

STUDY = """\
name = "tiny"
retrained = 2
[data]
dataset = "iris"
[model]
qubits = 4
depth = 1
[training]
epochs = 1
[grid]
request = [{ fraction = 0.1 }]
method = ["gradient-ascent"]
seed = [0]
"""
DEVICES = [
    Device("ibm_stub"),
    Device("ibm_small", "FakeArmonkV2"),
    Device("ibm_away", state="maintenance"),
    Device("ibm_brisbane", state="retired"),
]
MALFORMED = {
    "short": "sh0rtKey",
    "two lines": "stub-Key_0123456789\nabcdefghijklmnopqrstuvwxy",
    "not latin": "stub-Schlüssel-ё-0123456789abcdefghijklmnopqrst",
    "of the old platform": "5ab1e7c0d3f94826" * 8,
    "in quotes": f'"{TOKEN}"',
}


@pytest.fixture(scope="module")
def stub() -> Iterator[StubService]:
    service = StubService(devices=DEVICES)
    yield service
    service.close()


@pytest.fixture(scope="module")
def study(driver: Driver) -> Path:
    """The results folder of a study, run in this process, which is quicker."""
    file, store = driver.folder / "tiny.toml", Store(driver.folder / "tiny")
    file.write_text(STUDY)
    tasks = make_plan(read_study(file))
    write_bytes(store.root / "study.toml", tasks.study.text.encode())
    write_bytes(store.root / "plan.json", json_text(tasks.to_dict()).encode())
    for task in tasks.tasks:
        run_alone(task, store, str(driver.folder))
    return store.root


def plan(driver: Driver, study: Path, backend: str, **environment: str | None) -> Ended:
    """``qunlearn hardware plan``, which is to fail: exit code 2, one sentence, nothing left behind."""
    before = files(study)
    ended = driver.cli("hardware", "plan", str(study), "--backend", backend, environment=environment)
    assert ended.code == 2, ended.output
    assert "Error: " in ended.output
    assert "expected " in ended.output
    assert "Traceback" not in ended.output
    assert files(study) == before
    return ended


def files(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_secret(token: str, ended: Ended, folder: Path) -> None:
    """No part of a token, of eight letters or more, is in the output or in a file."""
    parts = [part for part in token.split() if len(part) >= 6]
    for part in {piece for whole in parts for piece in (whole, whole[:8], whole[-8:])}:
        assert part not in ended.output
        assert not [
            name for name, content in files(folder).items() if part.encode() in content and "output" not in name
        ]


def test_no_account(study: Path, tmp_path: Path) -> None:
    """In a process of its own from its first import on."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("QISKIT", "QUNLEARN"))}
    ended = subprocess.run(
        [sys.executable, "-m", "qunlearn", "hardware", "plan", str(study), "--backend", "ibm_stub"],
        env={**clean, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert ended.returncode == 2, ended.stderr
    for words in ("expected an IBM Quantum account", "save_account", "QISKIT_IBM_TOKEN", "fake_"):
        assert words in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_token(driver: Driver, study: Path, kind: str) -> None:
    ended = plan(driver, study, "ibm_stub", QISKIT_IBM_TOKEN=MALFORMED[kind])

    assert "QISKIT_IBM_TOKEN" in ended.output
    assert_secret(MALFORMED[kind], ended, driver.folder)


def test_a_token_that_the_service_refuses(driver: Driver, study: Path) -> None:
    wrong = TOKEN[::-1]
    # Without the variable the client looks for the account's instances first, as it does for every user.
    ended = plan(driver, study, "ibm_stub", QISKIT_IBM_TOKEN=wrong, QISKIT_FUNCTIONS_EXPERIMENTAL=None)

    assert_secret(wrong, ended, driver.folder)


def test_no_network(driver: Driver, study: Path) -> None:
    nobody = {"IAM_URL": "http://127.0.0.1:9", "QISKIT_IBM_URL": "http://127.0.0.1:9/experimental"}
    ended = plan(driver, study, "ibm_stub", **nobody)

    assert "network" in ended.output
    assert_secret(TOKEN, ended, driver.folder)


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("ibm_small", ("at least 4 qubits", "ibm_small with 1")),
        ("ibm_brisbane", ("retired", "fake_brisbane")),
        ("ibm_away", ("ibm_away", "maintenance")),
        ("ibm_stubb", ("ibm_stubb", "ibm_stub")),
        ("fake_manilla", ("fake_manila",)),
    ],
)
def test_a_machine_that_cannot_be_used(driver: Driver, study: Path, backend: str, words: tuple[str, ...]) -> None:
    ended = plan(driver, study, backend)

    for word in words:
        assert word in ended.output


@pytest.mark.slow
def test_a_plan_from_the_command_line_to_the_counts(stub: StubService, driver: Driver, study: Path) -> None:
    """All four commands against the service; the token is in no file, and nothing is submitted by planning."""
    ended = driver.cli("hardware", "plan", str(study), "--backend", "ibm_stub", "--shots", "100", "--samples", "8")
    assert ended.code == 0, ended.output
    assert not stub.jobs

    said: dict[str, Ended] = {}
    for command in ("submit", "status", "collect"):
        said[command] = driver.cli("hardware", command, str(study))
        assert said[command].code == 0, said[command].output
        assert_secret(TOKEN, said[command], driver.folder)
    assert stub.jobs
    assert "done" in said["status"].output.lower()
