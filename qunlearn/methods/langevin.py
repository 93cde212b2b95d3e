"""Certified noisy fine-tuning from a start that is clipped to a public ball."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError, UnsupportedError
from qunlearn.methods import curvature
from qunlearn.methods.accounting import renyi_epsilon, renyi_rate
from qunlearn.methods.angles import shortest, widest_noise
from qunlearn.methods.base import Method
from qunlearn.methods.certificate import CERTIFIED, Guarantee, Kind
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import global_norm
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.models import angle_periods, reinitialise
from qunlearn.training.net import Net, Tensors, check_functional
from qunlearn.training.recipe import Recipe
from qunlearn.training.train import fit, of_classes


@register
@dataclass(frozen=True, kw_only=True)
class Langevin(Method):
    r"""Clips the original to a ball around public weights, takes noisy steps on the retain set, then clean epochs.

    .. math:: x_0 = c + \mathrm{clip}_{C_0}(\theta_0 - c), \qquad
              x_{t+1} = x_t - \gamma \Big( \tfrac{1}{|B|} \sum_{i \in B} \mathrm{clip}_{C_1}(\nabla \ell_i(x_t))
              + \lambda (x_t - c) \Big) + N(0, \sigma^2 I)

    The same steps from a retrained model start at most ``2 C_0`` away and see the same data, so that after T of them

    .. math:: \epsilon_\alpha = \frac{\alpha D^2}{2 \sigma^2 \sum_{j<T} \rho^{2j}}, \quad
              D = 2 C_0 \rho^T + 2 \gamma C_1 \sum_{j<T} \rho^j, \quad \rho = 1 - \gamma \lambda

    for every order alpha (privacy amplification by iteration; `iterated_rate` has the argument), which Opacus turns
    into (epsilon, delta). The centre c is what the model's own reinitialisation gives for `public_seed`, or zero;
    the way from c to the original is the shortest, angles being periodic. Whatever is learnt from data besides
    parameters (a PCA encoder) is learnt again from the retain set; the steps run in evaluation mode, so that a
    sample's gradient is its own.

    The last noisy step is kept, always: choosing among noisy steps, or between them and the original, would look at
    what the account does not cover. The clean epochs that follow see x_T, the retain set and the validation samples of
    its classes, which are the same in both worlds: they, and the choice among them by validation, are post-processing.

    Source: Koloskova et al. 2025, arXiv 2506.06985 (gradient clipping). Their released accountant lacks the factor
    alpha, and halves the divergence where lambda is 0; the formula above is derived anew. They clip the gradient of
    the batch; clipping each sample's, as here, bounds it as well.
    """

    name: ClassVar[str] = "langevin"
    certifies: ClassVar[Kind | None] = CERTIFIED

    epsilon: float = hyper(1.0, "to derive the noise from, where no sigma is given", low=1e-6)
    sigma: float | None = hyper(None, "each step's noise, epsilon follows; none derives it from epsilon", low=1e-12)
    delta: float = hyper(1e-5, "of the certificate", low=1e-12, high=0.5)
    radius: float = hyper(0.01, "C_0, of the ball that the original is clipped to", low=0, search=[0.01, 0.1, 1.0])
    clip: float = hyper(1.0, "C_1, largest norm of a sample's gradient", low=1e-12)
    learning_rate: float = hyper(0.001, "gamma, of the noisy steps", low=0)
    decay: float = hyper(0.0, "lambda, the pull to the centre", low=0)
    steps: int = hyper(10, "T, noisy steps", low=1)
    batch_size: int | None = hyper(None, "samples a step; none takes the recipe's, or 32", low=1)
    epochs: int = hyper(20, "clean epochs on the retain set afterwards, by the recipe", low=0, search=[5, 20, 60])
    centre: Literal["fresh", "zero"] = hyper("fresh", "public weights to clip around", choices=("fresh", "zero"))
    public_seed: int = hyper(271828, "of the fresh weights; better no seed of a model in the comparison", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.learning_rate * self.decay < 1:
            raise InputError(
                f"expected learning_rate * decay below 1 for langevin, got {self.learning_rate * self.decay}"
            )

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses a module that cannot be drawn anew, since that is where its public weights come from."""
        try:
            reinitialise(model, self.public_seed)
        except UnsupportedError as error:
            raise InputError(f"expected a module with public weights for langevin, got none: {error}") from error

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """Start, noisy steps, clean epochs."""
        fresh = reinitialise(model, self.public_seed)
        if callable(learn := getattr(fresh, "fit", None)):
            learn(task.retain.x)
        check_functional(fresh, task.retain.x[:1])
        net, sigma = Net(fresh, work.counts), self.noise()
        for name, parameter in model.named_parameters():  # what training left alone is no secret
            if not parameter.requires_grad:
                net.parameters[name] = parameter.detach().clone()
        public = {n: torch.zeros_like(p) if self.centre == "zero" else p for n, p in curvature.trained(net).items()}
        net.parameters.update(self._start(model, public))
        self._steps(net, public, sigma, task, work)
        work.guarantee = self._guarantee(fresh, list(public), sigma)
        if work.guarantee.details["randomisation_ratio"] > 1:
            work.notes.append(
                "The noise adds up to more than angles drawn anew: nothing of the original is left, and what follows "
                "is training from noise."
            )
        return self._clean(net.write_back(), task, work)

    def noise(self) -> float:
        """Sigma: as given, or the least that gives epsilon and delta."""
        if self.sigma is not None:
            return self.sigma
        return math.sqrt(self._rate(1.0) / renyi_rate(self.epsilon, self.delta))

    def _rate(self, sigma: float) -> float:
        return iterated_rate(
            self.radius, self.clip, self.steps, sigma, learning_rate=self.learning_rate, decay=self.decay
        )

    def _start(self, model: nn.Module, public: Tensors) -> Tensors:
        """x_0: the original's trained parameters, no further than the radius from the centre."""
        periods, original = angle_periods(model), dict(model.named_parameters())
        away = {}
        for name, centre in public.items():
            own = original[name].detach()
            away[name] = shortest(own, centre, periods[name].to(own)) if name in periods else own - centre
        scale = float((self.radius / global_norm(away).clamp(min=1e-300)).clamp(max=1.0))
        return {name: centre + scale * away[name] for name, centre in public.items()}

    def _steps(self, net: Net, public: Tensors, sigma: float, task: Task, work: Work) -> None:
        """T noisy steps, in place."""
        size = self.batch_size or (task.recipe.batch_size if task.recipe else 32)
        batches = _batches(len(task.retain.y), size, work.seeds.generator("order"))
        generator = work.seeds.generator("noise")
        for _ in range(self.steps):
            rows = next(batches).to(task.retain.y.device)
            slopes = self._clipped_mean(net, task.retain.x[rows], task.retain.y[rows])
            for name, slope in slopes.items():
                now = net.parameters[name]
                drawn = torch.randn(now.shape, generator=generator, dtype=now.dtype).to(now.device)
                drift = slope + self.decay * (now - public[name])
                net.parameters[name] = now - self.learning_rate * drift + sigma * drawn
        work.counts.epochs += math.ceil(self.steps * size / len(task.retain.y))

    def _clipped_mean(self, net: Net, x: Tensor, y: Tensor) -> Tensors:
        """The mean of the samples' gradients, each scaled to the norm `clip` if it is longer."""
        total: Tensors = {}
        for part in curvature.sample_gradients(net, x, y):
            norms = torch.stack([g.flatten(1).square().sum(1) for g in part.values()]).sum(0).sqrt()
            scale = (self.clip / norms.clamp(min=1e-30)).clamp(max=1.0)
            total = {n: torch.tensordot(scale, g, 1) + total.get(n, 0) for n, g in part.items()}
        return {name: g / len(x) for name, g in total.items()}

    def _clean(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """Noiseless training on the retain set."""
        if self.epochs == 0:
            return model
        kept: Any = getattr(model, "recipe", None)
        recipe = dataclasses.replace(task.recipe or Recipe(learning_rate=0.001), epochs=self.epochs)
        validation = of_classes(task.validation, task.retain)
        trained, counts = fit(
            model, task.retain, validation, recipe, seed=work.seeds.integer("clean"), progress=work.progress
        )
        work.counts.add(counts)
        trained.recipe = kept
        return trained

    def _guarantee(self, model: nn.Module, names: list[str], sigma: float) -> Guarantee:
        rate = self._rate(sigma)
        widest = [float(widest_noise(p[p.isfinite()]).max()) for p in angle_periods(model).values() if len(p)]
        spread = sigma * math.sqrt(self.steps)
        details = {
            "sigma": sigma,
            "noise_in_all": spread,
            "distance": drift(self.radius, self.clip, self.steps, learning_rate=self.learning_rate, decay=self.decay),
            "renyi_rate": rate,
            "randomisation_ratio": spread / max(widest) if widest else 0.0,
            "clean_epochs": self.epochs,
            "kept": "the last noisy step",
        }
        epsilon = renyi_epsilon(rate, self.delta)
        return Guarantee(CERTIFIED, epsilon, self.delta, _ASSUMPTIONS, tuple(names), _EXCLUDES, details)


def drift(radius: float, clip: float, steps: int, *, learning_rate: float, decay: float) -> float:
    """D: how far apart two runs on the same data can end, but for the noise."""
    rho = 1 - learning_rate * decay
    return 2 * radius * rho**steps + 2 * learning_rate * clip * sum(rho**j for j in range(steps))


def iterated_rate(radius: float, clip: float, steps: int, sigma: float, *, learning_rate: float, decay: float) -> float:
    r"""The Renyi divergence of order alpha between two runs' last steps, divided by alpha; at most this.

    Let the second run's state be moved towards the first's by some ``a_t`` in step t, at the price of
    ``alpha a_t^2 / (2 sigma^2)``, hidden by that step's noise. What separates the runs is ``W_0 = 2 C_0`` at first and
    ``W_{t+1} = rho W_t + 2 gamma C_1 - a_{t+1}`` then: a step maps states apart by W to states apart by at most
    ``rho W + 2 gamma C_1``, gradients being no longer than C_1. ``W_T = 0`` asks for
    ``sum_t rho^{T-t} a_t = D``, and the price is least for ``a_t`` in proportion to ``rho^{T-t}``:
    ``alpha D^2 / (2 sigma^2 sum_j rho^{2j})``. No W_t is then below 0: in units of ``rho^t`` it gains
    ``2 gamma C_1 rho^{-t}`` and loses in proportion to ``rho^{-2t}``, so that it rises first, falls after, and ends at
    0. The runs share their batches; a mixture over them diverges no more.

    Source: Feldman et al. 2018, arXiv 1808.06651 (the shift-reduction lemma).
    """
    rho = 1 - learning_rate * decay
    reached = drift(radius, clip, steps, learning_rate=learning_rate, decay=decay)
    return reached**2 / (2 * sigma**2 * sum(rho ** (2 * j) for j in range(steps)))


_ASSUMPTIONS = (
    "The seed of the noise is secret.",
    "The centre's seed and all settings were chosen without the training data.",
    "It is compared with the same procedure run from a model retrained without the forget set.",
)
_EXCLUDES = (
    "Scalings of the inputs that were fitted to data which held the forget set.",
    "Parameters that were frozen during training, which stay as they are.",
)


def _batches(samples: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Positions of batches, epoch after epoch, each in an order drawn anew."""
    while True:
        yield from torch.split(torch.randperm(samples, generator=generator), size)
