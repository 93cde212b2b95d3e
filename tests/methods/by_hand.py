"""The two models of `cases.py` once more in NumPy: their logits, and every sample's derivatives.

Circuits by state vectors and the shift rule, dense layers by the chain rule; nothing of torch's or of the engines'
derivatives takes part.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]
PAULIS = {
    "x": np.array([[0, 1], [1, 0]]),
    "y": np.array([[0, -1j], [1j, 0]]),
    "z": np.array([[1, 0], [0, -1]]),
}


def array(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().numpy(), dtype=np.float64)


def values_of(model: nn.Module) -> dict[str, Array]:
    return {name: array(p) for name, p in model.named_parameters()}


def is_hybrid(values: dict[str, Array]) -> bool:
    return "quantum.weights" in values


def _rotated(states: NDArray[np.complex128], axis: str, wire: int, angles: Array) -> NDArray[np.complex128]:
    """exp(-i angle P / 2) on a wire of states ``(n, 2, 2, 2, 2)``, an angle each."""
    half = angles.reshape(-1, 1, 1) / 2
    gates = np.cos(half) * np.eye(2) - 1j * np.sin(half) * PAULIS[axis]
    gates = np.broadcast_to(gates, (len(states), 2, 2))
    moved = np.moveaxis(states, wire + 1, 1)
    turned = np.einsum("nab,nb...->na...", gates, moved)
    return np.moveaxis(turned, 1, wire + 1)


def expectations(features: Array, weights: Array) -> Array:
    """<Z_i> ``(n, 4)`` of ring-cz on 4 qubits at depth 2, for features ``(n, 4)`` and weights ``(24,)``."""
    states = np.zeros((len(features), 2, 2, 2, 2), dtype=np.complex128)
    states[:, 0, 0, 0, 0] = 1
    for wire in range(4):
        for axis in "xyz":
            states = _rotated(states, axis, wire, features[:, wire])
    signs = np.array([1, -1])
    for layer in range(2):
        for wire in range(4):
            for rotation, axis in enumerate("xyz"):
                angle = weights[(layer * 4 + wire) * 3 + rotation]
                states = _rotated(states, axis, wire, np.array([angle]))
        for wire in range(4):
            both = np.zeros((2, 2, 2, 2), dtype=bool)
            both[tuple(1 if w in (wire, (wire + 1) % 4) else slice(None) for w in range(4))] = True
            states = np.where(both, -states, states)
    chances = np.abs(states) ** 2
    axes = {0, 1, 2, 3}
    return np.stack([chances.sum(tuple(a + 1 for a in axes - {w})) @ signs for w in range(4)], 1)


def _dense(values: dict[str, Array]) -> tuple[str, str]:
    return ("head.fc1", "head.fc2") if is_hybrid(values) else ("0", "2")


def logits_of(values: dict[str, Array], x: Array) -> Array:
    """Logits ``(n, classes)``."""
    inputs = expectations(x, values["quantum.weights"]) if is_hybrid(values) else x
    first, second = _dense(values)
    hidden = np.maximum(inputs @ values[f"{first}.weight"].T + values[f"{first}.bias"], 0)
    return np.asarray(hidden @ values[f"{second}.weight"].T + values[f"{second}.bias"])


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def sample_slopes(values: dict[str, Array], x: Array, by_logits: Array) -> dict[str, Array]:
    """Derivatives ``(n, ...)`` of every sample's loss, from its derivatives by the logits ``(n, classes)``."""
    hybrid = is_hybrid(values)
    inputs = expectations(x, values["quantum.weights"]) if hybrid else x
    first, second = _dense(values)
    before = inputs @ values[f"{first}.weight"].T + values[f"{first}.bias"]
    back = by_logits @ values[f"{second}.weight"] * (before > 0)
    found = {
        f"{first}.weight": back[:, :, None] * inputs[:, None, :],
        f"{first}.bias": back,
        f"{second}.weight": by_logits[:, :, None] * np.maximum(before, 0)[:, None, :],
        f"{second}.bias": by_logits,
    }
    if hybrid:
        into = back @ values[f"{first}.weight"]
        shifts = [(into * shift).sum(1) for shift in _shifts(x, values["quantum.weights"])]
        found = {"quantum.weights": np.stack(shifts, 1), **found}
    return found


def _shifts(x: Array, weights: Array) -> Iterator[Array]:
    """d<Z>/d weight ``(n, 4)`` for every weight, by the two-term shift rule."""
    for j in range(len(weights)):
        step = np.zeros_like(weights)
        step[j] = np.pi / 2
        yield (expectations(x, weights + step) - expectations(x, weights - step)) / 2


def task_slopes(values: dict[str, Array], x: Array, y: NDArray[np.int64]) -> dict[str, Array]:
    """Derivatives ``(n, ...)`` of every sample's cross entropy."""
    logits = logits_of(values, x)
    return sample_slopes(values, x, softmax(logits) - np.eye(logits.shape[1])[y])
