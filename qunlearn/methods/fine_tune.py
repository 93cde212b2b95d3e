"""Fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.training.phases import Phase


@register
@dataclass(frozen=True, kw_only=True)
class FineTune(GradientMethod):
    r"""Trains on with the retain set only, and hopes that the rest is forgotten.

    .. math:: L = \mathrm{CE}(f(x_r), y_r)

    Forgets slowly: catastrophic forgetting is all it has.

    Source: the usual baseline, as in Golatkar et al. 2020, arXiv 1911.04933.
    """

    name: ClassVar[str] = "fine-tune"

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Descent on the retain set."""
        return [Phase("retain", retain_loss, self.epochs)]
