"""Gradient ascent held back by a Fisher penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import ascent_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net, evaluating
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class FisherPenalty(GradientMethod):
    r"""Climbs the forget loss, with a quadratic penalty on moving weights that matter.

    .. math:: L = -\mathrm{CE}(f(x_f), y_f) + \frac{\lambda}{2} \sum_j F_j (\theta_j - \theta_{0j})^2,
              \qquad F_j = \operatorname{mean}_b\,(\partial_j \mathrm{CE}_b(\theta_0))^2

    F is the mean over forget *batches* b of the squared gradient of the batch mean, taken once at the original
    weights in evaluation mode. At the original weights the penalty and its gradient are 0, so that a first step
    equals gradient ascent's. This is what arXiv 2512.19253 calls "Fisher"; it is not Fisher forgetting
    (Golatkar et al. 2020), which adds noise.

    Source: Crivoi & Ionescu 2025, arXiv 2512.19253, released code.
    """

    name: ClassVar[str] = "fisher-penalty"
    strength: float = hyper(10.0, "lambda", low=0, search=(0.1, 1000.0))

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The original weights and their importances."""
        size = self.batch_size or (task.recipe.batch_size if task.recipe else 32)
        order = torch.split(torch.randperm(len(task.forget.y), generator=generator), size)
        with evaluating(net.module):
            squares = [net.gradient(lambda n, part=part: _loss(n, task, part)) for part in order]  # type: ignore[misc]
        importance = {name: torch.stack([g[name].square() for g in squares]).mean(0) for name in squares[0]}
        return {"origin": {name: p.clone() for name, p in net.parameters.items()}, "importance": importance}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Penalised ascent on the forget set."""
        return [Phase("forget", self.loss, self.epochs)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Ascent plus penalty."""
        terms = [
            (memo["importance"][name] * (parameter - memo["origin"][name]).square()).sum()
            for name, parameter in net.parameters.items()
            if name in memo["importance"]
        ]
        return ascent_loss(net, batch, memo, stream) + self.strength / 2 * torch.stack(terms).sum()


def _loss(net: Net, task: Task, part: Tensor) -> Tensor:
    return cross_entropy(net(task.forget.x[part]), task.forget.y[part])
