"""A circuit as a layer of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from qunlearn.errors import InputError
from qunlearn.quantum import engines
from qunlearn.quantum.backends import Backend, find_backend
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.gates import gate as gate_spec
from qunlearn.quantum.noise import NoiseModel

TRAJECTORIES = "trajectories"
MOST_NOISY = 8  # qubits of a density matrix that "auto" takes; quantum trajectories above


class QuantumLayer(nn.Module):
    """A circuit with trainable weights, from features ``(batch, features)`` to ``(batch, observables)``.

    The layer is a pure function of features and weights, so ``torch.func.functional_call``, ``vmap``,
    ``jacrev``, ``hessian``, double backward, deepcopy and pickling all work. Forward mode inside forward mode takes
    ``engine="torch"``. On a backend a batch is one job, and what is drawn differs from call to call; copies of the
    layer share the backend.

    Args:
        circuit: what to run.
        engine: what runs it on this machine: "fused" (a compiled kernel, CPU tensors only), "torch" (the reference,
            any device), "density" (noisy circuits exactly), "trajectories" (noisy circuits by averaging runs), or
            "auto": "fused" for tensors on the CPU, "torch" for all others, for noisy circuits "density" up to 8 qubits
            and "trajectories" above.
        backend: what runs it elsewhere instead: a name such as "lightning.qubit", "aer" or "fake_torino", or a
            `Backend`; see `find_backend`. None for the engine.
        shots: measurements of each circuit, for honest shot noise; None for exact values. Without a backend it is
            our own simulator that draws them.
        gradient: of a backend or of shots: "parameter-shift", "spsa" or "device"; see `Backend`.
        seed: of all that a backend or shots draw.
        dtype: of the weights, float32 or float64; torch's default if None.
        generator: for the initial weights, uniform on [0, 2 pi); torch's global one if None.

    Attributes:
        weights: ``(weights,)``, radians, in program order.
        backend: the `Backend`, or None where an engine runs the circuit.

    Raises:
        UnknownNameError: for an engine or a backend that does not exist.
        InputError: for a backend that cannot be had, with what to do.
    """

    weights: nn.Parameter
    backend: Backend | None

    def __init__(
        self,
        circuit: Circuit,
        engine: str = "auto",
        *,
        backend: Any = None,
        shots: int | None = None,
        gradient: str = "parameter-shift",
        seed: int = 0,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if engine != TRAJECTORIES:
            engines.find_engine(engine)
        self.circuit = self._home = circuit
        self.engine = engine
        self.run_on(backend, shots=shots, gradient=gradient, seed=seed)
        self.weights = nn.Parameter(torch.empty(circuit.weights, dtype=dtype))
        self.reset_parameters(generator)

    def run_on(
        self,
        backend: Any = None,
        *,
        shots: int | None = None,
        noise: Any = None,
        gradient: str = "parameter-shift",
        seed: int = 0,
    ) -> None:
        """Runs the circuit elsewhere from now on; without arguments, where and as it was made to run at first.

        Args:
            backend: as for the layer itself.
            shots: as for the layer itself.
            noise: a `NoiseModel` or a table that it reads, in place of any noise that the circuit had; or the name of a
                fake device, whose calibration is the noise; None for the circuit as it is.
            gradient: as for the layer itself.
            seed: as for the layer itself.

        Raises:
            InputError: for a backend or a noise that cannot be had.
        """
        own = self._home.with_noise(noise) if noise is not None and _is_model(noise) else self._home
        options: dict[str, Any] = {"shots": shots, "gradient": gradient, "seed": seed}
        found: Backend | None = None
        if isinstance(backend, Backend):
            found = find_backend(backend, shots=shots)
        elif backend is not None:
            found = find_backend(backend, **options)
        elif shots is not None or gradient != "parameter-shift" or self._draws(own):
            found = find_backend("simulator", **options, engine=self.engine)
        if noise is not None and not _is_model(noise):
            from qunlearn.quantum.backends.calibrated import Calibrated

            found = Calibrated(noise, found, seed=seed)
        self.circuit, self.backend = own, found

    def _draws(self, circuit: Circuit) -> bool:
        """Whether the engine runs the circuit by quantum trajectories."""
        return self.engine == TRAJECTORIES or (self.engine == "auto" and circuit.noisy and circuit.qubits > MOST_NOISY)

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
        if self.backend is not None:
            return self.backend.expectations(self.circuit, self._check(x), self.weights)
        return engines.expectations(self.circuit, self._check(x), self.weights, self.engine)

    def state(self, x: Tensor | ArrayLike) -> Tensor:
        """The final states, complex ``(batch, 2, ..., 2)``, axis i + 1 for wire i."""
        return engines.state(self.circuit, self._check(x), self.weights)

    def density_matrix(self, x: Tensor | ArrayLike) -> Tensor:
        """The final states with the circuit's noise, complex ``(batch, 2**qubits, 2**qubits)``; wire 0 comes first.

        Readout errors, which strike what is read and not the state, are left out, and a backend is not asked.

        Raises:
            InputError: for features of another width, or states that do not fit into memory.
        """
        from qunlearn.quantum.engines import density

        return density.density_matrices(self.circuit, self._check(x), self.weights)

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
        parts = weights_by_depth(self.circuit).items()
        return {name: self.weights[_slice(indices)] for name, indices in parts}

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        name = f"{self.circuit.card}, " if self.circuit.card else ""
        place = f"engine={self.engine!r}" if self.backend is None else f"backend={self.backend!r}"
        noise = ", noisy" if self.circuit.noisy else ""
        return (
            f"{name}qubits={self.circuit.qubits}, depth={self.circuit.depth}, features={self.circuit.features}, "
            f"weights={self.circuit.weights}, observables={len(self.circuit.observables)}{noise}, {place}"
        )


def _is_model(noise: Any) -> bool:
    """Whether it says itself what strikes, and is not a device that was calibrated."""
    return isinstance(noise, (Mapping, NoiseModel))


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


def weights_by_depth(circuit: Circuit) -> dict[str, list[int]]:
    """The weights, by index, of "start", of each layer "0", "1", ..., and of "end"; see `QuantumLayer.by_depth`.

    A weight that turns gates in several parts belongs to the first.
    """
    parts: dict[str, list[int]] = {}
    layered, seen = False, set()
    for gate in circuit.gates:
        if gate.angle is not None and gate.angle.weight is not None:
            layered = layered or gate.layer is not None
            outside = "end" if layered and gate.layer is None else "start"
            name = outside if gate.layer is None else str(gate.layer)
            if gate.angle.weight not in seen:
                seen.add(gate.angle.weight)
                parts.setdefault(name, []).append(gate.angle.weight)
    return {name: sorted(indices) for name, indices in parts.items()}


def _slice(indices: list[int]) -> slice | list[int]:
    """The indices as a slice (which gives a view) if they are consecutive."""
    return slice(indices[0], indices[-1] + 1) if indices[-1] - indices[0] == len(indices) - 1 else indices
