"""Panels: distance to retraining, and what all panels share."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from qunlearn.study.report.kinds import MANY
from qunlearn.study.report.material import ORIGINAL
from qunlearn.study.report.placing import NEAR, nearest, place_labels
from qunlearn.study.report.style import BAND, INK, MUTED, PAPER, Mark, marks
from qunlearn.study.report.views import Band, View
from qunlearn.study.report.wording import Measure, method_name, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_APART = 0.12  # part of a root axis between two ticks
_SAME = 3.0  # points nearer to each other than this, in points, share a label
_CROWDED = 5.0  # times the retrained models' most, from which on large values crowd the small ones
PARTS = {"forget": "forget set", "test": "test set"}
Step = Callable[[], None]
Points = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One panel: how to draw it into axes (which may return a last step), and what it shows in words.

    Args:
        request: the forget request that it is about.
        alt: what it shows, in words.
        draw: puts it into axes; what it returns is called once the layout is settled.
        height: in inches.
        wide: whether it takes the whole width: there are too many names for half of it.
    """

    request: str
    alt: str
    draw: Callable[[Axes], Step | None]
    height: float = 3.1
    wide: bool = False


def distance(view: View, methods: Sequence[str], part: str) -> list[Panel]:
    """Jensen-Shannon divergence to the retrained models, methods sorted by it, the retrained models' range a band."""
    measure = Measure(f"js_{part}", "Jensen\u2013Shannon divergence", "nats")
    head = f"{view.title}: Jensen-Shannon divergence to the retrained models on the {PARTS[part]}, in nats"
    return _dots(view, methods, measure, f"{view.title}: {PARTS[part]}", head)


def true_labels(view: View, methods: Sequence[str]) -> list[Panel]:
    """Accuracy on forget inputs under their true labels, where the request is for corrupted samples."""
    measure = share("accuracy_forget_true", "Accuracy under the true labels")
    head = f"{view.title}: accuracy on the forget inputs under their true labels, in per cent"
    return _dots(view, methods, measure, view.title, head)


def _dots(view: View, methods: Sequence[str], measure: Measure, title: str, head: str) -> list[Panel]:
    shown = [name for name in (ORIGINAL, *view.methods) if view.has(name, measure.key)]
    shown.sort(key=lambda name: view.value(name, measure.key)[0])
    if not shown:
        return []
    band = view.band(measure.key)

    def draw(axes: Axes) -> None:
        _draw_dots(axes, view, methods, measure, shown)
        longest = max(len(method_name(name)) for name in shown)
        axes.set_title(wrapped(title, 42 - max(longest - 15, 0)), pad=14.0)

    listed = "; ".join(said(view, name, (measure.key,), measure.factor, measure.digits) for name in shown)
    own = f" Retrained models: {measure.show(band.least)} to {measure.show(band.most)}." if band else ""
    each = 0.165 if len(shown) > MANY else 0.225
    return [Panel(view.request, f"Dot plot, {head}: {listed}.{own}", draw, height=1.05 + each * len(shown))]


def _draw_dots(axes: Axes, view: View, methods: Sequence[str], measure: Measure, shown: Sequence[str]) -> None:
    if band := view.band(measure.key):
        draw_band(axes, band, measure.factor, "x")
        axes.annotate(
            "retrained", (measure.factor * band.mean, 1.0), (0.0, 2.0), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="bottom", fontsize=6.5, color=MUTED,
        )  # fmt: skip
    for row, name in enumerate(shown):
        mean, low, high = (measure.factor * value for value in view.value(name, measure.key))
        draw_bars(axes, (row, row, row), (mean, low, high), _mark_of(name, methods), swap=True)
        draw_mark(axes, mean, row, _mark_of(name, methods))
    axes.set_yticks(
        range(len(shown)), [method_name(name) for name in shown], fontsize=6.5 if len(shown) > MANY else 7.5
    )
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel=f"{measure.head} ({measure.unit})")
    if measure.unit == "nats":
        from_zero(axes, "x", band)
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


class Size(TypedDict):
    """The size of a panel with many names in it."""

    height: float
    wide: bool


def large(count: int) -> Size:
    """The size of a panel in which that many points have names."""
    return Size(height=5.2, wide=True) if count > MANY else Size(height=3.1, wide=False)


