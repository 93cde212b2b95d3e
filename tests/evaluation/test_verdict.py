"""The verdict on hand-made figures: each of the four, the edges, and what it cannot judge."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from qunlearn.evaluation import VERDICTS, usual_range, verdict

RETRAINED = [0.10, 0.12, 0.14]  # mean 0.12, s 0.02: range 0.12 -+ 4.3027 * 0.02 * sqrt(4 / 3) = 0.0206 to 0.2194
OUTPUTS = [0.01, 0.02, 0.03]  # upper end 0.02 + 4.3027 * 0.01 * sqrt(4 / 3) = 0.0697
LOW, HIGH, FAR = 0.02063, 0.21937, 0.06968


def test_the_range_is_students_for_one_further_value() -> None:
    low, high = usual_range(RETRAINED)
    assert (low, high) == pytest.approx((LOW, HIGH), abs=1e-5)
    half = t.ppf(0.975, 4) * np.std([1, 2, 3, 4, 7], ddof=1) * math.sqrt(1.2)
    assert usual_range([1, 2, 3, 4, 7]) == pytest.approx((3.4 - half, 3.4 + half))
    assert usual_range([1, 2, 3, 4, 7], 0.5)[1] < 3.4 + half
    assert all(math.isnan(end) for values in ([1, 2], [], [1, 2, math.nan]) for end in usual_range(values))


def test_the_range_holds_a_further_model_in_95_of_100() -> None:
    drawn = np.random.default_rng(0).normal(size=(4000, 6))
    held = [low <= row[5] <= high for row in drawn for low, high in [usual_range(row[:5])]]
    assert np.mean(held) == pytest.approx(0.95, abs=0.011)  # three standard errors


@pytest.mark.parametrize(
    ("unlearned", "original", "output", "expected"),
    [
        (0.15, 0.60, 0.02, "erases"),
        (0.15, 0.60, 0.50, "erases"),  # by its states alone
        (0.15, -0.30, 0.02, "erases"),  # the original may lie below as well
        (0.58, 0.60, 0.02, "suppresses"),
        (0.58, 0.60, 0.00, "suppresses"),  # nearer than they are to each other is no deviation
        (-0.30, 0.60, 0.02, "suppresses"),  # less than any retrained model holds is not like retraining either
        (0.58, 0.60, 0.50, "neither"),
        (0.60, 0.60, 0.50, "neither"),
        (0.15, 0.15, 0.02, "undecided"),
        (0.58, 0.15, 0.02, "undecided"),  # there was nothing to be suppressed
        (0.58, 0.15, 0.50, "undecided"),
    ],
)
def test_the_four_verdicts(unlearned: float, original: float, output: float, expected: str) -> None:
    assert verdict(unlearned, original, RETRAINED, output, OUTPUTS) == expected


@pytest.mark.parametrize(
    ("unlearned", "original", "output", "expected"),
    [
        (HIGH - 1e-4, 0.6, 0.5, "erases"),
        (HIGH + 1e-4, 0.6, 0.5, "neither"),
        (LOW + 1e-4, 0.6, 0.5, "erases"),
        (LOW - 1e-4, 0.6, 0.5, "neither"),
        (0.5, HIGH - 1e-4, 0.5, "undecided"),
        (0.5, LOW + 1e-4, 0.5, "undecided"),
        (0.5, LOW - 1e-4, 0.5, "neither"),
        (0.5, 0.6, FAR - 1e-4, "suppresses"),
        (0.5, 0.6, FAR + 1e-4, "neither"),
    ],
)
def test_the_ends_of_the_ranges(unlearned: float, original: float, output: float, expected: str) -> None:
    assert verdict(unlearned, original, RETRAINED, output, OUTPUTS) == expected


def test_equal_retrained_models_have_a_range_of_one_point() -> None:
    same, nothing = [0.3] * 4, [0.0] * 4
    assert verdict(0.3 + 1e-13, 0.5, same, 0.0, nothing) == "erases"
    assert verdict(0.3 + 1e-6, 0.5, same, 0.0, nothing) == "suppresses"
    assert verdict(0.3 + 1e-6, 0.5, same, 1e-6, nothing) == "neither"


def test_nothing_is_said_of_what_is_not_known() -> None:
    given = (0.15, 0.60, RETRAINED, 0.02, OUTPUTS)
    assert verdict(*given) == "erases"
    for place in (0, 1, 3):
        assert verdict(*(math.nan if number == place else one for number, one in enumerate(given))) == ""  # type: ignore[arg-type]
    assert verdict(0.15, 0.60, RETRAINED[:2], 0.02, OUTPUTS) == ""
    assert verdict(0.15, 0.60, RETRAINED, 0.02, OUTPUTS[:2]) == ""
    assert verdict(0.15, 0.60, [*RETRAINED, math.nan], 0.02, OUTPUTS) == ""


@given(
    st.floats(-1, 1), st.floats(-1, 1), st.lists(st.floats(-1, 1), min_size=3, max_size=6), st.floats(0, 0.7),
    st.lists(st.floats(0, 0.7), min_size=3, max_size=6),
)  # fmt: skip
def test_every_model_has_one_of_four_verdicts(
    unlearned: float, original: float, retrained: list[float], output: float, outputs: list[float]
) -> None:
    found = verdict(unlearned, original, retrained, output, outputs)
    assert found in VERDICTS
    assert verdict(original, original, retrained, output, outputs) != "erases"  # nothing was done
    assert found == verdict(unlearned, original, retrained[::-1], output, outputs[::-1])
