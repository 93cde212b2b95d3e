"""Times how long a results folder of many records takes to be summarised.

    python studies/benchmark_records.py                  # 10,000 made-up records, read in a fresh process each time
    python studies/benchmark_records.py --records 2000

The folder is what `qunlearn run` would leave of a study with that many trials (two splits, two requests, nine methods,
as many seeds as it takes), with records of the usual size whose figures are made up; no model is trained. Measured:
`load_study(folder).table()`, `qunlearn status` with everything done, and the tables of the report. Prints the figures;
the bar is 5 s for the table of 10,000 records and for the status.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from qunlearn.files import write_bytes
from qunlearn.study.plan import make_plan
from qunlearn.study.reading import read_study
from qunlearn.study.store import Store
from qunlearn.study.task import Task, json_text

BAR = 5.0
METHODS = ("fine-tune", "gradient-ascent", "neggrad-plus", "scrub", "random-label", "adaprob", "ssd", "salun", "unsir")
SETS = ("forget", "retain", "test", "validation")
MEASURES = ("accuracy", "loss", "kl", "js", "confidence", "entropy", "membership_auc", "oracle")
STUDY = """\
name = "many"
retrained = 2
[data]
dataset = "iris"
split_seed = [0, 1]
[model]
depth = 1
[run]
together = 20
[grid]
request = [{{ fraction = 0.1 }}, {{ class = 0 }}]
method = {methods}
seed = {seeds}
"""
#: What is timed, each in a process of its own, by its title.
WORK = {
    "load_study(folder).table()": "import qunlearn; print(len(qunlearn.load_study(folder).table()))",
    "qunlearn status": "from qunlearn.study.status import study_status; print(study_status(folder)['done'])",
    "tables of the report": (
        "from qunlearn.study.report.gather import gather; from qunlearn.study.report.tables import summary; "
        "print(len(summary(gather(folder))))"
    ),
}


def made(folder: Path, records: int) -> int:
    """Fill a results folder with a plan and a record for each of its tasks; how many of them are trials."""
    seeds = math.ceil(records / (4 * (len(METHODS) + 1)))
    file = folder.with_suffix(".toml")
    file.write_text(STUDY.format(methods=list(METHODS), seeds=list(range(seeds))), encoding="utf-8")
    plan, store, generator = make_plan(read_study(file)), Store(folder), np.random.default_rng(0)
    write_bytes(folder / "plan.json", json_text(plan.to_dict()).encode())
    write_bytes(folder / "study.toml", file.read_bytes())
    for task in plan.tasks:
        store.save(task, _content(task, generator), {"seconds": 1.0, "total_seconds": 1.5}, {})
    return len(plan.of("trial"))


def _content(task: Task, generator: np.random.Generator) -> dict[str, Any]:
    """What a trial or a model might have left: figures with intervals, and a history of forty epochs."""
    names = [f"{measure}_{part}{end}" for measure in MEASURES for part in SETS for end in ("", "_floor", "_original")]
    figures = dict(zip(names, generator.random(len(names)).tolist(), strict=True))
    counts = {"gradient_evaluations": 4000, "circuit_evaluations": 9000, "hardware_circuits": 0, "epochs": 40}
    losses = generator.random((40, 3)).tolist()
    history = [
        {"epoch": n, "loss": a, "validation_loss": b, "validation_accuracy": c} for n, (a, b, c) in enumerate(losses)
    ]
    record = {"counts": counts, "notes": [], "history": history, "kept": 39}
    row = {"row": {**task.row, **figures, **counts}} if task.kind == "trial" else {"seed": task.seed}
    return {"config": task.settings, **row, "record": record}


def seconds_of(code: str, folder: Path) -> tuple[float, float, str]:
    """Wall and CPU seconds of the work itself, without the start of Python and the imports, and what it printed."""
    timed = (
        "import sys, time; folder = sys.argv[1]; import pandas, qunlearn.study.status\n"
        f"wall, cpu = time.perf_counter(), time.process_time()\n{code}\n"
        "print(time.perf_counter() - wall, time.process_time() - cpu)"
    )
    done = subprocess.run([sys.executable, "-c", timed, str(folder)], capture_output=True, text=True, check=True)
    printed, times = done.stdout.strip().splitlines()
    wall, cpu = map(float, times.split())
    return wall, cpu, printed


def main() -> None:
    """Make the folder, and print a line for each thing timed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000, help="how many, at least")
    parser.add_argument("--folder", type=Path, help="where to make them, or where they are; a temporary one if none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "many"
        if not (folder / "plan.json").is_file():
            start = time.perf_counter()
            print(f"{made(folder, options.records)} trials made in {time.perf_counter() - start:.0f} s", flush=True)
        for title, code in WORK.items():
            wall, cpu, printed = seconds_of(code, folder)
            print(f"{title:<28} {wall:6.2f} s ({cpu:.2f} s of CPU; bar {BAR:g} s), {printed} rows", flush=True)


if __name__ == "__main__":
    main()