def draw_band(axes: Axes, band: Band, factor: float, axis: str) -> None:
    """The retrained models' range along an axis, their mean a broken line."""
    span, line = (axes.axvspan, axes.axvline) if axis == "x" else (axes.axhspan, axes.axhline)
    span(factor * band.least, factor * band.most, color=BAND, linewidth=0, zorder=0)
    line(factor * band.mean, color=MUTED, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)


def draw_mark(axes: Axes, x: float, y: float, mark: Mark | None) -> None:
    """A method's marker, or the original's star."""
    marker, size, colour = (mark.marker, 34, mark.colour) if mark else ("*", 95, INK)
    axes.scatter([x], [y], marker=marker, s=size, color=colour, edgecolor=PAPER, linewidth=0.7, zorder=3 if mark else 4)


def draw_retrained(axes: Axes, x: Any, y: Any) -> None:
    """The retrained models' open diamonds."""
    axes.scatter(x, y, marker="d", s=26, color="none", edgecolor=INK, linewidth=0.8, zorder=3.5)


def draw_bars(
    axes: Axes, fixed: tuple[float, float, float], value: tuple[float, float, float], mark: Mark | None,
    swap: bool = False,
) -> None:  # fmt: skip
    """The intervals of two values as thin bars, upright and across; `swap` exchanges the two."""
    x, y = (value, fixed) if swap else (fixed, value)
    colour = mark.colour if mark else INK
    axes.errorbar(
        [x[0]], [y[0]], xerr=_bars(*x), yerr=_bars(*y), ecolor=colour, elinewidth=0.9, capsize=0.0, fmt="none",
        alpha=0.6, zorder=2.5,
    )  # fmt: skip


def _bars(mean: float, low: float, high: float) -> NDArray[np.float64] | None:
    if not np.isfinite([low, high]).all() or low == high:
        return None
    return np.array([[max(mean - low, 0.0)], [max(high - mean, 0.0)]])


def _mark_of(name: str, methods: Sequence[str]) -> Mark | None:
    return None if name == ORIGINAL else marks(methods)[name]


def from_zero(axes: Axes, axis: str, band: Band | None) -> None:
    """Start an axis a little below zero, so that no mark is cut; spread the small values where large ones crowd them.

    The root scale is that of the Jensen-Shannon distance; the axis label says that it is used.
    """
    limits, scale = (axes.set_xlim, axes.set_xscale) if axis == "x" else (axes.set_ylim, axes.set_yscale)
    most = (axes.get_xlim() if axis == "x" else axes.get_ylim())[1]
    if band and most > _CROWDED * band.most:
        scale("function", functions=(_signed_root, _signed_square))
        words = axes.get_xlabel() if axis == "x" else axes.get_ylabel()
        axes.set(**{f"{axis}label": _on_root_scale(words)})
        limits(-0.0004 * most, most)
        ticks = _root_ticks(most)  # each with the digits that it needs: equally long labels would run together
        (axes.xaxis if axis == "x" else axes.yaxis).set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    else:
        limits(-0.02 * most, most)
        if axis == "x":  # few ticks, so that labels neither touch nor stand half outside
            axes.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10])


def _on_root_scale(words: str) -> str:
    """An axis label that says so, shorter elsewhere: beside long names there is little room."""
    short = words.replace("Jensen\u2013Shannon divergence", "JS divergence")
    return short.replace("(nats)", "(nats, root scale)") if "(nats)" in words else f"{words} (root scale)"


def _root_ticks(most: float) -> list[float]:
    """Round numbers from the greatest down that stand apart on a root scale, and zero."""
    power = math.floor(math.log10(most))
    found: list[float] = []
    for value in [step * 10.0**exponent for exponent in range(power, power - 4, -1) for step in (5, 3, 2, 1)]:
        above = found[-1] if found else math.inf
        if value <= most and math.sqrt(above) - math.sqrt(value) > _APART * math.sqrt(most) < math.sqrt(value):
            found.append(value)
    return [0.0, *reversed(found)]


def _signed_root(values: Any) -> Any:
    return np.sign(values) * np.sqrt(np.abs(values))


def _signed_square(values: Any) -> Any:
    return np.sign(values) * np.square(values)


def logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis of plain numbers; with zeros in it, linear below the least positive value."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    positive = [value for value in values if value > 0]
    if not positive:
        return
    if len(positive) == len(values):
        axes.set_xscale("log")
        wide = max(positive) > 30 * min(positive)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    else:
        axes.set_xscale("symlog", linthresh=min(positive))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace(",", "\u202f")))
    axes.xaxis.set_minor_formatter(NullFormatter())


