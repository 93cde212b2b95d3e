"""A circuit as plain text: wires as rows, gates from left to right."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate

# How the two wires of a gate are marked; the angle stands with the second. Other gates carry their name.
_TWO_WIRES = {
    "cx": ("●", "X"),
    "cy": ("●", "Y"),
    "cz": ("●", "●"),
    "ch": ("●", "H"),
    "swap": ("x", "x"),
    "crx": ("●", "RX"),
    "cry": ("●", "RY"),
    "crz": ("●", "RZ"),
    "cp": ("●", "P"),
    "rxx": ("XX", "XX"),
    "ryy": ("YY", "YY"),
    "rzz": ("ZZ", "ZZ"),
}


def draw(circuit: Circuit, columns: int = 100) -> str:
    """The circuit as text, wrapped at `columns` characters; x0 is feature 0, w3 weight 3, angles in radians.

    A dot marks a control, and both wires of CZ; the last column shows the observables that are read on one wire
    alone. Other observables stand in a line below, and noise, which is not drawn, in another.

    >>> from qunlearn.quantum.circuit import Angle, Circuit, Gate
    >>> print(draw(Circuit(2, (Gate("rx", (0,), Angle(weight=0)), Gate("cx", (0, 1))), ("ZI", "XX"), 0, 1)))
    0: ─RX(w0)─╭●─┤ Z
    1: ────────╰X─┤
    observables: ZI, XX
    """
    blocks = [_block(circuit.qubits, moment) for moment in _moments(circuit)]
    if circuit.amplitude:
        blocks.insert(0, ["─|x⟩"] * circuit.qubits)
    names = [f"{wire}: " for wire in range(circuit.qubits)]
    names = [name.rjust(max(map(len, names))) for name in names]
    ends = ["─┤ " + ",".join(_single(circuit, wire)) for wire in range(circuit.qubits)]
    room = max(20, columns - len(names[0]) - max(map(len, ends)))
    parts = _wrap(blocks, room)
    texts = []
    for number, part in enumerate(parts):
        rows = ["".join(block[wire] for block in part) for wire in range(circuit.qubits)]
        last = number == len(parts) - 1
        close = ends if last else ["─···"] * circuit.qubits
        texts.append("\n".join((n + r + c).rstrip() for n, r, c in zip(names, rows, close, strict=True)))
    return "\n\n".join(texts) + _observables_line(circuit) + _noise_line(circuit)


def _moments(circuit: Circuit) -> list[list[Gate]]:
    """Gates by column, each as far left as it can stand without its line crossing another gate."""
    free = [0] * circuit.qubits
    moments: list[list[Gate]] = []
    for gate in circuit.gates:
        span = range(min(gate.wires), max(gate.wires) + 1)
        column = max(free[wire] for wire in span)
        if column == len(moments):
            moments.append([])
        moments[column].append(gate)
        for wire in span:
            free[wire] = column + 1
    return moments


def _block(qubits: int, moment: list[Gate]) -> list[str]:
    cells = [""] * qubits
    for gate in moment:
        for wire, cell in _cells(gate).items():
            cells[wire] = cell
    width = max(map(len, cells))
    return ["─" + cell.ljust(width, "─") for cell in cells]


def _cells(gate: Gate) -> dict[int, str]:
    angle = "" if gate.angle is None else f"({label(gate.angle)})"
    if len(gate.wires) == 1:
        return {gate.wires[0]: gate.name.upper() + angle}
    _, second = gate.wires
    top, bottom = min(gate.wires), max(gate.wires)
    marks = dict(zip(gate.wires, _TWO_WIRES[gate.name], strict=True))
    marks[second] += angle
    edge = {top: "╭", bottom: "╰"}
    return {wire: edge.get(wire, "│") + marks.get(wire, "") for wire in range(top, bottom + 1)}


def _wrap(blocks: list[list[str]], room: int) -> list[list[list[str]]]:
    parts: list[list[list[str]]] = [[]]
    used = 0
    for block in blocks:
        if parts[-1] and used + len(block[0]) > room:
            parts.append([])
            used = 0
        parts[-1].append(block)
        used += len(block[0])
    return parts


def _single(circuit: Circuit, wire: int) -> list[str]:
    rest = "I" * (circuit.qubits - 1)
    return [word[wire] for word in circuit.observables if word[:wire] + word[wire + 1 :] == rest and word[wire] != "I"]


def _observables_line(circuit: Circuit) -> str:
    singles = sum(len(_single(circuit, wire)) for wire in range(circuit.qubits))
    return "" if singles == len(circuit.observables) else f"\nobservables: {', '.join(circuit.observables)}"


def _noise_line(circuit: Circuit) -> str:
    counts = Counter(channel.name for channel in circuit.channels)
    parts = [f"{count} {name}" for name, count in counts.most_common()]
    parts += ["readout errors"] if circuit.readout else []
    return f"\nnoise: {', '.join(parts)}" if parts else ""


def label(angle: Angle) -> str:
    """The angle in short: ``x0``, ``w3``, ``2·(pi-x0)·(pi-x1)``, ``pi/2``.

    >>> from qunlearn.quantum.circuit import Angle, Factor
    >>> label(Angle(2.0, (Factor(0, -1.0, 3.141592653589793), Factor(1)), weight=3, offset=0.5))
    '2·(pi-x0)·x1·w3+0.5'
    """
    if angle.constant:
        return number(angle.offset)
    parts = [_factor(factor) for factor in angle.factors]
    parts += [] if angle.weight is None else [f"w{angle.weight}"]
    product = "·".join(parts if abs(angle.scale) == 1 else [number(abs(angle.scale)), *parts])
    offset = "" if angle.offset == 0 else f"{'+' if angle.offset > 0 else ''}{number(angle.offset)}"
    return ("-" if angle.scale < 0 else "") + product + offset


def _factor(factor: Factor) -> str:
    name = f"x{factor.feature}" if abs(factor.sign) == 1 else f"{number(abs(factor.sign))}·x{factor.feature}"
    if factor.shift == 0:
        return name if factor.sign > 0 else f"(-{name})"
    if factor.sign > 0:
        return f"({name}{'+' if factor.shift > 0 else ''}{number(factor.shift)})"
    return f"({number(factor.shift)}-{name})"


def number(value: float) -> str:
    """A number in short, with small multiples of pi by name.

    >>> import math
    >>> [number(value) for value in (math.pi / 2, -0.75 * math.pi, 2 * math.pi, 0.25, 1e-20, 0.0)]
    ['pi/2', '-3pi/4', '2pi', '0.25', '1e-20', '0']
    """
    share = Fraction(value / math.pi).limit_denominator(16)
    if share and abs(float(share) * math.pi - value) < 1e-12:
        top = {1: "pi", -1: "-pi"}.get(share.numerator, f"{share.numerator}pi")
        return top if share.denominator == 1 else f"{top}/{share.denominator}"
    return f"{value:.4g}"
