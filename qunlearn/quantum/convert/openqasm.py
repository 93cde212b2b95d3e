"""Circuits as OpenQASM 3 text, and back."""

from __future__ import annotations

import re

from qunlearn.errors import InputError, UnsupportedError
from qunlearn.quantum.circuit import Circuit, Gate
from qunlearn.quantum.convert import angles
from qunlearn.quantum.convert.amplitude import rotation_tree
from qunlearn.quantum.convert.with_qiskit import from_named

# What the standard library of OpenQASM 3 lacks.
_DEFINITIONS = {
    "rxx": "gate rxx(theta) a, b { h a; h b; cx a, b; rz(theta) b; cx a, b; h a; h b; }",
    "ryy": "gate ryy(theta) a, b { sx a; sx b; cx a, b; rz(theta) b; cx a, b; inv @ sx a; inv @ sx b; }",
    "rzz": "gate rzz(theta) a, b { cx a, b; rz(theta) b; cx a, b; }",
}
_OBSERVABLES = re.compile(r"^//\s*observables:([ IXYZ]+)$", re.MULTILINE)
_INPUT = re.compile(r"^\s*input\s+\w+(?:\s*\[\s*\d+\s*\])?\s+(\w+)\s*;", re.MULTILINE)


def to_openqasm3(circuit: Circuit) -> str:
    """The circuit as OpenQASM 3, with inputs ``x_0 ...`` for features and ``w_0 ...`` for weights, in radians.

    The observables stand in a comment line, ``// observables: ZI IZ``, character i for qubit i. Amplitude
    encoding is written as `rotation_tree`, whose features are the angles of `tree_angles`.

    Raises:
        UnsupportedError: for a noisy circuit, which OpenQASM 3 cannot say.
    """
    if circuit.noisy:
        raise UnsupportedError("expected a circuit without noise for OpenQASM 3; use circuit.without_noise()")
    tree = rotation_tree(circuit)
    used = sorted({gate.name for gate in tree.gates} & set(_DEFINITIONS))
    lines = [
        "OPENQASM 3.0;",
        'include "stdgates.inc";',
        f"// observables: {' '.join(tree.observables)}",
        *(_DEFINITIONS[name] for name in used),
        *(f"input float[64] x_{index};" for index in range(tree.features)),
        *(f"input float[64] w_{index};" for index in range(tree.weights)),
        f"qubit[{tree.qubits}] q;",
        *(_line(gate) for gate in tree.gates),
    ]
    return "\n".join(lines) + "\n"


def _line(gate: Gate) -> str:
    angle = "" if gate.angle is None else f"({angles.text(gate.angle, 'x_', 'w_')})"
    return f"{gate.name}{angle} {', '.join(f'q[{wire}]' for wire in gate.wires)};"


def from_openqasm3(text: str) -> Circuit:
    """A circuit from OpenQASM 3 text of gates of the table.

    Inputs ``x_0``, ``x_1``, ... become the features, all other inputs weights, as in `from_qiskit`. A comment
    line ``// observables: ZI IZ`` is read; without one it is Z on every qubit.

    Raises:
        InputError: where the text cannot be parsed.
        UnsupportedError: as in `from_qiskit`.
    """
    import qiskit.qasm3

    try:
        source = qiskit.qasm3.loads(text)
    except Exception as error:  # the parser and the importer have no common class of errors
        raise InputError(f"expected OpenQASM 3 that Qiskit can import, got {type(error).__name__}: {error}") from error
    kept = _OBSERVABLES.search(text)
    return from_named(source, _INPUT.findall(text), tuple(kept[1].split()) if kept else ())
