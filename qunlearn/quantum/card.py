"""Circuit cards: TOML files that describe circuit families, and `load_circuit`, which gives them a size."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum.circuit import Angle, Circuit, Gate
from qunlearn.quantum.encoding import Encoding
from qunlearn.quantum.entanglement import PATTERNS, pairs
from qunlearn.quantum.expression import evaluate, loop
from qunlearn.quantum.gates import gate as gate_spec
from qunlearn.quantum.noise import CHANNELS, NoiseModel, Place, Strike, channel, check_place, read_strengths

KNOBS = ("depth", "encoding", "entanglement", "features", "observables", "reupload", "rotations")
_CARD_KEYS: dict[str, type] = {
    "name": str, "title": str, "source": str, "notes": str, "knobs": list, "refuses": dict, "encoding": dict,
    "start": list, "layer": list, "end": list, "noise": list,
}  # fmt: skip
_OPERATION_KEYS: dict[str, type | tuple[type, ...]] = {
    "gate": str, "gates": list, "wires": list, "each": str, "when": str, "pattern": str, "angle": (str, int, float),
    "knob": str,
}  # fmt: skip
_NOISE_KEYS: dict[str, type | tuple[type, ...]] = {
    "channel": str, "after": str, "wires": list, "strength": (int, float, list, dict),
}  # fmt: skip
_PARTS = ("start", "layer", "end")
_folders: list[Traversable] = []


@dataclass(frozen=True)
class Operation:
    """One table of a card: gates, and the wires on which they act.

    Attributes:
        gates: names; several are applied one after the other on the same wires before the next wires.
        wires: expressions over n (qubits), l (layer, from 0), depth and the loop variables.
        each: the loops that give the wires; "" stands for one pass.
        when: a condition on the same names; "" is always true.
        pattern: an entanglement pattern in place of wires; "" for none.
        angle: None for a weight of its own at every gate, else a constant in radians.
        knob: "rotations" or "entanglement" if that knob replaces the gates or the pattern; else "".
        place: file, line and table, for error messages.
    """

    gates: tuple[str, ...]
    wires: tuple[str | int, ...]
    each: str
    when: str
    pattern: str
    angle: float | None
    knob: str
    place: str

    def targets(self, names: Mapping[str, int]) -> Iterator[tuple[int, ...]]:
        """The wires of every application, in program order."""
        if self.pattern:
            yield from pairs(self.pattern, names["n"])
            return
        for inner in loop(self.each, names) if self.each else (dict(names),):
            if not self.when or evaluate(self.when, inner):
                yield tuple(evaluate(wire, inner) for wire in self.wires)


@dataclass(frozen=True)
class NoisePlace:
    """One ``[[noise]]`` table of a card: where a channel strikes.

    Attributes:
        channel: a row of `CHANNELS`.
        after: as in `Strike`.
        wires: expressions over n and depth, or None; as in `Strike`.
        strengths: None where whoever loads the card gives them, without which it does not strike.
        place: file, line and table, for error messages.
    """

    channel: str
    after: str
    wires: tuple[str | int, ...] | None
    strengths: tuple[float, ...] | None
    place: str

    def at(self, names: Mapping[str, int]) -> Place:
        """Where it strikes in a circuit of a given size."""
        with _at(self.place):
            return self.after, None if self.wires is None else tuple(evaluate(wire, names) for wire in self.wires)


@dataclass(frozen=True)
class Card:
    """A circuit family: what `load_circuit` reads from a TOML file.

    Attributes:
        name: what it is called.
        title: one line.
        source: the publication.
        notes: what a user should know.
        knobs: the arguments of `load_circuit` that it takes.
        refusals: for other knobs, why it refuses them.
        encoding: what it uses unless asked otherwise.
        start: operations once, after the first encoding.
        layer: operations of one layer.
        end: operations once, after the last layer.
        noise: where channels strike.
        place: where it was read from.
    """

    name: str
    title: str
    source: str
    notes: str
    knobs: tuple[str, ...]
    refusals: dict[str, str]
    encoding: Encoding
    start: tuple[Operation, ...]
    layer: tuple[Operation, ...]
    end: tuple[Operation, ...]
    noise: tuple[NoisePlace, ...]
    place: str = field(compare=False)


def register_folder(folder: str | Path) -> None:
    """Make the cards (``*.toml``) of a folder known by name; a later folder wins over an earlier one."""
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"expected a folder with circuit cards, got {str(folder)!r}")
    _folders.append(path)


def available_cards() -> dict[str, Card]:
    """Every known card by name: the package's own, those of entry points, those of registered folders."""
    cards: dict[str, Card] = {}
    for folder in (_packaged(), *_entry_point_folders(), *_folders):
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if file.name.endswith(".toml"):
                card = read_card(file.read_text(encoding="utf-8"), file.name)
                cards[card.name] = card
    return dict(sorted(cards.items()))


