"""Noise as data: in circuits, in models, in cards."""

from __future__ import annotations

import copy
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import qunlearn as qu
from qunlearn.errors import CorruptFileError, InputError, UnknownNameError, UnsupportedError
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Angle, Channel, Circuit, Factor, Gate
from qunlearn.quantum.convert import qiskit_readout, rotation_tree, tree_angles
from qunlearn.quantum.engines import density
from qunlearn.quantum.noise import PLACES, NoiseModel, Strike
from tests.quantum.cases import draw

GATES = (Gate("ry", (0,), Angle(factors=(Factor(0),))), Gate("cx", (0, 1)), Gate("rx", (1,), Angle(weight=0)))
BARE = Circuit(2, GATES, ("ZI",), 1, 1)
CHANNELS = (Channel("depolarizing", (0, 1), (0.01,), 1), Channel("amplitude-damping", (1,), (0.1,), -1))
NOISY = replace(BARE, channels=CHANNELS, readout=((0.01, 0.02), (0.0, 0.05)))


# In circuits.


def test_json_keeps_noise_and_writes_none_where_there_is_none() -> None:
    assert Circuit.from_json(NOISY.to_json()) == NOISY
    assert "channels" not in BARE.to_json()
    assert "readout" not in BARE.to_json()
    assert NOISY.without_noise().to_json() == BARE.to_json()
    only = replace(BARE, readout=NOISY.readout)
    assert Circuit.from_json(only.to_json()) == only


@pytest.mark.parametrize("row", ['{"name": "bit-flip"}', "3", "null"])
def test_json_with_broken_noise_is_a_corrupt_file(row: str) -> None:
    text = NOISY.to_json().replace('"channels": [', f'"channels": [{row}, ')
    with pytest.raises(CorruptFileError, match="expected a circuit as JSON"):
        Circuit.from_json(text)


def test_noise_is_part_of_what_a_circuit_is() -> None:
    others = [BARE, replace(NOISY, readout=()), replace(NOISY, channels=CHANNELS[:1]), NOISY]
    assert len(set(others)) == 4
    assert len({hash(other) for other in others}) == 4
    assert pickle.loads(pickle.dumps(NOISY)) == NOISY
    assert copy.deepcopy(NOISY) is NOISY
    assert [other.noisy for other in others] == [False, True, True, True]


def test_steps_are_gates_and_channels_in_order() -> None:
    flips = tuple(Channel("bit-flip", (0,), (0.1 * k,), 1) for k in (3, 1, 2))
    circuit = replace(NOISY, channels=CHANNELS + flips)
    assert circuit.steps == (CHANNELS[1], GATES[0], GATES[1], CHANNELS[0], *flips, GATES[2])
    assert BARE.steps == GATES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"channels": (Channel("bit-flip", (2,), (0.1,), 0),)},
            r"channel 0 \(bit-flip\[2\]\): expected different wires",
        ),
        ({"channels": (Channel("depolarizing", (0, 0), (0.1,), 0),)}, r"different wires from 0 to 1, got \[0, 0\]"),
        ({"channels": (Channel("bit-flip", (0,), (0.1,), 3),)}, "expected after from -1 to 2, got 3"),
        ({"channels": (Channel("bit-flip", (0,), (0.1,), -2),)}, "expected after from -1 to 2, got -2"),
        ({"channels": (Channel("bit-flip", (0,), (1.1,), 0),)}, "bit-flip: expected p from 0 to 1, got 1.1"),
        ({"channels": (Channel("bit-flip", (0, 1), (0.1,), 0),)}, "bit-flip: expected 1 wire, got 2"),
        ({"readout": ((0.1, 0.1),)}, "expected readout errors of 2 wires or of none, got 1"),
        ({"readout": ((0.1, 0.1), (0.1, 1.1))}, r"readout error of wire 1, .* got \(0.1, 1.1\)"),
    ],
)
def test_noise_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(BARE, **changes)


def test_an_unknown_channel_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="channel, got 'bitflip'; did you mean 'bit-flip'"):
        replace(BARE, channels=(Channel("bitflip", (0,), (0.1,), 0),))


def test_drawings_tell_of_noise() -> None:
    assert str(NOISY).splitlines()[-1] == "noise: 1 depolarizing, 1 amplitude-damping, readout errors"
    assert str(NOISY.without_noise()) == str(BARE)
    assert "noise" not in str(BARE)


