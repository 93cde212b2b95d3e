"""CF-k: catastrophic forgetting in the last k stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from qunlearn.errors import InputError
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import ascent_loss, retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models import Stage, stages
from qunlearn.training.phases import Phase


@register
@dataclass(frozen=True, kw_only=True)
class CFK(GradientMethod):
    r"""Fine-tunes the last k stages on the retain set; everything before them is frozen.

    .. math:: L = \mathrm{CE}(f(x_r), y_r), \qquad \theta_j \text{ fixed outside the last } k \text{ stages}

    Stages are those of `qunlearn.stages`, such as cnn, to_angles, circuit, fc1, fc2. What is frozen keeps
    what it knows.

    ``variant="crivoi"`` is what arXiv 2512.19253 runs under this name: it freezes the *first* k stages (norm
    layers never) and climbs the forget loss with the rest.

    Source: Goel et al. 2022, arXiv 2201.06640 (CF-k), and the authors' code.
    """

    name: ClassVar[str] = "cf-k"
    k: int = hyper(1, "how many stages", low=1)
    variant: Literal["goel", "crivoi"] = hyper("goel", "whose form", choices=("goel", "crivoi"))

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Descent on the retain set, or ascent on the forget set, with part of the model frozen."""
        if self.variant == "goel":
            return [Phase("retain", retain_loss, self.epochs, last_stages(model, self.k))]
        return [Phase("forget", ascent_loss, self.epochs, self._beyond_first(model))]

    def _beyond_first(self, model: nn.Module) -> frozenset[str]:
        frozen = {
            name
            for stage in checked_stages(model, self.k)[: self.k]
            for name in stage.parameters
            if not _norm(model, name)
        }
        return frozenset(name for name, _ in model.named_parameters()) - frozen


def last_stages(model: nn.Module, k: int) -> frozenset[str]:
    """Full names of the parameters of the last k stages."""
    return frozenset(name for stage in checked_stages(model, k)[-k:] for name in stage.parameters)


def checked_stages(model: nn.Module, k: int) -> tuple[Stage, ...]:
    """The stages of a model that own parameters, if there are k of them and one more."""
    found = tuple(stage for stage in stages(model) if stage.parameters)
    if k >= len(found):
        raise InputError(
            f"expected k below the number of stages with parameters ({len(found)}: "
            f"{', '.join(stage.name for stage in found)}), got {k}"
        )
    return found


def _norm(model: nn.Module, parameter: str) -> bool:
    return isinstance(model.get_submodule(parameter.rpartition(".")[0]), nn.modules.batchnorm._NormBase)
