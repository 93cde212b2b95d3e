"""What a circuit is like: its drawing, its size, what reaches nothing, how expressive and entangling it is."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass

import torch

from qunlearn.errors import InputError
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.convert.amplitude import rotation_tree, tree_angles
from qunlearn.quantum.drawing import draw
from qunlearn.quantum.engines import state
from qunlearn.quantum.gates import GATES
from qunlearn.quantum.liveness import dead_weights
from qunlearn.quantum.states import fidelity, meyer_wallach

__all__ = [
    "Description",
    "dead_weights",
    "describe",
    "draw",
    "entangling_capability",
    "expressibility",
    "haar_masses",
    "shift_circuits",
]


@dataclass(frozen=True)
class Description:
    """Counts of a circuit's gates, without the preparation of an amplitude-encoded state.

    Attributes:
        qubits: number of wires.
        features: how many scalars a sample has.
        weights: how many scalars are trained.
        gates: (name, how often), most frequent first.
        depth: gates on the longest path.
        two_qubit_gates: gates on two wires.
        two_qubit_depth: two-qubit gates on the longest path.
        dead_weights: indices of the weights that no observable depends on.
        weight_shifts: circuits a sample's gradient by the shift rule needs, for the weights alone.
        all_shifts: the same for weights and features.
    """

    qubits: int
    features: int
    weights: int
    gates: tuple[tuple[str, int], ...]
    depth: int
    two_qubit_gates: int
    two_qubit_depth: int
    dead_weights: tuple[int, ...]
    weight_shifts: int
    all_shifts: int

    def shift_circuits(self, features: bool = False) -> int:
        """Circuits that one sample's gradient needs by the shift rule, for weights (and features)."""
        return self.all_shifts if features else self.weight_shifts


def describe(circuit: Circuit) -> Description:
    """The counts of a circuit, from its gates alone."""
    return Description(
        qubits=circuit.qubits,
        features=circuit.features,
        weights=circuit.weights,
        gates=tuple(Counter(gate.name for gate in circuit.gates).most_common()),
        depth=_depth(circuit, smallest=1),
        two_qubit_gates=sum(len(gate.wires) == 2 for gate in circuit.gates),
        two_qubit_depth=_depth(circuit, smallest=2),
        dead_weights=dead_weights(circuit),
        weight_shifts=shift_circuits(circuit),
        all_shifts=shift_circuits(circuit, features=True),
    )


def _depth(circuit: Circuit, smallest: int) -> int:
    """Longest path, counting gates on at least `smallest` wires."""
    reached = [0] * circuit.qubits
    for gate in circuit.gates:
        level = max(reached[wire] for wire in gate.wires) + (len(gate.wires) >= smallest)
        for wire in gate.wires:
            reached[wire] = level
    return max(reached)


def shift_circuits(circuit: Circuit, features: bool = False) -> int:
    """How many circuits a gradient of one sample needs by the parameter-shift rule.

    Every gate with a weight is shifted on its own (a weight used twice is shifted twice), by as many terms as
    its rule has; with `features`, so is every gate with a feature, once where it has both. An amplitude-encoded
    state is then counted as its rotation tree, with two terms for each of its ``2**qubits - 1`` angles.
    """
    total = 2 * (2**circuit.qubits - 1) if features and circuit.amplitude else 0
    for gate in circuit.gates:
        if gate.angle is not None and (gate.angle.weight is not None or (features and gate.angle.factors)):
            total += len(GATES[gate.name].shift_rule)
    return total


