"""Bad teacher: an untrained network teaches the forget set, the original the retain set."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from qunlearn.methods.distil import taught
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import divergence
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.initialise import redraw
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class BadTeacher(GradientMethod):
    r"""Follows an incompetent teacher on forget samples and a competent one on retain samples.

    .. math:: L = \operatorname{mean}_i \mathrm{KL}\!\left( l_i\, \sigma(z^-_i / T) + (1 - l_i)\, \sigma(z^+_i / T)
              \,\middle\|\, \sigma(z_i / T) \right), \qquad l_i = [x_i \in D_f]

    sigma is the softmax, z the student's logits, z+ those of the original model and z- those of a network of the same
    architecture with freshly drawn weights (what its encoder learnt from data, such as principal components, stays:
    without it the network would not run). A pass goes over the whole forget set and a share of the retain set, shuffled
    together; the share is drawn anew for every pass (the source draws it once, for one pass).

    An untrained circuit's expectation values lie near 0, so that its outputs are near uniform: the constant outputs
    that attacks on confidence recognise. Forget accuracy ends at the share of forget samples that the untrained network
    happens to call by their label, about 1 / K and often more for a single class; it does not go to 0 by itself.

    Source: Chundawat et al. 2023, arXiv 2205.08096, and the authors' code.
    """

    name: ClassVar[str] = "bad-teacher"
    epochs: int = hyper(10, "passes over the forget set and a share of the retain set", low=1)
    retain_share: float = hyper(0.3, "share of the retain set in a pass, 0 to 1", low=0, high=1, search=[0.3, 0.6, 1.0])
    temperature: float = hyper(1.0, "T, softens the probabilities", low=0.01, search=(0.5, 4.0))

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """What the teachers say, the incompetent one of the forget set, then the competent one of the retain set."""
        incompetent = copy.deepcopy(net.module)
        redraw(incompetent, int(torch.randint(2**62, (), generator=generator)))
        bad = taught(Net(incompetent, net.counts), task.forget.x, self.temperature)
        return {"targets": torch.cat([bad, taught(net, task.retain.x, self.temperature)])}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Both sets, shuffled together."""
        return [Phase("mixed", self.loss, self.epochs, retain_share=self.retain_share)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """The divergence of the student from each sample's teacher."""
        return divergence(memo["targets"][batch.mixed.position], net(batch.mixed.x), self.temperature)
