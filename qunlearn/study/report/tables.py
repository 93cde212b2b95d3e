"""The tables of a report: raw records, means with intervals, times; as CSV and Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qunlearn.errors import UnknownNameError
from qunlearn.metrics.registry import metric
from qunlearn.study.report.intervals import interval
from qunlearn.study.report.material import Material

if TYPE_CHECKING:
    from pandas import DataFrame


@lru_cache(maxsize=4096)
def bounds(measure: str) -> tuple[float, float]:
    """The values that a measure can take; its interval is cut to them."""
    try:
        traits = metric(measure)
    except UnknownNameError:
        return -np.inf, np.inf
    return traits.lower, traits.upper


def cells(records: DataFrame, by: Sequence[str], values: Sequence[str]) -> DataFrame:
    """One row a group, split and seed: the mean over whatever else the trials differ in.

    The order is that in which the groups first appear.
    """
    import pandas as pd

    keys = [*by, "split_seed", "seed"]
    means = records.groupby(keys, sort=False, dropna=False)[list(values)].mean()
    return pd.concat([means.index.to_frame(index=False), means.reset_index(drop=True)], axis=1)


def summarise(records: DataFrame, by: Sequence[str], values: Sequence[str]) -> DataFrame:
    """Mean and 95 % interval of each value in each group.

    Args:
        records: one row a trial, with ``split_seed`` and ``seed``.
        by: the columns that make a group.
        values: numeric columns.

    Returns:
        One row a group in order of appearance: its columns, ``splits``, ``seeds`` (the fewest of any split),
        ``trials``, and for each value its mean, ``<value>_ci_low`` and ``<value>_ci_high``.
    """
    import pandas as pd

    rows, allowed = [], {name: bounds(name) for name in values}
    for key, group in cells(records, by, values).groupby(list(by), sort=False, dropna=False):
        row: dict[str, Any] = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        counts = group.groupby("split_seed")["seed"].nunique()
        row |= {"splits": len(counts), "seeds": int(counts.min()), "trials": len(group)}
        rows.append(row | _limits(group, allowed))
    return pd.DataFrame(rows)


def _limits(group: DataFrame, allowed: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    splits = list(group["split_seed"])
    row: dict[str, float] = {}
    for name, (least, most) in allowed.items():
        mean, low, high, _ = interval(group[name].to_numpy(dtype=np.float64), splits)
        # A t interval does not know that a share ends at 1. NaN passes through.
        row |= {name: mean, f"{name}_ci_low": max(low, least), f"{name}_ci_high": min(high, most)}
    return row


def summary(material: Material) -> DataFrame:
    """The means and intervals of every measure, for each group of trials that differ in split and seed alone."""
    return summarise(material.records, material.axes, material.measures)


def times(material: Material) -> DataFrame:
    """The same for the seconds a trial took: apart, since they differ from run to run."""
    joined = material.records.merge(material.times[["trial", "seconds"]], on="trial", how="left")
    return summarise(joined, material.axes, ["seconds"])


def write_tables(material: Material, folder: Path) -> list[Path]:
    """Write ``records``, ``summary`` and ``times`` as CSV and Parquet; return the paths."""
    tables = {"records": material.records, "summary": summary(material), "times": times(material)}
    paths = []
    for name, table in tables.items():
        paths += [folder / f"{name}.csv", folder / f"{name}.parquet"]
        # repr keeps every digit: the two files hold the same numbers
        table.to_csv(paths[-2], index=False, lineterminator="\n")
        table.to_parquet(paths[-1], index=False, compression="zstd")
    return paths


def write_cells(material: Material, folder: Path) -> None:
    """Write what was measured beside each cell, if anything was, as ``cells.csv`` and ``cells.parquet``."""
    if material.cells is not None:
        material.cells.to_csv(folder / "cells.csv", index=False, lineterminator="\n")
        material.cells.to_parquet(folder / "cells.parquet", index=False, compression="zstd")
