"""Influence: one Newton step away from the forget set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from qunlearn.methods import curvature
from qunlearn.methods.base import Method
from qunlearn.methods.hyper import hyper
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.training.net import Net, check_functional

NOTHING = 1e-12  # of the largest eigenvalue: curvature that is rounding


@register
@dataclass(frozen=True, kw_only=True)
class Influence(Method):
    r"""Takes one Newton step on the retain loss, from what the forget samples pulled at the original.

    .. math:: \theta \leftarrow \theta_0 + s\, (H_r + \lambda I)^{-1}
              \frac{1}{n_r} \sum_{x \in D_f} \nabla \ell(\theta_0)

    H_r is the Hessian of the mean retain loss at the original. The loss of a sample is its cross entropy plus, where
    the recipe has weight decay w, ``w/2 ||theta||^2``. At a minimum of the whole training loss the step is Newton's on
    the retain loss, and misses retraining by second order in the share forgotten; an original that was stopped before
    its minimum is better served by ``step="newton"``, which follows the retain gradient itself.

    Up to `exact_up_to` parameters the Hessian is formed exactly and taken apart; eigenvalues below 0 count as 0 before
    the damping, and directions that then have no curvature at all are left alone. Above, conjugate gradients work on
    Hessian-vector products; where they meet negative curvature the Gauss-Newton matrix, which has none, takes the
    Hessian's place. The record's notes say which way was taken, the damping, and how exact the solution is.

    Source: Koh & Liang 2017, arXiv 1703.04730; Guo et al. 2020, arXiv 1911.03030 (as a way to unlearn); Izzo et al.
    2021, arXiv 2002.10077. The solvers are ours: recursions that approximate the inverse are not needed here.
    """

    name: ClassVar[str] = "influence"
    damping: float = hyper(0.001, "lambda, added to the curvature", low=0, search=(1e-4, 0.1))
    strength: float = hyper(1.0, "s, multiple of the step", low=0, search=(0.3, 3.0))
    step: Literal["influence", "newton"] = hyper(
        "influence", "from the forget samples' pull, or down the retain loss", choices=("influence", "newton")
    )
    matrix: Literal["hessian", "gauss-newton"] = hyper(
        "hessian", "which curvature", choices=("hessian", "gauss-newton"), search=["hessian", "gauss-newton"]
    )
    exact_up_to: int = hyper(1000, "parameters up to which the matrix is formed", low=0)
    tolerance: float = hyper(1e-6, "of conjugate gradients, relative", low=0)
    steps: int = hyper(200, "of conjugate gradients at most", low=1)

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """One step."""
        check_functional(model, task.retain.x[:1])
        net = Net(model, work.counts)
        parameters = curvature.trained(net)
        start = curvature.flattened(parameters)
        pull, decay = self._pull(net, start, task), _decay(task)
        if len(start) <= self.exact_up_to:
            move = self._formed(net, task, pull, decay, work)
        else:
            move = self._by_products(net, task, pull, decay, work)
        net.parameters.update(curvature.unflattened(start + self.strength * move.to(start), parameters))
        return net.write_back()

    def _pull(self, net: Net, start: Tensor, task: Task) -> Tensor:
        """What the step is the solution for, ``(P,)``."""
        decay, data = _decay(task), task.forget if self.step == "influence" else task.retain
        slope = curvature.flattened(curvature.gradient(net, data.x, data.y)) + decay * start
        return slope * (len(task.forget.y) / len(task.retain.y)) if self.step == "influence" else -slope

    def _formed(self, net: Net, task: Task, pull: Tensor, decay: float, work: Work) -> Tensor:
        """The step by the eigenvalues of the whole matrix."""
        x, y = task.retain.x, task.retain.y
        matrix = curvature.hessian(net, x, y) if self.matrix == "hessian" else curvature.gauss_newton(net, x)
        values, vectors = torch.linalg.eigh(matrix.double())
        values = values + decay
        least = NOTHING * float(values.abs().max())
        negative = int((values < -least).sum())
        damped = values.clamp(min=0.0) + self.damping
        inverse = torch.where(damped > least, 1 / damped, 0.0)
        work.notes.append(
            f"Exact {_WORDS[self.matrix]} of {len(values)} parameters, damping {self.damping:g}; {negative} negative "
            f"eigenvalues, the least {float(values.min()):.3g}, raised to 0; the largest {float(values.max()):.3g}."
        )
        found: Tensor = vectors @ (inverse * (vectors.T @ pull.double()))
        return found

    def _by_products(self, net: Net, task: Task, pull: Tensor, decay: float, work: Work) -> Tensor:
        """The step by conjugate gradients."""
        if self.matrix == "hessian":
            try:
                return self._solved("hessian", net, task, pull, decay, work)
            except curvature.NegativeCurvatureError:
                work.notes.append("The Hessian has directions of negative curvature, beyond what the damping makes up.")
        return self._solved("gauss-newton", net, task, pull, decay, work)

    def _solved(self, matrix: str, net: Net, task: Task, pull: Tensor, decay: float, work: Work) -> Tensor:
        x, y, total = task.retain.x, task.retain.y, self.damping + decay
        product = (
            curvature.hessian_product(net, x, y) if matrix == "hessian" else curvature.gauss_newton_product(net, x)
        )
        found = curvature.conjugate_gradients(product, pull, damping=total, tolerance=self.tolerance, steps=self.steps)
        work.notes.append(
            f"{found.steps} conjugate gradients with products of the {_WORDS[matrix]}, damping {self.damping:g}; "
            f"relative residual {found.residual:.1e}."
        )
        return found.vector


_WORDS = {"hessian": "Hessian", "gauss-newton": "Gauss-Newton matrix"}


def _decay(task: Task) -> float:
    return task.recipe.weight_decay if task.recipe else 0.0
