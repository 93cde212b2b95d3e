"""Training curves: loss on training and validation set by epoch, and whether training was long enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qunlearn.study.report.material import Material
from qunlearn.study.report.style import INK, MUTED
from qunlearn.study.report.tabling import Plain
from qunlearn.study.report.wording import setting_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

NEAR = 1.02  # times the least validation loss: near enough to it
LATE = 0.1  # part of the epochs that counts as the last
_MODEL = ("method", "request", "kind", "split_seed", "seed")
_NOT_AXES = (*_MODEL, "control", "epoch", "loss", "validation_loss", "validation_accuracy", "kept")
_LINES = (("validation_loss", "validation", "#0072B2"), ("loss", "training", "#D55E00"))
_COLUMNS, _MOST = 4, 24  # panels side by side, and in one figure


@dataclass(frozen=True)
class Trained:
    """The trainings of one kind at one setting.

    Args:
        title: the setting, and what was trained.
        rows: a row a model and epoch.
        count: how many models.
        epochs: how many epochs, the most.
        near: how many end within 2 % of their least validation loss.
        falling: how many lowered that loss by more than 2 % in the last tenth of the epochs.
        kept: median of the epochs kept.
    """

    title: str
    rows: DataFrame
    count: int
    epochs: int
    near: int
    falling: int
    kept: float


def trainings(material: Material) -> list[Trained]:
    """Originals, then retrained models of all requests together, at each setting.

    Models that a method trains its own way stand apart.
    """
    if material.histories is None or material.histories.empty:
        return []
    table = material.histories
    axes = [name for name in table.columns if name not in _NOT_AXES and table[name].nunique(dropna=False) > 1]
    found = []
    for values, rows in table.groupby(axes, sort=False, dropna=False) if axes else [((), table)]:
        setting = dict(zip(axes, values if isinstance(values, tuple) else (values,), strict=True))
        for method, some in rows.groupby("method", sort=False, dropna=False):
            for retrained, words in ((False, "original models"), (True, "retrained models")):
                own = some[some["request"].notna() == retrained]
                if not own.empty:
                    how = f"{words} of {method}" if isinstance(method, str) else words
                    found.append(_trained(", ".join(part for part in (setting_name(setting), how) if part), own))
    return found


def _trained(title: str, rows: DataFrame) -> Trained:
    near = falling = 0
    models = list(_models(rows))
    for one in models:
        losses = one.sort_values("epoch")["validation_loss"].to_numpy(dtype=np.float64)
        near += bool(losses[-1] <= NEAR * np.nanmin(losses))
        falling += still_falling(losses)
    kept = float(np.median(_kept(rows)))
    return Trained(title, rows, len(models), int(rows["epoch"].max()), near, falling, kept)


def _models(rows: DataFrame) -> Iterator[DataFrame]:
    """The rows of each model."""
    for _, own in rows.groupby(list(_MODEL), sort=False, dropna=False):
        yield own


def _kept(rows: DataFrame) -> list[float]:
    """The epoch of each model that was kept."""
    return [float(epoch) for epoch in rows.loc[rows["kept"].astype(bool), "epoch"]]


def still_falling(losses: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
    """Whether the least loss before the last tenth of the epochs is undercut there by more than 2 %.

    Args:
        losses: of the validation set, ``(epochs + 1,)``, the untrained model's first.
    """
    late = max(1, round(LATE * (len(losses) - 1)))
    before = losses[:-late]
    return bool(len(before) and np.nanmin(before) > NEAR * np.nanmin(losses))


def verdict(found: Sequence[Trained]) -> str:
    """Whether the epochs were enough, in a sentence."""
    count, near = (sum(getattr(one, name) for one in found) for name in ("count", "near"))
    falling = sum(one.falling for one in found)
    head = (
        f"In {near} of {count} trainings the last epoch\u2019s validation loss is within 2 % of the least; the others "
        "had their best epoch before the end, and it is the one kept."
        if near < count
        else f"In all {count} trainings the last epoch\u2019s validation loss is within 2 % of the least."
    )
    if falling:
        return (
            f"{head} But in {falling} the loss still fell by more than 2 % over the last tenth of the epochs: these "
            "were stopped too early, and what is said of them may change with more epochs."
        )
    return (
        f"{head} In none did it still fall by more than 2 % over the last tenth of the epochs: they were long enough."
    )


def training_table(found: Sequence[Trained]) -> Plain:
    """One row a setting and kind."""
    heads = ("trained", "models", "epochs", "median epoch kept", "end within 2 % of the least", "stopped too early")
    rows = tuple(
        (one.title, str(one.count), str(one.epochs), f"{one.kept:g}", f"{one.near} of {one.count}",
         f"{one.falling} of {one.count}")
        for one in found
    )  # fmt: skip
    return Plain("Training", heads, rows)


def curve_figures(material: Material) -> Iterator[tuple[str, Figure, str, str]]:
    """For up to 24 panels each: the files' stem, the figure, its alternative text, its title."""
    found = trainings(material)
    for first in range(0, len(found), _MOST):
        some = found[first : first + _MOST]
        stem = "training-curves" if first == 0 else f"training-curves-{first // _MOST + 1}"
        yield stem, _figure(some), _alt(some), ""


def _figure(found: Sequence[Trained]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(found))
    rows = -(-len(found) // columns)
    width = 7.4 if columns > 2 else 3.2 * columns
    figure = Figure(figsize=(width, 0.4 + 1.75 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, one in zip(grid, found, strict=False):
        _panel(axes, one, 24 if columns > 2 else 40)
    for axes in grid[len(found) :]:
        axes.set_axis_off()
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=7.5)
    return figure


def _panel(axes: Axes, one: Trained, width: int) -> None:
    import textwrap

    for measure, words, colour in _LINES:
        spread = one.rows.groupby("epoch")[measure].agg(["min", "mean", "max"]).dropna()
        axes.fill_between(spread.index, spread["min"], spread["max"], color=colour, alpha=0.18, linewidth=0)
        axes.plot(spread.index, spread["mean"], color=colour, linewidth=1.1, label=f"{words} loss")
    kept = _kept(one.rows)
    axes.plot(
        kept, np.zeros(len(kept)), linestyle="none", marker="|", markersize=7, color=INK, alpha=0.6, clip_on=False,
        transform=axes.get_xaxis_transform(), label="epochs kept", zorder=4,
    )  # fmt: skip
    axes.set_title(textwrap.fill(one.title, width), fontsize=7.2)
    axes.set_ylim(bottom=0.0)
    axes.locator_params(axis="x", nbins=4, integer=True)
    axes.set_xlabel("Epoch", fontsize=7.0)
    axes.set_ylabel("Loss (nats)", fontsize=7.0, color=MUTED)


def _alt(found: Sequence[Trained]) -> str:
    parts = []
    for one in found:
        last = one.rows[one.rows["epoch"] == one.epochs]
        values = ", ".join(f"{words} {last[measure].mean():.3f}" for measure, words, _ in _LINES)
        parts.append(f"{one.title}: {one.epochs} epochs, last losses {values}, median epoch kept {one.kept:g}")
    return f"Training curves, loss by epoch, mean and range over the models. {'; '.join(parts)}."
