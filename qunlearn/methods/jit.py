"""JiT: outputs that no longer change around the forget samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class JiT(GradientMethod):
    r"""Lowers the Lipschitz constant of the outputs around forget samples; needs no labels and no retain set.

    .. math:: L = \operatorname{mean}_{x \in D_f} \frac{1}{N} \sum_{k=1}^{N}
              \frac{\|f(x) - f(x + \xi_k)\|_2}{\|\xi_k\|_2}, \qquad \xi_k \sim N(0, \sigma^2 I)

    f are logits. The derivative goes through both outputs, as the formula has it. ``variant="released"`` is the form of
    the authors' code: the disturbed output is held constant, disturbed inputs are clamped to the batch's range, and the
    sum over the batch is taken instead of the mean. That code also never clears its gradients between batches, so
    that each step repeats the ones before; this is not repeated. It takes one pass by plain gradient descent; here the
    optimizer is the recipe's.

    Inputs that a circuit encodes as angles are disturbed like any others: an angle beyond pi is an angle.

    Source: Foster et al. 2024, arXiv 2402.01401, and the authors' code.
    """

    name: ClassVar[str] = "jit"
    epochs: int = hyper(1, "passes over the forget set", low=1)
    sigma: float = hyper(
        0.5, "standard deviation of the disturbance, in units of the inputs", low=0, search=(0.01, 1.0)
    )
    draws: int = hyper(25, "N: disturbances of each sample in a step", low=1)
    variant: Literal["paper", "released"] = hyper(
        "paper", "whose form", choices=("paper", "released"), search=["paper", "released"]
    )

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Descent on the forget set."""
        return [Phase("forget", self.loss, self.epochs)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """The mean ratio of how far outputs and inputs move."""
        x = batch.forget.x
        given = x.repeat(self.draws, *[1] * (x.dim() - 1))
        disturbed = given + self.sigma * stream.normal(given)
        if self.variant == "released":
            disturbed = torch.minimum(torch.maximum(disturbed, x.min()), x.max())
        outputs = net(x)
        apart = outputs.repeat(self.draws, 1) - self._disturbed_outputs(net, disturbed)
        moved = torch.linalg.vector_norm((disturbed - given).flatten(1), dim=1)
        tiny = torch.finfo(moved.dtype).tiny  # where the clamp lets nothing move, both norms are 0
        ratios: Tensor = torch.linalg.vector_norm(apart, dim=1) / moved.clamp(min=tiny)
        return ratios.mean() * (len(x) if self.variant == "released" else 1)

    def _disturbed_outputs(self, net: Net, x: Tensor) -> Tensor:
        if self.variant == "paper":
            return net(x)
        still = net.at({name: p.detach() for name, p in net.parameters.items()})
        still.differentiated = frozenset()
        return still(x).detach()
