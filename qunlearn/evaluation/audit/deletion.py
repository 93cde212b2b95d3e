"""Accuracies that a request of its own kind makes visible: of a deleted class, of two classes mixed up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qunlearn.evaluation.audit.bench import Bench, Case
from qunlearn.evaluation.audit.finding import Figure, absent
from qunlearn.metrics import Bounds, interclass_confusion, share_interval


def class_deletion(case: Case) -> Iterator[Figure]:
    """Accuracy on the test samples of the forgotten class, apart from the retained classes', with exact intervals.

    Fooled by: a head whose one output is masked. The class is then as readable from the circuit as before.
    """
    number = case.bench.forget_class
    if number is None:
        yield absent("class_deletion", "the request is not for a class")
        return
    y, predicted = case.bench.y("test"), case.logits("test").argmax(axis=1)
    for name, here in (("class_deletion_forgotten", y == number), ("class_deletion_retained", y != number)):
        yield _share(name, (predicted == y)[here])
    yield _share("class_deletion_named", (predicted == number)[y != number])


def confusion(case: Case) -> Iterator[Figure]:
    """Interclass confusion: are two classes whose training labels were swapped still mixed up on the test set?

    ``confusion_error`` is the share of test samples of both classes that are misclassified, ``confusion_mixed`` the
    share that get the label of the other one, ``confusion_count`` their number (C[a][b] + C[b][a]).

    Fooled by: a model that shuns both classes. Read both shares.

    Source: Goel et al. 2022, arXiv 2201.06640.
    """
    pair = swapped_pair(case.bench)
    if pair is None:
        yield absent("confusion", "no labels of two classes were swapped in the training data")
        return
    found = interclass_confusion(case.logits("test"), case.bench.y("test"), *pair)
    if not found.n:
        yield absent("confusion", "the test set has no sample of the two classes")
        return
    yield Figure("confusion_error", found.error, found.n)
    yield Figure("confusion_mixed", found.mixed, found.n)
    yield Figure("confusion_count", Bounds(*(bound * found.n for bound in found.mixed)), found.n, "samples")


def swapped_pair(bench: Bench) -> tuple[int, int] | None:
    """The two classes whose samples got each other's label; None where other labels changed, or none."""
    train, clean = bench.split.train.y.cpu(), bench.split.clean.y.cpu()
    changed = (train != clean).nonzero().flatten()
    directions = {(int(clean[place]), int(train[place])) for place in changed}
    pairs = {(min(two), max(two)) for two in directions}
    return pairs.pop() if len(pairs) == 1 and len(directions) == 2 else None


def _share(name: str, right: np.ndarray) -> Figure:
    if not len(right):
        return absent(name, "the test set has no such sample")
    return Figure(name, share_interval(int(right.sum()), len(right)), len(right))
