"""From probabilities to shots and from shots to expectation values, in NumPy and float64.

Wire 0 is the most significant bit of an index, and the columns of an array of bits are the wires in order: character i
of a Pauli string, axis i of a state, column i of the bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qunlearn.errors import InputError
from qunlearn.quantum.circuit import Gate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TURNS = {"I": (), "Z": (), "X": ("h",), "Y": ("sdg", "h")}


@dataclass(frozen=True)
class Basis:
    """What every wire is measured in, and which observables are read from that measurement.

    Attributes:
        letters: character i is what wire i is measured in: I (no observable needs it), X, Y or Z.
        observables: indices of the observables, in order.
    """

    letters: str
    observables: tuple[int, ...]


def measurement_bases(observables: Sequence[str]) -> tuple[Basis, ...]:
    """The bases in which Pauli strings ``"ZIX"`` are measured together: those that agree on every wire.

    Greedy and always the same: strings with most letters first, each into the first basis that it agrees with. Strings
    of I and Z alone make one basis.
    """
    letters: list[str] = []
    members: list[list[int]] = []
    for index in sorted(range(len(observables)), key=lambda k: observables[k].count("I")):
        word = observables[index]
        for place, found in enumerate(letters):
            if all("I" in pair or pair[0] == pair[1] for pair in zip(found, word, strict=True)):
                letters[place] = "".join(b if a == "I" else a for a, b in zip(found, word, strict=True))
                members[place].append(index)
                break
        else:
            letters.append(word)
            members.append([index])
    return tuple(Basis(found, tuple(sorted(mine))) for found, mine in zip(letters, members, strict=True))


def basis_gates(basis: Basis) -> tuple[Gate, ...]:
    """The fixed gates that bring a basis to Z, to stand before the measurement: H for X, then S^dagger and H for Y."""
    return tuple(Gate(name, (wire,)) for wire, letter in enumerate(basis.letters) for name in _TURNS[letter])


def parities(words: Sequence[str], qubits: int) -> Floats:
    """What each outcome contributes to each Pauli string, ``(2**qubits, words)``: +1 or -1.

    X, Y and Z all count as measured: the outcome is one of the basis to which the string belongs.

    Raises:
        InputError: for a string of another length.
    """
    masks = np.array([_mask(word, qubits) for word in words], dtype=np.int64)
    odd = np.bitwise_count(np.arange(2**qubits)[:, None] & masks) & 1
    signs: Floats = 1.0 - 2.0 * odd
    return signs


def sample_counts(probabilities: NDArray[Any], shots: int, generator: np.random.Generator) -> Ints:
    """How often every outcome is seen in `shots` shots, ``(rows, 2**n)``: one multinomial draw a row.

    Probabilities ``(rows, 2**n)`` are cleaned of rounding first: clipped at 0, and each row divided by its sum.

    Raises:
        InputError: for fewer than 1 shot, or rows that are no probabilities within 1e-3.
    """
    if shots < 1:
        raise InputError(f"expected at least 1 shot, got {shots}")
    clean = np.clip(probabilities.astype(np.float64), 0.0, None)
    sums = clean.sum(-1, keepdims=True)
    if probabilities.ndim != 2 or not np.all(np.abs(sums - 1) < 1e-3):
        raise InputError(
            f"expected probabilities of shape (rows, outcomes) whose rows add up to 1, got {probabilities.shape} with "
            f"sums from {sums.min(initial=np.inf):.4g} to {sums.max(initial=-np.inf):.4g}"
        )
    return generator.multinomial(shots, clean / sums).astype(np.int64, copy=False)


def values_of_counts(counts: NDArray[Any], words: Sequence[str]) -> Floats:
    """Means of Pauli strings, ``(rows, words)``, from counts ``(rows, 2**n)`` of the basis to which they belong.

    Raises:
        InputError: if a row has no shots, or the strings another length.
    """
    total = counts.sum(-1, keepdims=True).astype(np.float64)
    if not total.all():
        raise InputError(f"expected at least one shot in every row, got none in row {int(np.argmin(total))}")
    means: Floats = counts.astype(np.float64) @ parities(words, counts.shape[-1].bit_length() - 1) / total
    return means


def values_of_outcomes(outcomes: Ints, counts: NDArray[Any], words: Sequence[str]) -> Floats:
    """Means of Pauli strings, ``(words,)``, from the outcomes that were seen, ``(seen,)``, and how often, ``(seen,)``.

    Of one row on any number of wires: nothing of size ``2**n`` is made. An outcome and a string are read in one order,
    the first character being the most significant bit.

    Raises:
        InputError: if there are no shots.
    """
    if not counts.sum():
        raise InputError("expected at least one shot, got none")
    masks = np.array([_mask(word, len(word)) for word in words], dtype=np.int64)
    odd = np.bitwise_count(outcomes[:, None] & masks) & 1
    means: Floats = counts.astype(np.float64) @ (1.0 - 2.0 * odd) / counts.sum()
    return means


def apply_readout(probabilities: NDArray[Any], readout: Sequence[tuple[float, float]]) -> Floats:
    """Probabilities ``(..., 2**n)`` of what is read, where each wire is misread independently of the others.

    Args:
        probabilities: of the true outcomes, ``(..., 2**n)``.
        readout: for each wire (P(read 1 | 0), P(read 0 | 1)); empty for a perfect readout.

    Raises:
        InputError: if there are errors for another number of wires.
    """
    read = probabilities.astype(np.float64)
    qubits = read.shape[-1].bit_length() - 1
    if readout and len(readout) != qubits:
        raise InputError(f"expected readout errors of {qubits} wires, got {len(readout)}")
    for wire, (up, down) in enumerate(readout):
        confusion = np.array([[1 - up, down], [up, 1 - down]])
        split = read.reshape(*read.shape[:-1], 2**wire, 2, 2 ** (qubits - 1 - wire))
        read = np.einsum("rs,...asb->...arb", confusion, split).reshape(read.shape)
    return read


def readout_mixture(words: Sequence[str], readout: Sequence[tuple[float, float]]) -> tuple[tuple[str, ...], Floats]:
    """What misread Pauli strings are in terms of true ones: strings, and a matrix ``(strings, words)``.

    ``values @ matrix`` are the means of what is read, if `values` ``(..., strings)`` are the true expectation values. A
    letter on a wire with the errors (up, down) is read as (1 - up - down) times itself, plus (down - up) times I.
    """
    mixtures = []
    for word in words:
        mixture = {"": 1.0}
        for wire, letter in enumerate(word):
            up, down = readout[wire] if readout and letter != "I" else (0.0, 0.0)
            grown = {found + letter: share * (1 - up - down) for found, share in mixture.items()}
            if up != down:
                grown |= {found + "I": share * (down - up) for found, share in mixture.items()}
            mixture = grown
        mixtures.append(mixture)
    strings = tuple(dict.fromkeys(found for mixture in mixtures for found in mixture))
    return strings, np.array([[mixture.get(found, 0.0) for mixture in mixtures] for found in strings])


def _mask(word: str, qubits: int) -> int:
    """The bits of an index that a Pauli string reads."""
    if len(word) != qubits:
        raise InputError(f"expected a Pauli string of {qubits} characters, got {word!r}")
    return int("".join("0" if letter == "I" else "1" for letter in word), 2)
