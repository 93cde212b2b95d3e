"""Engines run a circuit on this machine and differentiate it; `ENGINES` has their names.

``"torch"`` is the reference: any device, any order of derivative. ``"fused"`` is a compiled kernel for the CPU. Noisy
circuits take ``"density"``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from qunlearn.errors import UnknownNameError, UnsupportedError
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.engines import torch_engine
from qunlearn.quantum.engines.torch_engine import state

__all__ = ["ENGINES", "Engine", "expectations", "find_engine", "state"]

Engine = Callable[[Circuit, Tensor, Tensor], Tensor]


def _torch(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """The reference: PyTorch operations on any device, with derivatives of any order."""
    return torch_engine.expectations(circuit, features, weights)


def _fused(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """A compiled kernel for the CPU, many times faster than the reference."""
    from qunlearn.quantum.engines import fused  # Numba takes half a second to import

    return fused.expectations(circuit, features, weights)


def _density(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """Noisy circuits exactly, by PyTorch operations on density matrices."""
    from qunlearn.quantum.engines import density

    return density.expectations(circuit, features, weights)


def _auto(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    if circuit.noisy:
        _check_size(circuit)
        return _density(circuit, features, weights)
    on_cpu = features.device.type == "cpu" == weights.device.type
    return (_fused if on_cpu else _torch)(circuit, features, weights)


def _check_size(circuit: Circuit) -> None:
    from qunlearn.quantum.engines import density

    if circuit.qubits > density.QUBITS:
        raise UnsupportedError(
            f"expected at most {density.QUBITS} qubits for a noisy circuit, got {circuit.qubits}: density matrices "
            'grow with 4**qubits; take quantum trajectories (backend="simulator"), or engine="density" if you have the '
            "memory and the time"
        )


ENGINES: dict[str, Engine] = {"torch": _torch, "fused": _fused, "density": _density}


def find_engine(name: str) -> Engine:
    """The function (circuit, features, weights) -> expectations of an engine.

    "auto" takes the density engine for noisy circuits, the fused engine for tensors on the CPU, and the torch engine
    for all others.
    """
    if name == "auto":
        return _auto
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ("auto", *ENGINES))
    return ENGINES[name]


def expectations(circuit: Circuit, features: Tensor, weights: Tensor, engine: str = "auto") -> Tensor:
    """Expectation values ``(..., observables)`` for features ``(..., features)`` and weights ``(weights,)``."""
    return find_engine(engine)(circuit, features, weights)
