"""Sensitivity-guided noise: circuit angles disturbed by what the forget samples do to them, then a repair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.methods import curvature
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.in_circuit import circuit_in
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net, Tensors
from qunlearn.training.phases import Memo, Phase

STEPS = ((0.7, 0.5), (0.3, 0.35), (-math.inf, 0.2))  # c for sensitivities above each, as published


@register
@dataclass(frozen=True, kw_only=True)
class SensitivityNoise(GradientMethod):
    r"""Adds noise to the circuit's angles, more for forget samples whose loss they move more, and repairs.

    .. math:: s_i = \|\nabla_\theta \mathrm{CE}(f(x_i), y_i)\|_2 \text{ scaled to } [0, 1], \qquad
              b_i = B\, \frac{s_i}{\sum_j s_j}, \qquad
              \theta \leftarrow \theta + \sum_{i \in D_f} N(0, (b_i c_i)^2 I), \qquad
              c_i = 0.5,\ 0.35,\ 0.2 \text{ for } s_i > 0.7,\ > 0.3,\ \text{else}

    Then fine-tuning on the retain set, of all parameters. Noise goes to every trained angle of the circuit: the
    source's models have no other parameters, and only an angle, on which outputs depend through sines, is blurred by
    noise of a given width in the same way whatever it is worth. The source adds the samples' noise one after another;
    its sensitivities are taken once, so that this is one draw of variance ``sum_i (b_i c_i)^2``. Its loss is the
    squared error of +-1; here it is the cross entropy of the task. Where all sensitivities are equal, so are the
    budgets.

    **The budget B is no privacy guarantee.** The source calls it epsilon, but more of it means more noise,
    sensitivities are those of one model and no bounds, and no epsilon of differential privacy follows.

    In the source only the method itself is repaired, and its rivals are not. ``noise`` gives these the same repair:
    ``"uniform"`` (the same budget B / n for every sample, with its c), ``"once"`` (one draw of width `deviation`),
    ``"none"`` (the repair alone). The model between noise and repair is no candidate.

    Cost: the gradient of every forget sample once, that of at most two retain samples where the noise is put in place,
    and the retain set once an epoch.

    Source: Masud et al. 2026 (SQU, poster at QPAIN), and the authors' code; the repair for all is ours.
    """

    name: ClassVar[str] = "sensitivity-noise"
    strategy = "can erase by re-uploading or encoder"
    epochs: int = hyper(5, "repair: passes over the retain set", low=1)
    noise: Literal["sensitivity", "uniform", "once", "none"] = hyper(
        "sensitivity", "what sets its width", choices=("sensitivity", "uniform", "once", "none")
    )
    budget: float = hyper(
        1.0, "B, radians dealt out among the forget samples; no privacy budget", low=0, search=(0.1, 10.0)
    )
    deviation: float = hyper(0.3, "once: standard deviation of the noise, radians", low=0)

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses models without one circuit whose angles are trained."""
        circuit_in(model, self.name)

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The disturbed angles, radians."""
        name, _ = circuit_in(net.module, self.name)
        return {"disturbed": _blurred(net.parameters[name], self.width(net, task), generator)}

    def width(self, net: Net, task: Task) -> float:
        """The standard deviation of the noise on each angle, radians."""
        if self.noise in ("once", "none"):
            return self.deviation if self.noise == "once" else 0.0
        return width_of(scaled(self.sensitivities(net, task)), self.budget, equal=self.noise == "uniform")

    def sensitivities(self, net: Net, task: Task) -> Tensor:
        """The norm of every forget sample's gradient by the angles, ``(forget samples,)``, float64."""
        name, _ = circuit_in(net.module, self.name)
        parts = curvature.sample_gradients(net, task.forget.x, task.forget.y)
        return torch.cat([part[name].double().flatten(1).norm(dim=1) for part in parts])

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """A phase that puts the noise in place, and learns nothing; then the repair."""
        name, _ = circuit_in(model, self.name)
        repair = Phase("retain", retain_loss, self.epochs)
        if self.noise == "none":
            return [repair]
        two = min(1.0, 2 / len(task.retain))  # samples are enough where nothing is learnt
        place = Phase(
            "retain", retain_loss, 1, frozenset({name}), candidate=False, retain_share=two, rate=0.0, project=self.place
        )
        return [place, repair]

    def place(self, parameters: Tensors, memo: Memo, stream: Stream) -> Tensors:
        """The disturbed angles in place of what they were."""
        disturbed: Tensor = memo["disturbed"]
        return dict.fromkeys(parameters, disturbed)


def scaled(sensitivities: Tensor) -> Tensor:
    """The values ``(n,)`` brought to [0, 1] by the least and the largest; 0 where all are equal."""
    low, high = sensitivities.min(), sensitivities.max()
    return (sensitivities - low) / (high - low) if bool(high > low) else torch.zeros_like(sensitivities)


def width_of(scaled: Tensor, budget: float, equal: bool = False) -> float:
    """The standard deviation of all samples' noise together, from sensitivities in [0, 1] ``(n,)``.

    Args:
        scaled: s.
        budget: B, radians.
        equal: whether every sample has the same budget B / n.
    """
    total = scaled.sum()
    shares = scaled / total if bool(total > 0) and not equal else torch.full_like(scaled, 1 / len(scaled))
    factors = torch.full_like(scaled, STEPS[-1][1])
    for least, factor in reversed(STEPS[:-1]):
        factors[scaled > least] = factor
    return float((budget * shares * factors).square().sum().sqrt())


def _blurred(angles: Tensor, width: float, generator: torch.Generator) -> Tensor:
    return angles + width * torch.randn(angles.shape, generator=generator, dtype=torch.float64).to(angles)
