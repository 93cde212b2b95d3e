"""Random labels for the forget set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import mixed_labels, retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class RandomLabel(GradientMethod):
    r"""Trains the forget samples on labels drawn at random, and the retain samples on their own.

    .. math:: L = \mathrm{CE}(f(x), y'), \qquad y' \sim U(\{1..K\} \setminus y)\ \text{on } D_f,
              \quad y' = y\ \text{on } D_r

    Published codes differ in three points, which are options here: whether the true label may be drawn, whether
    labels are drawn anew every epoch (a label drawn once is memorised), and whether both sets are shuffled
    together or taken in turn (a forget epoch, then a retain epoch).

    Source: Golatkar et al. 2020, arXiv 1911.04933; Graves et al. 2021, arXiv 2010.10981 (mixed); Fan et al.
    2024, arXiv 2310.12508 (in turn).
    """

    name: ClassVar[str] = "random-label"
    exclude_true: bool = hyper(True, "never draw the true label")
    redraw: bool = hyper(True, "draw new labels every epoch")
    schedule: Literal["mixed", "alternate"] = hyper("mixed", "sets together or in turn", choices=("mixed", "alternate"))

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The true labels, the number of classes, and a first draw."""
        classes = net.logits(task.retain.x[:1]).shape[1]
        return self.draw(net, {"true": task.forget.y, "classes": classes}, Stream(generator))

    def draw(self, net: Net, memo: Memo, stream: Stream) -> Memo:
        """The memo with new labels ``(forget samples,)``."""
        true, classes = memo["true"], memo["classes"]
        if self.exclude_true:
            labels = (true + stream.integers(1, classes, true)) % classes
        else:
            labels = stream.integers(0, classes, true)
        return {**memo, "labels": labels}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Both sets together, or in turn."""
        refresh = self.draw if self.redraw else None
        if self.schedule == "mixed":
            return [Phase("mixed", self.mixed_loss, self.epochs, refresh=refresh)]
        turn = [Phase("forget", self.forget_loss, refresh=refresh, candidate=False), Phase("retain", retain_loss)]
        return turn * self.epochs

    def mixed_loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Cross entropy over the whole batch, forget samples under their drawn labels."""
        return cross_entropy(net(batch.mixed.x), mixed_labels(batch.mixed, memo["labels"]))

    def forget_loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Cross entropy of forget samples under their drawn labels."""
        return cross_entropy(net(batch.forget.x), memo["labels"][batch.forget.position])
