"""Counting what a method costs, in samples."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.gates import gate
from qunlearn.quantum.layer import QuantumLayer

INPUTS = "inputs"  # stands among parameter names for the samples themselves


@dataclass
class Counts:
    """What was spent.

    Attributes:
        gradient_evaluations: samples through which a derivative was taken.
        circuit_evaluations: samples run forwards through the model's circuits.
        hardware_circuits: circuits that a quantum computer would run for the same, derivatives by the
            parameter-shift rule of each gate.
        epochs: passes over the data that drive the method.
    """

    gradient_evaluations: int = 0
    circuit_evaluations: int = 0
    hardware_circuits: int = 0
    epochs: int = 0

    def add(self, other: Counts) -> None:
        """Adds what was spent elsewhere."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def shift_circuits(circuit: Circuit, *, features: bool, weights: bool) -> int:
    """Circuits that one sample's derivative takes by the shift rule, gate by gate (one for each occurrence).

    The features of an amplitude-encoded state count as its rotation tree: two terms for each of the
    ``2**qubits - 1`` angles.
    """
    total = 2 * (2**circuit.qubits - 1) if features and circuit.amplitude else 0
    for item in circuit.gates:
        angle = item.angle
        if angle and ((weights and angle.weight is not None) or (features and angle.factors)):
            total += len(gate(item.name).shift_rule)
    return total


class Price:
    """What one sample costs in a given module: known once, multiplied while counting."""

    def __init__(self, module: nn.Module) -> None:
        self._layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, QuantumLayer)]
        self._order = [name for name, _ in module.named_parameters()]
        self._known: dict[frozenset[str], int] = {}

    @property
    def circuits(self) -> int:
        """Circuits in one forward pass of one sample."""
        return len(self._layers)

    def shifts(self, differentiated: frozenset[str]) -> int:
        """Circuits for the derivative of one sample by the named parameters (or `INPUTS`).

        Features count where something before the circuit is differentiated: an input, or a parameter
        registered earlier.
        """
        if differentiated not in self._known:
            self._known[differentiated] = self._shifts(differentiated)
        return self._known[differentiated]

    def _shifts(self, differentiated: frozenset[str]) -> int:
        total = 0
        for name, layer in self._layers:
            weights = f"{name}.weights" if name else "weights"
            before = [INPUTS, *self._order[: self._order.index(weights)]] if weights in self._order else []
            features = any(parameter in differentiated for parameter in before)
            total += shift_circuits(layer.circuit, features=features, weights=weights in differentiated)
        return total
