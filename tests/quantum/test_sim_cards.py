"""The 19 circuits of Sim et al. 2019 (arXiv 1905.10876), one layer typed by hand for four and five wires.

A line holds gates in program order: a name, then wires, control first ("crz32" has control 3, target 2).
"rx*" is the gate on every wire from 0 on. Five wires follow the rules that MindQuantum's module
``arxiv_1905_10876`` states for any width.
"""

from __future__ import annotations

import re

import pytest

from qunlearn.errors import InputError
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.gates import GATES

ALL_4 = "{0}32 {0}31 {0}30 {0}23 {0}21 {0}20 {0}13 {0}12 {0}10 {0}03 {0}02 {0}01"
ALL_5 = (
    "{0}43 {0}42 {0}41 {0}40 {0}34 {0}32 {0}31 {0}30 {0}24 {0}23 {0}21 {0}20 "
    "{0}14 {0}13 {0}12 {0}10 {0}04 {0}03 {0}02 {0}01"
)
FOUR = {
    1: "rx* rz*",
    2: "rx* rz* cx32 cx21 cx10",
    3: "rx* rz* crz32 crz21 crz10",
    4: "rx* rz* crx32 crx21 crx10",
    5: f"rx* rz* {ALL_4.format('crz')} rx* rz*",
    6: f"rx* rz* {ALL_4.format('crx')} rx* rz*",
    7: "rx* rz* crz10 crz32 rx* rz* crz21",
    8: "rx* rz* crx10 crx32 rx* rz* crx21",
    9: "h* cz23 cz12 cz01 rx*",
    10: "cz23 cz12 cz01 cz03 ry*",
    11: "ry* rz* cx10 cx32 ry1 ry2 rz1 rz2 cx21",
    12: "ry* rz* cz10 cz32 ry1 ry2 rz1 rz2 cz21",
    13: "ry* crz30 crz23 crz12 crz01 ry* crz32 crz03 crz10 crz21",
    14: "ry* crx30 crx23 crx12 crx01 ry* crx32 crx03 crx10 crx21",
    15: "ry* cx30 cx23 cx12 cx01 ry* cx32 cx03 cx10 cx21",
    16: "rx* rz* crz10 crz32 crz21",
    17: "rx* rz* crx10 crx32 crx21",
    18: "rx* rz* crz30 crz23 crz12 crz01",
    19: "rx* rz* crx30 crx23 crx12 crx01",
}
FIVE = {
    1: "rx* rz*",
    2: "rx* rz* cx43 cx32 cx21 cx10",
    3: "rx* rz* crz43 crz32 crz21 crz10",
    4: "rx* rz* crx43 crx32 crx21 crx10",
    5: f"rx* rz* {ALL_5.format('crz')} rx* rz*",
    6: f"rx* rz* {ALL_5.format('crx')} rx* rz*",
    7: "rx* rz* crz10 crz32 rx* rz* crz21 crz43",
    8: "rx* rz* crx10 crx32 rx* rz* crx21 crx43",
    9: "h* cz34 cz23 cz12 cz01 rx*",
    10: "cz34 cz23 cz12 cz01 cz04 ry*",
    11: "ry* rz* cx10 cx32 ry1 ry2 ry3 rz1 rz2 rz3 cx21 cx43",
    12: "ry* rz* cz10 cz32 ry1 ry2 ry3 rz1 rz2 rz3 cz21 cz43",
    13: "ry* crz40 crz34 crz23 crz12 crz01 ry* crz43 crz04 crz10 crz21 crz32",
    14: "ry* crx40 crx34 crx23 crx12 crx01 ry* crx43 crx04 crx10 crx21 crx32",
    15: "ry* cx40 cx34 cx23 cx12 cx01 ry* cx43 cx04 cx10 cx21 cx32",
    16: "rx* rz* crz10 crz32 crz21 crz43",
    17: "rx* rz* crx10 crx32 crx21 crx43",
    18: "rx* rz* crz40 crz34 crz23 crz12 crz01",
    19: "rx* rz* crx40 crx34 crx23 crx12 crx01",
}
# Weights of one layer, from the table of the paper's parameter counts at four wires.
COUNTS = {1: 8, 2: 8, 3: 11, 4: 11, 5: 28, 6: 28, 7: 19, 8: 19, 9: 4, 10: 8, 11: 12, 12: 12, 13: 16, 14: 16}
COUNTS |= {15: 8, 16: 11, 17: 11, 18: 12, 19: 12}

Typed = list[tuple[str, tuple[int, ...]]]


def typed(line: str, qubits: int) -> Typed:
    """The (name, wires) of a line as above."""
    gates: Typed = []
    for word in line.split():
        name, wires = re.fullmatch(r"([a-z]+)([0-9]+|\*)", word).groups()  # type: ignore[union-attr]
        if wires == "*":
            gates += [(name, (wire,)) for wire in range(qubits)]
        else:
            gates.append((name, tuple(int(wire) for wire in wires)))
    return gates


def loaded(number: int, qubits: int, depth: int) -> Circuit:
    return load_circuit(f"sim-{number:02d}", qubits=qubits, depth=depth, encoding="none")


def interchangeable(gates: Typed) -> Typed:
    """The gates with the wires of CZ sorted: it is symmetric."""
    return [(name, tuple(sorted(wires)) if name == "cz" else wires) for name, wires in gates]


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("qubits", "table"), [(4, FOUR), (5, FIVE)], ids=["four", "five"])
@pytest.mark.parametrize("number", range(1, 20))
def test_the_gates_are_those_typed_by_hand(number: int, qubits: int, table: dict[int, str], depth: int) -> None:
    circuit = loaded(number, qubits, depth)
    start = typed("ry*", qubits) if number == 10 else []
    expected = start + typed(table[number], qubits) * depth
    assert interchangeable([(gate.name, gate.wires) for gate in circuit.gates]) == interchangeable(expected)


@pytest.mark.parametrize("number", range(1, 20))
def test_every_angle_is_a_weight_of_its_own_in_program_order(number: int) -> None:
    circuit = loaded(number, 4, 2)
    angles = [gate.angle for gate in circuit.gates if GATES[gate.name].has_angle]
    assert [angle.weight for angle in angles if angle is not None] == list(range(circuit.weights))
    assert all(angle is not None and (angle.scale, angle.offset, angle.factors) == (1, 0, ()) for angle in angles)


@pytest.mark.parametrize("number", range(1, 20))
def test_the_number_of_weights_is_the_published_one(number: int) -> None:
    assert loaded(number, 4, 1).weights == COUNTS[number]
    once = 4 if number == 10 else 0  # the column before the first layer
    assert loaded(number, 4, 3).weights == 3 * (COUNTS[number] - once) + once


@pytest.mark.parametrize("number", range(1, 20))
def test_the_layout_is_fixed(number: int) -> None:
    with pytest.raises(InputError, match="entanglement='ring': the layout of its two-qubit gates"):
        load_circuit(f"sim-{number:02d}", qubits=4, entanglement="ring")


def test_the_two_wire_ring_of_circuit_10_is_one_gate() -> None:
    assert [str(gate) for gate in loaded(10, 2, 1).gates] == ["ry[0]", "ry[1]", "cz[0, 1]", "ry[0]", "ry[1]"]
