"""What audits found: each method's figures beside the retrained models', for one request at one setting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qunlearn.study.report.intervals import interval
from qunlearn.study.report.judging import Side, side
from qunlearn.study.report.kinds import by_kind
from qunlearn.study.report.material import ORIGINAL, RETRAINED, Material
from qunlearn.study.report.views import Band, View

if TYPE_CHECKING:
    from pandas import DataFrame

Floats = NDArray[np.float64]
Key = tuple[str, str]  # method and audit

_BOUNDED = ("share", "steps", "samples")
_KEY = ["method", "audit"]
_NOTHING = (np.empty(0), np.empty(0), np.empty(0), np.empty(0))
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
        self._found: dict[Key, Found] = {}

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

    def found(self, method: str, audit: str) -> Found | None:
        """One audit of one method; None where it was not audited so."""
        key = (method, audit)
        if key not in self._counts:  # "probe" says why a method has no "probe_rbf_circuit"
            shorter, _, _ = audit.rpartition("_")
            return self.found(method, shorter) if shorter else None
        if key not in self._found:
            self._found[key] = self._make(key)
        return self._found[key]

    def each(self, audit: str) -> Iterator[tuple[str, Found]]:
        """The methods with this audit, and what it found."""
        for method in self.methods:
            if (one := self.found(method, audit)) is not None:
                yield method, one

    def band(self, audit: str) -> Band | None:
        """The retrained models' values of an audit over all methods' rows."""
        return self._audit_bands.get((audit,))

    def n(self, audit: str) -> list[int]:
        """The numbers of samples or models that its values rest on, each once, in order."""
        return sorted({one.n for _, one in self.each(audit) if one.n})

    def _make(self, key: Key) -> Found:
        values, lows, highs, splits = self._values.get(key, _NOTHING)
        value, low, high, count = interval(values, list(splits))
        if count == 1:  # one model: the interval of the audit itself, over its samples
            low, high = float(lows[0]), float(highs[0])
        low, high = _cut(low, high, values, self.units[key[1]])
        trials, absent, n = self._counts[key]
        reasons = self._reasons.get((*key, bool(absent)), Counter())
        reason = reasons.most_common(1)[0][0] if reasons else ""
        return Found(value, low, high, self._bands.get(key), n, trials, absent, reason)

    # What all audits need is found for all of them at once: a study has many thousands.

    @cached_property
    def _values(self) -> dict[Key, tuple[Floats, Floats, Floats, Floats]]:
        """By method and audit the values, limits and splits of every split and seed that has one."""
        means = self._rows.groupby([*_KEY, "split_seed", "seed"], sort=False)[["value", "low", "high"]].mean()
        cells = means[means["value"].notna()].reset_index()
        columns = [cells[name].to_numpy(dtype=np.float64) for name in ("value", "low", "high", "split_seed")]
        places: dict[Key, list[int]] = {}
        for place, key in enumerate(zip(cells["method"], cells["audit"], strict=True)):
            places.setdefault(key, []).append(place)
        return {
            key: (columns[0][own], columns[1][own], columns[2][own], columns[3][own]) for key, own in places.items()
        }

    @cached_property
    def _counts(self) -> dict[Key, tuple[int, int, int]]:
        """By method and audit how many were audited, how many have no value, and the least n of a value."""
        table = self._rows.assign(
            absent=self._rows["value"].isna(), n=self._rows["n"].where(self._rows["value"].notna())
        )
        found = table.groupby(_KEY, sort=False).agg(trials=("absent", "size"), absent=("absent", "sum"), n=("n", "min"))
        columns = (found["trials"], found["absent"], found["n"].fillna(0))
        return {key: (int(a), int(b), int(n)) for key, a, b, n in zip(found.index, *columns, strict=True)}

    @cached_property
    def _reasons(self) -> dict[tuple[str, str, bool], Counter[str]]:
        """By method, audit and whether a value is missing, the reasons of these rows (of all, where none is)."""
        found: dict[tuple[str, str, bool], Counter[str]] = {}
        rows = self._rows
        for method, audit, value, reason in zip(*(rows[name] for name in (*_KEY, "value", "reason")), strict=True):
            if isinstance(reason, str) and reason:
                found.setdefault((method, audit, bool(value != value)), Counter())[reason] += 1
        return found

    @cached_property
    def _bands(self) -> dict[tuple[str, ...], Band]:
        return _bands(self._rows, list(_KEY))

    @cached_property
    def _audit_bands(self) -> dict[tuple[str, ...], Band]:
        return _bands(self._rows, ["audit"])


def audited(material: Material, found: Sequence[View]) -> list[Audited]:
    """The audits of each view that has any."""
    if material.audits is None or material.audits.empty:
        return []
    rows = [(view, material.audits[material.audits["trial"].isin(view.records["trial"])]) for view in found]
    return [Audited(view, own) for view, own in rows if not own.empty]


def _cut(low: float, high: float, values: Floats, unit: str) -> tuple[float, float]:
    """An interval cut to what the unit allows: a t interval does not know that steps begin at 0 and shares end at 1."""
    if not len(values) or unit not in _BOUNDED or values.min() < 0:
        return low, high
    return max(low, 0.0), min(high, 1.0) if unit == "share" and values.max() <= 1 else high


def _bands(rows: DataFrame, by: list[str]) -> dict[tuple[str, ...], Band]:
    """The retrained models' values: means over what differs within a split, then the least and most of the splits."""
    own = rows[[*by, "split_seed", "retrained", "retrained_low", "retrained_high"]].dropna()
    by_split = own.groupby([*by, "split_seed"], sort=False).mean().groupby(level=by, sort=False)
    ends = by_split["retrained_low"].min(), by_split["retrained"].mean(), by_split["retrained_high"].max()
    keys = [key if isinstance(key, tuple) else (key,) for key in ends[0].index]
    return {key: Band(float(a), float(b), float(c)) for key, a, b, c in zip(keys, *ends, strict=True)}
