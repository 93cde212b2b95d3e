"""The figures of a report, as panels of their own for the page and joined for print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from qunlearn.study.report.forgetting import forgetting
from qunlearn.study.report.heatmaps import heatmaps
from qunlearn.study.report.material import Material
from qunlearn.study.report.noise import noise_curves
from qunlearn.study.report.panels import Panel, cost, distance
from qunlearn.study.report.style import drawing
from qunlearn.study.report.views import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL = (3.55, 3.1)  # inches
_COLUMNS = 2


@dataclass(frozen=True)
class Picture:
    """One drawing on the page: its SVG and what it shows in words."""

    svg: str
    alt: str
    request: str


@dataclass(frozen=True)
class Plate:
    """One figure: the stem of its files, and the drawings it is made of.

    Args:
        stem: ``forgetting-vs-retained`` for ``figures/forgetting-vs-retained.svg`` and ``.png``.
        pictures: in the order of the requests.
        wide: whether a drawing needs the page's full width.
    """

    stem: str
    pictures: tuple[Picture, ...]
    wide: bool = False


def write_figures(material: Material, found: Sequence[View], folder: Path) -> list[Plate]:
    """Draw every figure that the records allow, write SVG and PNG files, and return what the page needs."""
    folder.mkdir(parents=True, exist_ok=True)
    methods = material.methods
    kinds: list[tuple[str, list[list[Panel]]]] = [
        ("forgetting-vs-retained", [forgetting(view, methods) for view in found]),
        ("distance-to-retraining", [distance(view, methods, part) for view in found for part in ("forget", "test")]),
        ("cost-vs-distance", [cost(view, methods) for view in found]),
    ]
    with drawing():
        plates = [_plate(stem, [panel for some in panels for panel in some], folder) for stem, panels in kinds]
        plates += [_wide_plate(*drawn, folder) for drawn in (*noise_curves(material), *heatmaps(material))]
    return [plate for plate in plates if plate.pictures]


def _plate(stem: str, panels: Sequence[Panel], folder: Path) -> Plate:
    if panels:
        save(_joined(panels), folder / stem)
    pictures = tuple(Picture(svg_text(_joined([panel])), panel.alt, panel.request) for panel in panels)
    return Plate(stem, pictures)


def _wide_plate(stem: str, figure: Figure, alt: str, request: str, folder: Path) -> Plate:
    save(figure, folder / stem)
    return Plate(stem, (Picture(svg_text(figure), alt, request),), wide=True)


def _joined(panels: Sequence[Panel]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(panels)) if len(panels) != 3 else 3  # three in a row leave no gap
    rows = -(-len(panels) // columns)
    height = max(panel.height for panel in panels)
    figure = Figure(figsize=(_PANEL[0] * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    finish = [panel.draw(axes) for panel, axes in zip(panels, grid, strict=False)]
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    # Labels are placed last, on a layout that no longer moves.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for step in finish:
        if step:
            step()
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG and PNG, on white and without dates."""
    path.with_suffix(".svg").write_text(svg_text(figure, "white"), encoding="utf-8", newline="\n")
    figure.savefig(path.with_suffix(".png"), dpi=220, facecolor="white", metadata={"Software": None})


def svg_text(figure: Figure, background: str = "none") -> str:
    """A figure as SVG, the same for the same figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", facecolor=background, metadata={"Date": None, "Creator": None})
    return buffer.getvalue().decode("utf-8")
