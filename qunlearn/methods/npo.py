"""NPO: negative preference optimisation, ascent that limits itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class NPO(GradientMethod):
    r"""Treats the true labels of forget samples as answers to avoid, and keeps training on the retain set.

    .. math:: L = \gamma\, \operatorname{mean}_f\, {-\frac{2}{\beta}} \ln \sigma\!\left(-\beta \ln
              \frac{p_\theta(y_f | x_f)}{p_{\theta_0}(y_f | x_f)}\right) + \alpha\, \mathrm{CE}(f(x_r), y_r)

    With rho the ratio of the probabilities, the gradient is gradient ascent's times 2 rho^beta / (1 + rho^beta): equal
    to it at the original weights and for beta to 0, and 0 once the label is unlikely. The loss stays above 0, so that
    it cannot run away. The forget set is begun again as often as a pass over the retain set needs.

    ``variant="simnpo"`` has no reference model: ``-(2 / beta) ln sigma(-beta (ln p(y | x) + delta))``, its margin
    normalised by the length of the answer, which is 1 for a classifier.

    Source: Zhang et al. 2024, arXiv 2404.05868 (NPO); Fan et al. 2024, arXiv 2410.07163 (SimNPO); defaults of SimNPO
    and its weights as in open-unlearning's configuration. Both are for language models: the answer is a label here.
    """

    name: ClassVar[str] = "npo"
    beta: float | None = hyper(
        None, "inverse temperature; none is 1 (simnpo: 4.5)", low=1e-6, search=[0.1, 0.3, 1.0, 3.0, 4.5]
    )
    retain_weight: float = hyper(1.0, "alpha, weight of the retain term", low=0)
    forget_weight: float | None = hyper(
        None, "gamma, weight of the forget term; none is 1 (simnpo: 0.125)", low=0, search=(0.05, 5.0)
    )
    delta: float = hyper(0.0, "simnpo: margin that the loss of forget samples should exceed, in nats", low=0)
    variant: Literal["npo", "simnpo"] = hyper("npo", "with or without a reference model", choices=("npo", "simnpo"))

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The original's log-probabilities of the labels ``(forget samples,)``; none for simnpo."""
        if self.variant == "simnpo":
            return {"reference": torch.full_like(task.forget.y, -self.delta, dtype=task.forget.x.dtype)}
        return {"reference": -cross_entropy(net.logits(task.forget.x), task.forget.y, reduction="none")}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Both terms at every step."""
        return [Phase("cycled", self.loss, self.epochs)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """The preference term and the retain loss."""
        gamma = (0.125 if self.variant == "simnpo" else 1.0) if self.forget_weight is None else self.forget_weight
        forget = self.preference(net(batch.forget.x), batch.forget.y, memo["reference"][batch.forget.position])
        return gamma * forget + self.retain_weight * retain_loss(net, batch, memo, stream)

    def preference(self, logits: Tensor, labels: Tensor, reference: Tensor) -> Tensor:
        """``-(2 / beta) ln sigma(-beta (ln p(y | x) - reference))``, the mean over rows of ``(batch, classes)``."""
        beta = (4.5 if self.variant == "simnpo" else 1.0) if self.beta is None else self.beta
        excess = -cross_entropy(logits, labels, reduction="none") - reference
        return -(2 / beta) * logsigmoid(-beta * excess).mean()
