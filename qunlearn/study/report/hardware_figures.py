"""The figures of a hardware run: every model in every way, and whether the order survives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qunlearn.evaluation.comparison import ATTACKS, Comparison
from qunlearn.metrics import Bounds
from qunlearn.study.report.figures import Picture
from qunlearn.study.report.hardware_material import Sides
from qunlearn.study.report.printing import save
from qunlearn.study.report.style import INK, MUTED, Mark, drawing, marks
from qunlearn.study.report.wording import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = ("accuracy_forget", "accuracy_test", "js_forget", *ATTACKS)


@dataclass(frozen=True)
class Drawn:
    """One figure of the page."""

    title: str
    caption: str
    picture: Picture


def write_figures(comparison: Comparison, folder: Path) -> list[Drawn]:
    """Draw every figure that the comparison allows, and write SVG and PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    sides, made = Sides.of(comparison), []
    with drawing():
        for stem, title, caption, figure, alt in (
            ("side-by-side", "Every model in every way", _SIDE, _dots(sides), _said(sides, _PANELS)),
            ("order", "Whether the order survives", _ORDER, _slopes(sides), _said(sides, _SLOPES)),
        ):
            if figure is not None:
                made.append(Drawn(title, caption, Picture(save(figure, folder / stem), alt, "")))
    return made


_SLOPES = ("accuracy_forget", "js_forget", ATTACKS[1])
_SIDE = "One row a model, one mark a way to run it. Bars are 95 % intervals over samples and shots."
_ORDER = (
    "One line a model, from exact values to the hardware; where lines cross, the order changes. The retrained models "
    "are drawn thin and grey: they are the aim."
)


def _said(sides: Sides, keys: Sequence[str]) -> str:
    parts = []
    for measure in sides.shown(keys):
        for model in sides.comparison.setting.roles:
            values = ", ".join(
                f"{way} {measure.show(sides.entries[model, way, measure.key].value)}" for way in sides.ways
            )
            parts.append(f"{measure.head}, {model}: {values}")
    return "; ".join(parts) + "."


def _new_figure(columns: int, rows: int, height: float) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.1, height * rows + 0.45), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _dots(sides: Sides) -> Figure | None:
    measures = sides.shown(_PANELS)
    if not measures:
        return None
    columns = min(3, len(measures))
    rows, models = -(-len(measures) // columns), list(sides.comparison.setting.roles)
    figure, grid = _new_figure(columns, rows, 0.75 + 0.3 * len(models))
    chosen = marks(sides.ways)
    for number, axes in enumerate(grid.ravel()):
        if number >= len(measures):
            axes.set_axis_off()
            continue
        _dot_panel(axes, sides, measures[number], models, chosen)
        axes.set_yticks(range(len(models)), models if number % columns == 0 else [""] * len(models))
    figure.legend(*_handles(grid[0, 0]), loc="outside upper left", ncols=4, frameon=False, fontsize=8)
    return figure


def _dot_panel(axes: Axes, sides: Sides, measure: Measure, models: list[str], chosen: dict[str, Mark]) -> None:
    step = 0.66 / max(len(sides.ways), 2)
    for number, way in enumerate(sides.ways):
        found = [sides.entries[model, way, measure.key] for model in models]
        rows = [row + (number - (len(sides.ways) - 1) / 2) * step for row in range(len(models))]
        _bars(axes, found, rows, measure.factor, chosen[way].colour)
        axes.scatter(
            [measure.factor * bounds.value for bounds in found], rows, s=16, marker=chosen[way].marker,
            color=chosen[way].colour, label=way, zorder=3, linewidth=0,
        )  # fmt: skip
    axes.set(ylim=(len(models) - 0.4, -0.6), xlabel=_axis(measure))
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _bars(axes: Axes, found: Sequence[Bounds], rows: Sequence[float], factor: float, colour: str) -> None:
    for bounds, row in zip(found, rows, strict=True):
        if math.isfinite(bounds.low):
            ends = [factor * bounds.low, factor * bounds.high]
            axes.plot(ends, [row, row], color=colour, linewidth=1.0, alpha=0.55, zorder=2, solid_capstyle="butt")


def _handles(axes: Axes) -> tuple[list[Any], list[str]]:
    handles, names = axes.get_legend_handles_labels()
    return list(handles), list(names)


def _axis(measure: Measure) -> str:
    head = {ATTACKS[0]: "Membership AUC, confidence", ATTACKS[1]: "Membership AUC, calibrated"}.get(measure.key)
    words = head or measure.head.replace("Divergence to the retrained models", "JS to retrained")
    return f"{words} ({measure.unit})" if measure.unit else words


def _slopes(sides: Sides) -> Figure | None:
    measures, candidates = sides.shown(_SLOPES), sides.comparison.setting.candidates
    if not measures or len(candidates) < 2 or len(sides.ways) < 2:
        return None
    figure, grid = _new_figure(len(measures), 1, 2.9)
    chosen = marks(candidates)
    for axes, measure in zip(grid.ravel(), measures, strict=True):
        for model in sides.comparison.setting.of("retrained"):
            _line(axes, sides, model, measure, None)
        for model in candidates:
            _line(axes, sides, model, measure, chosen[model])
        axes.set_xticks(range(len(sides.ways)), [way.replace("noisy model", "noisy\nmodel") for way in sides.ways])
        axes.set(title=_axis(measure), xlim=(-0.25, len(sides.ways) - 0.75))
    figure.legend(*_handles(grid[0, 0]), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _line(axes: Axes, sides: Sides, model: str, measure: Measure, mark: Mark | None) -> None:
    values = [measure.factor * sides.entries[model, way, measure.key].value for way in sides.ways]
    if mark is None:
        axes.plot(range(len(values)), values, color=MUTED, linewidth=0.6, alpha=0.7, zorder=1)
        return
    colour = INK if sides.comparison.setting.roles[model] == "original" else mark.colour
    axes.plot(
        range(len(values)), values, color=colour, marker=mark.marker, markersize=4, linewidth=1.3, label=model, zorder=3
    )
