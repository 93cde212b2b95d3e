"""Figures made of several accuracies."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Values, column

SETS = ("retain", "forget", "test")
EQUAL = 1e-12  # nats: a divergence from rounding alone


def gap(value: float, retrained: Values) -> float:
    """Distance of a figure to the retrained models' mean: ``|value - mean_r retrained_r|``.

    Args:
        value: of the judged model, for example an accuracy.
        retrained: the same figure of each retrained model, ``(models,)``, at least one.

    Returns:
        In the unit of the figure; for accuracies in [0, 1].
    """
    return abs(value - _mean(retrained))


def tug_of_war(accuracies: Mapping[str, float], retrained: Mapping[str, Values]) -> float:
    """Tug-of-war (ToW): the product over retain, forget and test of ``1 - |a_u - mean_r a_r|``.

    Args:
        accuracies: of the unlearned model, shares in [0, 1] under ``"retain"``, ``"forget"``, ``"test"``.
        retrained: the same of each retrained model, ``(models,)`` a key.

    Returns:
        In [0, 1]; 1 if all three equal the retrained models'.

    Source: Zhao et al. 2024, arXiv 2406.01257.
    """
    return float(np.prod([1.0 - gap(accuracies[name], retrained[name]) for name in SETS]))


def uqi(accuracies: Mapping[str, float], original: Mapping[str, float]) -> float:
    """Unlearning quality index: forget drop - (retain drop + test drop) / 2, a drop being a_original - a_unlearned.

    It rewards over-forgetting: there is no reference to retraining in it, so a model that gets every forget sample
    wrong beats the retrained models. Read it beside the retrained models' own value, and rank by gaps or by ToW.

    Args:
        accuracies: of the unlearned model, shares in [0, 1] under ``"retain"``, ``"forget"``, ``"test"``.
        original: the same of the original model.

    Returns:
        In [-2, 2]; 0 for the original model itself.

    Source: Crivoi and Ionescu 2025, arXiv 2512.19253.
    """
    drop = {name: original[name] - accuracies[name] for name in SETS}
    return drop["forget"] - 0.5 * (drop["retain"] + drop["test"])


def oracle_distance(divergences: Values, usual: Values) -> float:
    """Divergence from retraining in units of the retrained models' own: the mean over sets of d_s / u_s.

    A model is neither good for a low forget accuracy nor for a high one: only nearness to retraining counts, and nearer
    than the retrained models are to each other is no better.

    Args:
        divergences: d, mean divergence of the judged model from the retrained ones on each set, ``(sets,)``.
        usual: u, mean divergence of the retrained models from each other on each set, ``(sets,)``.

    Returns:
        In [0, inf); 1 is as near as retraining is to itself, also where no model differs from another; NaN where the
        retrained models alone agree to the last digit.
    """
    d, u = column(divergences, "divergences"), column(usual, "usual")
    if d.shape != u.shape:
        raise InputError(f"expected divergences on the same sets, got {d.size} and {u.size}")
    both = (d <= EQUAL) & (u <= EQUAL)
    return float(np.where(both, 1.0, d / np.where(u > EQUAL, u, np.nan)).mean())


def _mean(values: Values) -> float:
    array = column(values, "retrained")
    if array.size == 0:
        raise InputError("retrained: expected the figure of at least one retrained model, got none")
    return float(array.mean())
