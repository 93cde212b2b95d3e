"""Sets one method beside every rival of a study: differences of the oracle distance, paired by split and seed.

    python studies/own_strategy.py runs/own-strategy-mnist runs/own-strategy-wine runs/own-strategy-poison

For every request: the mean distance of each method (1 is as near as retrained models are to each other), our method's
minus it with a 95 % bootstrap interval over seeds (negative: ours is nearer), the share of retraining's gradient
evaluations, and how many seeds had which verdict on their states. The nearest rival stands first of the others: it is
chosen by the very figures that it is compared by, which favours it.

Exit code 0, or 2 for results that hold no such method.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd

import qunlearn as qu
from qunlearn.metrics import hierarchical_bootstrap, paired_difference

MEASURE = "oracle_distance"


def compared(rows: pd.DataFrame, ours: str) -> pd.DataFrame:
    """One row a method, nearest first, of the trials of one request.

    Args:
        rows: of the study's table.
        ours: the method that every other is compared with.

    Returns:
        Columns ``distance low high share accuracy_forget accuracy_test verdicts``, and but for ours ``difference
        difference_low difference_high``.
    """
    own = _values(rows, ours)
    cost = float(rows.loc[rows["method"] == "retrain", "gradient_evaluations"].mean())
    found: dict[str, dict[str, Any]] = {}
    for method in rows["method"].unique():
        if method == "retrain":
            continue
        values = _values(rows, method)
        mean, low, high = hierarchical_bootstrap([values.to_numpy()])[:3]
        found[method] = {"distance": mean, "low": low, "high": high}
        if method != ours:
            common = own.index.intersection(values.index)
            apart = paired_difference(own[common].to_numpy(), values[common].to_numpy())
            names = ("difference", "difference_low", "difference_high")
            found[method] |= dict(zip(names, (apart.mean, apart.low, apart.high), strict=True))
        mine = rows[rows["method"] == method]
        found[method]["share"] = float(mine["gradient_evaluations"].mean()) / cost
        found[method]["accuracy_forget"] = float(mine["accuracy_forget"].mean())
        found[method]["accuracy_test"] = float(mine["accuracy_test"].mean())
        found[method]["verdicts"] = ", ".join(f"{n} {v}" for v, n in mine["verdict"].value_counts().items() if v)
    return pd.DataFrame(found).T.sort_values("distance")


def _values(rows: pd.DataFrame, method: str) -> pd.Series[float]:
    """The measure of a method's trials, by seed."""
    own = rows[rows["method"] == method].set_index("seed")[MEASURE]
    return own.astype(float).sort_index()


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folders", nargs="+", help="results of studies")
    parser.add_argument("--ours", default="kernel-guided", help="the method to compare")
    given = parser.parse_args(arguments)
    for folder in given.folders:
        table = qu.load_study(folder).table()
        if given.ours not in set(table["method"]):
            print(f"{folder}: expected trials of {given.ours}, got none", file=sys.stderr)
            return 2
        for request, rows in table.groupby("request"):
            print(f"\n{folder}: {request}\n")
            print(compared(rows, given.ours).to_string(float_format=lambda value: f"{value:.3f}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
