"""What the states of the forget set are held against: samples that no model was trained on."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qunlearn.data import Split
from qunlearn.data.outsiders import Outsiders, outsiders

Labels = npt.NDArray[np.int64]
MOST = 128


class Reference(NamedTuple):
    """Which samples are compared.

    Attributes:
        forget: positions of forget samples.
        outside: positions of unseen samples.
        strata: class numbers of both, within which they are paired.
    """

    forget: Labels
    outside: Labels
    strata: tuple[Labels, Labels]


def unseen_set(split: Split) -> str:
    """The set that no model was trained on: test, where the holdout set stands for one that was, otherwise holdout."""
    return "test" if "holdout" in split.aliases else "holdout"


@functools.lru_cache(maxsize=4)
def unseen(split: Split) -> Outsiders:
    """Samples that no model was trained on, spoilt as corrupted forget samples are, and the classes of both."""
    return outsiders(split, getattr(split, unseen_set(split)))


def reference(members: Labels, others: Labels, forget_class: int | None) -> Reference:
    """What the states of forget samples are held against: unseen samples, in equal numbers.

    Of a class request: the forgotten class against all retained classes. Of the others: each forget sample against
    unseen ones of its class. Forget samples and not unseen ones of the forgotten class, since they are several times as
    many, and what was learnt of them beyond their class is to go as well; the other side is unseen by every model, so
    that nothing but the forget set tells the original's training from that of the retrained models.

    Args:
        members: the classes that forget samples really have ``(n,)``.
        others: those of the unseen samples ``(m,)``.
        forget_class: the class that was to be forgotten; None for other requests.

    Returns:
        At most 128 evenly spaced forget samples, and twice as many others.
    """
    outside = np.arange(len(others)) if forget_class is None else np.flatnonzero(others != forget_class)
    forget, outside = _even(len(members), MOST), outside[_even(len(outside), 2 * MOST)]
    if forget_class is None:
        return Reference(forget, outside, (members[forget], others[outside]))
    return Reference(forget, outside, (np.zeros_like(forget), np.zeros_like(outside)))


def _even(length: int, most: int) -> Labels:
    """Positions of all of so many, or of evenly spaced ones; `np.unique` keeps none of none."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(np.int64))
