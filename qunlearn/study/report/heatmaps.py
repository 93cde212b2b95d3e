"""Heat maps over depth and entanglement, one small map a method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qunlearn.study.report.material import ORIGINAL, RETRAINED, Material
from qunlearn.study.report.style import PAPER
from qunlearn.study.report.tables import cells
from qunlearn.study.report.views import MOST_SETTINGS, slug
from qunlearn.study.report.wording import method_name, setting_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

Floats = NDArray[np.float64]

NEAR = "in brackets: no further than the retrained models are from each other"


@dataclass(frozen=True)
class Quantity:
    """What the colour of a map says."""

    measure: str
    label: str
    factor: float
    digits: int


QUANTITIES = (
    Quantity("gap_forget", "Gap in forget-set accuracy to the retrained models (percentage points)", 100.0, 1),
    Quantity("js_test", "Jensen\u2013Shannon divergence to the retrained models, test set (nats)", 1.0, 3),
)


def heatmaps(material: Material) -> Iterator[tuple[str, Figure, str, str]]:
    """For each request, noise and quantity: the files' stem, the figure, its alternative text, its title.

    Nothing unless both depth and entanglement are swept; and nothing where retrained models have a spread of their own,
    on which the maps of `landscape_figures` are centred.
    """
    records = material.records
    centred = "oracle_distance" in records and records["oracle_distance"].notna().any()
    if not {"depth", "entanglement"} <= set(material.swept) or centred:
        return
    for title, rows in _parts(material):
        for quantity in QUANTITIES:
            if quantity.measure in rows:
                maps = _maps(rows, quantity, material.methods)
                stem = f"heatmap-{slug(quantity.measure)}-{slug(title)}"
                yield stem, _figure(maps, quantity, _ticks(rows), title), _alt(maps, quantity, title), title


def _parts(material: Material) -> Iterator[tuple[str, DataFrame]]:
    """The records of each request, by noise and shots where these are swept over a few values."""
    for request, rows in material.records.groupby("request", sort=False):
        apart = material.conditions
        if not apart or len(rows[apart].drop_duplicates()) > MOST_SETTINGS:
            yield str(request), rows
            continue
        for values, some in rows.groupby(apart, sort=False, dropna=False):
            setting = dict(zip(apart, values if isinstance(values, tuple) else (values,), strict=True))
            yield f"{request}, {setting_name(setting)}", some


def _ticks(rows: DataFrame) -> tuple[list[str], list[str]]:
    depths = sorted(rows["depth"].unique())
    return [str(depth) for depth in depths], [str(name) for name in dict.fromkeys(rows["entanglement"])]


def _maps(rows: DataFrame, quantity: Quantity, methods: list[str]) -> dict[str, Floats]:
    """Mean of the quantity for each method, ``(depths, patterns)``; the retrained models' own first."""
    depths, patterns = sorted(rows["depth"].unique()), list(dict.fromkeys(rows["entanglement"]))
    floor = f"{quantity.measure}_floor"
    means = cells(
        rows, ["method", "depth", "entanglement"], [name for name in (quantity.measure, floor) if name in rows]
    )
    table = means.groupby(["method", "depth", "entanglement"], sort=False, dropna=False).mean(numeric_only=True)
    maps = {}
    for method in (RETRAINED, ORIGINAL, *methods):
        if method in table.index.get_level_values("method"):
            maps[method] = quantity.factor * square(table[quantity.measure].loc[method], depths, patterns)
    if floor in table and not np.isfinite(maps.get(RETRAINED, np.array([np.nan]))).any():
        own = table[floor].groupby(["depth", "entanglement"]).mean()
        maps = {RETRAINED: quantity.factor * square(own, depths, patterns)} | maps
    return maps


def square(values: Any, depths: list[Any], patterns: list[Any]) -> Floats:
    """A series over depth and pattern as a matrix, NaN where a pair was not run."""
    return np.asarray(values.unstack().reindex(index=depths, columns=patterns), dtype=np.float64)


def _figure(maps: dict[str, Floats], quantity: Quantity, ticks: tuple[list[str], list[str]], request: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    columns = columns_of(len(maps), len(ticks[1]))
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(7.1, 0.95 + rows * (0.35 + 0.24 * len(ticks[0]))), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    # The root spreads the small gaps: the original's would leave all others one colour.
    norm = PowerNorm(0.5, 0.0, max(float(np.nanmax(values)) for values in maps.values()) or 1.0)
    for axes, (method, values) in zip(grid.ravel(), maps.items(), strict=False):
        _map(axes, method, values, norm, quantity, maps.get(RETRAINED))
    for number, axes in enumerate(grid.ravel()):
        name_axes(axes, number, len(maps), columns, ticks)
    figure.supxlabel("Entanglement pattern", fontsize=8)
    figure.supylabel("Depth (layers)", fontsize=8)
    bar = figure.colorbar(ScalarMappable(norm, "cividis"), ax=grid, location="top", fraction=0.05, aspect=60)
    bar.set_label(f"Forget {request}. {quantity.label};\n{NEAR}")
    bar.outline.set_visible(False)
    return figure


def columns_of(count: int, patterns: int) -> int:
    """How many maps stand side by side: as many as leave the fewest places empty."""
    fitting = [columns for columns in (4, 5, 3) if columns * patterns <= 20] or [3]
    return min(min(fitting, key=lambda columns: -count % columns), count)


def name_axes(axes: Axes, number: int, count: int, columns: int, ticks: tuple[list[str], list[str]]) -> None:
    """Tick labels at the left edge and under the lowest map of each column; nothing where there is no map."""
    if number >= count:
        axes.set_axis_off()
        return
    depths, patterns = ticks
    lowest, leftmost = number + columns >= count, number % columns == 0
    turn = 90 if max(map(len, patterns)) > 6 else 0
    axes.set_xticks(range(len(patterns)), patterns if lowest else [""] * len(patterns), rotation=turn)
    axes.set_yticks(range(len(depths)), depths if leftmost else [""] * len(depths))


def _map(axes: Axes, method: str, values: Floats, norm: Any, quantity: Quantity, own: Floats | None) -> None:
    from matplotlib import colormaps

    edges = [np.arange(length + 1) - 0.5 for length in reversed(values.shape)]
    axes.pcolormesh(*edges, values, cmap="cividis", norm=norm, edgecolors=PAPER, linewidth=1.2)
    axes.invert_yaxis()
    axes.set_title(
        method_name(method), fontsize=7.5, fontweight="bold" if method in (RETRAINED, ORIGINAL) else "normal"
    )
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = colormaps["cividis"](norm(value))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            near = method != RETRAINED and own is not None and value <= own[row, column]
            text = f"[{value:.{quantity.digits}f}]" if near else f"{value:.{quantity.digits}f}"
            ink = "#ffffff" if dark else "#000000"
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=ink)


def _alt(maps: dict[str, Floats], quantity: Quantity, request: str) -> str:
    listed = "; ".join(
        f"{method_name(method)} {np.nanmin(values):.{quantity.digits}f} to {np.nanmax(values):.{quantity.digits}f}"
        for method, values in maps.items()
    )
    return f"Heat maps over depth and entanglement pattern, forget {request}. {quantity.label}: {listed}."
