"""The account of a certified head: what it was solved on, with which perturbation, and how far it may have drifted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods.logistic import Array, Logistic, Removal
from qunlearn.training.trace import Trace

Whole = NDArray[np.int64]
_TENSORS = ("features", "labels", "ids", "perturbation", "bounds", "log_factors")


@dataclass(frozen=True, eq=False)
class Books:
    """What `Trace` keeps for certified removal, as arrays.

    Features are those of training, so that the problem whose optimum is known stays the same to the last bit.

    Attributes:
        settings: the method's hyper-parameters at training.
        features: ``(n, d)`` of the samples that are left.
        labels: ``(n,)``.
        ids: ``(n,)``.
        perturbation: b, ``(classes, d)``.
        bounds: beta, ``(classes,)``, on the norm of each class's gradient on what is left.
        log_factors: ``(classes,)``, see `Removal`, summed over requests.
        requests: how many were served since the head was solved.
    """

    settings: dict[str, Any]
    features: Array
    labels: Whole
    ids: Whole
    perturbation: Array
    bounds: Array
    log_factors: Array
    requests: int = 0

    @classmethod
    def open(cls, settings: dict[str, Any], rows: Tensor, data: Dataset, classes: int) -> Books:
        """Books on a training set, before anything is solved."""
        nothing = np.zeros(classes)
        b = np.zeros((classes, rows.shape[1]))
        return cls(settings, rows.cpu().numpy(), data.y.cpu().numpy(), data.ids.cpu().numpy(), b, nothing, nothing)

    @classmethod
    def of(cls, trace: Trace) -> Books:
        """What `trace` wrote."""
        arrays = {name: trace.tensors[name].cpu().numpy() for name in _TENSORS}
        return cls(trace.hyperparameters, **arrays, requests=trace.facts["requests"])

    def trace(self, method: str) -> Trace:
        """The books as a trace."""
        tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in _TENSORS}
        return Trace(method, self.settings, tensors, {"requests": self.requests})

    def problem(self, k: int, rows: Whole | slice, *, perturbed: bool = True) -> Logistic:
        """The regression of class k against the rest on some rows."""
        b = self.perturbation[k] if perturbed else np.zeros_like(self.perturbation[k])
        signs = np.where(self.labels[rows] == k, 1.0, -1.0)
        return Logistic(self.features[rows], signs, self.settings["regularization"], b)

    def check(self, forget: Dataset, retain: Dataset) -> None:
        """Refuses sets that are not, together, the samples that are left.

        Raises:
            InputError: says how many are amiss.
        """
        ids = np.concatenate([forget.ids.cpu().numpy(), retain.ids.cpu().numpy()])
        labels = np.concatenate([forget.y.cpu().numpy(), retain.y.cpu().numpy()])
        order, own = np.argsort(ids, kind="stable"), np.argsort(self.ids, kind="stable")
        same = len(ids) == len(self.ids) and np.array_equal(ids[order], self.ids[own])
        if not same or not np.array_equal(labels[order], self.labels[own]):
            raise InputError(
                f"expected forget and retain sets that are together the {len(self.ids)} samples that the head was "
                f"solved on, less those removed since, by id and label, got {len(ids)} samples of which "
                f"{int(np.isin(ids, self.ids).sum())} are among them; pass the split of the training"
            )

    def positions(self, ids: Tensor) -> Whole:
        """Where samples stand, ``(len(ids),)``; in ascending order, so that sums round alike for any order."""
        return np.flatnonzero(np.isin(self.ids, ids.cpu().numpy()))

    def features_of(self, ids: Tensor) -> Array:
        """Features ``(len(ids), d)`` of samples, in the order of their ids."""
        order = np.argsort(self.ids, kind="stable")
        return self.features[order[np.searchsorted(self.ids[order], ids.cpu().numpy())]]

    def only(self, rows: Whole) -> Books:
        """The books on some of the samples."""
        kept = {name: getattr(self, name)[rows] for name in ("features", "labels", "ids")}
        return dataclasses.replace(self, **kept)

    def after(self, left: Whole, steps: Sequence[Removal]) -> Books:
        """The books after a step a class, on the samples that are left."""
        return dataclasses.replace(
            self.only(left),
            bounds=self.bounds + np.array([step.bound for step in steps]),
            log_factors=self.log_factors + np.array([step.log_factor for step in steps]),
            requests=self.requests + 1,
        )

    def reopened(self, residuals: Array) -> Books:
        """The books of a head that was just solved, down to gradients of these norms ``(classes,)``."""
        return dataclasses.replace(self, bounds=residuals, log_factors=np.zeros_like(residuals), requests=0)

    def gradients(self, weights: Array) -> Array:
        """The gradient of every class's problem at weights, both ``(classes, d)``."""
        return np.stack([self.problem(k, slice(None)).gradient(w) for k, w in enumerate(weights)])

    def privacy_loss(self, gradients: Array, sigma: float) -> float:
        """Logarithm of how much likelier the head that came out is after the steps than after solving anew.

        Solving gives it where the perturbation is b less the gradient that is left; the steps give it at b.
        """
        b = self.perturbation
        shift = (np.square(b - gradients).sum() - np.square(b).sum()) / (2 * sigma**2)
        return float(shift - self.log_factors.sum())
