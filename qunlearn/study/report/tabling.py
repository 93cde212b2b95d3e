"""Tables of the page: what a cell, a row and a table are, and how views become them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qunlearn.study.report.judging import judge
from qunlearn.study.report.kinds import by_kind
from qunlearn.study.report.material import ORIGINAL, RETRAINED
from qunlearn.study.report.views import View
from qunlearn.study.report.wording import Measure, method_name

if TYPE_CHECKING:
    from markupsafe import Markup
    from pandas import DataFrame


@dataclass(frozen=True)
class Cell:
    """One number of a table: as printed, its interval, and in full for sorting.

    Args:
        text: the number as printed.
        interval: its limits as printed.
        value: the number in full.
        place: where it lies against the retrained models' range, such as ``within``; empty where that is not told.
        bar: a small drawing of both.
        note: the number of a footnote; 0 for none.
    """

    text: str
    interval: str
    value: float
    place: str = ""
    bar: Markup | str = ""
    note: int = 0


@dataclass(frozen=True)
class Row:
    """One model in a table; reference rows (original, retrained) stand on top however the table is sorted."""

    name: str
    kind: str
    place: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Group:
    """Rows under one heading; the heading is empty where there is one group."""

    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """One table of the page."""

    caption: str
    columns: tuple[Measure, ...]
    groups: tuple[Group, ...]
    places: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plain:
    """A table of texts."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def table_of(caption: str, columns: Sequence[Measure], found: Sequence[View], places: bool = False) -> Table:
    """A table with a group of rows for each view, and the columns that hold a number in any of them."""
    columns = [column for column in columns if any(view.means[column.key].notna().any() for view in found)]
    groups = []
    for view in found:
        judged = {verdict.method: verdict.place for verdict in judge(view)} if places else {}
        order = [name for name in (ORIGINAL, RETRAINED) if name in view.means.index] + by_kind(view.methods)
        rows = tuple(row_of(name, view.means.loc[[name]], columns, judged.get(name, "")) for name in order)
        groups.append(Group(view.title if len(found) > 1 else "", rows))
    return Table(caption, tuple(columns), tuple(groups), places)


def row_of(name: str, means: DataFrame, columns: Sequence[Measure], place: str) -> Row:
    """A method's row from its means and limits, one row of a frame."""
    kind = {ORIGINAL: "original", RETRAINED: "retrained"}.get(name, "method")
    cells = []
    for column in columns:
        value, low, high = (float(means[f"{column.key}{end}"].iloc[0]) for end in ("", "_ci_low", "_ci_high"))
        cells.append(Cell(column.show(value), column.show_interval(low, high), value))
    return Row(method_name(name), kind, place, tuple(cells))
