"""UNSIR: noise that the model finds least like a class takes that class's place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.errors import InputError
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models import DirectEncoder, HybridClassifier
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net, evaluating
from qunlearn.training.optimizers import Adam
from qunlearn.training.phases import Batch, Memo, Phase

Kind = Literal["angles", "directions", "features"]


@register
@dataclass(frozen=True, kw_only=True)
class UNSIR(GradientMethod):
    r"""Trains on error-maximising noise under the label of the class that goes, then repairs on retain samples.

    .. math:: N_c = \arg\min_N \; -\mathrm{CE}(f_{\theta_0}(N), c) + \lambda \operatorname{mean}_i \|N_i\|_2^2,
              \qquad \text{impair: } \mathrm{CE}(f(\{x_r\} \cup \{N\}), \{y_r\} \cup \{c\}), \qquad
              \text{repair: } \mathrm{CE}(f(x_r), y_r)

    Forget samples are never looked at: their class is all that is asked. Each deleted class has a batch of noise,
    learned by Adam against the frozen original, under its own label (in the released notebook all noise takes the
    label of the last class). A round is an impair pass and a repair pass, each over a share of the retain set drawn
    anew; the source takes one round over a fifth of a large set, which is too little for a small one. Impairing takes
    `impair_rate` times the learning rate, with a fresh optimizer, as in the source.

    The noise is what the encoder takes. Angles that a circuit reads as they are: uniform on (-pi, pi], without the
    norm term (the inputs lie on a torus). Amplitudes: directions, of length 1, likewise without. Anything else:
    Gaussian around the mean retain sample with the retain inputs' standard deviation, the norm and the step taken in
    that unit (for standardised inputs, as in the source).

    Source: Tarun et al. 2023, arXiv 2111.08947, and the authors' notebook.
    """

    name: ClassVar[str] = "unsir"
    epochs: int = hyper(5, "rounds of an impair and a repair pass", low=1)
    retain_share: float = hyper(1.0, "share of the retain set in a pass, 0 to 1", low=0, high=1, search=[0.2, 0.5, 1.0])
    impair_rate: float = hyper(2.0, "learning rate of impair passes, times that of repair passes", low=0)
    noise_samples: int = hyper(32, "noise samples for each class that goes", low=1)
    noise_steps: int = hyper(40, "steps that learn the noise", low=0)
    noise_rate: float = hyper(0.1, "learning rate of the noise, in radians or standard deviations", low=0)
    noise_weight: float = hyper(0.1, "lambda, weight of the norm term", low=0)
    noise_share: float = hyper(0.5, "noise samples a retain sample while impairing", low=0, search=(0.1, 2.0))

    def check_task(self, task: Task) -> None:
        """Beside the usual, refuses a forget set that is not whole classes."""
        super().check_task(task)
        partly = sorted(set(task.forget.y.tolist()) & task.retained_classes)
        if partly:
            raise InputError(
                f"expected a request that deletes whole classes for {self.name}, got samples of class "
                f"{', '.join(map(str, partly))}, of which others are retained; ask for ForgetRequest.of_class, or take "
                "another method"
            )

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The noise ``(noise samples, ...)`` and its labels."""
        gone = torch.tensor(sorted(task.forgotten_classes), device=task.retain.y.device)
        labels = gone.repeat_interleave(self.noise_samples)
        return {"noise": self.learned(net, task.retain.x, labels, generator), "labels": labels}

    def learned(self, net: Net, like: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Noise ``(labels, ...)``, for inputs like ``(n, ...)``, whose cross entropy the model finds high."""
        kind = kind_of_inputs(net.module)
        raw = drawn(kind, like, len(labels), generator)
        weight = self.noise_weight if kind == "features" else 0.0

        def loss(view: Net, raw: Tensor) -> Tensor:
            entropy = cross_entropy(view(placed(kind, raw, like)), labels)
            return weight * raw.square().flatten(1).sum(1).mean() - entropy

        adam = Adam([raw], learning_rate=self.noise_rate, weight_decay=0.0)
        with evaluating(net.module):
            for _ in range(self.noise_steps):
                adam.step([net.input_gradient(loss, raw)])
        return placed(kind, raw, like)

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Impair and repair in turn."""
        share = self.retain_share
        impair = Phase("retain", self.impair_loss, candidate=False, retain_share=share, rate=self.impair_rate)
        return [impair, Phase("retain", retain_loss, retain_share=share)] * self.epochs

    def impair_loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """Cross entropy over retain samples and noise, some of it drawn at every step."""
        number = max(1, round(self.noise_share * len(batch.retain.y)))
        rows = stream.integers(0, len(memo["labels"]), batch.retain.y.new_empty(number))
        x = torch.cat([batch.retain.x, memo["noise"][rows]])
        return cross_entropy(net(x), torch.cat([batch.retain.y, memo["labels"][rows]]))


def kind_of_inputs(model: nn.Module) -> Kind:
    """What a model's inputs are: angles or amplitudes of a circuit that reads them as they are, or features."""
    if isinstance(model, HybridClassifier) and isinstance(model.encoder, DirectEncoder):
        return "directions" if model.circuit.amplitude else "angles"
    return "features"


def drawn(kind: Kind, like: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """What noise starts from, ``(number, ...)``: angles uniform on (-pi, pi], anything else standard normal."""
    shape = (number, *like.shape[1:])
    if kind == "angles":
        return (math.pi * (1 - 2 * torch.rand(shape, generator=generator, dtype=torch.float64))).to(like)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(like)


def placed(kind: Kind, raw: Tensor, like: Tensor) -> Tensor:
    """Inputs of a model ``(number, ...)`` made of raw noise, where its own are like ``(n, ...)``."""
    if kind == "angles":
        return raw
    if kind == "directions":
        length = torch.linalg.vector_norm(raw.flatten(1), dim=1)
        unit: Tensor = raw / length.view(-1, *[1] * (raw.dim() - 1))
        return unit
    return like.mean(0) + like.var(0, correction=0).mean().sqrt() * raw
