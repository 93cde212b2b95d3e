"""What the tests of backends share."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qunlearn.quantum.backends import Backend
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.engines import torch_engine

# Every wire turns by another angle, and the gates between them are no mirror images.
ASYMMETRIC = Circuit(
    3,
    (
        Gate("ry", (0,), Angle(factors=(Factor(0),))),
        Gate("ry", (1,), Angle(factors=(Factor(1),))),
        Gate("ry", (2,), Angle(factors=(Factor(2),))),
        Gate("crx", (0, 1), Angle(weight=0)),
        Gate("cx", (1, 2)),
        Gate("ry", (0,), Angle(weight=1)),
    ),
    ("ZII", "IZI", "IIZ", "XZI", "IYZ"),
    3,
    2,
)
POINT = (torch.tensor([[0.3, 1.1, 2.0]], dtype=torch.float64), torch.tensor([0.9, 0.4], dtype=torch.float64))


class Exact(Backend):
    """The reference engine, run as if it were elsewhere; it notes the rows of every call."""

    name = "exact"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rows: list[int] = []

    def run(self, circuit: Circuit, angles: NDArray[np.float64]) -> NDArray[np.float64]:
        self.rows.append(len(angles))
        assert circuit.weights == 0
        assert not circuit.amplitude
        values = torch_engine.expectations(circuit, torch.from_numpy(angles), torch.zeros(0, dtype=torch.float64))
        return np.asarray(values.numpy())


def swapped(values: Tensor, circuit: Circuit) -> list[Tensor]:
    """What the three Z values of the asymmetric circuit would be under every other order of wires."""
    orders = [list(order) for order in itertools.permutations(range(3)) if list(order) != [0, 1, 2]]
    return [torch.cat([values[..., order], values[..., 3:]], -1) for order in orders]


def both(circuit: Circuit, backend: Backend, features: Tensor, weights: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Values, and derivatives of a fixed mix of them by features and weights: of the backend, and of the reference."""
    found = []
    for run in (backend.expectations, torch_engine.expectations):
        x, w = features.clone().requires_grad_(), weights.clone().requires_grad_()
        values = run(circuit, x, w)
        mix = torch.linspace(0.5, 1.5, values.numel(), dtype=values.dtype).reshape(values.shape)
        slopes = torch.autograd.grad((values * mix).sum(), (x, w), allow_unused=True)
        filled = [torch.zeros_like(p) if s is None else s for p, s in zip((x, w), slopes, strict=True)]
        found.append([values.detach(), *filled])
    return found[0], found[1]


def worst(pairs: tuple[list[Tensor], list[Tensor]]) -> float:
    """The largest difference between two lists of tensors."""
    return max(float((a - b).abs().max()) if a.numel() else 0.0 for a, b in zip(*pairs, strict=True))
