"""The figure of the audits: one panel an audit, one line a method, the retrained models' range a band."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from qunlearn.study.report.audit_wording import main_audits
from qunlearn.study.report.audits import Audited, Found
from qunlearn.study.report.judging import Side
from qunlearn.study.report.kinds import MANY, grouped, is_control
from qunlearn.study.report.material import ORIGINAL
from qunlearn.study.report.panels import draw_band
from qunlearn.study.report.style import BEYOND, MUTED, PAPER, UNSETTLED, WITHIN
from qunlearn.study.report.views import slug
from qunlearn.study.report.wording import Measure, method_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS: dict[Side, tuple[str, str]] = {
    "within": ("o", WITHIN), "unsettled": ("D", UNSETTLED), "above": (">", BEYOND), "below": ("<", BEYOND),
    "": ("o", MUTED),
}  # fmt: skip
_COLUMNS = 4

Line = tuple[str, bool]  # the text beside a line, and whether it is a method's (else the heading of a family)


def audit_figures(parts: Sequence[Audited]) -> Iterator[tuple[str, Figure, str, str]]:
    """For each view with key audits: the files' stem, the figure, its alternative text, its title."""
    for own in parts:
        shown = [measure for measure, key in main_audits(own.names, own.units) if key]
        shown = [measure for measure in shown if any(math.isfinite(one.value) for _, one in own.each(measure.key))]
        if shown:
            title = own.view.title.removeprefix("Forget ")
            yield f"audits-{slug(title)}", _figure(own, shown), _alt(own, shown), title


def lines_of(methods: Sequence[str]) -> list[Line]:
    """The lines of the figure: methods, under headings of their families where they are many."""
    if len(methods) <= MANY:
        return [(name, True) for name in methods]
    first = [name for name in methods if name == ORIGINAL]
    lines = [(name, True) for name in first]
    for title, names in grouped([name for name in methods if name != ORIGINAL]):
        lines += [(title, False), *((name, True) for name in names)]
    return lines


def _figure(own: Audited, shown: Sequence[Measure]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = lines_of(own.methods)
    columns = min(_COLUMNS, len(shown))
    columns = 3 if len(shown) in (5, 6) else columns
    rows = -(-len(shown) // columns)
    each = 0.145 if len(lines) > MANY else 0.19
    figure = Figure(figsize=(7.4, rows * (0.85 + each * len(lines))), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, (axes, measure) in enumerate(zip(grid, shown, strict=False)):
        _panel(axes, own, measure, lines, named=number % columns == 0)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    return figure


def _panel(axes: Axes, own: Audited, measure: Measure, lines: Sequence[Line], named: bool) -> None:
    if (band := own.band(measure.key)) is not None:
        draw_band(axes, band, measure.factor, "x")
    empty = []
    for row, (name, is_method) in enumerate(lines):
        found = own.found(name, measure.key) if is_method else None
        if found is not None and math.isfinite(found.value):
            _draw(axes, row, found, measure.factor)
        elif is_method:
            empty.append(row)
    axes.set_ylim(len(lines) - 0.3, -0.7)
    axes.set_yticks(range(len(lines)), [method_name(name) if named else "" for name, _ in lines], fontsize=6.8)
    if named:
        _set_labels(axes, lines)
    for row in empty:
        axes.text(0.02, row, "no value", transform=axes.get_yaxis_transform(), fontsize=5.5, color=MUTED, va="center")
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=4, steps=[1, 2, 5, 10])
    axes.set_title(_head(own, measure), fontsize=7.2, pad=5.0)
    axes.set_xlabel(_unit(measure), fontsize=7.0)


def _draw(axes: Axes, row: int, found: Found, factor: float) -> None:
    marker, colour = MARKS[found.side]
    if math.isfinite(found.low) and found.high > found.low:
        axes.plot([factor * found.low, factor * found.high], [row, row], color=colour, linewidth=0.9, alpha=0.6)
    axes.scatter(
        [factor * found.value], [row], marker=marker, s=20, color=colour, edgecolor=PAPER, linewidth=0.5, zorder=3
    )


def _set_labels(axes: Axes, lines: Sequence[Line]) -> None:
    for text, (name, is_method) in zip(axes.get_yticklabels(), lines, strict=True):
        if not is_method:
            text.set(color=MUTED, fontstyle="italic", fontsize=6.2)
        elif name == ORIGINAL or is_control(name):
            text.set_fontweight("bold")


def _head(own: Audited, measure: Measure) -> str:
    import textwrap

    head = textwrap.fill(measure.head, 24)
    n = own.n(measure.key)
    if "quality" not in measure.key or not n:
        return head if "\n" in head else f"{head}\n"
    return f"{head}\nN = {_listed(n)}, cap {_listed_caps(n)}"


def _listed(n: Sequence[int]) -> str:
    return ", ".join(map(str, n))


def _listed_caps(n: Sequence[int]) -> str:
    return ", ".join(f"{math.log(count - 1):.2f}" for count in n if count > 2)


def _unit(measure: Measure) -> str:
    return {"%": "%", "AUC": "AUC", "steps": "steps", "index": "index"}.get(measure.unit, measure.unit or "score")


def _alt(own: Audited, shown: Sequence[Measure]) -> str:
    from qunlearn.study.report.audit_tables import side_words

    parts = []
    for measure in shown:
        band = own.band(measure.key)
        head = f"{measure.head}{_of(measure)}, retrained models " + (
            f"{measure.show(band.least)} to {measure.show(band.most)}" if band else "unknown"
        )
        listed = [
            f"{method_name(name)} {measure.show(one.value)} {side_words(one.side)}".strip()
            for name, one in own.each(measure.key)
            if math.isfinite(one.value)
        ]
        parts.append(f"{head}: {'; '.join(listed)}")
    return f"Forest plots, {own.view.title}. {'. '.join(parts)}."


def _of(measure: Measure) -> str:
    return f" ({measure.unit})" if measure.unit else ""
