"""How figures look: colours, marks and type, the same in every figure and every study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

INK, MUTED, RULE, BAND, PAPER = "#1d2327", "#5d676f", "#d8dcd9", "#e3e7e8", "#fefefe"

# Okabe and Ito's colours without black and yellow (the first is the ink's, the second vanishes on white),
# ordered so that neighbours differ in grey too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6B4C9A")
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "p", "h")

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
    """A mark for each method; colour and marker repeat with different periods, so that pairs stay apart."""
    return {
        name: Mark(_COLOURS[number % len(_COLOURS)], _MARKS[number % len(_MARKS)])
        for number, name in enumerate(methods)
    }


@contextmanager
def drawing() -> Iterator[None]:
    """The settings of matplotlib under which figures are made and saved; restored afterwards."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)  # type: ignore[arg-type]  # the stubs list the names one by one
        yield
