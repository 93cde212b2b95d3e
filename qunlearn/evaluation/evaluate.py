"""How well a model unlearned: its figures beside the original's, and the retrained models' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from qunlearn.data import Split
from qunlearn.errors import InputError
from qunlearn.evaluation.measures import (
    Measure,
    Pairs,
    View,
    asks_for_corrupted,
    own_measures,
    relative_measures,
    sets_forgotten_class_apart,
    view,
)
from qunlearn.evaluation.predictions import SETS, Predictions, predict
from qunlearn.evaluation.verdict import LEAST, verdict

NAN = float("nan")


def evaluate(
    unlearned: nn.Module | Predictions,
    split: Split,
    *,
    original: nn.Module | Predictions | None = None,
    retrained: Sequence[nn.Module | Predictions] = (),
) -> dict[str, float]:
    """Every figure of a model after unlearning, flat; `qunlearn.metrics.METRICS` holds unit, range and direction.

    A distance to retraining is averaged over the retrained models (`gap_*` and `tow` compare with their mean
    accuracy). Beside a figure stand ``*_floor``, the same figure of each retrained model against the others,
    averaged, and ``*_floor_low`` and ``*_floor_high``, the least and the greatest among them: what a perfect
    method would show. With one retrained model the floors of distances are NaN, with none all that compares
    with retraining is left out; a retrained model judged itself is compared with the others alone. `oracle_distance`
    sums up: the divergence from the retrained models in units of theirs from each other, averaged over forget, retain
    and test set; 1 is as near as retraining is to itself, and it takes two models to compare with. `helstrom_forget`
    is what a measurement of the circuit's states could still tell of the forget set (`metrics.helstrom_crossfit`
    against unseen samples, of the same classes, or for a class request of the others), of density matrices where the
    circuit is noisy; NaN without a circuit, on a backend, and for noisy circuits of 1 or more than 6 qubits.

    For the request of a class under `sound`, all ``*_test`` and ``*_validation`` figures are over the retained
    classes, and ``accuracy_test_forgotten`` is given apart. Under `published` they are over all classes, the
    probabilities of KL and JS are clipped as in the paper, and its misaligned divergences and its membership
    attack stand beside under names of their own. Non-members come from the holdout set (the test set, where the
    holdout set stands for one that was trained on). For the request of the corrupted samples,
    ``accuracy_forget_true`` is the accuracy on their inputs under the labels that they had before.

    Args:
        unlearned: the model to judge, or its `Predictions`.
        split: what it was trained, told to forget and is judged on.
        original: the model before unlearning; without it, ``original_*`` and `uqi` are left out.
        retrained: models trained without the forget set, with seeds of their own.

    Returns:
        Figures by name; NaN where there is no value (an empty set, no class-matched non-member).

    Raises:
        InputError: for predictions of another split.
    """
    return Judge(split, original=original, retrained=retrained)(unlearned)


class Judge:
    """`evaluate` for many models beside the same original and retrained ones, whose own figures are found once.

    Args:
        split: what the models were trained, told to forget and are judged on.
        original: the model before unlearning.
        retrained: models trained without the forget set.

    Raises:
        InputError: for predictions of another split.
    """

    def __init__(
        self,
        split: Split,
        *,
        original: nn.Module | Predictions | None = None,
        retrained: Sequence[nn.Module | Predictions] = (),
    ) -> None:
        self.split = split
        self._before = None if original is None else _view(original, split, "original")
        self._pool = [_view(other, split, "retrained") for other in retrained]
        self._own = own_measures(split, self._before)
        self._known: dict[str, dict[str, float]] = {}
        self._values: dict[tuple[Any, ...], list[float]] = {}
        self._pairs: Pairs = {}

    def __call__(self, unlearned: nn.Module | Predictions) -> dict[str, float]:
        """The figures of one model; see `evaluate`."""
        return self._figures(*self._seen(unlearned))

    def row(self, unlearned: nn.Module | Predictions) -> dict[str, float | str]:
        """The figures of one model and the `verdict` on it, "" where there is none."""
        judged, others = self._seen(unlearned)
        figures = self._figures(judged, others)
        return {**figures, "verdict": self._verdict(figures, judged, others)}

    def _seen(self, unlearned: nn.Module | Predictions) -> tuple[View, list[View]]:
        """The model that is judged, and the retrained models but itself."""
        judged = _view(unlearned, self.split, "unlearned")
        return judged, [other for other in self._pool if not other.equals(judged)]

    def _figures(self, judged: View, others: list[View]) -> dict[str, float]:
        row = _accuracies(judged, self._before, self._pool, self.split)
        for key, measure in self._own.items():
            row[key] = measure(judged, ())
            row |= self._once(key, self._beside, measure)
        for key, measure in (self._relative(judged, others)).items():
            row[key] = measure(judged, others)
            row |= self._once(key, self._floors, measure, 2)
        return row

    def _verdict(self, figures: dict[str, float], judged: View, others: list[View]) -> str:
        if self._before is None or len(others) < LEAST:
            return ""
        states, outputs = self._own["helstrom_forget"], self._relative(judged, others)["js_forget"]
        return verdict(
            figures["helstrom_forget"],
            figures["helstrom_forget_original"],
            self._each("helstrom_forget", states, others),
            figures["js_forget"],
            self._each("js_forget", outputs, others),
        )

    def _relative(self, judged: View, others: Sequence[View]) -> dict[str, Measure]:
        return relative_measures(self.split, [judged, *others], self._pairs) if others else {}

    def _once(self, key: str, find: Callable[..., dict[str, float]], *given: Any) -> dict[str, float]:
        """Figures of the original and the retrained models, found when they are first asked for."""
        if key not in self._known:
            self._known[key] = find(key, *given)
        return self._known[key]

    def _beside(self, key: str, measure: Measure) -> dict[str, float]:
        """A figure that needs no retrained model, of the original and of the retrained models."""
        own = {f"{key}_original": measure(self._before, ())} if self._before is not None and key != "uqi" else {}
        return own | (self._floors(key, measure, 1) if self._pool else {})

    def _floors(self, key: str, measure: Measure, needed: int) -> dict[str, float]:
        """The figure of each retrained model against the others: mean, least, greatest; NaN for too few of them."""
        values = self._each(key, measure, self._pool) if len(self._pool) >= needed else [NAN]
        return {
            f"{key}_floor": float(np.mean(values)),
            f"{key}_floor_low": float(np.min(values)),
            f"{key}_floor_high": float(np.max(values)),
        }

    def _each(self, key: str, measure: Measure, models: list[View]) -> list[float]:
        """The figure of each of some retrained models against the others of them."""
        place = (key, *map(id, models))
        if place not in self._values:
            self._values[place] = [measure(one, [other for other in models if other is not one]) for one in models]
        return self._values[place]


def _accuracies(judged: View, original: View | None, retrained: Sequence[View], split: Split) -> dict[str, float]:
    names = ["retain", "forget", "test", "validation"]
    names += ["forget_true"] if asks_for_corrupted(split) else []
    names += ["test_forgotten"] if sets_forgotten_class_apart(split) else []
    row = {f"accuracy_{name}": judged.accuracy(name) for name in names}
    if original is not None:
        row |= {f"original_accuracy_{name}": original.accuracy(name) for name in names}
    if retrained:
        row |= {f"retrained_accuracy_{n}": float(np.mean([r.accuracy(n) for r in retrained])) for n in names}
    return row


def _view(subject: nn.Module | Predictions, split: Split, role: str) -> View:
    if isinstance(subject, nn.Module):
        subject = predict(subject, split)
    if not isinstance(subject, Predictions):
        raise InputError(
            f"{role}: expected a torch module or its Predictions, got {type(subject).__name__}; "
            "for the result of unlearn give its .model"
        )
    for name in SETS:
        ids = getattr(split, name).ids.cpu().numpy()
        if not np.array_equal(subject.ids.get(name, np.empty(0)), ids):
            raise InputError(f"{role}: expected predictions of the split's {name} set, got other ids; predict again")
    return view(subject, split)
