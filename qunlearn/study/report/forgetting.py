"""The main figure: accuracy on the forget set against accuracy on the retain set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qunlearn.study.report.material import ORIGINAL, RETRAINED
from qunlearn.study.report.panels import (
    Panel,
    Points,
    Step,
    draw_band,
    draw_bars,
    draw_mark,
    draw_retrained,
    label,
    large,
    said,
    wrapped,
)
from qunlearn.study.report.style import MUTED, marks
from qunlearn.study.report.views import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

ACROSS, UP = "accuracy_forget", "accuracy_retain"
_NEAR = 5.0  # points this close to the retrained models' range belong to the detail, in percentage points
_CROWD = 3  # with fewer points there, no detail
_LEAST_SPAN = 2.0  # no detail shows less than this, in percentage points
_WORTH = 0.3  # a detail is drawn where it is a smaller part of the whole than this


def forgetting(view: View, methods: Sequence[str]) -> list[Panel]:
    """The whole, and where many points crowd around the retrained models a detail of that place."""
    shown = [name for name in (ORIGINAL, *view.methods) if view.has(name, ACROSS, UP)]
    own = 100.0 * view.cells.loc[view.cells["method"] == RETRAINED, [ACROSS, UP]].dropna().to_numpy(dtype=np.float64)
    if not shown or not len(own):
        return []
    points: Points = {name: (100 * view.value(name, ACROSS)[0], 100 * view.value(name, UP)[0]) for name in shown}
    window, inside = _detail(points, own)
    listed = "; ".join(said(view, name, (ACROSS, UP), 100.0, 1) for name in (RETRAINED, *shown))
    alt = f"Scatter plot, {view.title}: accuracy on forget and retain set in per cent. {listed}."
    size = large(len(shown))
    if window is None:
        return [Panel(view.request, alt, lambda axes: _whole(axes, view, methods, points, own, None, set()), **size)]
    near = "; ".join(said(view, name, (ACROSS, UP), 100.0, 1) for name in (RETRAINED, *shown) if name in inside)
    return [
        Panel(view.request, alt, lambda axes: _whole(axes, view, methods, points, own, window, inside), **size),
        Panel(
            view.request,
            f"The same around the retrained models: {near}.",
            lambda axes: _near(axes, view, methods, points, own, window, inside),
            **large(len(inside)),
        ),
    ]


def _detail(points: Points, own: Floats) -> tuple[Floats | None, set[str]]:
    """The window ``((left, right), (bottom, top))`` of the detail and who is in it; None where none is worth it."""
    least, most = own.min(axis=0), own.max(axis=0)
    inside = {name for name, point in points.items() if np.all(point > least - _NEAR) and np.all(point < most + _NEAR)}
    everything = np.vstack([np.array(list(points.values())), own])
    some = np.vstack([*[points[name] for name in sorted(inside)], own])
    middle, span = (some.max(axis=0) + some.min(axis=0)) / 2, np.maximum(np.ptp(some, axis=0) * 1.5, _LEAST_SPAN)
    whole = np.maximum(np.ptp(everything, axis=0), 1e-9)
    if len(inside) < _CROWD or len(inside) == len(points) or np.prod(np.minimum(span / whole, 1.0)) > _WORTH:
        return None, set()
    window = np.stack([middle - span / 2, middle + span / 2], axis=1)
    inside = {name for name, point in points.items() if np.all((window[:, 0] < point) & (point < window[:, 1]))}
    return window, inside | {RETRAINED}


def _whole(
    axes: Axes, view: View, methods: Sequence[str], points: Points, own: Floats, window: Floats | None,
    inside: set[str],
) -> Step:  # fmt: skip
    _draw(axes, view, methods, points, own)
    axes.set_title(wrapped(view.title))
    axes.margins(x=0.2, y=0.14)
    if window is not None:
        from matplotlib.patches import Rectangle

        corner, size = window[:, 0], window[:, 1] - window[:, 0]
        axes.add_patch(Rectangle((corner[0], corner[1]), *size, fill=False, edgecolor=MUTED, linewidth=0.8, zorder=5))
    named = {RETRAINED: _lone(own, points)} | points
    return lambda: _finish(axes, {name: point for name, point in named.items() if name not in inside - {RETRAINED}})


def _lone(own: Floats, points: Points) -> tuple[float, float]:
    """The retrained model furthest from all methods: the one to write the name at."""
    others = np.array(list(points.values()))
    size = np.maximum(np.ptp(np.vstack([own, others]), axis=0), 1e-9)
    apart = np.linalg.norm((own[:, None] - others) / size, axis=2).min(axis=1)
    x, y = own[int(np.argmax(apart))].tolist()
    return x, y


def _near(
    axes: Axes, view: View, methods: Sequence[str], points: Points, own: Floats, window: Floats, inside: set[str]
) -> Step:
    _draw(axes, view, methods, points, own)
    axes.set(xlim=window[0], ylim=window[1])
    axes.set_title(wrapped(f"{view.title}: detail"))
    for spine in axes.spines.values():
        spine.set_visible(True)
    return lambda: _finish(axes, {name: point for name, point in points.items() if name in inside})


def _finish(axes: Axes, named: Points) -> None:
    """Labels, and no tick below 0 or above 100 %."""
    for ticks, (low, high), put in (
        (axes.get_xticks(), axes.get_xlim(), axes.set_xticks),
        (axes.get_yticks(), axes.get_ylim(), axes.set_yticks),
    ):
        put([tick for tick in ticks if max(low, 0.0) <= tick <= min(high, 100.0)])
    label(axes, named)


def _draw(axes: Axes, view: View, methods: Sequence[str], points: Points, own: Floats) -> None:
    for measure, axis in ((ACROSS, "x"), (UP, "y")):
        if band := view.band(measure):
            draw_band(axes, band, 100.0, axis)
    draw_retrained(axes, own[:, 0], own[:, 1])
    for name, point in points.items():
        mark = None if name == ORIGINAL else marks(methods)[name]
        x, y = (tuple(100.0 * value for value in view.value(name, measure)) for measure in (ACROSS, UP))
        draw_bars(axes, (x[0], x[1], x[2]), (y[0], y[1], y[2]), mark)
        draw_mark(axes, *point, mark)
    axes.set(xlabel="Accuracy on the forget set (%)", ylabel="Accuracy on the retain set (%)")
