"""Distillation: the core of the methods that teach given outputs on the forget set, and what these outputs may be."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import divergence, retain_loss
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Phase


@dataclass(frozen=True, kw_only=True)
class Distil(GradientMethod):
    r"""Teaches the model an output for every forget sample, and holds the retain set by its own term.

    .. math:: L = \lambda_r L_r + \lambda_f\, \mathrm{KL}(m_i \| p_\theta(x_i))

    The divergence is bounded from below and its gradient in the logits is p - m, so that it cannot run away. A pass
    goes over the retain set, the forget set begun again as often as needed.
    """

    retain_weight: float = hyper(1.0, "lambda_r", low=0)
    forget_weight: float = hyper(1.0, "lambda_f", low=0, search=(0.1, 10.0))

    @abstractmethod
    def targets(self, net: Net, task: Task, generator: torch.Generator) -> Tensor:
        """The distributions m ``(forget samples, classes)``, made once at the original weights."""

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The targets."""
        return {"targets": self.targets(net, task, generator).to(task.forget.x.dtype)}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Both terms at every step."""
        return [Phase("cycled", self.loss, self.epochs)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """The term of the retain set, and the divergence from the targets on forget samples."""
        keep = self.retain_term(net, batch, memo, stream)
        forget = divergence(memo["targets"][batch.forget.position], net(batch.forget.x))
        return self.retain_weight * keep + self.forget_weight * forget

    def retain_term(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """L_r: cross entropy under the labels."""
        return retain_loss(net, batch, memo, stream)


def taught(net: Net, x: Tensor, temperature: float = 1.0) -> Tensor:
    """The outputs ``(n, classes)`` of a teacher on samples ``(n, ...)``, softened by a temperature."""
    return torch.softmax(net.logits(x) / temperature, 1)


def masked(logits: Tensor, labels: Tensor) -> Tensor:
    """The softmax of ``(n, classes)`` with each row's label ``(n,)`` taken out and the rest renormalised."""
    return torch.softmax(logits.scatter(1, labels[:, None], -torch.inf), 1)


def masked_uniform(labels: Tensor, classes: int) -> Tensor:
    """Rows ``(n, classes)``, float64, that are uniform on every class but the row's label ``(n,)``."""
    return (1 - one_hot(labels, classes).double()) / (classes - 1)


def class_distribution(probabilities: Tensor, without: frozenset[int] = frozenset()) -> Tensor:
    """Mean of the rows of ``(n, classes)``, with some classes set to 0 and the rest renormalised."""
    marginal = probabilities.mean(0)
    marginal[sorted(without)] = 0
    return marginal / marginal.sum()
