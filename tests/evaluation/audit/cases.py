"""Small real models beside a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from qunlearn.data import Split
from qunlearn.errors import NumericalError
from qunlearn.evaluation.audit import Audit, Auditor
from qunlearn.models import PiTanh
from qunlearn.quantum import QuantumLayer, load_circuit
from qunlearn.training import Recipe
from qunlearn.training.train import Trained as Training
from qunlearn.training.train import fit_all, refit_all


@dataclass(frozen=True, eq=False)
class Trained:
    """A split with its models."""

    split: Split
    original: nn.Module
    retrained: list[nn.Module]

    @cached_property
    def auditor(self) -> Auditor:
        """An auditor beside all retrained models."""
        return Auditor(self.split, original=self.original, retrained=self.retrained)

    def audit(self, model: nn.Module, *families: str) -> Audit:
        """Some families of audits of a model."""
        return self.auditor(model, audits=families)


def hybrid(seed: int, qubits: int = 4, depth: int = 3) -> nn.Sequential:
    """Linear(64, qubits), pi tanh, a circuit that reads its features in every layer, Linear(qubits, 10)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        circuit = load_circuit("ring-cz", qubits=qubits, depth=depth, reupload=True)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, qubits), PiTanh(), QuantumLayer(circuit), nn.Linear(qubits, 10)
        )


def network(seed: int, features: int, classes: int, hidden: int = 64) -> nn.Sequential:
    """A norm and two layers."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.LayerNorm(features), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def trained(split: Split, model: nn.Module, recipe: Recipe, retrained: int) -> Trained:
    """The original, and retrained models with seeds of their own."""
    (original,) = _models(fit_all([model], split.train, None, recipe, seeds=[0]))
    found = refit_all([original] * retrained, split, seeds=range(100, 100 + retrained))
    return Trained(split, original, _models(found))


def _models(found: Sequence[Training | NumericalError]) -> list[nn.Module]:
    models = []
    for one in found:
        assert not isinstance(one, NumericalError)
        models.append(one.model)
    return models
