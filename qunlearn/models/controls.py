"""Controls: what a hybrid model is compared with to see what its circuit adds."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from qunlearn.errors import InputError
from qunlearn.quantum.circuit import Circuit


class ClassicalTwin(nn.Module):
    """A small classical network in the place of a circuit: same inputs, same outputs, as many weights.

    tanh((B tanh((A x + a) / sqrt(features + 1)) + b) / sqrt(hidden + 1)), so that outputs lie in [-1, 1] as
    expectation values do. The network has at least as many connections as the circuit has weights, and at
    least min(features, observables) hidden units. Its connections A, a, B, b read one flat vector of exactly
    ``circuit.weights`` scalars: the first ones in order, the rest share a weight with another connection up
    to a sign, by a fixed draw that depends on the sizes alone. So any circuit has a twin of its own weight
    count, also where it reads many features with few weights.

    Args:
        circuit: the circuit to stand in for.
        dtype: of the weights; None for torch's default.
        generator: for the initial weights, uniform on [-1, 1).

    Raises:
        InputError: for a circuit that has no weights or no features.

    Source: weight sharing by a fixed draw is Chen et al. 2015, arXiv 1504.04788 (hashed networks); as a
        control of a circuit it is our construction.
    """

    index: Tensor
    sign: Tensor

    def __init__(
        self, circuit: Circuit, *, dtype: torch.dtype | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if circuit.weights < 1 or circuit.features < 1:
            raise InputError(
                "expected a circuit with weights and features for a classical twin, "
                f"got {circuit.weights} weights and {circuit.features} features"
            )
        self.features, self.observables = circuit.features, len(circuit.observables)
        narrow = min(self.features, self.observables)
        self.hidden = max(narrow, math.ceil((circuit.weights - self.observables) / self._per_unit))
        index, sign = _sharing(self.connections, circuit.weights)
        self.register_buffer("index", torch.as_tensor(index), persistent=False)
        self.register_buffer("sign", torch.as_tensor(sign, dtype=dtype or torch.get_default_dtype()), persistent=False)
        self.weights = nn.Parameter(torch.empty(circuit.weights, dtype=dtype))
        self.reset_parameters(generator)

    @property
    def _per_unit(self) -> int:
        return self.features + 1 + self.observables

    @property
    def connections(self) -> int:
        """Entries of A, a, B and b together."""
        return self.hidden * self._per_unit + self.observables

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws every weight anew, uniform on [-1, 1)."""
        nn.init.uniform_(self.weights, -1.0, 1.0, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(batch, features)`` to values in [-1, 1], ``(batch, observables)``; or one sample, unbatched."""
        if x.dim() not in (1, 2) or x.shape[-1] != self.features:
            raise InputError(f"expected features of shape (batch, {self.features}), got {tuple(x.shape)}")
        entries = self.weights[self.index] * self.sign
        inner = self.hidden * (self.features + 1)
        first = entries[:inner].reshape(self.hidden, self.features + 1)
        second = entries[inner:].reshape(self.observables, self.hidden + 1)
        return _squashed(_squashed(x, first), second)

    def extra_repr(self) -> str:
        """The sizes, for printing."""
        return f"{self.features} -> {self.hidden} -> {self.observables}, weights={self.weights.numel()}"


def _squashed(x: Tensor, matrix: Tensor) -> Tensor:
    """One layer, tanh((W x + b) / sqrt(inputs + 1)), whose matrix ``(outputs, inputs + 1)`` ends with the bias."""
    return torch.tanh((x @ matrix[:, :-1].mT + matrix[:, -1]) / math.sqrt(matrix.shape[1]))


def _sharing(connections: int, weights: int) -> tuple[np.ndarray, np.ndarray]:
    """Which weight each connection reads, and with which sign, both ``(connections,)``.

    Every weight is read, and none is read more than once oftener than another.
    """
    random = np.random.default_rng((connections, weights))
    rounds = math.ceil(connections / weights)
    draws = [np.arange(weights), *(random.permutation(weights) for _ in range(rounds - 1))]
    index = np.concatenate(draws)[:connections]
    sign = np.where(np.arange(connections) < weights, 1, random.choice((-1, 1), connections))
    return index, sign
