"""Kernel-guided unlearning: a kernel machine that never saw the forget set says what to answer on it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot

from qunlearn.errors import InputError
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.in_circuit import count_states, features_into
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.initialise import redraw
from qunlearn.models.stream import Stream
from qunlearn.quantum import engines
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.net import CHUNK, Net
from qunlearn.training.phases import Batch, Memo, Phase

STEPS = 5  # the rate falls in so many equal steps; the epochs of the last are candidates
SHARPEST = 100.0  # beta at most; decision values lie in about [0, 1]
HALVINGS = 40


@register
@dataclass(frozen=True, kw_only=True)
class KernelGuided(GradientMethod):
    r"""Trains on with the forget samples relabelled by a kernel classifier of the circuit that never saw them.

    .. math:: g(x) = k(x, X_r)\,(K_{rr} + \lambda I)^{-1}\, T_r, \qquad
              k(x, x') = |\langle\phi(x)|\phi(x')\rangle|^2, \qquad q_f = \mathrm{softmax}(\beta\, g(x_f))

    .. math:: L = \frac{1}{|D_f| + |D_r|} \Bigl( \sum_r \mathrm{CE}(y_r, p_\theta(x_r)) +
              \sum_f \mathrm{CE}(q_f, p_\theta(x_f)) \Bigr)

    Other methods push forget samples to something arbitrary: away, to a uniform answer, to a wrong label. A retrained
    model answers what anyone answers who never saw them, mostly right for a random subset, by its true class where a
    label was wrong, as the nearest other class where one was deleted. So does this teacher, which costs a linear
    system: phi is the model's own encoder and circuit with weights drawn anew (what an encoder learns from data, such
    as principal components, is learnt from the retain set alone), T_r the one-hot labels of the retain set. The forget
    set does not enter g. Classes that the retain set does not hold get probability 0.

    beta is set at the start of every epoch so that the teacher is as sure of validation samples of retained classes
    (mean of the largest probability) as the model is then: forget samples shall look like unseen ones, however sure
    models are wont to be. Without such samples retain samples stand in, each decided by all the others; the model is
    too sure of these.

    The rate falls geometrically, in five steps, from `hot` to `cold` times the recipe's; the epochs of the last are
    candidates. ``taught=False`` is the control: the same descent on the retain set alone.

    It takes the states of a circuit for the kernel, so that the teacher generalises as untrained states of this very
    circuit do; that a kernel machine stands for a model of this architecture is an assumption, which
    `docs/own_strategy.md` tests. A classical network would have its tangent kernel in that place. What the states hold
    is not aimed at: like all descent on outputs it may suppress rather than erase.

    Cost: a pass over both sets an epoch, one state for every retain, forget and validation sample, one forward pass
    over the validation set an epoch, and n^3 / 3 steps for n retain samples.

    Source: new here. Relabelling by a model that never saw the samples has classical kin (a teacher is untrained in
        `bad-teacher`); fidelity kernels are Havlicek et al. 2019, arXiv 1804.11326.
    """

    name: ClassVar[str] = "kernel-guided"
    strategy = "can erase by re-uploading or encoder"
    epochs: int = hyper(
        45, "passes over both sets; 45 are a quarter of retraining with 200 epochs and a tenth forgotten", low=1
    )
    hot: float = hyper(5.0, "learning rate at first, in multiples of the recipe's", low=1e-6)
    cold: float = hyper(0.3, "learning rate at last, in multiples of the recipe's", low=1e-6)
    ridge: float = hyper(0.1, "lambda; fidelities are 1 on the diagonal", low=1e-6)
    taught: bool = hyper(True, "whether the teacher's answers are learnt; without, the retain set alone is descended")

    def check_model(self, model: nn.Module, data: Any) -> None:
        """Refuses a model without one circuit, whose states make the kernel."""
        circuits = [part for part in model.modules() if isinstance(part, QuantumLayer)]
        if len(circuits) != 1:
            raise InputError(
                f"expected a model with one circuit for {self.name}, whose states are its teacher's kernel, got "
                f"{len(circuits)} (a classical network, or a twin of a circuit, has none); take a HybridClassifier, or "
                "bad-teacher"
            )

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The teacher's decision values of forget and validation samples, ``(samples, classes)``."""
        self.check_model(net.module, task.retain)
        if not self.taught:
            return {}
        like = net.logits(task.retain.x[:1])
        held = torch.tensor([label in task.retained_classes for label in range(like.shape[1])], device=like.device)
        unseen = _unseen(task)
        sets = [task.retain.x, task.forget.x, *([] if unseen is None else [unseen])]
        retain, *others = embedded(net, sets, int(torch.randint(2**62, (), generator=generator)))
        labels = one_hot(task.retain.y, like.shape[1]).double()
        forget, *values = decided(retain, labels, self.ridge, others)
        if unseen is None:
            unseen, values = task.retain.x, [left_out(retain, labels, self.ridge)]
        return {"forget": forget.to(like), "values": values[0].to(like), "unseen": unseen, "held": held}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Passes over both sets, or the retain set alone, at a falling rate."""
        phases = []
        for step in range(STEPS):
            epochs = self.epochs * (step + 1) // STEPS - self.epochs * step // STEPS
            if not epochs:
                continue
            plain = Phase(
                "retain",
                retain_loss,
                epochs,
                rate=self.hot * (self.cold / self.hot) ** (step / (STEPS - 1)),
                candidate=step == STEPS - 1,
            )
            taught = dataclasses.replace(plain, data="mixed", loss=self.loss, refresh=self.calibrate)
            phases.append(taught if self.taught else plain)
        return phases

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """The cross entropy with the labels of retain samples, and with the teacher's answers on forget samples."""
        mixed, targets = batch.mixed, memo["targets"]
        logs, last = log_softmax(net(mixed.x), 1), len(targets) - 1
        labels = one_hot(mixed.y, targets.shape[1]).to(targets)
        wanted = torch.where((mixed.position <= last)[:, None], targets[mixed.position.clamp(max=last)], labels)
        return -(wanted * logs).sum(1).mean()

    def calibrate(self, net: Net, memo: Memo, stream: Stream) -> Memo:
        """The memo with `targets`, a teacher's probabilities ``(forget samples, classes)`` as sure as the model is."""
        sure = torch.softmax(net.logits(memo["unseen"]), 1).amax(1).mean()
        low, high = torch.zeros_like(sure), torch.full_like(sure, SHARPEST)
        for _ in range(HALVINGS):
            beta = (low + high) / 2
            less = _answers(beta, memo["values"], memo["held"]).amax(1).mean() < sure
            low, high = torch.where(less, beta, low), torch.where(less, high, beta)
        return {**memo, "targets": _answers((low + high) / 2, memo["forget"], memo["held"])}


