"""Figures of the sweep: distances centred on the retrained models' spread, verdicts, and what depth trades."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qunlearn.evaluation.verdict import VERDICTS
from qunlearn.study.report.heatmaps import columns_of, name_axes, square
from qunlearn.study.report.kinds import by_kind
from qunlearn.study.report.material import ORIGINAL, RETRAINED
from qunlearn.study.report.style import INK, MUTED, PAPER, marks
from qunlearn.study.report.sweep import CIRCUIT, DISTANCE, Sweep, verdict_counts
from qunlearn.study.report.views import slug
from qunlearn.study.report.wording import method_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

Floats = NDArray[np.float64]
Drawn = tuple[str, "Figure", str, str]
_VERDICTS = dict(zip(VERDICTS, ("#009E73", "#E69F00", "#d8dcd9", "#CC79A7"), strict=True))
_COLOURS = "RdBu_r"
_LEAST = math.log(1.5)  # a scale that ends nearer would show noise in full colour


def landscape_figures(sweep: Sweep | None) -> Iterator[Drawn]:
    """For each request and setting: the files' stem, the figure, its alternative text, its title."""
    if sweep is None:
        return
    main = sweep.arm(CIRCUIT)
    if {"depth", "entanglement"} <= {name for name in main.columns if main[name].nunique() > 1}:
        for title, rows in _parts(sweep, main):
            yield _distances(sweep, rows, title)
        for title, rows in _parts(sweep, main):
            if "verdict" in rows and rows["verdict"].isin(VERDICTS).any():
                yield _verdicts(rows, title)
    if main["depth"].nunique() > 1 and {"accuracy_test", "retrained_accuracy_test"} <= set(main.columns):
        for request in sweep.requests:
            yield _tradeoff(main[main["request"] == request], request)


