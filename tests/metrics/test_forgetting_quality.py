"""The challenge's metric against the released algorithm written out on its grid, and against known distributions."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from qunlearn.errors import CorruptFileError, InputError
from qunlearn.metrics import Population, forgetting_quality, null_quality
from qunlearn.metrics.forgetting_quality import points
from qunlearn.metrics.rules import epsilon, family, lower_bound

DELTA, GRID = 1e-5, 100


def population(unlearned: np.ndarray, retrained: np.ndarray, **changes: Any) -> Population:
    accuracies = {f"{part}_{side}": np.full(len(unlearned), 0.9) for part in ("retain", "test")
                  for side in ("unlearned", "retrained")}  # fmt: skip
    return Population(unlearned, retrained, **accuracies | changes)


def normal(models: int, samples: int, seed: int, shift: float = 0.0, width: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(models, samples)) * width + shift


def literal_epsilon(unlearned: np.ndarray, retrained: np.ndarray) -> float:
    """One sample's epsilon step by step as in the organisers' metric, 100 thresholds a unit."""
    pos, neg = (retrained, unlearned) if np.median(retrained) > np.median(unlearned) else (unlearned, retrained)
    spread = [np.ptp(pos), np.ptp(neg)]
    if min(spread) / max(spread) < 0.01:
        return 50.0
    both = np.concatenate([pos, neg])
    single = np.linspace(both.min(), both.max(), math.ceil(np.ptp(both) * GRID))
    pairs = {(int((neg >= t).sum()), int((pos < t).sum())) for t in single}
    peaky, other = (np.sort(v) for v in ((neg, pos) if np.ptp(pos) >= np.ptp(neg) else (pos, neg)))
    width, buffer, n = min(spread), 2.0, len(pos)
    low, high = peaky.min() + width - buffer, peaky.max() + buffer
    for right in np.linspace(low, high, math.ceil((high - low) * GRID)):
        left = np.linspace(right - width - buffer, right - width + buffer, math.ceil(2 * buffer * GRID))
        inside = [np.maximum(np.searchsorted(v, right, "right") - np.searchsorted(v, left), 0) for v in (peaky, other)]
        pairs |= set(zip(inside[1].tolist(), (n - inside[0]).tolist(), strict=True))
    found = [0.0]
    for a, b in pairs:
        if a == b == 0:
            return 50.0
        if a and b:
            rates = ((a / n, b / n), (b / n, a / n))
            found += [math.log(1 - DELTA - x) - math.log(y) for x, y in rates if x < 1 - DELTA]
    return min(max(found), 50.0)


@pytest.mark.parametrize(
    ("shift", "width", "models"),
    [(0.0, 1.0, 64), (1.0, 1.0, 64), (0.0, 0.4, 64), (2.5, 0.5, 64), (-1.0, 3.0, 64), (0.5, 1.0, 101)],
    ids=["same", "shifted", "narrow", "both", "wide", "odd"],
)
def test_every_epsilon_is_the_released_algorithms(shift: float, width: float, models: int) -> None:
    """On values 0.05 apart the grid of thresholds misses none of the rules that differ."""
    unlearned = np.round(normal(models, 6, 1, shift, width) / 0.05) * 0.05
    retrained = np.round(normal(models, 6, 2) / 0.05) * 0.05
    found = forgetting_quality(population(unlearned, retrained))
    truth = [literal_epsilon(*pair) for pair in zip(unlearned.T, retrained.T, strict=True)]
    assert found.epsilons == pytest.approx(truth, abs=1e-9)
    # Off the lattice the grid can only miss rules.
    finer = forgetting_quality(population(unlearned + 1e-4 * normal(models, 6, 3), retrained))
    coarse = [literal_epsilon(*p) for p in zip((unlearned + 1e-4 * normal(models, 6, 3)).T, retrained.T, strict=True)]
    assert (finer.epsilons >= np.array(coarse) - 1e-9).all()


@pytest.mark.parametrize("scale", [0.37, 1.13], ids=["near", "spread"])
def test_the_windows_are_those_near_the_narrower_group(scale: float) -> None:
    """Every pair of ends on a fine grid takes some run of values; these runs are the windows."""
    narrow, wide = scale * np.arange(6.0), scale * (np.arange(-4.0, 14.0, 3.0) + 0.5)
    rules = family(narrow, wide)
    assert rules is not None
    levels, width = np.unique(np.concatenate([narrow, wide])), np.ptp(narrow)
    truth = set()
    for right in np.arange(narrow.max() - 2, narrow.max() + 2, 0.013):
        left = np.arange(right - width - 2, right - width + 2, 0.013)
        first, last = np.searchsorted(levels, left), int(np.searchsorted(levels, right, "right")) - 1
        truth |= {(int(one), last) for one in first if one <= last}
    single = levels.size  # the rules "at least t" come first
    found = set(zip(rules.first[single:].tolist(), rules.last[single:].tolist(), strict=True))
    assert found == truth
    assert rules.of_unlearned[single:].all()


def test_the_score_is_the_released_sum_over_buckets() -> None:
    epsilons = np.concatenate([np.linspace(0, 9, 181), [50.0, math.log(63), 4.5, 4.999, 5.0]])
    for models in (64, 149, 512):  # 149 models: ln 148 < 5 < ln 149
        total, start, share, buckets = np.ceil(np.log(models - 1)), 0.0, 1.0, {}
        while start + 0.5 <= total:
            buckets[start], share, start = share, share / 2, start + 0.5
        truth = [next((p for s, p in buckets.items() if e < s + 0.5), 0.0) for e in epsilons]
        assert points(epsilons, models).tolist() == truth
        assert len(buckets) == {64: 10, 149: 10, 512: 14}[models]


def test_score_ratios_and_cap() -> None:
    unlearned, retrained = normal(64, 30, 1, 0.5), normal(64, 30, 2)
    plain = forgetting_quality(population(unlearned, retrained))
    assert plain.n == 64
    assert plain.cap == pytest.approx(math.log(63))
    assert plain.score == plain.points == pytest.approx(points(plain.epsilons, 64).mean())
    assert plain.low < plain.score < plain.high
    accuracies = {"retain_unlearned": np.full(64, 0.45), "test_retrained": np.linspace(0.2, 1, 64)}
    worse = forgetting_quality(population(unlearned, retrained, **accuracies))
    assert (worse.retain_ratio, worse.test_ratio) == pytest.approx((0.5, 0.9 / 0.6))
    assert worse.score == pytest.approx(plain.points * 0.5 * 1.5)
    assert worse.points == plain.points


def test_two_sets_of_retrained_models_give_the_best_value() -> None:
    retrained = normal(64, 40, 0)
    assert forgetting_quality(population(retrained, retrained)).score == 1  # not to be told apart at all
    expected = null_quality(population(normal(64, 40, 1), retrained))
    scores = [forgetting_quality(population(normal(64, 40, seed), retrained)).score for seed in range(1, 9)]
    assert expected.low - 0.03 < min(scores)
    assert max(scores) < expected.high + 0.03
    assert np.mean(scores) == pytest.approx(expected.value, abs=0.03)
    for shift, width in ((0.7, 1.0), (0.0, 0.5), (0.0, 1.8), (3.0, 1.0)):
        assert forgetting_quality(population(normal(64, 40, 1, shift, width), retrained)).score < min(scores)
    falling = [
        forgetting_quality(population(retrained + shift, retrained)).score for shift in (0.0, 0.5, 1.0, 2.0, 9.0)
    ]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == 0
    # What was mixed is dealt out: the aim hardly depends on how far apart the two sides are.
    assert null_quality(population(normal(64, 40, 1, 3.0), retrained)).value == pytest.approx(expected.value, abs=0.03)


@pytest.mark.parametrize("loss", [0.5, 1.0, 2.0])
def test_laplace_outputs_have_the_known_privacy_loss(loss: float) -> None:
    """Two Laplace distributions of scale 1, `loss` apart: no event tells them apart by more than e^loss."""
    shares = (np.arange(500) + 0.5) / 500
    values = np.where(shares < 0.5, np.log(2 * shares), -np.log(2 - 2 * shares))
    rules = family(values + loss, values)
    assert rules is not None
    taken, left = rules.errors(values + loss, values)
    # A few values in a tail round the rates; rules of 20 errors or more of either kind show the loss itself.
    many = (taken >= 20) & (left >= 20)
    assert epsilon(taken[many], left[many], 500) == pytest.approx(loss, abs=0.05)
    found = forgetting_quality(population(np.tile(values + loss, (2, 1)).T, np.tile(values, (2, 1)).T))
    assert loss - 0.05 < found.epsilons[0] < loss + 0.5
    assert found.epsilons[0] == found.epsilons[1]
    assert found.lower_bounds[0] <= loss


def test_gaussians_far_apart_and_peaky_outputs_are_caught() -> None:
    retrained = normal(64, 5, 0)
    cases = {
        "apart": retrained + 40,
        "constant": np.full((64, 5), 0.3),
        "peaky": retrained * 0.009,
    }
    for values in cases.values():
        found = forgetting_quality(population(values, retrained))
        assert found.epsilons.tolist() == [50.0] * 5
        assert found.score == 0
        assert (found.lower_bounds > 1.5).all()
    same = forgetting_quality(population(np.full((64, 5), 0.3), np.full((64, 5), 0.3)))
    assert (same.score, same.epsilons.tolist()) == (1.0, [0.0] * 5)
    assert forgetting_quality(population(np.full((64, 5), 0.3), np.full((64, 5), 0.4))).score == 0


@given(st.lists(st.integers(-4, 4), min_size=4, max_size=9), st.integers(0, 99), st.floats(0.3, 40))
def test_only_one_constant_in_common_leaves_no_rule(values: list[int], seed: int, step: float) -> None:
    one = np.array(values) * step
    other = np.random.default_rng(seed).permutation(one) + step * np.random.default_rng(seed).integers(0, 3, one.size)
    rules = family(one, other)
    if rules is None:
        return
    found = epsilon(*rules.errors(one, other), one.size)
    assert math.isnan(found) == (rules.levels.size == 1)


def test_the_lower_bound_holds_and_is_the_exact_one() -> None:
    # All 32 of each counted half fall on the right side: both rates lie below 1 - 0.025^(1/32) at 97.5 % each.
    worst = 1 - 0.025 ** (1 / 32)
    assert beta.ppf(0.975, 1, 32) == pytest.approx(worst)
    bound = lower_bound(normal(64, 1, 0).ravel() + 40, normal(64, 1, 1).ravel())
    assert bound == pytest.approx(math.log(1 - DELTA - worst) - math.log(worst))
    runs, broken, informative = 400, 0, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        found = lower_bound(rng.laplace(0.7, 1, 128), rng.laplace(0, 1, 128))
        broken += found > 0.7
        informative += found > 0
    assert broken <= binom.ppf(0.999, runs, 0.05)
    assert informative > 0.1 * runs


def test_scores_of_different_numbers_of_models_are_never_compared() -> None:
    few, many = (forgetting_quality(population(normal(n, 5, 1, 1.0), normal(n, 5, 2))) for n in (64, 128))
    other = forgetting_quality(population(normal(64, 5, 3), normal(64, 5, 4)))
    assert other > few
    assert few <= other
    assert other - few == pytest.approx(other.score - few.score)
    for compare in (few.__lt__, few.__gt__, few.__le__, few.__ge__, few.__sub__):
        with pytest.raises(InputError, match=r"got 64 \(cap 4.14\) and 128 \(cap 4.84\)"):
            compare(many)
    with pytest.raises(InputError, match="another forgetting quality"):
        _ = few < 0.3  # type: ignore[operator]


def test_too_few_or_unlike_models_are_refused() -> None:
    with pytest.raises(InputError, match="at least 64 unlearned and as many retrained models"):
        forgetting_quality(population(normal(63, 5, 0), normal(63, 5, 1)))
    with pytest.raises(InputError, match="at least 64 models a side"):
        null_quality(population(normal(10, 5, 0), normal(10, 5, 1)))
    with pytest.raises(InputError, match="as many retrained as unlearned"):
        population(normal(64, 5, 0), normal(65, 5, 1))
    with pytest.raises(InputError, match="a model has diverged"):
        population(np.full((64, 5), math.nan), normal(64, 5, 1))
    with pytest.raises(InputError, match="test_unlearned: expected 64 accuracies"):
        population(normal(64, 5, 0), normal(64, 5, 1), test_unlearned=np.full(64, 90.0))
    with pytest.raises(InputError, match="accuracy above 0 on the test set"):
        forgetting_quality(population(normal(64, 5, 0), normal(64, 5, 1), test_retrained=np.zeros(64)))


def test_populations_go_round(tmp_path_factory: pytest.TempPathFactory) -> None:
    first = population(normal(64, 3, 0), normal(64, 3, 1), retain_unlearned=np.linspace(0, 1, 64))
    again = Population.from_bytes(first.to_bytes())
    assert again.unlearned.tolist() == first.unlearned.tolist()
    assert again.retain_unlearned.tolist() == first.retain_unlearned.tolist()
    path = tmp_path_factory.mktemp("population") / "population.safetensors"
    first.save(path)
    assert forgetting_quality(Population.load(path)).score == forgetting_quality(first).score
    damaged = bytearray(first.to_bytes())
    damaged[-1] ^= 1
    with pytest.raises(CorruptFileError, match="expected population as they were written"):
        Population.from_bytes(bytes(damaged))