@torch.no_grad()
def embedded(net: Net, sets: Sequence[Tensor], seed: int) -> list[Tensor]:
    """States ``(n, 2**qubits)``, complex128, of samples under the model's encoder and circuit with fresh weights.

    Args:
        net: the model; its own weights play no part, and noise is left out.
        sets: samples ``(n, ...)``; what an encoder learns from data it learns from the first.
        seed: of the weights.
    """
    fresh = copy.deepcopy(net.module)
    redraw(fresh, seed)
    for part in fresh.modules():
        if callable(getattr(part, "unfit", None)):
            cast(Any, part).fit(sets[0])
    layer = next(part for part in fresh.modules() if isinstance(part, QuantumLayer))
    found, view = [], Net(fresh)
    for x in sets:
        count_states(net.counts, len(x))
        parts = [
            engines.state(layer.circuit.without_noise(), features.double(), layer.weights.double()).flatten(1)
            for features in torch.split(features_into(view, x), CHUNK)
        ]
        found.append(torch.cat(parts))
    return found


def decided(retain: Tensor, labels: Tensor, ridge: float, others: Sequence[Tensor]) -> list[Tensor]:
    """Decision values ``(m, classes)`` at states ``(m, d)``, by states ``(n, d)`` with one-hot labels."""
    solved = torch.linalg.solve(_regularised(retain, ridge), labels)
    return [fidelities(states, retain) @ solved for states in others]


def left_out(retain: Tensor, labels: Tensor, ridge: float) -> Tensor:
    """Of every sample the decision values ``(n, classes)`` by all the others: T_i - (A T)_i / A_ii, A the inverse."""
    inverse = torch.linalg.inv(_regularised(retain, ridge))
    found: Tensor = labels - (inverse @ labels) / inverse.diagonal()[:, None]
    return found


def fidelities(a: Tensor, b: Tensor) -> Tensor:
    """|<a|b>|^2 of every pair of states ``(n, d)`` and ``(m, d)``: ``(n, m)``."""
    return (a @ b.mH).abs().square()


def _regularised(states: Tensor, ridge: float) -> Tensor:
    kernel = fidelities(states, states)
    kernel.diagonal().add_(ridge)
    return kernel


def _answers(beta: Tensor, values: Tensor, held: Tensor) -> Tensor:
    """Probabilities ``(n, classes)`` of decision values ``(n, classes)``; 0 for classes that are not `held`."""
    return torch.softmax((beta * values).masked_fill(~held, -torch.inf), 1)


def _unseen(task: Task) -> Tensor | None:
    """Validation samples ``(n, ...)`` of classes that the retain set holds; None without any."""
    if task.validation is None:
        return None
    y = task.validation.y
    rows = torch.isin(y, torch.tensor(sorted(task.retained_classes), dtype=y.dtype, device=y.device))
    return task.validation.x[rows] if bool(rows.any()) else None
