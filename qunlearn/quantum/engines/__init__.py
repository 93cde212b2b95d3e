"""Engines run a circuit on this machine and differentiate it; `ENGINES` has them by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from qunlearn.errors import UnknownNameError
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.engines import torch_engine
from qunlearn.quantum.engines.torch_engine import state

__all__ = ["ENGINES", "Engine", "expectations", "find_engine", "state"]

Engine = Callable[[Circuit, Tensor, Tensor], Tensor]
ENGINES: dict[str, Engine] = {"torch": torch_engine.expectations}


def find_engine(name: str) -> Engine:
    """The function (circuit, features, weights) -> expectations of an engine; "auto" chooses."""
    if name == "auto":
        name = "torch"
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ("auto", *ENGINES))
    return ENGINES[name]


def expectations(circuit: Circuit, features: Tensor, weights: Tensor, engine: str = "auto") -> Tensor:
    """Expectation values ``(..., observables)`` for features ``(..., features)`` and weights ``(weights,)``."""
    return find_engine(engine)(circuit, features, weights)
