"""The branches of a channel: what may strike, and how it is drawn without looking at the state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from qunlearn.errors import UnsupportedError
from qunlearn.quantum.channels import channel as channel_spec
from qunlearn.quantum.circuit import Channel
from qunlearn.quantum.gates import PAULI, Matrix

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_TINY = 1e-13


@dataclass(frozen=True, eq=False)
class Branches:
    """The branches of a channel; in the first nothing happens, or as little as may be.

    With chi the channel in the basis of Pauli strings, rho -> sum_ab chi_ab P_a rho P_b, and R its positive square
    root, branch b is drawn with probability chi_bb and multiplies the state by K_b / sqrt(chi_bb), where
    K_b = sum_a R_ab P_a. These are Kraus operators, since R R^dagger = chi.

    A run's weight, the squared norm of its state, has mean 1, and its spread is what a linear unravelling pays for
    not looking at the state. Here chi_bb = Tr(K_b^dagger K_b) / d is the probability of branch b in the maximally mixed
    state, so that the weight is exactly 1 there: close to where the wires of an entangled state are. A Pauli channel's
    R is diagonal: its branches are the Pauli strings, with their probabilities, and all weights are exactly 1. For
    amplitude damping the weight's variance, averaged over all pure states, is about gamma / 6 a channel, the least of
    all Kraus operators drawn with such probabilities.

    A matrix that is no Pauli matrix is one times a tilt, sqrt(2) diag(cos(pi/4 + d), sin(pi/4 + d)).

    Attributes:
        shares: probabilities ``(branches,)``.
        words: the Pauli string of each branch.
        tilts: d of each branch, ``(branches,)`` radians from -pi/4 to pi/4; all zero for a Pauli channel.
    """

    shares: Floats
    words: tuple[str, ...]
    tilts: Floats


def branches_of(channel: Channel) -> Branches:
    """The branches of a channel in a circuit.

    Raises:
        UnsupportedError: for a channel on several wires that is no Pauli channel.
    """
    return _branches(channel.name, channel.strengths, len(channel.wires))


@lru_cache(maxsize=1024)
def _branches(name: str, strengths: tuple[float, ...], wires: int) -> Branches:
    words = tuple("".join(word) for word in product("IXYZ", repeat=wires))
    strings = np.stack([pauli_matrix(word) for word in words])
    parts = np.einsum("kij,pij->kp", channel_spec(name).kraus(strengths, wires), strings.conj()) / 2**wires
    chi = np.einsum("kp,kq->pq", parts, parts.conj())
    if np.abs(chi - np.diag(np.diag(chi))).max() < _TINY:
        return _without_idle(np.diag(chi).real, words, np.zeros(len(words)))
    if wires > 1:
        raise UnsupportedError(f"expected noise on one wire, or Pauli noise, for trajectories, got {name} on {wires}")
    values, vectors = np.linalg.eigh(chi)
    values = np.where(values > _TINY, values, 0.0)  # the root of a rounding error is none
    root = (vectors * np.sqrt(values)) @ vectors.conj().T
    shares: dict[tuple[str, float], float] = {}
    for column in root.T:
        share = float(np.square(np.abs(column)).sum())
        if share > _TINY:
            matrix = np.einsum("a,aij->ij", column, strings) / math.sqrt(share)
            word, tilt = _as_tilt(name, matrix.astype(np.complex128))
            same = next((key for key in shares if key[0] == word and abs(key[1] - tilt) < _TINY), (word, tilt))
            shares[same] = shares.get(same, 0.0) + share
    return _without_idle(
        np.array(list(shares.values())), tuple(word for word, _ in shares), np.array([tilt for _, tilt in shares])
    )


def _as_tilt(name: str, matrix: Matrix) -> tuple[str, float]:
    """The Pauli matrix and the tilt whose product, up to a phase, is a matrix ``(2, 2)``."""
    for word, pauli in PAULI.items():
        rest = pauli @ matrix
        rest = rest / (np.trace(rest) / abs(np.trace(rest)) if abs(np.trace(rest)) > _TINY else 1)
        first, second = np.diag(rest).real
        if min(first, second) > -_TINY and np.abs(rest - np.diag([first, second])).max() < 1e-9:
            return word, math.atan2(max(second, 0.0), max(first, 0.0)) - math.pi / 4
    raise UnsupportedError(f"expected branches that are Pauli matrices times real diagonal ones, got those of {name}")


def _without_idle(shares: Floats, words: tuple[str, ...], tilts: Floats) -> Branches:
    """Without branches that are never drawn, but for the first."""
    kept = [k for k, share in enumerate(shares) if share > _TINY or k == 0]
    clean = np.clip(shares[kept], 0.0, None)
    clean /= clean.sum()
    return Branches(clean, tuple(words[k] for k in kept), tilts[kept])


def pauli_matrix(word: str) -> Matrix:
    """The matrix of a Pauli string, the first letter on the most significant wire."""
    matrix: Matrix = np.eye(1, dtype=np.complex128)
    for letter in word:
        matrix = np.kron(matrix, PAULI[letter]).astype(np.complex128)
    return matrix


@dataclass(frozen=True, eq=False)
class Lottery:
    """Draws a branch for every channel of a circuit.

    The runs in which every channel takes its first branch are one and the same: that run is done once and counts with
    its probability `quiet`, and the others are drawn on condition that they are not it. Under weak noise nearly all
    of the spread is gone with it.

    Attributes:
        shares: for each channel the probabilities of its branches.
    """

    shares: tuple[Floats, ...]

    @property
    def quiet(self) -> float:
        """The probability that every channel takes its first branch."""
        return float(np.prod([share[0] for share in self.shares]))

    def draw(self, rows: int, generator: np.random.Generator) -> Ints:
        """Branches ``(rows, channels)``, at least one in each row not the first."""
        first = np.array([share[0] for share in self.shares])
        drawn = generator.random((rows, len(first)))
        # The place of the first jump: P(m) = first_0 ... first_(m-1) (1 - first_m), over the probability of any.
        stays = np.concatenate([[1.0], np.cumprod(first)[:-1]])
        edges = np.cumsum(stays * (1 - first))
        place = np.searchsorted(edges / edges[-1], generator.random(rows), side="right")[:, None]
        number = np.arange(len(first))
        jumping = first + (1 - first) * drawn
        drawn = np.where(number < place, -1.0, np.where(number == place, jumping, drawn))
        ends = [np.cumsum(share)[:-1] for share in self.shares]
        return np.stack([np.searchsorted(end, drawn[:, k], side="right") for k, end in enumerate(ends)], -1)
