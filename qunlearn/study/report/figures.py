"""The figures of a report, as panels of their own for the page and joined for print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qunlearn.study.report.audit_figures import audit_figures
from qunlearn.study.report.audits import Audited
from qunlearn.study.report.compute import cost
from qunlearn.study.report.curves import curve_figures
from qunlearn.study.report.forgetting import forgetting
from qunlearn.study.report.heatmaps import heatmaps
from qunlearn.study.report.landscape_figures import landscape_figures
from qunlearn.study.report.material import Material
from qunlearn.study.report.noise import noise_curves
from qunlearn.study.report.panels import Panel, distance, true_labels
from qunlearn.study.report.pictures import state_figures
from qunlearn.study.report.printing import save, save_joined, tile_of, transparent
from qunlearn.study.report.ranks import rank_alt, rank_figure
from qunlearn.study.report.style import drawing
from qunlearn.study.report.sweep import Sweep
from qunlearn.study.report.views import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from qunlearn.metrics.ranking import Ranking


@dataclass(frozen=True)
class Picture:
    """One drawing on the page: its SVG and what it shows in words."""

    svg: str
    alt: str
    request: str
    wide: bool = False


@dataclass(frozen=True)
class Plate:
    """One figure: the stem of its files, and the drawings it is made of.

    Args:
        stem: ``forgetting-vs-retained`` for ``figures/forgetting-vs-retained.svg`` and ``.png``, and where they would
            be too tall also ``forgetting-vs-retained-2`` and so on.
        pictures: in the order of the requests.
        wide: whether a drawing needs the page's full width.
        part: the part of the page that it stands in.
    """

    stem: str
    pictures: tuple[Picture, ...]
    wide: bool = False
    part: str = "figures"


def write_figures(
    material: Material,
    found: Sequence[View],
    audited: Sequence[Audited],
    ranking: Ranking | None,
    sweep: Sweep | None,
    folder: Path,
) -> list[Plate]:
    """Draw every figure that the records allow, write SVG and PNG files, and return what the page needs, in its order.

    Args:
        material: the records.
        found: their views.
        audited: the audits of the views.
        ranking: the ranks over tasks; None where there are none.
        sweep: over depth and entanglement; None where neither is swept.
        folder: where the files go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in (*folder.glob("*.svg"), *folder.glob("*.png")):  # an earlier report may have had more figures
        earlier.unlink()
    methods = material.methods
    with drawing():
        plates = [_plate(stem, panels, folder) for stem, panels in _panels(found, methods)]
        plates += [_wide_plate(*drawn, folder) for drawn in (*noise_curves(material), *heatmaps(material))]
        plates += [_wide_plate(*drawn, folder, "audits") for drawn in audit_figures(audited)]
        plates += [_wide_plate(*drawn, folder, "landscape") for drawn in landscape_figures(sweep)]
        plates += [_wide_plate(*drawn, folder, "landscape") for drawn in state_figures(material.states)]
        if ranking is not None and (figure := rank_figure(ranking)) is not None:
            plates.append(_wide_plate("critical-difference", figure, rank_alt(ranking), "", folder, "comparisons"))
        costs = [panel for view in found for panel in cost(view, methods)]
        plates.append(_plate("cost-vs-distance", costs, folder, "comparisons"))
        plates += [_wide_plate(*drawn, folder, "training") for drawn in curve_figures(material)]
    return [plate for plate in plates if plate.pictures]


def _panels(found: Sequence[View], methods: Sequence[str]) -> list[tuple[str, list[Panel]]]:
    """The figures made of panels of their own: their stems and panels."""
    parts = ("forget", "test")
    kinds = [
        ("forgetting-vs-retained", [forgetting(view, methods) for view in found]),
        ("distance-to-retraining", [distance(view, methods, part) for view in found for part in parts]),
        ("true-labels", [true_labels(view, methods) for view in found]),
    ]
    return [(stem, [panel for some in panels for panel in some]) for stem, panels in kinds]


def _plate(stem: str, panels: Sequence[Panel], folder: Path, part: str = "figures") -> Plate:
    tiles = [tile_of(panel) for panel in panels]
    save_joined(tiles, folder / stem)
    pictures = tuple(
        Picture(transparent(tile.svg), panel.alt, panel.request, panel.wide)
        for tile, panel in zip(tiles, panels, strict=True)
    )
    return Plate(stem, pictures, part=part)


def _wide_plate(
    stem: str, figure: Figure, alt: str, request: str, folder: Path, part: str = "figures"
) -> Plate:  # fmt: skip
    return Plate(stem, (Picture(save(figure, folder / stem), alt, request, wide=True),), wide=True, part=part)