def test_openqasm_refuses_noise() -> None:
    with pytest.raises(UnsupportedError, match=r"without noise for OpenQASM 3; use circuit.without_noise\(\)"):
        NOISY.to_openqasm3()


def test_a_rotation_tree_takes_the_channels_along() -> None:
    circuit = load_circuit("ring-cz", qubits=3, encoding="amplitude", noise={"amplitude_damping": 0.1, "after": "gate"})
    first = replace(circuit, channels=(Channel("bit-flip", (0,), (0.2,), -1), *circuit.channels))
    x, w = draw(first)
    tree = rotation_tree(first)
    assert tree.channels[0].after == len(tree.gates) - len(first.gates) - 1
    found = density.expectations(tree, tree_angles(first, x), w)
    torch.testing.assert_close(found, density.expectations(first, x, w), rtol=0, atol=1e-12)


def test_qiskit_needs_aer_for_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qiskit_aer", None)
    for export in (NOISY.to_qiskit, lambda: qiskit_readout(NOISY)):
        with pytest.raises(UnsupportedError, match=r"expected Qiskit Aer for noise in Qiskit.*install qunlearn\[ibm\]"):
            export()
    assert NOISY.without_noise().to_qiskit().num_qubits == 2


def test_what_is_read_back_may_hold_no_noise() -> None:
    pytest.importorskip("qiskit_aer")
    with pytest.raises(UnsupportedError, match="expected gates of the table, got 'quantum_channel'"):
        Circuit.from_qiskit(NOISY.to_qiskit())
    with pytest.raises(UnsupportedError, match=r"expected gates of the table .* got 'AmplitudeDamping'"):
        Circuit.from_pennylane(NOISY.to_pennylane(), features=1, weights=1)


# In models.


def places(noise: dict[str, Any], circuit: Circuit) -> list[tuple[int, tuple[int, ...]]]:
    return [(c.after, c.wires) for c in circuit.with_noise(noise).channels]


def test_where_channels_strike() -> None:
    circuit = load_circuit("ring-cz", qubits=3, depth=2, encoding="ry", reupload=True)  # 3 RY, 9 rotations, 3 CZ; twice
    assert len(circuit.gates) == 30
    every = [(0,), (1,), (2,)]
    ring = [(0, 1), (1, 2), (2, 0)] if circuit.gates[14].wires == (2, 0) else [(0, 1), (1, 2), (0, 2)]
    expected = {
        "start": [(-1, wire) for wire in every],
        "end": [(29, wire) for wire in every],
        "encoding": [(number, wire) for number in (2, 17) for wire in every],
        "layer": [(number, wire) for number in (14, 29) for wire in every],
        "two-qubit": [(first + k, pair) for first in (12, 27) for k, pair in enumerate(ring)],
        "cz": [(first + k, pair) for first in (12, 27) for k, pair in enumerate(ring)],
        "one-qubit": [(k, gate.wires) for k, gate in enumerate(circuit.gates) if len(gate.wires) == 1],
        "gate": [(k, gate.wires) for k, gate in enumerate(circuit.gates)],
        "rz": [(k, gate.wires) for k, gate in enumerate(circuit.gates) if gate.name == "rz"],
    }
    assert set(PLACES) < set(expected)
    for after, found in expected.items():
        assert places({"depolarizing": 0.1, "after": after}, circuit) == found, after


def test_all_but_depolarizing_strikes_wire_by_wire() -> None:
    assert places({"amplitude_damping": 0.1}, BARE) == [(1, (0,)), (1, (1,))]
    assert places({"depolarizing": 0.1}, BARE) == [(1, (0, 1))]


def test_encoded_amplitudes_are_struck_before_the_first_gate() -> None:
    circuit = load_circuit("ring-cz", qubits=2, encoding="amplitude")
    assert places({"bit_flip": 0.1, "after": "encoding"}, circuit) == [(-1, (0,)), (-1, (1,))]
    assert places({"bit_flip": 0.1, "after": "encoding"}, load_circuit("ring-cz", qubits=2, encoding="none")) == []


def test_one_upload_is_struck_once() -> None:
    circuit = load_circuit("ring-cz", qubits=2, encoding={"name": "zz", "repeats": 2})
    last = max(k for k, gate in enumerate(circuit.gates) if gate.angle and gate.angle.factors)
    assert places({"bit_flip": 0.1, "after": "encoding"}, circuit) == [(last, (0,)), (last, (1,))]


