import json
import logging
import socket
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")

from qiskit.providers.exceptions import QiskitBackendNotFoundError

from qunlearn.errors import InputError, QunlearnError, ServiceError, UnknownNameError, UnsupportedError
from qunlearn.quantum.backends import device as devices
from qunlearn.quantum.backends.device import account_service, cut_device, fake_devices, find_device, is_local, scrub

KEY = "k3y-" + "Zq_9" * 10


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No account and no network, whoever runs the tests."""
    from qiskit_ibm_runtime.accounts import management

    monkeypatch.setattr(management, "_DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(tmp_path / "none.json"))
    for name in ("TOKEN", "INSTANCE", "URL", "CHANNEL"):
        monkeypatch.delenv(f"QISKIT_IBM_{name}", raising=False)
    for name in ("IAM_URL", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)


def said(error: BaseException) -> str:
    """All that a traceback would print."""
    return "".join(traceback.format_exception(error))


class Service:
    """As much of the runtime's service as finding a device takes."""

    def __init__(self, *found: Any, error: Exception | None = None) -> None:
        self.found, self.error = {device.name: device for device in found}, error

    def backend(self, name: str) -> Any:
        if self.error is not None:
            raise self.error
        if name not in self.found:
            raise QiskitBackendNotFoundError("No backend matches the criteria.")
        return self.found[name]

    def backends(self) -> list[Any]:
        return [*self.found.values()]

    def active_account(self) -> dict[str, str]:
        return {"token": KEY}


def machine(name: str = "ibm_one", qubits: int = 7, message: str = "active", operational: bool = True) -> Any:
    status = SimpleNamespace(operational=operational, status_msg=message)
    return SimpleNamespace(name=name, num_qubits=qubits, status=lambda: status)


def test_fake_devices_come_by_name_and_objects_as_they_are() -> None:
    device = find_device("fake_manila")
    assert (device.name, device.num_qubits) == ("fake_manila", 5)
    assert find_device(device) is device
    assert is_local(device)
    assert {"fake_torino", "fake_kolkata"} <= set(fake_devices())


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fake_manila'"):
        find_device("fake_manilla")
    with pytest.raises(UnknownNameError, match="did you mean 'ibm_one'"):
        find_device("ibm_onne", Service(machine()))
    with pytest.raises(InputError, match=r"no device at all.*reached"):
        find_device("ibm_onne", Service())


def test_devices_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match=r"at least 6 qubits, got fake_manila with 5"):
        find_device("fake_manila", qubits=6)
    with pytest.raises(InputError, match="maintenance"):
        find_device("ibm_one", Service(machine(message="maintenance", operational=False)))
    with pytest.raises(InputError, match="retired"):
        find_device("ibm_one", Service(machine(message="retired")))
    with pytest.raises(InputError, match=r"ibm_one, got 'ibm_brisbane'.*retired.*'fake_brisbane'"):
        find_device("ibm_brisbane", Service(machine()))
    gone = QiskitBackendNotFoundError("Unable to create configuration for ibm_x. This might happen when retired.")
    with pytest.raises(InputError, match="'ibm_x', which is retired"):
        find_device("ibm_x", Service(machine(), error=gone))
    with pytest.raises(ServiceError, match="try again later") as caught:
        find_device("ibm_one", Service(error=RuntimeError(f"header apikey {KEY}")))
    assert KEY not in said(caught.value)
    assert find_device("ibm_one", Service(machine()), qubits=7).name == "ibm_one"


def test_without_an_account_the_error_says_how_to_save_one() -> None:
    with pytest.raises(InputError) as caught:
        find_device("ibm_one")
    for part in ("save_account", "chmod 600", "QISKIT_IBM_TOKEN", "fake_torino"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match="named 'mine'"):
        account_service(name="mine")


@pytest.mark.parametrize("token", ["short", KEY + "\nx", f'"{KEY}"', "ключ" * 11, "0f" * 64, " "])
def test_malformed_tokens_are_refused_and_not_shown(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QISKIT_IBM_TOKEN", token)
    with pytest.raises(InputError, match="QISKIT_IBM_TOKEN of the environment") as caught:
        account_service()
    assert token == " " or token not in said(caught.value)


def test_no_network_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QISKIT_IBM_TOKEN", KEY)
    with pytest.raises(InputError, match=r"iam\.cloud\.ibm\.com:443.*Network is unreachable") as caught:
        account_service()
    assert KEY not in said(caught.value)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    with pytest.raises(InputError, match=r"proxy\.example:3128"):
        account_service()


@pytest.mark.parametrize("text", [f'{{"default": {{"token": "{KEY}"', json.dumps({"a": {"token": KEY}}), "[]"])
def test_a_broken_account_file_is_not_quoted(text: str, tmp_path: Path) -> None:
    path = tmp_path / "accounts.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        account_service(filename=str(path))
    assert KEY not in said(caught.value)
    assert caught.value.__context__ is None


def test_what_the_service_says_is_scrubbed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import qiskit_ibm_runtime

    def refuse(**choice: Any) -> None:
        raise ValueError(f"bad header apikey {KEY}\n for you")

    monkeypatch.setenv("QISKIT_IBM_TOKEN", KEY)
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", refuse)
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError, match=r"apikey \*\*\* for you") as caught:
        account_service()
    assert KEY not in said(caught.value) + caplog.text
    assert caught.value.__context__ is None
    assert scrub("a\n" + "b" * 400, None) == "a " + "b" * 298


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: None if name == "qiskit_ibm_runtime" else object())
    with pytest.raises(QunlearnError, match=r"qunlearn\[ibm\]"):
        find_device("fake_manila")


def test_a_cut_device_keeps_calibration_and_couplers() -> None:
    whole = find_device("fake_kolkata")
    part = cut_device(whole, [3, 5, 8, 2], missing=[(2, 3)])
    assert part.num_qubits == 4
    assert {frozenset(edge) for edge in part.target.build_coupling_map()} == {frozenset({0, 1}), frozenset({1, 2})}
    assert part.target["cx"][1, 2].error == whole.target["cx"][5, 8].error
    assert part.target.qubit_properties[3].t1 == whole.target.qubit_properties[2].t1
    assert part.target.dt == whole.target.dt
    with pytest.raises(UnsupportedError, match="Sampler"):
        part.run([])
    for wrong in ([], [1, 1], [27]):
        with pytest.raises(InputError, match="different qubits from 0 to 26"):
            cut_device(whole, wrong)
