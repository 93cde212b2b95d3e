"""The hybrid classifier: a classical encoder, a circuit and a classical head, one module."""

from __future__ import annotations

import json
import math
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.models.controls import ClassicalTwin
from qunlearn.models.encoders import ImageEncoder, make_encoder
from qunlearn.models.heads import make_head
from qunlearn.models.initialise import isolated_random, redraw
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.layer import QuantumLayer

CONTROLS = ("twin", "frozen")


class HybridClassifier(nn.Module):
    """head(circuit(encoder(x))): samples ``(batch, ...)`` to logits ``(batch, classes)``.

    With the ``ring-cz`` card these are the four published models: Iris shallow (4 qubits, depth 2) and deep
    (depth 6, ``head="deep"``), MNIST (8 qubits, depth 2, ``encoder="cnn"``) and Fashion-MNIST (10 qubits);
    `published_weights` brings a published circuit tensor into our order.

    Args:
        circuit: reads the encoder's output; its expectation values are the head's input.
        classes: number of classes, at least 2.
        encoder: ``"none"`` (the features are the circuit's; images are flattened for amplitude encoding),
            ``"pca"`` (principal components scaled to [0, pi], learnt by `fit`; retraining fits them again on
            the retain set alone) or ``"cnn"`` (two convolutions, a linear map and pi * tanh).
        head: ``"shallow"`` (one hidden layer), ``"deep"`` (four linear layers, batch norm, dropout) or
            ``"linear"``.
        inputs: shape of one sample; needed only for images other than 1x28x28.
        control: ``"twin"`` puts a classical network of as many weights in the circuit's place, ``"frozen"``
            leaves the circuit at its initial weights; None for the hybrid model itself.
        hidden: width of the shallow head's hidden layer; None for 32 after ``"cnn"``, else 16.
        engine: what runs the circuit, see `QuantumLayer`.
        dtype: of all weights and of the logits; samples are brought to it. None for torch's default.
        generator: for the initial weights (torch's layer defaults; angles uniform on [0, 2 pi)); None for
            torch's global one. The same generator state gives the same encoder and head under any `control`.

    Raises:
        InputError: for sizes that do not fit, and in the forward pass for samples of another shape.

    Source: Crivoi and Ionescu 2025, arXiv 2512.19253 (the four models); the controls are ours.
    """

    recipe: Any = None  # how it was trained, once it is

    def __init__(
        self,
        circuit: Circuit,
        classes: int,
        encoder: Literal["none", "pca", "cnn"] = "none",
        head: Literal["shallow", "deep", "linear"] = "shallow",
        *,
        inputs: int | tuple[int, ...] | None = None,
        control: Literal["twin", "frozen"] | None = None,
        hidden: int | None = None,
        engine: str = "auto",
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_count("classes", classes, 2)
        if hidden is not None:
            _check_count("hidden", hidden, 1)
        elif head == "shallow":
            hidden = 32 if encoder == "cnn" else 16
        if control is not None and control not in CONTROLS:
            raise UnknownNameError("control", control, CONTROLS)
        shape = _shape(inputs)
        self._config: dict[str, Any] = {
            "classes": classes, "encoder": encoder, "head": head, "inputs": shape and list(shape),
            "control": control, "hidden": hidden, "engine": engine,
        }  # fmt: skip
        self.circuit, self.classes, self.hidden, self.control = circuit, classes, hidden, control
        dtype = dtype or torch.get_default_dtype()
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device if generator else "cpu"))
        with isolated_random():
            self.encoder = make_encoder(encoder, circuit, shape).to(dtype)
            self.quantum = _middle(circuit, control, engine, dtype)
            self.head = make_head(head, len(circuit.observables), classes, hidden).to(dtype)
        redraw(self, seed)  # one way to initial weights, here and in `reinitialise`

    def forward(self, x: Tensor | NDArray[Any]) -> Tensor:
        """Samples ``(batch, ...)`` in the encoder's shape to logits ``(batch, classes)``."""
        return cast(Tensor, self.head(self.quantum(self.encoder(self._tensor(x)))))

    def fit(self, x: Tensor | NDArray[Any]) -> HybridClassifier:
        """Learns what the encoder takes from data (the PCA and its scaling) from samples ``(n, ...)``."""
        fit = getattr(self.encoder, "fit", None)
        if fit is not None:
            fit(self._tensor(x))
        return self

    def _tensor(self, x: Tensor | NDArray[Any]) -> Tensor:
        weight = cast(nn.Linear, self.head[0]).weight
        tensor = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x), device=weight.device)
        return tensor.to(weight.dtype)

    def stage_names(self) -> list[tuple[str, str]]:
        """(name, path of the submodule it starts with) of each stage, in running order; see `stages`."""
        front = [("cnn", "encoder.cnn"), ("to_angles", "encoder.to_angles")]
        linear = [(name, f"head.{name}") for name, part in self.head.named_children() if isinstance(part, nn.Linear)]
        return [*(front if isinstance(self.encoder, ImageEncoder) else []), ("circuit", "quantum"), *linear]

    def config(self) -> dict[str, Any]:
        """All that `from_config` needs to build an equal model, but weights and dtype, as JSON values."""
        return {**self._config, "circuit": json.loads(self.circuit.to_json())}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], *, dtype: torch.dtype | None = None, generator: torch.Generator | None = None
    ) -> HybridClassifier:
        """A freshly initialised model from what `config` gave."""
        rest = dict(config)
        circuit = Circuit.from_json(json.dumps(rest.pop("circuit")))
        return cls(circuit, **rest, dtype=dtype, generator=generator)


def published_weights(tensor: Tensor | NDArray[Any]) -> Tensor:
    """A published circuit tensor ``(layers, 3, wires)`` as the flat weights ``(layers * wires * 3,)`` of `ring-cz`.

    Entry (layer, rotation, wire) goes to (layer * wires + wire) * 3 + rotation; rotations are RX, RY, RZ, angles
    in radians, dtype kept. Use: ``model.quantum.weights.data.copy_(published_weights(tensor))``.

    Source: the layout of the checkpoints of Crivoi and Ionescu 2025, arXiv 2512.19253.
    """
    angles = torch.as_tensor(tensor)
    if angles.dim() != 3 or angles.shape[1] != 3:
        raise InputError(f"expected a circuit tensor of shape (layers, 3, wires), got {tuple(angles.shape)}")
    return angles.permute(0, 2, 1).reshape(-1)


def _middle(circuit: Circuit, control: str | None, engine: str, dtype: torch.dtype) -> QuantumLayer | ClassicalTwin:
    if control == "twin":
        return ClassicalTwin(circuit, dtype=dtype)
    layer = QuantumLayer(circuit, engine, dtype=dtype)
    return layer.requires_grad_(control != "frozen")


def _shape(inputs: int | tuple[int, ...] | None) -> tuple[int, ...] | None:
    if inputs is None:
        return None
    shape = (inputs,) if isinstance(inputs, int) else tuple(inputs)
    if not shape or math.prod(shape) < 1 or min(shape) < 1:
        raise InputError(f"expected inputs to be the shape of one sample, such as 4 or (1, 28, 28), got {inputs!r}")
    return shape


def _check_count(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InputError(f"expected {name} to be a whole number of at least {low}, got {value!r}")
