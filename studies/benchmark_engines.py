"""Times a step of training, forward and backward, of our engines and of other people's, side by side.

    python studies/benchmark_engines.py            # about three minutes
    python studies/benchmark_engines.py --all      # all qubits, depths and batches: about an hour, for a closing figure

Every engine runs the same circuit, written from the same gate list, in a process of its own on the same cores. Before
it is timed, its values and gradients are compared with ours: one that differs is refused. Then all take turns, so that
a machine that is busy for a while slows them alike. Qubits, depth and batch are varied one at a time around 8 qubits,
depth 2, batch 64. What would take too long, or too much memory, is left out and named.

Writes engines.csv, growth.csv, bars.csv, engines.md and the figure engines.png, engines.svg into --out. Exit code 0:
measured, whether or not the bars are met; 1: an engine disagreed with ours; 2: wrong input; 130: Ctrl-C, after which
the tables show what was measured until then.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import qunlearn as qu
from benchmarks import figure
from benchmarks.bars import BASE, DEEP, MEMORY, Bar, import_bars, memory_bar, speed_bars
from benchmarks.crew import Crew, PeerError, core_count
from benchmarks.growth import growths
from benchmarks.jobs import Point, circuit_of
from benchmarks.measure import Effort, Measured, Meter
from benchmarks.others import Others
from benchmarks.peers import OURS, PEERS
from benchmarks.tables import Sheet, bar_sheet, machine, number, say

QUICK = Effort(rounds=5, seconds=0.1, step=2.5, preparing=40)
WHOLE = Effort(rounds=7, seconds=0.3, step=40, preparing=600)
#: The largest last: what was measured before predicts how long the next takes.
QUICK_POINTS = (
    BASE, Point(8, 2, 512), Point(8, 2, 4096), Point(8, 4, 64), Point(10, 4, 64), DEEP,
    Point(4, 2, 64), Point(8, 1, 64), Point(8, 2, 1), Point(6, 2, 64), Point(12, 2, 64), Point(8, 8, 64),
)  # fmt: skip
WHOLE_POINTS = (
    BASE,
    *(Point(8, 2, batch) for batch in (1, 4, 16, 256, 512, 1024, 4096)),
    *(Point(qubits, 2, 64) for qubits in (4, 6, 10, 12)),
    *(Point(8, depth, 64) for depth in (1, 4, 8)),
    Point(10, 4, 64),
    DEEP,
    *(Point(8, depth, 64) for depth in (16, 32, 64)),
    *(Point(qubits, 2, 64) for qubits in (14, 16, 18)),
)
#: In the short version these are timed at two points alone: a further way of an engine costs its compiling again.
SPARED, SPARED_FOR = "tensorcircuit-z", (BASE, DEEP)
#: Of the short version.
MINUTES = 3.0
_EVERY_NAME = "import qunlearn; [getattr(qunlearn, name) for name in qunlearn.__all__]"
IMPORTS = {
    "import torch": "import torch",
    "import qunlearn": "import qunlearn",
    "import qunlearn, every name": _EVERY_NAME,
}


@dataclass(frozen=True)
class Wish:
    """What the command line asks for."""

    card: str
    peers: tuple[str, ...]
    threads: int
    out: Path
    whole: bool
    minutes: float


def time_imports(rounds: int) -> dict[str, float]:
    """Median seconds of each import, in fresh processes that take turns; the first turn fills caches, uncounted."""
    found: dict[str, list[float]] = {what: [] for what in IMPORTS}
    for turn in range(rounds + 1):
        for what, code in IMPORTS.items():
            timed = f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
            answer = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
            if turn:
                found[what].append(float(answer.stdout))
    return {what: median(seconds) for what, seconds in found.items()}


class Run:
    """One run: works through the plan until it is done or the time is over."""

    def __init__(self, wish: Wish, meter: Meter) -> None:
        self.wish, self.meter = wish, meter
        self.bars: list[Bar] = []
        self.left: list[str] = []
        self.others = Others()
        self._end = time.monotonic() + 60 * wish.minutes

    def work(self) -> None:
        """Measure everything that there is time for."""
        points = WHOLE_POINTS if self.wish.whole else QUICK_POINTS
        first = points[: points.index(DEEP) + 1]
        for title, job in [*self._times(first), *self._sides(), *self._times(points[len(first) :]), *self._memories()]:
            if time.monotonic() > self._end:
                self.left.append(title)
                continue
            print(f"{title} ...", file=sys.stderr, flush=True)
            job()

    def _times(self, points: Sequence[Point]) -> Iterator[tuple[str, Callable[[], None]]]:
        for point in points:
            spared = not self.wish.whole and point not in SPARED_FOR
            keys = [key for key in PEERS if not (spared and key == SPARED)]
            yield str(point), partial(self.meter.measure, point, keys)

    def _sides(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "import times", lambda: self.bars.extend(import_bars(time_imports(11 if self.wish.whole else 3)))
        yield "memory of the fused engine", lambda: self.bars.append(memory_bar(*map(self._fused_memory, MEMORY)))

    def _fused_memory(self, point: Point) -> float | None:
        if "fused" not in self.meter.crew.present:
            return None
        try:
            return median(self.meter.memory_once("fused", point) for _ in range(3 if self.wish.whole else 1))
        except PeerError as error:
            self.left.append(f"memory at {point}: {error}")
            return None

    def _memories(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for point in sorted({point for _, point in self.meter.found} | {BASE}, key=lambda p: (p != BASE, p)):
            if self.wish.whole or point == BASE:
                yield f"memory at {point}", partial(self.meter.memory, point, list(PEERS))


def results(meter: Meter) -> Sheet:
    """All measurements; ratios are to the fused engine, or to our other one where that is absent."""
    ours = next((key for key in OURS if key in meter.crew.present), "")
    mine = meter.medians(ours)
    rows = []
    for (key, point), row in sorted(meter.found.items(), key=_place):
        ratio = row.median / mine[point] if point in mine and row.milliseconds else None
        spread = f"{number(row.quantile(0.25))} to {number(row.quantile(0.75))}" if row.milliseconds else "-"
        rate = f"{point.batch / row.median * 1e3:.0f}" if row.milliseconds else "-"
        size = (str(point.qubits), str(point.depth), str(point.batch), PEERS[key].title)
        times = (number(row.median), spread, str(len(row.milliseconds)), rate)
        rows.append((*size, *times, number(row.mib), number(row.preparing), number(ratio), row.note))
    columns = (
        "qubits", "depth", "batch", "engine", "ms", "quartiles", "steps", "samples/s", "MiB", "preparing s", "ratio",
        "note",
    )  # fmt: skip
    return Sheet("A step, forward and backward", columns, rows, grouped=3)


def left_out(meter: Meter) -> list[str]:
    """A sentence for every engine that has no time at some points."""
    found = []
    for key, peer in PEERS.items():
        mine = sorted((point, row.note) for (other, point), row in meter.found.items() if other == key and row.note)
        notes = [f"{point} ({note})" for point, note in mine]
        if notes:
            found.append(f"No time of {peer.title}: {'; '.join(notes)}.")
    return found


def _place(item: tuple[tuple[str, Point], Measured]) -> tuple[Point, int]:
    key, point = item[0]
    return point, list(PEERS).index(key)


def growth_sheet(meter: Meter) -> Sheet:
    """The fitted growth of time along the axes."""
    rows = []
    for key in meter.crew.present:
        found = growths(meter.medians(key), BASE)
        cells = [
            "-" if pair is None else f"{number(pair[0])} ({number(pair[1])})"
            for pair in (found[name] for name in ("qubits", "depth", "batch"))
        ]
        rows.append((PEERS[key].title, *cells))
    title = "Growth of time: all points (the three largest)"
    return Sheet(title, ("engine", "base, by qubits", "power, by depth", "power, by batch"), rows)


def sentences(run: Run) -> list[str]:
    """What a reader must know beside the tables."""
    crew, wish = run.meter.crew, run.wish
    found = [
        f"Card {wish.card}; single precision (default.qubit of PennyLane computes in double); gradients for features "
        "and weights; medians.",
        *machine(wish.threads, crew.versions),
        *run.others.sentences(),
    ]
    found += [f"Absent: {PEERS[key].title} ({reason})." for key, reason in crew.absent.items()]
    skipped = [PEERS[key].title for key in PEERS if key not in wish.peers]
    found += [f"Not asked for: {', '.join(skipped)}."] if skipped else []
    if crew.absent or len(wish.peers) < len(PEERS):
        found.append("Engines are missing, so this is no closing figure.")
    found += left_out(run.meter)
    if run.left:
        found.append(f"Not measured, no time left: {'; '.join(run.left)}.")
    if not wish.whole:
        found.append("This is the short version; --all measures every point.")
    return found


def report(run: Run) -> None:
    """Show and write what was measured."""
    meter, out = run.meter, run.wish.out
    times = {(key, point): row.median for (key, point), row in meter.found.items() if row.milliseconds}
    sheets = {
        "engines": results(meter),
        "growth": growth_sheet(meter),
        "bars": bar_sheet([*speed_bars(times), *run.bars]),
    }
    texts = sentences(run)
    print()
    for name, sheet in sheets.items():
        sheet.write_csv(out / f"{name}.csv")
    shown = [timed(sheets["engines"]), sheets["growth"], sheets["bars"]]
    for sheet in shown:
        sheet.show()
    say(texts)
    pages = [*(f"{text}\n" for text in texts), *(sheet.markdown() for sheet in shown)]
    (out / "engines.md").write_text("\n".join(pages), encoding="utf-8")
    _draw(meter, out / "engines")
    print(f"Written: {out}/engines.csv, growth.csv, bars.csv, engines.md, engines.png, engines.svg")


def timed(sheet: Sheet) -> Sheet:
    """The rows that have times, and those that were refused; the notes of all others are sentences."""
    rows = [row for row in sheet.rows if row[4] != "-" or row[-1].startswith("REFUSED")]
    columns = sheet.columns if any(row[-1] for row in rows) else sheet.columns[:-1]
    return Sheet(sheet.title, columns, [row[: len(columns)] for row in rows], sheet.grouped)


def _draw(meter: Meter, target: Path) -> None:
    keys = meter.crew.present
    memory: Mapping[str, dict[Point, float]] = {
        key: {p: max(row.mib, 0.1) for (k, p), row in meter.found.items() if k == key and row.mib is not None}
        for key in keys
    }
    series: dict[str, Mapping[str, Mapping[Point, float]]] = {
        "Time of a step (ms)": {key: meter.medians(key) for key in keys}
    }
    if any(len(points) > 1 for points in memory.values()):
        series["Peak memory of a step (MiB)"] = memory
    figure.draw(series, BASE, target)


def run(wish: Wish) -> int:
    """Measure and report; the exit code."""
    wish.out.mkdir(parents=True, exist_ok=True)
    code = 0
    with (
        tempfile.TemporaryDirectory() as scratch,
        (wish.out / "engines.log").open("w", encoding="utf-8") as log,
    ):
        crew = Crew(wish.peers, wish.card, wish.threads, log)
        try:
            running = Run(wish, Meter(crew, WHOLE if wish.whole else QUICK, Path(scratch)))
            try:
                running.work()
            except KeyboardInterrupt:
                print("\nInterrupted; this is what was measured until then.", file=sys.stderr)
                code = 130
            report(running)
        finally:
            crew.close()
    refused = any(row.note.startswith("REFUSED") for row in running.meter.found.values())
    return 1 if refused and not code else code


def parse(arguments: Sequence[str] | None) -> Wish:
    """The command line. Raises `SystemExit` with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Time our engines and other people's, side by side.")
    parser.add_argument("--card", default="ring-cz", help="circuit card (default: %(default)s)")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="ENGINE",
                        help=f"which engines: {', '.join(PEERS)} (default: all)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=core_count(), help="cores of every engine (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (default: %(default)s)")
    parser.add_argument("--all", action="store_true", dest="whole", help="measure every point")
    parser.add_argument("--minutes", type=float, help=f"start nothing later (default: {MINUTES:g}; none with --all)")
    given = parser.parse_args(arguments)
    if not 1 <= given.threads <= core_count():
        parser.error(f"expected 1 to {core_count()} threads, got {given.threads}")
    minutes = given.minutes or (float("inf") if given.whole else MINUTES)
    return Wish(given.card, tuple(given.peers), given.threads, given.out, given.whole, minutes)


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; returns the exit code."""
    wish = parse(arguments)
    try:
        circuit_of(wish.card, BASE)
        return run(wish)
    except qu.QunlearnError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
