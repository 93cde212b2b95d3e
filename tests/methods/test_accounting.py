"""Noise and epsilon, against integrals, closed forms and published figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from qunlearn.errors import InputError
from qunlearn.methods.accounting import (
    gaussian_delta,
    gaussian_epsilon,
    gaussian_sigma,
    renyi_epsilon,
    renyi_rate,
    wrapped_epsilon,
    wrapped_sigma,
)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("ratio", [0.1, 0.7, 2.0])
def test_delta_is_the_integral_of_what_sticks_out(ratio: float, epsilon: float) -> None:
    """The hockey-stick divergence of two Gaussians, by quadrature over densities."""
    crossing = epsilon / ratio + ratio / 2  # there the densities are in the ratio e^epsilon
    found, _ = quad(lambda x: norm.pdf(x, ratio) - math.exp(epsilon) * norm.pdf(x), crossing, crossing + 40)
    assert gaussian_delta(3 * ratio, 3.0, epsilon) == pytest.approx(found, rel=1e-6, abs=1e-12)


@given(st.floats(0.01, 50), st.floats(0.01, 10), st.floats(1e-10, 0.3))
def test_sigma_and_epsilon_undo_each_other(distance: float, epsilon: float, delta: float) -> None:
    sigma = gaussian_sigma(distance, epsilon, delta)
    assert gaussian_epsilon(distance, sigma, delta) == pytest.approx(epsilon, rel=1e-5, abs=1e-7)
    assert gaussian_epsilon(distance, 1.1 * sigma, delta) < epsilon


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 0.99])
def test_less_noise_than_the_textbook_s(epsilon: float) -> None:
    """Dwork and Roth's sigma suffices for epsilon below 1, and is not the least."""
    assert gaussian_sigma(1.0, epsilon, 1e-5) < math.sqrt(2 * math.log(1.25e5)) / epsilon


def test_far_apart_epsilon_grows_as_half_the_square() -> None:
    assert gaussian_epsilon(1e5, 1.0, 1e-5) == pytest.approx(0.5e10 - 1e5 * norm.ppf(1e-5), rel=1e-6)
    assert gaussian_epsilon(0.0, 1.0, 1e-5) == 0


@given(st.lists(st.sampled_from([2 * math.pi, 4 * math.pi, 1.0]), min_size=1, max_size=5), st.floats(0.5, 8))
def test_no_two_wrapped_densities_differ_by_more(periods: list[float], sigma: float) -> None:
    """Densities summed turn by turn on a grid: the largest ratio of any two points, angle by angle."""
    total = 0.0
    for period in periods:
        x = np.linspace(-period / 2, period / 2, 401)[:, None]
        turns = np.arange(-int(12 * sigma / period) - 3, int(12 * sigma / period) + 4)[None]
        density = np.log(np.exp(-(((x + turns * period) / sigma) ** 2) / 2).sum(1))
        total += float(density.max() - density.min())
    assert wrapped_epsilon(periods, sigma) == pytest.approx(total, rel=1e-6, abs=1e-9)


def test_narrow_noise_is_not_wrapped() -> None:
    """Half a period away two turns meet: (P / 2 sigma)^2 / 2 less ln 2 an angle."""
    found = wrapped_epsilon([2 * math.pi, 4 * math.pi], 1e-3)
    assert found == pytest.approx(math.pi**2 * 1e6 * (1 + 4) / 2 - 2 * math.log(2), rel=1e-12)


def test_wrapped_noise_for_an_epsilon_gives_it_and_hides_more_than_on_a_line() -> None:
    periods = [2 * math.pi] * 24
    for epsilon in (1e-6, 0.1, 1.0, 50.0, 1e4):
        sigma = wrapped_sigma(periods, epsilon)
        assert wrapped_epsilon(periods, sigma) == pytest.approx(epsilon, rel=1e-6)
        assert sigma < gaussian_sigma(math.pi * math.sqrt(24), epsilon, 1e-5)


def test_opacus_conversion_is_the_published_minimum() -> None:
    """Theorem 21 of Balle et al. 2020, minimised here on another grid of orders."""
    for rate in (1e-4, 0.03, 1.0, 20.0):
        alpha = 1 + np.geomspace(1e-4, 1e5, 200001)
        found = rate * alpha - (np.log(1e-5) + np.log(alpha)) / (alpha - 1) + np.log1p(-1 / alpha)
        assert renyi_epsilon(rate, 1e-5) == pytest.approx(found.min(), rel=1e-4)


@given(st.floats(1e-6, 1e4), st.floats(1e-9, 1e-2))
def test_the_conversion_lies_between_the_exact_and_the_simple(rate: float, delta: float) -> None:
    """Not below what two Gaussians of that divergence imply; not above rho + 2 sqrt(rho ln(1 / delta))."""
    found = renyi_epsilon(rate, delta)
    exact = gaussian_epsilon(math.sqrt(2 * rate), 1.0, delta)
    assert exact - 1e-6 <= found <= rate + 2 * math.sqrt(rate * math.log(1 / delta)) * (1 + 1e-4)


@given(st.floats(0.01, 100), st.floats(1e-9, 1e-2))
def test_the_rate_for_an_epsilon_gives_that_epsilon(epsilon: float, delta: float) -> None:
    found = renyi_epsilon(renyi_rate(epsilon, delta), delta)
    assert found <= epsilon
    assert found == pytest.approx(epsilon, rel=1e-4)


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1])
def test_delta_out_of_range_is_refused(delta: float) -> None:
    for call in (gaussian_epsilon, gaussian_sigma):
        with pytest.raises(InputError, match="delta above 0"):
            call(1.0, 1.0, delta)
    with pytest.raises(InputError, match="delta above 0"):
        renyi_epsilon(1.0, delta)
