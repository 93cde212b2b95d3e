"""Distribution-guided unlearning: a chosen output for what must go, under a constraint on anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import divergence
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class DistributionGuided(GradientMethod):
    r"""Leads a class to the classes that it resembles, while anchors of the retain set keep their outputs.

    .. math:: \min_\theta \operatorname{mean}_{x \in D_f} \mathrm{KL}(q \| p_\theta(x)) \quad\text{subject to}\quad
              a(\theta) = \operatorname{mean}_{x \in A} \mathrm{KL}(p_{\theta_0}(x) \| p_\theta(x)) \le \epsilon

    .. math:: q_c = (1 - \beta)\, \frac{s_c^{1/\tau}}{\sum_d s_d^{1/\tau}} + \frac{\beta}{K'}, \quad q_f = 0, \qquad
              L = \mathrm{KL} + \mu\,(a - \epsilon), \quad \mu \leftarrow \max(0, \mu + \eta\,(a - \epsilon))

    s_c is the original's mean probability of class c on the class's forget samples, or with ``similarity="cosine"``
    half of 1 + the cosine of the angle between the mean logits of the forget samples and of class c's retained ones. K'
    counts the classes that q may point to: retained ones other than the sample's own. beta = 1 is the uniform baseline,
    whose forget term is that of `lca` but for a constant (one class deleted).

    Descent takes the forget set in batches, and with each a draw (with replacement) of the anchors, which are chosen
    once, the classes in turn. The dual step is taken at the start of every epoch, with a measured on all anchors in
    evaluation mode.

    Published for deleting a class. The reading for other requests: every sample gets the q of its own label, with
    similarities from the forget samples of that label. That drives a random subset below what retrained models show, as
    `lca` does, and a sample with a wrong label to the classes that this label is likened to, its true one or not.

    Nothing in the objective needs a circuit; it was published for variational classifiers, and any model may take it.
    An epoch costs as many gradient evaluations as there are forget samples and anchors drawn, and one forward pass over
    the anchors.

    Source: Malik, Khalid and Faryad 2026, arXiv 2601.04413. Its body was not at hand: the idea (similarity-based
        targets, anchors, Lagrangian) is theirs, the formulas are our reconstruction.
    """

    name: ClassVar[str] = "distribution-guided"
    strategy = "can erase by re-uploading or encoder"
    epochs: int = hyper(40, "passes over the forget set", low=1)
    beta: float = hyper(0.0, "share of the uniform distribution in q", low=0, high=1, search=[0.0, 0.5, 1.0])
    temperature: float = hyper(1.0, "tau: below 1 q points to fewer classes", low=1e-3)
    similarity: Literal["probability", "cosine"] = hyper(
        "probability", "what likens classes: outputs, or mean logits", choices=("probability", "cosine")
    )
    anchors: int = hyper(256, "samples of the retain set whose outputs are held", low=1)
    anchor_batch: int = hyper(32, "anchors drawn at every step", low=1)
    epsilon: float = hyper(0.01, "divergence in nats that anchors may show on average", low=0, search=(0.001, 0.1))
    multiplier: float = hyper(3.0, "mu to begin with", low=0)
    dual_rate: float = hyper(5.0, "eta of the dual step, per nat; 0 leaves mu as it is", low=0)

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The targets ``(forget samples, classes)``, the anchors with their outputs, and mu."""
        chosen = anchored(task.retain.y, self.anchors, generator)
        anchors = task.retain.x[chosen]
        teacher = torch.softmax(net.logits(anchors), 1)
        targets = self.targets(net, task).to(teacher)
        mu = torch.full((), self.multiplier, dtype=teacher.dtype, device=teacher.device)
        return {"targets": targets, "anchors": anchors, "teacher": teacher, "mu": mu}

    def targets(self, net: Net, task: Task) -> Tensor:
        """Q of every forget sample, ``(forget samples, classes)``, float64."""
        logits, labels = net.logits(task.forget.x).double(), task.forget.y
        means = self._retained_means(net, task, logits) if self.similarity == "cosine" else None
        allowed = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        allowed[sorted(task.forgotten_classes)] = False
        found = torch.empty_like(logits)
        for label in sorted(set(labels.tolist())):
            rows, others = logits[labels == label], allowed.clone()
            others[label] = False
            if not bool(others.any()):  # two classes, one of them deleted and one partly: nothing retained is left
                others = torch.arange(len(allowed), device=allowed.device) != label
            scores = log_similarity(rows) if means is None else _log_cosine(rows.mean(0), means)
            guided = torch.softmax((scores / self.temperature).masked_fill(~others, -torch.inf), 0)
            found[labels == label] = (1 - self.beta) * guided + self.beta * others.double() / others.sum()
        return found

    def _retained_means(self, net: Net, task: Task, like: Tensor) -> Tensor:
        """Mean logits of the retained samples of every class, ``(classes, classes)``; 0 where there are none."""
        logits, labels = net.logits(task.retain.x).double(), task.retain.y
        sums = torch.zeros(like.shape[1], like.shape[1], dtype=like.dtype, device=like.device)
        sums.index_add_(0, labels, logits)
        return sums / labels.bincount(minlength=len(sums)).clamp(min=1)[:, None]

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Passes over the forget set, a dual step before each."""
        return [Phase("forget", self.loss, self.epochs, refresh=self.dual_step)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """The Lagrangian, on a batch of the forget set and a draw of the anchors."""
        drawn = stream.integers(0, len(memo["teacher"]), batch.forget.y.new_empty(self.anchor_batch))
        logits = net(torch.cat([batch.forget.x, memo["anchors"][drawn]]))
        number = len(batch.forget.y)
        forget = divergence(memo["targets"][batch.forget.position], logits[:number])
        found: Tensor = forget + memo["mu"] * (divergence(memo["teacher"][drawn], logits[number:]) - self.epsilon)
        return found

    def dual_step(self, net: Net, memo: Memo, stream: Stream) -> Memo:
        """The memo with mu moved by how far the anchors exceed, or keep within, what they may show."""
        excess = divergence(memo["teacher"], net.logits(memo["anchors"])) - self.epsilon
        return {**memo, "mu": (memo["mu"] + self.dual_rate * excess).clamp(min=0)}


def log_similarity(logits: Tensor) -> Tensor:
    """Ln of the mean probability of every class, from rows of logits ``(n, classes)``."""
    return torch.logsumexp(log_softmax(logits, 1), 0)


def anchored(labels: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Positions, in order, of so many samples (at most all) with labels ``(n,)``: drawn at random, class by class."""
    shuffled = torch.randperm(len(labels), generator=generator).to(labels.device)
    turn = torch.empty_like(shuffled)
    for label in set(labels.tolist()):
        own = shuffled[labels[shuffled] == label]
        turn[own] = torch.arange(len(own), device=labels.device)
    return shuffled[turn[shuffled].argsort(stable=True)][:number].sort().values


def _log_cosine(mean: Tensor, means: Tensor) -> Tensor:
    """Ln of (1 + cosine) / 2 between a vector ``(classes,)`` and rows ``(classes, classes)``."""
    cosine = normalize(means, dim=1) @ normalize(mean, dim=0)
    return ((1 + cosine) / 2).clamp(min=torch.finfo(cosine.dtype).tiny).log()
