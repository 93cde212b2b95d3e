"""EU-k: exact unlearning of the last k stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from qunlearn.methods.cf_k import checked_stages, last_stages
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models import reinitialise
from qunlearn.models.initialise import redraw
from qunlearn.training.phases import Phase


@register
@dataclass(frozen=True, kw_only=True)
class EUK(GradientMethod):
    r"""Draws the last k stages anew and trains only these on the retain set; everything before is frozen.

    .. math:: L = \mathrm{CE}(f(x_r), y_r), \qquad \theta_{\text{last } k} \leftarrow \text{fresh},
              \quad \text{the rest fixed}

    Exact for the stages drawn anew, given the frozen ones; those keep what they know.

    ``variant="crivoi"`` is what arXiv 2512.19253 runs under this name: it draws the last k *linear layers* anew
    (norm layers are left) and fine-tunes *all* parameters.

    Source: Goel et al. 2022, arXiv 2201.06640 (EU-k), and the authors' code.
    """

    name: ClassVar[str] = "eu-k"
    epochs: int = hyper(10, "passes over the retain set", low=1)
    k: int = hyper(1, "how many stages (crivoi: linear layers)", low=1)
    variant: Literal["goel", "crivoi"] = hyper("goel", "whose form", choices=("goel", "crivoi"))

    def start(self, model: nn.Module, task: Task, generator: torch.Generator) -> nn.Module:
        """The model with its last stages, or linear layers, drawn anew."""
        seed = int(torch.randint(2**62, (), generator=generator))
        if self.variant == "goel":
            return reinitialise(model, seed, only=[stage.name for stage in checked_stages(model, self.k)[-self.k :]])
        redraw(model, seed, [name for name, part in model.named_modules() if isinstance(part, nn.Linear)][-self.k :])
        return model

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Descent on the retain set."""
        moving = None if self.variant == "crivoi" else last_stages(model, self.k)
        return [Phase("retain", retain_loss, self.epochs, moving)]
