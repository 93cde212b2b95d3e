"""The noise of a real device as its calibration describes it, on this machine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qunlearn.errors import UnsupportedError
from qunlearn.quantum.backends.base import Backend
from qunlearn.quantum.backends.opened import Floats, open_circuit
from qunlearn.quantum.backends.simulator import Simulator
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.engines.torch_engine import promote


class Calibrated(Backend):
    """A circuit transpiled to a device, with the channels and readout errors of the device's calibration.

    What is run is the transpiled circuit, whose angles are those of the opened one. On density matrices its values are
    exact and differentiated as such, to any order.

    Args:
        device: a name such as ``"fake_manila"``, or a device of Qiskit.
        place: what runs the noisy circuit; None for our own engines: density matrices, or quantum trajectories where
            they would be too large.
        seed: of the transpiler, and of the trajectories.

    Raises:
        InputError: for a device that cannot be had.
    """

    def __init__(self, device: Any, place: Backend | None = None, *, seed: int = 0) -> None:
        from qunlearn.quantum.backends.device import find_device

        self.device, self.place = find_device(device), Simulator(seed=seed) if place is None else place
        self.name = f"noise of {self.device.name}"
        super().__init__(shots=self.place.shots, seed=seed)
        self.spent = self.place.spent
        self._noisy: dict[Circuit, Circuit] = {}

    def run(self, circuit: Circuit, angles: Floats) -> Floats:
        """The values ``(rows, observables)`` of an opened circuit at angles ``(rows, K)`` in radians."""
        with torch.no_grad():
            found: Floats = self._values(circuit, torch.from_numpy(angles)).numpy()
        return found

    def expectations(self, circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
        """Expectation values ``(..., observables)`` of features ``(..., features)`` and weights ``(weights,)``."""
        if circuit.amplitude:  # where amplitudes are zero, only shifts of them give derivatives
            return super().expectations(circuit, features, weights)
        opened = open_circuit(circuit)
        values = self._values(opened.circuit, opened.angles(features, weights))
        return values.to(promote(features[..., :0], weights[:0])[0].dtype)

    def _values(self, circuit: Circuit, angles: Tensor) -> Tensor:
        if circuit not in self._noisy:
            self._noisy[circuit] = self._transpiled(circuit)
        return self.place.expectations(self._noisy[circuit], angles, angles.new_zeros(0))

    def _transpiled(self, circuit: Circuit) -> Circuit:
        from qunlearn.quantum.backends.calibration import device_noise

        if circuit.noisy:
            raise UnsupportedError(
                f"expected a circuit without noise of its own for the noise of {self.device.name}, got a noisy one; "
                "use circuit.without_noise()"
            )
        return device_noise(circuit, self.device, seed=self.seed)

    def _count(self, circuits: int) -> None:
        """Nothing: what runs the noisy circuit counts."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_noisy": {}}
