"""No unlearning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from qunlearn.methods.base import Method
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work


@register
@dataclass(frozen=True, kw_only=True)
class NoUnlearning(Method):
    """The original model as it is: the baseline that every method has to beat.

    Source: none; leaving this baseline out is the flaw noted most often in published comparisons.
    """

    name: ClassVar[str] = "none"

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """The copy, unchanged."""
        return model
