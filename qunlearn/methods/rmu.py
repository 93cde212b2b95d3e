"""RMU: representations of the forget set are led astray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from qunlearn.data import Dataset
from qunlearn.errors import InputError, UnknownNameError
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models import Stage, stages
from qunlearn.models.stream import Stream
from qunlearn.training.net import CHUNK, Net, evaluating
from qunlearn.training.phases import Batch, Memo, Phase


@register
@dataclass(frozen=True, kw_only=True)
class RMU(GradientMethod):
    r"""Leads the activations of forget samples at one stage to a random point, and holds those of retain samples.

    .. math:: L = \mathrm{MSE}(h_\theta(x_f), c\, u) + \alpha\, \mathrm{MSE}(h_\theta(x_r), h_{\theta_0}(x_r)),
              \qquad u = \frac{v}{\|v\|_2}, \quad v_k \sim U(0, 1)

    h is what a stage hands on (`qunlearn.stages`), flattened; MSE is the mean over samples and entries. Only that
    stage and the `moving` - 1 before it move; whatever comes after is bit-identical. u has no negative entry, and so
    is not isotropic. A circuit hands on expectation values in [-1, 1], where c u must lie within the cube: c is at
    most 1. The default stage is the circuit, or, without one that can move or with nothing before it that can, the
    last stage but one.

    The target is a place, not a label: where the layers behind call it by the label that was to be forgotten, accuracy
    stays. Knowledge stays recoverable: relearning and probes find it (the sources say so as well).

    Source: Li et al. 2024, arXiv 2403.03218 (WMDP), for language models; u as in open-unlearning, whose c is a
    fixed number for one model. The stage and the default c are adaptations.
    """

    name: ClassVar[str] = "rmu"
    epochs: int = hyper(10, "passes over the retain set", low=1)
    stage: str | None = hyper(None, "name of the stage whose activations move; none is the circuit")
    moving: int = hyper(3, "how many stages with parameters move, the misdirected one last", low=1)
    length: float | None = hyper(
        None, "c, length of the target; none is 1 at a circuit, elsewhere the mean length of retain activations", low=0
    )
    retain_weight: float = hyper(1.0, "alpha, weight of holding the retain activations", low=0, search=(0.1, 100.0))

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses a model without the stage, and a target outside a circuit's cube."""
        self.misdirected(model)

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The target ``(activations,)`` and the original's activations on the retain set."""
        stage = self.misdirected(net.module)
        retain = _activations(net, stage.name, task.retain.x)
        drawn = torch.rand(retain.shape[1], generator=generator, dtype=torch.float64).to(retain)
        length = retain.norm(dim=1).mean() if self.length is None else torch.tensor(self.length).to(retain)
        if self.length is None and stage.kind == "circuit":
            length = torch.ones_like(length)
        return {"target": length * drawn / drawn.norm(), "retain": retain, "stage": stage.name}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Both terms at every step, the stages up to the misdirected one moving."""
        owners = _owners(model)
        moving = self._moving(owners, owners.index(self.misdirected(model)))
        names = frozenset(name for stage in moving for name in stage.parameters)
        return [Phase("cycled", self.loss, self.epochs, names)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Misdirection of forget samples, and how far retain samples have strayed."""
        astray = net.stage(memo["stage"], batch.forget.x).flatten(1)
        held = net.stage(memo["stage"], batch.retain.x).flatten(1)
        away = mse_loss(astray, memo["target"].expand_as(astray))
        return away + self.retain_weight * mse_loss(held, memo["retain"][batch.retain.position])

    def misdirected(self, model: nn.Module) -> Stage:
        """The stage whose activations move.

        Raises:
            UnknownNameError: for a stage that the model lacks, or that has no parameters.
            InputError: where nothing that leads to the stage can move, and for a target outside a circuit's cube.
        """
        owners = _owners(model)
        place = self._default(model, owners)
        if self.stage is not None:
            names = [stage.name for stage in owners]
            if self.stage not in names:
                raise UnknownNameError("stage with parameters", self.stage, names)
            place = names.index(self.stage)
        if not _movable(model, self._moving(owners, place)):
            raise InputError(
                f"expected a stage that rmu can move, got {owners[place].name!r}, where all is frozen; "
                "name another stage, or raise moving"
            )
        if self.length is not None and self.length > 1 and owners[place].kind == "circuit":
            raise InputError(
                f"expected a length of at most 1 for a circuit's expectation values, got {self.length}; "
                "beyond that the target leaves the cube [-1, 1] that they live in"
            )
        return owners[place]

    def _moving(self, owners: Sequence[Stage], place: int) -> Sequence[Stage]:
        return owners[max(0, place + 1 - self.moving) : place + 1]

    def _default(self, model: nn.Module, owners: Sequence[Stage]) -> int:
        """The first circuit that can be moved, else the last such stage before the end, else the end."""
        circuits = [place for place, stage in enumerate(owners) if stage.kind == "circuit"]
        others = [*reversed(range(len(owners) - 1)), len(owners) - 1]
        places = [place for place in (*circuits, *others) if _movable(model, self._moving(owners, place))]
        return places[0] if places else len(owners) - 1


def _owners(model: nn.Module) -> list[Stage]:
    """The stages with parameters."""
    return [stage for stage in stages(model) if stage.parameters]


def _movable(model: nn.Module, chosen: Sequence[Stage]) -> bool:
    return any(model.get_parameter(name).requires_grad for stage in chosen for name in stage.parameters)


@torch.no_grad()
def _activations(net: Net, stage: str, x: Tensor) -> Tensor:
    """What the stage hands on for samples ``(n, ...)``, in evaluation mode: ``(n, activations)``."""
    with evaluating(net.module):
        return torch.cat([net.stage(stage, rows).flatten(1) for rows in torch.split(x, CHUNK)])
