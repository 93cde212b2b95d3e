"""Encoders: what turns a sample into the features of a circuit.

Every encoder maps ``(batch, ...)`` to ``(batch, features)``; where the circuit takes angles, they are in radians.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from qunlearn.data.scaling import SAFE_INTERVAL
from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.quantum.circuit import Circuit

ENCODERS = ("none", "pca", "cnn")
PAPER_IMAGE = (1, 28, 28)
_FLAT = 1e-9  # a direction along which the data spread by less than this share of the widest is constant


class DirectEncoder(nn.Module):
    """Hands the samples on as they are: ``(batch, features)`` in, the same out.

    Args:
        features: the width that the circuit takes.
        flatten: whether ``(batch, ...)`` is flattened first (for amplitude encoding, which takes images).

    Raises:
        InputError: in the forward pass, for samples of another width.
    """

    def __init__(self, features: int, flatten: bool = False) -> None:
        super().__init__()
        self.features, self.flatten = features, flatten

    def forward(self, x: Tensor) -> Tensor:
        """Samples ``(batch, features)``, or ``(batch, ...)`` if it flattens; gives ``(batch, features)``."""
        flat = x.flatten(1) if self.flatten and x.dim() > 2 else x
        if flat.dim() != 2 or flat.shape[1] != self.features:
            hint = "" if self.flatten or x.dim() < 3 else "; use encoder='pca' or 'cnn' for images"
            raise InputError(f"expected samples of shape (batch, {self.features}), got {tuple(x.shape)}{hint}")
        return flat

    def extra_repr(self) -> str:
        """The width, for printing."""
        return f"features={self.features}"


class PCAEncoder(nn.Module):
    """Principal components, scaled to angles: pi / 2 * clip((V (x - mean) - low) / span, 0, 1).

    The rows of V are the leading right singular vectors of the centred data, each with its largest entry
    positive; `low` and `span` are the least value and the range of each component. All are learnt from data
    by `fit` and kept in the ``state_dict``; retraining fits them again, on the retain set alone.

    Args:
        features: number of components, which is the width that the circuit takes.
        inputs: scalars in a sample; None to take it from the data.

    Source: Pearson, 1901, Phil. Mag. 2(11), 559 (the components); the interval is
        `qunlearn.data.SAFE_INTERVAL`, on which no two angles encode the same state.
    """

    mean: Tensor
    axes: Tensor
    low: Tensor
    span: Tensor

    def __init__(self, features: int, inputs: int | None = None) -> None:
        super().__init__()
        if inputs is not None and inputs < features:
            raise InputError(f"expected at least {features} inputs for {features} components, got {inputs}")
        self.features, self.inputs = features, inputs
        for name, shape in (("mean", (0,)), ("axes", (features, 0)), ("low", (features,)), ("span", (features,))):
            self.register_buffer(name, torch.zeros(shape))

    @property
    def fitted(self) -> bool:
        """Whether `fit` has been called, or fitted values were loaded."""
        return self.mean.shape[-1] > 0

    @torch.no_grad()
    def fit(self, x: Tensor) -> PCAEncoder:
        """Learns components and ranges from samples ``(n, ...)``, in float64 inside; n at least `features`."""
        flat = x.detach().flatten(1).to(torch.float64)
        if self.inputs is not None and flat.shape[1] != self.inputs:
            raise InputError(f"expected samples of {self.inputs} scalars, got shape {tuple(x.shape)}")
        if min(flat.shape) < self.features:
            raise InputError(
                f"expected at least {self.features} samples of at least {self.features} scalars for "
                f"{self.features} components, got shape {tuple(x.shape)}"
            )
        if not flat.isfinite().all():
            raise InputError("expected finite samples, got NaN or infinity; clean the data first")
        mean = flat.mean(0)
        axes = _principal_axes(flat - mean, self.features)
        scores = (flat - mean) @ axes.T
        low, span = scores.amin(0), scores.amax(0) - scores.amin(0)
        span = torch.where(span > _FLAT * span.max(), span, torch.ones_like(span))
        for name, value in (("mean", mean), ("axes", axes), ("low", low), ("span", span)):
            # Contiguous, as it is after loading: another layout in memory rounds products otherwise.
            setattr(self, name, value.to(getattr(self, name)).contiguous())
        return self

    def unfit(self) -> None:
        """Forgets what was learnt from data."""
        self._resize(0)
        self.low.zero_()
        self.span.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Samples ``(batch, ...)`` to angles ``(batch, features)`` in [0, pi / 2]."""
        if not self.fitted:
            raise UnsupportedError("expected a fitted PCA encoder, got one without data; call model.fit(x) first")
        flat = x.flatten(1)
        if flat.shape[1] != self.mean.shape[-1]:
            raise InputError(f"expected samples of {self.mean.shape[-1]} scalars, got shape {tuple(x.shape)}")
        scores = (flat - self.mean) @ self.axes.mT
        return SAFE_INTERVAL[1] * ((scores - self.low) / self.span).clamp(0, 1)

    def _resize(self, inputs: int) -> None:
        self.mean = self.mean.new_zeros(inputs)
        self.axes = self.axes.new_zeros(self.features, inputs)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}mean")
        if saved is not None and (self.inputs is None or len(saved) in (0, self.inputs)):
            self._resize(len(saved))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """The widths, for printing."""
        return f"inputs={self.inputs}, features={self.features}, fitted={self.fitted}"


