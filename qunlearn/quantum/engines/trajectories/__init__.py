"""Noise by quantum trajectories: runs of pure states with random errors, averaged, where a density matrix is too large.

The unravelling is linear: what strikes is drawn with probabilities that depend on the channel alone, and its matrix is
divided by the square root of that probability, never by the norm of the state. So the mean over runs is the noisy value
exactly, and the mean of their derivatives its derivative: values and gradients are unbiased for any number of runs.
Which probabilities keep the spread small is told in `branches`, and in `frames` how errors become further features of
a sample, so that a run costs no more than a sample does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qunlearn.errors import InputError
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.engines import torch_engine
from qunlearn.quantum.engines.memory import check_memory
from qunlearn.quantum.engines.trajectories.branches import Floats, Ints, Lottery
from qunlearn.quantum.engines.trajectories.method import Method, Run, find_method
from qunlearn.quantum.sampling import apply_readout

__all__ = ["Estimate", "estimate", "expectations", "probabilities"]

_NEVER = 1e-15  # a probability of any error at all, below which there are none


@dataclass(frozen=True)
class Estimate:
    """Means over trajectories and their standard errors, both ``(..., observables)``."""

    values: Tensor
    errors: Tensor


def expectations(
    circuit: Circuit,
    features: Tensor,
    weights: Tensor,
    *,
    trajectories: int,
    generator: np.random.Generator,
    engine: str = "auto",
) -> Tensor:
    """Estimates of the noisy expectation values: features ``(..., features)`` give ``(..., observables)``.

    Differentiable by features ``(..., features)`` and weights ``(weights,)``, under every transform of ``torch.func``;
    what is mapped over by ``vmap`` sees the same errors. Readout errors enter exactly.

    Args:
        circuit: with channels, readout errors, or neither.
        features: float32 or float64.
        weights: the same; the wider type is that of everything that is computed.
        trajectories: how many runs with errors are averaged for every sample, each with errors of its own. The run
            without any error is done besides, and counts with its probability.
        generator: what the errors are drawn from; it moves on.
        engine: what runs circuits with Pauli noise alone; all others are run by PyTorch operations.

    Raises:
        InputError: for fewer than 1 trajectory, or if a single state needs more memory than there is.
        UnsupportedError: for a channel on several wires that is no Pauli channel.
    """
    values, factors = _runs(circuit, features, weights, trajectories, generator, engine)
    means: Tensor = torch.tensordot(factors, values, 1)
    return means.reshape(*features.shape[:-1], len(circuit.observables))


def estimate(
    circuit: Circuit,
    features: Tensor,
    weights: Tensor,
    *,
    trajectories: int,
    generator: np.random.Generator,
    engine: str = "auto",
) -> Estimate:
    """What `expectations` gives, without derivatives, with standard errors; NaN for a single trajectory."""
    with torch.no_grad():
        values, factors = _runs(circuit, features, weights, trajectories, generator, engine)
    shape, drawn = (*features.shape[:-1], len(circuit.observables)), values[1:]
    errors = torch.zeros_like(values[0])
    if len(drawn):
        spread = drawn.std(0) if len(drawn) > 1 else torch.full_like(drawn[0], torch.nan)
        errors = spread * (factors[1:].sum() / len(drawn) ** 0.5)
    return Estimate(torch.tensordot(factors, values, 1).reshape(shape), errors.reshape(shape))


def probabilities(
    circuit: Circuit, features: Tensor, weights: Tensor, *, trajectories: int, generator: np.random.Generator
) -> Floats:
    """Estimates of the probabilities ``(..., 2**qubits)`` of what is read, wire 0 most significant; no derivatives.

    Where noise is not Pauli noise, they add up to the mean weight of the runs, which is 1 on average but not in each
    estimate. For unbiased values, sample from the normalised probabilities and multiply what is found by their sum.
    """
    check_memory(circuit, features.reshape(features.shape[:-1].numel(), features.shape[-1])[:1])
    method = find_method(circuit, "torch", everything=True)
    features, weights = (value.detach() for value in torch_engine.promote(features, weights))
    batch = features.reshape(features.shape[:-1].numel(), features.shape[-1])
    branches, factors = _drawn(method.framed.lottery, len(batch), trajectories, generator)
    wide, step = _wide(method, batch, branches), _at_once(circuit, "torch", batch)
    masks = torch.from_numpy(method.framed.flips(branches)).to(batch.device)
    shares = torch.from_numpy(factors).to(batch).repeat_interleave(len(batch))
    place = torch.arange(len(batch), device=batch.device).repeat(len(factors))
    found, outcomes = batch.new_zeros(len(batch), 2**circuit.qubits), torch.arange(2**circuit.qubits).to(batch.device)
    for first in range(0, len(wide), step):
        rows = slice(first, first + step)
        psi = method.states(wide[rows], weights)
        read = (psi.real.square() + psi.imag.square()).gather(1, outcomes ^ masks[rows, None])
        found.index_add_(0, place[rows], read * shares[rows, None])
    read_out = apply_readout(found.cpu().numpy(), circuit.readout)
    return read_out.reshape(*features.shape[:-1], 2**circuit.qubits)


def _runs(
    circuit: Circuit, features: Tensor, weights: Tensor, trajectories: int, generator: np.random.Generator, engine: str
) -> tuple[Tensor, Tensor]:
    """Values ``(1 + trajectories, samples, observables)``, the first without errors, and their factors."""
    check_memory(circuit, features.reshape(features.shape[:-1].numel(), features.shape[-1])[:1])
    method = find_method(circuit, engine)
    features, weights = torch_engine.promote(features, weights)
    batch = features.reshape(features.shape[:-1].numel(), features.shape[-1])
    branches, factors = _drawn(method.framed.lottery, len(batch), trajectories, generator)
    wide, step = _wide(method, batch, branches), _at_once(circuit, method.engine, batch)
    values = _in_parts(method.values, wide, weights, step)
    signs = torch.from_numpy(method.framed.signs(branches)).to(batch)
    matrix, constant = (torch.from_numpy(part).to(batch) for part in (method.readout, method.constant))
    read = (values * signs) @ matrix + constant
    return read.reshape(len(factors), len(batch), len(circuit.observables)), torch.from_numpy(factors).to(batch)


def _in_parts(run: Run, wide: Tensor, weights: Tensor, step: int) -> Tensor:
    """The values of all runs, `step` of them at a time."""
    if len(wide) <= step:
        return run(wide, weights)
    # What a part keeps for its gradient is forgotten, and the part run again: of this torch.func knows nothing.
    forget = torch.is_grad_enabled() and torch._C._functorch.peek_interpreter_stack() is None
    again = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False) if forget else run
    return torch.cat([again(wide[first : first + step], weights) for first in range(0, len(wide), step)])


def _drawn(lottery: Lottery, samples: int, trajectories: int, generator: np.random.Generator) -> tuple[Ints, Floats]:
    """Branches ``(runs * samples, channels)``, those of the run without errors first, and the factors of the runs."""
    if trajectories < 1:
        raise InputError(f"expected at least 1 trajectory, got {trajectories}")
    quiet = np.zeros((samples, len(lottery.shares)), dtype=np.int64)
    if 1 - lottery.quiet < _NEVER:
        return quiet, np.ones(1)
    drawn = lottery.draw(trajectories * samples, generator)
    factors = np.full(1 + trajectories, (1 - lottery.quiet) / trajectories)
    factors[0] = lottery.quiet
    return np.concatenate([quiet, drawn]), factors


def _wide(method: Method, batch: Tensor, branches: Ints) -> Tensor:
    """The features of all runs, ``(runs * samples, features)``: those of the samples, then what stands for errors."""
    further = torch.from_numpy(method.framed.further(branches)).to(batch)
    runs = len(further) // max(1, len(batch))
    return torch.cat([batch.expand(runs, *batch.shape).flatten(0, 1), further], -1)


def _at_once(circuit: Circuit, engine: str, like: Tensor) -> int:
    """How many runs are done together: as many as make use of a device, without much memory for their gradients."""
    amplitudes = 2**24 if like.device.type != "cpu" else 2**18 if engine == "torch" else 2**22
    return max(1, amplitudes >> circuit.qubits)
