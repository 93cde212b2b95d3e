"""How figures change with the strength of noise or the number of shots: one line a method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qunlearn.study.report.kinds import MANY
from qunlearn.study.report.material import ORIGINAL, RETRAINED, Material
from qunlearn.study.report.style import BAND, INK, MUTED, Mark, marks
from qunlearn.study.report.tables import cells, summarise
from qunlearn.study.report.wording import MAIN, Measure, axis_name, method_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

_SHOWN = ("accuracy_forget", "accuracy_test", "js_forget", "membership_auc")
_UNITS = {"noise_t1": "\u00b5s", "noise_t2": "\u00b5s", "noise_gate_time": "\u00b5s"}


@dataclass(frozen=True)
class _Lines:
    """What one figure shows: the means of a request's records over one axis."""

    axis: str
    at: tuple[float, ...]
    means: DataFrame
    own: DataFrame
    methods: tuple[str, ...]

    def values(self, method: str, measure: Measure) -> list[tuple[float, float, float]]:
        """Mean and interval of a method at each value of the axis; NaN where there is none."""
        rows = self.means[self.means["method"] == method].set_index(self.axis)
        names = [f"{measure.key}{end}" for end in ("", "_ci_low", "_ci_high")]
        found = rows.reindex(list(self.at))[names].to_numpy(dtype=np.float64) * measure.factor
        return [(float(mean), float(low), float(high)) for mean, low, high in found]


def noise_curves(material: Material) -> list[tuple[str, Figure, str, str]]:
    """For each request and each swept strength: the files' stem, the figure, its alternative text, its title."""
    from qunlearn.study.report.views import slug

    found = []
    for axis in material.conditions:
        values = material.records[axis].dropna().unique()
        if len(values) < 2 or not all(isinstance(value, int | float | np.number) for value in values):
            continue
        for request in material.requests:
            lines = _lines(material, request, axis)
            measures = [measure for measure in MAIN if measure.key in _SHOWN and measure.key in lines.means]
            if measures:
                title = f"{request}, over {axis_name(axis)}"
                figure = _figure(lines, measures, title)
                found.append((f"noise-{slug(axis)}-{slug(request)}", figure, _alt(lines, measures, title), title))
    return found


def _lines(material: Material, request: str, axis: str) -> _Lines:
    records = material.records[material.records["request"] == request]
    measures = [name for name in _SHOWN if name in records]
    floors = [f"{name}_floor{end}" for name in measures for end in ("_low", "_high") if f"{name}_floor{end}" in records]
    own = cells(records, ["method", axis], [*measures, *floors])
    at = tuple(sorted(float(value) for value in records[axis].dropna().unique()))
    methods = tuple(name for name in (ORIGINAL, *material.methods) if name in set(records["method"]))
    return _Lines(axis, at, summarise(records, ["method", axis], measures), own, methods)


def _figure(lines: _Lines, measures: Sequence[Measure], title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if len(measures) > 1 else 1
    rows = -(-len(measures) // columns)
    many = len(lines.methods) > MANY
    below = 0.125 * (-(-len(lines.methods) // 5)) if many else 0.65  # inches of the legend
    figure = Figure(figsize=(7.1, (3.3 if many else 2.35) * rows + max(below, 0.65)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    chosen = marks([name for name in lines.methods if name != ORIGINAL])
    for axes, measure in zip(grid, measures, strict=False):
        _panel(axes, lines, measure, chosen)
    for axes in grid[len(measures) :]:
        axes.set_axis_off()
    figure.suptitle(f"Forget {title}", x=0.01, ha="left", fontsize=8.5, fontweight="bold")
    handles, names = grid[0].get_legend_handles_labels()
    legend = {"ncols": 5, "fontsize": 6.2} if many else {"ncols": 4, "fontsize": 7.5}
    figure.legend(handles, names, loc="outside lower center", frameon=False, **legend)
    return figure


def _panel(axes: Axes, lines: _Lines, measure: Measure, chosen: dict[str, Mark]) -> None:
    places = range(len(lines.at))  # evenly: strengths are chosen in leaps, and zero has no logarithm
    _band(axes, lines, measure)
    spread = 0.24 / max(len(lines.methods), 1)
    for number, method in enumerate(lines.methods):
        mark = chosen.get(method, Mark(INK, "*"))
        shift = (number - (len(lines.methods) - 1) / 2) * spread
        across = [place + shift for place in places]
        values = lines.values(method, measure)
        axes.plot(
            across, [mean for mean, _, _ in values], color=mark.colour, marker=mark.marker, linewidth=1.1,
            markersize=7 if mark.marker == "*" else 4, label=method_name(method), zorder=3,
        )  # fmt: skip
        for place, (_, low, high) in zip(across, values, strict=True):
            if math.isfinite(low) and high > low:
                axes.plot([place, place], [low, high], color=mark.colour, linewidth=0.8, alpha=0.5, zorder=2)
    axes.set_xticks(list(places), [f"{value:g}" for value in lines.at])
    axes.set_xlim(-0.4, len(lines.at) - 0.6)
    unit = f" ({_UNITS[lines.axis]})" if lines.axis in _UNITS else " (0: exact)" if lines.axis == "shots" else ""
    axes.set(xlabel=(axis_name(lines.axis) + unit).capitalize(), ylabel=_head(measure))
    axes.grid(axis="x", visible=False)


def _band(axes: Axes, lines: _Lines, measure: Measure) -> None:
    """The retrained models' range and mean at each strength."""
    least, mean, most = zip(*(_range(lines, value, measure) for value in lines.at), strict=True)
    if not any(math.isfinite(value) for value in mean):
        return
    axes.fill_between(range(len(mean)), least, most, color=BAND, linewidth=0, zorder=0, label="retrained models, range")
    axes.plot(range(len(mean)), mean, color=MUTED, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)


def _range(lines: _Lines, value: float, measure: Measure) -> tuple[float, float, float]:
    rows = lines.own[(lines.own["method"] == RETRAINED) & (lines.own[lines.axis] == value)]
    found = rows.groupby("seed")[measure.key].mean().dropna().to_numpy(dtype=np.float64) * measure.factor
    if not len(found):
        return float("nan"), float("nan"), float("nan")
    return float(found.min()), float(found.mean()), float(found.max())


def _head(measure: Measure) -> str:
    words: dict[str, str] = {"js_forget": "JS to retrained, forget"}
    head = words.get(measure.key, measure.head)
    return f"{head} ({measure.unit})" if measure.unit else head


def _alt(lines: _Lines, measures: Sequence[Measure], title: str) -> str:
    parts: list[Any] = []
    for measure in measures:
        for method in lines.methods:
            values = ", ".join(
                f"{mean:.{measure.digits}f} at {at:g}"
                for at, (mean, _, _) in zip(lines.at, lines.values(method, measure), strict=True)
            )
            parts.append(f"{measure.head}, {method_name(method)}: {values}")
    return f"Line plots, forget {title}. {'; '.join(parts)}."
