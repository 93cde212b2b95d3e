"""What methods that work inside a circuit share: which circuit, what enters it, what its metric costs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qunlearn.errors import InputError
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.fisher import Blocks, overlap_circuits, shifted_states
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.counting import Counts
from qunlearn.training.net import CHUNK, Net, evaluating


def one_circuit(model: nn.Module, method: str) -> tuple[str, QuantumLayer]:
    """The one circuit of a model: the parameter that holds its angles, and the layer.

    Raises:
        InputError: for a model without one, or with several.
    """
    found = [(path, part) for path, part in model.named_modules() if isinstance(part, QuantumLayer)]
    if len(found) != 1:
        got = f"{len(found)} circuits" if found else "none (a classical network, or a twin of a circuit)"
        raise InputError(f"expected a model with one circuit for {method}, got {got}; take a HybridClassifier")
    path, layer = found[0]
    return f"{path}.weights".lstrip("."), layer


def circuit_in(model: nn.Module, method: str) -> tuple[str, QuantumLayer]:
    """`one_circuit`, whose angles are trained.

    Raises:
        InputError: for a model without one, with several, or whose circuit is frozen or has no angles.
    """
    name, layer = one_circuit(model, method)
    if not layer.weights.requires_grad or not layer.circuit.weights:
        why = "no weights" if not layer.circuit.weights else "frozen weights"
        raise InputError(
            f"expected a circuit with trained weights for {method}, which moves them alone, got {why}; take a model "
            "without control='frozen', or a method that moves the head"
        )
    return name, layer


def entering(net: Net, x: Tensor) -> Tensor:
    """What samples ``(batch, ...)`` become before they enter the circuit, ``(batch, features)``.

    Differentiable, and counted as a forward of the net; neither the circuit nor what is behind it runs.

    Raises:
        InputError: for a model that does not call its circuit.
    """
    layer = next(part for part in net.module.modules() if isinstance(part, QuantumLayer))
    hook = layer.register_forward_pre_hook(_stop)
    try:
        net(x)
    except _StoppedError as stopped:
        return stopped.features
    finally:
        hook.remove()
    raise InputError("expected the circuit to run in the model's forward pass, got a model that does not call it")


@torch.no_grad()
def features_into(net: Net, x: Tensor) -> Tensor:
    """`entering`, in evaluation mode and without a derivative, for any number of samples; nothing is counted."""
    uncounted = net.at({})
    uncounted.counts = Counts()
    with evaluating(net.module):
        return torch.cat([entering(uncounted, part) for part in torch.split(x, CHUNK)])


def count_metric(counts: Counts, circuit: Circuit, samples: int, blocks: Blocks) -> None:
    """Counts the metric tensor of a circuit at so many samples.

    A derivative was taken through each, by as many runs forwards as there are shifted states, and one; a quantum
    computer takes overlaps, see `overlap_circuits`.
    """
    counts.gradient_evaluations += samples
    counts.circuit_evaluations += samples * (1 + shifted_states(circuit))
    counts.hardware_circuits += samples * overlap_circuits(circuit, blocks)


def count_states(counts: Counts, samples: int, settings: int = 1) -> None:
    """Counts so many runs forwards, which a quantum computer repeats for so many settings of its measurement."""
    counts.circuit_evaluations += samples
    counts.hardware_circuits += samples * settings


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
