"""One Newton step away from samples: bounds that hold, against problems written out here and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression

from qunlearn.errors import NumericalError
from qunlearn.methods.accounting import gaussian_delta
from qunlearn.methods.logistic import BEND, Array, Logistic, remove

GAMMA = math.sqrt(3) / 18


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def slope(x: Array, s: Array, ridge: float, b: Array, w: Array) -> Array:
    """The gradient, sample by sample."""
    total = b.copy()
    for row, sign in zip(x, s, strict=True):
        total += -sign * sigmoid(-sign * (row @ w)) * row + ridge * w
    return total


def curve(x: Array, ridge: float, w: Array) -> Array:
    """The Hessian, sample by sample."""
    total = np.zeros((len(w), len(w)))
    for row in x:
        p = sigmoid(row @ w)
        total += p * (1 - p) * np.outer(row, row) + ridge * np.eye(len(w))
    return total


def draw(seed: int, *, rows: int | None = None, sigma: float | None = None) -> tuple[Array, Array, float, Array, int]:
    """Rows of norm 1 at most, signs of a noisy plane, a ridge, a perturbation, and how many samples go."""
    random = np.random.default_rng(seed)
    n, d = rows or int(random.integers(20, 200)), int(random.integers(2, 9))
    x = random.normal(size=(n, d))
    x *= (random.uniform(0.2, 1, n) / np.linalg.norm(x, axis=1))[:, None]
    s = np.where(x @ random.normal(size=d) * 4 + random.normal(size=n) > 0, 1.0, -1.0)
    ridge = float(10 ** random.uniform(-3, -0.5))
    noise = 10 ** random.uniform(-2, 0.5) if sigma is None else sigma
    return x, s, ridge, noise * random.normal(size=d), int(random.integers(1, max(2, n // 8)))


def problems(seed: int) -> tuple[Logistic, Logistic, Logistic]:
    """On all samples, on the forget set without perturbation, and on the retain set."""
    x, s, ridge, b, gone = draw(seed)
    forget = Logistic(x[:gone], s[:gone], ridge, np.zeros_like(b))
    return Logistic(x, s, ridge, b), forget, Logistic(x[gone:], s[gone:], ridge, b)


def test_the_constant_is_the_largest_third_derivative() -> None:
    z = np.linspace(-20, 20, 2_000_001)
    p = sigmoid(z)
    assert np.abs(p * (1 - p) * (1 - 2 * p)).max() == pytest.approx(BEND, rel=1e-9)
    steps = np.abs(np.diff(p * (1 - p))) / np.diff(z)
    assert steps.max() <= BEND < 0.25  # the published constant


def test_derivatives_are_those_of_the_problem() -> None:
    x, s, ridge, b, _ = draw(3)
    problem, w = Logistic(x, s, ridge, b), np.random.default_rng(0).normal(size=len(b))
    assert np.allclose(problem.gradient(w), slope(x, s, ridge, b, w), atol=1e-10)
    assert np.allclose(problem.hessian(w), curve(x, ridge, w), atol=1e-10)
    v = np.random.default_rng(1).normal(size=len(b))
    change = (curve(x, ridge, w + 1e-5 * v) - curve(x, ridge, w - 1e-5 * v)) / 2e-5
    assert np.allclose(problem.bend(w, v), change, atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_the_optimum_is_scikit_learn_s(seed: int) -> None:
    x, s, ridge, b, _ = draw(seed, sigma=0.0)
    found, norm = Logistic(x, s, ridge, b).solve(1e-9)
    assert norm <= 1e-9
    known = LogisticRegression(C=1 / (ridge * len(x)), fit_intercept=False, tol=1e-10, max_iter=10_000).fit(x, s)
    assert np.allclose(found, known.coef_[0], atol=1e-5)


def test_what_cannot_be_reached_is_an_error() -> None:
    x, s, ridge, b, _ = draw(1)
    with pytest.raises(NumericalError, match="raise tolerance"):
        Logistic(x, s, ridge, b).solve(1e-30)


def test_the_bound_holds_on_200_random_problems() -> None:
    """Truth <= bound from the data <= bound from sizes; and the step brings the head to the retrained one."""
    nearer = []
    for seed in range(200):
        x, s, ridge, b, gone = draw(seed)
        whole, forget, retain = problems(seed)
        w, left = whole.solve(1e-9)
        found = remove(w, forget, retain)

        pull = slope(x[:gone], s[:gone], ridge, np.zeros_like(b), w)
        step = np.linalg.solve(curve(x[gone:], ridge, w), pull)
        assert np.allclose(found.weights, w + step, atol=1e-8)
        bound = GAMMA * np.linalg.svd(x[gone:])[1][0] * np.linalg.norm(step) * np.linalg.norm(x[gone:] @ step)
        assert found.bound == pytest.approx(bound, rel=1e-6)
        truth = slope(x[gone:], s[gone:], ridge, b, w + step)
        assert np.allclose(found.residual, truth, atol=1e-9)
        assert np.linalg.norm(truth) <= bound + left
        worst = GAMMA * gone**2 * (2 + (np.linalg.norm(b) + left) / len(x)) ** 2 / (ridge**2 * (len(x) - gone))
        assert bound <= worst
        assert found.worst == pytest.approx(worst)

        again, _ = retain.solve(1e-9)
        nearer.append(np.linalg.norm(found.weights - again) / np.linalg.norm(w - again))
    assert np.median(nearer) < 0.02
    assert max(nearer) < 0.5


def test_bounds_of_removals_in_sequence_add_up() -> None:
    for seed in range(20):
        x, s, ridge, b, _ = draw(seed, rows=120)
        w, drift = Logistic(x, s, ridge, b).solve(1e-9)
        for first in range(0, 30, 3):
            forget = Logistic(x[first : first + 3], s[first : first + 3], ridge, np.zeros_like(b))
            found = remove(w, forget, Logistic(x[first + 3 :], s[first + 3 :], ridge, b))
            w, drift = found.weights, drift + found.bound
            assert np.linalg.norm(slope(x[first + 3 :], s[first + 3 :], ridge, b, w)) <= drift


def test_the_density_s_factor_is_the_determinant_of_the_map() -> None:
    """The perturbation that the new weights are optimal for, differentiated by the old one numerically."""
    for seed in (0, 4, 7):
        x, s, ridge, b, gone = draw(seed, rows=40)

        def moved(b: Array, x: Array = x, s: Array = s, ridge: float = ridge, gone: int = gone) -> Array:
            w, _ = Logistic(x, s, ridge, b).solve(1e-11)
            forget = Logistic(x[:gone], s[:gone], ridge, np.zeros_like(b))
            after = remove(w, forget, Logistic(x[gone:], s[gone:], ridge, b)).weights
            return -slope(x[gone:], s[gone:], ridge, np.zeros_like(b), after)

        columns = [(moved(b + 1e-4 * e) - moved(b - 1e-4 * e)) / 2e-4 for e in np.eye(len(b))]
        sign, known = np.linalg.slogdet(np.stack(columns, 1))
        w, _ = Logistic(x, s, ridge, b).solve(1e-11)
        forget = Logistic(x[:gone], s[:gone], ridge, np.zeros_like(b))
        found = remove(w, forget, Logistic(x[gone:], s[gone:], ridge, b)).log_factor
        assert sign == 1
        assert found == pytest.approx(known, abs=1e-6, rel=1e-4)


def shares(hits: int, n: int, level: float = 0.9999) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    return low, 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))


def leaks(members: Array, others: Array, epsilon: float, delta: float) -> bool:
    """Whether some threshold tells members from others better than (epsilon, delta) allows, beyond chance."""
    for threshold in np.quantile(np.concatenate([members, others]), np.linspace(0.02, 0.98, 25)):
        hit = shares(int((members > threshold).sum()), len(members))
        false = shares(int((others > threshold).sum()), len(others))
        if hit[0] > math.exp(epsilon) * false[1] + delta:
            return True
        if 1 - false[1] > math.exp(epsilon) * (1 - hit[0]) + delta:
            return True
    return False


def test_the_best_linear_attack_stays_below_what_epsilon_allows() -> None:
    """Who knows the retain set reads the perturbation off a head, and projects it on what removal leaves in it.

    Noise is as small as epsilon allows. Heads from which nothing was removed give the same attack away.
    """
    epsilon, delta, runs = 1.0, 1e-2, 800
    x, s, ridge, _, _ = draw(11, rows=50)
    gone, ridge, d = 6, 0.05, int(x.shape[1])
    forget = Logistic(x[:gone], s[:gone], ridge, np.zeros(d))

    def heads(seed: int, sigma: float) -> tuple[Array, Array, Array, float]:
        b = sigma * np.random.default_rng(seed).normal(size=(d,))
        retain = Logistic(x[gone:], s[gone:], ridge, b)
        w, left = Logistic(x, s, ridge, b).solve(1e-9)
        found = remove(w, forget, retain)
        fresh = sigma * np.random.default_rng((seed, 1)).normal(size=(d,))
        again, _ = Logistic(x[gone:], s[gone:], ridge, fresh).solve(1e-9)
        return w, found.weights, again, left + found.bound

    widest = math.sqrt(2 * math.log(1.5 / delta))
    sigma = widest * heads(0, 0.0)[3] / epsilon
    original, removed, retrained, bounds = map(np.array, zip(*(heads(k, sigma) for k in range(runs)), strict=True))
    within = widest * bounds <= 1.1 * sigma * epsilon
    assert within.mean() > 0.9  # the noise is as small as it may be, and the bound hardly depends on it

    def perturbations(found: Array) -> Array:
        return np.stack([-slope(x[gone:], s[gone:], ridge, np.zeros(d), w) for w in found])

    half = runs // 2
    for members, leaking in ((removed, False), (original, True)):
        read, others = perturbations(members), perturbations(retrained)
        way = read[:half].mean(0) - others[:half].mean(0)
        assert leaks(read[half:] @ way, others[half:] @ way, epsilon, delta) == leaking
    shift = np.linalg.norm(perturbations(removed).mean(0) - perturbations(original).mean(0))
    assert shift > 3 * sigma  # what the step undid
    assert gaussian_delta(float(bounds.max()), sigma, epsilon) <= delta


def test_a_perturbed_optimum_is_the_minimum() -> None:
    x, s, ridge, b, _ = draw(9)
    found, _ = Logistic(x, s, ridge, b).solve(1e-9)

    def value(w: Array) -> float:
        return float(np.log1p(np.exp(-s * (x @ w))).sum() + len(x) * ridge / 2 * w @ w + b @ w)

    known = minimize(value, np.zeros(len(b)), method="BFGS", options={"gtol": 1e-7})
    assert np.allclose(found, known.x, atol=1e-5)
