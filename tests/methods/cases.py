"""Models and tasks that the method tests share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.methods import Task
from qunlearn.models import HybridClassifier
from qunlearn.quantum import load_circuit
from qunlearn.training import Recipe


def blobs(seed: int, number: int, classes: int = 3, features: int = 4, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    """Gaussian clusters in (0, pi), ``(number, features)`` and labels, float64."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(classes, features, generator=torch.Generator().manual_seed(7), dtype=torch.float64) * 2 + 0.5
    y = torch.arange(number) % classes
    noise = torch.randn(number, features, generator=generator, dtype=torch.float64)
    return centres[y] + spread * noise, y


def make_task(*, seed: int = 0, forget_class: int | None = None, retain: int = 30, forget: int = 6) -> Task:
    """Forget, retain and validation sets of clusters; the forget set is of one class, or a mix."""
    x, y = blobs(seed, retain + forget)
    data = Dataset(x, y)
    gone = y == forget_class if forget_class is not None else torch.arange(len(y)) >= retain
    validation = Dataset(*blobs(seed + 1, 18), ids=torch.arange(1000, 1018))
    recipe = Recipe(epochs=20, learning_rate=0.05, batch_size=64)
    return Task(
        data.select(gone.nonzero().flatten()), data.select((~gone).nonzero().flatten()), validation, recipe=recipe
    )


def plain_model(seed: int = 0, classes: int = 3) -> nn.Sequential:
    """Linear-ReLU-Linear in float64, from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, classes)).double()


def hybrid_model(seed: int = 0) -> HybridClassifier:
    """The shallow Iris model of Crivoi & Ionescu 2025 in float64."""
    circuit = load_circuit("ring-cz", qubits=4, depth=2)
    generator = torch.Generator().manual_seed(seed)
    return HybridClassifier(circuit, 3, dtype=torch.float64, generator=generator)


class Ignoring(nn.Module):
    """Reads a second dictionary of its weights, as PennyLane's TorchLayer does."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(4, 3, dtype=torch.float64))
        self.second = {"w": self.w}

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.second["w"]
