"""SCRUB: a student that obeys its teacher on the retain set and disobeys on the forget set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from qunlearn.errors import InputError
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import divergence
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Phase
from qunlearn.training.selection import Rule, keep_matched_error

FLOOR = 1e-8  # of probabilities, in the paper's variant


@register
@dataclass(frozen=True, kw_only=True)
class Scrub(GradientMethod):
    r"""Alternates epochs that leave the teacher on the forget set with epochs that follow it on the retain set.

    .. math:: \text{max step: } L = -T^2\, \mathrm{KL}(p_{\theta_0}(x_f) \| p_\theta(x_f)), \qquad
              \text{min step: } L = \alpha\, T^2\, \mathrm{KL}(p_{\theta_0}(x_r) \| p_\theta(x_r))
              + \gamma\, \mathrm{CE}(f(x_r), y_r)

    The teacher is the frozen original model; probabilities are taken at temperature T. Each of the first
    `max_epochs` epochs opens with a max step over the forget set; every epoch has a min step over the retain set.
    With ``rewind`` (SCRUB+R) the epoch is kept whose forget error is nearest to the error on validation samples
    of the same class mix, the untouched model included.

    ``variant="crivoi"`` is the form of arXiv 2512.19253: one joint step
    ``alpha KL_r - beta KL_f`` with clamped probabilities, no temperature, no task term, until the forget set
    ends. Its "SCRUB(+R)" stores a checkpoint that is never loaded, so that ``rewind`` changes nothing there but the
    random stream.

    ``variant="chen-zhang"`` is the form of arXiv 2508.02422 as released: one joint step
    ``gamma CE_r + alpha K_r - beta K_f``, one pass over the retain set an epoch, the forget set begun again as often
    as needed (there whole at every step). K is no divergence: of the two classes it takes the second one's term
    ``p log(p / q)`` alone, and ``- beta K_f`` has no lower bound.

    Source: Kurmanji et al. 2023, arXiv 2302.09880, and the authors' code.
    """

    name: ClassVar[str] = "scrub"
    epochs: int = hyper(10, "epochs with a min step", low=1)
    max_epochs: int = hyper(3, "how many of them open with a max step", low=0)
    alpha: float | None = hyper(
        None, "weight of following the teacher; none is 0.5 (crivoi: 1, chen-zhang: 0)", low=0, search=(0.05, 5.0)
    )
    gamma: float = hyper(1.0, "weight of the task loss", low=0, search=(0.1, 10.0))
    temperature: float = hyper(2.0, "softens the probabilities", low=0.01)
    rewind: bool = hyper(False, "keep the epoch that matches the validation error")
    beta: float = hyper(1.5, "joint step: weight of leaving the teacher", low=0)
    variant: Literal["kurmanji", "crivoi", "chen-zhang"] = hyper(
        "kurmanji", "whose form", choices=("kurmanji", "crivoi", "chen-zhang")
    )

    def rule(self, task: Task) -> Rule:
        """The rewind's rule, or the protocol's."""
        if not self.rewind or self.variant == "crivoi":
            return super().rule(task)
        if task.validation is None:
            raise InputError("expected a validation set for scrub with rewind, got none; pass validation=")
        return keep_matched_error

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The teacher's probabilities on both sets, ``(samples, classes)``: computed once, no second model."""
        soft = self.temperature if self.variant == "kurmanji" else 1.0
        return {
            "forget": torch.softmax(net.logits(task.forget.x) / soft, 1),
            "retain": torch.softmax(net.logits(task.retain.x) / soft, 1),
        }

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Max and min epochs in turn, or the joint step."""
        if self.variant == "crivoi":
            return [Phase("paired", self.joint_loss, self.epochs)]
        if self.variant == "chen-zhang":
            return [Phase("cycled", self.one_sided_loss, self.epochs)]
        opening = min(self.max_epochs, self.epochs)
        turn = [Phase("forget", self.max_loss, candidate=False), Phase("retain", self.min_loss)]
        return turn * opening + [Phase("retain", self.min_loss, self.epochs - opening)]

    def max_loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Minus the divergence from the teacher on forget samples."""
        targets = memo["forget"][batch.forget.position]
        return -(self.temperature**2) * divergence(targets, net(batch.forget.x), self.temperature)

    def min_loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Divergence from the teacher on retain samples, and their task loss."""
        logits = net(batch.retain.x)
        follow = self.temperature**2 * divergence(memo["retain"][batch.retain.position], logits, self.temperature)
        return self._alpha * follow + self.gamma * cross_entropy(logits, batch.retain.y)

    def joint_loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """The paper's one step."""
        obey = _clamped_divergence(memo["retain"][batch.retain.position], net(batch.retain.x))
        disobey = _clamped_divergence(memo["forget"][batch.forget.position], net(batch.forget.x))
        return self._alpha * obey - self.beta * disobey

    def one_sided_loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """The one step of Chen and Zhang."""
        retain, forget = net(batch.retain.x), net(batch.forget.x)
        obey = _last_term(memo["retain"][batch.retain.position], retain)
        disobey = _last_term(memo["forget"][batch.forget.position], forget)
        return self.gamma * cross_entropy(retain, batch.retain.y) + self._alpha * obey - self.beta * disobey

    @property
    def _alpha(self) -> float:
        usual = {"kurmanji": 0.5, "crivoi": 1.0, "chen-zhang": 0.0}
        return usual[self.variant] if self.alpha is None else self.alpha


def _clamped_divergence(targets: Tensor, logits: Tensor) -> Tensor:
    """KL(targets || softmax(logits)) with both clamped from below, the mean over rows."""
    p, q = targets.clamp(min=FLOOR), torch.softmax(logits, 1).clamp(min=FLOOR)
    return (p * (p.log() - q.log())).sum(1).mean()


def _last_term(targets: Tensor, logits: Tensor) -> Tensor:
    """The mean over rows of p log(p / q) of the last class; p are the targets, q = softmax(logits)."""
    p = targets[:, -1]
    return (torch.xlogy(p, p) - p * log_softmax(logits, 1)[:, -1]).mean()
