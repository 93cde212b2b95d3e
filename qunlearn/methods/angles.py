"""Angles of gates: an angle and the same angle one period on are one gate, so rules that scale angles wrap them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def wrapped(angles: Tensor, periods: Tensor) -> Tensor:
    """The same gates with every angle in ``(-period / 2, period / 2]``; those that lie there stay as they are.

    Args:
        angles: radians, of any shape.
        periods: above 0, of the same shape (see `qunlearn.models.angle_periods`); infinite where nothing repeats,
            and where the angle therefore stays as it is.
    """
    finite = periods.isfinite()
    length = torch.where(finite, periods, 1.0)
    turns = torch.where(finite, torch.ceil(angles / length - 0.5), 0.0)
    return angles - turns * length


def shortest(angles: Tensor, reference: Tensor, periods: Tensor) -> Tensor:
    """The least turns that lead from reference angles to others, in ``(-period / 2, period / 2]``; radians."""
    return wrapped(angles - reference, periods)


def widest_noise(periods: Tensor) -> Tensor:
    """The standard deviation of an angle that is uniform over its period: pi / sqrt(3) for 2 pi.

    Wider noise says nothing more: the angle is drawn anew already.
    """
    return periods / math.sqrt(12)
