"""Paired comparisons: each method minus one of them, on the same splits and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qunlearn.metrics.statistics import hierarchical_bootstrap
from qunlearn.study.report.kinds import by_kind, is_control
from qunlearn.study.report.material import ORIGINAL
from qunlearn.study.report.tabling import Cell, Group, Row, Table
from qunlearn.study.report.views import View, slug
from qunlearn.study.report.wording import MAIN, Measure, method_name, share

if TYPE_CHECKING:
    from pandas import DataFrame

_COMPARED = ("oracle_distance", "js_forget", "gap_forget", "js_test")
_SHOWN = {column.key: column for column in MAIN} | {"gap_forget": share("gap_forget", "Accuracy gap, forget")}


@dataclass(frozen=True)
class Paired:
    """The comparisons of one view.

    Args:
        title: of the view.
        anchor: of its table.
        table: one row a method.
        told: against whom, and why that one.
    """

    title: str
    anchor: str
    table: Table
    told: str


def paired(view: View, number: int, rankings: Sequence[Mapping[str, Any]] = ()) -> Paired | None:
    """Every method minus the reference; None where there are fewer than two methods or nothing to compare.

    Args:
        view: the trials.
        number: of the view, for the anchor.
        rankings: the study's rankings by validation.
    """
    columns = [_SHOWN[key] for key in _COMPARED if key in view.cells and view.cells[key].notna().any()]
    if len(view.methods) < 2 or not columns:
        return None
    base, why = _reference(view, rankings)
    order = [name for name in (ORIGINAL, *by_kind(view.methods)) if name in view.means.index and name != base]
    rows = [_row(view, name, base, columns) for name in order]
    rows = [row for row in rows if any(math.isfinite(cell.value) for cell in row.cells)]
    if not rows:
        return None
    caption = f"{view.title}: each method minus {method_name(base)}; negative is nearer to retraining"
    anchor = f"paired-{number}-{slug(view.title)}"
    return Paired(view.title, anchor, Table(caption, tuple(columns), (Group("", tuple(rows)),)), why)


def _reference(view: View, rankings: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The method that validation ranks first; without rankings fine-tuning, or the first method."""
    if (best := best_by_validation(view, rankings)) is not None:
        return best, f"{best} is the method that the validation set ranks first here"
    plain = next((name for name in view.methods if name.startswith("fine-tune")), None)
    if plain is not None:
        return plain, f"{plain} is the simplest method: anything that forgets has to do better"
    return view.methods[0], f"{view.methods[0]} is the first method of the study file"


def best_by_validation(view: View, rankings: Sequence[Mapping[str, Any]]) -> str | None:
    """The method with the best mean place in the rankings of a view's cells, controls left out; None without any."""
    where = {"request": view.request} | {axis: None if v != v else v for axis, v in view.setting.items()}
    fitting = [one["order"] for one in rankings if all(one["row"].get(axis) == v for axis, v in where.items())]
    ranked = [name for name in view.methods if fitting and all(name in order for order in fitting)]
    ranked = [name for name in ranked if not is_control(name)]
    return min(ranked, key=lambda name: sum(order.index(name) for order in fitting)) if ranked else None


def _row(view: View, name: str, base: str, columns: Sequence[Measure]) -> Row:
    cells = tuple(_cell(*differences(view.cells, name, base, column.key), column) for column in columns)
    return Row(method_name(name), "original" if name == ORIGINAL else "method", "", cells)


def differences(
    cells: DataFrame, name: str, base: str, measure: str
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """The values of two methods on their common splits and seeds, a pair of arrays a split, seeds in order."""
    both = [_values(cells, method, measure) for method in (name, base)]
    common = sorted(both[0].keys() & both[1].keys())
    splits = sorted({split for split, _ in common})
    one, other = ([np.array([own[key] for key in common if key[0] == split]) for split in splits] for own in both)
    return one, other


def _values(cells: DataFrame, method: str, measure: str) -> dict[tuple[Any, Any], float]:
    """By split and seed the values of a method that there are."""
    own = cells.loc[cells["method"] == method, ["split_seed", "seed", measure]].dropna()
    return {(split, seed): value for split, seed, value in own.itertuples(index=False)}


def _cell(one: list[NDArray[np.float64]], other: list[NDArray[np.float64]], column: Measure) -> Cell:
    if not one:
        return Cell(column.show(math.nan), "", math.nan)
    found = hierarchical_bootstrap([a - b for a, b in zip(one, other, strict=True)])
    settled = math.isfinite(found.low) and math.isfinite(found.high)
    place = "nearer" if settled and found.high < 0 else "further" if settled and found.low > 0 else "even"
    return Cell(column.show(found.mean), column.show_interval(found.low, found.high), found.mean, place)
