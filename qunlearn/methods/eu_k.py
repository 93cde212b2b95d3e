"""EU-k: exact unlearning of the last k stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from qunlearn.methods.base import GradientMethod
from qunlearn.methods.cf_k import last_stages
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models import reinitialise, stages
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
        """The model with its last stages drawn anew."""
        seed = int(torch.randint(2**62, (), generator=generator))
        fresh = reinitialise(model, seed).state_dict()
        state = model.state_dict()
        names = self._last_linears(model) if self.variant == "crivoi" else self._owned_by(model)
        model.load_state_dict({**state, **{name: fresh[name] for name in names}})
        return model

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Descent on the retain set."""
        moving = None if self.variant == "crivoi" else last_stages(model, self.k)
        return [Phase("retain", retain_loss, self.epochs, moving)]

    def _owned_by(self, model: nn.Module) -> list[str]:
        """Parameters and buffers of the modules of the last k stages."""
        last_stages(model, self.k)  # refuses a k that leaves nothing frozen
        owning = [stage for stage in stages(model) if stage.parameters][-self.k :]
        prefixes = tuple(f"{path}." for stage in owning for path in stage.modules)
        return [name for name in model.state_dict() if name.startswith(prefixes)]

    def _last_linears(self, model: nn.Module) -> list[str]:
        linears = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)][-self.k :]
        return [name for name in model.state_dict() if name.rpartition(".")[0] in linears]
