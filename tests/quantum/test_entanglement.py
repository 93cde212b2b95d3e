"""Entanglement patterns, written out by hand."""

from __future__ import annotations

import pytest

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum.entanglement import PATTERNS, pairs

BY_HAND = {
    ("none", 4): (),
    ("linear", 4): ((0, 1), (1, 2), (2, 3)),
    ("reverse-linear", 4): ((2, 3), (1, 2), (0, 1)),
    ("ring", 4): ((0, 1), (1, 2), (2, 3), (3, 0)),
    ("ring", 3): ((0, 1), (1, 2), (2, 0)),
    ("all", 4): ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)),
    ("star", 4): ((0, 1), (0, 2), (0, 3)),
    ("pairs", 4): ((0, 1), (2, 3)),
    ("pairs", 5): ((0, 1), (2, 3)),
}


@pytest.mark.parametrize(("pattern", "qubits"), BY_HAND)
def test_the_pairs_are_those_written_by_hand(pattern: str, qubits: int) -> None:
    assert pairs(pattern, qubits) == BY_HAND[pattern, qubits]


def test_every_pattern_is_written_by_hand() -> None:
    assert set(PATTERNS) == {pattern for pattern, _ in BY_HAND}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_two_wires_have_one_pair_and_one_wire_has_none(pattern: str) -> None:
    assert pairs(pattern, 2) == (() if pattern == "none" else ((0, 1),))
    assert pairs(pattern, 1) == ()


def test_an_unknown_pattern_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'rign'; did you mean 'ring'"):
        pairs("rign", 3)


def test_no_wires_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1 qubit, got 0"):
        pairs("ring", 0)
