"""The figures of one model beside retrained models, as a table of functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from qunlearn import metrics
from qunlearn.data import Split
from qunlearn.evaluation.predictions import OUTSIDE, Arrays, Predictions, state_positions
from qunlearn.evaluation.reference import reference, unseen, unseen_set
from qunlearn.metrics.composite import oracle_distance

COMPARED = ("retain", "forget", "test")


@dataclass(frozen=True, eq=False)
class View:
    """The part of a model's predictions that a protocol reports.

    For the request of a class under `sound`, test and validation samples of that class stand apart: the test set
    holds the retained classes, ``"test_forgotten"`` the rest. For the request of the corrupted samples,
    ``"forget_true"`` is the forget set under the labels that its samples had before. The sets are those of
    `Predictions` otherwise.
    """

    logits: Arrays
    labels: Arrays
    states: Arrays
    parameters: npt.NDArray[np.float64]
    periods: npt.NDArray[np.float64]

    def accuracy(self, name: str) -> float:
        """Accuracy on a set, in [0, 1]; NaN for an empty one."""
        return metrics.accuracy(self.logits[name], self.labels[name])

    def equals(self, other: View) -> bool:
        """Whether the other has the same weights and outputs, bit by bit: whether it is the same model."""
        return np.array_equal(self.parameters, other.parameters) and all(
            np.array_equal(logits, other.logits[name]) for name, logits in self.logits.items()
        )

    def accuracies(self) -> dict[str, float]:
        """Accuracies on the retain, forget and test set."""
        return {name: self.accuracy(name) for name in COMPARED}


Measure = Callable[[View, Sequence[View]], float]
"""A figure of a model, given the retrained models to compare it with."""
Distance = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], float]
Pairs = dict[tuple[int, int], list[float]]
"""Divergences of retrained models from each other on each set, by the identities of their views."""


def view(predictions: Predictions, split: Split) -> View:
    """What the split's protocol reports of predictions."""
    logits, labels, states = dict(predictions.logits), dict(predictions.labels), dict(predictions.states)
    if sets_forgotten_class_apart(split):
        for name in ("validation", "test"):
            y = predictions.labels[name]
            kept = y != split.forget_class
            logits[name], labels[name] = logits[name][kept], y[kept]
            if name == "test":
                logits["test_forgotten"], labels["test_forgotten"] = predictions.logits[name][~kept], y[~kept]
            if name in states:
                states[name] = states[name][kept[state_positions(len(y))]]
    if asks_for_corrupted(split):
        logits["forget_true"], labels["forget_true"] = logits["forget"], _true_labels(split)
    return View(logits, labels, states, predictions.parameters, predictions.periods)


def asks_for_corrupted(split: Split) -> bool:
    """Whether the corrupted samples are to be forgotten, whose true labels are known."""
    return split.request.kind == "corrupted"


def _true_labels(split: Split) -> npt.NDArray[np.int64]:
    """The labels of the forget set before the corruption, in its order."""
    known = dict(zip(split.clean.ids.tolist(), split.clean.y.tolist(), strict=True))
    return np.array([known[number] for number in split.forget.ids.tolist()], dtype=np.int64)


def sets_forgotten_class_apart(split: Split) -> bool:
    """Whether test and validation samples of the forgotten class are reported by themselves."""
    return split.forget_class is not None and split.protocol != "published"


def own_measures(split: Split, original: View | None) -> dict[str, Measure]:
    """Figures that need no retrained model; those that compare with the original only if it is given."""
    outside = unseen_set(split)
    table: dict[str, Measure] = {
        "membership_auc": lambda model, _: _membership(model, outside),
        "helstrom_forget": _helstrom(split),
        "entropy_forget": lambda model, _: metrics.prediction_entropy(model.logits["forget"]),
    }
    if split.protocol == "published" and split.forget_class is None:
        table["membership_auc_published"] = lambda model, _: metrics.membership_auc_published(
            model.logits["forget"], model.logits["retain"], np.random.default_rng(split.seed)
        )
    if original is not None:
        before = original.accuracies()
        table["uqi"] = lambda model, _: metrics.uqi(model.accuracies(), before)
    return table


