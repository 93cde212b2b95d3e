"""Heads: what turns a circuit's expectation values into logits.

Each is a flat chain of layers whose linear ones are called fc1, fc2, ... Source of the first two:
Crivoi and Ionescu 2025, arXiv 2512.19253.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.models.dropout import Dropout

HEADS = ("shallow", "deep", "linear")


def shallow_head(observables: int, classes: int, hidden: int = 16) -> nn.Sequential:
    """Linear(observables, hidden)-ReLU-Linear(hidden, classes)."""
    return nn.Sequential(
        OrderedDict(fc1=nn.Linear(observables, hidden), act1=nn.ReLU(), fc2=nn.Linear(hidden, classes))
    )


def deep_head(observables: int, classes: int) -> nn.Sequential:
    """Linear(., 32)-BN-ELU-Linear(32, 32)-BN-ELU-Linear(32, 16)-ELU-Dropout(0.2)-Linear(16, classes)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        fc1=nn.Linear(observables, 32), norm1=nn.BatchNorm1d(32), act1=nn.ELU(),
        fc2=nn.Linear(32, 32), norm2=nn.BatchNorm1d(32), act2=nn.ELU(),
        fc3=nn.Linear(32, 16), act3=nn.ELU(), dropout=Dropout(0.2),
        fc4=nn.Linear(16, classes),
    )  # fmt: skip
    return nn.Sequential(layers)


def linear_head(observables: int, classes: int) -> nn.Sequential:
    """Linear(observables, classes)."""
    return nn.Sequential(OrderedDict(fc1=nn.Linear(observables, classes)))


def make_head(name: str, observables: int, classes: int, hidden: int | None) -> nn.Sequential:
    """The head of a name; `hidden` is the width of the shallow one's hidden layer, None for the others."""
    if name == "shallow":
        return shallow_head(observables, classes, 16 if hidden is None else hidden)
    if name not in HEADS:
        raise UnknownNameError("head", name, HEADS)
    if hidden is not None:
        raise InputError(f"expected hidden with head 'shallow' only, got hidden={hidden} with head {name!r}")
    return deep_head(observables, classes) if name == "deep" else linear_head(observables, classes)
