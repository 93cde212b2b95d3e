"""The trials of a sweep over depth and entanglement: circuits, controls, and where nothing is to forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qunlearn.evaluation.measures import COMPARED
from qunlearn.evaluation.verdict import VERDICTS
from qunlearn.study.report.judging import original_places
from qunlearn.study.report.material import ORIGINAL, RETRAINED, Material
from qunlearn.study.report.something import nothing
from qunlearn.study.report.views import View
from qunlearn.study.report.wording import setting_name

if TYPE_CHECKING:
    from pandas import DataFrame, Series

DISTANCE = "oracle_distance"
CIRCUIT, EQUAL = "circuit", "equal weights"
FIXED = "as drawn"  # the pattern of a card that has no choice of one
ARMS = {"twin": "classical twin", "frozen": "frozen circuit"}
_JUDGED = ("js_forget", "gap_forget", "js_test", "membership_auc")


@dataclass(frozen=True, eq=False)
class Sweep:
    """The trials of a study that sweeps depth or entanglement.

    Attributes:
        rows: trials with ``arm``, ``block`` (what else is swept), ``log_distance``, what that is the ratio of:
            ``log_divergence`` from the retrained models and ``log_spread`` of these (both the mean over the sets),
            ``excess`` (divergence on the forget set beyond the retrained models' own, nats), ``memorised`` (of the
            original of the same seed).
        cells: what was measured beside each cell, with ``arm``, ``block`` and ``empty``: nothing to forget there.
        requests: in the plan's order.
        others: the swept axes that make blocks.
    """

    rows: DataFrame
    cells: DataFrame | None
    requests: tuple[str, ...]
    others: tuple[str, ...]

    def arm(self, name: str) -> DataFrame:
        """The trials of one arm; of equal weights those of the deepest circuits too, which set the number."""
        if name != EQUAL:
            return self.rows[self.rows["arm"] == name]
        return self.rows[self.rows["equal"]]

    @property
    def arms(self) -> list[str]:
        """The arms there are."""
        found = [name for name in (CIRCUIT, *ARMS.values()) if (self.rows["arm"] == name).any()]
        return [*found, EQUAL] if (self.rows["arm"] == EQUAL).any() else found


def sweep_of(material: Material) -> Sweep | None:
    """The sweep; None where neither depth nor entanglement is swept, or distances have no yardstick."""
    records = material.records
    swept = [axis for axis in ("depth", "entanglement") if axis in material.swept]
    if not swept or DISTANCE not in records or not records[DISTANCE].notna().any():
        return None
    known = {"depth", "entanglement", "circuit", "model.control", "model.hidden"}
    others = tuple(axis for axis in material.swept if axis not in known)
    if "circuit" in material.swept and len({_card(name) for name in records["circuit"]}) > 1:
        others = ("card", *others)
    rows = _armed(records.copy(), records["circuit"])
    rows["block"] = [
        setting_name(dict(zip(others, values, strict=True))) if others else ""
        for values in rows[list(others)].itertuples(index=False, name=None)
    ]
    rows["entanglement"] = rows["entanglement"].fillna(FIXED)
    rows["log_distance"] = np.log(rows[DISTANCE].clip(lower=1e-6))
    rows["log_divergence"], rows["log_spread"] = _log_mean(rows, "js_{}"), _log_mean(rows, "js_{}_floor")
    rows["excess"] = rows["js_forget"] - rows["js_forget_floor"] if "js_forget_floor" in rows else np.nan
    rows["memorised"] = rows["original_accuracy_forget"] - rows["retrained_accuracy_forget"]
    cells = None if material.cells is None else _with_arms(material.cells, rows)
    return Sweep(rows, cells, tuple(material.requests), others)


def _log_mean(rows: DataFrame, name: str) -> Any:
    columns = [name.format(part) for part in COMPARED]
    return np.log(rows[columns].mean(axis=1).clip(lower=1e-12)) if set(columns) <= set(rows.columns) else np.nan


def _control(circuit: str) -> str:
    return next((name for mark, name in _MARKS.items() if circuit.endswith(mark)), "")


def _card(circuit: str) -> str:
    return next((circuit.removesuffix(mark) for mark in _MARKS if circuit.endswith(mark)), circuit)


_MARKS = {" (classical twin)": ARMS["twin"], " (frozen)": ARMS["frozen"]}


def _armed(rows: DataFrame, circuits: Series[str]) -> DataFrame:
    """With the arm of each trial: its control, else the head that most depths have, else equal weights."""
    hidden = "model.hidden"
    control = circuits.map(_control)
    plain = control == ""
    arm = control.where(~plain, CIRCUIT)
    equal = np.zeros(len(rows), dtype=bool)
    if hidden in rows and rows.loc[plain, hidden].nunique() > 1:
        depths = rows[plain].groupby(hidden)["depth"].nunique()
        usual = depths.idxmax()
        arm = arm.where(~plain | (rows[hidden] == usual), EQUAL)
        deepest = rows.loc[plain, "depth"].max()
        equal = np.asarray(plain & ((rows[hidden] != usual) | (rows["depth"] == deepest)))
    return rows.assign(arm=arm, equal=equal, card=circuits.map(_card))


def _with_arms(cells: DataFrame, rows: DataFrame) -> DataFrame:
    """The cells with arm and block, and whether there is nothing to forget in each."""
    keys = [name for name in cells.columns if name in rows.columns and name not in _FIGURES]
    known = rows.drop_duplicates(keys)[[*keys, "arm", "equal", "block"]]
    cells = cells.assign(entanglement=cells["entanglement"].fillna(FIXED))
    joined = cells.merge(known, on=keys, how="left")
    references = rows[rows["method"].isin([ORIGINAL, RETRAINED])]
    measures = tuple(name for name in references.columns if name.startswith(_JUDGED))
    empty = {}
    for values, own in references.groupby(keys, sort=False, dropna=False):
        places = original_places(View("", {}, 1, own, measures))
        empty[as_text(values)] = bool(places) and nothing(places)
    joined["empty"] = [empty.get(as_text(values), False) for values in joined[keys].itertuples(index=False, name=None)]
    return joined


_FIGURES = ("weights", "circuit_weights", "memorised")


def as_text(values: Any) -> str:
    """Values of a cell as a name."""
    return "|".join(map(str, values if isinstance(values, tuple) else (values,)))


def verdict_counts(rows: DataFrame) -> DataFrame:
    """By method, depth and pattern: how many trials have each verdict, columns `VERDICTS`."""
    import pandas as pd

    known = rows[rows["verdict"].isin(VERDICTS)]
    table = pd.crosstab([known["method"], known["depth"], known["entanglement"]], known["verdict"])
    return table.reindex(columns=list(VERDICTS), fill_value=0)
