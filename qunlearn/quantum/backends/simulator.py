"""Our own engines as a backend: with shots, and with quantum trajectories where noise meets many qubits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum import engines
from qunlearn.quantum.backends.base import Backend
from qunlearn.quantum.backends.opened import Floats
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.engines import torch_engine
from qunlearn.quantum.sampling import apply_readout, basis_gates, measurement_bases, sample_counts, values_of_counts

ENGINES = ("auto", "torch", "fused", "density", "trajectories")


class Simulator(Backend):
    """Circuits on this machine, with the noise of their channels, their readout errors, and shots.

    With `shots`, the outcomes of every circuit and basis are drawn from its exact probabilities, a multinomial
    distribution, and gradients come from shifted circuits with shots of their own. Without, values are those of the
    engine and gradients its own. Noisy circuits are run as density matrices up to 8 qubits, above by quantum
    trajectories, which are drawn anew in every call: values and gradients are then unbiased estimates.

    Args:
        shots: measurements of each circuit in each basis; None for no shot noise.
        gradient: "parameter-shift" (without shots: by the engine, which gives the same) or "spsa"; see `Backend`.
        seed: of all shots and trajectories; every job draws from a child seed of its own.
        engine: "auto", or "density" or "trajectories" for noisy circuits of any size, "torch" or "fused" for what runs
            circuits without noise, and trajectories.
        trajectories: runs averaged for each circuit, 1 or more; given, noisy circuits of any size are run so. None for
            100 where they are needed.
        **options: `repetitions` and `step` of SPSA; see `Backend`.

    Raises:
        UnknownNameError: for an engine that does not exist.
        InputError: for an option out of range.
    """

    name = "simulator"

    def __init__(
        self,
        *,
        shots: int | None = None,
        gradient: str = "parameter-shift",
        seed: int = 0,
        engine: str = "auto",
        trajectories: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(shots=shots, gradient=gradient, seed=seed, **options)
        if engine not in ENGINES:
            raise UnknownNameError("engine", engine, ENGINES)
        if trajectories is not None and (engine == "density" or trajectories < 1):
            raise InputError(
                f"expected at least 1 trajectory, and an engine other than 'density', got trajectories={trajectories} "
                f"with engine={engine!r}"
            )
        self.engine, self.trajectories = engine, trajectories

    def expectations(self, circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
        """Expectation values ``(..., observables)`` of features ``(..., features)`` and weights ``(weights,)``.

        Differentiable by both; with shots as in `Backend.expectations`, without by the engine.
        """
        if self.shots is not None or self.gradient == "spsa":
            return super().expectations(circuit, features, weights)
        rows = features.shape[:-1].numel()
        self.spent.jobs += 1
        self.spent.circuits += rows
        self.spent.executions += rows * (self._runs if self._draws(circuit) else 1)
        return self._values(circuit, features, weights)

    def run(self, circuit: Circuit, angles: Floats) -> Floats:
        """The values ``(rows, observables)`` of an opened circuit at angles ``(rows, K)`` in radians: one job."""
        rows, nothing = torch.from_numpy(np.ascontiguousarray(angles)), torch.zeros(0, dtype=torch.float64)
        with torch.no_grad():
            if self.shots is None:
                exact: Floats = self._values(circuit, rows, nothing).numpy()
                return exact
            parts = rows.split(self._at_once(circuit))  # type: ignore[no-untyped-call]
            generator = np.random.default_rng(self.child_seed())
            return np.concatenate([self._sampled(circuit, part, nothing, generator) for part in parts])

    def _sampled(self, circuit: Circuit, rows: Tensor, weights: Tensor, generator: np.random.Generator) -> Floats:
        """Values from shots, basis by basis."""
        assert self.shots is not None
        values = np.empty((len(rows), len(circuit.observables)))
        for basis in measurement_bases(circuit.observables):
            words = tuple(circuit.observables[k] for k in basis.observables)
            turned = replace(circuit, gates=circuit.gates + basis_gates(basis), observables=words)
            shares = self._probabilities(turned, rows, weights, generator)
            weight = shares.sum(1, keepdims=True)  # 1, or the mean weight of trajectories: without it, there is a bias
            counts = sample_counts(shares / weight, self.shots, generator)
            values[:, basis.observables] = values_of_counts(counts, words) * weight
        return values

    def _values(self, circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
        """Values without shots, differentiable."""
        if self._draws(circuit) or (circuit.readout and not circuit.channels):
            from qunlearn.quantum.engines import trajectories

            generator = np.random.default_rng(self.child_seed())
            return trajectories.expectations(
                circuit,
                features,
                weights,
                trajectories=self._runs,
                generator=generator,
                engine=self.engine if self.engine in ("torch", "fused") else "auto",
            )
        name = self.engine if self.engine in ("torch", "fused") else "auto"
        return engines.find_engine("density" if circuit.channels else name)(circuit, features, weights)

    def _probabilities(self, circuit: Circuit, rows: Tensor, weights: Tensor, generator: np.random.Generator) -> Floats:
        """The probabilities of what is read, ``(rows, 2**qubits)``."""
        if circuit.channels:  # in half the time in single precision, whose errors no number of shots can tell
            rows, weights = rows.float(), weights.float()
        if self._draws(circuit):
            from qunlearn.quantum.engines import trajectories

            return trajectories.probabilities(circuit, rows, weights, trajectories=self._runs, generator=generator)
        if circuit.channels:
            from qunlearn.quantum.engines import density

            return density.probabilities(circuit, rows, weights).numpy().astype(np.float64)
        psi = torch_engine.state(replace(circuit, readout=()), rows, weights)
        exact = (psi.real.square() + psi.imag.square()).reshape(len(rows), 2**circuit.qubits)
        return apply_readout(exact.numpy(), circuit.readout)

    @property
    def _runs(self) -> int:
        return 100 if self.trajectories is None else self.trajectories

    def _draws(self, circuit: Circuit) -> bool:
        """Whether noise is drawn as trajectories."""
        if not circuit.channels or self.engine == "density":
            return False
        from qunlearn.quantum.engines import density

        return self.engine == "trajectories" or self.trajectories is not None or circuit.qubits > density.QUBITS

    def _at_once(self, circuit: Circuit) -> int:
        """How many rows are run together: what they take stays in the caches, or nearly."""
        dense = bool(circuit.channels) and not self._draws(circuit)
        return max(1, 2**20 >> (2 * circuit.qubits if dense else circuit.qubits))