def _helstrom(split: Split) -> Measure:
    """What a measurement could tell of the forget set's states; NaN of a model without states."""
    found = unseen(split)
    members, others = (own[state_positions(len(own))] for own in (found.forget_classes, found.classes))
    chosen = reference(members, others, split.forget_class)

    def measure(model: View, _: Sequence[View]) -> float:
        if not {"forget", OUTSIDE} <= model.states.keys():
            return float("nan")
        states = model.states["forget"][chosen.forget], model.states[OUTSIDE][chosen.outside]
        return metrics.helstrom_crossfit(*states, strata=chosen.strata, seed=split.seed)

    return measure


def relative_measures(split: Split, views: Sequence[View], pairs: Pairs | None = None) -> dict[str, Measure]:
    """Figures that compare with retrained models; of weights and states only if all the views have alike ones."""
    published = split.protocol == "published"
    kl, js = (metrics.kl_published, metrics.js_published) if published else (metrics.kl, metrics.js)
    table: dict[str, Measure] = {
        "tow": _tug_of_war,
        "oracle_distance": _oracle_distance(js, {} if pairs is None else pairs),
    }
    for name in COMPARED:
        table[f"gap_{name}"] = _gap(name)
        for key, distance in (("kl", kl), ("js", js), ("agreement", metrics.agreement)):
            table[f"{key}_{name}"] = _averaged(distance, name)
        shapes = {one.states[name].shape if name in one.states else None for one in views}
        if len(shapes) == 1 and None not in shapes and views[0].states[name].ndim == 2:  # pure
            table[f"state_fidelity_{name}"] = _state_fidelity(name)
    if published:
        table["kl_retain_misaligned"] = _averaged(_misaligned(kl, split.seed), "retain")
        table["js_retain_misaligned"] = _averaged(_misaligned(js, split.seed), "retain")
    if len({one.parameters.size for one in views}) == 1:
        table["weight_distance"] = _weight_distance
    return table


def _membership(model: View, outside: str) -> float:
    return metrics.membership_auc(
        model.logits["forget"], model.labels["forget"], model.logits[outside], model.labels[outside]
    )


def _averaged(distance: Distance, name: str) -> Measure:
    return lambda model, references: float(
        np.mean([distance(model.logits[name], other.logits[name]) for other in references])
    )


def _oracle_distance(js: Distance, pairs: Pairs) -> Measure:
    """Divergence from the retrained models in units of theirs from each other, averaged over the sets."""

    def apart(one: View, other: View) -> list[float]:
        return [js(one.logits[name], other.logits[name]) for name in COMPARED]

    def between(one: View, other: View) -> list[float]:
        key = (id(one), id(other))
        if key not in pairs:
            pairs[key] = apart(one, other)
        return pairs[key]

    def measure(model: View, references: Sequence[View]) -> float:
        if len(references) < 2:
            return float("nan")
        own = np.mean([between(one, other) for one, other in combinations(references, 2)], axis=0)
        return oracle_distance(np.mean([apart(model, other) for other in references], axis=0), own)

    return measure


def _misaligned(distance: Distance, seed: int) -> Distance:
    return lambda one, other: distance(one, metrics.misaligned(other, np.random.default_rng(seed)))


def _gap(name: str) -> Measure:
    return lambda model, references: metrics.gap(model.accuracy(name), [other.accuracy(name) for other in references])


def _tug_of_war(model: View, references: Sequence[View]) -> float:
    retrained = {name: [other.accuracy(name) for other in references] for name in COMPARED}
    return metrics.tug_of_war(model.accuracies(), retrained)


def _weight_distance(model: View, references: Sequence[View]) -> float:
    return float(
        np.mean([metrics.weight_distance(model.parameters, other.parameters, model.periods) for other in references])
    )


def _state_fidelity(name: str) -> Measure:
    return lambda model, references: float(
        np.mean([metrics.state_fidelity(model.states[name], other.states[name]) for other in references])
    )
