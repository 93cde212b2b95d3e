"""Replicas: several models of one architecture, trained at once."""

from __future__ import annotations

from torch import nn

from qunlearn.models import ClassicalTwin, DirectEncoder, HybridClassifier, PCAEncoder, PiTanh
from qunlearn.models.dropout import Dropout
from qunlearn.quantum.layer import QuantumLayer

# Modules that were measured to be faster for many models at once. Not so convolutions: one set of weights a replica
# takes 3.5 times as long as a replica at a time. Whatever is not here may hide anything, randomness included.
TOGETHER: frozenset[type[nn.Module]] = frozenset({
    nn.Sequential, HybridClassifier, DirectEncoder, PCAEncoder, PiTanh, QuantumLayer, ClassicalTwin,
    nn.Linear, nn.BatchNorm1d, nn.LayerNorm, Dropout, nn.Flatten, nn.Identity,
    nn.ReLU, nn.ELU, nn.GELU, nn.LeakyReLU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh,
})  # fmt: skip


def obstacle(model: nn.Module) -> str | None:
    """Why models like this are trained one by one, as part of a sentence; None where they are trained together."""
    for path, part in model.named_modules():
        where = f"in {path}" if path else "as the model"
        if isinstance(part, nn.modules.dropout._DropoutNd):
            return f"nn.{type(part).__name__} {where} draws from torch's global generator"
        if type(part) not in TOGETHER:
            return f"{type(part).__name__} {where} is not known to be faster for several models at once"
        if isinstance(part, nn.BatchNorm1d) and part.momentum is None:
            return f"BatchNorm1d {where} has no momentum"
    return None
