"""What jobs cost and how large they may be: pure functions of circuits and numbers of rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qunlearn.errors import InputError

JOB_SECONDS = 2.0  # IBM's own approximation of what a job costs beside its executions
#: Instructions of the control system for each instruction of a circuit. Source: IBM's page on job limits.
INSTRUCTIONS = {"rz": 1, "delay": 1, "sx": 2, "x": 2, "cx": 5, "cz": 5, "ecr": 5, "measure": 10, "reset": 17}
INITIAL = 50  # instructions that prepare a qubit
ANGLE_BYTES = 12  # of the payload for each angle: a float64 in base 64; the client compresses it, so at most
INSTRUCTION_BYTES = 100  # of the payload for each instruction of a circuit


@dataclass(frozen=True)
class Limits:
    """How large one job may be; well below what the service takes.

    Attributes:
        payload: bytes sent (the service takes 64 MB).
        executions: circuits times shots (the service takes 10 million, earlier 5).
        instructions: of the control system on the busiest qubit, over all circuits (the service takes 26.8 million).
        pubs: circuits before parameters are filled in (more than 81 have made its compiler fail).
        outcomes: counts that are in this machine's memory at once when a result is read, 8 bytes each.
        seconds: of the machine (the service stops a job after 3 hours).
    """

    payload: int = 16_000_000
    executions: int = 5_000_000
    instructions: int = 20_000_000
    pubs: int = 50
    outcomes: int = 2**26
    seconds: float = 3600.0


@dataclass(frozen=True)
class Cost:
    """What something costs; costs of parts add up.

    Attributes:
        pubs: circuits before parameters are filled in.
        circuits: circuits afterwards.
        executions: circuits times shots.
        instructions: by qubit, of the control system.
        payload: bytes.
        outcomes: counts, one for each outcome of each circuit.
        seconds: of the machine, without those of the job itself.
    """

    pubs: int = 0
    circuits: int = 0
    executions: int = 0
    instructions: tuple[int, ...] = ()
    payload: int = 0
    outcomes: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        width = max(len(self.instructions), len(other.instructions))
        mine, others = (one.instructions + (0,) * (width - len(one.instructions)) for one in (self, other))
        return Cost(
            self.pubs + other.pubs,
            self.circuits + other.circuits,
            self.executions + other.executions,
            tuple(a + b for a, b in zip(mine, others, strict=True)),
            self.payload + other.payload,
            self.outcomes + other.outcomes,
            self.seconds + other.seconds,
        )

    def shares(self, limits: Limits) -> dict[str, float]:
        """By limit, how much of it is used up."""
        return {
            "payload": self.payload / limits.payload,
            "executions": self.executions / limits.executions,
            "instructions": max(self.instructions, default=0) / limits.instructions,
            "pubs": self.pubs / limits.pubs,
            "outcomes": self.outcomes / limits.outcomes,
            "seconds": (JOB_SECONDS + self.seconds) / limits.seconds,
        }


@dataclass(frozen=True)
class Piece:
    """What the cost of a circuit depends on.

    Attributes:
        instructions: by qubit, of the control system.
        gates: how many instructions the circuit has.
        parameters: how many angles each row has; None where the circuit runs once, without rows.
        seconds: that one execution takes.
        measured: how many qubits are measured.
    """

    instructions: tuple[int, ...]
    gates: int
    parameters: int | None
    seconds: float
    measured: int = 1

    def cost(self, rows: int, shots: int) -> Cost:
        """The cost of running it for so many rows."""
        circuits = rows if self.parameters is not None else 1
        return Cost(
            1,
            circuits,
            circuits * shots,
            tuple(count * circuits for count in self.instructions),
            INSTRUCTION_BYTES * self.gates + ANGLE_BYTES * circuits * (self.parameters or 0),
            circuits << self.measured,
            circuits * shots * self.seconds,
        )


def piece_of(circuit: Any, takes_rows: bool, device: Any) -> Piece:
    """What the cost of a transpiled circuit on a device depends on."""
    counts = [INITIAL] * circuit.num_qubits
    for instruction in circuit.data:
        for qubit in instruction.qubits:
            counts[circuit.find_bit(qubit).index] += INSTRUCTIONS.get(instruction.operation.name, 5)
    idle = {index for index, count in enumerate(counts) if count == INITIAL}
    counts = [0 if index in idle else count for index, count in enumerate(counts)]
    parameters = circuit.num_parameters if takes_rows else None
    seconds = rep_delay(device) + circuit_seconds(circuit, device.target)
    return Piece(tuple(counts), len(circuit.data), parameters, seconds, circuit.num_clbits)


def circuit_seconds(circuit: Any, target: Any) -> float:
    """How long one execution takes: the longest way through the circuit, with the target's own durations."""
    ready = [0.0] * circuit.num_qubits
    for instruction in circuit.data:
        places = [circuit.find_bit(qubit).index for qubit in instruction.qubits]
        start = max((ready[place] for place in places), default=0.0)
        for place in places:
            ready[place] = start + _duration(instruction.operation.name, tuple(places), target)
    return max(ready, default=0.0)


