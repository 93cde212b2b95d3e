"""Boundary expand: a class of its own for the forget set, dropped afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.data import Dataset
from qunlearn.errors import NumericalError
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.last_layer import last_linear, layer_of_logits
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.models.stream import Stream
from qunlearn.training.loop import DivergedError
from qunlearn.training.net import Net, check_functional
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class BoundaryExpand(GradientMethod):
    r"""Trains forget samples on an output of their own, one beyond the classes, and then drops that output.

    .. math:: L = \mathrm{CE}(f^+(x_f), K + 1), \qquad f^+ = (f_1, \ldots, f_K, w \cdot h + b)

    h is the input of the last linear layer; w and b are drawn as a linear layer's first weights are, and move like
    all others. While the loop measures a model, and in the model that comes back, the output is gone. It sees no
    retain sample, as in the source; a `retain_weight` above 0 adds their cross entropy over all K + 1 outputs, one
    pass over the retain set an epoch. Once the extra output has taken all forget samples, nothing pushes their class
    below the others any more, so that it may rank first again when the output is gone: more epochs are not better.

    Source: Chen et al. 2023 (CVPR), arXiv 2303.11570.
    """

    name: ClassVar[str] = "boundary-expand"
    retain_weight: float = hyper(0.0, "weight of the retain set's cross entropy", low=0, search=[0.0, 0.3, 1.0])

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses a model that does not end in a linear layer."""
        last_linear(model)

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Passes over the forget set, or with a retain term over the retain set."""
        return [Phase("cycled" if self.retain_weight else "forget", self.loss, self.epochs)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Cross entropy of forget samples under the extra output, and of retain samples under their labels."""
        logits = net(batch.forget.x)
        forget = cross_entropy(logits, torch.full_like(batch.forget.y, logits.shape[1] - 1))
        if not self.retain_weight:
            return forget
        return forget + self.retain_weight * cross_entropy(net(batch.retain.x), batch.retain.y)

    def _in_step(
        self, models: Sequence[nn.Module], tasks: Sequence[Task], works: Sequence[Work]
    ) -> list[nn.Module | NumericalError]:
        """The loop on expanded models, and what it leaves without their extra unit."""
        check_functional(models[0], tasks[0].retain.x[:1])  # before anything is said about layers
        expanded = [
            Expanded(model, _unit(layer_of_logits(model, task.retain), work.seeds.generator("unit")))
            for model, task, work in zip(models, tasks, works, strict=True)
        ]
        return [_narrowed(found) for found in super()._in_step(expanded, tasks, works)]


class Expanded(nn.Module):
    """A model with one output more: ``(batch, classes + 1)`` while it trains, ``(batch, classes)`` in evaluation mode.

    Args:
        model: ends in a linear layer.
        unit: maps that layer's input ``(batch, features)`` to the extra output ``(batch, 1)``.
    """

    def __init__(self, model: nn.Module, unit: nn.Linear) -> None:
        super().__init__()
        self.model, self.unit, self._last = model, unit, last_linear(model)

    def forward(self, x: Tensor) -> Tensor:
        """Logits for samples ``(batch, ...)``."""
        caught: list[Tensor] = []
        hook = self.model.get_submodule(self._last).register_forward_pre_hook(
            lambda _module, inputs: caught.append(inputs[0])
        )
        try:
            logits: Tensor = self.model(x)
        finally:
            hook.remove()
        return torch.cat([logits, self.unit(caught[-1])], 1) if self.training else logits


def _unit(layer: nn.Linear, generator: torch.Generator) -> nn.Linear:
    """One more unit on a layer's input, drawn as `nn.Linear` draws its own."""
    unit = nn.Linear(layer.in_features, 1, device=layer.weight.device, dtype=layer.weight.dtype)
    for parameter in unit.parameters():
        drawn = torch.rand(parameter.shape, dtype=parameter.dtype, generator=generator)
        parameter.data.copy_((2 * drawn - 1) / math.sqrt(layer.in_features))
    return unit


def _narrowed(found: nn.Module | NumericalError) -> nn.Module | NumericalError:
    """The model without its extra unit; of an error, the state without it."""
    if isinstance(found, Expanded):
        return found.model
    if isinstance(found, DivergedError):
        state = {name.removeprefix("model."): t for name, t in found.last_good.items() if name.startswith("model.")}
        return DivergedError(str(found), state)
    assert isinstance(found, NumericalError)
    return found
