"""PennyLane devices by name. Wires and bits are in our order there."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np

from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.quantum.backends.base import GRADIENTS, Backend
from qunlearn.quantum.backends.opened import Floats
from qunlearn.quantum.circuit import Circuit

_NOISY = "default.mixed"  # the device that has channels
_ENTRIES = 2**22  # numbers in the states of one tape, at most


class PennyLane(Backend):
    """A device of PennyLane; a batch is one execution.

    Args:
        device: a name such as ``"lightning.qubit"``, or a device, whose own seed then holds.
        shots: measurements of each circuit; None for exact values.
        gradient: see `Backend`; "device" takes the device's backpropagation or adjoint method.
        seed: of the shots; every job makes the device anew with a child seed.
        repetitions: of SPSA.
        step: of SPSA.
        **options: for `qml.device`, such as ``c_dtype=numpy.complex64`` of ``"lightning.qubit"``.

    Raises:
        UnknownNameError: for a device that is not installed, with the nearest that is.
        InputError: for an option that the device does not take.

    Example:
        >>> from qunlearn.quantum import load_circuit
        >>> circuit = load_circuit("ring-cz", qubits=2)
        >>> import torch
        >>> PennyLane("lightning.qubit").expectations(circuit, torch.zeros(1, 2), torch.zeros(circuit.weights))
        tensor([[1., 1.]])
    """

    gradients = GRADIENTS

    def __init__(
        self,
        device: Any = "lightning.qubit",
        *,
        shots: int | None = None,
        gradient: str = "parameter-shift",
        seed: int = 0,
        repetitions: int = 1,
        step: float = 0.1,
        **options: Any,
    ) -> None:
        import pennylane as qml

        self._given = None if isinstance(device, str) else device
        self.name = device if isinstance(device, str) else str(device.name)
        self.options = options
        super().__init__(shots=shots, gradient=gradient, seed=seed, repetitions=repetitions, step=step)
        if self._given is None and self.name not in qml.plugin_devices:
            raise UnknownNameError("PennyLane device", self.name, qml.plugin_devices)
        if gradient == "device" and shots is not None:
            raise UnsupportedError("expected exact values with gradient='device', got shots; use 'parameter-shift'")
        self._make(1)  # so that options are checked now

    def run(self, circuit: Circuit, angles: Floats) -> Floats:
        """The values ``(rows, observables)`` of an opened circuit at angles ``(rows, K)``: one execution."""
        import pennylane as qml

        self._check(circuit)
        function, repeat = circuit.to_pennylane(), 1
        if angles.shape[1]:
            parts = np.array_split(angles, -(-len(angles) // self._rows(circuit)))
        elif self.shots is None:  # the rows of a circuit without angles are one
            parts, repeat = [angles[0]], len(angles)
        else:
            parts = list(angles)
        tapes = [qml.tape.make_qscript(function, shots=self.shots)(part, angles[0, :0]) for part in parts]
        found = qml.execute(tapes, self._make(circuit.qubits, seeded=self.shots is not None), diff_method=None)
        single = len(circuit.observables) == 1
        values = [np.atleast_2d(np.asarray(part).reshape(1, -1) if single else _stacked(part)) for part in found]
        return np.repeat(np.concatenate([part.T for part in values]), repeat, axis=0)

    def run_derivatives(self, circuit: Circuit, angles: Floats) -> tuple[Floats, Floats]:
        """Values ``(rows, observables)`` and the device's own derivatives ``(rows, observables, K)``."""
        import pennylane as qml
        from autograd import make_vjp  # type: ignore[import-untyped]  # PennyLane's own

        self._check(circuit)
        device, function, outputs = self._make(circuit.qubits), circuit.to_pennylane(), len(circuit.observables)
        node = qml.QNode(function, device, interface="autograd", diff_method=self._method(device))

        def values_of(rows: Any) -> Any:
            return qml.math.stack(node(rows, angles[0, :0]))

        values, slopes = [], []
        for part in np.array_split(angles, -(-len(angles) // self._rows(circuit))):
            pull, found = make_vjp(values_of, 0)(qml.numpy.array(part, requires_grad=True))
            values.append(np.asarray(found).T)
            with warnings.catch_warnings():  # of imaginary parts, which real angles have no use for
                warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
                rows = [pull(np.eye(outputs)[k][:, None] * np.ones((outputs, len(part)))) for k in range(outputs)]
            slopes.append(np.stack(rows, axis=1))
        return np.concatenate(values), np.concatenate(slopes)

    def _rows(self, circuit: Circuit) -> int:
        """How many rows of angles one tape holds."""
        width = 2 * circuit.qubits if self.name == _NOISY else circuit.qubits
        return max(1, _ENTRIES >> width)

    def _make(self, wires: int, *, seeded: bool = False) -> Any:
        """The device, with a seed of its own for this job where it draws."""
        import pennylane as qml

        if self._given is not None:
            return self._given
        options = dict(self.options)
        try:
            if seeded and "seed" not in options:
                made = qml.device(self.name, wires=wires)
                options |= {"seed": self.child_seed()} if "seed" in inspect.signature(type(made)).parameters else {}
            return qml.device(self.name, wires=wires, **options)
        except TypeError as error:
            raise InputError(f"expected options of PennyLane's {self.name!r}, got {options}: {error}") from None

    def _check(self, circuit: Circuit) -> None:
        if circuit.noisy and self.name != _NOISY:
            raise UnsupportedError(
                f"expected a circuit without noise on {self.name!r}, got one with noise; use 'default.mixed' or 'aer', "
                "or circuit.without_noise()"
            )
        wires = None if self._given is None else self._given.wires
        if wires and not set(range(circuit.qubits)) <= set(wires):
            raise InputError(f"expected a device with wires 0 to {circuit.qubits - 1}, got {wires.tolist()}")

    def _method(self, device: Any) -> str:
        """What the device calls its own derivatives."""
        import pennylane as qml

        for method in ("backprop", "adjoint", "device"):
            if device.supports_derivatives(qml.devices.ExecutionConfig(gradient_method=method)):
                return method
        raise UnsupportedError(
            f"expected a device with derivatives of its own, got {self.name!r}; use gradient='parameter-shift'"
        )


def _stacked(values: Any) -> Any:
    """One row an observable; a circuit without angles gives a number where others give a row."""
    return np.stack([np.atleast_1d(np.asarray(value)) for value in values])
