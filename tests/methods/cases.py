"""Models and tasks that the method tests share."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.methods import GradientMethod, Method, Task, available, get
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


# What makes a method quick, beside few epochs.
QUICK: dict[str, dict[str, Any]] = {
    "sisa": {"shards": 2, "slices": 2},
    "natural-ascent": {"epochs": 2},
    "state-erasure": {"repair": 2},
    "channel-forgetting": {"epochs": 2, "wires": 1},
}
CLASSES_ONLY = frozenset({"unsir"})  # methods that serve requests to delete whole classes alone
# Their originals are made of a hybrid model's parts, or they edit a circuit.
HYBRID_ONLY = frozenset({"certified-removal", "kernel-downdate", "observable-edit", "sensitivity-noise"}) | {
    "angle-dampening", "channel-forgetting", "entangler-cut", "kernel-guided", "layer-reset", "natural-ascent",
    "state-erasure",
}  # fmt: skip
REUPLOADING = frozenset({"state-erasure"})  # methods that move what acts between two encodings


def quick(name: str, **settings: Any) -> Method:
    """The method, with few epochs where it has epochs."""
    if issubclass(available()[name], GradientMethod):
        settings.setdefault("epochs", 2)
    return get({"name": name, **QUICK.get(name, {}), **settings})


def task_for(name: str, **settings: Any) -> Task:
    """`make_task` with a request that the method serves."""
    return make_task(**({"forget_class": 1} if name in CLASSES_ONLY else {}), **settings)


def original_for(method: Method, model: nn.Module, task: Task) -> tuple[nn.Module, Task]:
    """What the method unlearns from: the model, or an original made of it by the method's own training."""
    if not method.trains:
        return model, task
    x, y, ids = (torch.cat([getattr(task.forget, k), getattr(task.retain, k)]) for k in ("x", "y", "ids"))
    recipe = dataclasses.replace(task.recipe or Recipe(), epochs=2)
    original: Any = method.train(model, Dataset(x, y, ids), validation=task.validation, recipe=recipe, seed=0)
    return original, dataclasses.replace(task, trace=original.trace)


def plain_model(seed: int = 0, classes: int = 3) -> nn.Sequential:
    """Linear-ReLU-Linear in float64, from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, classes)).double()


def hybrid_model(seed: int = 0, *, reupload: bool = False) -> HybridClassifier:
    """The shallow Iris model of Crivoi & Ionescu 2025 in float64; or with its angles encoded before every layer."""
    circuit = load_circuit("ring-cz", qubits=4, depth=2, reupload=reupload)
    generator = torch.Generator().manual_seed(seed)
    return HybridClassifier(circuit, 3, dtype=torch.float64, generator=generator)


def hybrid_for(name: str) -> HybridClassifier:
    """`hybrid_model` as the method needs it."""
    return hybrid_model(reupload=name in REUPLOADING)


class Ignoring(nn.Module):
    """Reads a second dictionary of its weights, as PennyLane's TorchLayer does."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(4, 3, dtype=torch.float64))
        self.second = {"w": self.w}

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.second["w"]
