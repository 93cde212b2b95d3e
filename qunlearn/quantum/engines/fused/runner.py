"""From tensors to the kernel and back: memory, threads, and the order of observables."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qunlearn.errors import UnsupportedError
from qunlearn.quantum.circuit import Angle, Circuit, Gate
from qunlearn.quantum.engines.fused import kernel
from qunlearn.quantum.engines.fused.tape import Tape, compile_tape

LONG = 1 << 14  # numbers in a state beyond which threads share it
SECTIONS = 16  # parts of a long state, each with sums of its own
WORTH = 20_000_000  # multiply-adds that a thread must have to do before it is woken: some 0.3 ms
KEPT = 1 << 28  # bytes of final states that are kept for the backward sweep; beyond that they are run again

NOTICE = 2.0  # seconds after which a user is told what takes so long

Array = NDArray[Any]
_log = logging.getLogger("qunlearn")
_SMALLEST = Circuit(1, (Gate("ry", (0,), Angle(weight=0)),), ("Z",), features=1, weights=1)

_long_states = threading.Lock()  # a team fills the pool: two at once would wait for each other for ever


def forward(circuit: Circuit, features: Tensor, weights: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    """Values ``(batch, observables)`` and final states ``(batch or 0, 2, states)``, or of replicas.

    Features are ``(batch, features)`` and weights ``(weights,)``, of one real type; or both have a leading axis of 1 or
    of as many replicas, and so have the results. Without `keep`, or where they would take more than `KEPT` bytes, no
    states are returned.
    """
    plan = _plan(circuit, features.element_size())
    plain = weights.dim() == 1
    replicas, batch = 1 if plain else max(len(features), len(weights)), features.shape[-2]
    lead = () if plain else (replicas,)
    kept = batch if keep and batch <= plan.slice(replicas) else 0
    values = features.new_empty(*lead, batch, len(circuit.observables))
    finals = features.new_empty(*lead, kept, 2, plan.states)
    _run_forward(plan, *_arrays(plain, features, weights, values, finals))
    return (values if plan.order is None else values[..., torch.from_numpy(plan.order)]), finals


def backward(
    circuit: Circuit, features: Tensor, weights: Tensor, finals: Tensor, slopes: Tensor, wanted: bool
) -> tuple[Tensor, Tensor]:
    """Derivatives of ``sum(slopes * values)`` by features, of their shape, and by weights, of theirs.

    With replicas, both have as many rows as there are replicas. Derivatives by features that are not wanted have no
    samples. Where no final states were kept, samples are run again, as many at a time as fit into `KEPT` bytes.
    """
    plan = _plan(circuit, features.element_size())
    plain, (*lead, batch) = weights.dim() == 1, slopes.shape[:-1]
    if plan.order is not None:
        slopes = slopes[..., torch.from_numpy(np.argsort(plan.order))]
    by_features = features.new_empty(*lead, batch if wanted else 0, circuit.features)
    by_weights = features.new_empty(*lead, circuit.weights)
    if not batch:
        return by_features, by_weights.zero_()
    arrays = _arrays(plain, features, weights, finals, slopes, by_features, by_weights)
    run = _run_backward if finals.shape[-3] else _slice_by_slice
    kernel.finish(plan.tape, arrays[1], run(plan, *arrays[:5]), arrays[5], plan.team(1)[0])
    return by_features, by_weights


def _arrays(plain: bool, *tensors: Tensor) -> list[Array]:
    """The numbers of tensors, not copied if they lie in order, with an axis of replicas."""
    try:
        arrays = [tensor.detach().resolve_neg().contiguous().numpy() for tensor in tensors]
    except RuntimeError as error:
        raise UnsupportedError(
            "expected tensors with values for engine 'fused', got placeholders of a transform that has no rule for "
            "custom functions (such as is_grads_batched=True of torch.autograd.grad); use torch.func.vmap, or "
            "engine='torch'"
        ) from error
    return [array[None] for array in arrays] if plain else arrays


def _run_forward(plan: _Plan, features: Array, weights: Array, values: Array, finals: Array) -> None:
    replicas, batch = values.shape[:2]
    arrays = (plan.tape, features, weights, values, finals)
    teams = _teams(plan, replicas, batch, 1)
    _run(teams, replicas * plan.chunks(batch), functools.partial(kernel.forward, *arrays))


def _run_backward(plan: _Plan, features: Array, weights: Array, finals: Array, slopes: Array, out: Array) -> Array:
    """The sums of the chunks, ``(replicas * chunks, numbers)``; fills `out`, the derivatives by features."""
    replicas, batch = slopes.shape[:2]
    width = 8 * len(plan.tape.segments) + len(plan.tape.rotations) + weights.shape[1]
    sums = np.empty((replicas * plan.chunks(batch), width), dtype=out.dtype)
    arrays = (plan.tape, features, weights, finals, slopes, out, sums)
    _run(_teams(plan, replicas, batch, 4), len(sums), functools.partial(kernel.backward, *arrays))
    return sums


def _slice_by_slice(plan: _Plan, features: Array, weights: Array, finals: Array, slopes: Array, out: Array) -> Array:
    """`_run_backward` where no final states were kept: slices of the batch are run forwards first."""
    replicas, batch = slopes.shape[:2]
    rows, sums = plan.slice(replicas), []
    for first in range(0, batch, rows):
        given, wanted = (np.ascontiguousarray(array[:, first : first + rows]) for array in (features, slopes))
        states = np.empty((replicas, wanted.shape[1], *finals.shape[2:]), dtype=out.dtype)
        _run_forward(plan, given, weights, np.empty_like(wanted), states)
        found = np.empty_like(out[:, first : first + rows], order="C")
        part = _run_backward(plan, given, weights, states, wanted, found)
        sums.append(part.reshape(replicas, -1, part.shape[1]))
        out[:, first : first + rows] = found
    return np.concatenate(sums, 1).reshape(-1, sums[0].shape[2])


@dataclass(frozen=True, eq=False)
class _Plan:
    """A tape, and what running it takes: numbers of a team's and a member's memory; the rest as in `Compiled`."""

    tape: Tape
    states: int
    lanes: int
    order: NDArray[np.int64] | None
    work: int
    sections: int
    shared: int
    own: int

    def chunks(self, batch: int) -> int:
        """How many chunks the batch of a replica makes: one for every vector that it fills."""
        return -(-batch // self.lanes)

    def slice(self, replicas: int) -> int:
        """Samples of each replica whose states take no more than `KEPT` bytes; whole chunks, at least one."""
        fits = KEPT // (replicas * 2 * self.states * self.tape.terms.itemsize)
        return max(1, fits // self.lanes) * self.lanes

    def team(self, size: int) -> list[kernel.Team]:
        """The members of a team of threads, with memory."""
        real, meeting = self.tape.terms.dtype, np.zeros(1, dtype=np.int64)
        lines = np.empty(self.shared, dtype=real)
        return [
            kernel.Team(member, size, self.sections, meeting, lines, np.empty(self.own, dtype=real))
            for member in range(size)
        ]


@functools.lru_cache(maxsize=256)
def _plan(circuit: Circuit, itemsize: int) -> _Plan:
    _load_kernel(itemsize)
    return _new_plan(circuit, itemsize)


def _new_plan(circuit: Circuit, itemsize: int) -> _Plan:
    compiled = compile_tape(circuit, itemsize)
    sections = SECTIONS if compiled.states > LONG else 1
    shared, own = (sum(rows * width for rows, width in part) for part in kernel.shapes(compiled.tape, sections))
    return _Plan(compiled.tape, compiled.states, compiled.lanes, compiled.order, compiled.work, sections, shared, own)


@functools.lru_cache(maxsize=2)
def _load_kernel(itemsize: int) -> None:
    """Have the kernel for one real type: from Numba's cache on disk, or compiled, which is announced."""
    plan = _new_plan(_SMALLEST, itemsize)
    real = plan.tape.terms.dtype
    notice = "compiling the circuit engine for %s: some half a minute, once after installing or updating"
    timer = threading.Timer(NOTICE, _log.warning, (notice, real))
    timer.daemon = True
    timer.start()
    try:
        batch, weights, states = (
            np.zeros((1, 1, 1), real),
            np.zeros((1, 1), real),
            np.zeros((1, 1, 2, plan.states), real),
        )
        _run_forward(plan, batch, weights, batch.copy(), states)
        sums = _run_backward(plan, batch, weights, states, batch.copy(), batch.copy())
        kernel.finish(plan.tape, weights, sums, weights.copy(), plan.team(1)[0])
    finally:
        timer.cancel()


