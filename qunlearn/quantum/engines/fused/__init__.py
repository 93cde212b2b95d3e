"""The fused engine: everything of a circuit in one compiled kernel on the CPU, differentiable by PyTorch.

First derivatives come from the kernel's adjoint sweep; forward mode and all higher derivatives are the reference
engine's, which computes the same function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from qunlearn.errors import UnsupportedError
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.engines import torch_engine
from qunlearn.quantum.engines.fused import runner
from qunlearn.quantum.engines.memory import check_memory
from qunlearn.quantum.transforms import check_one_forward_mode

Dims = tuple[int | None, ...]


def expectations(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """The expectation value of every observable: features ``(..., features)`` give ``(..., observables)``.

    Weights are ``(weights,)``; both may be float32 or float64 on the CPU, and the wider one is the type of everything
    that is computed. What reaches no observable gets a gradient of exactly zero.

    Raises:
        UnsupportedError: for tensors that are not on the CPU, and for a noisy circuit.
        InputError: if the states need more memory than there is, or a sample cannot be amplitude-encoded.
    """
    torch_engine.refuse_noise(circuit, "fused")
    for tensor in (features, weights):
        if tensor.device.type != "cpu":
            device = tensor.device
            raise UnsupportedError(f"expected tensors on the CPU for engine 'fused', got {device}; use engine='torch'")
    features, weights = torch_engine.promote(features, weights)
    check_memory(circuit, features)
    if circuit.amplitude:
        torch_engine.check_amplitudes(features)
    batch = features if features.dim() == 2 else features.reshape(features.shape[:-1].numel(), features.shape[-1])
    # Only a saving: without final states the backward sweep runs forwards first.
    keep = torch.is_grad_enabled() and (features.requires_grad or weights.requires_grad)
    values: Tensor = _Forward.apply(circuit, batch, weights, keep)[0]  # type: ignore[no-untyped-call]
    return values if features.dim() == 2 else values.reshape(*features.shape[:-1], len(circuit.observables))


class _Forward(torch.autograd.Function):
    """Features and weights to values and final states, of one set of weights or of replicas.

    Features are ``(batch, features)``, weights ``(weights,)``, values ``(batch, observables)``; or, all three with a
    leading axis, of replicas. Features or weights of length 1 there stand for all replicas.
    """

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
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, Tensor | None, Tensor, None]:
        features, weights, finals = ctx.saved_tensors
        # Without a graph to make, the function that would make it is left out.
        run = _Backward.apply if torch.is_grad_enabled() else runner.backward
        wanted = ctx.needs_input_grad[1]
        by_features, by_weights = run(ctx.circuit, features, weights, finals, slopes[0], wanted)
        return None, _summed(by_features, features) if wanted else None, _summed(by_weights, weights), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        return _pushed(lambda f, w: _reference(ctx.circuit, f, w), ctx.saved_tensors, tangents[1:3]), None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, circuit: Circuit, features: Tensor, weights: Tensor, keep: bool) -> Any:
        folded, shape = _folded(info.batch_size, in_dims[1:3], (features, 2), (weights, 1))
        outputs = _Forward.apply(circuit, *folded, keep)  # type: ignore[no-untyped-call]
        return tuple(t.reshape(*shape, *t.shape[1:]) for t in outputs), (0, 0)


class _Backward(torch.autograd.Function):
    """Derivatives of ``sum(slopes * values)`` by the features (if they are wanted) and weights of each replica."""

    @staticmethod
    def forward(
        circuit: Circuit, features: Tensor, weights: Tensor, finals: Tensor, slopes: Tensor, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        return runner.backward(circuit, features, weights, finals, slopes, wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.circuit, features, weights, _, slopes, ctx.wanted = inputs
        ctx.save_for_backward(features, weights, slopes)
        ctx.save_for_forward(features, weights, slopes)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, Tensor, Tensor, None, Tensor, None]:
        _, pull = _vjp(_slopes_function(ctx), *ctx.saved_tensors)
        features, weights, slopes = pull(cotangents)
        return None, features, weights, None, slopes, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
        chosen = (tangents[1], tangents[2], tangents[4])
        found: tuple[Tensor, Tensor] = _pushed(_slopes_function(ctx), ctx.saved_tensors, chosen)
        return found

    @staticmethod
    def vmap(info: Any, in_dims: Dims, circuit: Circuit, *inputs: Any) -> Any:
        *tensors, wanted = inputs
        folded, shape = _folded(info.batch_size, in_dims[1:5], *zip(tensors, (2, 1, 3, 2), strict=True))
        outputs = _Backward.apply(circuit, *folded, wanted)  # type: ignore[no-untyped-call]
        return tuple(t.reshape(*shape, *t.shape[1:]) for t in outputs), (0, 0)


for _forward in (_Forward.forward, _Backward.forward):  # kept, or PyTorch reads it off the function at every call
    vars(_forward)["__signature__"] = inspect.signature(_forward)


def _reference(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """The values of `_Forward` by the reference engine."""
    if weights.dim() == 1:
        return torch_engine.expectations(circuit, features, weights)
    replicas = max(len(features), len(weights))
    pairs = zip(features.expand(replicas, -1, -1), weights.expand(replicas, -1), strict=True)
    return torch.stack([torch_engine.expectations(circuit, *pair) for pair in pairs])


def _slopes_function(ctx: Any) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What a `_Backward` computes of features, weights and slopes, by the reference engine."""
    circuit, wanted = ctx.circuit, ctx.wanted

    def slopes_of(features: Tensor, weights: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        if weights.dim() == 2:
            features, weights = features.expand(len(slopes), -1, -1), weights.expand(len(slopes), -1)
        _, pull = _vjp(lambda f, w: _reference(circuit, f, w), features, weights)
        by_features, by_weights = pull(slopes)
        return by_features if wanted else by_features[..., :0, :], by_weights

    return slopes_of


def _folded(size: int, dims: Dims, *inputs: tuple[Tensor, int]) -> tuple[list[Tensor], tuple[int, ...]]:
    """Tensors with the mapped axis folded into the replicas, and the shape that unfolds replicas again.

    Each comes with its number of axes where there are no replicas. What is mapped over nowhere, and stands for all
    replicas, stays as it is and stands for all of them.
    """
    moved = [t if dim is None else t.movedim(dim, 0) for (t, _), dim in zip(inputs, dims, strict=True)]
    (first, axes), dim = inputs[0], dims[0]
    plain = first.dim() - (dim is not None) == axes
    if plain:
        moved = [t.unsqueeze(0 if dim is None else 1) for t, dim in zip(moved, dims, strict=True)]
    inner = max(t.shape[0 if dim is None else 1] for t, dim in zip(moved, dims, strict=True))
    folded = []
    for tensor, dim in zip(moved, dims, strict=True):
        rest = tensor.shape[1:] if dim is None else tensor.shape[2:]
        alone = dim is None and len(tensor) == 1
        folded.append(tensor if alone else tensor.expand(size, inner, *rest).reshape(size * inner, *rest))
    return folded, (size,) if plain else (size, inner)


def _summed(slopes: Tensor, like: Tensor) -> Tensor:
    """Derivatives of each replica, added up where one input stands for all."""
    return slopes if slopes.shape == like.shape else slopes.sum(0, keepdim=True)


def _pushed(function: Callable[..., Any], primals: tuple[Tensor, ...], tangents: tuple[Tensor | None, ...]) -> Any:
    """The tangent of a function's outputs; a missing tangent is zero.

    By two passes of reverse mode (the pullback is linear, and its pullback is the pushforward), because forward mode
    does not nest.
    """
    check_one_forward_mode("engine 'fused'", ", or engine='torch'")
    given = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True))
    outputs, _ = _vjp(function, *primals)
    zeros = tree_map(torch.zeros_like, outputs)
    _, push = _vjp(lambda slopes: _vjp(function, *primals)[1](slopes), zeros)
    (tangent,) = push(given)
    return tangent


def _vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """`torch.func.vjp` of a function without auxiliary output."""
    outputs, pull, *_ = torch.func.vjp(function, *primals)
    return outputs, pull
