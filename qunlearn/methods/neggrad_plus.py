"""NegGrad+: descent on the retain set and ascent on the forget set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import ascent_loss, retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class NegGradPlus(GradientMethod):
    r"""Descends the retain loss while it climbs the forget loss.

    .. math:: L = \alpha\, \mathrm{CE}(f(x_r), y_r) - (1 - \alpha)\, \mathrm{CE}(f(x_f), y_f)

    One pass over the retain set an epoch, the forget set begun again as often as needed. The loss has no lower
    bound, so alpha stays near 1.

    ``variant="crivoi"`` is the form of arXiv 2512.19253: ``L = CE_r - alpha CE_f``, and an epoch ends with the
    shorter set.

    Source: Kurmanji et al. 2023, arXiv 2302.09880 (NegGrad+).
    """

    name: ClassVar[str] = "neggrad-plus"
    alpha: float | None = hyper(
        None,
        "weight of the retain term, 0 to 1; none is 0.95 (crivoi: of the forget term; none is 1)",
        low=0,
        search=[0.8, 0.9, 0.95, 0.98, 0.99, 0.995],
    )
    variant: Literal["kurmanji", "crivoi"] = hyper("kurmanji", "whose form", choices=("kurmanji", "crivoi"))

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Both terms at every step."""
        return [Phase("paired" if self.variant == "crivoi" else "cycled", self.loss, self.epochs)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """The weighted difference."""
        keep, climb = self._weights()
        return keep * retain_loss(net, batch, memo, stream) + climb * ascent_loss(net, batch, memo, stream)

    def _weights(self) -> tuple[float, float]:
        if self.variant == "crivoi":
            return 1.0, 1.0 if self.alpha is None else self.alpha
        alpha = 0.95 if self.alpha is None else self.alpha
        return alpha, 1.0 - alpha
