"""Drawings as files: figures as SVG and PNG, and panels joined for print, each drawn once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qunlearn.study.report.panels import Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 220
_WIDTH = 3.55  # inches of a panel; a wide one takes two
_COLUMNS = 2
_TALLEST = 16.0  # inches of a file: longer ones are hard to look at, and some programs refuse them
_HEAD = """\
<?xml version="1.0" encoding="utf-8" standalone="no"?>
<svg width="{0}pt" height="{1}pt" viewBox="0 0 {0} {1}" xmlns="http://www.w3.org/2000/svg" \
xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1">
<rect width="{0}" height="{1}" style="fill: #ffffff"/>
"""


@dataclass(frozen=True)
class Tile:
    """A finished panel on white.

    Args:
        svg: as a file of its own.
        pixels: ``(height, width, 4)``, 220 to the inch.
        width: in inches.
        height: in inches.
    """

    svg: str
    pixels: NDArray[np.uint8]
    width: float
    height: float


def tile_of(panel: Panel) -> Tile:
    """Draw a panel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = 2 * _WIDTH if panel.wide else _WIDTH
    figure = Figure(figsize=(width, panel.height), layout="constrained")
    FigureCanvasAgg(figure)
    finish = panel.draw(figure.subplots())
    settle(figure)  # labels are placed last, on a layout that no longer moves
    if finish:
        finish()
    svg, buffer = _svg(figure), BytesIO()
    figure.savefig(buffer, format="rgba", dpi=_DPI, facecolor="white")
    shape = (int(panel.height * _DPI), int(width * _DPI), 4)
    return Tile(svg, np.frombuffer(buffer.getvalue(), dtype=np.uint8).reshape(shape), width, panel.height)


def save_joined(tiles: Sequence[Tile], path: Path) -> None:
    """Write tiles side by side as SVG and PNG; what is too tall for one file goes on in ``<stem>-2`` and so on."""
    for number, rows in enumerate(_pages(tiles), start=1):
        place = path if number == 1 else path.with_name(f"{path.name}-{number}")
        width = max(sum(tile.width for tile in row) for row in rows)
        height = sum(_height(row) for row in rows)
        placed = list(_placed(rows))
        place.with_suffix(".svg").write_text(_joined_svg(placed, width, height), encoding="utf-8", newline="\n")
        _write_png(_joined_pixels(placed, width, height), place.with_suffix(".png"))


def _pages(tiles: Sequence[Tile]) -> list[list[list[Tile]]]:
    """The tiles in rows, the rows in pages."""
    three = len(tiles) == 3 and all(tile.width == _WIDTH for tile in tiles)  # three in a row leave no gap
    most = _WIDTH * (3 if three else _COLUMNS) + 1e-6
    rows: list[list[Tile]] = []
    for tile in tiles:
        if rows and sum(other.width for other in rows[-1]) + tile.width <= most:
            rows[-1].append(tile)
        else:
            rows.append([tile])
    pages: list[list[list[Tile]]] = []
    for row in rows:
        if pages and sum(map(_height, pages[-1])) + _height(row) <= _TALLEST:
            pages[-1].append(row)
        else:
            pages.append([row])
    return pages


def _height(row: Sequence[Tile]) -> float:
    return max(tile.height for tile in row)


def _placed(rows: Sequence[Sequence[Tile]]) -> list[tuple[Tile, float, float]]:
    """Each tile with the place of its upper left corner, in inches from that of the page."""
    found, top = [], 0.0
    for row in rows:
        left = 0.0
        for tile in row:
            found.append((tile, left, top))
            left += tile.width
        top += _height(row)
    return found


def _joined_svg(placed: Sequence[tuple[Tile, float, float]], width: float, height: float) -> str:
    parts = [_HEAD.format(f"{72 * width:g}", f"{72 * height:g}")]
    for number, (tile, left, top) in enumerate(placed, start=1):
        own = with_ids(bare(tile.svg), f"p{number}-")
        head = f'<svg x="{72 * left:g}" y="{72 * top:g}" width="{72 * tile.width:g}" height="{72 * tile.height:g}"'
        parts.append(head + re.sub(r'^<svg width="[^"]*" height="[^"]*"', "", own))
    return "".join([*parts, "</svg>\n"])


def _joined_pixels(
    placed: Sequence[tuple[Tile, float, float]], width: float, height: float
) -> NDArray[np.uint8]:  # fmt: skip
    joined = np.full((round(_DPI * height), round(_DPI * width), 4), 255, dtype=np.uint8)
    for tile, left, top in placed:
        area = joined[round(_DPI * top) :, round(_DPI * left) :][: len(tile.pixels), : tile.pixels.shape[1]]
        area[:] = tile.pixels[: area.shape[0], : area.shape[1]]
    return joined


def _write_png(pixels: NDArray[np.uint8], path: Path) -> None:
    from matplotlib.image import imsave

    imsave(path, pixels, dpi=_DPI, metadata={"Software": None})  # type: ignore[dict-item]  # None leaves it out


def bare(svg: str) -> str:
    """The SVG element alone, without metadata and name spaces, to stand within another."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)


def with_ids(svg: str, prefix: str) -> str:
    """The same with a prefix before all ids, so that drawings of one page have none in common."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return svg.replace("url(#", f"url(#{prefix}").replace('href="#', f'href="#{prefix}')


def settle(figure: Figure) -> None:
    """Lay a figure out and keep it so: else it is done again for every file."""
    if (engine := figure.get_layout_engine()) is not None:
        own = figure.dpi
        figure.set_dpi(_DPI)  # texts measured in few pixels come out too short
        engine.execute(figure)
        figure.set_dpi(own)
        figure.set_layout_engine(None)  # with "none" an empty one stays, for whose sake each file is drawn twice


def save(figure: Figure, path: Path) -> str:
    """Write a figure as SVG and PNG, on white and without dates; return its SVG for the page."""
    settle(figure)
    svg = _svg(figure)
    path.with_suffix(".svg").write_text(svg, encoding="utf-8", newline="\n")
    figure.savefig(path.with_suffix(".png"), dpi=_DPI, facecolor="white", metadata={"Software": None})
    return transparent(svg)


def _svg(figure: Figure) -> str:
    """A figure as SVG on white, the same for the same figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return buffer.getvalue().decode("utf-8")


def transparent(svg: str) -> str:
    """The same without its background, which is drawn first: the page has its own."""
    return svg.replace('style="fill: #ffffff"', 'style="fill: none"', 1)