def centred(value: Floats, least: Floats, most: Floats) -> Floats:
    """How far distances lie beyond a range, as logarithms of the ratio to its nearer end: 0 within, above positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        above, below = np.log(value / most), np.log(value / least)
    return np.asarray(np.where(value > most, above, np.where(value < least, below, 0.0 * value)), dtype=np.float64)


def _parts(sweep: Sweep, rows: DataFrame) -> Iterator[tuple[str, DataFrame]]:
    """By request and block the trials, where both depth and pattern vary: what a map can show."""
    for request in sweep.requests:
        for block, own in rows[rows["request"] == request].groupby("block", sort=False):
            if min(own["depth"].nunique(), own["entanglement"].nunique()) > 1:
                yield (f"{request}, {block!s}" if block else request), own


def _names(rows: DataFrame) -> list[str]:
    methods = [str(name) for name in dict.fromkeys(rows["method"]) if name not in (ORIGINAL, RETRAINED)]
    return [ORIGINAL, *by_kind(methods)]


def _ticks(rows: DataFrame) -> tuple[list[Any], list[Any]]:
    return sorted(rows["depth"].unique()), list(dict.fromkeys(rows["entanglement"]))


def _grid(count: int, ticks: tuple[list[Any], list[Any]], columns: int) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(7.1, 1.1 + rows * (0.35 + 0.24 * len(ticks[0]))), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.supxlabel("Entanglement pattern", fontsize=8)
    figure.supylabel("Depth (layers)", fontsize=8)
    return figure, grid


def _settled(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what follows need not settle it again
    return figure


def _framed(axes: Axes, name: str) -> None:
    axes.invert_yaxis()
    axes.set_title(method_name(name), fontsize=7.5, fontweight="bold" if name == ORIGINAL else "normal")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _distances(sweep: Sweep, rows: DataFrame, title: str) -> Drawn:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    depths, patterns = _ticks(rows)
    keys = ["method", "depth", "entanglement"]
    columns = [DISTANCE, f"{DISTANCE}_floor_low", f"{DISTANCE}_floor_high"]
    table = rows.groupby(keys, sort=False)[columns].mean()
    maps = {}
    for name in _names(rows):
        maps[name] = tuple(square(table[column].loc[name], depths, patterns) for column in columns)
    colours = {name: centred(*own) for name, own in maps.items()}
    limit = max(_LEAST, *(float(np.nanmax(np.abs(own), initial=0.0)) for own in colours.values()))
    norm, empty = Normalize(-limit, limit), _empty(sweep, rows, depths, patterns)
    across = columns_of(len(maps), len(patterns))
    ticks = ([str(depth) for depth in depths], [str(name) for name in patterns])
    figure, grid = _grid(len(maps), ticks, across)
    for axes, (name, own) in zip(grid.ravel(), maps.items(), strict=False):
        _map(axes, colours[name], own[0], norm, empty)
        _framed(axes, name)
    for number, axes in enumerate(grid.ravel()):
        name_axes(axes, number, len(maps), across, ticks)
    bar = figure.colorbar(ScalarMappable(norm, _COLOURS), ax=grid, location="top", fraction=0.05, aspect=60)
    shown = [step for step in (0.1, 0.2, 0.4, 0.7, 0.8, 1.0, 1.25, 1.4, 2.5, 5.0, 10.0) if abs(math.log(step)) <= limit]
    bar.set_ticks([math.log(step) for step in shown], labels=[f"{step:g}" for step in shown])
    bar.set_label(f"Forget {title}\nOracle distance beside the nearer end of the retrained models\u2019 own range;\n"
                  "in brackets: within that range. Hatched: nothing to forget")  # fmt: skip
    bar.outline.set_visible(False)
    return f"landscape-distance-{slug(title)}", _settled(figure), _alt(maps, title), title


def _map(axes: Axes, colour: Floats, values: Floats, norm: Any, empty: Floats) -> None:
    from matplotlib import colormaps

    edges = [np.arange(length + 1) - 0.5 for length in reversed(values.shape)]
    axes.pcolormesh(*edges, colour, cmap=_COLOURS, norm=norm, edgecolors=PAPER, linewidth=1.2)
    for (row, column), value in np.ndenumerate(values):
        if not math.isfinite(value):
            continue
        if empty[row, column]:
            from matplotlib.patches import Rectangle

            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor=MUTED, linewidth=0, alpha=0.4))
        red, green, blue, _ = colormaps[_COLOURS](norm(colour[row, column]))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        text = f"[{value:.2f}]" if colour[row, column] == 0 else f"{value:.2f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=6, color="#ffffff" if dark else "#000000")


def _empty(sweep: Sweep, rows: DataFrame, depths: list[Any], patterns: list[Any]) -> Floats:
    """1 where there is nothing to forget, ``(depths, patterns)``."""
    found = np.zeros((len(depths), len(patterns)))
    if sweep.cells is None:
        return found
    own = sweep.cells[(sweep.cells["arm"] == CIRCUIT) & sweep.cells["empty"].astype(bool)]
    own = own[(own["request"] == rows["request"].iloc[0]) & (own["block"] == rows["block"].iloc[0])]
    for one in own.to_dict("records"):
        found[depths.index(one["depth"]), patterns.index(one["entanglement"])] = 1.0
    return found


def _alt(maps: dict[str, tuple[Floats, ...]], title: str) -> str:
    told = []
    for name, (values, _, most) in maps.items():
        inside = int((values <= most).sum())
        told.append(
            f"{method_name(name)} {np.nanmin(values):.2f} to {np.nanmax(values):.2f}, in {inside} of "
            f"{int(np.isfinite(values).sum())} cells no farther than retrained models"
        )
    return f"Oracle distance over depth and entanglement, forget {title}: " + "; ".join(told) + "."


def _verdicts(rows: DataFrame, title: str) -> Drawn:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    depths, patterns = _ticks(rows)
    counts = verdict_counts(rows)
    names = [name for name in _names(rows) if name in counts.index.get_level_values("method")]
    ticks = ([str(depth) for depth in depths], [str(name) for name in patterns])
    across = columns_of(len(names), len(patterns))
    figure, grid = _grid(len(names), ticks, across)
    for axes, name in zip(grid.ravel(), names, strict=False):
        own: Any = counts.xs(name, level="method")
        most = square(own.to_numpy().argmax(axis=1) + 0.0 * own.iloc[:, 0], depths, patterns)
        share = square(own.max(axis=1), depths, patterns)
        total = square(own.sum(axis=1), depths, patterns)
        edges = [np.arange(length + 1) - 0.5 for length in reversed(most.shape)]
        cmap = ListedColormap(list(_VERDICTS.values()))
        axes.pcolormesh(*edges, most, cmap=cmap, vmin=-0.5, vmax=3.5, edgecolors=PAPER, linewidth=1.2)
        for (row, column), value in np.ndenumerate(share):
            if math.isfinite(value):
                text = f"{value:.0f}/{total[row, column]:.0f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=6, color="#000000")
        _framed(axes, name)
    for number, axes in enumerate(grid.ravel()):
        name_axes(axes, number, len(names), across, ticks)
    handles = [Patch(color=colour, label=name) for name, colour in _VERDICTS.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False, fontsize=7.5,
                  title=f"Forget {title}. The most frequent verdict, and of how many models", title_fontsize=8,
                  alignment="left")  # fmt: skip
    told = []
    for name in names:
        sums: Any = counts.xs(name, level="method").sum()
        told.append(f"{method_name(name)} " + ", ".join(f"{int(sums[word])} {word}" for word in VERDICTS))
    return f"landscape-verdicts-{slug(title)}", _settled(figure), f"Verdicts, forget {title}: {'; '.join(told)}.", title


def _tradeoff(rows: DataFrame, request: str) -> Drawn:
    """Lines through the depths, a method each: lost test accuracy against distance."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    names = _names(rows)
    mark, told = marks(names[1:]), []
    figure = Figure(figsize=(7.1, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    lost = rows.assign(lost=100 * (rows["retrained_accuracy_test"] - rows["accuracy_test"]))
    table = lost.groupby(["method", "depth"], sort=True)[["lost", DISTANCE]].mean()
    for name in names:
        own = table.loc[name]
        colour, marker = (mark[name].colour, mark[name].marker) if name in mark else (INK, "*")
        axes.plot(own["lost"], own[DISTANCE], color=colour, linewidth=1, alpha=0.7)
        sizes = 12 + 40 * np.linspace(0, 1, len(own))
        axes.scatter(own["lost"], own[DISTANCE], s=sizes, color=colour, marker=marker, label=method_name(name),
                     edgecolors=PAPER, linewidths=0.5, zorder=3)  # fmt: skip
        ends = ", ".join(f"depth {depth} {own[DISTANCE].loc[depth]:.2f}" for depth in own.index[[0, -1]])
        told.append(f"{method_name(name)} {ends}")
    floor = rows[[f"{DISTANCE}_floor_low", f"{DISTANCE}_floor_high"]].mean()
    axes.axhspan(floor.iloc[0], floor.iloc[1], color="#e3e7e8", zorder=0)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("Test accuracy lost beside retrained models (percentage points)")
    axes.set_ylabel(f"Oracle distance, forget {request}")
    figure.legend(loc="outside right upper", frameon=False, fontsize=7)
    alt = f"Distance against lost test accuracy over depth, forget {request}: " + "; ".join(told) + "."
    return f"landscape-tradeoff-{slug(request)}", _settled(figure), alt, request
