"""Backends by name, and what is said where there is none."""

from __future__ import annotations

import importlib.util
from typing import Any

import pennylane as qml
import pytest
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

import qunlearn as qu
from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum.backends import available_backends, find_backend
from qunlearn.study.listing import listing
from tests.quantum.backends.cases import Exact


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("lightning.qubit", "PennyLane('lightning.qubit', shots=20)"),
        ("default.mixed", "PennyLane('default.mixed', shots=20)"),
        ("aer", "Aer('aer', shots=20)"),
        ("simulator", "Simulator('simulator', shots=20)"),
        ("fake_manila", "Runtime('fake_manila', shots=20)"),
        (qml.device("default.qubit"), "PennyLane('default.qubit', shots=20)"),
        (FakeManilaV2(), "Runtime('fake_manila', shots=20)"),
        (AerSimulator(), "Aer('aer', shots=20)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_name_or_a_device_becomes_a_backend(name: Any, shown: str) -> None:
    found = find_backend(name, shots=20, seed=3)
    assert (repr(found), found.seed) == (shown, 3)


def test_a_backend_comes_back_as_it_is() -> None:
    backend = Exact(shots=4)
    assert find_backend(backend) is backend
    with pytest.raises(InputError, match=r"expected a name of a backend beside shots, got Exact\('exact', shots=4\)"):
        find_backend(backend, shots=3)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("lightning", "lightning.qubit"), ("Aer", "aer"), ("simulater", "simulator"), ("fake_manla", "fake_manila")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=f"got '{name}'; did you mean '{nearest}'"):
        find_backend(name)


@pytest.mark.parametrize("wrong", [3, None, object()])
def test_what_is_no_backend_is_refused(wrong: object) -> None:
    with pytest.raises(InputError, match="expected a backend's name, a device of PennyLane or Qiskit, or a Backend"):
        find_backend(wrong)


@pytest.mark.parametrize("name", ["aer", "simulator", "fake_manila", "lightning.qubit"])
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"expected (options|the name of an option) of .*colour"):
        find_backend(name, colour="red")


@pytest.mark.parametrize("name", ["aer", "fake_manila"])
def test_a_missing_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from qunlearn.quantum.backends import device

    known = importlib.util.find_spec
    monkeypatch.setattr(device, "find_spec", lambda name: None if name.startswith("qiskit_") else known(name))
    with pytest.raises(InputError, match=r"pip install 'qunlearn\[ibm\]'"):
        find_backend(name)


def test_backends_are_listed() -> None:
    names = [row["name"] for row in listing("backends")]
    assert {"simulator", "aer", "lightning.qubit", "default.mixed", "fake_*", "ibm_*"} <= set(names)
    assert names == list(available_backends())
    assert not any("qutrit" in name for name in names)
    assert {row["name"] for row in listing("engines")} == {"torch", "fused", "density", "trajectories"}


def test_the_public_names() -> None:
    assert qu.backends.find_backend is find_backend
    assert qu.backends.Aer.name == "aer"
    with pytest.raises(AttributeError, match="has no attribute 'Qux'"):
        _ = qu.backends.Qux
