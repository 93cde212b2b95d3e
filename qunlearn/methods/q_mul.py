"""Q-MUL: similar labels and reweighted gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import global_norm, mixed_labels
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net, evaluating
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class QMul(GradientMethod):
    r"""Trains forget samples on the label most like their own, both sets weighted by the other's gradients.

    .. math:: L = \operatorname{mean}_i w_i\, \mathrm{CE}(f(x_i), y'_i), \qquad
              y'_i = \arg\min_{c \ne y_i} |p_c(x_i) - p_{y_i}(x_i)| \ \text{on } D_f, \quad
              w_f = \frac{g_r}{g_f + g_r}, \ w_r = \frac{g_f}{g_f + g_r}

    g is the mean over batches of the sum of the gradients' L2 norms, tensor by tensor, on relabelled forget and
    on retain data. Labels and weights are taken anew every epoch, in evaluation mode. The Q stands for quantised
    networks: nothing in it is quantum. The released code loses an index when it removes the true label, and
    compares a logit with a probability; this is the definition.

    ``variant="crivoi"`` is the form of arXiv 2512.19253, which has the *opposite sign* on the forget term:
    ``L = CE_r - w CE(f(x_f), s(y_f))`` with ``w = alpha |grad CE_r| / |grad CE(f(x_f), s(y_f))|`` held constant and
    s(c) the class whose mean original logit over the retain set has the highest cosine similarity to c's. It
    pushes forget samples away from the similar label; kept for comparison only.

    Source: Tong et al. 2025, arXiv 2503.13917.
    """

    name: ClassVar[str] = "q-mul"
    alpha: float = hyper(1.0, "crivoi: weight of the forget term", low=0)
    variant: Literal["tong", "crivoi"] = hyper("tong", "whose form", choices=("tong", "crivoi"))

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The two sets; for crivoi the similar class of every class ``(classes,)``."""
        memo: Memo = {"forget": task.forget, "retain": task.retain}
        memo["batch"] = self.batch_size or (task.recipe.batch_size if task.recipe else 32)
        if self.variant == "crivoi":
            memo["similar"] = similar_classes(net.logits(task.retain.x), task.retain.y)
        return memo

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Both sets mixed, or the paper's paired step."""
        if self.variant == "crivoi":
            return [Phase("paired", self.opposed_loss, self.epochs)]
        return [Phase("mixed", self.loss, self.epochs, refresh=self.relabel)]

    def relabel(self, net: Net, memo: Memo, stream: Stream) -> Memo:
        """The memo with this epoch's similar labels ``(forget samples,)`` and weights."""
        forget, retain = memo["forget"], memo["retain"]
        labels = similar_labels(torch.softmax(net.logits(forget.x), 1), forget.y)
        of_forget = _mean_gradient_norm(net, forget.x, labels, memo["batch"])
        of_retain = _mean_gradient_norm(net, retain.x, retain.y, memo["batch"])
        total = of_forget + of_retain
        return {**memo, "labels": labels, "forget_weight": of_retain / total, "retain_weight": of_forget / total}

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Weighted cross entropy over the mixed batch."""
        of_forget = batch.mixed.position < len(memo["labels"])
        weights = torch.where(of_forget, memo["forget_weight"], memo["retain_weight"])
        losses = cross_entropy(net(batch.mixed.x), mixed_labels(batch.mixed, memo["labels"]), reduction="none")
        return (weights * losses).mean()

    def opposed_loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """The paper's difference, weighted by the ratio of gradient norms."""

        def retained(n: Net) -> Tensor:
            return cross_entropy(n(batch.retain.x), batch.retain.y)

        def similar(n: Net) -> Tensor:
            return cross_entropy(n(batch.forget.x), memo["similar"][batch.forget.y])

        ratio = global_norm(net.gradient(retained)) / (global_norm(net.gradient(similar)) + 1e-12)
        return retained(net) - self.alpha * ratio.detach() * similar(net)


def similar_labels(probabilities: Tensor, labels: Tensor) -> Tensor:
    """For every row of ``(n, classes)`` the class, other than the label, whose probability is nearest to its."""
    distance = (probabilities - probabilities.gather(1, labels[:, None])).abs()
    return distance.scatter(1, labels[:, None], torch.inf).argmin(1)


def similar_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """For every class the other class of highest cosine similarity between mean logits; ties to the lowest.

    A class without samples has a zero mean, and so similarity 0 to every other.
    """
    classes = logits.shape[1]
    member = torch.nn.functional.one_hot(labels, classes).to(logits)
    means = member.T @ logits / member.sum(0).clamp(min=1)[:, None]
    likeness = cosine_similarity(means[:, None], means[None], dim=2)
    likeness.fill_diagonal_(-torch.inf)
    return likeness.argmax(1)


def _mean_gradient_norm(net: Net, x: Tensor, y: Tensor, size: int) -> Tensor:
    norms = []
    with evaluating(net.module):
        for part, labels in zip(torch.split(x, size), torch.split(y, size), strict=True):
            gradients = net.gradient(lambda n, part=part, labels=labels: cross_entropy(n(part), labels))  # type: ignore[misc]
            norms.append(torch.stack([g.norm() for g in gradients.values()]).sum())
    return torch.stack(norms).mean()
