"""A model in two halves: what comes before its circuit runs when jobs are planned, what comes after when collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qunlearn.errors import InputError
from qunlearn.hardware.bundle import circuit_layer
from qunlearn.models import HybridClassifier
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.net import evaluating

BATCH = 1024  # samples in one call of a model


@torch.no_grad()
def features_of(model: nn.Module, x: Tensor, name: str = "model") -> Tensor:
    """What enters the circuit of a model, ``(samples, features)``, for samples ``(samples, ...)``.

    In evaluation mode; the circuit itself is not run.

    Raises:
        InputError: where not every sample goes through the circuit exactly once.
    """
    layer = circuit_layer(model, name)
    caught: list[Tensor] = []

    def catch(features: Tensor) -> Tensor:
        caught.append(features.detach().cpu())
        return features.new_zeros(*features.shape[:-1], len(layer.circuit.observables))

    with evaluating(model), _in_place_of(layer, catch):
        for part in torch.split(_like(model, x), BATCH):
            model(part)
    found = torch.cat(caught) if caught else torch.empty(0, layer.circuit.features)
    if tuple(found.shape) != (len(x), layer.circuit.features):
        raise InputError(
            f"expected every sample to go through the circuit of {name} once, {len(x)} rows of "
            f"{layer.circuit.features} features, got {tuple(found.shape)}"
        )
    return found


@torch.no_grad()
def logits_of(model: nn.Module, values: NDArray[np.float64], x: Tensor | None) -> NDArray[np.float64]:
    """The logits ``(samples, classes)`` of a model, in evaluation mode, whose circuit gave `values`.

    Args:
        model: as in `features_of`.
        values: expectation values ``(samples, observables)``.
        x: the samples ``(samples, ...)``; only a model that is not a `HybridClassifier` needs them.
    """
    given = torch.from_numpy(np.ascontiguousarray(values))
    with evaluating(model):
        if isinstance(model, HybridClassifier):
            return _array(model.head(_like(model, given)))
        if x is None:
            raise InputError("expected the samples of a model of your own, got none; plan again")
        layer, done = circuit_layer(model), 0

        def give(features: Tensor) -> Tensor:
            nonlocal done
            done += len(features)
            return given[done - len(features) : done].to(features)

        with _in_place_of(layer, give):
            return _array(torch.cat([model(part) for part in torch.split(_like(model, x), BATCH)]))


@contextmanager
def _in_place_of(layer: QuantumLayer, forward: Callable[[Any], Tensor]) -> Iterator[None]:
    """Another forward pass for a layer, for a while."""
    layer.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del layer.forward


def _like(model: nn.Module, x: Tensor) -> Tensor:
    """Samples on the model's device and, where they are real numbers, in its dtype."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    if first is None:
        return x
    return x.to(first.device, first.dtype if x.is_floating_point() else x.dtype)


def _array(logits: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = logits.double().cpu().numpy()
    return found
