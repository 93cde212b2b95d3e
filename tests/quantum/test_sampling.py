"""Shots and what is read from them, against PennyLane and closed forms."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qunlearn.errors import InputError
from qunlearn.quantum.circuit import Angle, Circuit, Gate
from qunlearn.quantum.engines import state
from qunlearn.quantum.sampling import (
    Basis,
    apply_readout,
    basis_gates,
    measurement_bases,
    parities,
    readout_mixture,
    sample_counts,
    values_of_counts,
    values_of_outcomes,
)
from tests.quantum.cases import exact, random_circuit

_EMPTY = torch.zeros(0, dtype=torch.float64)


def probabilities(circuit: Circuit, basis: Basis) -> NDArray[np.float64]:
    """The probabilities ``(1, 2**qubits)`` of a circuit without inputs, measured in a basis."""
    turned = replace(circuit, gates=circuit.gates + basis_gates(basis))
    found: NDArray[np.float64] = state(turned, _EMPTY, _EMPTY).abs().square().reshape(1, -1).numpy()
    return found


# P(1) is 0.1, 0.3 and 0.45: every wire another value, every pair of wires another product.
_WIRES = (0.1, 0.3, 0.45)
_ASYMMETRIC = Circuit(
    3,
    tuple(Gate("ry", (wire,), Angle(offset=2 * float(np.arcsin(np.sqrt(p))))) for wire, p in enumerate(_WIRES)),
    ("ZII", "IZI", "IIZ", "ZZI", "ZIZ", "IZZ", "ZZZ"),
    0,
    0,
)


def test_three_wires_come_out_where_they_went_in() -> None:
    words, single = _ASYMMETRIC.observables, [1 - 2 * p for p in _WIRES]
    truth = [np.prod([z for z, letter in zip(single, word, strict=True) if letter == "Z"]) for word in words]
    (basis,) = measurement_bases(words)
    counts = sample_counts(probabilities(_ASYMMETRIC, basis), 200_000, np.random.default_rng(0))
    bits = ((np.repeat(np.arange(8), counts[0])[:, None] >> np.array([2, 1, 0])) & 1).astype(bool)[None]
    bound = 4 / np.sqrt(200_000)
    assert np.abs(values_of_counts(counts, words)[0] - truth).max() < bound
    assert np.abs(bits[0].mean(0) - _WIRES).max() < bound
    # Under any other order of the wires the same numbers would be far off: the test can tell.
    for order in list(permutations(range(3)))[1:]:
        assert np.abs(np.array(single)[list(order)] - single).max() > 20 * bound


def test_the_index_of_an_outcome_has_wire_0_most_significant() -> None:
    flipped = Circuit(3, (Gate("x", (0,)), Gate("cx", (0, 1))), ("ZII", "IZI", "IIZ"), 0, 0)
    found = probabilities(flipped, measurement_bases(flipped.observables)[0])
    np.testing.assert_allclose(found[0], np.eye(8)[0b110], atol=1e-12)
    np.testing.assert_array_equal(parities(flipped.observables, 3)[0b110], [-1, -1, 1])
    read = apply_readout(np.eye(8)[0], [(0.1, 0.0), (0.2, 0.0), (0.3, 0.0)])
    np.testing.assert_allclose(read[[0b100, 0b010, 0b001]], [0.1 * 0.8 * 0.7, 0.9 * 0.2 * 0.7, 0.9 * 0.8 * 0.3])


@pytest.mark.parametrize("seed", range(6))
def test_all_letters_are_what_pennylane_says(seed: int) -> None:
    drawn = random_circuit(seed)
    gates = tuple(replace(g, angle=g.angle and Angle(offset=g.angle.offset)) for g in drawn.gates)
    words = tuple("".join(np.random.default_rng([seed, k]).choice(list("IXYZ"), drawn.qubits)) for k in range(8))
    circuit = Circuit(drawn.qubits, gates, words, 0, 0)
    node = qml.QNode(circuit.to_pennylane(), qml.device("default.qubit", wires=circuit.qubits), interface="torch")
    truth = np.array([float(value) for value in node(_EMPTY, _EMPTY)])
    found = np.full(len(words), np.nan)
    for basis in measurement_bases(words):
        mine = [words[k] for k in basis.observables]
        found[list(basis.observables)] = values_of_counts(probabilities(circuit, basis), mine)[0]
    np.testing.assert_allclose(found, truth, atol=1e-10)
    np.testing.assert_allclose(exact(circuit, _EMPTY, _EMPTY).numpy(), truth, atol=1e-10)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.text("IXYZ", min_size=n, max_size=n), min_size=1, max_size=12)))
def test_every_observable_is_in_one_basis_that_measures_it(words: list[str]) -> None:
    bases = measurement_bases(words)
    assert sorted(k for basis in bases for k in basis.observables) == list(range(len(words)))
    for basis in bases:
        for k in basis.observables:
            assert all(letter in ("I", measured) for letter, measured in zip(words[k], basis.letters, strict=True))


@pytest.mark.parametrize(
    ("words", "letters"),
    [
        (("ZII", "IZI", "IIZ", "ZZZ"), ["ZZZ"]),
        (("ZII", "IIZ"), ["ZIZ"]),
        (("III",), ["III"]),
        (("ZI", "IX", "XX", "ZZ"), ["XX", "ZZ"]),
        (("XYZ", "XII", "IXI", "IIZ"), ["XYZ", "IXI"]),
    ],
)
def test_few_bases_are_found(words: tuple[str, ...], letters: list[str]) -> None:
    assert [basis.letters for basis in measurement_bases(words)] == letters


def test_counts_vary_as_a_multinomial() -> None:
    p, shots, draws = np.array([0.05, 0.6, 0.0, 0.35]), 50, 40_000
    counts = sample_counts(np.tile(p, (draws, 1)), shots, np.random.default_rng(1))
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts.sum(1), shots)
    # Cov = shots (diag p - p p^T). An entry's standard error is below shots / 2 * sqrt(2 / draws).
    covariance = shots * (np.diag(p) - np.outer(p, p))
    assert np.abs(np.cov(counts.T) - covariance).max() < 4 * shots / 2 * np.sqrt(2 / draws)
    assert np.abs(counts.mean(0) - shots * p).max() < 4 * np.sqrt(shots / 4 / draws)
    values = values_of_counts(counts, ["ZI", "ZZ"])
    means = p @ parities(["ZI", "ZZ"], 2)
    np.testing.assert_allclose(values.var(0), (1 - means**2) / shots, rtol=4 * np.sqrt(2 / draws))


def test_rounding_and_single_precision_are_no_obstacle() -> None:
    p = np.array([[0.7, 0.3 + 3e-7, -2e-8, 0.0]], dtype=np.float32)
    counts = sample_counts(p, 10_000, np.random.default_rng(2))
    assert counts.sum() == 10_000
    assert counts[0, 2] == counts[0, 3] == 0


def test_draws_repeat_from_a_seed_and_never_within_a_generator() -> None:
    p, generator = np.full((3, 8), 1 / 8), np.random.default_rng(3)
    first, second = sample_counts(p, 100, generator), sample_counts(p, 100, generator)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, sample_counts(p, 100, np.random.default_rng(3)))


def test_readout_errors_are_a_product_of_confusion_matrices() -> None:
    generator, readout = np.random.default_rng(4), [(0.02, 0.1), (0.3, 0.05), (0.0, 0.2)]
    p = generator.dirichlet(np.ones(8), size=2)
    first, second, third = (np.array([[1 - up, down], [up, 1 - down]]) for up, down in readout)
    whole = np.kron(np.kron(first, second), third)
    np.testing.assert_allclose(apply_readout(p, readout), p @ whole.T, atol=1e-15)
    np.testing.assert_array_equal(apply_readout(p, ()), p)


def test_misread_strings_are_mixtures_of_true_ones() -> None:
    words, p = ["ZIZ", "IZI", "ZZZ", "III"], np.random.default_rng(6).dirichlet(np.ones(8), size=2)
    for readout in [(0.02, 0.1), (0.3, 0.05), (0.0, 0.2)], [(0.1, 0.1), (0.0, 0.0), (0.2, 0.2)], []:
        strings, matrix = readout_mixture(words, readout)
        read = values_of_counts(apply_readout(p, readout), words)
        np.testing.assert_allclose(values_of_counts(p, strings) @ matrix, read, atol=1e-14)
    assert readout_mixture(["XY"], [(0.1, 0.1), (0.0, 0.2)])[0] == ("XY", "XI")


def test_counts_and_outcomes_are_parities_of_the_bits() -> None:
    outcomes = np.random.default_rng(5).integers(0, 16, size=(3, 40))
    bits = (outcomes[..., None] >> np.array([3, 2, 1, 0])) & 1
    counts = np.stack([np.bincount(row, minlength=16) for row in outcomes])
    words = ["".join(letters) for letters in product("IZ", repeat=4)]
    wanted = [[np.mean((-1) ** row[:, [letter == "Z" for letter in word]].sum(1)) for word in words] for row in bits]
    np.testing.assert_allclose(values_of_counts(counts, words), wanted, atol=1e-15)
    for row, found in zip(counts, wanted, strict=True):
        seen = np.flatnonzero(row)
        np.testing.assert_allclose(values_of_outcomes(seen, row[seen], words), found, atol=1e-15)


def test_wrong_input_is_refused_in_words() -> None:
    p = np.full((1, 4), 0.25)
    with pytest.raises(InputError, match="at least 1 shot, got 0"):
        sample_counts(p, 0, np.random.default_rng(0))
    with pytest.raises(InputError, match="rows add up to 1"):
        sample_counts(2 * p, 5, np.random.default_rng(0))
    with pytest.raises(InputError, match="none in row 1"):
        values_of_counts(np.array([[1, 2], [0, 0]]), ["Z"])
    with pytest.raises(InputError, match="at least one shot"):
        values_of_outcomes(np.zeros(0, dtype=np.int64), np.zeros(0), ["Z"])
    with pytest.raises(InputError, match="2 characters, got 'ZII'"):
        values_of_counts(np.ones((1, 4)), ["ZII"])
    with pytest.raises(InputError, match="of 2 wires, got 1"):
        apply_readout(p, [(0.1, 0.1)])
