"""Is there something to forget? How far the untouched original is from the retrained models' own spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qunlearn.study.report.audits import Audited
from qunlearn.study.report.controls import original_told
from qunlearn.study.report.judging import JUDGED, MEMBERSHIP, original_places
from qunlearn.study.report.material import ORIGINAL
from qunlearn.study.report.tabling import Cell, Group, Row, Table
from qunlearn.study.report.views import View
from qunlearn.study.report.wording import DASH, MAIN, Measure, share

_SHOWN = {column.key: column for column in MAIN} | {"gap_forget": share("gap_forget", "Accuracy gap, forget")}
_WORDS = JUDGED | {MEMBERSHIP: "the membership attack"}
_MEASURES = ("js_forget", "gap_forget", "js_test", MEMBERSHIP)


@dataclass(frozen=True)
class Something:
    """The page's part on it.

    Args:
        table: a row a request and setting: the original's values, below each the retrained models' range.
        told: a sentence for each view: its title, whether there is nothing to forget, the sentence.
    """

    table: Table
    told: tuple[tuple[str, bool, str], ...]


def something(found: Sequence[View], audits: Sequence[Audited] = ()) -> Something | None:
    """What there is to forget in each view; None without originals or retrained models to compare.

    Args:
        found: the views.
        audits: of the views that have any; they can find what outputs do not show.
    """
    told = {own.view.title: original_told(own)[1] for own in audits}
    judged = [(view, original_places(view)) for view in found]
    judged = [(view, places) for view, places in judged if places]
    if not judged:
        return None
    keys = [key for key in _MEASURES if any(key in places for _, places in judged)]
    columns = tuple(_column(key) for key in keys)
    rows = tuple(Row(view.title, "method", "", _cells(view, columns, places)) for view, places in judged)
    table = Table("The untouched original, and below each figure the retrained models\u2019 range", columns,
                  (Group("", rows),))  # fmt: skip
    return Something(table, tuple(_told(view, places, told.get(view.title, "")) for view, places in judged))


def _told(view: View, places: dict[str, str], audits: str) -> tuple[str, bool, str]:
    """The title, whether there is nothing to forget, and the sentence; audits have the last word."""
    empty = nothing(places)
    if empty and audits:
        head = (
            "Nothing to forget in the outputs: the original already lies within the retrained models\u2019 range there."
        )
        return view.title, True, f"{head} {audits} A ranking of methods by outputs means nothing here."
    return view.title, empty, _sentence(places)


def nothing(places: dict[str, str]) -> bool:
    """Whether the original lies within the retrained models' range by its outputs, and no attack tells it apart."""
    outputs = {place for key, place in places.items() if key != MEMBERSHIP}
    return outputs == {"within"} and places.get(MEMBERSHIP, "within") in ("within", "unsettled")


def _column(key: str) -> Measure:
    shown = _SHOWN[key]
    return Measure(f"something_{key}", shown.head, shown.unit, shown.meaning, shown.factor, shown.digits)


def _cells(view: View, columns: Sequence[Measure], places: dict[str, str]) -> tuple[Cell, ...]:
    cells = []
    for column in columns:
        key = column.key.removeprefix("something_")
        band = view.band(key)
        if key not in places or band is None:
            cells.append(Cell(DASH, "", math.nan))
            continue
        value = view.value(ORIGINAL, key)[0]
        cells.append(Cell(column.show(value), column.show_interval(band.least, band.most), value, places[key]))
    return tuple(cells)


def _sentence(places: dict[str, str]) -> str:
    beyond = [_WORDS[key] for key, place in places.items() if place not in ("within", "unsettled")]
    unsettled = [_WORDS[key] for key, place in places.items() if place == "unsettled"]
    if beyond:
        return f"Something to forget: the original is beyond the retrained models\u2019 range in {_listed(beyond)}."
    if unsettled == [_WORDS[MEMBERSHIP]]:
        return (
            "Nothing to forget in the outputs: the original already lies within the retrained models\u2019 range "
            "there. Whether the membership attack tells it apart is not settled. A ranking of methods by outputs means "
            "nothing."
        )
    if unsettled:
        return (
            f"Not settled: the original\u2019s mean is outside the retrained models\u2019 range in "
            f"{_listed(unsettled)}, but its interval reaches into it. A ranking of methods here rests on little."
        )
    return (
        "Nothing to forget: the original already lies within the retrained models\u2019 range in all of these. Doing "
        "nothing is as good as retraining here, and a ranking of methods means nothing."
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
