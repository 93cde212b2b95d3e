"""Fisher forgetting: noise where the retain set feels it least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from qunlearn.methods import curvature
from qunlearn.methods.angles import widest_noise
from qunlearn.methods.base import Method
from qunlearn.methods.hyper import hyper
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.models import angle_periods, stages
from qunlearn.training.net import Net, Tensors, check_functional

TINY = 1e-8  # added to the Fisher information
OF_HEAD = 100.0  # released: the largest 1 / F in the last stage's rows
LOUDER = 10.0  # released: how much more variance those rows get, and tensors of one axis
OF_FORGOTTEN = 1e-4  # variance of the rows that a forgotten class's logits come from


@register
@dataclass(frozen=True, kw_only=True)
class FisherForgetting(Method):
    r"""Adds Gaussian noise to every parameter, the more the less the retain set determines it; no training.

    .. math:: \theta_j \leftarrow \theta_j + N(0, v_j), \qquad v_j = \alpha \min\Bigl(\frac{1}{F_j + 10^{-8}}, c\Bigr),
              \qquad F_j = \operatorname{mean}_{x \in D_r} \sum_k p_k(x)\, (\partial_j \ln p_k(x))^2

    F is the exact diagonal of the Fisher information, sample by sample and over all labels with their probabilities;
    the released code squares gradients of batches, which is another quantity. An angle gets at most the standard
    deviation of an angle that is uniform over its period (pi / sqrt(3) for 2 pi).

    Where a class is forgotten, its logit's row in the last stage (weights and bias) has mean 0 and variance 1e-4, as
    in the released code; ``forgotten_rows=False`` treats that row as any other. ``variant="released"`` takes the
    released shape of the noise from the exact F: variances averaged over the inputs of a row (the second axis), 1 / F
    at most 100 in the last stage's rows of logits, and there and in tensors of one axis ten times the variance; angles,
    which stand on one axis but scale nothing, are left out of that.

    Source: Golatkar et al. 2020, arXiv 1911.04933, and the authors' code; the treatment of angles is ours.
    """

    name: ClassVar[str] = "fisher-forgetting"
    alpha: float = hyper(1e-6, "variance of the noise where F is 1", low=0, search=(1e-8, 1e-2))
    clamp: float = hyper(1000.0, "c: the largest 1 / F", low=0)
    forgotten_rows: bool = hyper(True, "erase the rows of the logits of a forgotten class")
    variant: Literal["exact", "released"] = hyper("exact", "whose noise", choices=("exact", "released"))

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """The Fisher information, and one draw."""
        check_functional(model, task.retain.x[:1])
        net, generator = Net(model, work.counts), work.seeds.generator("noise")
        classes = net.logits(task.retain.x[:1]).shape[1]
        rows = {name for name in stages(model)[-1].parameters if model.get_parameter(name).shape[:1] == (classes,)}
        rows -= set(angle_periods(model))  # where the circuit's expectation values are the logits
        means, spreads = curvature.trained(net), self.spreads(curvature.true_fisher(net, task.retain.x), model, rows)
        if self.forgotten_rows and task.forgotten_classes:
            work.notes.append(self._erase(means, spreads, rows, sorted(task.forgotten_classes)))
        for name, mean in means.items():
            noise = torch.randn(mean.shape, dtype=mean.dtype, generator=generator).to(mean.device)
            net.parameters[name] = mean + spreads[name] * noise
        return net.write_back()

    def spreads(self, fisher: Tensors, model: nn.Module, rows: set[str]) -> Tensors:
        """The noise's standard deviations, of the parameters' shapes; `rows` names those with a row for each logit."""
        periods, found = angle_periods(model), {}
        for name, information in fisher.items():
            variance = self.alpha * (1 / (information + TINY)).clamp(max=self.clamp)
            if self.variant == "released" and name not in periods:
                variance = self._released(information, name in rows)
            widest = widest_noise(periods[name]) if name in periods else torch.full_like(variance, torch.inf)
            found[name] = torch.minimum(variance.sqrt(), widest)
        return found

    def _released(self, information: Tensor, of_head: bool) -> Tensor:
        largest = min(self.clamp, OF_HEAD) if of_head else self.clamp
        variance = self.alpha * (1 / (information + TINY)).clamp(max=largest)
        if variance.dim() > 1:
            variance = variance.mean(1, keepdim=True).expand_as(variance)
        return variance * (LOUDER if of_head or variance.dim() == 1 else 1.0)

    def _erase(self, means: Tensors, spreads: Tensors, rows: set[str], classes: list[int]) -> str:
        """Sets the rows of the classes' logits to mean 0 and their own variance; says which."""
        held = [name for name in means if name in rows]
        if not held:
            return "No parameter belongs to the forgotten class's logit alone, so that no row was erased."
        variance = OF_FORGOTTEN * (LOUDER if self.variant == "released" else 1.0)
        for name in held:
            means[name] = means[name].index_fill(0, _places(classes, means[name]), 0.0)
            spreads[name] = spreads[name].index_fill(0, _places(classes, means[name]), variance**0.5)
        return f"The rows of classes {', '.join(map(str, classes))} in {', '.join(held)} were erased."


def _places(classes: list[int], like: Tensor) -> Tensor:
    return torch.tensor(classes, device=like.device)
