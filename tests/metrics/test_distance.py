import math

import numpy as np
import pytest
import torch
from scipy.stats import unitary_group

from qunlearn.errors import InputError
from qunlearn.metrics import circular_difference, state_fidelity, weight_distance

TURN = 2 * math.pi


def test_angles_are_compared_around_their_circle() -> None:
    first, second = [0.1, 0.1, 0.1, 7.0], [TURN - 0.1, TURN - 0.1, 0.1 + 3 * TURN, 0.5]
    periods = [TURN, 2 * TURN, TURN, math.inf]
    difference = circular_difference(first, second, periods)
    # the second is a controlled rotation: 2 pi away is another gate
    assert difference == pytest.approx([0.2, 0.2 - TURN, 0.0, 6.5])
    assert weight_distance(first, second, periods) == pytest.approx(np.linalg.norm([0.2, 0.2 - TURN, 0.0, 6.5]))


def test_distance_agrees_with_the_unit_circle() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-20, 20, size=(2, 50))
    arc = np.abs(np.angle(np.exp(1j * (a - b))))
    assert np.abs(circular_difference(a, b, np.full(50, TURN))) == pytest.approx(arc, abs=1e-9)


def test_plain_weights_give_the_euclidean_distance() -> None:
    a, b = torch.randn(2, 30, generator=torch.Generator().manual_seed(0))
    expected = float(torch.linalg.vector_norm((a - b).double()))
    assert weight_distance(a, b, torch.full((30,), math.inf)) == pytest.approx(expected)


def test_bad_periods_and_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="above 0"):
        weight_distance([0.0], [1.0], [0.0])
    with pytest.raises(InputError, match="one length"):
        weight_distance([0.0], [1.0, 2.0], [TURN])


def test_fidelity_by_hand_and_unchanged_by_phase_and_unitary() -> None:
    zero, plus = np.array([[1, 0]]), np.array([[1, 1]]) / math.sqrt(2)
    assert state_fidelity(zero, plus) == pytest.approx(0.5)
    assert state_fidelity(np.repeat(zero, 2, axis=0), np.concatenate([zero, plus])) == pytest.approx(0.75)
    states = unitary_group.rvs(8, random_state=1)
    assert state_fidelity(states, 1j * states) == pytest.approx(1.0)
    other, turn = unitary_group.rvs(8, random_state=2), unitary_group.rvs(8, random_state=3)
    assert state_fidelity(states @ turn, torch.tensor(other @ turn)) == pytest.approx(state_fidelity(states, other))


def test_states_of_different_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="of one shape"):
        state_fidelity(np.ones((1, 2)), np.ones((2, 2)))
