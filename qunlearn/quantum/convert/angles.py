"""An angle as arithmetic on anything: numbers, tensors, the symbols of another library, or text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qunlearn.quantum.circuit import Angle, Factor


def evaluate(angle: Angle, feature: Callable[[int], Any], weight: Callable[[int], Any]) -> Any:
    """The angle in radians, in whatever type `feature` and `weight` return for an index.

    Trivial operations (times 1, plus 0) are left out, so that symbolic angles stay readable.
    """
    if angle.constant:
        return angle.offset
    parts = [_factor(factor, feature(factor.feature)) for factor in angle.factors]
    if angle.weight is not None:
        parts.append(weight(angle.weight))
    value = parts[0] if angle.scale == 1 else angle.scale * parts[0]
    for part in parts[1:]:
        value = value * part
    return value if angle.offset == 0 else value + angle.offset


def _factor(factor: Factor, feature: Any) -> Any:
    if factor.sign == 1:
        return feature if factor.shift == 0 else feature + factor.shift
    if factor.sign == -1:
        return -feature if factor.shift == 0 else factor.shift - feature
    return factor.sign * feature + factor.shift


def text(angle: Angle, feature: str, weight: str) -> str:
    """The angle as arithmetic that OpenQASM 3 reads, with names such as ``x_3`` from ``feature="x_"``."""
    if angle.constant:
        return repr(float(angle.offset))
    parts = [_factor_text(factor, f"{feature}{factor.feature}") for factor in angle.factors]
    parts += [] if angle.weight is None else [f"{weight}{angle.weight}"]
    parts = parts if angle.scale == 1 else [repr(float(angle.scale)), *parts]
    return " * ".join(parts) + (f" + {_signed(angle.offset)}" if angle.offset else "")


def _factor_text(factor: Factor, name: str) -> str:
    if factor.sign == 1 and factor.shift == 0:
        return name
    if factor.sign == -1:
        return f"({float(factor.shift)!r} - {name})"
    product = name if factor.sign == 1 else f"{_signed(factor.sign)} * {name}"
    return f"({product} + {_signed(factor.shift)})"


def _signed(value: float) -> str:
    return repr(float(value)) if value >= 0 else f"({float(value)!r})"
