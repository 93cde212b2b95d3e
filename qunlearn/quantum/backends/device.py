"""Devices by name: fake ones offline, real ones through the user's account; and what to do where that fails.

A token is in no message, log or traceback text made here: errors are raised outside the handler that saw it, and
foreign messages are searched for it first.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from qunlearn.errors import InputError, QunlearnError, ServiceError, UnknownNameError, UnsupportedError

if TYPE_CHECKING:
    from qiskit.providers import BackendV2
    from qiskit_ibm_runtime import QiskitRuntimeService

TOKEN_VARIABLE = "QISKIT_IBM_TOKEN"
ACCOUNT_FILE = "~/.qiskit/qiskit-ibm.json"
SIGN_IN = "https://iam.cloud.ibm.com"  # where a token is exchanged before anything else
PROBE_SECONDS = 5.0
HOW_TO_SAVE = (
    "save one once with\n"
    "    from qiskit_ibm_runtime import QiskitRuntimeService\n"
    '    QiskitRuntimeService.save_account(token="<API key>", instance="<CRN>", set_as_default=True)\n'
    f"(key and CRN: https://quantum.cloud.ibm.com), then close the file to others, because it holds the key as "
    f"plain text:\n    chmod 600 {ACCOUNT_FILE}\n"
    f"or set {TOKEN_VARIABLE} and QISKIT_IBM_INSTANCE in the environment. Without an account, a fake device such as "
    "'fake_torino' runs on this machine"
)
_KEY = re.compile(r"[A-Za-z0-9_.-]{32,}")  # an IBM Cloud API key has 44 of these
_OLD_KEY = re.compile(r"[0-9a-f]{128}")  # of the platform that was closed in 2025


def find_device(name: str | BackendV2, service: Any = None, *, qubits: int = 0) -> BackendV2:
    """The device of a name, able to take a circuit of `qubits`; an object is given back as it is, once it passed.

    Args:
        name: ``"fake_torino"`` and the like (calibration snapshots, run on this machine), ``"ibm_..."`` (through
            `service`, or the user's account), or a device of Qiskit's interface.
        service: the runtime service to ask; `account_service()` where it is needed and None.
        qubits: how many wires the device must have at least.

    Raises:
        InputError: no or a wrong account, no network, an unknown name, a device that is retired, in maintenance,
            or too small.
        ServiceError: if the service cannot be asked.
    """
    need_extra()
    if not isinstance(name, str):
        device = name
    elif name.startswith("fake_"):
        device = _fake_device(name)
    else:
        device = _real_device(name, account_service() if service is None else service)
    check_size(device, qubits)
    return device


def need_extra() -> None:
    """Raises `InputError` where Qiskit Aer or the runtime client is not installed."""
    missing = [name for name in ("qiskit_aer", "qiskit_ibm_runtime") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"expected {' and '.join(missing)} for IBM devices and their simulation, found no such package; install "
            "it with: pip install 'qunlearn[ibm]'"
        )


def is_local(device: BackendV2) -> bool:
    """Whether the device is simulated on this machine: whatever does not come from the runtime service."""
    from qiskit_ibm_runtime import IBMBackend

    return not isinstance(device, IBMBackend)


def fake_devices() -> tuple[str, ...]:
    """The names of the fake devices, sorted."""
    return tuple(sorted(_fakes()))


def check_size(device: BackendV2, qubits: int) -> None:
    """Raises `InputError` if the device has fewer than `qubits` qubits (a simulator without limit passes)."""
    if device.num_qubits is not None and device.num_qubits < qubits:
        raise InputError(
            f"expected a device of at least {qubits} qubits, got {device.name} with {device.num_qubits}; "
            "take a larger device, or load the circuit with fewer qubits"
        )


@cache
def _fakes() -> dict[str, BackendV2]:
    from qiskit_ibm_runtime.fake_provider import FakeProviderForBackendV2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one of them says of itself that it isn't representative
        return {device.name: device for device in FakeProviderForBackendV2().backends()}


def _fake_device(name: str) -> BackendV2:
    if name not in _fakes():
        raise UnknownNameError("fake device", name, _fakes())
    return _fakes()[name]


def _real_device(name: str, service: Any) -> BackendV2:
    problem: QunlearnError
    try:
        device = service.backend(name)
    except Exception as error:
        problem = _why_not(name, service, error)
    else:
        check_operational(device)
        return device
    raise problem


def _why_not(name: str, service: Any, error: Exception) -> QunlearnError:
    """What to tell where the service gave no device of that name."""
    text = scrub(f"{type(error).__name__}: {error}", token_of(service))
    if type(error).__name__ != "QiskitBackendNotFoundError":
        return ServiceError(f"expected to hear of {name!r} from the service, got {text}; try again later")
    known, snapshot = _names(service), name.replace("ibmq_", "fake_").replace("ibm_", "fake_")
    if name in known:  # asked again, the service has it
        return ServiceError(f"expected {name!r} from the service, got no answer at first; run the same command again")
    if "Unable to create configuration" in text or (known and snapshot in _fakes()):
        kept = f"; its calibration is kept as {snapshot!r}, which runs on this machine" if snapshot in _fakes() else ""
        offered = f"expected one of {', '.join(known)}" if known else "expected another device of the account"
        return InputError(f"{offered}, got {name!r}, which is retired or not open to this account{kept}")
    if not known:  # the client says the same where the service did not answer it
        return InputError(
            f"expected {name!r} among the devices of the account, got no device at all; check the account's instance, "
            "and whether the service can be reached"
        )
    return UnknownNameError("device of the account", name, known)


def _names(service: Any) -> list[str]:
    try:
        return sorted({device.name for device in service.backends()})
    except Exception:  # only the list in a message is lost
        return []


def check_operational(device: BackendV2) -> None:
    """Raises `InputError` for a device in maintenance or retired; a device that reports no status passes."""
    report = getattr(device, "status", None)
    if report is None:
        return
    try:
        status = report()
    except Exception:  # a status page that is down says nothing of the machine
        return
    message = str(getattr(status, "status_msg", "")).lower()
    if "retired" in message:
        raise InputError(f"expected a device in service, got {device.name}, which is retired; take another one")
    if not getattr(status, "operational", True) or message in {"maintenance", "offline", "paused", "internal"}:
        raise InputError(
            f"expected a device in operation, got {device.name}, whose status is {message or 'not operational'!r}; "
            "come back later or take another one"
        )


def account_service(*, name: str | None = None, filename: str | None = None, instance: str | None = None) -> Any:
    """The runtime service of the user's account, read from the environment or from Qiskit's own file.

    Args:
        name: of a saved account; the default one if None.
        filename: of the saved accounts; Qiskit's own if None.
        instance: CRN or name of the instance; the account's own if None.

    Raises:
        InputError: no account, a malformed token, no network, or an account that the service refuses.
    """
    account = _account(name, filename)
    where = f"{TOKEN_VARIABLE} of the environment" if _from_environment(name) else "the saved account"
    _check_token(account.token, where)
    _probe(account)
    return _build(account.token, name=name, filename=filename, instance=instance)


def _account(name: str | None, filename: str | None) -> Any:
    need_extra()
    from qiskit_ibm_runtime.accounts import AccountManager, AccountNotFoundError

    try:
        return AccountManager.get(filename=filename, name=name)
    except AccountNotFoundError:
        problem = f"expected an IBM Quantum account{f' named {name!r}' if name else ''}, found none; {HOW_TO_SAVE}"
    except Exception as error:  # its text may quote the file
        problem = (
            f"expected saved accounts in {filename or ACCOUNT_FILE}, got something that Qiskit cannot read "
            f"({type(error).__name__}); delete the file and {HOW_TO_SAVE}"
        )
    raise InputError(problem)


def _from_environment(name: str | None) -> bool:
    return name is None and bool(os.environ.get(TOKEN_VARIABLE))


def _check_token(token: object, where: str) -> None:
    """Refuse what cannot be an API key, because the service only says so after minutes of trying."""
    expected = f"expected an API key of 44 letters, digits, - and _ in {where}"
    advice = "copy it again from https://quantum.cloud.ibm.com"
    if not isinstance(token, str) or not token.strip():
        raise InputError(f"{expected}, got nothing; {advice}")
    if _OLD_KEY.fullmatch(token):
        raise InputError(f"{expected}, got a token of the old IBM Quantum platform, now closed; {advice}")
    if not _KEY.fullmatch(token):
        raise InputError(
            f"{expected}, got {len(token)} characters that are too few or among which are others; {advice}"
        )


def _probe(account: Any) -> None:
    """One short connection first: without a network the service's own retries take minutes."""
    host, port = _first_hop(os.environ.get("IAM_URL") or SIGN_IN, account)
    reasons = ["no answer"]
    attempt = threading.Thread(target=_connect, args=(host, port, reasons), daemon=True)
    attempt.start()
    attempt.join(2 * PROBE_SECONDS)  # looking the name up knows no time limit of its own
    if not reasons:
        return
    raise InputError(
        f"expected to reach {host}:{port}, got no connection ({reasons[-1]}); check the network or the proxy. Fake "
        "devices, plans for them and everything else of qunlearn work without a network"
    )


def _connect(host: str, port: int, reasons: list[str]) -> None:
    """Clears `reasons` on success, else adds why not."""
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
        reasons.clear()
    except OSError as error:
        reasons.append(error.strerror or type(error).__name__)


def _first_hop(url: str, account: Any) -> tuple[str, int]:
    """Host and port of the proxy, if there is one on the way, else of the service."""
    parts = urlsplit(url)
    own = getattr(account.proxies, "urls", None) or {}
    proxies = {**({} if proxy_bypass(parts.hostname or "") else getproxies()), **own}
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _build(token: str, **choice: str | None) -> QiskitRuntimeService:
    from qiskit_ibm_runtime import QiskitRuntimeService

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the client's warnings may quote a header, with the token
            return QiskitRuntimeService(**choice)
    except Exception as error:
        text = scrub(f"{type(error).__name__}: {error}", token)
    raise InputError(
        f"expected an account that the service accepts, got a refusal ({text}); check key and instance at "
        f"https://quantum.cloud.ibm.com and {HOW_TO_SAVE}"
    )


def scrub(text: str, token: str | None) -> str:
    """The text on one line, cut to 300 characters, without the token."""
    clean = text.replace(token, "***") if token else text
    return " ".join(clean.split())[:300]


def token_of(service: Any) -> str | None:
    """The token that a service uses, to be looked for in what it says; None where it doesn't tell."""
    try:
        token = service.active_account().get("token")
    except Exception:
        return None
    return token if isinstance(token, str) else None


def never_repeat_posts(service: Any) -> None:
    """Take from the client the right to repeat a request that submits a job, which might submit it twice.

    The runtime client repeats POST on 5xx answers by itself; a request that only reads is still repeated.
    """
    from urllib3.util.retry import Retry

    clients = [getattr(service, "_active_api_client", None), *getattr(service, "_api_clients", {}).values()]
    for session in (getattr(client, "_session", None) for client in clients):
        for adapter in getattr(session, "adapters", {}).values():
            old = adapter.max_retries
            adapter.max_retries = Retry(
                total=old.total,
                connect=old.connect,
                other=0,  # errors of other kinds may come after the request was sent
                backoff_factor=old.backoff_factor,
                status_forcelist=old.status_forcelist,
            )


def cut_device(device: BackendV2, qubits: Sequence[int], *, missing: Sequence[tuple[int, int]] = ()) -> BackendV2:
    """Some qubits of a device as a device of their own, with the same calibration; qubit i is ``qubits[i]``.

    Args:
        device: what to cut from, with a target.
        qubits: which of its qubits, in the new order.
        missing: couplers to leave out, as pairs of the device's own numbers, in either direction.

    Raises:
        InputError: for qubits that are doubled or not there.
    """
    total = device.num_qubits or 0
    if not qubits or len(set(qubits)) != len(qubits) or not set(qubits) <= set(range(total)):
        raise InputError(f"expected different qubits from 0 to {total - 1} of {device.name}, got {list(qubits)}")
    return _cut_class()(device, tuple(qubits), frozenset(frozenset(pair) for pair in missing))


@cache
def _cut_class() -> Any:
    """The class is made at first use: Qiskit is not imported with qunlearn."""
    from qiskit.providers import BackendV2, Options

    class CutDevice(BackendV2):  # type: ignore[misc]
        """Some qubits of another device."""

        def __init__(self, device: BackendV2, qubits: tuple[int, ...], missing: frozenset[frozenset[int]]) -> None:
            super().__init__(name=device.name, description=f"qubits {list(qubits)} of {device.name}")
            self.qubits = qubits
            self._target = _cut_target(device.target, qubits, missing)

        @property
        def target(self) -> Any:
            return self._target

        @property
        def max_circuits(self) -> None:
            return None

        @classmethod
        def _default_options(cls) -> Any:
            return Options()

        def run(self, run_input: Any, **options: Any) -> Any:
            raise UnsupportedError("expected circuits through the Sampler, got a call of run()")

    return CutDevice


def _cut_target(source: Any, qubits: tuple[int, ...], missing: frozenset[frozenset[int]]) -> Any:
    from qiskit.transpiler import Target

    place = {qubit: i for i, qubit in enumerate(qubits)}
    properties = source.qubit_properties
    made = Target(
        num_qubits=len(qubits),
        dt=source.dt,
        granularity=source.granularity,
        min_length=source.min_length,
        pulse_alignment=source.pulse_alignment,
        acquire_alignment=source.acquire_alignment,
        qubit_properties=None if properties is None else [properties[qubit] for qubit in qubits],
    )
    for name in source.operation_names:
        operation = source.operation_from_name(name)
        if isinstance(operation, type) or source[name] is None:
            continue  # control flow, which stands on no qubits
        kept = {
            tuple(place[q] for q in on): facts
            for on, facts in source[name].items()
            if on and set(on) <= place.keys() and frozenset(on) not in missing
        }
        if kept:
            made.add_instruction(operation, kept, name=name)
    return made
