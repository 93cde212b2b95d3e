"""Where a model's circuits run: copies of it on backends, with shots, under noise."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy as np
from torch import nn

from qunlearn.errors import InputError
from qunlearn.quantum.backends import find_backend
from qunlearn.quantum.layer import QuantumLayer

Model = TypeVar("Model", bound=nn.Module)


def with_backend(
    model: Model,
    backend: Any = None,
    *,
    shots: int | None = None,
    noise: Any = None,
    gradient: str = "parameter-shift",
    seed: int = 0,
) -> Model:
    """A copy of a model whose circuits run elsewhere; the model itself stays as it is.

    The copy has the type, weights and recipe of the model, and can be trained, unlearned and evaluated like it. What it
    is saved as, says nothing of where it ran. Without arguments the copy runs as the model was made to.

    >>> import torch
    >>> import qunlearn as qu
    >>> model = qu.HybridClassifier(qu.load_circuit("ring-cz", qubits=2), classes=2)
    >>> qu.with_backend(model, "lightning.qubit", shots=100)(torch.zeros(3, 2)).shape
    torch.Size([3, 2])

    Args:
        model: any module with at least one `QuantumLayer` in it.
        backend: a name such as ``"lightning.qubit"``, ``"aer"``, ``"fake_torino"``, or a `Backend`, see
            `qunlearn.backends.find_backend`; None for this machine's engines.
        shots: measurements of each circuit; None for exact values.
        noise: a `NoiseModel`, a table such as ``{"depolarizing": 0.01}``, or the name of a fake device, whose
            calibration is the noise; None for the circuits as they are.
        gradient: of a backend or of shots: "parameter-shift", "spsa" or "device".
        seed: of all that is drawn.

    Raises:
        InputError: for a model without a circuit, or a backend that cannot be had.
    """
    copied = copy.deepcopy(model)
    layers = [part for part in copied.modules() if isinstance(part, QuantumLayer)]
    if not layers:
        raise InputError(f"expected a model with a QuantumLayer, got {type(model).__name__} without one")
    if isinstance(backend, str):  # one place for all of its circuits
        backend, shots = find_backend(backend, shots=shots, gradient=gradient, seed=seed), None
    seeds = [seed, *np.random.SeedSequence(seed).generate_state(len(layers) - 1).tolist()]
    for layer, own in zip(layers, seeds, strict=True):
        layer.run_on(backend, shots=shots, noise=noise, gradient=gradient, seed=own)
    return copied
