"""`Guarantee`: what a method vouches for, on what assumptions, and for which parameters."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from qunlearn.errors import InputError

Kind = Literal["exact", "certified", "estimated: not a guarantee"]
EXACT: Kind = "exact"
CERTIFIED: Kind = "certified"
ESTIMATED: Kind = "estimated: not a guarantee"


@dataclass(frozen=True)
class Guarantee:
    """What holds of an unlearned model beside the retrained one, and what has to be assumed for it.

    Attributes:
        kind: ``"exact"`` (the same distribution as retraining), ``"certified"`` (within epsilon and delta of it), or
            ``"estimated: not a guarantee"`` (a constant of the bound was assumed).
        epsilon: of (epsilon, delta)-unlearning, at least 0 and finite; 0 where exact.
        delta: likewise, in [0, 1).
        assumptions: sentences; where one fails, so does the guarantee.
        covers: names of the parameters that it speaks of.
        excludes: sentences on what it does not speak of.
        details: the numbers that it was computed from, as JSON values.

    Raises:
        InputError: for another kind, numbers out of range, or details that are no JSON.
    """

    kind: Kind
    epsilon: float = 0.0
    delta: float = 0.0
    assumptions: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"expected a guarantee of one of the kinds {get_args(Kind)}, got {self.kind!r}")
        if not (0 <= self.epsilon < math.inf and 0 <= self.delta < 1):
            raise InputError(
                f"expected a finite epsilon of at least 0 and delta in [0, 1), got {self.epsilon} and {self.delta}"
            )
        if self.kind == EXACT and (self.epsilon or self.delta):
            raise InputError(f"expected epsilon 0 and delta 0 of what is exact, got {self.epsilon} and {self.delta}")
        if self.kind == ESTIMATED and not self.assumptions:
            raise InputError("expected an estimate to name what it assumes, got no assumptions")
        try:
            json.dumps(self.details, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"expected details of finite JSON values, got {self.details!r}") from error

    def to_dict(self) -> dict[str, Any]:
        """The guarantee as JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}
