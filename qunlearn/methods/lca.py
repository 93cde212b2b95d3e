"""LCA: label complements for the forget set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net, evaluating
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class LCA(GradientMethod):
    r"""Teaches every wrong label of a forget sample equally.

    .. math:: L = \mathrm{CE}(f(x_r), y_r) + \frac{\beta}{K - 1} \sum_{c \ne y_f} \mathrm{CE}(f(x_f), c)

    The forget term is distillation to the distribution that is uniform on wrong labels and 0 on the true one. It
    drives forget accuracy below what a retrained model shows: right for deleting a class, wrong for deleting a
    random subset.

    The released code pairs every forget sample with each of its K - 1 wrong labels, shuffles these, and takes them
    in batches beside the retain set's; ``replicate=True`` does so. The default takes the sum at every sample:
    the same expectation, K - 1 times fewer circuits.

    Source: Crivoi & Ionescu 2025, arXiv 2512.19253 (label-complement augmentation).
    """

    name: ClassVar[str] = "lca"
    beta: float = hyper(1.0, "weight of the complement term", low=0, search=(0.1, 10.0))
    replicate: bool = hyper(False, "one wrong label at a time, as in the released code")

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The number of wrong labels."""
        return {"wrong": net.logits(task.retain.x[:1]).shape[1] - 1}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """One pass over the retain set, the complement set begun again as often as needed."""
        if not self.replicate:
            return [Phase("cycled", self.loss, self.epochs)]
        classes = _outputs(model, task) - 1
        return [Phase("cycled", self.replicated_loss, self.epochs, forget_copies=classes)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Retain loss plus the mean over all wrong labels."""
        log_outputs = log_softmax(net(batch.forget.x), 1)
        wrong = log_outputs.sum(1) - log_outputs.gather(1, batch.forget.y[:, None]).squeeze(1)
        spread: Tensor = self.beta * wrong.mean() / memo["wrong"]
        return retain_loss(net, batch, memo, stream) - spread

    def replicated_loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Retain loss plus the loss under one wrong label a sample; copy k of a sample has its k-th wrong one."""
        copy = batch.forget.position % memo["wrong"]
        labels = copy + (copy >= batch.forget.y).long()
        return retain_loss(net, batch, memo, stream) + self.beta * cross_entropy(net(batch.forget.x), labels)


@torch.no_grad()
def _outputs(model: nn.Module, task: Task) -> int:
    with evaluating(model):
        return int(model(task.retain.x[:1]).shape[1])
