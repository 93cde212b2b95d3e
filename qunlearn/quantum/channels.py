"""The channel table: what every kind of noise does, once.

A channel takes its wires' state rho to sum_k K_k rho K_k^dagger. In the basis of Pauli strings it is a real matrix,
its Pauli transfer matrix T[i, j] = Tr(P_i channel(P_j)) / 2**wires, strings counted I, X, Y, Z a wire with the first
wire most significant. For every channel here T is diagonal but for one entry, which pulls Z towards |0>.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum.gates import PAULI, Matrix

Strengths = tuple[float, ...]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ChannelSpec:
    """One row of the channel table.

    Attributes:
        name: lower case, with hyphens.
        parameters: the names of its strengths, in order.
        optional: how many of the last parameters may be left out; they then are 0.
        widest: on how many wires it acts at most, 1 or 2; on two it is one channel of both together.
        summary: what it does, in one line.
        shrinks: from the strengths to (x, y, z, pull): <X>, <Y>, <Z> of one wire become x <X>, y <Y>, z <Z> + pull.
        operators: from the strengths to the Kraus operators on one wire, or on two.
    """

    name: str
    parameters: tuple[str, ...]
    summary: str
    shrinks: Callable[[Strengths], tuple[float, float, float, float]]
    operators: Callable[[Strengths, int], Sequence[Matrix]]
    optional: int = 0
    widest: int = 1

    def check(self, strengths: Strengths, wires: int = 1) -> None:
        """Refuse strengths out of range, or a wrong number of them or of wires, with an `InputError`."""
        most, least = len(self.parameters), len(self.parameters) - self.optional
        if not 1 <= wires <= self.widest:
            allowed = "1 wire" if self.widest == 1 else f"1 to {self.widest} wires"
            raise InputError(
                f"{self.name}: expected {allowed}, got {wires}; one channel for each wire is what you want"
            )
        if not least <= len(strengths) <= most:
            raise InputError(f"{self.name}: expected the strengths {', '.join(self.parameters)}, got {list(strengths)}")
        for name, value in zip(self.parameters, strengths, strict=False):
            _check_strength(f"{self.name}: expected {name}", name, value)
        if self.name == "thermal-relaxation" and strengths[1] > 2 * strengths[0]:
            raise InputError(
                f"{self.name}: expected t2 of at most 2 t1, which physics allows, got t1={strengths[0]}, "
                f"t2={strengths[1]}"
            )

    def full(self, strengths: Strengths) -> Strengths:
        """The strengths with 0 for what was left out."""
        return (*strengths, *[0.0] * (len(self.parameters) - len(strengths)))

    def transfer(self, strengths: Strengths, wires: int = 1) -> Floats:
        """The Pauli transfer matrix ``(4**wires, 4**wires)``, read-only."""
        return _transfer(self.name, tuple(strengths), wires)

    def kraus(self, strengths: Strengths, wires: int = 1) -> Matrix:
        """Kraus operators ``(k, 2**wires, 2**wires)``, read-only, without those that are zero."""
        return _kraus(self.name, tuple(strengths), wires)


def _check_strength(expected: str, name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{expected} to be a finite number, got {value!r}")
    if name in ("t1", "t2"):
        if value <= 0:
            raise InputError(f"{expected} above 0, got {value}")
    elif name == "time":
        if value < 0:
            raise InputError(f"{expected} of at least 0, in the unit of t1 and t2, got {value}")
    elif not 0 <= value <= 1:
        raise InputError(f"{expected} from 0 to 1, got {value}")


@lru_cache(maxsize=1024)
def _transfer(name: str, strengths: Strengths, wires: int) -> Floats:
    spec = channel(name)
    spec.check(strengths, wires)
    x, y, z, pull = spec.shrinks(spec.full(strengths))
    # On two wires a channel of the table shrinks every string but the identity alike.
    matrix = np.diag([1.0, x, y, z] if wires == 1 else [1.0] + [x] * (4**wires - 1))
    matrix[-1, 0] = pull
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=1024)
def _kraus(name: str, strengths: Strengths, wires: int) -> Matrix:
    spec = channel(name)
    spec.check(strengths, wires)
    operators = spec.operators(spec.full(strengths), wires)
    kept = np.stack([k for k in operators if np.abs(k).max() > 0]).astype(np.complex128)
    kept.setflags(write=False)
    return kept


def _mixture(wires: int, **shares: float) -> list[Matrix]:
    """Kraus operators of a random Pauli string: the square root of each share times its string."""
    made = []
    for word, share in shares.items():
        matrix: Matrix = np.eye(1, dtype=np.complex128)
        for letter in word:
            matrix = np.kron(matrix, PAULI[letter]).astype(np.complex128)
        made.append(math.sqrt(share) * matrix)
    return made


def _depolarized(strengths: Strengths, wires: int) -> list[Matrix]:
    words = ["".join(word) for word in product("IXYZ", repeat=wires)]
    share = strengths[0] / 4**wires
    return _mixture(wires, **{word: share + (1 - strengths[0]) * (word == "I" * wires) for word in words})


def _flip(name: str, letter: str, summary: str) -> ChannelSpec:
    def shrinks(strengths: Strengths) -> tuple[float, float, float, float]:
        x, y, z = (1.0 if letter == other else 1 - 2 * strengths[0] for other in "XYZ")
        return x, y, z, 0.0

    def operators(strengths: Strengths, wires: int) -> list[Matrix]:
        return _mixture(wires, **{"I": 1 - strengths[0], letter: strengths[0]})

    return ChannelSpec(name, ("p",), summary, shrinks, operators)


def _damped(stay: float, gamma: float, excited: float = 0.0) -> list[Matrix]:
    """Amplitude damping by gamma = 1 - stay, towards a state with `excited` of |1>."""
    keep, fall = math.sqrt(stay), math.sqrt(gamma)
    down = [np.diag([1, keep]), np.array([[0, fall], [0, 0]])]
    up = [np.diag([keep, 1]), np.array([[0, 0], [fall, 0]])]
    cold, warm = math.sqrt(1 - excited), math.sqrt(excited)
    return [(cold * k).astype(np.complex128) for k in down] + [(warm * k).astype(np.complex128) for k in up]


def _dephased(stay: float, gamma: float) -> list[Matrix]:
    """Phase damping by gamma = 1 - stay."""
    return [np.diag([1, math.sqrt(stay)]).astype(complex), np.diag([0, math.sqrt(gamma)]).astype(complex)]


def _relaxation(strengths: Strengths) -> tuple[float, float, float, float]:
    t1, t2, time, excited = strengths
    coherence = math.exp(-time / t2)
    return coherence, coherence, math.exp(-time / t1), -math.expm1(-time / t1) * (1 - 2 * excited)


def _relaxed(strengths: Strengths) -> list[Matrix]:
    """Damping, after the dephasing that the coherence still lacks: exp(-time/t2) = sqrt(1 - gamma) exp(-time/2 t1)."""
    t1, t2, time, excited = strengths
    falls, blurs = -time / t1, min(0.0, -time * (2 / t2 - 1 / t1))
    damped = _damped(math.exp(falls), -math.expm1(falls), excited)
    dephased = _dephased(math.exp(blurs), -math.expm1(blurs))
    return [(a @ b).astype(np.complex128) for a, b in product(damped, dephased)]


_TABLE = (
    ChannelSpec(
        "depolarizing", ("p",), "with probability p the wires' state is lost: rho becomes (1-p) rho + p I/2**wires",
        lambda s: (1 - s[0], 1 - s[0], 1 - s[0], 0.0), _depolarized, widest=2,
    ),
    ChannelSpec(
        "amplitude-damping", ("gamma",), "|1> falls to |0> with probability gamma",
        lambda s: (math.sqrt(1 - s[0]), math.sqrt(1 - s[0]), 1 - s[0], s[0]), lambda s, _: _damped(1 - s[0], s[0]),
    ),
    ChannelSpec(
        "phase-damping", ("gamma",), "coherences shrink by sqrt(1 - gamma)",
        lambda s: (math.sqrt(1 - s[0]), math.sqrt(1 - s[0]), 1.0, 0.0), lambda s, _: _dephased(1 - s[0], s[0]),
    ),
    _flip("bit-flip", "X", "X with probability p"),
    _flip("phase-flip", "Z", "Z with probability p"),
    _flip("bit-phase-flip", "Y", "Y with probability p"),
    ChannelSpec(
        "thermal-relaxation", ("t1", "t2", "time", "excited"),
        "for a time, relaxation (t1) towards a share `excited` of |1> and loss of coherence (t2 <= 2 t1), in one unit",
        _relaxation, lambda s, _: _relaxed(s), optional=1,
    ),
)  # fmt: skip
CHANNELS: dict[str, ChannelSpec] = {spec.name: spec for spec in _TABLE}


def channel(name: str) -> ChannelSpec:
    """The row of the channel table for a name; an unknown name raises, and the error names the nearest."""
    try:
        return CHANNELS[name]
    except (KeyError, TypeError):
        raise UnknownNameError("channel", name, CHANNELS) from None