def test_wires_narrow_a_strike() -> None:
    circuit = load_circuit("ring-cz", qubits=3)

    def struck(**strike: Any) -> list[tuple[int, ...]]:
        return [
            wires for _, wires in places({"strikes": [{"channel": "bit-flip", "strengths": 0.1, **strike}]}, circuit)
        ]

    assert struck(after="cz", wires=[0, 1]) == [(0,), (1,)]
    assert struck(after="cz", wires=[1, 0]) == []
    assert struck(after="end", wires=[2]) == [(2,)]
    assert len(struck(after="one-qubit", wires=[1])) == 6
    with pytest.raises(InputError, match=r"noise on wires from 0 to 2, got \[3\]"):
        struck(after="end", wires=[3])


def test_noise_replaces_noise_and_none_is_none() -> None:
    model = NoiseModel.of(depolarizing=0.01, readout=0.02)
    once = BARE.with_noise(model)
    assert once.readout == ((0.02, 0.02), (0.02, 0.02))
    assert once.with_noise(model) == once
    assert once.with_noise({"depolarizing": 0.0, "readout": 0, "thermal_relaxation": [50, 70, 0]}) == BARE
    assert once.without_noise() == BARE
    assert BARE.without_noise() is BARE


def test_channels_of_several_strikes_keep_the_order_of_the_strikes() -> None:
    found = BARE.with_noise({"bit_flip": 0.1, "strikes": [{"channel": "phase-flip", "strengths": [0.2]}]}).channels
    assert [channel.name for channel in found] == ["phase-flip", "phase-flip", "bit-flip", "bit-flip"]