def _principal_axes(centred: Tensor, features: int) -> Tensor:
    """The leading right singular vectors ``(features, inputs)``, each with its largest entry positive."""
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:features]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -axes, axes)


class PiTanh(nn.Module):
    """Angles of the image models: pi * tanh(x), in radians."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        angles: Tensor = math.pi * torch.tanh(x)
        return angles


class ImageEncoder(nn.Module):
    """The convolutional front end of the published image models, ending in pi * tanh.

    Conv(c->16, 3x3, pad 1)-ReLU-MaxPool2-Conv(16->32, 3x3, pad 1)-ReLU-MaxPool2-Flatten in `cnn`,
    Linear(->features) in `to_angles`, pi * tanh in `squash`.

    Args:
        features: the width that the circuit takes.
        inputs: shape of one image, (channels, height, width), height and width at least 4.

    Source: Crivoi and Ionescu 2025, arXiv 2512.19253 (1x28x28 there).
    """

    def __init__(self, features: int, inputs: tuple[int, ...] = PAPER_IMAGE) -> None:
        super().__init__()
        if len(inputs) != 3 or inputs[0] < 1 or min(inputs[1:]) < 4:
            raise InputError(f"expected images of (channels, height >= 4, width >= 4) for encoder 'cnn', got {inputs}")
        channels, height, width = inputs
        self.inputs = inputs
        self.cnn = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.to_angles = nn.Linear(32 * (height // 4) * (width // 4), features)
        self.squash = PiTanh()

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(batch, channels, height, width)`` to angles ``(batch, features)`` in (-pi, pi)."""
        if tuple(x.shape[1:]) != self.inputs:
            expected = ", ".join(map(str, self.inputs))
            raise InputError(f"expected images of shape (batch, {expected}), got {tuple(x.shape)}; set inputs=")
        return cast(Tensor, self.squash(self.to_angles(self.cnn(x))))


def make_encoder(name: str, circuit: Circuit, inputs: tuple[int, ...] | None) -> nn.Module:
    """The encoder of a name for a circuit; `inputs` is the shape of one sample, or None for the usual one."""
    size = None if inputs is None else math.prod(inputs)
    if name == "none":
        if size not in (None, circuit.features):
            raise InputError(f"expected samples of {circuit.features} scalars for this circuit, got inputs={inputs}")
        return DirectEncoder(circuit.features, flatten=circuit.amplitude)
    if circuit.features < 1:
        raise InputError(f"expected a circuit with features for encoder {name!r}, got one without")
    if name == "pca":
        return PCAEncoder(circuit.features, size)
    if name == "cnn":
        return ImageEncoder(circuit.features, inputs or PAPER_IMAGE)
    raise UnknownNameError("encoder", name, ENCODERS)
