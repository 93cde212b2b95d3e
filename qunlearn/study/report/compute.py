"""Equal compute: what a method spends, against how far it stays from the retrained models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qunlearn.study.report.kinds import by_kind
from qunlearn.study.report.material import ORIGINAL, RETRAINED
from qunlearn.study.report.panels import (
    Panel,
    Points,
    Step,
    draw_band,
    draw_bars,
    draw_mark,
    draw_retrained,
    from_zero,
    label,
    large,
    logarithmic,
    wrapped,
)
from qunlearn.study.report.style import MUTED, marks
from qunlearn.study.report.tabling import Cell, Group, Row, Table
from qunlearn.study.report.views import View
from qunlearn.study.report.wording import Measure, method_name, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = {
    "gradient_evaluations": "Gradient evaluations (samples)",
    "circuit_evaluations": "Circuit evaluations (samples)",
}
_UP = {"oracle_distance": "Oracle distance", "js_forget": "JS divergence, forget set (nats)"}


def cost(view: View, methods: Sequence[str]) -> list[Panel]:
    """Two panels: distance against gradient evaluations, and against circuit evaluations (across, logarithmic)."""
    up = next((key for key in _UP if any(view.has(name, key) for name in view.methods)), None)
    if up is None:
        return []
    return [panel for across in COSTS if (panel := _panel(view, methods, across, up)) is not None]


def _panel(view: View, methods: Sequence[str], across: str, up: str) -> Panel | None:
    shown = [name for name in view.methods if view.has(name, across, up)]
    if not shown:
        return None
    points: Points = {name: (view.value(name, across)[0], view.value(name, up)[0]) for name in shown}

    def draw(axes: Axes) -> Step:
        return _draw(axes, view, methods, points, across, up)

    listed = "; ".join(f"{method_name(name)} {x:.0f}, {y:.3f}" for name, (x, y) in points.items())
    head = f"Scatter plot, {view.title}: {COSTS[across].lower()} and {_UP[up]}. "
    alt = f"{head}{listed}.{_share_words(view, across)}"
    return Panel(view.request, alt, draw, **large(len(shown)))


def _draw(axes: Axes, view: View, methods: Sequence[str], points: Points, across: str, up: str) -> Step:
    band = view.band(up)
    if band:
        draw_band(axes, band, 1.0, "y")
    for name, point in points.items():
        draw_bars(axes, (point[0],) * 3, view.value(name, up), marks(methods)[name])
        draw_mark(axes, *point, marks(methods)[name])
    named = dict(points)
    if band and view.has(RETRAINED, across):
        named[RETRAINED] = (view.value(RETRAINED, across)[0], band.mean)
        draw_retrained(axes, *named[RETRAINED])
        axes.axvline(named[RETRAINED][0], color=MUTED, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
    logarithmic(axes, [point[0] for point in named.values()])
    axes.margins(0.14)
    axes.set(xlabel=COSTS[across], ylabel=_UP[up])
    axes.set_title(wrapped(view.title))
    from_zero(axes, "y", band)
    _frontier(axes, points)
    return lambda: label(axes, named)


def _frontier(axes: Axes, points: Points) -> None:
    """A thin stair through the methods than which no other is both cheaper and nearer."""
    left, right = axes.get_xlim()
    best = frontier(points)
    if len(best) < 2:
        return
    x = [points[name][0] for name in best]
    y = [points[name][1] for name in best]
    axes.step([*x, right], [*y, y[-1]], where="post", color=MUTED, linewidth=0.6, alpha=0.7, zorder=1.5)
    axes.set_xlim(left, right)


def frontier(points: Points) -> list[str]:
    """The methods than which no other is both cheaper and nearer, from the cheapest on."""
    best: list[str] = []
    for name in sorted(points, key=lambda name: points[name]):
        if not best or points[name][1] < points[best[-1]][1]:
            best.append(name)
    return best


def shares(view: View, across: str) -> dict[str, float]:
    """What each method spends as a share of what retraining spends; nothing where that is not known."""
    if not view.has(RETRAINED, across) or view.value(RETRAINED, across)[0] <= 0:
        return {}
    whole = view.value(RETRAINED, across)[0]
    return {name: view.value(name, across)[0] / whole for name in view.methods if view.has(name, across)}


def _share_words(view: View, across: str) -> str:
    found = shares(view, across)
    if not found:
        return ""
    return (
        f" As a share of retraining: {'; '.join(f'{method_name(name)} {100 * v:.1f} %' for name, v in found.items())}."
    )


def cost_table(view: View) -> Table | None:
    """What each method spends, in numbers and as a share of retraining, beside its distance."""
    columns: list[Measure] = []
    for key, head in COSTS.items():
        if shares(view, key):
            columns += [Measure(key, head.removesuffix(" (samples)"), "samples", digits=0), share(f"share_{key}",
                        "of retraining")]  # fmt: skip
    if not columns:
        return None
    distance = Measure("oracle_distance", "Oracle distance", digits=2)
    if any(view.has(name, distance.key) for name in view.methods):
        columns.append(distance)
    names = [name for name in (ORIGINAL, RETRAINED, *by_kind(view.methods)) if name in view.means.index]
    rows = tuple(_cost_row(view, name, columns) for name in names)
    return Table(f"{view.title}: cost", tuple(columns), (Group("", rows),))


def _cost_row(view: View, name: str, columns: Sequence[Measure]) -> Row:
    kind = {ORIGINAL: "original", RETRAINED: "retrained"}.get(name, "method")
    cells = []
    for column in columns:
        base = column.key.removeprefix("share_")
        value = view.value(name, base)[0] if view.has(name, base) else math.nan
        if column.key != base:
            value = value / view.value(RETRAINED, base)[0]
        cells.append(Cell(column.show(value), "", value))
    return Row(method_name(name), kind, "", tuple(cells))
