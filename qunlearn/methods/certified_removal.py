"""Certified removal from a convex head over frozen circuit features."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods.base import Method
from qunlearn.methods.certificate import CERTIFIED, Guarantee, Kind
from qunlearn.methods.hyper import hyper
from qunlearn.methods.logistic import Array, Removal, remove
from qunlearn.methods.registry import register
from qunlearn.methods.removal_books import Books
from qunlearn.methods.task import Task, Work
from qunlearn.models import FrozenHead, HybridClassifier, reinitialise
from qunlearn.models.amplitude import amplitude_model
from qunlearn.models.frozen_head import check_body
from qunlearn.models.initialise import isolated_random
from qunlearn.training.counting import Counts, Price
from qunlearn.training.loop import Progress
from qunlearn.training.recipe import Recipe, recipe_of
from qunlearn.training.seeds import Seeds
from qunlearn.training.train import matched

_ROUNDING = 1e-4  # of features, from one batch in float32 to another
_OF_THE_TRAINING = ("regularization", "sigma", "features", "embedding", "weights")


@register
@dataclass(frozen=True, kw_only=True)
class CertifiedRemoval(Method):
    r"""Removes samples from a logistic head by one Newton step a class, under noise that hides what the step misses.

    .. math:: L_k(w) = \sum_i \Big[ \ell(s_{ik}\, w^T \phi(x_i)) + \frac{\lambda}{2} \|w\|^2 \Big] + b_k^T w,
              \quad b_k \sim N(0, \sigma^2 I), \qquad w_k^- = w_k + H_k^{-1} \Delta_k

    `train` draws the circuit (and any encoder) anew, freezes both, and solves one ridge regression a class over the
    features phi of `FrozenHead`, whose norm is at most 1. After the step the gradient on the retain set is not zero
    but at most ``beta_k``, the sum of a bound over all requests so far and of what the solver left (`remove` states
    the bound, which is Guo's with ``gamma = sqrt(3) / 18``). A head retrained with the perturbation moved by that
    much would be the same head, and b hides a shift of ``sigma epsilon / c``, ``c = sqrt(2 ln(1.5 / delta))``. With
    ``budget="joint"`` all K regressions are one convex problem under one Gaussian vector, so that the norm of all
    ``beta_k`` together is held against that. With ``"split"``, the source's way, every class is a problem of its own
    with ``epsilon / K`` and ``delta / K``: the assumptions are the same, and several times as much is spent.

    A request that would exceed the budget is served by solving the head again on the retain set with a fresh b; the
    record says so. (Released code lowers the Gram matrix of the features once a class and not once a removal, so
    that its bound comes out too small; here the norm is of the retain set itself.)

    Source: Guo et al. 2020, arXiv 1911.03030.
    """

    name: ClassVar[str] = "certified-removal"
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "trace"})
    trains: ClassVar[bool] = True
    certifies: ClassVar[Kind | None] = CERTIFIED

    epsilon: float = hyper(1.0, "of the certificate; the source's tail bound ends at 2 ln 3", low=1e-3, high=2.19)
    delta: float = hyper(1e-5, "of the certificate", low=1e-12, high=0.1)
    sigma: float = hyper(0.3, "standard deviation of each entry of the perturbation b", low=1e-6)
    regularization: float = hyper(0.001, "lambda, for every sample", low=1e-6)
    features: Literal["expectations", "probabilities"] = hyper(
        "expectations", "what is read from the circuit", choices=("expectations", "probabilities")
    )
    embedding: Literal["model", "amplitude"] = hyper(
        "model",
        "the model's encoder and circuit, or the samples as amplitudes of its card's circuit",
        choices=("model", "amplitude"),
    )
    weights: Literal["drawn", "given"] = hyper(
        "drawn",
        "frozen weights: drawn anew, or those of the given model, never trained on private data",
        choices=("drawn", "given"),
    )
    budget: Literal["split", "joint"] = hyper("joint", "how classes share the certificate", choices=("joint", "split"))
    tolerance: float = hyper(1e-8, "largest norm of a gradient that counts as solved", low=1e-12)

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses a body whose features depend on the training data, or change from call to call."""
        if self.embedding == "amplitude" and self.weights == "given":
            raise InputError(
                "expected weights='drawn' with embedding='amplitude', whose circuit is another than the model's, got "
                "'given'"
            )
        body = check_body(model, "expectations" if self.embedding == "amplitude" else self.features)
        if self.embedding == "model" and callable(getattr(body.encoder, "unfit", None)):
            raise InputError(
                "expected an encoder that learns nothing from data for certified-removal, got one that is fitted to "
                "the training set: the features of all samples then depend on those to forget, and no noise on the "
                "head hides that; use embedding='amplitude', or encoder='none' or 'cnn'"
            )
        if self.embedding == "amplitude":
            self._body(model, data, 0)

    def train(
        self,
        model: nn.Module,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> nn.Module:
        """A `FrozenHead` solved on the training set; neither validation set nor recipe plays a part."""
        self.check_model(model, data)
        seeds = Seeds(seed, self.name)
        original = FrozenHead(self._body(model, data, seeds.integer("weights")), self.features)
        data = matched(data, original)
        if not int(data.y.max()) < original.classes:
            raise InputError(f"expected labels below {original.classes}, got {int(data.y.max())}; set classes=")
        rows = original.checked_phi(data.x)
        books = Books.open(self.hyperparameters(), rows, data, original.classes)
        books = self._solved(original, books, seeds.generator("perturbation"))
        original.recipe, original.trace = recipe or recipe_of(model) or Recipe(), books.trace(self.name)
        runs = len(data.y) * Price(original).circuits
        original.training_counts = Counts(circuit_evaluations=runs, hardware_circuits=runs, epochs=1)  # type: ignore[assignment]
        return original.eval()

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """One Newton step a class, or a head solved anew where that would exceed the budget."""
        books = self._books(model, task)
        assert isinstance(model, FrozenHead)
        self._check_samples(model, books, task.forget, work)
        gone = books.positions(task.forget.ids)
        left = books.positions(task.retain.ids)
        before = model.head.weight.detach().cpu().numpy()
        steps = [
            remove(w, books.problem(k, gone, perturbed=False), books.problem(k, left)) for k, w in enumerate(before)
        ]
        after = books.after(left, steps)
        spent = self.spent(after.bounds, after.log_factors)
        if retrained := spent > self.epsilon:
            work.notes.append(
                f"A step would bring what is spent to epsilon {spent:.3g} of {self.epsilon}, so the head was solved "
                "anew on the retain set with a fresh perturbation."
            )
            after = self._solved(model, books.only(left), work.seeds.generator("perturbation"))
        else:
            _write(model, np.stack([step.weights for step in steps]))
        model.trace = after.trace(self.name)
        work.guarantee = self._guarantee(model, after, steps, len(gone), retrained)
        return model

    def spent(self, bounds: Array, log_factors: Array) -> float:
        """The epsilon that residuals of at most ``bounds`` (classes,) use up, ``log_factors`` (classes,) included."""
        classes = len(bounds)
        if self.budget == "joint":
            widest = math.sqrt(2 * math.log(1.5 / self.delta))
            return float(widest * np.linalg.norm(bounds) / self.sigma + abs(log_factors.sum()))
        widest = math.sqrt(2 * math.log(1.5 * classes / self.delta))
        return float(classes * (widest * bounds / self.sigma + np.abs(log_factors)).max())

    def _body(self, model: nn.Module, data: Dataset, seed: int) -> HybridClassifier:
        """The model whose encoder and circuit are frozen, not shared with the one given."""
        assert isinstance(model, HybridClassifier)
        if self.embedding == "amplitude":
            with isolated_random():
                model = amplitude_model(model, tuple(data.x.shape[1:]))
            check_body(model, self.features)
        found = copy.deepcopy(model) if self.weights == "given" else reinitialise(model, seed)
        assert isinstance(found, HybridClassifier)
        return found

    def _solved(self, model: FrozenHead, books: Books, generator: torch.Generator) -> Books:
        """Solves the head with a fresh perturbation, writes it, and opens the account with what the solver left."""
        shape = (model.classes, model.width)
        drawn = self.sigma * torch.randn(shape, generator=generator, dtype=torch.float64).numpy()
        books = dataclasses.replace(books, perturbation=drawn)
        found = [books.problem(k, slice(None)).solve(self.tolerance) for k in range(model.classes)]
        _write(model, np.stack([w for w, _ in found]))
        return books.reopened(np.array([norm for _, norm in found]))

    def _books(self, model: nn.Module, task: Task) -> Books:
        trace = task.trace
        if not isinstance(model, FrozenHead) or trace is None or trace.method != self.name:
            raise InputError(
                f"expected an original that certified-removal trained, got {type(model).__name__}; use "
                "get('certified-removal').train(model, data)"
            )
        for key in _OF_THE_TRAINING:
            if trace.hyperparameters[key] != getattr(self, key):
                raise InputError(
                    f"expected {key}={trace.hyperparameters[key]!r}, as the original was trained with, got "
                    f"{getattr(self, key)!r}"
                )
        books = Books.of(trace)
        books.check(task.forget, task.retain)
        return books

    def _check_samples(self, model: FrozenHead, books: Books, forget: Dataset, work: Work) -> None:
        """Refuses forget samples that are not those which their ids stood for in training."""
        runs = len(forget.y) * Price(model).circuits
        work.counts.add(Counts(circuit_evaluations=runs, hardware_circuits=runs))
        off = np.abs(model.checked_phi(forget.x).cpu().numpy() - books.features_of(forget.ids)).max(1)
        if len(others := np.flatnonzero(off > _ROUNDING)):
            raise InputError(
                f"expected the samples that the original was trained on, got {len(others)} of {len(off)} forget "
                f"samples with other features under the same ids (id {int(forget.ids[others[0]])} first, off by "
                f"{off[others[0]]:.2g}); pass the split of the training, scaled as it was"
            )

    def _guarantee(
        self, model: FrozenHead, books: Books, steps: Sequence[Removal], removed: int, retrained: bool
    ) -> Guarantee:
        weights = model.head.weight.detach().cpu().numpy()
        gradients = books.gradients(weights)
        details: dict[str, Any] = {
            "removed": removed,
            "left": len(books.labels),
            "requests_since_training": books.requests,
            "retrained": retrained,
            "gradient_residual": float(np.linalg.norm(gradients)),
            "bound": float(np.linalg.norm(books.bounds)),
            "bound_of_this_step": float(np.linalg.norm([step.bound for step in steps])),
            "worst_case_of_this_step": float(np.linalg.norm([step.worst for step in steps])),
            "epsilon_spent": self.spent(books.bounds, books.log_factors),
            "log_density_factor": float(books.log_factors.sum()),
            "privacy_loss_here": books.privacy_loss(gradients, self.sigma),
            "sigma": self.sigma,
            "regularization": self.regularization,
            "classes": model.classes,
        }
        given = ("The frozen circuit and encoder never saw training data: the caller says so.",)
        return Guarantee(
            CERTIFIED,
            self.epsilon,
            self.delta,
            assumptions=_ASSUMPTIONS + (given if self.weights == "given" else ()),
            covers=("head.weight",),
            excludes=_EXCLUDES,
            details=details,
        )


_ASSUMPTIONS = (
    "The seed of the perturbation is secret.",
    "The residual acts on the perturbation as a fixed shift (theorem 3 of Guo et al. 2020); by how much it changes "
    "densities otherwise is log_density_factor, which is counted as spent.",
    "Whether a request exceeds the budget does not depend on the perturbation.",
)
_EXCLUDES = (
    "Frozen encoder and circuit: they hold nothing of the training data.",
    "Scalings of the inputs that were fitted to data which held the forget set.",
    "Hyper-parameters chosen by results on data which held the forget set.",
    "The trace, which holds features of the samples that stay, and the perturbation: keep it secret.",
)


def _write(model: FrozenHead, weights: Array) -> None:
    with torch.no_grad():
        model.head.weight.copy_(_tensor(weights))


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
