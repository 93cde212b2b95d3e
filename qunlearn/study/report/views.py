"""What one panel or table shows: the trials of one forget request at one setting of the other axes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qunlearn.study.report.material import ORIGINAL, RETRAINED, Material
from qunlearn.study.report.tables import cells, summarise
from qunlearn.study.report.wording import setting_name

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_SETTINGS = 4  # with more, panels and main tables show means over them


@dataclass(frozen=True)
class Band:
    """The retrained models' own values of a measure: least, mean and most."""

    least: float
    mean: float
    most: float


@dataclass(frozen=True, eq=False)
class View:
    """The trials of one request, at one setting or averaged over `averaged` of them.

    Args:
        request: the forget request's label.
        setting: value of each axis held fixed.
        averaged: how many settings are averaged over; 1 for none.
        records: the trials.
        measures: the numeric columns.
    """

    request: str
    setting: dict[str, object]
    averaged: int
    records: DataFrame
    measures: tuple[str, ...]

    @property
    def title(self) -> str:
        """The panel's title."""
        parts = [f"Forget {self.request}"]
        if self.setting:
            parts.append(setting_name(self.setting))
        if self.averaged > 1:
            parts.append(f"mean of {self.averaged} settings")
        return ", ".join(parts)

    @cached_property
    def cells(self) -> DataFrame:
        """One row a method, split and seed."""
        return cells(self.records, ["method"], self.measures)

    @cached_property
    def _by_method(self) -> dict[str, DataFrame]:
        return {str(name): rows for name, rows in self.cells.groupby("method", sort=False)}

    @cached_property
    def _bands(self) -> dict[tuple[str, str], Band | None]:
        return {}  # filled as they are asked for: verdicts and figures ask again and again

    def rows(self, method: str) -> DataFrame:
        """The cells of one method; none where the view does not hold it."""
        return self._by_method.get(method, self.cells.iloc[:0])

    @cached_property
    def means(self) -> DataFrame:
        """Mean, ``_ci_low`` and ``_ci_high`` of every measure, indexed by method in the plan's order."""
        return summarise(self.records, ["method"], self.measures).set_index("method")

    @property
    def methods(self) -> list[str]:
        """The methods, without the original and the retrained models."""
        return [name for name in self.means.index if name not in (ORIGINAL, RETRAINED)]

    @cached_property
    def _numbers(self) -> dict[str, dict[str, float]]:
        rows: list[dict[str, Any]] = self.means.reset_index().to_dict("records")  # type: ignore[assignment]
        return {row["method"]: row for row in rows}

    def has(self, method: str, *measures: str) -> bool:
        """Whether the view holds finite means of these measures for a method."""
        own = self._numbers.get(method, {})
        return all(np.isfinite(own.get(measure, np.nan)) for measure in measures) and bool(own)

    def value(self, method: str, measure: str) -> tuple[float, float, float]:
        """Mean, lower and upper limit."""
        own = self._numbers[method]
        return own[measure], own[f"{measure}_ci_low"], own[f"{measure}_ci_high"]

    def band(self, measure: str) -> Band | None:
        """The retrained models' own values: from their rows, else from the floors in the other rows."""
        own = self.rows(RETRAINED)[measure].dropna() if measure in self.cells else ()
        if len(own):
            return Band(float(min(own)), float(np.mean(own)), float(max(own)))
        return _floor(self.cells, measure)

    def band_of(self, method: str, measure: str) -> Band | None:
        """The values of the retrained models that a method was compared with.

        Those of a method that trains its own way were trained so too, and have another spread.
        """
        key = (method, measure)
        if key not in self._bands:
            self._bands[key] = _floor(self.rows(method), measure) or self.band(measure)
        return self._bands[key]


def _floor(cells: DataFrame, measure: str) -> Band | None:
    """The retrained models' values as the rows of other models name them; None where they don't."""
    floors = [f"{measure}_floor_low", f"{measure}_floor", f"{measure}_floor_high"]
    if not set(floors) <= set(cells):
        return None
    low, mean, high = (cells[name].dropna() for name in floors)
    return Band(float(low.min()), float(mean.mean()), float(high.max())) if len(low) and len(high) else None


def views(material: Material) -> list[View]:
    """One view a request and setting, or where there are too many settings one a request, noise and shots."""
    records = material.records.merge(material.times[["trial", "seconds"]], on="trial", how="left")
    measures = (*material.measures, "seconds")
    apart = material.swept
    if _count(records, apart) > MOST_SETTINGS:
        apart = material.conditions  # a mean over noise says nothing of any
    if _count(records, apart) > MOST_SETTINGS:
        apart = []
    averaged = _count(records, [axis for axis in material.swept if axis not in apart])
    found = []
    for request, rows in records.groupby("request", sort=False):
        for values, some in rows.groupby(apart, sort=False, dropna=False) if apart else [((), rows)]:
            setting = dict(zip(apart, values if isinstance(values, tuple) else (values,), strict=True))
            found.append(View(str(request), setting, averaged, some, measures))
    return found


def _count(records: DataFrame, axes: list[str]) -> int:
    """How many settings of these axes there are."""
    return len(records[axes].drop_duplicates()) if axes else 1


def slug(text: str) -> str:
    """A name fit for files and anchors: ``5 %`` becomes ``5-percent``."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("%", "percent")).strip("-")
