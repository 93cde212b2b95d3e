"""Scaling of features to angles, on an interval where no two values give the same encoded state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qunlearn.errors import InputError

# RX(a) RY(a) RZ(a) on |0> has the Bloch vector (c^2 s + s^2, c s^2 - s c, c^2) with c = cos a, s = sin a: a = 0 and
# a = pi are the same state, and so are -pi/2 and pi/2. From 0 to pi/2 the last entry falls strictly, single rotations
# about x or y do so up to pi, and P(2 a) (ZZ, IQP) repeats after pi: on [0, pi/2] every encoding is one to one.
SAFE_INTERVAL = (0.0, math.pi / 2)
PUBLISHED_INTERVAL = (-math.pi, math.pi)  # aliases its own ends; only to repeat what was published


@dataclass(frozen=True)
class MinMaxScaling:
    """Each feature linearly from its range in the fitted samples to [low, high] radians.

    angle = low + (x - minimum) / (maximum - minimum) * (high - low)

    Values outside the fitted range are clipped to the interval if `clip`. A feature that is constant in the
    fitted samples becomes `low`.

    Attributes:
        low: radians, where the minimum goes.
        high: radians, where the maximum goes.
        minimum: of each feature, flattened.
        maximum: of each feature, flattened.
        clip: whether values outside the fitted range are clipped.
    """

    low: float
    high: float
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    clip: bool = True

    @classmethod
    def fit(cls, x: Tensor, low: float, high: float, *, clip: bool = True) -> MinMaxScaling:
        """Fit to ``(samples, ...)``, at least one sample.

        Raises:
            InputError: no samples, or an interval that is empty or not finite.
        """
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"expected an interval (low, high) in radians with low < high, got ({low}, {high})")
        if len(x) == 0:
            raise InputError("expected at least one sample to fit a scaling to, got none")
        flat = x.detach().to("cpu", torch.float64).reshape(len(x), -1)
        return cls(low, high, tuple(flat.amin(0).tolist()), tuple(flat.amax(0).tolist()), clip)

    def apply(self, x: Tensor) -> Tensor:
        """The angles of ``(samples, ...)``, same shape, dtype and device; computed in float64."""
        flat = x.detach().to("cpu", torch.float64).reshape(len(x), -1)
        if flat.shape[1] != len(self.minimum):
            raise InputError(
                f"expected {len(self.minimum)} features, as the scaling was fitted to, got {flat.shape[1]}"
            )
        minimum = torch.tensor(self.minimum, dtype=torch.float64)
        width = torch.tensor(self.maximum, dtype=torch.float64) - minimum
        slope = torch.where(width > 0, (self.high - self.low) / width.where(width > 0, torch.ones_like(width)), 0.0)
        angles = self.low + (flat - minimum) * slope
        if self.clip:
            angles = angles.clamp(self.low, self.high)
        return angles.reshape(x.shape).to(x)

    def to_config(self) -> dict[str, Any]:
        """The scaling as JSON holds it."""
        return {
            "kind": "min-max",
            "low": self.low,
            "high": self.high,
            "minimum": list(self.minimum),
            "maximum": list(self.maximum),
            "clip": self.clip,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MinMaxScaling:
        """The scaling that `to_config` wrote; entries it does not know are left aside."""
        if config.get("kind") != "min-max":
            raise InputError(f"expected a scaling of the kind 'min-max', got {config.get('kind')!r}")
        return cls(
            float(config["low"]),
            float(config["high"]),
            tuple(config["minimum"]),
            tuple(config["maximum"]),
            bool(config["clip"]),
        )


def interval(
    scale: str | tuple[float, float], auto: tuple[float, float], shape: tuple[int, ...]
) -> tuple[float, float] | None:
    """The interval that the option `scale` asks for; None: leave the features as they are.

    Args:
        scale: ``"auto"`` (tables are scaled to `auto`, images are not), ``"none"``, or (low, high) in radians.
        auto: what ``"auto"`` means for tables, in radians.
        shape: of the features, ``(samples, ...)``.
    """
    if scale == "none":
        return None
    if scale == "auto":
        return auto if len(shape) == 2 else None
    if not isinstance(scale, tuple | list) or len(scale) != 2:
        raise InputError(f"expected scale 'auto', 'none' or an interval (low, high) in radians, got {scale!r}")
    return float(scale[0]), float(scale[1])
