"""Backends run circuits elsewhere: PennyLane devices, Qiskit simulators, IBM machines; `find_backend` has their names.

Nothing foreign is imported before it is asked for.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum.backends.base import Backend, Spent
from qunlearn.quantum.backends.opened import Opened, open_circuit

__all__ = [
    "KNOWN",
    "Aer",
    "Backend",
    "Mitigation",
    "Opened",
    "PennyLane",
    "Runtime",
    "Simulator",
    "Spent",
    "available_backends",
    "find_backend",
    "open_circuit",
]

# Names and what stands behind them; PennyLane's own names are looked up there.
KNOWN: dict[str, str] = {
    "simulator": "qunlearn's own engines, with shots, or with quantum trajectories of noisy circuits.",
    "aer": "Qiskit Aer: exact values or counts, with noise models (extra: ibm).",
    "lightning.qubit": "PennyLane's compiled statevector simulator.",
    "default.qubit": "PennyLane's statevector simulator in Python.",
    "default.mixed": "PennyLane's density matrices, for noisy circuits.",
    "fake_*": "IBM's devices as their calibration describes them, such as fake_torino, on this machine (extra: ibm).",
    "ibm_*": "IBM's machines, through the user's saved account (extra: ibm).",
}
_NO_QUBITS = {"gaussian", "null", "qutrit"}  # devices of PennyLane for other things than circuits of qubits
_HOME = {
    "Aer": "aer",
    "Mitigation": "mitigation",
    "PennyLane": "pennylane",
    "Runtime": "runtime",
    "Simulator": "simulator",
}


def available_backends() -> dict[str, str]:
    """The names that `find_backend` knows, and what stands behind them; PennyLane's installed devices among them."""
    import pennylane as qml

    devices = [name for name in sorted(qml.plugin_devices) if not set(name.split(".")) & _NO_QUBITS]
    others = [name for name in devices if name not in KNOWN]
    return {**KNOWN, **dict.fromkeys(others, "A device of PennyLane.")}


def find_backend(backend: Any, *, shots: int | None = None, seed: int = 0, **options: Any) -> Backend:
    """The backend of a name.

    Args:
        backend: a name of `KNOWN`, of a PennyLane device, of a fake or real IBM device; a device of PennyLane or of
            Qiskit; or a `Backend`, which comes back as it is.
        shots: measurements of each circuit; None for exact values where the backend has them.
        seed: of all that is drawn.
        **options: of the backend's class, such as ``gradient="spsa"``, ``noise_model=`` of `Aer`, ``mitigation=`` of
            `Runtime`, or, for PennyLane, of the device.

    Raises:
        UnknownNameError: names the nearest known one.
        InputError: for what is no backend, or an option that its class does not take; names the missing extra.
    """
    if isinstance(backend, Backend):
        if shots is not None or options:
            given = ", ".join([*(["shots"] if shots is not None else []), *options])
            raise InputError(f"expected a name of a backend beside {given}, got {backend!r}; set them on the backend")
        return backend
    kind, place = _kind(backend)
    try:
        found: Backend = kind(*place, shots=shots, seed=seed, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise InputError(f"expected options of backend {backend!r}, got {sorted(options)}: {error}") from None
    return found


def _kind(backend: Any) -> tuple[Any, tuple[Any, ...]]:
    """The class of a backend, and what it takes first."""
    if isinstance(backend, str):
        return _named(backend)
    modules = {base.__module__.partition(".")[0] for base in type(backend).__mro__}
    if "pennylane" in modules:
        return _load("PennyLane"), (backend,)
    if "qiskit_aer" in modules:
        return partial(_load("Aer"), simulator=backend), ()
    if "qiskit" in modules:
        return _load("Runtime"), (backend,)
    raise InputError(f"expected a backend's name, a device of PennyLane or Qiskit, or a Backend, got {backend!r}")


def _named(name: str) -> tuple[Any, tuple[Any, ...]]:
    if name in ("aer", "simulator"):
        return _load("Aer" if name == "aer" else "Simulator"), ()
    if name.startswith(("fake_", "ibm_")):
        return _load("Runtime"), (name,)
    import pennylane as qml

    if name in qml.plugin_devices:
        return _load("PennyLane"), (name,)
    raise UnknownNameError("backend", name, {*KNOWN, *qml.plugin_devices, *_fakes()})


def _fakes() -> tuple[str, ...]:
    from importlib.util import find_spec

    from qunlearn.quantum.backends.device import fake_devices

    return fake_devices() if find_spec("qiskit_ibm_runtime") else ()


def _load(name: str) -> Any:
    import importlib

    if name in ("Aer", "Runtime"):
        from qunlearn.quantum.backends.device import need_extra

        need_extra()
    return getattr(importlib.import_module(f"qunlearn.quantum.backends.{_HOME[name]}"), name)


def __getattr__(name: str) -> Any:
    """Loads a class when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _load(name)
