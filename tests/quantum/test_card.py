"""Cards and `load_circuit`: knobs, refusals with their place, and cards of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum import card as card_module
from qunlearn.quantum.card import KNOBS, available_cards, load_circuit, register_folder
from qunlearn.quantum.circuit import Angle, Circuit, Factor
from qunlearn.quantum.encoding import Encoding
from qunlearn.quantum.expression import evaluate, loop

CARDS = {
    "ring-cz",
    "basic-entangler",
    "strongly-entangling",
    "real-amplitudes",
    "efficient-su2",
    "reupload",
    "rzz-ring",
    "sim-15-cz",
}
CARDS |= {f"sim-{number:02d}" for number in range(1, 20)}
OWN = """
name = "mine"
knobs = ["depth", "entanglement", "encoding"]

[[layer]]
gate = "ry"

[[layer]]
gate = "crx"
each = "i in 0..n-2 step 2"
wires = ["i", "i + 1"]
"""


def own(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def names(circuit: Circuit) -> list[str]:
    return [str(gate) for gate in circuit.gates]


def test_the_zoo_is_complete_and_every_card_says_where_it_comes_from() -> None:
    cards = available_cards()
    assert set(cards) == CARDS
    assert all(card.title and card.source and card.notes for card in cards.values())
    assert all(set(card.knobs).isdisjoint(card.refusals) for card in cards.values())
    assert all(set(card.knobs) | set(card.refusals) == set(KNOBS) for card in cards.values())


@pytest.mark.parametrize("name", sorted(CARDS))
@pytest.mark.parametrize("qubits", [1, 2, 3, 7])
def test_every_card_loads_at_every_size_and_survives_json(name: str, qubits: int) -> None:
    circuit = load_circuit(name, qubits=qubits, depth=2)
    assert (circuit.qubits, circuit.depth, circuit.card) == (qubits, 2, name)
    assert len(circuit.observables) == qubits
    assert Circuit.from_json(circuit.to_json()) == circuit


def test_ring_cz_numbers_its_weights_by_layer_wire_and_rotation() -> None:
    circuit = load_circuit("ring-cz", qubits=3, depth=2)
    for layer in range(2):
        for wire in range(3):
            for rotation, name in enumerate(("rx", "ry", "rz")):
                weight = (layer * 3 + wire) * 3 + rotation
                found = [g for g in circuit.gates if g.angle is not None and g.angle.weight == weight]
                assert [(g.name, g.wires, g.layer) for g in found] == [(name, (wire,), layer)]


def test_ring_cz_is_the_published_circuit() -> None:
    column = ["rx[{0}]", "ry[{0}]", "rz[{0}]"]
    turns = [gate.format(wire) for wire in range(3) for gate in column]
    assert names(load_circuit("ring-cz", qubits=3)) == turns + turns + ["cz[0, 1]", "cz[1, 2]", "cz[2, 0]"]


def test_knobs_turn_what_they_say() -> None:
    circuit = load_circuit(
        "ring-cz", qubits=3, depth=2, entanglement="star", encoding="ry", reupload=True, rotations="rz-ry",
        observables=["XYZ"], features=2,
    )  # fmt: skip
    layer = ["rz[0]", "ry[0]", "rz[1]", "ry[1]", "rz[2]", "ry[2]", "cz[0, 1]", "cz[0, 2]"]
    assert names(circuit) == (["ry[0]", "ry[1]", *layer]) * 2
    assert (circuit.features, circuit.weights, circuit.observables) == (2, 12, ("XYZ",))
    assert dict(circuit.settings) == {
        "encoding": "ry", "entanglement": "star", "reupload": "true", "rotations": "rz-ry",
    }  # fmt: skip


def test_reupload_repeats_the_encoding_before_every_layer() -> None:
    circuit = load_circuit("reupload", qubits=2, depth=3)
    assert [g.layer for g in circuit.gates if g.angle is not None and g.angle.factors] == [0, 0, 1, 1, 2, 2]
    assert dict(circuit.settings)["reupload"] == "true"


@pytest.mark.parametrize("encoding", ["none", "amplitude"])
def test_a_card_that_reuploads_gives_up_where_there_is_nothing_to_repeat(encoding: str) -> None:
    circuit = load_circuit("reupload", qubits=2, depth=2, encoding=encoding)
    assert dict(circuit.settings)["reupload"] == "false"


def test_zz_angles_are_data() -> None:
    gate = load_circuit("ring-cz", qubits=2, encoding="zz").gates[4]
    pi = 3.141592653589793
    assert (gate.name, gate.wires) == ("rzz", (0, 1))
    assert gate.angle == Angle(2.0, (Factor(0, -1.0, pi), Factor(1, -1.0, pi)))


def test_an_encoding_label_shows_what_was_set() -> None:
    assert Encoding.read("zz").label == "zz"
    assert Encoding.read({"name": "zz", "repeats": 2}).label == "zz(repeats=2)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name_or_path": "ring-cy"}, "circuit card, got 'ring-cy'; did you mean 'ring-cz'"),
        ({"entanglement": "cirle"}, "entanglement pattern, got 'cirle'"),
        ({"encoding": "rx-rw"}, "encoding, got 'rx-rw'; did you mean 'rx"),
        ({"encoding": {"name": "zz", "repeat": 2}}, "key of an encoding, got 'repeat'; did you mean 'repeats'"),
        ({"encoding": {"name": "zz", "repeats": 0}}, "at least 1 repeat of the encoding, got 0"),
        ({"encoding": {"name": "zz", "repeats": "2"}}, "another type for the encoding's repeats, got '2'"),
        ({"encoding": "amplitude", "reupload": True}, "amplitude encoding without reupload: it sets the initial state"),
        ({"encoding": "none", "reupload": True}, "an encoding to re-upload, got 'none'"),
        ({"encoding": "ry", "features": 4}, "1 to 3 features for 'ry' encoding on 3 qubits, got 4"),
        ({"encoding": "amplitude", "features": 9}, "1 to 8 features for 'amplitude' encoding on 3 qubits, got 9"),
        ({"rotations": "ry-cx"}, "rotations on one wire, such as 'ry-rz', got 'cx'"),
        ({"rotations": "ry-rq"}, "gate, got 'rq'"),
        ({"qubits": 0}, "at least 1 qubit and depth 1, got qubits=0, depth=1"),
        ({"depth": 0}, "at least 1 qubit and depth 1, got qubits=3, depth=0"),
        ({"observables": ["ZZ"]}, "Pauli string of 3 characters"),
        ({"name_or_path": "sim-03", "rotations": "ry"}, "'sim-03' does not take rotations='ry': its rotations define"),
        ({"name_or_path": "basic-entangler", "entanglement": "all"}, "the template fixes a ring of CNOT"),
        ({"name_or_path": "nowhere/mine.toml"}, "a readable circuit card at 'nowhere/mine.toml'"),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as raised:
        load_circuit(**{"name_or_path": "ring-cz", "qubits": 3, **arguments})  # type: ignore[arg-type]
    assert message in str(raised.value)


def test_a_card_of_ones_own_by_path(tmp_path: Path) -> None:
    circuit = load_circuit(own(tmp_path, OWN), qubits=5)
    assert names(circuit)[5:] == ["crx[0, 1]", "crx[2, 3]"]
    assert (circuit.weights, circuit.features) == (7, 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('gate = "crx"', 'gate = "crv"', "mine.toml, line 8, [[layer]] 2: expected the name of a gate, got 'crv'"),
        ('"i", "i + 1"', '"i"', "line 8, [[layer]] 2: expected 2 wires for gate 'crx', got 1: ['i']"),
        ('"i + 1"', '"i + 4"', "line 8, [[layer]] 2: expected different wires from 0 to 3, got [0, 4]"),
        ('"i + 1"', '"i"', "line 8, [[layer]] 2: expected different wires from 0 to 3, got [0, 0]"),
        ('"i + 1"', '"k + 1"', "line 8, [[layer]] 2: expected the name of a variable of the card, got 'k'"),
        ('"i + 1"', '"i ** 2"', "line 8, [[layer]] 2: expected integers, names, + - * // % and comparisons"),
        ("i in 0..n-2 step 2", "i from 0 to n", "line 8, [[layer]] 2: expected a loop such as"),
        ("i in 0..n-2 step 2", "i in 0..n-2 step 0", "expected a new variable and a step other than 0"),
        ('gate = "ry"', 'gat = "ry"', "line 5, [[layer]] 1: expected the name of a key of an operation, got 'gat'"),
        ('gate = "ry"', 'gate = "ry"\ngates = ["rx"]', "line 5, [[layer]] 1: expected one of gate and gates"),
        ('gate = "ry"', 'gate = "h"\nangle = 1.0', "line 5, [[layer]] 1: expected angle"),
        ('gate = "ry"', 'gate = "ry"\nknob = "entanglement"', "line 5, [[layer]] 1: expected knob"),
        ('gate = "ry"', 'gate = "cz"\npattern = "rong"', "pattern, got 'rong'; did you mean 'ring'"),
        ('name = "mine"', 'nam = "mine"', "key of a circuit card, got 'nam'; did you mean 'name'"),
        ('name = "mine"', "", 'mine.toml: expected name = "...", got none'),
        ('"depth"', '"deepth"', "expected the name of a knob, got 'deepth'; did you mean 'depth'"),
        ('gate = "ry"', 'gate = ["ry"]', "line 5, [[layer]] 1: expected another type for gate, got ['ry']"),
        ('["depth"', '"depth" #', "mine.toml: expected another type for knobs, got 'depth'"),
        ('name = "mine"', 'name = "mine"\nend = [3]', "[[end]] 1: expected a table, got 3"),
        ("[[layer]]", "[[layer]", "mine.toml: expected TOML, got"),
        ("[[layer]]", "[[start]]", "expected at least one [[layer]] table, got none"),
        ("[[layer]]", '[encoding]\nname = "rv"\n[[layer]]', "mine.toml, [encoding]: expected the name of an encoding"),
    ],
)
def test_a_broken_card_is_refused_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    count = -1 if "[[layer]]" in old and "[[start]]" in new else 1
    assert old in OWN
    with pytest.raises(InputError) as raised:
        load_circuit(own(tmp_path, OWN.replace(old, new, count)), qubits=4)
    assert message in str(raised.value)


def test_a_number_in_place_of_a_weight_is_a_constant_angle(tmp_path: Path) -> None:
    text = OWN.replace('gate = "ry"', 'gate = "ry"\nangle = 0.25')
    circuit = load_circuit(own(tmp_path, text), qubits=2)
    assert circuit.gates[0].angle == Angle(offset=0.25)
    assert circuit.weights == 1


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(card_module, "_folders", [])
    own(tmp_path, OWN)
    register_folder(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("registered")
def test_a_registered_folder_gives_cards_by_name() -> None:
    assert set(available_cards()) == CARDS | {"mine"}
    assert load_circuit("mine", qubits=3).card == "mine"
    assert load_circuit("ring-cz", qubits=3).card == "ring-cz"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder with circuit cards"):
        register_folder(tmp_path / "no")


@pytest.mark.parametrize(
    ("text", "value"),
    [("(i + 1) % n", 0), ("-i // 2", -2), ("i == 3 and n != 4", 0), ("not i < n or 0", 0), ("0 <= i < n", 1), (7, 7)],
)
def test_expressions_are_integer_arithmetic(text: str | int, value: int) -> None:
    assert evaluate(text, {"i": 3, "n": 4}) == value


@pytest.mark.parametrize("text", ["__import__('os')", "i.real", "[1]", "1.5", "i if n else 0", "i / 2", "", "i % 0"])
def test_expressions_know_nothing_else(text: str) -> None:
    with pytest.raises(InputError):
        evaluate(text, {"i": 3, "n": 4})


def test_an_inner_loop_sees_the_outer_variable() -> None:
    found = [(names["i"], names["j"]) for names in loop("i in 2..0 step -1, j in i+1..n-1", {"n": 3})]
    assert found == [(1, 2), (0, 1), (0, 2)]


def test_an_empty_range_gives_nothing() -> None:
    assert list(loop("i in 0..n-2", {"n": 1})) == []
    assert list(loop("i in n-1..1 step -1", {"n": 1})) == []


def test_unknown_names_are_of_their_own_class() -> None:
    with pytest.raises(UnknownNameError):
        load_circuit("sim-20", qubits=3)