def rep_delay(device: Any) -> float:
    """Seconds between two executions."""
    delay = getattr(device, "default_rep_delay", None)
    return float(delay) if isinstance(delay, int | float) else 250e-6


def _duration(name: str, places: tuple[int, ...], target: Any) -> float:
    if name == "barrier" or name not in target.operation_names:
        return 0.0
    properties = (target[name] or {}).get(places)
    return float(getattr(properties, "duration", None) or 0.0)


@dataclass(frozen=True)
class Slice:
    """What one job runs: the samples from start to stop of the plan's order, with models of some structures."""

    start: int
    stop: int
    structures: tuple[int, ...]


def split(
    samples: int, models: Sequence[int], pieces: Sequence[Sequence[Piece]], shots: int, limits: Limits
) -> list[Slice]:
    """The jobs, as few as the limits allow, slices of samples as equal as can be.

    Args:
        samples: how many, in the plan's order.
        models: of each structure, how many models share it.
        pieces: of each structure, the circuits that run.
        shots: of each circuit.
        limits: of one job.

    Raises:
        InputError: where one sample alone is beyond a limit.
    """
    groups = _together(models, pieces, shots, limits)
    width = min(_fitting(samples, group, models, pieces, shots, limits) for group in groups)
    parts = math.ceil(samples / width)
    borders = [samples * part // parts for part in range(parts + 1)]
    return [Slice(start, stop, group) for start, stop in itertools.pairwise(borders) for group in groups]


def cost_of(
    samples: int, structures: Sequence[int], models: Sequence[int], pieces: Sequence[Sequence[Piece]], shots: int
) -> Cost:
    """The cost of running so many samples through the models of some structures."""
    total = Cost()
    for index in structures:
        for piece in pieces[index]:
            total += piece.cost(samples * models[index], shots)
    return total


def _together(
    models: Sequence[int], pieces: Sequence[Sequence[Piece]], shots: int, limits: Limits
) -> list[tuple[int, ...]]:
    """Structures that share jobs: as many as the limits take with one sample."""
    groups: list[tuple[int, ...]] = []
    for index in range(len(pieces)):
        joined = (*groups[-1], index) if groups else (index,)
        fits = max(cost_of(1, joined, models, pieces, shots).shares(limits).values()) <= 1
        groups = [*groups[:-1], joined] if groups and fits else [*groups, (index,)]
    return groups


def _fitting(
    samples: int,
    group: Sequence[int],
    models: Sequence[int],
    pieces: Sequence[Sequence[Piece]],
    shots: int,
    limits: Limits,
) -> int:
    """The most samples that fit into one job."""
    low, high = 0, samples
    while low < high:
        middle = (low + high + 1) // 2
        shares = cost_of(middle, group, models, pieces, shots).shares(limits)
        low, high = (middle, high) if max(shares.values()) <= 1 else (low, middle - 1)
    if low == 0:
        shares = cost_of(1, group, models, pieces, shots).shares(limits)
        name = max(shares, key=lambda name: shares[name])
        raise InputError(
            f"expected one sample to fit into a job, got {shares[name]:.1f} times the limit of "
            f"{getattr(limits, name):,} {name}; take fewer shots, or fewer models"
        )
    return low
