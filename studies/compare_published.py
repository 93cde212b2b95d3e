"""Sets results of the published studies beside the table of Crivoi and Ionescu 2025 (arXiv 2512.19253), cell by cell.

    python studies/compare_published.py runs/published-iris runs/published-mnist

A draw is one split seed with one seed: all that the paper has. Every line holds a published value, the mean and the
rank-based 95 % prediction interval of our draws, and which share of them lies below the published value and equals it;
our values are rounded as the published ones are. The table goes to `compare_published.csv` in the results folder, too.

Two criteria, on the 66 accuracies (11 methods, 2 requests, retain, forget and test set); all else is shown only:

- *coverage*: the share of published cells inside our intervals is not below the 5th percentile of the same share for
  our own draws, each against the intervals of the others;
- *order*: the summed log density of the published table under our draws is above that of 95 % of 2,000 tables in which
  the methods of each request are shuffled. The density of a cell is that of a Gaussian kernel estimate over the n
  draws, whose bandwidth is Silverman's rule and at least half of one sample's share of the set; a uniform density on
  [0, 1] with the weight of one further draw is its floor.

Exit code 0: both criteria are met by every table; 1: one isn't; 2: results that cannot be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

import qunlearn as qu
from qunlearn.metrics import prediction_interval

Array = npt.NDArray[np.float64]

FOLDER = Path(__file__).parent / "published"
ACCURACIES = ("accuracy_retain", "accuracy_forget", "accuracy_test")
#: What was published, by data set and head; the sizes of retain, forget and test set by request.
TABLES: dict[tuple[str, str], tuple[str, dict[str, tuple[int, int, int]]]] = {
    ("iris", "deep"): ("iris-deep.csv", {"2 %": (117, 3, 30), "class 0": (80, 40, 30)}),
    ("mnist", "shallow"): ("mnist.csv", {"2 %": (1568, 32, 400), "class 0": (1440, 160, 400)}),
    ("fashion-mnist", "shallow"): ("fashion-mnist.csv", {"2 %": (6272, 128, 1600), "class 0": (5760, 640, 1600)}),
}
#: Ours, not in the paper: the same distances on aligned samples.
ALIGNED = ("kl_retain", "js_retain")
LEVEL = 0.95
SHUFFLES = 2000
ENOUGH = 10  # draws that a judgement needs


@dataclass(frozen=True)
class Cell:
    """One published value (None where the paper has none) and our draws of it, rounded alike."""

    request: str
    method: str
    figure: str
    published: float | None
    draws: Array

    def row(self) -> dict[str, Any]:
        """The line of the table."""
        found = prediction_interval(self.draws, LEVEL)
        row = {"request": self.request, "method": self.method, "figure": self.figure, "published": self.published}
        row |= {"n": len(self.draws), "mean": float(self.draws.mean()), "low": found.low, "high": found.high}
        if self.published is None:
            return row
        same = np.isclose(self.draws, self.published, rtol=0, atol=1e-9)
        below = float(((self.draws < self.published) & ~same).mean())
        return row | {"below": below, "equal": float(same.mean()), "inside": inside(self.draws, self.published)}


def inside(draws: Array, value: float) -> bool:
    """Whether a value lies in the prediction interval of the draws, bounds included."""
    found = prediction_interval(draws, LEVEL)
    return found.low - 1e-9 <= value <= found.high + 1e-9


def read_published(path: Path) -> pd.DataFrame:
    """A published table: texts, so that the number of decimals is kept; empty where nothing was published."""
    return pd.read_csv(path, comment="#", dtype=str, keep_default_na=False)


def complete_draws(table: pd.DataFrame, methods: Sequence[str], requests: Sequence[str]) -> pd.DataFrame:
    """The rows of those draws in which every method met every request."""
    wanted = table[table["method"].isin(methods) & table["request"].isin(requests)]
    counts = wanted.groupby(["split_seed", "seed"])["method"].transform("size")
    return wanted[counts == len(methods) * len(requests)].sort_values(["split_seed", "seed"])


def cells_of(table: pd.DataFrame, published: pd.DataFrame) -> list[Cell]:
    """All cells of a published table that our results hold as well, aligned distances behind."""
    ours = complete_draws(table, list(published["method"].unique()), list(published["request"].unique()))
    figures = [name for name in published.columns if name in ours.columns]
    figures = [name for name in figures if name not in ("request", "method")]
    cells = []
    for _, line in published.iterrows():
        rows = ours[(ours["method"] == line["method"]) & (ours["request"] == line["request"])]
        for figure in (*figures, *ALIGNED):
            text = line.get(figure, "")
            values = rows[figure].to_numpy(np.float64)
            if text == "" and (figure not in ALIGNED or line["method"] == "none"):
                continue
            decimals = len(text.partition(".")[2]) if text else 3
            cells.append(
                Cell(line["request"], line["method"], figure, float(text) if text else None, values.round(decimals))
            )
    return cells


def judged(cells: Sequence[Cell]) -> list[Cell]:
    """The accuracies of the methods: the cells that the criteria are about."""
    return [cell for cell in cells if cell.figure in ACCURACIES and cell.method != "none"]


def coverage(cells: Sequence[Cell]) -> tuple[float, Array]:
    """The share of published values inside our intervals, and the same share for each of our draws ``(draws,)``."""
    published = float(np.mean([inside(cell.draws, _value(cell)) for cell in cells]))
    draws = np.stack([cell.draws for cell in cells])
    own = [
        np.mean([inside(np.delete(row, left_out), row[left_out]) for row in draws])
        for left_out in range(draws.shape[1])
    ]
    return published, np.array(own)


def log_density(draws: Array, values: Array, samples: int) -> Array:
    """Log predictive densities ``(values,)`` of accuracies on a set of so many samples; see the top of the file."""
    count = len(draws)
    quartiles = np.quantile(draws, [0.25, 0.75])
    spread = min(float(draws.std(ddof=1)), float(quartiles[1] - quartiles[0]) / 1.34)
    width = max(0.9 * spread * count**-0.2, 0.5 / samples)
    kernels = np.exp(-0.5 * ((values[:, None] - draws) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    density: Array = np.log((kernels.sum(1) + 1.0) / (count + 1))
    return density


def order(cells: Sequence[Cell], sizes: dict[str, tuple[int, int, int]], seed: int = 0) -> tuple[float, Array]:
    """Summed log density of the published table, and of tables with shuffled methods ``(SHUFFLES,)``."""
    generator = np.random.default_rng(seed)
    published, shuffled = 0.0, np.zeros(SHUFFLES)
    for request, samples in sizes.items():
        scores = _scores([cell for cell in cells if cell.request == request], samples)
        methods = np.arange(len(scores))
        published += float(scores[methods, methods].sum())
        orders = np.stack([generator.permutation(len(scores)) for _ in range(SHUFFLES)])
        shuffled += scores[methods, orders].sum(1)
    return published, shuffled


def _scores(cells: Sequence[Cell], samples: tuple[int, int, int]) -> Array:
    """Log densities ``(methods, methods)`` of the row of one method (second) under the draws of another (first)."""
    names = list(dict.fromkeys(cell.method for cell in cells))
    found = {(cell.method, cell.figure): cell for cell in cells}
    scores = np.zeros((len(names), len(names)))
    for figure, size in zip(ACCURACIES, samples, strict=True):
        values = np.array([_value(found[name, figure]) for name in names])
        scores += np.stack([log_density(found[name, figure].draws, values, size) for name in names])
    return scores


def _value(cell: Cell) -> float:
    if cell.published is None:
        raise ValueError(f"expected a published value of {cell.figure} for {cell.method}, got none")
    return cell.published


def judge(cells: Sequence[Cell], sizes: dict[str, tuple[int, int, int]]) -> bool:
    """Print both criteria; whether they are met."""
    share, own = coverage(cells)
    floor = float(np.quantile(own, 0.05))
    score, shuffled = order(cells, sizes)
    beaten = float((shuffled < score).mean())
    met = share >= floor - 1e-9, beaten >= 0.95
    print(
        f"coverage: {share:.1%} of {len(cells)} published accuracies inside; our own draws, left out: mean "
        f"{own.mean():.1%}, 5th percentile {floor:.1%}: {'met' if met[0] else 'NOT MET'}\n"
        f"order: log density {score:.1f}; shuffled tables: mean {shuffled.mean():.1f}, 95th percentile "
        f"{np.quantile(shuffled, 0.95):.1f}; above {beaten:.1%} of {SHUFFLES}: {'met' if met[1] else 'NOT MET'}"
    )
    return all(met)


def show(rows: pd.DataFrame) -> None:
    """Print the table, one line a cell; cells outside are marked."""
    shown = rows.assign(mark=np.where(rows["inside"].eq(False), "outside", ""))
    print(shown.drop(columns="inside").to_string(index=False, float_format="{:.3f}".format, na_rep="-"))


def compare(folder: Path) -> bool:
    """Print and write the comparison of one results folder; whether the criteria are met.

    Raises:
        QunlearnError: for a folder without results.
        SystemExit: with code 2, for too few draws, or results of no published table.
    """
    table = qu.load_study(folder).table()
    passed, frames = True, []
    for key, part in table.groupby(["dataset", "head"], sort=False):
        dataset, head = str(key[0]), str(key[1])
        if (dataset, head) not in TABLES:
            print(f"\n{dataset}, {head} head: no results were published")
            continue
        name, sizes = TABLES[dataset, head]
        cells = cells_of(part, read_published(FOLDER / name))
        draws = len(cells[0].draws)
        if draws < ENOUGH:
            raise SystemExit(_refuse(f"expected at least {ENOUGH} complete draws in {folder}, got {draws}; run it on"))
        rows = pd.DataFrame([cell.row() for cell in cells])
        print(f"\n{dataset}, {head} head, {draws} draws")
        show(rows)
        passed &= judge(judged(cells), sizes)
        frames.append(rows.assign(dataset=dataset, head=head))
    if not frames:
        raise SystemExit(_refuse(f"expected a published data set and model in {folder}, got none of {list(TABLES)}"))
    pd.concat(frames).to_csv(folder / "compare_published.csv", index=False)
    return passed


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; returns the exit code."""
    parser = argparse.ArgumentParser(description="Compare results with the published table.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a results folder of `qunlearn run`")
    try:
        met = [compare(folder) for folder in parser.parse_args(arguments).folders]
    except qu.QunlearnError as error:
        return _refuse(str(error))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
