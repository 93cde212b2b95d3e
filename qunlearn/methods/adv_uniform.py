"""ADV-UNIFORM: uniform outputs at adversarial neighbours of the forget set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

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
class AdvUniform(GradientMethod):
    r"""Moves forget samples one sign step towards confidence, and teaches uniform outputs there.

    .. math:: x' = \operatorname{clamp}(x_f + \epsilon\, \operatorname{sign} \nabla_x
              \mathrm{KL}(p(x_f) \| U)), \qquad L = \mathrm{CE}(f(x_r), y_r) + \lambda\,
              \mathrm{KL}(p(x') \| U), \quad \mathrm{KL}(p \| U) = \ln K - H(p)

    The step uses the current model, in training mode; the clamp is to the range of the training inputs. Epsilon is in
    the unit of the inputs, so that it means different things for angles and for pixels. An epoch ends with the
    shorter set. Constant outputs are a fingerprint that attacks on confidence see.

    Source: Crivoi & Ionescu 2025, arXiv 2512.19253.
    """

    name: ClassVar[str] = "adv-uniform"
    epsilon: float = hyper(0.1, "length of the step, in the unit of the inputs", low=0)
    strength: float = hyper(1.0, "lambda, weight of the uniform term", low=0, search=(0.1, 10.0))

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The range of the training inputs."""
        lows = torch.stack([task.forget.x.min(), task.retain.x.min()])
        highs = torch.stack([task.forget.x.max(), task.retain.x.max()])
        return {"low": lows.min(), "high": highs.max()}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Both terms at every step."""
        return [Phase("paired", self.loss, self.epochs)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Retain loss plus divergence from uniform at the moved forget samples."""
        x = batch.forget.x
        step = net.input_gradient(lambda n, inputs: divergence_from_uniform(n(inputs)), x).sign()
        moved = (x + self.epsilon * step).clamp(memo["low"], memo["high"])
        return retain_loss(net, batch, memo, stream) + self.strength * divergence_from_uniform(net(moved))


def divergence_from_uniform(logits: Tensor) -> Tensor:
    """KL(softmax(logits) || U) in nats, the mean over rows of ``(batch, classes)``; 0 to ln(classes)."""
    log_outputs = log_softmax(logits, 1)
    entropy = -(log_outputs.exp() * log_outputs).sum(1)
    return (torch.log(torch.tensor(logits.shape[1], dtype=logits.dtype, device=logits.device)) - entropy).mean()
