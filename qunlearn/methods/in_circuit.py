"""What methods that work inside a circuit share: which circuit, what enters it, what its metric costs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from qunlearn.errors import InputError
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.fisher import Blocks, overlap_circuits, shifted_states
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.counting import Counts
from qunlearn.training.net import CHUNK, Net, evaluating


def circuit_in(model: nn.Module, method: str) -> tuple[str, QuantumLayer]:
    """The one circuit of a model whose angles are trained: the parameter that holds them, and the layer.

    Raises:
        InputError: for a model without one, with several, or whose circuit is frozen or has no angles.
    """
    found = [(path, part) for path, part in model.named_modules() if isinstance(part, QuantumLayer)]
    if len(found) != 1:
        got = f"{len(found)} circuits" if found else "none (a classical network, or a twin of a circuit)"
        raise InputError(f"expected a model with one circuit for {method}, got {got}; take a HybridClassifier")
    path, layer = found[0]
    if not layer.weights.requires_grad or not layer.circuit.weights:
        why = "no weights" if not layer.circuit.weights else "frozen weights"
        raise InputError(
            f"expected a circuit with trained weights for {method}, which moves them alone, got {why}; take a model "
            "without control='frozen', or a method that moves the head"
        )
    return f"{path}.weights".lstrip("."), layer


def features_into(net: Net, x: Tensor) -> Tensor:
    """What samples ``(n, ...)`` become before they enter the circuit, ``(n, features)``; no circuit runs."""
    module = net.module
    layer = next(part for part in module.modules() if isinstance(part, QuantumLayer))
    hook = layer.register_forward_pre_hook(_stop)
    tensors = {**net.parameters, **net.buffers}
    parts: list[Tensor] = []
    try:
        with torch.no_grad(), evaluating(module):
            for rows in torch.split(x, CHUNK):
                try:
                    functional_call(module, tensors, (rows,))
                except _StoppedError as stopped:
                    parts.append(stopped.features)
    finally:
        hook.remove()
    return torch.cat(parts)


def count_metric(counts: Counts, circuit: Circuit, samples: int, blocks: Blocks) -> None:
    """Counts the metric tensor of a circuit at so many samples.

    A derivative was taken through each, by as many runs forwards as there are shifted states, and one; a quantum
    computer takes overlaps, see `overlap_circuits`.
    """
    counts.gradient_evaluations += samples
    counts.circuit_evaluations += samples * (1 + shifted_states(circuit))
    counts.hardware_circuits += samples * overlap_circuits(circuit, blocks)


def count_states(counts: Counts, samples: int) -> None:
    """Counts so many runs forwards."""
    counts.circuit_evaluations += samples
    counts.hardware_circuits += samples


@contextmanager
def only_trained(model: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Inside, no other parameter requires a gradient."""
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name] and name in names)
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])


class _StoppedError(Exception):
    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def _stop(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    raise _StoppedError(inputs[0])
