"""Models and losses that the tests of training share."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.models import HybridClassifier
from qunlearn.quantum import load_circuit
from qunlearn.training.net import Net


def norm_model(dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    """Linear-BatchNorm-ReLU-Dropout-Linear, 4 inputs, 3 classes, float64; running statistics away from 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))
        model = nn.Sequential(*layers).double()
        model(torch.randn(16, 4, dtype=torch.float64))
    return model


def deep_hybrid(seed: int = 0) -> HybridClassifier:
    """A circuit of 3 wires under the deep head, which has batch norm and dropout."""
    circuit = load_circuit("ring-cz", qubits=3, depth=1)
    generator = torch.Generator().manual_seed(seed)
    return HybridClassifier(circuit, 3, head="deep", dtype=torch.float64, generator=generator)


def samples(number: int = 8, features: int = 4, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Normal inputs ``(number, features)`` in float64 and labels of 3 classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, features, generator=generator, dtype=torch.float64), torch.arange(number) % 3


def entropy_of(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy."""
    return cross_entropy(net(x), y)


def twin(module: nn.Module) -> nn.Module:
    """A deep copy whose submodules are in the same modes."""
    return copy.deepcopy(module)
