"""Certified Newton unlearning of non-convex models, with a bound that says how much it is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qunlearn.errors import InputError
from qunlearn.methods import curvature
from qunlearn.methods.accounting import gaussian_epsilon, gaussian_sigma, wrapped_epsilon, wrapped_sigma
from qunlearn.methods.angles import wrapped
from qunlearn.methods.base import Method
from qunlearn.methods.certificate import CERTIFIED, ESTIMATED, Guarantee, Kind
from qunlearn.methods.circuit_bounds import bare_circuit, diameter, hessian_lipschitz
from qunlearn.methods.hyper import hyper
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.models import angle_periods
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.net import Net, Tensors, check_functional

USELESS = 10.0  # an epsilon above which a guarantee says next to nothing: odds may change by e^10


@register
@dataclass(frozen=True, kw_only=True)
class CertifiedNewton(Method):
    r"""One damped Newton step on the retain loss, then Gaussian noise; epsilon follows from a bound, or is marked.

    .. math:: \theta \leftarrow \theta_0 - (H_r + \lambda I)^{-1} g_r + N(0, \sigma^2 I)

    If a retrained model is a stationary point within ``d`` of the original, the step ends within

    .. math:: \Delta = \frac{\lambda d + M d^2 / 2}{\lambda + \lambda_{\min}}
              \quad \Big(= \frac{2 C (M C + \lambda)}{\lambda + \lambda_{\min}} \text{ for } d = 2 C \Big)

    of it, where M is the Lipschitz constant of the Hessian and lambda_min the least eigenvalue of H_r, which is
    computed; epsilon is that of the Gaussian mechanism at ``Delta / sigma``, exactly, and is worked out for the noise
    that was added (or the noise for it). Where lambda does not outweigh a negative lambda_min it is raised until
    ``lambda + lambda_min`` is `damping`; the record says so.

    **What is a guarantee.** Of a model that is nothing but a circuit whose expectation values are the logits, M is
    known (`hessian_lipschitz`) and d is at most half the diagonal of the periods. Two sets of angles are never further
    apart than that, and M d / 2 exceeds every eigenvalue: Delta says less than the periods do. So it is recorded, and
    what is certified rests on the periods alone (`wrapped_epsilon`, delta 0), whatever retraining ends at. Of any
    other model, M and C are assumed and the record says ``estimated: not a guarantee``. Usually either is vacuous; the
    record tells.

    Source: Zhang et al. 2024, arXiv 2408.00920. Their code takes sigma as given and derives no epsilon, and its
    regulariser is not the squared norm that the bound needs; here the loss is the recipe's, weight decay included, and
    the inverse is exact or by conjugate gradients. The constants of circuits are ours.
    """

    name: ClassVar[str] = "certified-newton"
    certifies: ClassVar[Kind | None] = CERTIFIED

    damping: float = hyper(0.1, "lambda, added to the curvature", low=1e-8, search=(1e-3, 10.0))
    sigma: float = hyper(0.01, "standard deviation of the noise, where no epsilon is given", low=1e-12)
    epsilon: float | None = hyper(None, "to derive the noise from; none works epsilon out from sigma", low=1e-6)
    delta: float = hyper(1e-5, "of the estimate; what is certified has 0", low=1e-12, high=0.5)
    radius: float | None = hyper(
        None, "C assumed: no solution is longer than this; none takes the original's own length", low=0
    )
    hessian_lipschitz: float = hyper(1.0, "M assumed, where classical layers stand", low=0)
    exact_up_to: int = hyper(1000, "parameters up to which the Hessian is formed", low=0)

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """The step, the bound, the noise."""
        check_functional(model, task.retain.x[:1])
        net = Net(model, work.counts)
        parameters = curvature.trained(net)
        start = curvature.flattened(parameters).double()
        step, least, damping = self._newton(net, task, start)
        facts = self._constants(model, start, least, damping)
        facts |= {"step": float(step.norm()), "parameters": len(start)}
        sigma = self._noise(bare_circuit(model), facts["bound"])
        drawn = torch.randn(len(start), generator=work.seeds.generator("noise"), dtype=torch.float64).to(start.device)
        found = curvature.unflattened(start + step + sigma * drawn, parameters)
        net.parameters.update(_wrapped(net.module, found))
        work.guarantee = self._guarantee(model, list(parameters), sigma, facts)
        _warn(work, self.damping, facts)
        return net.write_back()

    def _noise(self, layer: QuantumLayer | None, bound: float) -> float:
        """Sigma: as given, or the least that gives epsilon."""
        if self.epsilon is None:
            return self.sigma
        if layer is None:
            return gaussian_sigma(bound, self.epsilon, self.delta)
        return wrapped_sigma(layer.periods.tolist(), self.epsilon)

    def _newton(self, net: Net, task: Task, start: Tensor) -> tuple[Tensor, float, float]:
        """The step ``(P,)`` float64, the least eigenvalue of the Hessian, and the damping that was used."""
        x, y, decay = task.retain.x, task.retain.y, _decay(task)
        slope = curvature.flattened(curvature.gradient(net, x, y)).double() + decay * start
        if len(start) <= self.exact_up_to:
            values, vectors = torch.linalg.eigh(curvature.hessian(net, x, y).double())
            least = float(values.min()) + decay
            damping = self.damping + max(0.0, -least)
            return -vectors @ ((vectors.T @ slope) / (values + decay + damping)), least, damping
        product = curvature.hessian_product(net, x, y)
        least = _least(product, start) + decay
        damping = self.damping + max(0.0, -least)
        solution = curvature.conjugate_gradients(product, -slope, damping=decay + damping)
        return solution.vector, least, damping

    def _constants(self, model: nn.Module, start: Tensor, least: float, damping: float) -> dict[str, Any]:
        """The bound and what it was computed from; ``distance`` is what the noise has to hide."""
        layer = bare_circuit(model)
        if layer is None:
            length = float(start.norm())
            radius = length if self.radius is None else self.radius
            if radius < length:
                raise InputError(f"expected a radius of at least the original's length {length:.4g}, got {radius}")
            reach, bend = 2 * radius, self.hessian_lipschitz
        else:
            reach, bend = diameter(layer.circuit), hessian_lipschitz(layer.circuit)
        bound = newton_bound(reach, bend, least, damping)
        return {
            "bound": bound, "distance": bound if layer is None else reach, "reach": reach, "hessian_lipschitz": bend,
            "least_eigenvalue": least, "damping": damping, "circuit_only": layer is not None,
        }  # fmt: skip

    def _guarantee(self, model: nn.Module, names: list[str], sigma: float, facts: dict[str, Any]) -> Guarantee:
        details = {**facts, "sigma": sigma}
        if periods := angle_periods(model):
            widest = max(float(p[p.isfinite()].max()) for p in periods.values() if p.isfinite().any())
            details["randomisation_ratio"] = sigma / (widest / math.sqrt(12))
        if (layer := bare_circuit(model)) is not None:
            epsilon = wrapped_epsilon(layer.periods.tolist(), sigma)
            return Guarantee(CERTIFIED, epsilon, 0.0, _ALWAYS, tuple(names), _EXCLUDES, {**details, "assumed": []})
        assumed = (
            f"No solution, of the original training or of retraining, is longer than {facts['reach'] / 2:.6g}.",
            f"The Hessian of the loss is Lipschitz with constant {facts['hessian_lipschitz']:.6g}.",
            "Retraining ends at a stationary point of the retain loss.",
            *_ALWAYS,
        )
        details["assumed"] = ["reach", "hessian_lipschitz"]
        excludes = (*_EXCLUDES, "Buffers, such as what a PCA encoder or batch norm took from the data.")
        epsilon = gaussian_epsilon(facts["distance"], sigma, self.delta)
        return Guarantee(ESTIMATED, epsilon, self.delta, assumed, tuple(names), excludes, details)


def newton_bound(reach: float, bend: float, least: float, damping: float) -> float:
    r"""How far a damped Newton step from within `reach` of a stationary point can end from it.

    With d the way from it, the step leaves ``(H + lambda)^{-1} [lambda d + int_0^1 (H - H(t)) d dt]``, where H(t) is
    the Hessian at a share t of the way; ``damping + least`` must be above 0.
    """
    return (damping * reach + bend * reach**2 / 2) / (damping + least)


_ALWAYS = (
    "The seed of the noise is secret.",
    "The retrained model that it is compared with gets noise of the same kind.",
)
_EXCLUDES = ("Hyper-parameters, or a seed, chosen by results on data which held the forget set.",)


def _warn(work: Work, asked: float, facts: dict[str, Any]) -> None:
    assert work.guarantee is not None
    if facts["damping"] > asked:
        work.notes.append(
            f"The least eigenvalue of the Hessian is {facts['least_eigenvalue']:.3g}; the damping was raised to "
            f"{facts['damping']:.3g}."
        )
    if work.guarantee.epsilon > USELESS:
        work.notes.append(
            f"The noise hides a distance of {facts['distance']:.3g} at epsilon {work.guarantee.epsilon:.3g}: that is "
            "next to nothing."
        )
    if work.guarantee.details.get("randomisation_ratio", 0) > 1:
        work.notes.append("The noise is wider than that of angles drawn anew: nothing of the original is left.")


def _decay(task: Task) -> float:
    return task.recipe.weight_decay if task.recipe else 0.0


def _wrapped(module: nn.Module, tensors: Tensors) -> Tensors:
    """The tensors with angles taken to their nearest period, so that turns in full tell nothing."""
    periods = angle_periods(module)
    return {name: wrapped(t, periods[name].to(t)) if name in periods else t for name, t in tensors.items()}


def _least(product: curvature.Product, like: Tensor) -> float:
    """The least eigenvalue of a symmetric matrix that is known by its products, by Lanczos' method."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    size = len(like)
    operator = LinearOperator(
        (size, size), matvec=lambda v: product(torch.from_numpy(v.reshape(-1)).to(like)).double().cpu().numpy(),
        dtype="float64",
    )  # fmt: skip
    start = torch.ones(size, dtype=torch.float64).numpy()
    return float(eigsh(operator, k=1, which="SA", v0=start, tol=1e-4, return_eigenvectors=False)[0])
