"""What depth and entanglement do to unlearning: effects with intervals, how much goes by memorisation, and controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qunlearn.errors import InputError
from qunlearn.metrics.statistics import Bounds
from qunlearn.study.report.intervals import RESAMPLES

if TYPE_CHECKING:
    from pandas import DataFrame

Floats = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Mediation:
    """An effect, and how much of it goes by a mediator, in the outcome's units.

    Attributes:
        total: what the outcome changes by where the factor grows by 1.
        direct: the same at an equal mediator.
        indirect: total minus direct.
        first: what the mediator changes by where the factor grows by 1.
    """

    total: Bounds
    direct: Bounds
    indirect: Bounds
    first: Bounds


def effect(
    factor: Sequence[float], blocks: Sequence[object], outcome: Floats, *, resamples: int = RESAMPLES, seed: int = 0
) -> Bounds:
    """The slope of an outcome over a factor within blocks, with a bootstrap interval over seeds and blocks.

    Least squares on the cells' means over seeds, each block with a level of its own:
    ``sum (x - x_block) y / sum (x - x_block)^2``. Seeds and blocks are drawn anew independently of each other, since
    what one original or one set of retained models happened to be like is in all of its trials.

    Args:
        factor: of each cell ``(cells,)``.
        blocks: what cells with equal circumstances share ``(cells,)``.
        outcome: ``(cells, seeds)``, seeds paired over cells; NaN where there is no value.
        resamples: how many.
        seed: of the resampling.

    Returns:
        NaN where no block holds two values of the factor; NaN bounds for one seed.

    Source: Owen 2007, Ann. Appl. Stat. 1, 386 (the pigeonhole bootstrap of crossed factors).
    """
    x, block, y = _checked(factor, blocks, outcome)
    sums = _sums(x, block, [y], resamples, seed)
    return _bounds(_over(sums["xy"], sums["xx"]), outcome.shape[1])


def mediation(
    factor: Sequence[float],
    blocks: Sequence[object],
    outcome: Floats,
    mediator: Floats,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Mediation:
    """The effect of a factor, with and without a mediator as a covariate; arguments as of `effect`.

    Where nothing but the factor moves both, ``direct`` is what does not go by the mediator. What moves both beside it
    is taken for mediation, and noise in the mediator's means takes from ``indirect`` and adds to ``direct``.

    Args:
        factor: of each cell ``(cells,)``.
        blocks: of each cell ``(cells,)``.
        outcome: ``(cells, seeds)``.
        mediator: ``(cells, seeds)``.
        resamples: how many.
        seed: of the resampling.

    Source: Baron and Kenny 1986, J. Pers. Soc. Psychol. 51, 1173 (difference of coefficients).
    """
    x, block, y = _checked(factor, blocks, outcome)
    _, _, m = _checked(factor, blocks, mediator)
    sums = _sums(x, block, [y, m], resamples, seed)
    total, first = _over(sums["xy"], sums["xx"]), _over(sums["xm"], sums["xx"])
    inner = sums["xx"] * sums["mm"] - sums["xm"] ** 2
    inner = np.where(inner > 1e-12 * sums["xx"] * sums["mm"], inner, np.nan)  # one is a multiple of the other
    direct = _over(sums["mm"] * sums["xy"] - sums["xm"] * sums["my"], inner)
    seeds = outcome.shape[1]
    return Mediation(
        _bounds(total, seeds), _bounds(direct, seeds), _bounds(total - direct, seeds), _bounds(first, seeds)
    )


def difference(
    blocks: Sequence[object], one: Floats, other: Floats, *, resamples: int = RESAMPLES, seed: int = 0
) -> Bounds:
    """The mean difference of paired cells, with an interval over seeds and blocks.

    Args:
        blocks: of each pair ``(cells,)``.
        one: ``(cells, seeds)``.
        other: ``(cells, seeds)``; subtracted.
        resamples: how many.
        seed: of the resampling.
    """
    _, block, gap = _checked([0.0] * len(one), blocks, np.asarray(one - other, dtype=np.float64))
    means, weights = _resampled(block, [gap], resamples, seed)
    kept = np.isfinite(means[0])
    total = (weights * np.where(kept, means[0], 0.0)).sum(axis=1)
    return _bounds(_over(total, (weights * kept).sum(axis=1)), gap.shape[1])


def grid_of(rows: DataFrame, cells: Sequence[str], value: str) -> tuple[DataFrame, Floats]:
    """Values by cell and seed: a frame of the cells, a row each, and ``(cells, splits and seeds)``."""
    table = rows.pivot_table(index=list(cells), columns=["split_seed", "seed"], values=value, aggfunc="mean", sort=True)
    return table.index.to_frame(index=False), table.to_numpy(dtype=np.float64)


def _checked(
    factor: Sequence[float], blocks: Sequence[object], values: Floats
) -> tuple[Floats, NDArray[np.int64], Floats]:
    x, found = np.asarray(factor, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if found.ndim != 2 or not len(x) == len(blocks) == len(found):
        raise InputError(
            f"expected values of shape (cells, seeds) with a factor and a block a cell, got {found.shape}, {len(x)} "
            f"and {len(blocks)}"
        )
    order = {name: place for place, name in enumerate(dict.fromkeys(blocks))}
    return x, np.array([order[name] for name in blocks], dtype=np.int64), found


def _resampled(
    block: NDArray[np.int64], values: Sequence[Floats], resamples: int, seed: int
) -> tuple[list[Floats], Floats]:
    """Means of cells over drawn seeds, each ``(1 + resamples, cells)``, and the weights of the cells; first as it is.

    A single block is not drawn anew.
    """
    random = np.random.default_rng(np.random.SeedSequence(seed))
    count, seeds = (int(block.max()) + 1 if len(block) else 0), values[0].shape[1]
    drawn = random.multinomial(seeds, np.full(seeds, 1 / max(seeds, 1)), size=resamples)
    taken = np.vstack([np.ones((1, seeds)), drawn])
    often = np.ones((1 + resamples, count))
    if count > 1:
        often[1:] = random.multinomial(count, np.full(count, 1 / count), size=resamples)
    means = []
    for own in values:
        there = np.isfinite(own)
        means.append(_over(taken @ np.where(there, own, 0.0).T, taken @ there.T))
    return means, often[:, block]


def _sums(
    x: Floats, block: NDArray[np.int64], values: Sequence[Floats], resamples: int, seed: int
) -> dict[str, Floats]:
    """Sums of squares and products within blocks, ``(1 + resamples,)`` each, of the cells that have all values."""
    means, weights = _resampled(block, values, resamples, seed)
    kept = np.all([np.isfinite(mean) for mean in means], axis=0)
    columns = {"x": np.broadcast_to(x, kept.shape)} | dict(zip("ym", means, strict=False))
    centred = {}
    for name, column in columns.items():
        centred[name] = np.where(kept, column, 0.0)
        for number in range(int(block.max()) + 1 if len(block) else 0):
            members = block == number
            counts = kept[:, members].sum(axis=1, keepdims=True)
            level = centred[name][:, members].sum(axis=1, keepdims=True) / np.maximum(counts, 1)
            centred[name][:, members] = np.where(kept[:, members], centred[name][:, members] - level, 0.0)
    pairs = ("xx", "xy", "xm", "my", "mm") if "m" in centred else ("xx", "xy")
    return {pair: (weights * centred[pair[0]] * centred[pair[1]]).sum(axis=1) for pair in pairs}


def _over(above: Floats, below: Floats) -> Floats:
    """The quotient, NaN where nothing is below."""
    there = np.isfinite(below) & (np.abs(below) > 0)
    return np.asarray(np.where(there, above, np.nan) / np.where(there, below, 1.0), dtype=np.float64)


def _bounds(values: Floats, seeds: int) -> Bounds:
    """The first is the figure, the others its resamples."""
    sample = values[1:][np.isfinite(values[1:])]
    if not math.isfinite(values[0]) or seeds < 2 or sample.size < 2:
        return Bounds(float(values[0]), float("nan"), float("nan"))
    low, high = np.quantile(sample, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Bounds(float(values[0]), float(low), float(high))
