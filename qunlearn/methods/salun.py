"""SalUn: random labels for the salient weights alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from qunlearn.methods import curvature
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.random_label import RandomLabel
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models import angle_periods
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net, Tensors
from qunlearn.training.phases import Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class SalUn(GradientMethod):
    r"""Trains on random labels, but moves only the parameters whose forget gradient is largest.

    .. math:: \theta = m \odot \theta' + (1 - m) \odot \theta_0, \qquad
              m_j = 1 \text{ for the top share of } |\partial_j \mathrm{CE}_{D_f}(\theta_0)|

    theta' descends the loss of ``random-label``, with its options. After every step all other parameters are put back
    to the original to the last bit: masking gradients alone lets momentum and weight decay move them.

    Parameters are ranked all together, as published, or with ``ranking="kind"`` angles among angles and others among
    others, since their gradients have different units. By default both sets are shuffled together and the true label
    is never drawn, which is the paper's objective; the released code takes sets in turn for small data sets
    (``schedule="alternate"``) and draws from all labels (``exclude_true=False``).

    Source: Fan et al. 2024, arXiv 2310.12508; the ranking by kind is ours.
    """

    name: ClassVar[str] = "salun"
    share: float = hyper(0.5, "of the parameters that may move", low=0, high=1, search=[0.5, 0.1, 0.3, 0.7, 0.9])
    ranking: Literal["all", "kind"] = hyper(
        "all", "parameters ranked together, or angles apart", choices=("all", "kind")
    )
    exclude_true: bool = hyper(True, "never draw the true label")
    redraw: bool = hyper(True, "draw new labels every epoch")
    schedule: Literal["mixed", "alternate"] = hyper("mixed", "sets together or in turn", choices=("mixed", "alternate"))

    @functools.cached_property
    def labels(self) -> RandomLabel:
        """The method that moves what the mask lets move."""
        return RandomLabel(
            epochs=self.epochs, exclude_true=self.exclude_true, redraw=self.redraw, schedule=self.schedule
        )

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The labels, the mask, and the parameters to put back."""
        memo = self.labels.prepare(net, task, generator)
        return {**memo, "mask": self.mask(net, task), "origin": curvature.trained(net)}

    def mask(self, net: Net, task: Task) -> Tensors:
        """True for the salient entries of each parameter; of entries with equal gradients the first ones."""
        slopes = curvature.gradient(net, task.forget.x, task.forget.y)
        if self.ranking == "all":
            return top(slopes, self.share)
        angles = {name: g for name, g in slopes.items() if name in angle_periods(net.module)}
        others = {name: g for name, g in slopes.items() if name not in angles}
        found = {**top(angles, self.share), **top(others, self.share)}
        return {name: found[name] for name in slopes}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Those of random labels, held to the mask."""
        return [dataclasses.replace(phase, project=self.hold) for phase in self.labels.phases(model, task)]

    def hold(self, parameters: Tensors, memo: Memo, stream: Stream) -> Tensors:
        """The parameters with the original's entries wherever the mask is False."""
        return {name: torch.where(memo["mask"][name], p, memo["origin"][name]) for name, p in parameters.items()}


def top(slopes: Tensors, share: float) -> Tensors:
    """True for that share of all entries together (rounded down, at least one) whose absolute value is largest."""
    if not slopes:
        return {}
    sizes: Tensor = curvature.flattened(slopes).abs()
    order = sizes.argsort(descending=True, stable=True)[: max(1, int(share * len(sizes)))]
    chosen = torch.zeros_like(sizes, dtype=torch.bool)
    chosen[order] = True
    parts = torch.split(chosen, [g.numel() for g in slopes.values()])
    return {name: part.reshape(g.shape) for (name, g), part in zip(slopes.items(), parts, strict=True)}