def _teams(plan: _Plan, replicas: int, batch: int, effort: int) -> list[kernel.Team]:
    """The threads to use, at most as many as torch does and as the work is worth; on a long state all of one team."""
    threads = min(torch.get_num_threads(), max(1, replicas * batch * plan.work * effort // WORTH))
    if plan.states > LONG:
        return plan.team(threads)
    return [plan.team(1)[0] for _ in range(min(threads, max(1, replicas * plan.chunks(batch))))]


def _run(teams: list[kernel.Team], chunks: int, part: Callable[..., None]) -> None:
    """Call ``part(first chunk, last chunk, team)`` on every thread: with all chunks on one team, else with some."""
    if len(teams) == 1:
        part(0, chunks, teams[0])
    elif teams[0].size > 1:
        with _long_states:
            _together([(part, 0, chunks, member) for member in teams])
    else:
        edges = [chunks * n // len(teams) for n in range(len(teams) + 1)]
        _together([(part, *edges[n : n + 2], team) for n, team in enumerate(teams)])


def _together(calls: list[tuple[Any, ...]]) -> None:
    """All calls at once, the first on this thread; the kernel lets the others run while it does."""
    pool = _pool(len(calls) - 1)
    waiting = [pool.submit(*call) for call in calls[1:]]
    calls[0][0](*calls[0][1:])
    wait(waiting)
    for future in waiting:
        future.result()


_pools: dict[int, ThreadPoolExecutor] = {}


def _pool(size: int) -> ThreadPoolExecutor:
    if size not in _pools:
        _pools[size] = ThreadPoolExecutor(size, thread_name_prefix="qunlearn")
    return _pools[size]


def _begin_anew() -> None:
    """Threads do not survive a fork, and whoever held the lock may be one of them."""
    global _long_states
    _long_states = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
