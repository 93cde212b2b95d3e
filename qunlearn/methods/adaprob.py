"""AdaProb: give every forget sample a pseudo-probability vector, then teach it to the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from qunlearn.errors import InputError, NumericalError
from qunlearn.methods.distil import Distil, class_distribution
from qunlearn.methods.hyper import hyper
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.training.net import Net

Start = Literal["uniform", "dirichlet", "uniform01", "masked", "confusion"]
STARTS = ("uniform", "dirichlet", "uniform01", "masked", "confusion")
FLOOR = 1e-8  # of start probabilities, so that every class can be reached
LEAST_ENTROPY = 1e-3  # of a start vector in nats, so that its weight stays finite


@register
@dataclass(frozen=True, kw_only=True)
class AdaProb(Distil):
    r"""Replaces the outputs on the forget set by refined pseudo-probabilities, in two stages.

    **Stage 1** refines start vectors a_i, one a forget sample, so that together they follow the model's overall
    class distribution, moving each as little as possible:

    .. math:: \min_M \sum_i w_i\, \mathrm{KL}(m_i \| a_i) \quad \text{s.t.} \quad
              \sum_k m_{ik} = 1, \quad \sum_i m_{ik} = n_f\, \pi_k, \quad m \ge 0

    pi is the original model's mean output over the retain set; a class that only the forget set holds gets 0 there,
    and the rest is renormalised. **Stage 2** updates the weights until the model gives these outputs:

    .. math:: L = \lambda_r\, \mathrm{CE}(f(x_r), y_r) + \lambda_f\, \mathrm{KL}(m_i \| p_\theta(x_i))

    The divergence is bounded from below and its gradient in the logits is p - m, so that it cannot run away. A pass
    goes over the retain set, the forget set begun again as often as needed.

    *What the paper states*: pseudo-probabilities start uniform (its first version: also random), are refined to
    agree with the model's overall class distribution, and then the weights are updated to produce them. *What its
    released code does*: stage 1 asks for the column sums that the matrix already has, with the pseudo-rows in it;
    that matrix is its own solution, so that nothing changes. Stage 2 is absent. *This reading*: the constraint is
    put on the rows of the forget samples alone, with the retain set's distribution as the target (asking all rows
    together for the original's column sums would send forget samples back to their class), and stage 2 is forward
    KL to the targets. With uniform start vectors and equal weights every target is pi itself: constant outputs,
    which attacks on confidence recognise; other starts spread them.

    Source: Zhao, Yang, Field & Cao, arXiv 2411.02622 (v3, 2026); the refinement is that of DARP, Kim et al. 2020
    (NeurIPS), solved here by Newton steps on its dual.
    """

    name: ClassVar[str] = "adaprob"
    start_from: Start = hyper("uniform", "start vectors of stage 1", choices=STARTS)
    weights: Literal["equal", "entropy"] = hyper("equal", "w_i: 1, or 1 / entropy of a_i", choices=("equal", "entropy"))

    def targets(self, net: Net, task: Task, generator: torch.Generator) -> Tensor:
        """Stage 1: the refined vectors ``(forget samples, classes)``, float64."""
        retained = torch.softmax(net.logits(task.retain.x).double(), 1)
        forgotten = torch.softmax(net.logits(task.forget.x).double(), 1)
        marginal = class_distribution(retained, without=task.forgotten_classes)
        start = self._start_vectors(forgotten, task, retained, generator)
        weights = 1 / _entropy(start).clamp(min=LEAST_ENTROPY) if self.weights == "entropy" else None
        return pseudo_probabilities(start, len(start) * marginal, weights)

    def _start_vectors(self, forgotten: Tensor, task: Task, retained: Tensor, generator: torch.Generator) -> Tensor:
        """The vectors a_i, ``(forget samples, classes)``, every row a distribution."""
        shape, labels = forgotten.shape, task.forget.y
        if self.start_from == "uniform":
            rows = torch.ones_like(forgotten)
        elif self.start_from == "dirichlet":  # uniform on the simplex: normalised exponentials
            rows = -torch.rand(shape, generator=generator, dtype=torch.float64).clamp(min=FLOOR).log().to(forgotten)
        elif self.start_from == "uniform01":  # as in the released code; not uniform on the simplex
            rows = torch.rand(shape, generator=generator, dtype=torch.float64).to(forgotten)
        elif self.start_from == "masked":  # the original's output with the true label taken out
            rows = forgotten.scatter(1, labels[:, None], 0.0)
        else:  # the mean output over retain samples that the model gives this class
            rows = _confusion(retained)[labels]
        rows = rows.clamp(min=FLOOR)
        return rows / rows.sum(1, keepdim=True)


def pseudo_probabilities(
    start: Tensor, totals: Tensor, weights: Tensor | None = None, *, tolerance: float = 1e-12, steps: int = 100
) -> Tensor:
    r"""The matrix of least weighted divergence from the start whose rows sum to 1 and columns to the totals.

    .. math:: m_{ik} = a_{ik} e^{-\nu_k / w_i} \Big/ \sum_l a_{il} e^{-\nu_l / w_i}

    The multipliers nu minimise the convex dual ``sum_i w_i ln sum_k a_ik exp(-nu_k / w_i) + sum_k nu_k c_k``, by
    damped Newton steps. Adding a constant to nu changes nothing, so the last is held at 0.

    Args:
        start: a, ``(n, classes)``, positive wherever a total is; rows sum to 1.
        totals: c, ``(classes,)``, 0 or more, with sum n. A class of total 0 is 0 in the result.
        weights: w, ``(n,)``, above 0; None for equal ones.
        tolerance: on the largest error of a column sum, relative to n.
        steps: Newton steps at most.

    Returns:
        m, ``(n, classes)``, float64.

    Raises:
        InputError: where no matrix can meet the constraints.
        NumericalError: where the steps do not reach the tolerance.
    """
    a, c = start.double(), totals.double()
    w = torch.ones(len(a), dtype=torch.float64, device=a.device) if weights is None else weights.double()
    if abs(float(c.sum()) - len(a)) > 1e-6 * len(a) or bool((c < 0).any()) or bool((w <= 0).any()):
        raise InputError(f"expected totals that sum to {len(a)} rows, and weights above 0; got {c.tolist()}")
    reached = c > 0
    if bool((a[:, reached] <= 0).any()):
        raise InputError("expected positive start probabilities in every class with a positive total; floor them")
    found = torch.zeros_like(a)
    found[:, reached] = _newton(a[:, reached].log(), c[reached], w, tolerance * len(a), steps)
    return found


def _newton(log_a: Tensor, c: Tensor, w: Tensor, tolerance: float, steps: int) -> Tensor:
    """The rows ``(n, classes)`` at the minimum of the dual; all totals are positive."""
    nu, damping = torch.zeros_like(c), 1e-6
    for _ in range(steps):
        rows = torch.softmax(log_a - nu / w[:, None], 1)
        excess = rows.sum(0) - c  # minus the dual's gradient
        if float(excess.abs().max()) <= tolerance:
            return rows
        scaled = rows / w[:, None]
        hessian = torch.diag(scaled.sum(0)) - rows.T @ scaled
        step, damping = _damped_step(log_a, c, w, nu, excess, hessian, damping)
        nu = nu + step
    rows = torch.softmax(log_a - nu / w[:, None], 1)
    error = float((rows.sum(0) - c).abs().max())
    if error > 1e-6 * len(rows):
        raise NumericalError(f"expected column sums within {tolerance}, got an error of {error} after {steps} steps")
    return rows


def _damped_step(
    log_a: Tensor, c: Tensor, w: Tensor, nu: Tensor, excess: Tensor, hessian: Tensor, damping: float
) -> tuple[Tensor, float]:
    """A Newton step, damped (Levenberg-Marquardt) until the dual falls, and the damping to begin the next with.

    Rows that are nearly one-hot leave the dual almost flat, where undamped steps overshoot.
    """

    def dual(at: Tensor) -> float:
        return float((w * torch.logsumexp(log_a - at / w[:, None], 1)).sum() + at @ c)

    here, unit = dual(nu), torch.eye(len(c) - 1, dtype=c.dtype, device=c.device)
    step = torch.zeros_like(c)
    for _ in range(60):
        step[:-1] = torch.linalg.solve(hessian[:-1, :-1] + damping * unit, excess[:-1])
        expected = float(excess @ step - step @ hessian @ step / 2)
        if dual(nu + step) <= here - 1e-4 * expected + 1e-13 * abs(here):
            return step, max(damping / 8, 1e-14)
        damping *= 8
    return torch.zeros_like(c), damping


def _confusion(probabilities: Tensor) -> Tensor:
    """Row c is the mean of the rows of ``(n, classes)`` whose largest entry is c, with that entry set to 0."""
    classes = probabilities.shape[1]
    member = torch.nn.functional.one_hot(probabilities.argmax(1), classes).to(probabilities)
    means = member.T @ probabilities / member.sum(0).clamp(min=1)[:, None]
    return means.clamp(min=FLOOR).fill_diagonal_(0.0)


def _entropy(rows: Tensor) -> Tensor:
    return -torch.xlogy(rows, rows).sum(1)
