"""Times noisy circuits, forward and backward, of our engines and of other people's simulators, side by side.

    python studies/benchmark_noise.py             # 4 and 6 qubits, about a minute
    python studies/benchmark_noise.py --all       # 8 and 10 qubits, too: default.mixed alone takes minutes

All run `ring-cz`, depth 2, batch 32, with 1 % depolarizing noise after every two-qubit gate, in turns, in one process
on one thread. A simulator whose values differ from ours by more than 1e-4 (or, where values are sampled, by more than 5
standard errors) is refused. Aer has no derivative of its own: it is timed forwards alone, and stands beside ours
forwards alone. Ratios are to the density engine doing the same.

Writes noise.csv and noise.md into --out. Exit code 0: measured; 1: a simulator disagreed with ours; 2: wrong input.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

import qunlearn as qu
from benchmarks.jobs import Inputs, Point, circuit_of, inputs_of
from benchmarks.others import Others
from benchmarks.tables import Sheet, machine, number, say

ENOUGH = 20.0  # seconds, after which a simulator is not asked again
STRENGTH, DEPTH, BATCH, TRAJECTORIES = 0.01, 2, 32, 100
#: (values ``(batch, observables)``, how far they may be off)
Step = Callable[[], tuple[Tensor, float]]


@dataclass(frozen=True)
class Way:
    """A simulator doing something: `prepare` is not timed, the step that it returns is.

    Attributes:
        title: what the table calls it.
        task: "forward" or "forward and backward".
        qubits: the most with which it is tried.
        prepare: (noisy circuit, inputs) -> step.
    """

    title: str
    task: str
    qubits: int
    prepare: Callable[[qu.Circuit, Inputs], Step]


def _layer(circuit: qu.Circuit, inputs: Inputs, engine: str) -> qu.QuantumLayer:
    layer = qu.QuantumLayer(circuit, engine=engine, dtype=torch.float32)
    with torch.no_grad():
        layer.weights.copy_(torch.from_numpy(inputs.weights))
    return layer


def _density(circuit: qu.Circuit, inputs: Inputs) -> Step:
    layer, x = _layer(circuit, inputs, "density"), torch.from_numpy(inputs.features)
    return lambda: (layer(x).detach(), 1e-4)


def _density_gradients(circuit: qu.Circuit, inputs: Inputs) -> Step:
    layer = _layer(circuit, inputs, "density")
    return lambda: (_backward(layer, inputs, layer.weights), 1e-4)


def _trajectories(circuit: qu.Circuit, inputs: Inputs) -> Step:
    layer = _layer(circuit, inputs, "auto")
    layer.run_on(qu.backends.Simulator(engine="trajectories", trajectories=TRAJECTORIES))
    return lambda: (_backward(layer, inputs, layer.weights), 5 / np.sqrt(TRAJECTORIES))


def _backward(function: Callable[[Tensor], Tensor], inputs: Inputs, weights: Tensor) -> Tensor:
    features = torch.tensor(inputs.features, requires_grad=True)
    values = function(features)
    torch.autograd.grad(values, (features, weights), torch.tensor(inputs.cotangent).to(values.dtype))
    return values.detach()


def _default_mixed(circuit: qu.Circuit, inputs: Inputs) -> Step:
    import pennylane as qml

    device = qml.device("default.mixed", wires=circuit.qubits)
    node = qml.QNode(circuit.to_pennylane(), device, interface="torch", diff_method="backprop")
    weights = torch.tensor(inputs.weights, requires_grad=True)
    return lambda: (_backward(lambda x: torch.stack(list(node(x, weights)), -1), inputs, weights), 1e-4)


def _aer(circuit: qu.Circuit, inputs: Inputs) -> Step:
    layer, x = _layer(circuit, inputs, "auto"), torch.from_numpy(inputs.features)
    layer.run_on("aer")

    def step() -> tuple[Tensor, float]:
        with torch.no_grad():
            return layer(x), 1e-4

    return step


WAYS = (
    Way("density (ours)", "forward", 8, _density),
    Way("Aer, density matrix", "forward", 8, _aer),
    Way("density (ours)", "forward and backward", 8, _density_gradients),
    Way(f"{TRAJECTORIES} trajectories (ours)", "forward and backward", 10, _trajectories),
    Way("PennyLane default.mixed, backprop", "forward and backward", 8, _default_mixed),
)


def _timed(step: Step) -> tuple[Tensor, float, float]:
    """Values, their tolerance, and seconds; a quick step is timed the second time, when caches are its own again."""
    for _ in range(2):
        start = time.perf_counter()
        values, tolerance = step()
        seconds = time.perf_counter() - start
        if seconds > 1:
            break
    return values, tolerance, seconds


def measure(qubits: int, rounds: int) -> tuple[list[tuple[str, ...]], bool]:
    """The rows of one size, and whether a simulator disagreed."""
    point = Point(qubits, DEPTH, BATCH)
    clean = circuit_of("ring-cz", point)
    inputs, circuit = inputs_of(clean, BATCH), clean.with_noise({"depolarizing": STRENGTH})
    ways = [way for way in WAYS if qubits <= way.qubits]
    steps = {way: way.prepare(circuit, inputs) for way in ways}
    truth = steps[ways[0]]()[0] if qubits <= 8 else None
    times: dict[Way, list[float]] = {way: [] for way in ways}
    refused = False
    notes = dict.fromkeys(ways, "")
    for turn in range(rounds + 1):  # the first turn compiles and fills caches
        for way in ways:
            if sum(times[way]) > 1000 * ENOUGH:
                continue
            values, tolerance, seconds = _timed(steps[way])
            if turn or seconds > ENOUGH:
                times[way].append(1000 * seconds)
            gap = 0.0 if truth is None else float((values - truth).abs().max())
            if gap > tolerance:
                notes[way], refused = f"REFUSED: {gap:.1g} off", True
    ours = {way.task: median(times[way]) for way in ways if way.title == "density (ours)"}
    rows: list[tuple[str, ...]] = []
    for way in ways:
        ratio = median(times[way]) / ours[way.task] if way.task in ours else None
        spread = f"{number(min(times[way]))} to {number(max(times[way]))}"
        rows.append((str(qubits), way.task, way.title, number(median(times[way])), spread, number(ratio), notes[way]))
    return rows, refused


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; returns the exit code."""
    parser = argparse.ArgumentParser(description="Time noisy circuits, side by side.")
    parser.add_argument("--all", action="store_true", dest="whole", help="8 and 10 qubits, too")
    parser.add_argument("--rounds", type=int, default=5, help="turns (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (default: %(default)s)")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error(f"expected at least 1 round, got {given.rounds}")
    torch.set_num_threads(1)
    others, refused = Others(), False
    rows: list[tuple[str, ...]] = []
    for qubits in (4, 6, 8, 10) if given.whole else (4, 6):
        print(f"{qubits} qubits ...", file=sys.stderr, flush=True)
        found, wrong = measure(qubits, given.rounds)
        rows, refused = rows + found, refused or wrong
    columns = ("qubits", "what", "simulator", "ms", "from to", "ratio", "note")
    sheet = Sheet("Noisy circuits", columns if refused else columns[:-1], [r[: 7 if refused else 6] for r in rows], 2)
    packages = ("torch", "pennylane", "qiskit-aer", "numba")
    sentences = [*machine(1, {name: version(name) for name in packages}), *others.sentences()]
    given.out.mkdir(parents=True, exist_ok=True)
    sheet.write_csv(given.out / "noise.csv")
    (given.out / "noise.md").write_text("\n".join([*sentences, "", sheet.markdown()]), encoding="utf-8")
    sheet.show()
    say(sentences)
    print(f"Written: {given.out}/noise.csv, noise.md")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
