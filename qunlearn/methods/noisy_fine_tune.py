"""Fine-tuning with clipped, noisy gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import global_norm, retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Tensors
from qunlearn.training.phases import Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class NoisyFineTune(GradientMethod):
    r"""Fine-tunes on the retain set with the batch gradient clipped and Gaussian noise added to it.

    .. math:: g \leftarrow g \min(1, C / \|g\|_2) + \sigma\, N(0, I)

    **It certifies nothing.** arXiv 2512.19253 calls it "Certified", but the gradient is clipped as a batch and
    not per sample, the optimizer is adaptive, no account is kept, and the start depends on the forget set: no
    epsilon follows from it.

    Source: Crivoi & Ionescu 2025, arXiv 2512.19253, released code.
    """

    name: ClassVar[str] = "noisy-fine-tune"
    sigma: float = hyper(0.05, "standard deviation of the noise on each gradient entry", low=0, search=(0.001, 0.2))
    clip: float = hyper(1.0, "largest global L2 norm C of a batch gradient", low=0)

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Descent on the retain set by noisy gradients."""
        return [Phase("retain", retain_loss, self.epochs, transform=self.clip_and_add_noise)]

    def clip_and_add_noise(self, gradients: Tensors, memo: Memo, stream: Stream) -> Tensors:
        """The gradients scaled to norm C if they are longer, plus noise."""
        factor = (self.clip / (global_norm(gradients) + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
        noisy = {}
        for name, gradient in gradients.items():
            noisy[name] = gradient * factor + self.sigma * stream.normal(gradient)
        return noisy
