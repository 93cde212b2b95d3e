"""Hyper-parameters: dataclass fields that carry their meaning and their range."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from typing import Any

from qunlearn.errors import InputError, UnknownNameError


def hyper(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[Any] = (),
    search: tuple[float, float] | list[Any] | None = None,
    of_recipe: bool = False,
) -> Any:
    """A hyper-parameter: a dataclass field with its meaning and its range, which the base class enforces.

    Args:
        default: its value where none is given; None allows None.
        doc: its meaning.
        low: the least value allowed.
        high: the largest.
        choices: the values allowed.
        search: where tuning looks: a pair, the ends of a range above 0 on a log scale; or a list, the values to try.
            Without it, tuning leaves the default.
        of_recipe: the ends of that range are multiples of the recipe's value of the same name.
    """
    rule = {"doc": doc, "low": low, "high": high, "choices": tuple(choices), "optional": default is None}
    return field(default=default, metadata={**rule, "search": search, "of_recipe": of_recipe})


def check_hyper(method: str, item: dataclasses.Field[Any], value: Any) -> None:
    """Refuses a value outside the type, range or choices of its field."""
    rule, place = item.metadata, f"{method}: expected {item.name}"
    if not rule or (value is None and rule["optional"]):
        return
    if rule["choices"]:
        if value not in rule["choices"]:
            raise UnknownNameError(f"{item.name} for {method}", value, rule["choices"])
        return
    if isinstance(item.default, str) or "str" in str(item.type):
        expected: type | tuple[type, ...] = str
    else:
        expected = bool if isinstance(item.default, bool) else int if "int" in str(item.type) else (int, float)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise InputError(f"{place} of type {item.type}, got {value!r}")
    if rule["low"] is not None and value < rule["low"]:
        raise InputError(f"{place} of at least {rule['low']}, got {value}")
    if rule["high"] is not None and value > rule["high"]:
        raise InputError(f"{place} of at most {rule['high']}, got {value}")
