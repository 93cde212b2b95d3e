"""`Circuit` as data: what it refuses, and that it survives JSON, pickling and hashing."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from qunlearn.errors import CorruptFileError, InputError, UnknownNameError
from qunlearn.quantum.card import available_cards, load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate

ANGLE = Angle(-0.5, (Factor(0, -1.0, 0.25), Factor(1)), weight=0, offset=1e-17)
GATES = (Gate("h", (1,)), Gate("crx", (1, 0), ANGLE, layer=0))


def circuit(**changes: Any) -> Circuit:
    arguments: dict[str, Any] = {"qubits": 2, "gates": GATES, "observables": ("XZ",), "features": 2, "weights": 1}
    return Circuit(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qubits": 0}, "at least 1 qubit, got 0"),
        ({"gates": (Gate("cx", (0, 2)),)}, r"gate 0 \(cx\[0, 2\]\): expected wires from 0 to 1, got \[0, 2\]"),
        ({"gates": (Gate("cx", (0, 0)),)}, r"gate 0 \(cx\[0, 0\]\): expected 2 different wires, got \[0, 0\]"),
        ({"gates": (Gate("h", (0,)), Gate("cx", (0,)))}, r"gate 1 \(cx\[0\]\): expected 2 different wires, got \[0\]"),
        ({"gates": (Gate("h", (0,), Angle()),)}, "expected no angle"),
        ({"gates": (Gate("rx", (0,)),)}, "expected an angle"),
        ({"gates": (Gate("rx", (0,), Angle(weight=1)),)}, "expected a weight from 0 to 0, got 1"),
        ({"gates": (Gate("rx", (0,), Angle(factors=(Factor(2),))),)}, "expected a feature from 0 to 1, got 2"),
        ({"amplitude": True, "features": 5}, "1 to 4 features for amplitude encoding on 2 qubits, got 5"),
        ({"observables": ()}, "at least one observable, got none"),
        ({"observables": ("ZZZ",)}, "Pauli string of 2 characters from I, X, Y, Z, got 'ZZZ'"),
        ({"observables": ("ZA",)}, "Pauli string of 2 characters from I, X, Y, Z, got 'ZA'"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        circuit(**changes)


def test_an_unknown_gate_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="gate, got 'cnx'; did you mean 'cx'"):
        circuit(gates=(Gate("cnx", (0, 1)),))


def test_json_keeps_every_field() -> None:
    made = circuit(card="mine", depth=3, settings=(("encoding", "ry"), ("reupload", "true")))
    assert Circuit.from_json(made.to_json()) == made
    assert Circuit.from_json(made.to_json()).gates[1].angle == ANGLE


@pytest.mark.parametrize("card", sorted(available_cards()))
def test_json_keeps_every_card(card: str) -> None:
    made = load_circuit(card, qubits=4, depth=2, encoding="zz", observables=["XYZI"])
    assert Circuit.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        circuit().to_json()[:-9],
        json.dumps({**json.loads(circuit().to_json()), "format": 2}),
        json.dumps({**json.loads(circuit().to_json()), "more": 1}),
        json.dumps({k: v for k, v in json.loads(circuit().to_json()).items() if k != "gates"}),
        json.dumps({**json.loads(circuit().to_json()), "gates": [{"name": "h"}]}),
    ],
)
def test_other_text_is_a_corrupt_file(text: str) -> None:
    with pytest.raises(CorruptFileError, match="expected a circuit as JSON"):
        Circuit.from_json(text)


def test_a_wrong_gate_in_json_says_what_is_wrong() -> None:
    data = json.loads(circuit().to_json())
    data["gates"][0]["wires"] = [7]
    with pytest.raises(InputError, match=r"gate 0 \(h\[7\]\): expected wires from 0 to 1"):
        Circuit.from_json(json.dumps(data))


def test_it_is_frozen_and_equal_circuits_are_one_key() -> None:
    made, twin = circuit(), circuit()
    with pytest.raises(FrozenInstanceError):
        made.qubits = 3  # type: ignore[misc]
    assert {made: "found"}[twin] == "found"
    others = [
        circuit(gates=GATES[:1]), circuit(observables=("XI",)), circuit(features=3), circuit(weights=2),
        circuit(card="other"), circuit(amplitude=True),
    ]  # fmt: skip
    assert all(made != other for other in others)
    assert replace(made) == made


def test_copies_and_pickles_are_equal() -> None:
    made = circuit(settings=(("encoding", "ry"),))
    hash(made)
    assert copy.deepcopy(made) == made
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_hash_is_not_carried_into_another_process() -> None:
    made = circuit()
    hash(made)  # kept from here on
    # Python salts the hash of text by process: a kept one would not match there.
    program = (
        "import pickle, sys; read = pickle.load(sys.stdin.buffer); "
        "from qunlearn.quantum.circuit import Circuit; print({Circuit.from_json(read.to_json()): 'found'}[read])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(made), capture_output=True, env=environment, check=True
    )
    assert done.stdout.decode().strip() == "found"
