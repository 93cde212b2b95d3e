"""Times whole studies: the published Iris study per seed, an epoch of the published MNIST model, the MNIST study.

    python studies/benchmark_studies.py             # Iris and the epoch, about three minutes
    python studies/benchmark_studies.py --mnist     # the published MNIST study of one split seed as well

- *Iris*: the shallow model of `published-iris.toml`, 22 unlearnings and 3 trainings a seed, as `qunlearn run` does it
  in one worker with one thread; 20 seeds together, and one alone. What counts is the CPU time of the worker process,
  all of it; its start-up is the CPU time of the worker of a study that has next to nothing to do. Beside it: the driver
  (start-up, planning, report), and `qunlearn report` alone. The paper's code takes 668 s of CPU a seed on one core.
- *Epoch*: the published MNIST model (cnn encoder, 8 qubits, depth 2, batch 64, 1,600 training images) with each engine;
  (three epochs - one) / 2, medians of rounds in turns.
- *MNIST study*: `published-mnist.toml` with one split seed on all cores; wall time of `qunlearn run`, start to end.

Data sets other than Iris are read where `QUNLEARN_DATA` says, or fetched; what cannot be had is left out, and named.
Writes studies.csv, epochs.csv, studies-bars.csv and studies.md into --out. Exit code 0: measured, whether or not the
bars are met; 1: a study failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

import qunlearn as qu
from benchmarks.bars import Bar
from benchmarks.crew import core_count
from benchmarks.others import Others
from benchmarks.tables import Sheet, bar_sheet, machine, number, say

STUDIES = Path(__file__).parent
#: CPU seconds of the paper's code for the shallow Iris study, one seed, one core.
PAPER = 668.0
SEEDS = 20
SHALLOW = 'model=[{depth=2, head="shallow"}]'
#: Runs the command line and writes down the CPU time of this process and of all its children.
_COUNTED = """
import json, resource, sys
from qunlearn.cli import main
try:
    main(sys.argv[2:])
finally:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    json.dump([one.ru_utime + one.ru_stime for one in used], open(sys.argv[1], "w"))
"""


class StudyError(Exception):
    """A run of the command line that did not end with code 0."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a run: CPU of the driver, CPU of its workers, and on the clock."""

    driver: float
    workers: float
    wall: float


@dataclass(frozen=True)
class IrisCost:
    """A run of the Iris study with so many seeds; `start_up` is CPU of the worker, `report` of `qunlearn report`."""

    seeds: int
    run: Cost
    start_up: float
    report: float

    @property
    def per_seed(self) -> float:
        """CPU seconds of the worker a seed, start-up included."""
        return self.run.workers / self.seeds

    def row(self) -> tuple[str, ...]:
        """The line of the table."""
        work = (self.run.workers - self.start_up) / self.seeds
        everything = (self.run.workers + self.run.driver) / self.seeds
        values = (
            self.run.workers, self.start_up, self.per_seed, work, self.run.driver, self.report, everything,
            self.run.wall,
        )  # fmt: skip
        return str(self.seeds), *(number(value) for value in values)


IRIS_COLUMNS = (
    "seeds", "worker CPU s", "of it start-up", "worker a seed", "work a seed", "driver CPU s", "report alone",
    "everything a seed", "wall s",
)  # fmt: skip


def command(arguments: Sequence[str]) -> Cost:
    """Run `qunlearn` with arguments, and count.

    Raises:
        StudyError: where it fails, with what it said last.
    """
    with tempfile.TemporaryDirectory() as scratch:
        used = Path(scratch) / "used.json"
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", _COUNTED, str(used), *arguments], capture_output=True, text=True)
        wall = time.perf_counter() - start
        if done.returncode:
            raise StudyError(f"qunlearn {' '.join(arguments)} ended with code {done.returncode}: {done.stderr[-2000:]}")
        driver, workers = json.loads(used.read_text())
    return Cost(driver, workers, wall)


def run_study(file: str, folder: Path, changes: Sequence[str], *options: str) -> Cost:
    """`qunlearn run` of a file of this folder with some keys changed, into a folder."""
    sets = [part for change in changes for part in ("--set", change)]
    return command(["run", str(STUDIES / file), "--out", str(folder), *options, *sets])


def iris(seeds: int, start_up: float, scratch: Path) -> IrisCost:
    """The published Iris study, shallow model, so many seeds in one worker."""
    folder = scratch / f"iris-{seeds}"
    changes = [SHALLOW, f"retrained={seeds}", f"seed={list(range(seeds))}"]
    cost = run_study("published-iris.toml", folder, changes, "--workers", "1")
    return IrisCost(seeds, cost, start_up, command(["report", str(folder)]).driver)


def start_up(scratch: Path) -> float:
    """CPU seconds of the worker of a study that does next to nothing: one epoch of everything, no method."""
    changes = [SHALLOW, "retrained=1", "seed=[0]", "training.epochs=1", 'method=["none"]']
    return run_study("published-iris.toml", scratch / "nothing", changes, "--workers", "1").workers


