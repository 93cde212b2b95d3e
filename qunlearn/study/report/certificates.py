"""Certificates: what methods vouch for, and, strictly apart from it, what is only estimated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qunlearn.study.report.kinds import by_kind
from qunlearn.study.report.material import Material
from qunlearn.study.report.tabling import Plain
from qunlearn.study.report.wording import DASH, method_name

if TYPE_CHECKING:
    from pandas import DataFrame

GUARANTEES = ("exact", "certified")
ESTIMATE = "estimated: not a guarantee"


@dataclass(frozen=True)
class Certificates:
    """Guarantees and estimates, each None where there are none."""

    guarantees: Plain | None
    estimates: Plain | None


def certificates(material: Material) -> Certificates | None:
    """The two tables; None where no method of the study vouches for anything."""
    if "certificate" not in material.records:
        return None
    rows = material.records[material.records["certificate"].notna()]
    firm = rows[rows["certificate"].isin(GUARANTEES)]
    loose = rows[rows["certificate"] == ESTIMATE]
    guarantees = _table("Guarantees", ("method", "forget", "certificate", "epsilon", "delta", "models"), firm,
                        ("epsilon", "delta"))  # fmt: skip
    heads = ("method", "forget", "estimated epsilon", "estimated delta", "models")
    estimates = _table("Estimated: not a guarantee", heads, loose, ("epsilon_estimated", "delta_estimated"))
    return Certificates(guarantees, estimates) if guarantees or estimates else None


def _table(caption: str, heads: tuple[str, ...], rows: DataFrame, numbers: Sequence[str]) -> Plain | None:
    """A row a method, request and kind; what differs from model to model is given from the least to the most."""
    if rows.empty:
        return None
    printed = []
    for method in by_kind([str(name) for name in dict.fromkeys(rows["method"])]):
        own = rows[rows["method"] == method]
        for (request, kind), some in own.groupby(["request", "certificate"], sort=False):
            values = tuple(_range(some, name) for name in numbers)
            named = (str(kind),) if "certificate" in heads else ()
            printed.append((method_name(method), str(request), *named, *values, str(len(some))))
    return Plain(caption, heads, tuple(printed))


def _range(rows: DataFrame, name: str) -> str:
    values = [float(value) for value in rows[name].dropna()] if name in rows else []
    if not values:
        return DASH
    least, most = _number(min(values)), _number(max(values))
    return least if least == most else f"{least} to {most}"


def _number(value: float) -> str:
    return "unbounded" if math.isinf(value) else f"{value:.3g}"
