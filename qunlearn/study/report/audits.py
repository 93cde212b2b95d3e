"""What audits found: each method's figures beside the retrained models', for one request at one setting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from qunlearn.study.report.intervals import interval
from qunlearn.study.report.judging import Side, side
from qunlearn.study.report.kinds import by_kind
from qunlearn.study.report.material import ORIGINAL, RETRAINED, Material
from qunlearn.study.report.views import Band, View

if TYPE_CHECKING:
    from pandas import DataFrame

_NUMBERS = ("value", "low", "high", "retrained", "retrained_low", "retrained_high", "n")


@dataclass(frozen=True)
class Found:
    """One audit of one method.

    Args:
        value: mean over splits, of the means over seeds; NaN where no trial has a value.
        low: of its 95 % interval: over seeds (and splits), for a single model over its samples.
        high: likewise.
        own: the retrained models' values of the same audit.
        n: the samples or models that each value rests on, the fewest of any trial; 0 where unknown.
        trials: how many were audited.
        absent: how many of them have no value.
        reason: why, or what limits the value: the commonest; empty where nothing is to be said.
    """

    value: float
    low: float
    high: float
    own: Band | None
    n: int
    trials: int
    absent: int
    reason: str

    @property
    def side(self) -> Side:
        """Where it lies against the retrained models' range, in either direction."""
        return side(self.value, self.low, self.high, self.own)


class Audited:
    """The audits of one view.

    Args:
        view: the trials of one request at one setting.
        rows: their audits, one row a trial and audit.
    """

    def __init__(self, view: View, rows: DataFrame) -> None:
        self.view = view
        self._rows = rows.astype(dict.fromkeys(_NUMBERS, "float64"))
        self._found: dict[tuple[str, str], Found] = {}
        self._bands: dict[str, Band | None] = {}

    @cached_property
    def names(self) -> list[str]:
        """The audits in the order of the rows, without those that stand for a whole family that has no value."""
        every = [str(name) for name in dict.fromkeys(self._rows["audit"])]
        known = set(self._rows.loc[self._rows["value"].notna(), "audit"])
        return [name for name in every if name in known or not any(one.startswith(f"{name}_") for one in every)]

    @cached_property
    def units(self) -> dict[str, str]:
        """The unit of each audit."""
        return {str(name): str(unit) for name, unit in zip(self._rows["audit"], self._rows["unit"], strict=True)}

    @cached_property
    def methods(self) -> list[str]:
        """The untouched original first, then the audited methods by family; without the retrained models."""
        own = list(dict.fromkeys(self._rows["method"]))
        first = [ORIGINAL] if ORIGINAL in own else []
        return first + by_kind([str(name) for name in own if name not in (ORIGINAL, RETRAINED)])

    @cached_property
    def _groups(self) -> dict[tuple[str, str], DataFrame]:
        return {
            (str(key[0]), str(key[1])): rows  # type: ignore[index]  # the stubs know no key of two
            for key, rows in self._rows.groupby(["method", "audit"], sort=False)
        }

    def found(self, method: str, audit: str) -> Found | None:
        """One audit of one method; None where it was not audited so."""
        key = (method, audit)
        if key not in self._groups:  # "lira" says why a method has no "lira_auc"
            shorter, _, _ = audit.rpartition("_")
            return self.found(method, shorter) if shorter else None
        if key not in self._found:
            self._found[key] = _found(self._groups[key])
        return self._found[key]

    def each(self, audit: str) -> Iterator[tuple[str, Found]]:
        """The methods with this audit, and what it found."""
        for method in self.methods:
            if (one := self.found(method, audit)) is not None:
                yield method, one

    def band(self, audit: str) -> Band | None:
        """The retrained models' values of an audit over all methods' rows."""
        if audit not in self._bands:
            self._bands[audit] = _band(self._rows[self._rows["audit"] == audit])
        return self._bands[audit]

    def n(self, audit: str) -> list[int]:
        """The numbers of samples or models that its values rest on, each once, in order."""
        rows = self._rows[(self._rows["audit"] == audit) & self._rows["value"].notna()]
        return sorted({int(n) for n in rows["n"].dropna()})


def audited(material: Material, found: Sequence[View]) -> list[Audited]:
    """The audits of each view that has any."""
    if material.audits is None or material.audits.empty:
        return []
    rows = [(view, material.audits[material.audits["trial"].isin(view.records["trial"])]) for view in found]
    return [Audited(view, own) for view, own in rows if not own.empty]


def _found(rows: DataFrame) -> Found:
    cells = rows.groupby(["split_seed", "seed"], sort=False)[["value", "low", "high"]].mean().reset_index()
    cells = cells[cells["value"].notna()]
    value, low, high, count = interval(cells["value"].to_numpy(dtype=np.float64), list(cells["split_seed"]))
    if count == 1:  # one model: the interval of the audit itself, over its samples
        low, high = float(cells["low"].iloc[0]), float(cells["high"].iloc[0])
    if set(rows["unit"]) == {"share"} and ((cells["value"] >= 0) & (cells["value"] <= 1)).all():
        low, high = max(low, 0.0), min(high, 1.0)  # a t interval does not know that a share ends there
    absent = rows["value"].isna()
    told = rows.loc[absent, "reason"] if absent.any() else rows["reason"]
    reasons = Counter(str(reason) for reason in told.dropna() if reason)
    n = rows.loc[~absent, "n"].min()
    return Found(
        value, low, high, _band(rows), int(n) if n == n else 0, len(rows), int(absent.sum()),
        reasons.most_common(1)[0][0] if reasons else "",
    )  # fmt: skip


def _band(rows: DataFrame) -> Band | None:
    """Means over what differs within a split, then the least and the most of the splits."""
    own = rows[["split_seed", "retrained", "retrained_low", "retrained_high"]].dropna()
    if own.empty:
        return None
    by_split = own.groupby("split_seed", sort=False).mean()
    ends = float(by_split["retrained_low"].min()), float(by_split["retrained_high"].max())
    return Band(ends[0], float(by_split["retrained"].mean()), ends[1])
