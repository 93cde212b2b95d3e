"""What is measured: a circuit at a point of the grid, with the same random inputs for every engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import qunlearn as qu

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, order=True)
class Point:
    """A size: qubits, layers, samples of a batch."""

    qubits: int
    depth: int
    batch: int

    def __str__(self) -> str:
        return f"{self.qubits} qubits, depth {self.depth}, batch {self.batch}"


@dataclass(frozen=True)
class Inputs:
    """Features ``(batch, features)`` and weights ``(weights,)`` in radians, a cotangent ``(batch, observables)``."""

    features: Array
    weights: Array
    cotangent: Array


def circuit_of(card: str, point: Point) -> qu.Circuit:
    """The circuit of a card at a point.

    Raises:
        QunlearnError: for a card that does not exist at this size, or whose samples do not enter by angles.
    """
    circuit = qu.load_circuit(card, qubits=point.qubits, depth=point.depth)
    if circuit.amplitude or not circuit.features:
        raise qu.QunlearnError(f"expected a card whose features are angles, got {card!r}")
    return circuit


def inputs_of(circuit: qu.Circuit, batch: int, seed: int = 0) -> Inputs:
    """Random inputs: features uniform on [0, pi), weights uniform on [0, 2 pi), a normal cotangent."""
    generator = np.random.default_rng([seed, batch])
    features = generator.uniform(0, np.pi, (batch, circuit.features))
    weights = generator.uniform(0, 2 * np.pi, circuit.weights)
    cotangent = generator.normal(size=(batch, len(circuit.observables)))
    return Inputs(*(array.astype(np.float32) for array in (features, weights, cotangent)))
