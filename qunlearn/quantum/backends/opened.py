"""A circuit with its angles laid open: every gate that turns by features or weights turns by an angle of its own.

A backend runs rows of angles, so that one job holds samples, models with other weights, and shifted angles alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.convert.amplitude import rotation_tree, tree_angles
from qunlearn.quantum.engines.torch_engine import check_amplitudes
from qunlearn.quantum.gates import gate as gate_spec
from qunlearn.quantum.liveness import live_gates

Floats = NDArray[np.float64]
Rule = tuple[tuple[float, float], ...]  # (coefficient, shift) pairs
# An expectation value is quadratic in the amplitudes, so that a central difference is exact at any step.
_AMPLITUDE_RULE: Rule = ((0.5, 1.0), (-0.5, -1.0))


@dataclass(frozen=True, eq=False)
class Opened:
    """A circuit whose features are its K angles in radians, in the order of their gates, and that has no weights.

    Constant angles stay constants. Amplitude encoding has become its rotation tree, whose angles come first.

    Attributes:
        circuit: the opened circuit; observables, channels and readout errors are those of `source`.
        source: the circuit that was opened.
    """

    circuit: Circuit
    source: Circuit

    @cached_property
    def tree(self) -> int:
        """How many of the angles belong to the tree that prepares encoded amplitudes."""
        return 2**self.source.qubits - 1 if self.source.amplitude else 0

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The shift rule of each angle, ``K`` of them; () where no observable depends on it."""
        live = live_gates(self.source)
        gates = [(gate, alive) for gate, alive in zip(self.source.gates, live, strict=True) if _is_open(gate)]
        found = [gate_spec(gate.name).shift_rule if alive else () for gate, alive in gates]
        return (gate_spec("ry").shift_rule,) * self.tree + tuple(found)

    @cached_property
    def by_weight(self) -> tuple[int, ...]:
        """Positions of the angles that depend on weights."""
        return tuple(self.tree + k for k, angle in enumerate(self._open) if angle.weight is not None and angle.scale)

    @cached_property
    def by_feature(self) -> tuple[int, ...]:
        """Positions of the angles that depend on features."""
        found = [self.tree + k for k, angle in enumerate(self._open) if angle.factors and angle.scale]
        return (*range(self.tree), *found)

    def angles(self, features: Tensor, weights: Tensor) -> Tensor:
        """The angles ``(..., K)`` in radians, float64, of features ``(..., features)`` and weights ``(weights,)``.

        Differentiable; the angles of a tree only where no two amplitudes that it splits are both zero.
        """
        features, weights = features.to(torch.float64), weights.to(torch.float64)
        turned = self._turned(features, weights)
        if not self.tree:
            return turned
        split = tree_angles(self.source, features.reshape(-1, features.shape[-1]))
        return torch.cat([split.reshape(*features.shape[:-1], self.tree), turned], -1)

    @cached_property
    def _open(self) -> list[Angle]:
        return [gate.angle for gate in self.source.gates if gate.angle is not None and not gate.angle.constant]

    def _turned(self, features: Tensor, weights: Tensor) -> Tensor:
        """The angles after those of the tree, ``(..., K - tree)``."""
        value = _numbers([angle.scale for angle in self._open], features)
        if any(angle.weight is not None for angle in self._open):
            padded = torch.cat([weights, torch.ones_like(weights[:1])])  # the last stands for "no weight"
            value = value * padded.index_select(0, self._indices([angle.weight for angle in self._open], features))
        for place in range(max((len(angle.factors) for angle in self._open), default=0)):
            rows = [a.factors[place] if place < len(a.factors) else Factor(0, 0.0, 1.0) for a in self._open]
            chosen = features.index_select(-1, self._indices([row.feature for row in rows], features))
            sign, shift = ([getattr(row, name) for row in rows] for name in ("sign", "shift"))
            value = value * (chosen * _numbers(sign, features) + _numbers(shift, features))
        # Zeros that tie the angles to the batch, and to inputs that do not enter, so that gradients exist.
        tie = features[..., :0].sum(-1, keepdim=True) + weights[:0].sum()
        return value + _numbers([angle.offset for angle in self._open], features) + tie

    def _indices(self, found: Sequence[int | None], like: Tensor) -> Tensor:
        return torch.tensor([self.source.weights if i is None else i for i in found], device=like.device)

    # What a derivative is taken by. Without amplitude encoding these are the angles. The angles of a tree jump where
    # amplitudes pass through zero, as those of images do everywhere, so there the amplitudes themselves are shifted.

    @cached_property
    def shifted(self) -> tuple[Rule, ...]:
        """The shift rule of each coordinate, see `coordinates`; () where no observable depends on it."""
        amplitudes = self.source.features if self.tree else 0
        return (_AMPLITUDE_RULE,) * amplitudes + self.rules[self.tree :]

    def coordinates(self, features: Tensor, weights: Tensor) -> Tensor:
        """What derivatives are taken by, ``(..., C)``: normalised amplitudes, then all angles outside the tree."""
        features, weights = features.to(torch.float64), weights.to(torch.float64)
        turned = self._turned(features, weights)
        if not self.tree:
            return turned
        scaled = features / check_amplitudes(features)
        return torch.cat([scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True), turned], -1)

    def positions(self, *, features: bool, weights: bool) -> tuple[int, ...]:
        """The coordinates that depend on features, or on weights, or on both, and that reach an observable."""
        amplitudes = self.source.features if self.tree else 0
        angles = {*(self.by_feature if features else ()), *(self.by_weight if weights else ())}
        found = [*range(amplitudes)] if features else []
        found += [k - self.tree + amplitudes for k in sorted(angles) if k >= self.tree]
        return tuple(k for k in found if self.shifted[k])

    def rows(self, coordinates: Floats) -> tuple[Floats, Floats]:
        """Angles ``(rows, K)`` for coordinates ``(rows, C)``, and what their values must be multiplied by, ``(rows,)``.

        The factor is the squared norm of the amplitudes: then a value is quadratic in them off the sphere too.
        """
        if not self.tree:
            return coordinates, np.ones(len(coordinates))
        amplitudes, turned = np.split(coordinates, [self.source.features], axis=1)
        factors = np.square(amplitudes).sum(1)
        nothing = factors < 1e-24  # an amplitude of one, shifted to zero: its value counts nothing
        safe = np.where(nothing[:, None], 1.0, amplitudes)
        split = tree_angles(self.source, torch.from_numpy(safe)).numpy()
        return np.concatenate([split, turned], axis=1), np.where(nothing, 0.0, factors)


@lru_cache(maxsize=256)
def open_circuit(circuit: Circuit) -> Opened:
    """The circuit with its angles laid open.

    Raises:
        UnsupportedError: if features enter both the amplitudes and the angles of gates.
    """
    tree = rotation_tree(circuit)
    gates, angles = [], 0
    for gate in tree.gates:
        if _is_open(gate):
            gate = dataclasses.replace(gate, angle=Angle(factors=(Factor(angles),)))
            angles += 1
        gates.append(gate)
    opened = dataclasses.replace(tree, gates=tuple(gates), features=angles, weights=0, card="", depth=0, settings=())
    return Opened(opened, circuit)


def _is_open(gate: Gate) -> bool:
    return gate.angle is not None and not gate.angle.constant


def _numbers(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)
