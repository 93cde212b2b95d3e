"""Methods that cannot work with some model or request: where they are left out, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qunlearn.study.report.material import Material
from qunlearn.study.report.tabling import Plain
from qunlearn.study.report.wording import axis_name

if TYPE_CHECKING:
    from pandas import DataFrame


def left_out(material: Material) -> Plain | None:
    """A row for each method and reason, with all places where it holds; None where every method works everywhere."""
    table = material.left_out
    if table is None or table.empty:
        return None
    groups = table.groupby(["method", "reason"], sort=False)
    rows = tuple((str(key[0]), _where(own, material), str(key[1])) for key, own in groups)
    return Plain("Methods left out", ("method", "where", "reason"), rows)


def _where(rows: DataFrame, material: Material) -> str:
    """The values of each axis that matters; an axis does not where all of the study's values occur."""
    parts = []
    for axis in rows.columns:
        if axis == "method" or axis not in material.axes:
            continue
        own = [str(value) for value in dict.fromkeys(rows[axis].dropna())]
        every = {str(value) for value in material.records[axis].dropna().unique()}
        if own and set(own) != every:
            parts.append(f"{axis_name(axis)} {', '.join(own)}")
    return "; ".join(parts) or "everywhere"
