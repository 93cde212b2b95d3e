"""Small bundles for the tests of plans and jobs, and devices of two topologies to run them on."""

from __future__ import annotations

from typing import Any

import torch

import qunlearn as qu
from qunlearn import hardware
from qunlearn.quantum.backends.device import cut_device, find_device

COUPLERS = ((0, 1), (1, 2), (2, 3))


def model(seed: int, *, qubits: int = 3, depth: int = 1, card: str = "ring-cz") -> qu.HybridClassifier:
    """A model of two classes with weights of its own."""
    circuit = qu.load_circuit(card, qubits=qubits, depth=depth)
    return qu.HybridClassifier(circuit, classes=2, generator=torch.Generator().manual_seed(seed))


def samples(count: int, features: int = 3, seed: int = 0) -> qu.Dataset:
    """Samples of two classes, whose ids begin at 100 times the seed."""
    x = torch.rand(count, features, generator=torch.Generator().manual_seed(seed)) * 3
    return qu.Dataset(x, [k % 2 for k in range(count)], ids=[100 * seed + k for k in range(count)])


def bundle(models: int = 2, **sets: int) -> hardware.Bundle:
    """Models m0, m1, ... of one structure, and sets of these sizes (not in the order of their names)."""
    sizes = sets or {"test": 4, "forget": 2}
    made = {name: samples(size, seed=number + 1) for number, (name, size) in enumerate(sizes.items())}
    return hardware.Bundle({f"m{k}": model(k) for k in range(models)}, made)


def line() -> Any:
    """Five qubits in a line."""
    return find_device("fake_manila")


def broken_cell() -> Any:
    """A cell of the heavy-hex lattice without one of its couplers: a line of 12 with two leaves."""
    cell = [0, 1, 2, 3, 5, 8, 11, 14, 13, 12, 10, 7, 4, 6]  # of a Falcon processor
    return cut_device(find_device("fake_hanoi"), cell, missing=[(10, 12)])


def exact(made: qu.HybridClassifier, data: qu.Dataset) -> torch.Tensor:
    """What the circuit gives without noise and shots, ``(samples, observables)``."""
    with torch.no_grad():
        found: torch.Tensor = made.eval().quantum(made.encoder(data.x.float()))
        return found.double()
