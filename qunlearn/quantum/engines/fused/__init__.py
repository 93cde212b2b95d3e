"""The fused engine: everything of a circuit in one compiled kernel on the CPU, differentiable by PyTorch.

First derivatives come from the kernel's adjoint sweep, all others (forward mode, second and higher derivatives) from
the reference engine, by formula: a derivative of this engine is the reference's derivative of the same function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch.utils._pytree import tree_map

from qunlearn.errors import UnsupportedError
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.engines import torch_engine
from qunlearn.quantum.engines.fused import runner
from qunlearn.quantum.engines.memory import check_memory

Dims = tuple[int | None, ...]


def expectations(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """The expectation value of every observable: features ``(..., features)`` give ``(..., observables)``.

    Weights are ``(weights,)``; both may be float32 or float64 on the CPU, and the wider one is the type of everything
    that is computed. What reaches no observable gets a gradient of exactly zero.

    Raises:
        UnsupportedError: for tensors that are not on the CPU.
        InputError: if the states need more memory than there is, or a sample cannot be amplitude-encoded.
    """
    if features.device.type != "cpu" or weights.device.type != "cpu":
        device = weights.device if features.device.type == "cpu" else features.device
        raise UnsupportedError(f"expected tensors on the CPU for the fused engine, got {device}; use engine='torch'")
    features, weights = torch_engine.promote(features, weights)
    check_memory(circuit, features)
    if circuit.amplitude:
        torch_engine.check_amplitudes(features)
    batch = features.reshape(1, math.prod(features.shape[:-1]), features.shape[-1])
    # Only a saving: without final states the backward sweep runs forwards first.
    keep = torch.is_grad_enabled() and (features.requires_grad or weights.requires_grad)
    values, _ = _Forward.apply(circuit, batch, weights.unsqueeze(0), keep)
    return values.reshape(*features.shape[:-1], len(circuit.observables))


def _reference(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """The same values ``(replicas, batch, observables)`` by the reference engine."""
    if len(weights) == 1:
        return torch_engine.expectations(circuit, features, weights[0])
    if len(features) == 1:
        return torch.stack([torch_engine.expectations(circuit, features[0], row) for row in weights.unbind(0)])
    pairs = zip(features.unbind(0), weights.unbind(0), strict=True)
    return torch.stack([torch_engine.expectations(circuit, batch, row) for batch, row in pairs])


def _reference_slopes(circuit: Circuit, features: Tensor, weights: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """What `_Backward` computes, by the reference engine."""
    wide = features.expand(len(slopes), -1, -1), weights.expand(len(slopes), -1)
    _, pull = torch.func.vjp(lambda f, w: _reference(circuit, f, w), *wide)
    found: tuple[Tensor, Tensor] = pull(slopes)
    return found


class _Forward(torch.autograd.Function):
    """Features ``(1 or replicas, batch, features)`` and weights ``(1 or replicas, weights)`` to values and final states."""

    @staticmethod
    def forward(circuit: Circuit, features: Tensor, weights: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
        return runner.forward(circuit, features, weights, keep)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Circuit, Tensor, Tensor, bool], output: tuple[Tensor, Tensor]) -> None:
        ctx.circuit, features, weights, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(features, weights, output[1])
        ctx.save_for_forward(features, weights)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, Tensor, Tensor, None]:
        features, weights, finals = ctx.saved_tensors
        # Without a graph to make, the function that would make it is left out.
        run = _Backward.apply if torch.is_grad_enabled() else runner.backward
        by_features, by_weights = run(ctx.circuit, features, weights, finals, slopes[0])
        return None, _summed(by_features, features), _summed(by_weights, weights), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        return _pushed(lambda f, w: _reference(ctx.circuit, f, w), ctx.saved_tensors, tangents[1:3]), None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, circuit: Circuit, features: Tensor, weights: Tensor, keep: bool) -> Any:
        folded, inner = _folded(info.batch_size, in_dims[1:3], features, weights)
        outputs = _Forward.apply(circuit, *folded, keep)
        return tuple(t.reshape(info.batch_size, inner, *t.shape[1:]) for t in outputs), (0, 0)


class _Backward(torch.autograd.Function):
    """Derivatives of ``sum(slopes * values)`` by the features and weights of each replica."""

    @staticmethod
    def forward(circuit: Circuit, features: Tensor, weights: Tensor, finals: Tensor, slopes: Tensor) -> Any:
        return runner.backward(circuit, features, weights, finals, slopes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.circuit, features, weights, _, slopes = inputs
        ctx.save_for_backward(features, weights, slopes)
        ctx.save_for_forward(features, weights, slopes)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, Tensor, Tensor, None, Tensor]:
        _, pull = torch.func.vjp(lambda f, w, s: _reference_slopes(ctx.circuit, f, w, s), *ctx.saved_tensors)
        features, weights, slopes = pull(cotangents)
        return None, features, weights, None, slopes

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
        chosen = (tangents[1], tangents[2], tangents[4])
        found: tuple[Tensor, Tensor] = _pushed(
            lambda f, w, s: _reference_slopes(ctx.circuit, f, w, s), ctx.saved_tensors, chosen
        )
        return found

    @staticmethod
    def vmap(info: Any, in_dims: Dims, circuit: Circuit, *tensors: Tensor) -> Any:
        folded, inner = _folded(info.batch_size, in_dims[1:], *tensors)
        outputs = _Backward.apply(circuit, *folded)
        return tuple(t.reshape(info.batch_size, inner, *t.shape[1:]) for t in outputs), (0, 0)


def _folded(size: int, dims: Dims, *tensors: Tensor) -> tuple[list[Tensor], int]:
    """Tensors ``(1 or replicas, ...)`` with the mapped axis folded into the replicas, and how many there were inside.

    What is mapped over nowhere and stands for all replicas stays as it is, and stands for all of them.
    """
    moved = [t if dim is None else t.movedim(dim, 0) for t, dim in zip(tensors, dims, strict=True)]
    inner = max(t.shape[0 if dim is None else 1] for t, dim in zip(moved, dims, strict=True))
    folded = []
    for tensor, dim in zip(moved, dims, strict=True):
        if dim is None and len(tensor) == 1:
            folded.append(tensor)
            continue
        rest = tensor.shape[1:] if dim is None else tensor.shape[2:]
        folded.append(tensor.expand(size, inner, *rest).reshape(size * inner, *rest))
    return folded, inner


def _summed(slopes: Tensor, like: Tensor) -> Tensor:
    """Derivatives of each replica, added up where one input stands for all."""
    return slopes if len(slopes) == len(like) else slopes.sum(0, keepdim=True)


def _pushed(function: Callable[..., Any], primals: tuple[Tensor, ...], tangents: tuple[Tensor | None, ...]) -> Any:
    """The tangent of a function's outputs; a missing tangent is zero.

    By two passes of reverse mode (the pullback is linear, and its pullback is the pushforward), because forward mode
    does not nest.
    """
    # PyTorch runs the rule of a custom function without the tangents of an outer forward mode: they would be lost.
    stack = torch._C._functorch.get_interpreter_stack() or []
    if sum(level.key() == TransformType.Jvp for level in stack) > 1:
        raise UnsupportedError(
            "expected at most one forward-mode derivative, got one inside another, which PyTorch does not support for "
            "the fused engine; use torch.func.hessian or jacrev inside, or engine='torch'"
        )
    given = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True))
    outputs, _ = torch.func.vjp(function, *primals)
    zeros = tree_map(torch.zeros_like, outputs)
    _, push = torch.func.vjp(lambda slopes: torch.func.vjp(function, *primals)[1](slopes), zeros)
    (tangent,) = push(given)
    return tangent