def _packaged() -> Traversable:
    try:
        folder = importlib.resources.files("qunlearn.circuits")
        if any(file.name.endswith(".toml") for file in folder.iterdir()):
            return folder
    except ModuleNotFoundError:
        pass  # a checkout that was not installed
    return Path(__file__).parents[2] / "circuits"


@cache
def _entry_point_folders() -> tuple[Path, ...]:
    """The folders that installed packages offer under the entry point group ``qunlearn.circuits``."""
    points = importlib.metadata.entry_points(group="qunlearn.circuits")
    return tuple(Path(str(point.load())) for point in points)


def find_card(name_or_path: str | Path) -> Card:
    """A card by its name, or from the TOML file at a path."""
    text = str(name_or_path)
    if text.endswith(".toml") or "/" in text or isinstance(name_or_path, Path):
        try:
            return read_card(Path(text).read_text(encoding="utf-8"), text)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"expected a readable circuit card at {text!r}, got {error}") from error
    packaged = _packaged() / f"{text}.toml"
    if not _folders and not _entry_point_folders() and packaged.is_file():
        return read_card(packaged.read_text(encoding="utf-8"), packaged.name)
    cards = available_cards()
    if text not in cards:
        raise UnknownNameError("circuit card", text, cards)
    return cards[text]


