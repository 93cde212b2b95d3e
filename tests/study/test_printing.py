"""Panels joined for print: where each stands, that nothing is lost, and that no file is too tall."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread

from qunlearn.study.report.panels import Panel, wrapped
from qunlearn.study.report.printing import Tile, save_joined, tile_of
from qunlearn.study.report.style import drawing


def plain(grey: int, height: float = 2.0, wide: bool = False) -> Tile:
    width = 7.1 if wide else 3.55
    pixels = np.full((int(220 * height), int(220 * width), 4), grey, dtype=np.uint8)
    pixels[..., 3] = 255
    size = f'width="{72 * width:g}pt" height="{72 * height:g}pt"'
    text = (
        f'<?xml version="1.0"?>\n<svg {size} xmlns="http://www.w3.org/2000/svg"><g id="a"><text>{grey}</text></g></svg>'
    )
    return Tile(text, pixels, width, height)


def greys(path: Path) -> list[list[int]]:
    """The grey in the middle of each quarter of each two inches, white as 255."""
    image = np.rint(255 * imread(path)[..., 0]).astype(int)
    return [[int(image[y, int(220 * x)]) for x in (1.7, 5.3)] for y in range(220, image.shape[0], 440)]


def test_tiles_stand_two_in_a_row_and_wide_ones_alone(tmp_path: Path) -> None:
    save_joined([plain(10), plain(20), plain(30), plain(40, wide=True), plain(50)], tmp_path / "some")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some.png", "some.svg"]
    assert greys(tmp_path / "some.png") == [[10, 20], [30, 255], [40, 40], [50, 255]]
    found = [one for one in ElementTree.parse(tmp_path / "some.svg").getroot() if one.tag.endswith("svg")]
    places = [(float(one.get("x", "")), float(one.get("y", "")), float(one.get("width", ""))) for one in found]
    assert places == [(0, 0, 255.6), (255.6, 0, 255.6), (0, 144, 255.6), (0, 288, 511.2), (0, 432, 255.6)]
    ids = [one.get("id") for one in ElementTree.parse(tmp_path / "some.svg").iter() if one.get("id")]
    assert len(set(ids)) == len(found)


def test_what_is_too_tall_goes_on_in_further_files(tmp_path: Path) -> None:
    save_joined([plain(grey, height=6.0, wide=True) for grey in range(5)], tmp_path / "tall")
    heights = {path.name: imread(path).shape[0] for path in tmp_path.glob("*.png")}
    assert heights == {"tall.png": 2640, "tall-2.png": 2640, "tall-3.png": 1320}
    texts = [re.findall(r"<text>(\d)", (tmp_path / f"tall{end}.svg").read_text()) for end in ("", "-2", "-3")]
    assert texts == [["0", "1"], ["2", "3"], ["4"]]


def test_a_panel_has_its_size_and_its_last_step() -> None:
    def draw(axes: Axes) -> None:
        axes.set_xlabel("Words on the axis")

    with drawing():
        tile = tile_of(Panel("", "", draw, height=2.0, wide=True))
    assert tile.pixels.shape == (440, 1562, 4)
    assert "Words on the axis" in tile.svg
    assert (tile.pixels[..., 3] == 255).all()
    assert tile.pixels[..., 0].min() < 100 < tile.pixels[0, 0, 0] == 255


@pytest.mark.parametrize("width", range(20, 45))
def test_titles_keep_short_words_with_theirs(width: int) -> None:
    lines = wrapped("Forget corrupted samples (10 % label flips), ring-cz: forget set", width).split("\n")
    assert " ".join(lines).replace("\u00a0", " ") == "Forget corrupted samples (10 % label flips), ring-cz: forget set"
    assert not any(line.startswith(("%", "set")) for line in lines)
