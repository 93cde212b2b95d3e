"""Boundary shrink: forget samples take the label that lies nearest across the decision boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from qunlearn.methods.distil import Distil
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import divergence
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import CHUNK, Net, evaluating
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class BoundaryShrink(Distil):
    r"""Trains every forget sample on its nearest incorrect label, found by one step against the original model.

    .. math:: x' = \operatorname{clamp}(x_f + \epsilon\, \operatorname{sign} \nabla_x \mathrm{CE}(f_{\theta_0}(x_f),
              y_f)), \qquad y' = \arg\max_{k \ne y_f} f_{\theta_0}(x')_k, \qquad L = \mathrm{CE}(f(x_f), y')

    The step is taken in the classical input, in the unit of the inputs; the clamp is to the range of the training
    inputs. The frozen original is differentiated in evaluation mode, once. Where the step does not cross the boundary
    the released code keeps the true label, which then is trained further; with ``exclude_true`` (the text's "nearest
    but incorrect") it takes the most likely other label there. Its rounding of inputs to 8 bits is left out. It sees
    no retain sample, as in the source; a `retain_weight` above 0 adds their cross entropy, one pass over the retain
    set an epoch.

    Source: Chen et al. 2023 (CVPR), arXiv 2303.11570.
    """

    name: ClassVar[str] = "boundary-shrink"
    retain_weight: float = hyper(
        0.0, "lambda_r, weight of the retain set's cross entropy", low=0, search=[0.0, 0.3, 1.0]
    )
    forget_weight: float = hyper(1.0, "lambda_f, weight of the new labels' cross entropy", low=0)
    step: float = hyper(0.1, "epsilon, length of the step, in the unit of the inputs", low=0, search=(0.01, 1.0))
    exclude_true: bool = hyper(True, "never take the true label")

    def targets(self, net: Net, task: Task, generator: torch.Generator) -> Tensor:
        """The nearest labels ``(forget samples, classes)``, one-hot."""
        low, high = (torch.stack([f(task.forget.x), f(task.retain.x)]) for f in (torch.min, torch.max))
        moved = stepped(net, task.forget.x, task.forget.y, self.step).clamp(low.min(), high.max())
        logits = net.logits(moved)
        if self.exclude_true:
            logits = logits.scatter(1, task.forget.y[:, None], -torch.inf)
        return one_hot(logits.argmax(1), logits.shape[1])

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Passes over the forget set, or with a retain term over the retain set."""
        return super().phases(model, task) if self.retain_weight else [Phase("forget", self.forget_loss, self.epochs)]

    def forget_loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Cross entropy under the new labels."""
        return self.forget_weight * divergence(memo["targets"][batch.forget.position], net(batch.forget.x))


def stepped(net: Net, x: Tensor, y: Tensor, length: float) -> Tensor:
    """Samples ``(n, ...)`` moved by one sign step that raises their cross entropy, in evaluation mode."""
    parts = []
    with evaluating(net.module):
        for rows, labels in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True):
            slope = net.input_gradient(lambda n, inputs, labels=labels: cross_entropy(n(inputs), labels), rows)  # type: ignore[misc]
            parts.append(rows + length * slope.sign())
    return torch.cat(parts)
