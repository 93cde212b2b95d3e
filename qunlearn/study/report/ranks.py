"""Ranks of the methods over all tasks, and the diagram of which of them cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qunlearn.study.report.material import RETRAINED, Material
from qunlearn.study.report.style import INK, MUTED
from qunlearn.study.report.tables import cells
from qunlearn.study.report.wording import method_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from qunlearn.metrics.ranking import Ranking

INDEX = "oracle_distance"
LEAST_METHODS, LEAST_TASKS = 3, 5
_STEP, _BAR = 0.165, 0.075  # inches between two names, and between two bars


@dataclass(frozen=True)
class Ranks:
    """Ranks over tasks, or why there are none.

    Args:
        ranking: what the tests gave; None where there are too few tasks or methods.
        told: the sentences for the page.
    """

    ranking: Ranking | None
    told: str


def task_table(material: Material) -> DataFrame:
    """Mean oracle distance: a row for each task (request and setting), a column a method.

    Means over seeds first, then over splits. Methods that lack a value in any task are left out; the untouched
    original is a method too, the retrained models are not.
    """
    records = material.records[material.records["method"] != RETRAINED]
    axes = ["request", *material.swept]
    own = cells(records, [*axes, "method"], [INDEX])
    by_split = own.groupby([*axes, "method", "split_seed"], sort=False, dropna=False)[INDEX].mean()
    means = by_split.groupby([*axes, "method"], sort=False, dropna=False).mean()
    table = means.unstack("method", sort=False)
    return table[table.columns[table.notna().all()]]


def ranks(material: Material) -> Ranks | None:
    """The ranks of a study's methods; None where the records hold no oracle distance."""
    if INDEX not in material.records or material.records[INDEX].isna().all():
        return None
    table = task_table(material)
    tasks, methods = table.shape
    left_out = [method_name(name) for name in ("none", *material.methods) if name not in table.columns]
    without = f" Left out, because a task lacks their value: {', '.join(left_out)}." if left_out else ""
    if methods < LEAST_METHODS or tasks < LEAST_TASKS:
        return Ranks(None, _too_few(tasks, methods) + without)
    from qunlearn.metrics.ranking import rank

    ranking = rank(table.to_numpy(dtype=np.float64), names=[str(name) for name in table.columns])
    return Ranks(ranking, _tell(ranking, tasks, methods) + without)


def _too_few(tasks: int, methods: int) -> str:
    return (
        f"Ranks over tasks need at least {LEAST_TASKS} tasks (requests times settings) and {LEAST_METHODS} methods; "
        f"this study has {tasks} and {methods}, so no diagram is drawn and no order of methods is claimed."
    )


def _tell(ranking: Ranking, tasks: int, methods: int) -> str:
    head = (
        f"Friedman\u2019s test asks whether {methods} methods, ranked by oracle distance in each of {tasks} tasks "
        f"(requests times settings; 1 is nearest to retraining), could all be alike: p = {ranking.p_value:.2g}. "
        "Nemenyi\u2019s test then compares every pair at 5 %, all pairs together: two methods whose mean ranks differ "
        f"by less than the critical difference, {ranking.critical_difference:.2f}, cannot be told apart."
    )
    if ranking.critical_difference >= methods - 1:
        return f"{head} That is more than all the ranks there are: with so few tasks nothing can be told apart."
    return head


def rank_figure(ranking: Ranking) -> Figure | None:
    """The critical-difference diagram; None where no difference of ranks could reach the critical one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(ranking.names)
    if ranking.critical_difference >= count - 1:
        return None
    bars = _bars(ranking)
    depth = _BAR * (len(bars) + 1.5) + _STEP * (-(-count // 2)) + 0.1
    height = depth + 0.75
    figure = Figure(figsize=(7.1, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.24, 0.0, 0.52, 1.0 - 0.55 / height))
    axes.set(xlim=(1, count), ylim=(depth + 0.15, -0.05))
    axes.grid(visible=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["top"].set(visible=True, position=("data", 0.0))
    axes.xaxis.tick_top()
    axes.set_xticks(_ticks(count))
    axes.set_yticks([])
    axes.set_title("Mean rank (1: nearest to retraining)", fontsize=7.5, fontweight="normal", pad=14.0, loc="center")
    for number, (left, right) in enumerate(bars):
        y = _BAR * (number + 1)
        axes.plot([left - 0.12, right + 0.12], [y, y], color=INK, linewidth=2.2, solid_capstyle="butt", clip_on=False)
    _names(axes, ranking, _BAR * (len(bars) + 1.5))
    _ruler(axes, ranking, depth)
    return figure


def _bars(ranking: Ranking) -> list[tuple[float, float]]:
    """From which to which mean rank each group of methods that cannot be told apart reaches; of two or more."""
    groups = [[float(ranking.ranks[index]) for index in group] for group in ranking.groups if len(group) > 1]
    return sorted((min(group), max(group)) for group in groups)


def _ticks(count: int) -> list[int]:
    step = 1 if count <= 12 else 5
    return sorted({1, count, *range(step, count - step // 2, step)})


def _names(axes: Axes, ranking: Ranking, start: float) -> None:
    """Each method's name at the side that is nearer, with a line from its rank on the axis."""
    order = np.argsort(ranking.ranks, kind="stable")
    half = -(-len(order) // 2)
    for place, index in enumerate(order):
        value, name = float(ranking.ranks[index]), method_name(ranking.names[index])
        left = place < half
        row = place if left else len(order) - 1 - place
        y = start + _STEP * (row + 0.5)
        x, align, shift = (0.0, "right", -4.0) if left else (1.0, "left", 4.0)
        end = axes.get_xlim()[0 if left else 1]
        axes.plot([value, value, end], [0.0, y, y], color=MUTED, linewidth=0.6, clip_on=False, zorder=1)
        text = f"{name}  {value:.1f}" if left else f"{value:.1f}  {name}"
        axes.annotate(
            text, (x, y), (shift, 0.0), xycoords=axes.get_yaxis_transform(), textcoords="offset points", ha=align,
            va="center", fontsize=6.8, annotation_clip=False,
        )  # fmt: skip


def _ruler(axes: Axes, ranking: Ranking, y: float) -> None:
    """The critical difference to scale, in the middle under the names."""
    middle, half = float(np.mean(axes.get_xlim())), ranking.critical_difference / 2
    axes.plot([middle - half, middle + half], [y, y], color=INK, linewidth=0.9, marker="|", markersize=5, clip_on=False)
    axes.annotate(
        f"critical difference {ranking.critical_difference:.2f}", (middle, y), (0.0, 3.0), textcoords="offset points",
        ha="center", va="bottom", fontsize=6.5, color=MUTED,
    )  # fmt: skip


def rank_alt(ranking: Ranking) -> str:
    """The diagram in words."""
    order = np.argsort(ranking.ranks, kind="stable")
    listed = "; ".join(f"{method_name(ranking.names[index])} {ranking.ranks[index]:.2f}" for index in order)
    groups = _group_words([[ranking.names[index] for index in group] for group in ranking.groups if len(group) > 1])
    return f"Critical-difference diagram, mean ranks over {ranking.n} tasks: {listed}. Not told apart: {groups}."


def _group_words(groups: Sequence[Sequence[str]]) -> str:
    return "; ".join(", ".join(method_name(name) for name in group) for group in groups) or "none"
