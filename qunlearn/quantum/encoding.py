"""Encodings: how the features of a sample enter a circuit.

Angles are radians: feature k turns wire k; wires beyond the last feature are not turned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum.circuit import Angle, Factor, Gate
from qunlearn.quantum.entanglement import PATTERNS, pairs

NAMES = ("none", "rx", "ry", "rz", "zz", "iqp", "amplitude")
_ROTATIONS = ("rx", "ry", "rz")


@dataclass(frozen=True)
class Encoding:
    """What an encoding is called and how it is set.

    Attributes:
        name: ``none``; rotations joined by hyphens, such as ``rx-ry-rz`` (each wire in this order);
            ``zz`` (equal, up to a global phase, to Qiskit's ``zz_feature_map``); ``iqp`` (equal to PennyLane's
            ``IQPEmbedding``); ``amplitude`` (the features, zero-padded and normalised, are the amplitudes).
        scale: factor of every angle; by default 1, and 2 for ``zz`` (Qiskit's ``alpha``).
        repeats: how often the whole encoding is applied in a row, at least 1.
        entanglement: the pairs that ``zz`` and ``iqp`` join.
        reupload: whether the encoding comes before every layer, not only before the first.
    """

    name: str = "ry"
    scale: float | None = None
    repeats: int = 1
    entanglement: str = "all"
    reupload: bool = False

    def __post_init__(self) -> None:
        if self.name not in NAMES and not self.rotations:
            raise UnknownNameError("encoding", self.name, (*NAMES, "rx-ry-rz", "ry-rz"))
        if self.repeats < 1:
            raise InputError(f"expected at least 1 repeat of the encoding, got {self.repeats}")
        if self.entanglement not in PATTERNS:
            raise UnknownNameError("entanglement pattern", self.entanglement, PATTERNS)
        if self.reupload and self.name == "amplitude":
            raise InputError(
                "expected amplitude encoding without reupload: it sets the initial state, which exists only once; "
                "use an angle encoding to re-upload"
            )
        if self.reupload and self.name == "none":
            raise InputError("expected an encoding to re-upload, got 'none'; name one or leave reupload off")

    @classmethod
    def read(cls, given: str | Mapping[str, object]) -> Encoding:
        """The encoding of a name, or of a table such as ``{name = "zz", repeats = 2}``."""
        table = {"name": given} if isinstance(given, str) else dict(given)
        kinds: dict[str, type | tuple[type, ...]] = {
            "name": str, "scale": (int, float), "repeats": int, "entanglement": str, "reupload": bool,
        }  # fmt: skip
        for key, value in table.items():
            if key not in kinds:
                raise UnknownNameError("key of an encoding", key, kinds)
            wrong_bool = isinstance(value, bool) and key != "reupload"
            if wrong_bool or not isinstance(value, kinds[key]):
                raise InputError(f"expected another type for the encoding's {key}, got {value!r}")
        return cls(**table)

    @property
    def rotations(self) -> tuple[str, ...]:
        """The rotation gates of an angle encoding, or ()."""
        parts = tuple(self.name.split("-"))
        return parts if all(part in _ROTATIONS for part in parts) else ()

    @property
    def label(self) -> str:
        """The name, followed by what was set away from its default (reupload apart)."""
        changed = [
            f"{f.name}={getattr(self, f.name)}"
            for f in fields(self)
            if f.name not in ("name", "reupload") and getattr(self, f.name) != f.default
        ]
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    def width(self, qubits: int, features: int | None) -> int:
        """How many features a circuit on `qubits` wires takes; `features` asks for fewer than the most."""
        most: int = {"none": 0, "amplitude": 2**qubits}.get(self.name, qubits)
        least = min(1, most)
        if features is None:
            return most
        if not least <= features <= most:
            raise InputError(
                f"expected {least} to {most} features for {self.name!r} encoding on {qubits} qubits, got {features}"
            )
        return features

    def gates(self, features: int, layer: int | None = None) -> tuple[Gate, ...]:
        """The gates of one upload of `features` features; none for ``none`` and ``amplitude``."""
        if self.rotations:
            once = _rotation_gates(self.rotations, features, 1.0 if self.scale is None else self.scale, layer)
        elif self.name == "zz":
            once = _zz_gates(features, 2.0 if self.scale is None else self.scale, self.entanglement, layer)
        elif self.name == "iqp":
            once = _iqp_gates(features, 1.0 if self.scale is None else self.scale, self.entanglement, layer)
        else:
            return ()
        return once * self.repeats


def _rotation_gates(names: tuple[str, ...], features: int, scale: float, layer: int | None) -> tuple[Gate, ...]:
    angles = [Angle(scale, (Factor(k),)) for k in range(features)]
    return tuple(Gate(name, (k,), angle, layer) for k, angle in enumerate(angles) for name in names)


def _zz_gates(features: int, scale: float, pattern: str, layer: int | None) -> tuple[Gate, ...]:
    """H, P(scale x_i), then exp(i parity * scale (pi - x_i)(pi - x_j)) on every pair.

    Source: Havlicek et al. 2019 (arXiv 1804.11326), as in Qiskit's ``zz_feature_map``. Its CX P CX is
    written as one RZZ, which differs by a global phase only.
    """
    wires = range(features)
    hadamards = tuple(Gate("h", (k,), None, layer) for k in wires)
    phases = tuple(Gate("p", (k,), Angle(scale, (Factor(k),)), layer) for k in wires)
    return (
        hadamards
        + phases
        + tuple(
            Gate("rzz", (i, j), Angle(scale, (Factor(i, -1.0, math.pi), Factor(j, -1.0, math.pi))), layer)
            for i, j in pairs(pattern, features)
        )
    )


def _iqp_gates(features: int, scale: float, pattern: str, layer: int | None) -> tuple[Gate, ...]:
    """H, RZ(scale x_i), then RZZ(scale x_i x_j) on every pair, as in PennyLane's ``IQPEmbedding``."""
    wires = range(features)
    hadamards = tuple(Gate("h", (k,), None, layer) for k in wires)
    turns = tuple(Gate("rz", (k,), Angle(scale, (Factor(k),)), layer) for k in wires)
    return (
        hadamards
        + turns
        + tuple(Gate("rzz", (i, j), Angle(scale, (Factor(i), Factor(j))), layer) for i, j in pairs(pattern, features))
    )