def expressibility(
    circuit: Circuit,
    pairs: int = 5000,
    bins: int = 75,
    generator: torch.Generator | None = None,
    features: torch.Tensor | None = None,
) -> float:
    """How far the states of random weights are from Haar-random ones: 0 is as expressive as can be.

    Expr = D_KL(P_circuit(F) || P_Haar(F)) in nats, F = |<psi(a)|psi(b)>|^2 over independent weights a, b,
    uniform in [0, 2 pi), in `bins` equal bins of [0, 1]. The estimate is biased upwards by about
    bins / (2 pairs): 0.005 at the standard setting says "as Haar" at most.

    Args:
        circuit: the circuit.
        pairs: pairs of random weights.
        bins: bins of the histogram.
        generator: where the weights come from; None is a generator seeded 0.
        features: ``(features,)``, the sample at which the states are taken, radians; None is zeros, which
            amplitude encoding refuses.

    Source: Sim, Johnson & Aspuru-Guzik 2019, arXiv 1905.10876, equation 9.
    """
    states = _random_states(circuit, 2 * pairs, generator, features)
    overlaps = fidelity(states[:pairs], states[pairs:]).clamp(0, 1)
    places = (overlaps * bins).floor().clamp(max=bins - 1).long()
    share = torch.bincount(places, minlength=bins).to(torch.float64) / pairs
    masses = haar_masses(circuit.qubits, bins)
    filled = share > 0
    return float((share[filled] * (share[filled].log() - masses[filled])).sum())


def haar_masses(qubits: int, bins: int) -> torch.Tensor:
    """The logarithms ``(bins,)`` of the Haar probabilities that a fidelity falls into each bin, float64.

    The mass of [a, b] is (1-a)^(N-1) - (1-b)^(N-1), N = 2^n. It is taken in logarithms, from the survival terms
    (1-a)^(N-1) (1 - ((1-b)/(1-a))^(N-1)): as a difference of the cumulative distribution it would underflow.
    """
    power = 2**qubits - 1
    left = 1 - torch.arange(bins, dtype=torch.float64) / bins
    ratio = 1 - 1 / torch.arange(bins, 0, -1, dtype=torch.float64)  # (1-b)/(1-a), with 0 in the last bin
    masses: torch.Tensor = power * left.log() + torch.log1p(-(ratio**power))
    return masses


def entangling_capability(
    circuit: Circuit,
    samples: int = 5000,
    generator: torch.Generator | None = None,
    features: torch.Tensor | None = None,
) -> float:
    """The mean Meyer-Wallach measure Q of the states of random weights: 0 for products, at most 1.

    Q = 2 (1 - (1/n) sum_k Tr rho_k^2), weights uniform in [0, 2 pi). Arguments as in `expressibility`.
    Source: Sim, Johnson & Aspuru-Guzik 2019, arXiv 1905.10876; Meyer & Wallach 2002, quant-ph/0108104.
    """
    return float(meyer_wallach(_random_states(circuit, samples, generator, features)).mean())


def _random_states(
    circuit: Circuit, count: int, generator: torch.Generator | None, features: torch.Tensor | None
) -> torch.Tensor:
    """States ``(count, 2, ..., 2)`` of uniform weights, complex128."""
    if count < 1:
        raise InputError(f"expected at least one sample, got {count}")
    generator = generator or torch.Generator().manual_seed(0)
    weights = 2 * math.pi * torch.rand(count, circuit.weights, generator=generator, dtype=torch.float64)
    sample = torch.zeros(circuit.features) if features is None else torch.as_tensor(features)
    if circuit.amplitude:
        sample, circuit = tree_angles(circuit, sample), rotation_tree(circuit)
    rows = torch.cat([sample.to(torch.float64).expand(count, circuit.features), weights], dim=1)
    return state(_weights_as_features(circuit), rows, torch.empty(0, dtype=torch.float64))


def _weights_as_features(circuit: Circuit) -> Circuit:
    """The same circuit with weight j as feature ``features + j``: batches then run over weights."""

    def moved(gate: Gate) -> Gate:
        if gate.angle is None or gate.angle.weight is None:
            return gate
        factors = (*gate.angle.factors, Factor(circuit.features + gate.angle.weight))
        return dataclasses.replace(gate, angle=Angle(gate.angle.scale, factors, None, gate.angle.offset))

    gates = tuple(moved(gate) for gate in circuit.gates)
    return dataclasses.replace(circuit, gates=gates, features=circuit.features + circuit.weights, weights=0)