@cache
def read_card(text: str, place: str) -> Card:
    """The card of a TOML text; `place` is the file named in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{place}: expected TOML, got {error}") from error
    with _at(place):
        _check_keys(data, _CARD_KEYS, "a circuit card")
        if "name" not in data:
            raise InputError('expected name = "...", got none')
        knobs, refuses = data.get("knobs", []), data.get("refuses", {})
        for knob in (*knobs, *refuses):
            if knob not in KNOBS:
                raise UnknownNameError("knob", knob, KNOBS)
    parts = {part: tuple(_read_operations(data.get(part, []), part, text, place)) for part in _PARTS}
    if not parts["layer"]:
        raise InputError(f"{place}: expected at least one [[layer]] table, got none")
    with _at(f"{place}, [encoding]"):
        encoding = Encoding.read(data.get("encoding", {"name": "none"}))
    title, source, notes = (str(data.get(key, "")).strip() for key in ("title", "source", "notes"))
    start, layer, end = parts["start"], parts["layer"], parts["end"]
    noise = tuple(_read_noise(data.get("noise", []), text, place))
    refusals = dict(refuses)
    return Card(data["name"], title, source, notes, tuple(knobs), refusals, encoding, start, layer, end, noise, place)


def _read_operations(tables: list[Any], part: str, text: str, place: str) -> Iterator[Operation]:
    for number, table in enumerate(tables):
        where = f"{place}, line {_line(text, part, number)}, [[{part}]] {number + 1}"
        with _at(where):
            yield _read_operation(table, where)


def _read_operation(table: dict[str, Any], where: str) -> Operation:
    _check_keys(table, _OPERATION_KEYS, "an operation")
    if ("gate" in table) == ("gates" in table):
        raise InputError("expected one of gate and gates")
    gates = tuple(table["gates"]) if "gates" in table else (table["gate"],)
    pattern, wires, each = table.get("pattern", ""), table.get("wires"), table.get("each", "")
    if pattern and pattern not in PATTERNS:
        raise UnknownNameError("entanglement pattern", pattern, PATTERNS)
    if pattern and (wires or each):
        raise InputError("expected either a pattern or wires, got both")
    if wires is None:
        wires, each = (["i"], "i in 0..n-1") if not (pattern or each) else (["i", "j"] if pattern else ["i"], each)
    for name in gates:
        if gate_spec(name).wires != len(wires):
            raise InputError(f"expected {gate_spec(name).wires} wires for gate {name!r}, got {len(wires)}: {wires}")
    angle, knob = table.get("angle", "weight"), table.get("knob", "")
    if angle != "weight" and (isinstance(angle, (bool, str)) or not all(gate_spec(name).has_angle for name in gates)):
        raise InputError(f'expected angle = "weight" or a number in radians, on gates with an angle, got {angle!r}')
    if knob not in ("", "rotations", "entanglement") or (knob == "entanglement") != bool(knob and pattern):
        raise InputError(f'expected knob = "rotations", or "entanglement" beside a pattern, got {knob!r}')
    constant = None if angle == "weight" else float(angle)
    return Operation(gates, tuple(wires), each, str(table.get("when", "")), pattern, constant, knob, where)


def _read_noise(tables: list[Any], text: str, place: str) -> Iterator[NoisePlace]:
    for number, table in enumerate(tables):
        where = f"{place}, line {_line(text, 'noise', number)}, [[noise]] {number + 1}"
        with _at(where):
            _check_keys(table, _NOISE_KEYS, "noise")
            if "channel" not in table:
                raise InputError('expected channel = "...", got none')
            spec, after, wires = channel(table["channel"]), table.get("after", "two-qubit"), table.get("wires")
            check_place(after)
            strengths = read_strengths(spec, table["strength"]) if "strength" in table else None
            yield NoisePlace(spec.name, after, None if wires is None else tuple(wires), strengths, where)


def _check_keys(table: object, kinds: Mapping[str, type | tuple[type, ...]], what: str) -> None:
    if not isinstance(table, dict):
        raise InputError(f"expected a table, got {table!r}")
    for key, value in table.items():
        if key not in kinds:
            raise UnknownNameError(f"key of {what}", key, kinds)
        if not isinstance(value, kinds[key]):
            raise InputError(f"expected another type for {key}, got {value!r}")


def _line(text: str, part: str, number: int) -> int:
    """The line on which the given ``[[part]]`` table begins."""
    heads = [i for i, line in enumerate(text.splitlines(), 1) if re.match(rf"\s*\[\[\s*{part}\s*\]\]", line)]
    return heads[number] if number < len(heads) else 1


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Put a place before the message of any InputError that is raised inside."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def load_circuit(
    name_or_path: str | Path,
    *,
    qubits: int,
    depth: int = 1,
    entanglement: str | None = None,
    encoding: str | Mapping[str, object] | None = None,
    reupload: bool | None = None,
    observables: Sequence[str] | None = None,
    rotations: str | Sequence[str] | None = None,
    features: int | None = None,
    noise: NoiseModel | Mapping[str, Any] | None = None,
) -> Circuit:
    """A circuit from a card: its name, or the path of a TOML file, at a given size.

    Args:
        name_or_path: the name of a card (`available_cards`) or a path.
        qubits: number of wires, at least 1.
        depth: number of layers, at least 1.
        entanglement: a pattern of `PATTERNS`, where the card takes one.
        encoding: a name such as ``"ry-rz"``, ``"zz"``, ``"amplitude"``, ``"none"``, or a table with more
            settings (see `Encoding`).
        reupload: whether the encoding comes before every layer.
        observables: Pauli strings, character i on wire i; Z on every wire by default.
        rotations: the rotation gates of a layer, such as ``"ry-rz"``, where the card takes them.
        features: how many features a sample has, if fewer than the encoding can hold.
        noise: a `NoiseModel`; or a table of strengths such as ``{"depolarizing": 0.01, "readout": 0.02}``
            (see `NoiseModel.read`), whose channels strike where the card says, or else after two-qubit gates. None
            is what the card gives strengths for: nothing, in the package's own cards.

    Raises:
        UnknownNameError: for an unknown card, pattern, encoding or gate, with the nearest known name.
        InputError: for a knob that the card refuses, with the reason, and for wrong sizes.
    """
    card = find_card(name_or_path)
    if qubits < 1 or depth < 1:
        raise InputError(f"expected at least 1 qubit and depth 1, got qubits={qubits}, depth={depth}")
    asked = {"entanglement": entanglement, "encoding": encoding, "reupload": reupload, "observables": observables,
             "rotations": rotations, "features": features, "depth": None if depth == 1 else depth}  # fmt: skip
    _refuse(card, asked)
    card = _turn(card, entanglement, encoding, reupload, rotations)
    width = card.encoding.width(qubits, features)
    gates = _build(card, qubits, depth, width)
    weights = sum(gate.angle is not None and gate.angle.weight is not None for gate in gates)
    paulis = [observables] if isinstance(observables, str) else observables
    if paulis is None:
        paulis = ["I" * wire + "Z" + "I" * (qubits - wire - 1) for wire in range(qubits)]
    amplitude = card.encoding.name == "amplitude"
    circuit = Circuit(
        qubits, gates, tuple(paulis), width, weights, amplitude, card=card.name, depth=depth, settings=_settings(card)
    )
    return circuit.with_noise(noise if isinstance(noise, NoiseModel) else noise_model(card, circuit, noise or {}))


def noise_model(card: Card, circuit: Circuit, given: Mapping[str, Any]) -> NoiseModel:
    """What a card and a table of strengths say together of a circuit made from the card.

    The table wins for the channels that it names; where they strike, unless it says so, the card says.
    """
    names = {"n": circuit.qubits, "depth": circuit.depth}
    places: dict[str, list[Place]] = {}
    for line in card.noise:
        places.setdefault(line.channel, []).append(line.at(names))
    model = NoiseModel.read(given, places)
    named = {str(key).replace("_", "-") for key in given} & set(CHANNELS)
    own = [
        Strike(line.channel, line.strengths, *line.at(names))
        for line in card.noise
        if line.strengths is not None and line.channel not in named
    ]
    return replace(model, strikes=(*own, *model.strikes))


def _refuse(card: Card, asked: Mapping[str, object]) -> None:
    for knob, value in asked.items():
        if value is not None and knob not in card.knobs:
            reason = card.refusals.get(knob, f"it takes {', '.join(card.knobs) or 'none'}")
            raise InputError(f"card {card.name!r} does not take {knob}={value!r}: {reason}")


def _turn(
    card: Card,
    entanglement: str | None,
    encoding: str | Mapping[str, object] | None,
    reupload: bool | None,
    rotations: str | Sequence[str] | None,
) -> Card:
    """The card with its knobs turned."""
    if entanglement is not None:
        pairs(entanglement, 1)  # names the nearest pattern
        card = _replace_operations(card, "entanglement", pattern=entanglement)
    if rotations is not None:
        names = tuple(rotations.split("-")) if isinstance(rotations, str) else tuple(rotations)
        for name in names:
            if gate_spec(name).wires != 1:
                raise InputError(f"expected rotations on one wire, such as 'ry-rz', got {name!r}")
        card = _replace_operations(card, "rotations", gates=names)
    # Amplitude encoding and none cannot be repeated: a card's own re-uploading goes with its own encoding.
    chosen = card.encoding if encoding is None else Encoding.read(encoding)
    again = chosen.reupload if reupload is None else reupload
    if encoding is not None and reupload is None and chosen.gates(1):
        again = again or card.encoding.reupload
    return replace(card, encoding=replace(chosen, reupload=again))


def _replace_operations(card: Card, knob: str, **changes: Any) -> Card:
    start, layer, end = (
        tuple(replace(op, **changes) if op.knob == knob else op for op in part)
        for part in (card.start, card.layer, card.end)
    )
    return replace(card, start=start, layer=layer, end=end)


def _settings(card: Card) -> tuple[tuple[str, str], ...]:
    operations = (*card.start, *card.layer, *card.end)
    settings = {"encoding": card.encoding.label, "reupload": str(card.encoding.reupload).lower()}
    for op in operations:
        if op.knob == "entanglement":
            settings["entanglement"] = op.pattern
        elif op.knob == "rotations":
            settings["rotations"] = "-".join(op.gates)
    return tuple(sorted(settings.items()))


def _build(card: Card, qubits: int, depth: int, features: int) -> tuple[Gate, ...]:
    names = {"n": qubits, "depth": depth, "l": 0}
    gates = list(card.encoding.gates(features, 0 if card.encoding.reupload else None))
    for op in card.start:
        gates += _apply(op, names, None, gates)
    for layer in range(depth):
        if layer and card.encoding.reupload:
            gates += card.encoding.gates(features, layer)
        for op in card.layer:
            gates += _apply(op, names | {"l": layer}, layer, gates)
    for op in card.end:
        gates += _apply(op, names | {"l": depth}, None, gates)
    return tuple(gates)


def _apply(op: Operation, names: Mapping[str, int], layer: int | None, before: list[Gate]) -> list[Gate]:
    """The gates of one operation; weights count on from those of the gates before it."""
    weight = sum(gate.angle is not None and gate.angle.weight is not None for gate in before)
    gates: list[Gate] = []
    with _at(op.place):
        for wires in op.targets(names):
            if len(set(wires)) < len(wires) or not all(0 <= wire < names["n"] for wire in wires):
                raise InputError(f"expected different wires from 0 to {names['n'] - 1}, got {list(wires)}")
            for name in op.gates:
                angle = None
                if gate_spec(name).has_angle:
                    angle = Angle(weight=weight) if op.angle is None else Angle(offset=op.angle)
                    weight += op.angle is None
                gates.append(Gate(name, wires, angle, layer))
    return gates
