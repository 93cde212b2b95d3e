"""How figures look: colours, marks and type, the same in every figure and every study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from qunlearn.study.report.kinds import MANY, grouped

INK, MUTED, RULE, BAND, PAPER = "#1d2327", "#5d676f", "#d8dcd9", "#e3e7e8", "#fefefe"
WITHIN, UNSETTLED, BEYOND = "#0b6e4f", "#6b5a1e", "#9c3b12"  # where a figure lies against the retrained models' range

# Okabe and Ito's colours without black and yellow (the first is the ink's, the second vanishes on white),
# ordered so that neighbours differ in grey too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6B4C9A")
_TELLING = 3  # families: with fewer, colours tell single methods apart
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "p", "h")
_MORE = ("<", ">")  # for families that are long

_RC: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.labelsize": 8.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "figure.dpi": 72.0,  # lengths in the layout are then points
    "svg.fonttype": "none",
    "svg.hashsalt": "qunlearn",
}


@dataclass(frozen=True)
class Mark:
    """Colour and marker of one method."""

    colour: str
    marker: str


def marks(methods: Sequence[str]) -> dict[str, Mark]:
    """A mark for each method.

    Colour and marker repeat with different periods, so that pairs stay apart. Where methods are many, those of one
    family share a colour and differ in the marker.
    """
    return _marks(tuple(methods))


@lru_cache(maxsize=64)
def _marks(methods: tuple[str, ...]) -> dict[str, Mark]:
    groups = grouped(methods)
    if len(methods) <= MANY or len(groups) < _TELLING:
        pairs = [(number % len(_COLOURS), number % len(_MARKS)) for number in range(len(methods))]
        return {name: Mark(_COLOURS[one], _MARKS[other]) for name, (one, other) in zip(methods, pairs, strict=True)}
    found: dict[str, Mark] = {}
    for number, (_, names) in enumerate(groups):
        for name in names:
            found[name] = _free(number, set(found.values()))
    return {name: found[name] for name in methods}


def _free(first: int, taken: set[Mark]) -> Mark:
    """The first mark that is free, of a family's own colour if there is one; any, once all are taken."""
    order = [*_COLOURS[first % len(_COLOURS) :], *_COLOURS[: first % len(_COLOURS)]]
    every = [Mark(colour, marker) for colour in order for marker in (*_MARKS, *_MORE)]
    return next((mark for mark in every if mark not in taken), every[0])


@contextmanager
def drawing() -> Iterator[None]:
    """The settings of matplotlib under which figures are made and saved; restored afterwards."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)  # type: ignore[arg-type]  # the stubs list the names one by one
        yield
