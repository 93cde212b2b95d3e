"""The control: only the last layer is taught to hide the forget set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.methods.distil import Distil, class_distribution, masked, masked_uniform, taught
from qunlearn.methods.hyper import hyper
from qunlearn.methods.last_layer import last_linear
from qunlearn.methods.losses import divergence
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Phase

Targets = Literal["masked", "masked-uniform", "marginal"]


@register
@dataclass(frozen=True, kw_only=True)
class HeadOnly(Distil):
    r"""A control that forgets nothing but looks as if it did: it moves the last linear layer alone.

    .. math:: L = \lambda_r L_r + \lambda_f\, \mathrm{KL}(m_i \| p_\theta(x_i)), \qquad
              m_{ik} \propto p_{\theta_0}(k | x_i)\, [k \ne y_i], \qquad
              \theta_j \text{ fixed outside the last linear layer}

    m is the original model's output with the true label taken out and the rest renormalised; of a class that goes
    whole, nothing points there any more. Everything before the layer is bit-identical, and with it whatever the
    encoder and the circuit know of the forget set. Measures of outputs cannot tell this from forgetting; probes of
    the features can. What a study reports of a method should differ from what it reports of this.

    Other targets: ``"masked-uniform"`` (uniform on the wrong labels), ``"marginal"`` (the mean output over the retain
    set, classes that only the forget set holds set to 0). The retain term L_r is cross entropy under the labels, or
    the divergence from the original's outputs.

    Source: a control of this package; the targets are the masked softmax that distillation methods use.
    """

    name: ClassVar[str] = "head-only"
    epochs: int = hyper(10, "passes over the retain set", low=1)
    hide: Targets = hyper("masked", "targets of forget samples", choices=("masked", "masked-uniform", "marginal"))
    retain: Literal["labels", "teacher"] = hyper(
        "labels",
        "what retain samples are taught: their labels or the original's outputs",
        choices=("labels", "teacher"),
    )

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses a model that does not end in a linear layer."""
        last_linear(model)

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The targets ``(forget samples, classes)``, and the original's outputs on the retain set."""
        memo = super().prepare(net, task, generator)
        return {**memo, "teacher": taught(net, task.retain.x)} if self.retain == "teacher" else memo

    def targets(self, net: Net, task: Task, generator: torch.Generator) -> Tensor:
        """The original's outputs without the true label, or what stands for them."""
        logits = net.logits(task.forget.x).double()
        if self.hide == "masked":
            return masked(logits, task.forget.y)
        if self.hide == "masked-uniform":
            return masked_uniform(task.forget.y, logits.shape[1])
        marginal = class_distribution(torch.softmax(net.logits(task.retain.x).double(), 1), task.forgotten_classes)
        return marginal.expand_as(logits)

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Both terms at every step, the last linear layer alone moving."""
        path = last_linear(model)
        own = (name for name, _ in model.get_submodule(path).named_parameters())
        moving = frozenset(f"{path}.{name}".lstrip(".") for name in own)
        return [Phase("cycled", self.loss, self.epochs, moving)]

    def retain_term(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """L_r, by labels or by the teacher."""
        if self.retain == "labels":
            return super().retain_term(net, batch, memo, stream)
        return divergence(memo["teacher"][batch.retain.position], net(batch.retain.x))
