"""Vectors for Numba: every operation against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from qunlearn.quantum.engines.fused.simd import (
    BYTES,
    EXCHANGE,
    LANE_BITS,
    arrive,
    arrived,
    cosine,
    load,
    sine,
    splat,
    store,
    total,
)

Real = type[np.float32] | type[np.float64]
every_type = pytest.mark.parametrize("real", [np.float32, np.float64], ids=["single", "double"])


@njit  # type: ignore[untyped-decorator]
def _waves(line: Any, sines: Any, cosines: Any, lanes: int) -> None:
    for k in range(0, len(line), lanes):
        store(sines, k, sine(load(line, k)))
        store(cosines, k, cosine(load(line, k)))


@njit  # type: ignore[untyped-decorator]
def _arithmetic(a: Any, b: Any, number: Any, out: Any) -> None:
    x, y = load(a, 0), load(b, 0)
    store(out[0], 0, x + y)
    store(out[1], 0, x - y)
    store(out[2], 0, x * y)
    store(out[3], 0, x * y + splat(number))


@njit  # type: ignore[untyped-decorator]
def _total(line: Any, begin: int) -> Any:
    return total(load(line, begin))


@njit  # type: ignore[untyped-decorator]
def _meet(meeting: Any) -> Any:
    return arrive(meeting), arrive(meeting), arrived(meeting)


def lines(numbers: NDArray[Any], real: Real) -> NDArray[Any]:
    """Numbers in a type."""
    return numbers.astype(real)


def lanes_of(real: Real) -> int:
    return 1 << LANE_BITS[np.dtype(real).itemsize]


def waves(angles: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sines and cosines of a number of angles that fills vectors."""
    sines, cosines = np.empty_like(angles), np.empty_like(angles)
    _waves(angles, sines, cosines, lanes_of(angles.dtype.type))
    return sines, cosines


def eps(real: Real) -> float:
    """One unit in the last place of 1."""
    return float(np.finfo(real).eps)


def units(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference in units in the last place of the expected numbers, rounded to the type found."""
    return float(
        np.max(np.abs(found.astype(np.longdouble) - expected) / np.spacing(np.abs(expected.astype(found.dtype))))
    )


@every_type
@pytest.mark.parametrize("size", [1e-30, 1e-3, 0.8, 10.0, 1e3, 3e4])
def test_sine_and_cosine_are_right_to_two_units(real: Real, size: float) -> None:
    rng = np.random.default_rng(0)
    angles = (rng.uniform(-size, size, 2**16)).astype(real)
    # In a longer type, from the angle as it was rounded.
    exact = angles.astype(np.longdouble)
    sines, cosines = waves(angles)
    # Near a zero of a wave of a large angle, a unit of the result is far less than one of pi: an absolute bound there.
    for found, expected in ((sines, np.sin(exact)), (cosines, np.cos(exact))):
        large = np.abs(expected) > (0 if size <= 0.8 else 1e-2)
        assert units(found[large], expected[large]) <= 2
        assert np.max(np.abs(found - expected)) <= 1.5 * eps(real)


@every_type
def test_sine_and_cosine_at_multiples_of_an_eighth_turn(real: Real) -> None:
    angles = (np.arange(-512, 512) * (np.pi / 4)).astype(real)
    sines, cosines = waves(angles)
    exact = angles.astype(np.longdouble)
    for found, expected in ((sines, np.sin(exact)), (cosines, np.cos(exact))):
        assert np.max(np.abs(found - expected)) <= 1.5 * eps(real)


@every_type
def test_sine_and_cosine_of_zero_and_of_no_number(real: Real) -> None:
    angles = np.zeros(lanes_of(real), dtype=real)
    angles[1:5] = [-0.0, np.nan, np.inf, -np.inf]
    sines, cosines = waves(angles)
    assert sines[:2].tolist() == [0, 0]
    assert cosines[:2].tolist() == [1, 1]
    assert np.isnan(sines[2:5]).all()
    assert np.isnan(cosines[2:5]).all()


@every_type
def test_arithmetic_is_by_lanes(real: Real) -> None:
    rng = np.random.default_rng(1)
    lanes = lanes_of(real)
    assert lanes * np.dtype(real).itemsize == BYTES
    a, b, out = (
        lines(rng.normal(size=lanes), real),
        lines(rng.normal(size=lanes), real),
        lines(np.empty((4, lanes)), real),
    )
    number = real(0.3)
    _arithmetic(a, b, number, out)
    for found, expected in zip(out[:3], (a + b, a - b, a * b), strict=True):
        np.testing.assert_array_equal(found, expected)
    wide = a.astype(np.float64) * b + np.float64(number)
    np.testing.assert_allclose(out[3], wide, rtol=0, atol=4 * eps(real))  # may be fused


@pytest.mark.parametrize(
    ("real", "bit"), [(real, bit) for real, bits in ((np.float32, 4), (np.float64, 3)) for bit in range(bits)]
)
def test_an_exchange_swaps_lanes_whose_numbers_differ_in_a_bit(real: Real, bit: int) -> None:
    lanes, exchange = lanes_of(real), EXCHANGE[bit]

    @njit  # type: ignore[untyped-decorator]
    def swap(line: Any, out: Any) -> None:
        store(out, 0, exchange(load(line, 0)))

    line, out = np.arange(lanes, dtype=real), np.empty(lanes, dtype=real)
    swap(line, out)
    assert out.tolist() == [lane ^ (1 << bit) for lane in range(lanes)]


@every_type
def test_totals_and_loads_from_any_place(real: Real) -> None:
    lanes = lanes_of(real)
    line = lines(2.0 ** np.arange(2 * lanes), real)  # every sum of a subset is another number
    for begin in range(lanes + 1):
        assert _total(line, begin) == line[begin : begin + lanes].sum()


def test_arrivals_are_counted_and_tell_their_number() -> None:
    assert _meet(np.array([5])) == (5, 6, 7)
