"""Angles: wrapping moves whole periods, and nothing that need not move."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qunlearn.methods.angles import shortest, widest_noise, wrapped
from qunlearn.models import angle_periods
from qunlearn.models.hybrid import HybridClassifier
from qunlearn.quantum import load_circuit

angles = st.floats(-100, 100)
periods = st.sampled_from([2 * math.pi, 4 * math.pi, 1.0])


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(angle=angles, period=periods)
def test_wrapped_angles_are_whole_periods_away_and_within_half_a_period(angle: float, period: float) -> None:
    found = float(wrapped(tensor(angle), tensor(period)))
    assert abs(found) <= period / 2 + 1e-12
    turns = (angle - found) / period
    assert turns == pytest.approx(round(turns), abs=1e-12)
    if -period / 2 < angle <= period / 2:
        assert found == angle, "an angle in range keeps its bits"


def test_half_a_period_is_the_upper_end() -> None:
    pi = math.pi
    given = tensor(pi, -pi, 3 * pi, 0.0, 2 * pi, 7.0)
    found = wrapped(given, torch.full_like(given, 2 * pi))
    assert torch.allclose(found, tensor(pi, pi, pi, 0.0, 0.0, 7.0 - 2 * pi), atol=1e-12, rtol=0)


@given(angle=angles, reference=angles, period=periods)
def test_the_shortest_turn_arrives_and_is_the_shortest(angle: float, reference: float, period: float) -> None:
    turn = float(shortest(tensor(angle), tensor(reference), tensor(period)))
    assert abs(turn) <= period / 2 + 1e-12
    away = abs(reference + turn - angle) / period
    assert away == pytest.approx(round(away), abs=1e-12)


def test_what_has_no_period_stays() -> None:
    given = tensor(50.0, -50.0)
    assert torch.equal(wrapped(given, tensor(math.inf, math.inf)), given)
    assert widest_noise(tensor(math.inf)).isinf().all()


def test_the_widest_noise_is_the_standard_deviation_of_a_uniform_angle() -> None:
    assert float(widest_noise(tensor(2 * math.pi))) == pytest.approx(math.pi / math.sqrt(3))
    drawn = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4 * math.pi
    assert float(drawn.std()) == pytest.approx(float(widest_noise(tensor(4 * math.pi))), rel=0.01)


def test_outputs_do_not_see_wrapping() -> None:
    """Controlled rotations repeat after 4 pi only: one turn of 2 pi on them would be seen."""
    circuit = load_circuit("sim-13", qubits=3, depth=1)
    model = HybridClassifier(circuit, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (period,) = angle_periods(model).values()
    assert len(set(period.tolist())) == 2
    x = torch.rand(5, circuit.features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        model.quantum.weights.mul_(5.0)
        before = model(x)
        model.quantum.weights.copy_(wrapped(model.quantum.weights, period))
        assert float(model.quantum.weights.abs().max()) <= 2 * math.pi + 1e-12
        assert torch.allclose(model(x), before, atol=1e-12, rtol=0)
        model.quantum.weights.add_(2 * math.pi)
        assert not torch.allclose(model(x), before, atol=1e-3, rtol=0)
