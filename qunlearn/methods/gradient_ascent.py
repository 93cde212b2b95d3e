"""Gradient ascent on the forget set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.losses import ascent_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.training.phases import Phase


@register
@dataclass(frozen=True, kw_only=True)
class GradientAscent(GradientMethod):
    r"""Climbs the loss of the forget set.

    .. math:: L = -\mathrm{CE}(f(x_f), y_f)

    Without a head, logits that are bare expectation values keep the loss below
    ln(1 + (K - 1) e^2); a linear head makes it unbounded, and the model collapses unless an early
    epoch is kept.

    Source: Golatkar et al. 2020, arXiv 1911.04933 ("negative gradient"); "GA" of Crivoi & Ionescu 2025,
    arXiv 2512.19253, is the same.
    """

    name: ClassVar[str] = "gradient-ascent"

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Ascent on the forget set."""
        return [Phase("forget", ascent_loss, self.epochs)]
