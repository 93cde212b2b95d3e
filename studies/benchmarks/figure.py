"""The figure: time and memory of a step along each axis, on logarithmic scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.growth import axis
from benchmarks.jobs import Point
from benchmarks.peers import OURS, PEERS

#: Okabe and Ito's colours; ours are the two darkest lines.
_COLOURS = {
    "fused": "#1d2327", "torch": "#0072B2", "pennylane-one": "#56B4E9", "pennylane": "#D55E00", "lightning": "#E69F00",
    "tensorcircuit": "#009E73", "tensorcircuit-z": "#6B4C9A", "deepquantum": "#CC79A7",
}  # fmt: skip
_MARKS = dict(zip(PEERS, "osvDP^<X", strict=True))
_STYLE: dict[str, Any] = {
    "font.size": 8.0, "axes.titlesize": 8.5, "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#d8dcd9", "grid.linewidth": 0.5,
    "svg.fonttype": "none", "svg.hashsalt": "qunlearn",
}  # fmt: skip
_AXES = ("qubits", "depth", "batch")
_LABELS = {"qubits": "Qubits", "depth": "Depth (layers)", "batch": "Batch (samples)"}


def draw(series: Mapping[str, Mapping[str, Mapping[Point, float]]], centre: Point, target: Path) -> None:
    """Write the figure as PNG and SVG.

    Args:
        series: quantity ("Time of a step (ms)", ...) -> engine -> point -> value; one row of panels a quantity.
        centre: the point through which the axes go.
        target: file without suffix.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # the stubs list the names one by one
        figure = Figure(figsize=(7.1, 0.7 + 2.4 * len(series)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(series), len(_AXES), squeeze=False, sharex="col", sharey="row")
        for row, (quantity, engines) in zip(panels, series.items(), strict=True):
            row[0].set_ylabel(quantity)
            for panel, name in zip(row, _AXES, strict=True):
                _panel(panel, name, engines, centre)
        for panel, name in zip(panels[-1], _AXES, strict=True):
            panel.set_xlabel(_LABELS[name])
        for panel, name in zip(panels[0], _AXES, strict=True):
            panel.set_title(_others(name, centre))
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            figure.savefig(target.with_suffix(f".{suffix}"), dpi=200, metadata=metadata)


def _panel(panel: Any, name: str, engines: Mapping[str, Mapping[Point, float]], centre: Point) -> None:
    from matplotlib.ticker import ScalarFormatter

    ticks: set[int] = set()
    for key, values in engines.items():
        sizes, found = axis(values, name, centre)
        ticks |= set(sizes)
        wide = 1.8 if key in OURS else 0.9
        panel.plot(sizes, found, _MARKS[key] + "-", color=_COLOURS[key], lw=wide, ms=3.5, label=PEERS[key].title)
    panel.set_yscale("log")
    if name != "qubits":
        panel.set_xscale("log", base=2 if name == "depth" else 4)
    panel.set_xticks(sorted(ticks))
    panel.xaxis.set_major_formatter(ScalarFormatter())
    panel.tick_params(axis="x", which="minor", length=0, labelsize=0)


def _others(name: str, centre: Point) -> str:
    words: dict[str, Callable[[], str]] = {
        "qubits": lambda: f"{centre.qubits} qubits",
        "depth": lambda: f"depth {centre.depth}",
        "batch": lambda: f"batch {centre.batch}",
    }
    return ", ".join(words[other]() for other in _AXES if other != name)
