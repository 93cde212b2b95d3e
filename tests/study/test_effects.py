"""The statistics of the sweep, on cells whose effects are known, against least squares of another making."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from qunlearn.errors import InputError
from qunlearn.study.report.effects import difference, effect, grid_of, mediation

DEPTHS, BLOCKS = (0.0, 1.0, 2.0, 3.0), tuple("abcdefgh")
CELLS = list(itertools.product(BLOCKS, DEPTHS))
FACTOR, BLOCK = [x for _, x in CELLS], [name for name, _ in CELLS]


def made(
    slope: float, by_mediator: float, direct: float, seed: int, noise: float = 0.1, seeds: int = 10
) -> tuple[Any, Any]:
    """Outcome and mediator, (cells, seeds): blocks have levels of their own, and so have seeds."""
    random = np.random.default_rng(seed)
    levels = np.array([BLOCKS.index(name) for name in BLOCK])[:, None]
    x, size = np.array(FACTOR)[:, None], (len(CELLS), seeds)
    mediator = 0.3 * levels + slope * x + random.normal(0, 0.3, (len(CELLS), 1)) + random.normal(0, 0.02, size)
    luck = random.normal(0, 0.2, (1, seeds))
    outcome = 2.0 * levels + by_mediator * mediator + direct * x + luck + random.normal(0, noise, size)
    return outcome, mediator


def dummies(*columns: Any) -> Any:
    return np.column_stack([*columns, *(np.array(BLOCK) == name for name in BLOCKS)])


def test_the_slope_is_that_of_least_squares_with_a_level_a_block() -> None:
    outcome, _ = made(1.0, 0.5, 0.2, seed=0)
    other = LinearRegression(fit_intercept=False).fit(dummies(FACTOR), outcome.mean(axis=1))
    found = effect(FACTOR, BLOCK, outcome)
    assert found.value == pytest.approx(other.coef_[0], rel=1e-9)
    assert found.low < found.value < found.high


def test_direct_and_total_are_those_of_least_squares_with_and_without_the_mediator() -> None:
    outcome, mediator = made(1.0, 0.5, 0.2, seed=1)
    other = LinearRegression(fit_intercept=False).fit(dummies(FACTOR, mediator.mean(axis=1)), outcome.mean(axis=1))
    found = mediation(FACTOR, BLOCK, outcome, mediator)
    assert found.direct.value == pytest.approx(other.coef_[0], rel=1e-9)
    assert found.total.value == effect(FACTOR, BLOCK, outcome).value
    # what goes by the mediator is the product of both paths, an identity of least squares
    assert found.indirect.value == pytest.approx(found.first.value * other.coef_[1], rel=1e-9)


@pytest.mark.parametrize(("by_mediator", "direct"), [(0.5, 0.0), (0.0, 0.5), (0.3, 0.2)])
def test_mediation_finds_what_goes_by_the_mediator(by_mediator: float, direct: float) -> None:
    found = [mediation(FACTOR, BLOCK, *made(1.0, by_mediator, direct, seed)) for seed in range(20)]
    assert np.mean([one.direct.value for one in found]) == pytest.approx(direct, abs=0.03)
    assert np.mean([one.indirect.value for one in found]) == pytest.approx(by_mediator, abs=0.03)
    assert np.mean([one.direct.low <= direct <= one.direct.high for one in found]) >= 0.8


def test_the_interval_covers_the_slope_as_often_as_it_says() -> None:
    """Of what is common to a cell's trials too: seeds drawn anew alone would be far too sure of it."""
    covered, random = [], np.random.default_rng(5)
    for seed in range(100):
        outcome, _ = made(0.0, 0.0, 0.3, seed)
        outcome = outcome + random.normal(0, 0.3, (len(CELLS), 1))
        found = effect(FACTOR, BLOCK, outcome, resamples=300)
        covered.append(found.low <= 0.3 <= found.high)
    assert 0.85 <= np.mean(covered) <= 1.0


def test_a_value_that_is_missing_takes_no_part() -> None:
    outcome, _ = made(1.0, 0.5, 0.2, seed=2)
    outcome[3, :4] = np.nan
    outcome[7] = np.nan
    there = [number for number in range(len(CELLS)) if number != 7]
    means = np.array([np.nanmean(outcome[number]) for number in there])
    other = LinearRegression(fit_intercept=False).fit(dummies(FACTOR)[there], means)
    assert effect(FACTOR, BLOCK, outcome).value == pytest.approx(other.coef_[0], rel=1e-9)


def test_a_factor_that_never_changes_within_a_block_has_no_effect_to_tell() -> None:
    found = effect([1.0, 1.0, 2.0, 2.0], ["a", "a", "b", "b"], np.ones((4, 3)))
    assert np.isnan(found.value)
    assert np.isnan(found.low)


def test_a_mediator_that_is_the_factor_leaves_nothing_to_tell_apart() -> None:
    outcome, _ = made(1.0, 0.5, 0.2, seed=3)
    same = np.broadcast_to(np.array(FACTOR)[:, None], outcome.shape)
    found = mediation(FACTOR, BLOCK, outcome, same)
    assert np.isnan(found.direct.value)
    assert np.isfinite(found.total.value)


def test_differences_are_paired() -> None:
    """Luck that both share is in neither the difference nor its interval."""
    random = np.random.default_rng(4)
    luck, cells = random.normal(0, 5.0, (1, 10)), np.arange(4.0)[:, None]
    one = 0.7 + cells + luck + random.normal(0, 0.01, (4, 10))
    found = difference(list("abcd"), one, cells + luck)
    assert found.value == pytest.approx(0.7, abs=0.01)
    assert found.high - found.low < 0.05


def test_cells_and_seeds_are_laid_out_in_order() -> None:
    rows = pd.DataFrame({
        "depth": [2, 1, 2, 1], "split_seed": 0, "seed": [0, 0, 1, 1], "value": [3.0, 1.0, 4.0, 2.0],
    })  # fmt: skip
    cells, values = grid_of(rows, ["depth"], "value")
    assert list(cells["depth"]) == [1, 2]
    assert values.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(cells, seeds\)"):
        effect([1.0], ["a", "b"], np.ones((2, 3)))
