"""Natural ascent: up the forget loss along the way on which the states of retained samples move least."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import NumericalError
from qunlearn.methods import curvature
from qunlearn.methods.base import Method
from qunlearn.methods.gradient import rule_of
from qunlearn.methods.hyper import hyper
from qunlearn.methods.in_circuit import circuit_in, count_metric, count_states, features_into, only_trained
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.quantum import engines
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.fisher import Blocks, quantum_fisher
from qunlearn.quantum.states import fidelity
from qunlearn.training.net import Net, check_functional

SMALL = 128  # weights up to which "auto" takes the whole metric
SHORTER = 0.99  # of the length at which a step that costs too much would cost what it may, were the cost quadratic
ATTEMPTS = 40
NOTHING = 1e-12  # eigenvalues of the metric below this share of the largest are rounding


@register
@dataclass(frozen=True, kw_only=True)
class NaturalAscent(Method):
    r"""Climbs the forget loss in the metric of the retain set's quantum Fisher information.

    .. math:: \theta \leftarrow \theta + \sqrt{\frac{4 r}{g^T F^{-1} g}}\, F^{-1} g, \qquad
              g = \nabla_\theta \mathrm{CE}_{D_f}, \qquad
              F = \mathrm{QFI}_{D_r} + \lambda\, \overline{\operatorname{diag}\, \mathrm{QFI}_{D_r}}\, I

    Of all steps with the same first-order gain in forget loss this is the one whose retained states lose least
    fidelity: ``1 - |<psi(theta)|psi(theta + d)>|^2 = d^T QFI d / 4`` to second order. r is the trust region, the mean
    infidelity of retained states that a step may cost: ``d^T F d / 4 = r`` by the formula, and then the true infidelity
    is measured and the step shortened until it holds. The metric is of states, without labels and whatever is
    measured, which is why this needs a circuit: a classical layer has no states and only the Fisher information of
    its outputs.

    Only the circuit's weights move. The head moves no state, so that the metric says nothing of it and every step in it
    would be free. The encoder stays since its weights act through the features alone, and are as a rule more than a
    metric can hold. On a circuit that encodes once, all angles that move are one unitary for every input: the forget
    set stays as distinguishable as it was, and what changes is what is measured of it.

    A step takes the whole forget set once; every step's model may be the one that is kept, by the rule of all gradient
    methods. The metric is exact (``metric="full"``) for circuits of up to 128 weights, and exact within layers, with
    pairs between layers left at 0, for larger ones (``"layer"``); shifts of states give it, no automatic
    differentiation. It is of the exact circuit without noise, wherever and however the model runs. A step costs the
    gradients of the forget set, and for each retained sample taken as many circuits as there are weights (two for each
    weight of a controlled rotation), and two.

    Source: new here; natural gradients with the quantum Fisher information are Stokes et al. 2020, arXiv 1909.02108.
        Public code preconditions ascent with the *forget* set's matrix, which equalises what it should not hold still.
    """

    name: ClassVar[str] = "natural-ascent"
    strategy = "can erase by re-uploading"
    epochs: int = hyper(10, "steps, each over the whole forget set", low=1)
    radius: float = hyper(
        0.01, "r: mean infidelity of retained states that a step may cost", low=0, high=1, search=(1e-4, 0.1)
    )
    damping: float = hyper(1e-3, "lambda, in units of the metric's mean diagonal", low=0, search=(1e-4, 1.0))
    metric: Literal["auto", "full", "layer"] = hyper(
        "auto", "all pairs of weights, pairs within a layer, or by size", choices=("auto", "full", "layer")
    )
    samples: int | None = hyper(128, "retained samples a step that give the metric, drawn anew; none takes all", low=1)

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses models without a trained circuit."""
        circuit_in(model, self.name)

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """Steps, each a candidate; the model that the protocol's rule keeps."""
        name, layer = circuit_in(model, self.name)
        check_functional(model, task.retain.x[:1])
        circuit, net = layer.circuit.without_noise(), Net(model, work.counts)
        generator, watch, rule = work.seeds.generator("samples"), task.watch, rule_of(task)
        candidates, best, costs = [watch(net, 0)], net.state(), []
        for epoch in range(1, self.epochs + 1):
            with only_trained(model, {name}):
                step, cost = self.step(net, name, circuit, task, generator)
            net.parameters[name] = (net.parameters[name].double() + step).to(net.parameters[name])
            costs.append(cost)
            work.counts.epochs += 1
            candidates.append(watch(net, epoch))
            loss = candidates[-1].forget_loss
            work.history.append({"epoch": epoch, "loss": -loss if loss is not None else math.nan})
            if rule(candidates) == epoch:
                best = net.state()
            if work.progress is not None:
                work.progress(epoch, self.epochs, f"loss {work.history[-1]['loss']:.4f}")
        work.candidates, work.chosen = [candidate.to_dict() for candidate in candidates], rule(candidates)
        work.details.update(metric=self.blocks(circuit), infidelities=costs)
        net.restore(best)
        return net.write_back()

    def blocks(self, circuit: Circuit) -> Blocks:
        """Which pairs of weights the metric of a circuit holds."""
        if self.metric == "auto":
            return "full" if circuit.weights <= SMALL else "layer"
        return self.metric

    def step(
        self, net: Net, name: str, circuit: Circuit, task: Task, generator: torch.Generator
    ) -> tuple[Tensor, float]:
        """The change of the weights ``(weights,)`` in float64, and the mean infidelity of retained states it costs."""
        drawn = torch.randperm(len(task.retain), generator=generator)[: self.samples]
        features = features_into(net, task.retain.x[drawn.sort().values.to(task.retain.x.device)]).double()
        weights, blocks = net.parameters[name].detach().double(), self.blocks(circuit)
        slope = curvature.gradient(net, task.forget.x, task.forget.y)[name].double()
        if not bool(slope.isfinite().all()):
            raise NumericalError("expected a finite gradient of the forget loss, got others; lower radius or epochs")
        count_metric(net.counts, circuit, len(features), blocks)
        step = natural_step(slope, quantum_fisher(circuit, features, weights, blocks=blocks), self.damping, self.radius)
        before = engines.state(circuit, features, weights)
        for _ in range(ATTEMPTS):
            count_states(net.counts, len(features))
            cost = float((1 - fidelity(before, engines.state(circuit, features, weights + step))).mean())
            if cost <= self.radius:
                return step, cost
            step = SHORTER * math.sqrt(self.radius / cost) * step
        return torch.zeros_like(step), 0.0


def natural_step(slope: Tensor, fisher: Tensor, damping: float, radius: float) -> Tensor:
    """The step of steepest ascent with ``step^T F step / 4 = radius``, F the damped metric; ``(weights,)`` float64.

    Directions in which even the damped metric is nothing are left out.

    Args:
        slope: ``(weights,)``.
        fisher: ``(weights, weights)``, symmetric.
        damping: in units of the mean of its diagonal.
        radius: at least 0.
    """
    values, vectors = torch.linalg.eigh(fisher)
    values = values.clamp(min=0) + damping * fisher.diagonal().mean()
    along = vectors.mT @ slope
    along = torch.where(values > NOTHING * values[-1], along / values, torch.zeros_like(along))
    size = (along.square() * values).sum()
    return vectors @ along * (4 * radius / size).sqrt() if size > 0 else torch.zeros_like(slope)
