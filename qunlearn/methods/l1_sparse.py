"""l1-sparse: fine-tuning under a fading l1 penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from qunlearn.methods.angles import shortest
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models import angle_periods
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class L1Sparse(GradientMethod):
    r"""Fine-tunes on the retain set with an l1 penalty that falls to nothing.

    .. math:: L_e = \mathrm{CE}(f(x_r), y_r) + s_e \left( \alpha \sum_{j \notin Q} |\theta_j| + \alpha_Q
              \sum_{j \in Q} |\operatorname{wrap}(\theta_j - r_j)| \right), \qquad s_e = \max\!\left(0, 1 - \frac{e}{E -
              E_0}\right)

    e counts the E epochs from 0; the last E_0 of them are plain fine-tuning (the first never is). Q are the circuit's
    angles: an angle and the same angle plus its period are one gate, so that the penalty takes the shortest way
    round to a reference r, 0 (where a rotation is the identity: pruned gates) or the original angle, and has a
    strength of its own. Adam or SGD steps make entries small, not exactly 0.

    Source: Jia et al. 2023, arXiv 2304.04934, and the authors' code; the angles are an adaptation.
    """

    name: ClassVar[str] = "l1-sparse"
    epochs: int = hyper(10, "E, passes over the retain set", low=1)
    plain_epochs: int = hyper(2, "E_0, how many of the last epochs have no penalty", low=0)
    alpha: float = hyper(5e-4, "alpha, of everything but angles", low=0, search=(1e-5, 1e-2))
    angle_alpha: float = hyper(5e-4, "alpha_Q, of the circuit's angles, a radian", low=0, search=(1e-5, 1e-2))
    reference: Literal["identity", "original"] = hyper(
        "identity", "where angles are drawn to: 0 or the original's", choices=("identity", "original")
    )

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """Periods and references of the angles, by name."""
        periods = angle_periods(net.module)
        origins = {name: net.parameters[name].clone() for name in periods}
        if self.reference == "identity":
            origins = {name: torch.zeros_like(angles) for name, angles in origins.items()}
        return {"periods": periods, "references": origins}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """An epoch each, with its share of the penalty."""
        return [Phase("retain", partial(self.loss, share=share)) for share in self.shares()]

    def shares(self) -> list[float]:
        """s_e for every epoch."""
        sparse = max(self.epochs - self.plain_epochs, 1)
        return [max(0.0, 1 - epoch / sparse) for epoch in range(self.epochs)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream, *, share: float) -> Tensor:
        """The task loss and the penalty."""
        keep = retain_loss(net, batch, memo, stream)
        return keep + share * self.penalty(net, memo) if share else keep

    def penalty(self, net: Net, memo: Memo) -> Tensor:
        """The two l1 norms, each with its strength."""
        terms = []
        for name, parameter in net.parameters.items():
            if name in memo["periods"]:
                turns = shortest(parameter, memo["references"][name], memo["periods"][name])
                terms.append(self.angle_alpha * turns.abs().sum())
            else:
                terms.append(self.alpha * parameter.abs().sum())
        return torch.stack(terms).sum()