def wrapped(title: str, width: int = 42) -> str:
    """A title in lines that fit above a panel, of at most so many characters."""
    for words in (" %", " set", " layers"):  # these never stand alone in a line
        title = title.replace(words, words.replace(" ", "\u00a0"))
    return textwrap.fill(title, max(width, 20), break_on_hyphens=False)


def label(axes: Axes, points: Points) -> None:
    """Write each point's name where it covers nothing, with a thin line to points that are not next to it."""
    from matplotlib.font_manager import FontProperties

    if not points:
        return
    figure: Any = axes.get_figure(root=True)
    renderer = figure.canvas.get_renderer()
    font = FontProperties(family=["DejaVu Sans"], size=7.5)
    all_spots = axes.transData.transform(np.array(list(points.values())))
    groups = _together(all_spots)
    texts = [[method_name(list(points)[index]) for index in group] for group in groups]
    sizes = np.array([_size(lines, renderer, font) for lines in texts])
    spots = all_spots[[group[0] for group in groups]]
    frame = np.asarray(axes.get_window_extent().extents) + np.array([2.0, 2.0, -2.0, -2.0])
    for lines, spot, box in zip(texts, spots, place_labels(spots, sizes, frame, _drawn(axes)), strict=True):
        point = tuple(axes.transData.inverted().transform(spot))
        end = nearest(box[None], spot)[0] - spot
        if np.hypot(*end) > NEAR:
            arrow = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": 0.5, "shrinkB": 4.5}
            axes.annotate("", point, tuple(end), textcoords="offset points", arrowprops=arrow, zorder=4.5)
        _write(axes, lines, point, box - np.tile(spot, 2), font)


def _write(axes: Axes, lines: Sequence[str], point: Any, box: NDArray[np.float64], font: Any) -> None:
    """Lines of text in a box relative to a point, set against the side that faces the point."""
    side = "left" if box[0] + box[2] >= 0 else "right"
    height = (box[3] - box[1]) / len(lines)
    for number, line in enumerate(lines, start=1):
        corner = (box[0] if side == "left" else box[2], box[3] - number * height + 0.25 * font.get_size_in_points())
        axes.annotate(
            line, point, corner, textcoords="offset points", fontproperties=font, color=INK, zorder=5,
            va="baseline", ha=side, bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.65, "pad": 0.2},
        )  # fmt: skip


def _together(spots: NDArray[np.float64]) -> list[list[int]]:
    """Points that lie on each other share one label: methods that left the model alone, for example."""
    groups: list[list[int]] = []
    for index, spot in enumerate(spots):
        home = next((group for group in groups if np.hypot(*(spots[group[0]] - spot)) < _SAME), None)
        if home is None:
            groups.append([index])
        else:
            home.append(index)
    return groups


def _size(lines: Sequence[str], renderer: Any, font: Any) -> tuple[float, float]:
    measured = [renderer.get_text_width_height_descent(line, font, False) for line in lines]
    return max(width for width, _, _ in measured), 1.3 * font.get_size_in_points() * len(lines)


def _drawn(axes: Axes) -> NDArray[np.float64]:
    """Boxes around what labels should leave free: error bars and markers, ``(boxes, 4)``."""
    from matplotlib.collections import LineCollection, PathCollection
    from matplotlib.patches import Rectangle

    boxes = []
    for patch in axes.patches:
        if isinstance(patch, Rectangle) and not patch.get_fill():  # the frame of a detail
            left, bottom, right, top = patch.get_window_extent().extents
            boxes += [[left, bottom, left + 1, top], [right - 1, bottom, right, top]]
            boxes += [[left, bottom, right, bottom + 1], [left, top - 1, right, top]]
    for collection in axes.collections:
        if isinstance(collection, LineCollection):
            corners = [axes.transData.transform(np.asarray(segment)) for segment in collection.get_segments()]
            boxes += [[*line.min(axis=0) - 0.7, *line.max(axis=0) + 0.7] for line in corners]
        elif isinstance(collection, PathCollection):
            centres = axes.transData.transform(np.asarray(collection.get_offsets()))
            boxes += [[*centre - 3.5, *centre + 3.5] for centre in centres]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def said(view: View, name: str, measures: Sequence[str], factor: float, digits: int) -> str:
    """A method and its values, for the text that replaces a figure."""
    values = ", ".join(f"{factor * view.value(name, measure)[0]:.{digits}f}" for measure in measures)
    return f"{method_name(name)} {values}"
