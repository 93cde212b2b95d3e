"""Which models lie within the retrained models' own range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qunlearn.study.report.intervals import interval
from qunlearn.study.report.material import ORIGINAL
from qunlearn.study.report.views import Band, View

Place = Literal["within", "unsettled", "beyond"]
Side = Literal["within", "unsettled", "above", "below", ""]

MEMBERSHIP = "membership_auc"

ROUNDING = 1e-9  # retrained models of an exact method may be equal, and what it leaves is so but for rounding
JUDGED = {
    "gap_forget": "accuracy on the forget set",
    "js_forget": "predictions on the forget set",
    "js_test": "predictions on the test set",
}


@dataclass(frozen=True)
class Verdict:
    """Where one model stands for one request, by each judged measure and in all."""

    method: str
    places: dict[str, Place]

    @property
    def place(self) -> Place:
        """Beyond if any measure is, within if all are, else unsettled."""
        found = set(self.places.values())
        if "beyond" in found:
            return "beyond"
        return "within" if found == {"within"} else "unsettled"


def place(values: NDArray[np.float64], splits: Sequence[object], band: Band) -> Place:
    """Within: the mean is no further than the furthest retrained model. Beyond: not even the lower limit is.

    Args:
        values: float64, ``(trials,)``, one measure of one method.
        splits: the split of each trial.
        band: the retrained models' own values.
    """
    mean, low, _, _ = interval(values, splits)
    most = band.most + ROUNDING
    if mean <= most:
        return "within"
    return "beyond" if low > most else "unsettled"


def judge(view: View) -> list[Verdict]:
    """The verdict on the original, then on each method; models without a judged measure are left out."""
    measures = [measure for measure in JUDGED if measure in view.cells]
    verdicts = []
    for method in (ORIGINAL, *view.methods):
        places: dict[str, Place] = {}
        for measure in measures:
            band = view.band_of(method, measure)
            values = view.rows(method)[measure].to_numpy(dtype=np.float64)
            known = np.isfinite(values)
            if band and known.any():
                places[measure] = place(values[known], list(view.rows(method)["split_seed"].to_numpy()[known]), band)
        if places:
            verdicts.append(Verdict(method, places))
    return verdicts


def original_places(view: View) -> dict[str, str]:
    """Where the untouched original lies by each judged measure and by the membership attack.

    The attack counts in both directions: ``above`` and ``below`` are both beyond the range. Empty without a yardstick.
    """
    places: dict[str, str] = {}
    for verdict in judge(view):
        if verdict.method == ORIGINAL:
            places.update(verdict.places)
    band = view.band(MEMBERSHIP) if MEMBERSHIP in view.cells else None
    if places and band is not None and view.has(ORIGINAL, MEMBERSHIP):
        places[MEMBERSHIP] = side(*view.value(ORIGINAL, MEMBERSHIP), band)
    return places


def side(value: float, low: float, high: float, band: Band | None) -> Side:
    """Where a figure lies against the retrained models' range, in either direction; empty where that is not known.

    Within: the value is in the range. Above or below: its whole interval is outside. Unsettled: neither, or outside
    without an interval.
    """
    if band is None or not math.isfinite(value):
        return ""
    least, most = band.least - ROUNDING, band.most + ROUNDING
    if least <= value <= most:
        return "within"
    if value > most:
        return "above" if low > most else "unsettled"
    return "below" if high < least else "unsettled"
