"""Figures of the page: their titles and captions, and drawings made ready to stand in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qunlearn.study.report.figures import Picture, Plate
from qunlearn.study.report.printing import bare, with_ids
from qunlearn.study.report.style import BAND, BEYOND, INK, MUTED, PAPER, RULE, UNSETTLED, WITHIN

if TYPE_CHECKING:
    from markupsafe import Markup

_TITLES = {
    "forgetting-vs-retained": "Forgetting against retained accuracy",
    "distance-to-retraining": "Distance to retraining",
    "true-labels": "Corrupted samples under their true labels",
    "cost-vs-distance": "Equal compute: cost against distance",
    "audits": "Audits",
    "critical-difference": "Critical-difference diagram",
    "training-curves": "Training curves",
    "noise": "What noise and shots change",
    "landscape-distance": "Depth and entanglement: distance to retraining",
    "landscape-verdicts": "Depth and entanglement: verdicts",
    "landscape-tradeoff": "What depth trades",
    "landscape-states": "States before, after, and retrained",
    "landscape-fidelities": "Fidelity between classes before, after, and retrained",
    "heatmap-gap-forget": "Depth and entanglement: gap on the forget set",
    "heatmap-js-test": "Depth and entanglement: divergence on the test set",
}
_CAPTIONS = {
    "forgetting-vs-retained": "Each mark is the mean of a method. The star is the untouched original, open diamonds "
    "are the retrained models, one each; grey bands span their range in both directions. The aim is where the bands "
    "cross, not zero. Bars that leave a detail are cut.",
    "distance-to-retraining": "Jensen\u2013Shannon divergence between the predictions of each model and of the "
    "retrained models (0 is the same, ln 2 = 0.693 the most). The band is the range of the same value for each "
    "retrained model against the others, the broken line its mean. A method inside the band is no further from "
    "retraining than retraining is from itself.",
    "true-labels": "Share of the corrupted samples that get the label they had before, methods sorted by it; the band "
    "is the retrained models\u2019 range. Whether the harm is gone shows here without any retrained model; the aim is "
    "still their range.",
    "cost-vs-distance": "What a method spends, against how far it stays from the retrained models: samples whose "
    "gradient was taken, and samples sent through the circuit. Band and broken line are the retrained models\u2019 "
    "own spread, the dotted line is what retraining costs. The stair joins the methods than which none is both cheaper "
    "and nearer: compare methods above one another, at equal cost. Below the band nothing is gained.",
    "audits": "One line a method, one panel an audit; the band is the range of the retrained models, audited alike, "
    "the broken line their mean. Disc: inside. Diamond: outside, but the interval reaches in. Triangle: beyond, to the "
    "side where it points; either side is a trace, an AUC below 0.5 as well. Only the distance from the band means "
    "anything.",
    "critical-difference": "Each method at its mean rank by oracle distance. Bars join methods that cannot be told "
    "apart; the ruler below has the length of the critical difference.",
    "training-curves": "Mean loss by epoch, the range over the models shaded; strokes on the axis are the epochs kept. "
    "Retrained models of all requests together.",
    "noise": "One line a method, averaged over what else the study sweeps; the star is the untouched original, the "
    "grey band the retrained models\u2019 range under the same noise. Where lines leave their order, noise decides "
    "what a comparison of methods finds.",
    "landscape-distance": "One map a method, over depth and entanglement pattern. No colour is the retrained "
    "models\u2019 own range in that cell; red is farther off than any of them from the others, blue nearer than any.",
    "landscape-verdicts": "The verdict that most models of a cell have, and how many of them.",
    "landscape-tradeoff": "One line a method through the depths, marks growing with depth, means over patterns and "
    "encodings. The band is the retrained models\u2019 own range; the aim is the band at 0.",
    "landscape-states": "Bloch vectors of single wires, one mark a sample, of the original, the unlearned and a "
    "retrained model: inside the circle a wire is entangled with others.",
    "landscape-fidelities": "Tr(rho sigma) / sqrt(Tr rho^2 Tr sigma^2) of the mean states of two classes, 1 where they "
    "are the same.",
    "heatmap": "One map a method, over depth and entanglement pattern; colours on a root scale. The first map is the "
    "yardstick: the same value for each retrained model against the others. Numbers in brackets are no larger than it.",
}


_OPEN = 2  # large drawings that are not folded
_BASES = {
    "audits": "Bars: 95 % intervals over the audited seeds; for a single model, over its samples.",
    "training-curves": "",
}


@dataclass(frozen=True)
class Drawing:
    """One drawing, ready for the page."""

    svg: Markup
    request: str
    wide: bool


@dataclass(frozen=True)
class Figure:
    """One numbered figure of the page."""

    number: int
    title: str
    caption: str
    file: str
    wide: bool
    large: bool
    part: str
    basis: str
    drawings: tuple[Drawing, ...]

    @property
    def open(self) -> int:
        """How many drawings are not folded: large ones are long."""
        return _OPEN if self.large else len(self.drawings)


def figure_of(number: int, plate: Plate, counted: str) -> Figure:
    """A plate as a numbered figure of the page; `counted` says how many seeds and models its values rest on."""
    stem = next(stem for stem in _TITLES if plate.stem.startswith(stem))
    title = _TITLES[stem]
    if plate.wide and plate.pictures[0].request:
        title = f"{title}, forget {plate.pictures[0].request}"
    drawings = tuple(
        Drawing(inline(picture, f"f{number}-{letter}-"), picture.request, picture.wide)
        for letter, picture in enumerate(plate.pictures, start=1)
    )
    caption = next(text for start, text in _CAPTIONS.items() if stem.startswith(start))
    large = not plate.wide and any(picture.wide for picture in plate.pictures)
    basis = _BASES.get(stem, f"{'Means over' if plate.wide else 'Bars:'} {counted}.")
    return Figure(number, title, caption, plate.stem, plate.wide, large, plate.part, basis, drawings)


def inline(picture: Picture, prefix: str) -> Markup:
    """The SVG element alone: ids made unique by a prefix, colours taken from the page, the text as its label."""
    from markupsafe import Markup, escape

    svg = with_ids(bare(picture.svg), prefix).replace("xlink:href", "href")
    for colour, name in (
        (INK, "ink"),
        (MUTED, "muted"),
        (RULE, "grid"),
        (BAND, "band"),
        (PAPER, "halo"),
        (WITHIN, "within"),
        (UNSETTLED, "unsettled"),
        (BEYOND, "beyond"),
    ):
        svg = svg.replace(colour, f"var(--{name})")
    head = f'<svg role="img" aria-label="{escape(picture.alt)}"'
    return Markup(re.sub(r'^<svg width="[^"]*" height="[^"]*"', lambda _: head, svg.strip(), count=1))