def iris_bars(together: IrisCost | None, alone: IrisCost | None) -> list[Bar]:
    """CPU of the paper's code against ours, a seed."""
    found = []
    for cost, bound, how in ((together, 500.0, f"{SEEDS} seeds together"), (alone, 150.0, "one seed alone")):
        title = f"published Iris (shallow), CPU per seed: {how}"
        if cost is None:
            found.append(Bar(title, None, bound, detail="not run"))
            continue
        driver = PAPER * cost.seeds / (cost.run.workers + cost.run.driver)
        detail = f"{PAPER:.0f} s, ours {cost.per_seed:.2f} s; {driver:.0f} x with driver and report"
        found.append(Bar(title, PAPER / cost.per_seed, bound, detail=detail))
    return found


def mnist_bar(cost: Cost | None, why: str) -> Bar:
    """Wall seconds of the published MNIST study, one split seed."""
    title = "published MNIST study, one split seed, wall seconds"
    if cost is None:
        return Bar(title, None, 180.0, at_most=True, detail=why)
    return Bar(title, cost.wall, 180.0, at_most=True, detail=f"{core_count()} cores, {cost.workers:.0f} s of CPU")


def engines() -> list[str]:
    """Names of the engines, as `qunlearn list engines` has them."""
    listed = subprocess.run(
        [sys.executable, "-m", "qunlearn", "list", "engines", "--json"], capture_output=True, text=True, check=True
    )
    return [row["name"] for row in json.loads(listed.stdout) if row["name"] != "auto"]


def epochs(rounds: int) -> dict[str, list[float]]:
    """Seconds of an epoch of the published MNIST model, by engine. Raises `QunlearnError` without the data."""
    data = qu.load_dataset("mnist", per_class=200)
    split = data.split(qu.ForgetRequest.of_fraction(0.02), seed=0, protocol="published")
    circuit = qu.load_circuit("ring-cz", qubits=8, depth=2)
    found: dict[str, list[float]] = {name: [] for name in engines()}
    for turn in range(rounds + 1):
        for name, seconds in found.items():
            generator = torch.Generator().manual_seed(0)
            model = qu.HybridClassifier(
                circuit, classes=10, encoder="cnn", inputs=(1, 28, 28), engine=name, generator=generator
            )
            one, three = (_training(model, split, count) for count in (1, 3))
            if turn:
                seconds.append((three - one) / 2)
    return found


def _training(model: torch.nn.Module, split: qu.Split, count: int) -> float:
    start = time.perf_counter()
    recipe: dict[str, Any] = {"learning_rate": 0.001, "batch_size": 64, "progress": False}
    qu.train(model, split.train, validation=split.validation, epochs=count, **recipe)
    return time.perf_counter() - start


def epoch_sheet(found: dict[str, list[float]]) -> Sheet:
    """Seconds of an epoch by engine, and how many times longer than the quickest."""
    medians = {name: median(seconds) for name, seconds in found.items()}
    best = min(medians.values())
    rows = [
        (name, number(medians[name]), f"{number(min(seconds))} to {number(max(seconds))}", number(medians[name] / best))
        for name, seconds in found.items()
    ]
    return Sheet("An epoch of the published MNIST model", ("engine", "s", "range", "ratio"), rows)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises `SystemExit` with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Time whole studies.")
    parser.add_argument("--mnist", action="store_true", help="run the published MNIST study of one split seed as well")
    parser.add_argument("--only", choices=("iris", "epoch", "mnist"), help="nothing but this")
    parser.add_argument("--rounds", type=int, default=5, help="of the epochs (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; returns the exit code."""
    wish = parse(arguments)
    wish.out.mkdir(parents=True, exist_ok=True)
    texts, others = machine(core_count(), {"torch": torch.__version__}), Others()
    sheets: dict[str, Sheet] = {}
    costs: dict[int, IrisCost] = {}
    whole, why = None, "asked for by --mnist"
    try:
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            if wish.only in (None, "iris"):
                _say("the published Iris study")
                nothing = start_up(scratch)
                costs = {seeds: iris(seeds, nothing, scratch) for seeds in (SEEDS, 1)}
                rows = [cost.row() for cost in costs.values()]
                sheets["studies"] = Sheet("Published Iris study, shallow model", IRIS_COLUMNS, rows)
            if wish.only in (None, "epoch"):
                _say("an epoch of the published MNIST model")
                try:
                    sheets["epochs"] = epoch_sheet(epochs(wish.rounds))
                except qu.QunlearnError as error:
                    texts.append(f"No epoch of MNIST was timed: {error}")
            if wish.mnist or wish.only == "mnist":
                _say("the published MNIST study, one split seed")
                whole = run_study("published-mnist.toml", scratch / "mnist", ["data.split_seed=[0]"])
    except StudyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    sheets["studies-bars"] = bar_sheet([*iris_bars(costs.get(SEEDS), costs.get(1)), mnist_bar(whole, why)])
    _write(sheets, [*texts, *others.sentences()], wish.out)
    return 0


def _say(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


def _write(sheets: dict[str, Sheet], texts: Sequence[str], out: Path) -> None:
    print()
    for name, sheet in sheets.items():
        sheet.show()
        sheet.write_csv(out / f"{name}.csv")
    say(texts)
    pages = [*(f"{text}\n" for text in texts), *(sheet.markdown() for sheet in sheets.values())]
    (out / "studies.md").write_text("\n".join(pages), encoding="utf-8")
    print(f"Written: {', '.join(f'{name}.csv' for name in sheets)} and studies.md in {out}")


if __name__ == "__main__":
    sys.exit(main())
