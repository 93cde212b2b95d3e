r"""Ridge logistic regression with a linear perturbation, and the removal of samples from its optimum, in NumPy.

.. math:: L(w) = \sum_i \Big[ \ell(s_i\, w^T x_i) + \frac{\lambda}{2} \|w\|^2 \Big] + b^T w,
          \qquad \ell(z) = \ln(1 + e^{-z}), \quad s_i = \pm 1, \quad \|x_i\| \le 1

`SLOPE` bounds |l'|, and `BEND` is the Lipschitz constant of l'': with p = sigmoid(z) the third derivative is
``p (1 - p) (1 - 2 p)`` up to sign; its derivative by p, ``1 - 6 p + 6 p^2``, vanishes at ``p = (3 +- sqrt(3)) / 6``,
where ``p (1 - p) = 1 / 6`` and ``|1 - 2 p| = sqrt(3) / 3``: at most ``sqrt(3) / 18``. (Guo et al. 2020 use 1/4.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from qunlearn.errors import NumericalError

Array = NDArray[np.float64]

SLOPE = 1.0
BEND = math.sqrt(3) / 18
_STEPS = 100


@dataclass(frozen=True, eq=False)
class Logistic:
    """One problem.

    Attributes:
        x: ``(n, d)``, rows of norm at most 1.
        signs: ``(n,)``, 1 or -1.
        ridge: lambda, above 0, for every sample.
        perturbation: b, ``(d,)``.
    """

    x: Array
    signs: Array
    ridge: float
    perturbation: Array

    def gradient(self, w: Array) -> Array:
        """``(d,)`` at w."""
        slopes = -self.signs * _sigmoid(-self.signs * (self.x @ w))
        return self.x.T @ slopes + len(self.x) * self.ridge * w + self.perturbation

    def hessian(self, w: Array) -> Array:
        """``(d, d)`` at w, no eigenvalue below ``n * ridge``."""
        p = _sigmoid(self.x @ w)
        matrix = (self.x.T * (p * (1 - p))) @ self.x
        return matrix + len(self.x) * self.ridge * np.eye(self.x.shape[1])

    def bend(self, w: Array, step: Array) -> Array:
        """The derivative ``(d, d)`` of the Hessian at w along a step."""
        p = _sigmoid(self.x @ w)
        return (self.x.T * (p * (1 - p) * (1 - 2 * p) * (self.x @ step))) @ self.x

    def solve(self, tolerance: float, start: Array | None = None) -> tuple[Array, float]:
        """The optimum, and the norm of the gradient there, at most `tolerance`.

        Newton's method, halving a step until it shrinks the gradient: along Newton's step the gradient's squared norm
        falls at first by twice itself, and the problem is strongly convex, so that this ends at the one optimum.

        Raises:
            NumericalError: where rounding keeps the gradient above the tolerance.
        """
        from scipy.linalg import cho_factor, cho_solve

        w = np.zeros(self.x.shape[1]) if start is None else start
        gradient = self.gradient(w)
        for _ in range(_STEPS):
            if (norm := float(np.linalg.norm(gradient))) <= tolerance:
                return w, norm
            step = cho_solve(cho_factor(self.hessian(w)), -gradient)
            for share in 0.5 ** np.arange(40):
                moved = self.gradient(w + share * step)
                if np.linalg.norm(moved) < norm:
                    break
            w, gradient = w + share * step, moved
        raise NumericalError(
            f"expected a gradient of norm {tolerance} at the optimum, got {norm:.3g}; raise tolerance or regularization"
        )


@dataclass(frozen=True, eq=False)
class Removal:
    """One Newton step away from samples.

    Attributes:
        weights: ``(d,)``.
        bound: on the growth of the gradient's norm on what is left, from the data.
        worst: the same from sizes alone.
        residual: the gradient ``(d,)`` that really is there.
        log_factor: ln |det| of how the perturbation that the new weights are optimal for moves with that of the old.
    """

    weights: Array
    bound: float
    worst: float
    residual: Array
    log_factor: float


def remove(weights: Array, forget: Logistic, retain: Logistic) -> Removal:
    r"""A Newton step from weights on both sets towards the optimum on the retain set.

    .. math:: w^- = w + H^{-1} \Delta, \quad H = \nabla^2 L_r(w), \quad
              \Delta = \sum_{i \in F} [\nabla \ell_i(w) + \lambda w]

    The step v = H^{-1} Delta would undo the forget samples' gradient if H did not change along it. What is left is the
    gradient before plus ``int_0^1 (H(w + t v) - H) v dt = X^T diag(d) X v`` with ``|d_i| <= BEND |x_i v| <= BEND |v|``:

    .. math:: \|\nabla L_r(w^-)\| \le \|\nabla L(w)\| + \gamma\, \|X\|_2\, \|v\|\, \|X v\|, \quad \gamma = \sqrt{3} / 18

    `worst` puts ``|Delta| <= m (2 C + (|b| + |\nabla L(w)|) / n)``, ``|v| <= |Delta| / (lambda (n - m))`` and
    ``|X|_2 <= sqrt(n - m)`` in there. (Guo's ``4 gamma C^2 m^2 / (lambda^2 (n - m))`` is this without b.)

    Args:
        weights: ``(d,)``.
        forget: the m samples to remove, without perturbation.
        retain: the n - m samples that stay, with the perturbation.

    Source: Guo et al. 2020, arXiv 1911.03030, equation (3) and corollary 1.
    """
    from scipy.linalg import cho_factor, cho_solve

    pull, hessian = forget.gradient(weights), retain.hessian(weights)
    step = cho_solve(cho_factor(hessian), pull)
    before = retain.gradient(weights) + pull
    moved = weights + step
    spectral, along = np.linalg.norm(retain.x, 2), np.linalg.norm(retain.x @ step)
    return Removal(
        moved,
        float(BEND * spectral * np.linalg.norm(step) * along),
        _worst(forget, retain, float(np.linalg.norm(before))),
        retain.gradient(moved),
        _log_factor(weights, step, forget, retain),
    )


def _worst(forget: Logistic, retain: Logistic, residual: float) -> float:
    gone, left = len(forget.x), len(retain.x)
    noise = float(np.linalg.norm(retain.perturbation)) + residual
    pull = gone * (2 * SLOPE + noise / (gone + left))
    return BEND * pull**2 / (retain.ridge**2 * left)


def _log_factor(weights: Array, step: Array, forget: Logistic, retain: Logistic) -> float:
    r"""``ln |det d b' / d b|`` for the perturbations that make weights optimal before and after a removal.

    Before, b is minus the rest of the gradient on both sets, so ``d b = -(H + H_f) d w``. The step moves as
    ``d w^- = H^{-1} (H + H_f - M) d w`` with M the derivative of the Hessian along it, and after it
    ``d b' = -H(w^-) d w^-``. So the determinant is that of ``H(w^-) H^{-1} (I - M (H + H_f)^{-1})``.
    """
    here, there = retain.hessian(weights), retain.hessian(weights + step)
    both = here + forget.hessian(weights)
    parts = np.linalg.slogdet(there)[1] - np.linalg.slogdet(here)[1]
    shrink = both - retain.bend(weights, step)
    return float(parts + np.linalg.slogdet(shrink)[1] - np.linalg.slogdet(both)[1])


def _sigmoid(z: Array) -> Array:
    from scipy.special import expit

    return cast(Array, expit(z))