def test_models_are_read_and_written() -> None:
    model = NoiseModel.of(
        depolarizing=0.01,
        thermal_relaxation={"t1": 50, "t2": 70, "time": 0.3},
        readout=[[0.01, 0.02], [0.03, 0.04]],
        after="layer",
    )
    assert model.strikes[1] == Strike("thermal-relaxation", (50.0, 70.0, 0.3, 0.0), "layer")
    assert model.readout == ((0.01, 0.02), (0.03, 0.04))
    assert NoiseModel.from_dict(model.to_dict()) == model
    assert NoiseModel.read({"bit-flip": 0.1}) == NoiseModel.read({"bit_flip": 0.1})
    assert NoiseModel.read({"thermal_relaxation": [50, 70, 0.3]}).strikes[0].strengths == (50.0, 70.0, 0.3)
    wired = NoiseModel((Strike("bit-flip", (0.1,), "cz", (0, 1)),), 0.1)
    assert NoiseModel.from_dict(wired.to_dict()) == wired
    assert NoiseModel.read({}) == NoiseModel()
    assert Strike("thermal-relaxation", (50, 70, 1)).strengths == (50.0, 70.0, 1.0)
    assert '"strengths": [50.0, 70.0, 1.0]' in BARE.with_noise({"thermal_relaxation": [50, 70, 1]}).to_json()
    assert '"readout": [[1.0, 0.0]' in BARE.with_noise({"readout": [1, 0]}).to_json()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"depolarising": 0.1}, "channel, got 'depolarising'; did you mean 'depolarizing'"),
        ({"amplitude_dampng": 0.1}, "channel, got 'amplitude_dampng'; did you mean 'amplitude_damping'"),
        ({"depolarizing": 0.1, "after": "two-qubits"}, "place of noise, got 'two-qubits'; did you mean 'two-qubit'"),
        ({"depolarizing": 1.5}, "depolarizing: expected p from 0 to 1, got 1.5"),
        ({"depolarizing": "0.1"}, "expected p to be a finite number, got '0.1'"),
        ({"depolarizing": True}, "expected p to be a finite number, got True"),
        ({"thermal_relaxation": [50, 101, 1]}, "t2 of at most 2 t1"),
        ({"thermal_relaxation": {"t1": 50, "t2": 70}}, "expected t1, t2, time, excited, got no time"),
        ({"thermal_relaxation": {"t1": 50, "t3": 70}}, "strength of thermal-relaxation, got 't3'; did you mean 't"),
        ({"readout": 1.5}, "expected readout errors from 0 to 1, got 1.5"),
        ({"readout": "little"}, "expected readout as a number, a pair, or a pair for each wire, got 'little'"),
        ({"readout": [[0.1, 0.2, 0.3]]}, "expected readout as a number, a pair"),
        ({"readout": [[0.1, 0.2]] * 3}, "expected readout errors of 2 wires, or one for all, got 3"),
        ({"strikes": [{"channel": "bit-flip"}]}, "expected a table with channel and strengths"),
        ({"strikes": [{"channel": "bit-flip", "strengths": 0.1, "wire": 1}]}, "did you mean 'wires'"),
        (
            {"strikes": [{"channel": "bit-flip", "strengths": 0.1, "wires": ["0"]}]},
            "expected numbers of wires for noise",
        ),
        ([], r"expected noise as a table such as .*, got \[\]"),
    ],
)
def test_wrong_tables_are_refused(table: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BARE.with_noise(table)


# In cards.

CARD = """
name = "struck"
knobs = ["depth"]
[[layer]]
gate = "ry"
[[layer]]
gate = "cx"
pattern = "linear"
"""


def load(folder: Path, tables: str, **settings: Any) -> Circuit:
    (folder / "struck.toml").write_text(CARD + tables, encoding="utf-8")
    return load_circuit(folder / "struck.toml", **{"qubits": 3, **settings})


def test_cards_say_where_and_load_circuit_how_strongly(tmp_path: Path) -> None:
    tables = """
[[noise]]
channel = "depolarizing"
after = "cx"
wires = ["n-2", "n-1"]
[[noise]]
channel = "depolarizing"
after = "layer"
[[noise]]
channel = "phase-flip"
after = "end"
strength = 0.25
"""
    alone = load(tmp_path, tables)
    assert [(c.name, c.wires, c.after) for c in alone.channels] == [("phase-flip", (k,), 4) for k in range(3)]
    both = load(tmp_path, tables, noise={"depolarizing": 0.1})
    assert [(c.name, c.wires, c.strengths) for c in both.channels] == [
        *[("phase-flip", (k,), (0.25,)) for k in range(3)],
        ("depolarizing", (1, 2), (0.1,)),
        *[("depolarizing", (k,), (0.1,)) for k in range(3)],
    ]
    stronger = load(tmp_path, tables, noise={"phase_flip": 0.5})
    assert {(c.name, c.strengths) for c in stronger.channels} == {("phase-flip", (0.5,))}
    elsewhere = load(tmp_path, tables, noise={"depolarizing": 0.1, "after": "start"})
    assert [c.after for c in elsewhere.channels] == [-1, -1, -1, 4, 4, 4]
    whole = load(tmp_path, tables, noise=NoiseModel.of(bit_flip=0.1))
    assert {c.name for c in whole.channels} == {"bit-flip"}
    assert not load(tmp_path, tables).without_noise().noisy


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('channel = "bitflip"', r"line 10, \[\[noise\]\] 1: expected the name of a channel, got 'bitflip'"),
        ('after = "gate"', 'expected channel = "...", got none'),
        ('channel = "bit-flip"\nafter = "gates"', "place of noise, got 'gates'; did you mean 'gate'"),
        ('channel = "bit-flip"\nstrength = 2', "expected p from 0 to 1, got 2"),
        ('channel = "bit-flip"\nstrengths = 0.1', "key of noise, got 'strengths'; did you mean 'strength'"),
        ('channel = "bit-flip"\nafter = "end"\nwires = ["m"]', "variable of the card, got 'm'"),
    ],
)
def test_wrong_tables_of_cards_are_refused_with_their_place(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, f"\n[[noise]]\n{table}\n", noise={"bit_flip": 0.1})


def test_the_packages_own_cards_have_no_noise_of_their_own() -> None:
    assert not load_circuit("ring-cz", qubits=3).noisy
    assert load_circuit("ring-cz", qubits=3, noise={}) == load_circuit("ring-cz", qubits=3)


# In layers.


def test_a_layer_trains_in_noise() -> None:
    circuit = qu.load_circuit("ring-cz", qubits=3, depth=2, noise={"depolarizing": 0.05, "readout": 0.02})
    layer = qu.QuantumLayer(circuit, generator=torch.Generator().manual_seed(0))
    x, _ = draw(circuit, 8, torch.float32)
    before = layer(x).mean()
    (slopes,) = torch.autograd.grad(before, [layer.weights])
    with torch.no_grad():
        layer.weights.sub_(0.1 * slopes)
        assert layer(x).mean() < before
    assert copy.deepcopy(layer)(x).equal(layer(x))
