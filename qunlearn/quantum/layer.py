"""A circuit as a layer of a network."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from qunlearn.errors import InputError
from qunlearn.quantum import engines
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.gates import gate as gate_spec


class QuantumLayer(nn.Module):
    """A circuit with trainable weights, from features ``(batch, features)`` to ``(batch, observables)``.

    The layer is a pure function of features and weights, so ``torch.func.functional_call``, ``vmap``,
    ``jacrev``, ``hessian``, double backward, deepcopy and pickling all work. Forward mode inside forward mode takes
    ``engine="torch"``.

    Args:
        circuit: what to run.
        engine: what runs it: "fused" (a compiled kernel, CPU tensors only), "torch" (the reference, any device), or
            "auto": the first for tensors on the CPU, the second for all others.
        dtype: of the weights, float32 or float64; torch's default if None.
        generator: for the initial weights, uniform on [0, 2 pi); torch's global one if None.

    Attributes:
        weights: ``(weights,)``, radians, in program order.

    Raises:
        UnknownNameError: for an engine that does not exist.
    """

    weights: nn.Parameter

    def __init__(
        self,
        circuit: Circuit,
        engine: str = "auto",
        *,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        engines.find_engine(engine)
        self.circuit = circuit
        self.engine = engine
        self.weights = nn.Parameter(torch.empty(circuit.weights, dtype=dtype))
        self.reset_parameters(generator)

    @property
    def periods(self) -> Tensor:
        """The period of each weight, ``(weights,)`` in radians; see `weight_periods`."""
        return weight_periods(self.circuit).to(self.weights)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew, uniform on [0, 2 pi)."""
        device = self.weights.device if generator is None else generator.device
        drawn = torch.rand(self.weights.shape, dtype=self.weights.dtype, generator=generator, device=device)
        with torch.no_grad():
            self.weights.copy_(drawn * (2 * math.pi))

    def forward(self, x: Tensor | ArrayLike) -> Tensor:
        """Expectation values ``(batch, observables)`` of features ``(batch, features)``.

        One sample, ``(features,)``, gives ``(observables,)``. The result has the wider of the two types of
        features and weights.

        Raises:
            InputError: for features of another width.
        """
        return engines.expectations(self.circuit, self._check(x), self.weights, self.engine)

    def state(self, x: Tensor | ArrayLike) -> Tensor:
        """The final states, complex ``(batch, 2, ..., 2)``, axis i + 1 for wire i."""
        return engines.state(self.circuit, self._check(x), self.weights)

    def _check(self, x: Tensor | ArrayLike) -> Tensor:
        features = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x), device=self.weights.device)
        if features.dim() not in (1, 2) or features.shape[-1] != self.circuit.features:
            raise InputError(
                f"expected features of shape (batch, {self.circuit.features}), got {tuple(features.shape)}; "
                "reduce the features to that width, or load the circuit with more qubits"
            )
        return features

    def by_depth(self) -> dict[str, Tensor]:
        """Views of the weights: "start" (before the layers), "0", "1", ... (the layers), "end" (after them).

        Only the parts that own weights are there. The views share their memory with `weights`.
        """
        parts: dict[str, list[int]] = {}
        layered = False
        for gate in self.circuit.gates:
            if gate.angle is not None and gate.angle.weight is not None:
                layered = layered or gate.layer is not None
                outside = "end" if layered and gate.layer is None else "start"
                name = outside if gate.layer is None else str(gate.layer)
                if not any(gate.angle.weight in indices for indices in parts.values()):
                    parts.setdefault(name, []).append(gate.angle.weight)
        return {name: self.weights[_slice(sorted(indices))] for name, indices in parts.items()}

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        name = f"{self.circuit.card}, " if self.circuit.card else ""
        return (
            f"{name}qubits={self.circuit.qubits}, depth={self.circuit.depth}, features={self.circuit.features}, "
            f"weights={self.circuit.weights}, observables={len(self.circuit.observables)}, engine={self.engine!r}"
        )


def weight_periods(circuit: Circuit) -> Tensor:
    """The period of each weight in radians, ``(weights,)`` float64.

    The largest over the gates that use it, divided by |scale|: infinite where a feature multiplies the
    weight, 2 pi where no gate uses it.
    """
    periods = [0.0] * circuit.weights
    for gate in circuit.gates:
        if gate.angle is None or gate.angle.weight is None:
            continue
        period = gate_spec(gate.name).period
        assert period is not None
        free = bool(gate.angle.factors) or gate.angle.scale == 0
        found = math.inf if free else period / abs(gate.angle.scale)
        periods[gate.angle.weight] = max(periods[gate.angle.weight], found)
    return torch.tensor([period or 2 * math.pi for period in periods], dtype=torch.float64)


def _slice(indices: list[int]) -> slice | list[int]:
    """The indices as a slice (which gives a view) if they are consecutive."""
    return slice(indices[0], indices[-1] + 1) if indices[-1] - indices[0] == len(indices) - 1 else indices
