"""The noise of a real device as its calibration describes it, on this machine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qunlearn.quantum.backends.base import Backend
from qunlearn.quantum.backends.opened import Floats, open_circuit
from qunlearn.quantum.circuit import Circuit


class Calibrated(Backend):
    """A circuit transpiled to a device, with the channels and readout errors of the device's calibration.

    What is run is the transpiled circuit, whose angles are those of the opened one. On density matrices its values are
    exact and differentiated as such, to any order.

    Args:
        device: a name such as ``"fake_manila"``, or a device of Qiskit.
        place: what runs the noisy circuit; None for density matrices.
        seed: of the transpiler.
    """

    def __init__(self, device: Any, place: Backend | None = None, *, seed: int = 0) -> None:
        from qunlearn.quantum.backends.device import find_device

        self.device, self.place = find_device(device), place
        self.name = f"noise of {self.device.name}"
        super().__init__(shots=None if place is None else place.shots, seed=seed)
        self._noisy: dict[Circuit, Circuit] = {}

    def run(self, circuit: Circuit, angles: Floats) -> Floats:
        """The values ``(rows, observables)`` of an opened circuit at angles ``(rows, K)`` in radians."""
        rows = torch.from_numpy(angles)
        return self._values(circuit, rows).numpy()

    def expectations(self, circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
        """Expectation values ``(..., observables)`` of features ``(..., features)`` and weights ``(weights,)``."""
        if circuit.amplitude:  # where amplitudes are zero, only shifts of them give derivatives
            return super().expectations(circuit, features, weights)
        opened = open_circuit(circuit.without_noise())
        values = self._values(opened.circuit, opened.angles(features, weights))
        return values.to(torch.promote_types(features.dtype, weights.dtype))

    def _values(self, circuit: Circuit, angles: Tensor) -> Tensor:
        if circuit not in self._noisy:
            from qunlearn.quantum.backends.calibration import device_noise

            self._noisy[circuit] = device_noise(circuit, self.device)
        noisy, nothing = self._noisy[circuit], angles.new_zeros(0)
        if self.place is not None:
            return self.place.expectations(noisy, angles, nothing)
        from qunlearn.quantum.engines import density

        return density.expectations(noisy, angles, nothing)
