"""SSD: selective synaptic dampening."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods import curvature
from qunlearn.methods.angles import shortest
from qunlearn.methods.base import Method
from qunlearn.methods.hyper import hyper
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.models import angle_periods
from qunlearn.training.net import Net, Tensors, check_functional, evaluating
from qunlearn.training.trace import Trace


@register
@dataclass(frozen=True, kw_only=True)
class SSD(Method):
    r"""Dampens the parameters that matter far more for the forget set than for all training data; no training.

    .. math:: \theta_j \leftarrow r_j + \min\Bigl(\lambda \frac{I_j(D)}{I_j(D_f)}, 1\Bigr) (\theta_j - r_j)
              \quad\text{where}\ I_j(D_f) > \alpha\, I_j(D), \qquad
              I_j(S) = \operatorname{mean}_{i \in S}\,(\partial_j \mathrm{CE}(f(x_i), y_i))^2

    D is the forget set with the retain set, r is 0. Importances are taken sample by sample, as the paper has them; the
    released code squares the gradients of batch means instead (``importance="batches"``), so that they depend on the
    batch size. ``importance="label-free"`` is LFSSD: ``I_j = mean_i |d_j ||f(x_i)||^2|``, without labels. Sample by
    sample ``I(D_f) <= (n / n_f) I(D)``: an alpha of n / n_f or more chooses nothing. The paper's 10, meant for batches,
    does nothing for one of ten classes; the default is 5.

    An angle and the same angle one period on are one gate, and halving both is not the same: the difference of an
    angle to its reference is wrapped to half a period before it is dampened. The reference is 0 (a gate that does
    nothing), or with ``reference="initial"`` the angle before training, which a trace must hold under the parameter's
    name (`qunlearn.methods.ssd.initial_angles` takes it from the fresh model). Other parameters always go towards 0.

    Source: Foster et al. 2024, arXiv 2308.07707, and for LFSSD arXiv 2402.19308; wrapping and reference are ours.
    """

    name: ClassVar[str] = "ssd"
    alpha: float = hyper(5.0, "how many times more they must matter to be chosen", low=0, search=(1.0, 10.0))
    strength: float = hyper(1.0, "lambda: what is left where importances are equal", low=0, search=(0.05, 1.0))
    importance: Literal["fisher", "batches", "label-free"] = hyper(
        "fisher", "sample by sample, of batch means, or without labels", choices=("fisher", "batches", "label-free")
    )
    reference: Literal["zero", "initial"] = hyper("zero", "where angles are led", choices=("zero", "initial"))
    batch_size: int | None = hyper(None, "batches: samples in one; none takes the recipe's, or 32", low=1)

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """Both importances, and one multiplication."""
        check_functional(model, task.retain.x[:1])
        net, periods = Net(model, work.counts), angle_periods(model)
        references = self._references(periods, task)
        of_forget, of_all = self.importances(net, task, work.seeds.generator("order"))
        chosen = {name: of_forget[name] > self.alpha * of_all[name] for name in of_forget}
        for name, where in chosen.items():
            factor = (self.strength * of_all[name] / of_forget[name]).clamp(max=1.0)
            given = net.parameters[name]
            moved = references.get(name, torch.zeros_like(given))
            apart = shortest(given, moved, periods[name]) if name in periods else given
            net.parameters[name] = torch.where(where, moved + factor * apart, given)
        work.notes.append(_count(chosen, periods))
        return net.write_back()

    def importances(self, net: Net, task: Task, generator: torch.Generator) -> tuple[Tensors, Tensors]:
        """I of the forget set and of all training data, tensors of the parameters' shapes."""
        forget, retain = task.forget, task.retain
        if self.importance == "batches":
            size = self.batch_size or (task.recipe.batch_size if task.recipe else 32)
            both = _joined(forget, retain)
            return _of_batches(net, *_joined(forget), size, generator), _of_batches(net, *both, size, generator)
        of_forget, of_retain = (self._of_samples(net, data) for data in (forget, retain))
        share = len(forget.y) / (len(forget.y) + len(retain.y))
        return of_forget, {name: share * of_forget[name] + (1 - share) * of_retain[name] for name in of_forget}

    def _of_samples(self, net: Net, data: Dataset) -> Tensors:
        if self.importance == "fisher":
            return curvature.empirical_fisher(net, data.x, data.y)
        slopes = curvature.sample_gradients(net, data.x, data.y, _squared_outputs)
        return curvature.mean_over({name: g.abs() for name, g in part.items()} for part in slopes)

    def _references(self, periods: Tensors, task: Task) -> Tensors:
        if self.reference == "zero":
            return {}
        held = getattr(task.trace, "tensors", {})
        for name, period in periods.items():
            if name not in held or held[name].shape != period.shape:
                raise InputError(
                    f"expected a trace that holds the initial angles {name} {tuple(period.shape)} for ssd, got none; "
                    "pass trace=qunlearn.methods.ssd.initial_angles(the model before training), or take "
                    'reference="zero"'
                )
        return {name: held[name].to(period) for name, period in periods.items()}


def initial_angles(model: nn.Module) -> Trace:
    """A trace of a model's angles as they are, taken before training, for ``reference="initial"``."""
    return Trace("ssd", tensors={name: model.get_parameter(name).detach().clone() for name in angle_periods(model)})


def _squared_outputs(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """The mean over the batch of the squared norm of the logits."""
    return net(x).square().sum(1).mean()


def _of_batches(net: Net, x: Tensor, y: Tensor, size: int, generator: torch.Generator) -> Tensors:
    """The mean over shuffled batches of the squared gradient of the batch mean."""

    def squares() -> Iterator[Tensors]:
        for rows in torch.split(torch.randperm(len(y), generator=generator).to(y.device), size):
            found = net.gradient(lambda n, rows=rows: curvature.task_loss(n, x[rows], y[rows]))  # type: ignore[misc]
            yield {name: g.square()[None] for name, g in found.items()}

    with evaluating(net.module):
        return curvature.mean_over(squares())


def _joined(*parts: Dataset) -> tuple[Tensor, Tensor]:
    return torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])


def _count(chosen: Tensors, periods: Tensors) -> str:
    number = sum(int(where.sum()) for where in chosen.values())
    angles = sum(int(where.sum()) for name, where in chosen.items() if name in periods)
    total = sum(where.numel() for where in chosen.values())
    advice = "" if number else " Lower alpha; sample by sample, one of n / n_f or more never chooses any."
    return f"{number} of {total} parameters dampened, {angles} of them angles.{advice}"
