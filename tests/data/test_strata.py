"""Stratified draws, against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from qunlearn.data.strata import shuffled_strata


@given(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=6),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_shuffled_strata_are_those_of_scikit_learn(counts: list[int], fraction: float, seed: int) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)) * 2, counts))
    positions = np.arange(len(y))
    try:
        expected = train_test_split(positions, test_size=fraction, stratify=y, random_state=seed)
    except ValueError:
        with pytest.raises(ValueError, match=r"for \d classes"):
            shuffled_strata(y, fraction, seed)
        return
    for ours, theirs in zip(shuffled_strata(y, fraction, seed), expected, strict=True):
        assert np.array_equal(ours, theirs)


def test_a_class_of_one_sample_is_named() -> None:
    with pytest.raises(ValueError, match=r"one sample only in class \[3\]"):
        shuffled_strata(np.array([0, 0, 0, 3, 1, 1]), 0.5, 0)
