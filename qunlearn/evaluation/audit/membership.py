"""Can the forget samples be told from unseen ones of their classes?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from qunlearn.errors import InputError
from qunlearn.evaluation.audit.bench import Case
from qunlearn.evaluation.audit.crossfit import tell_apart
from qunlearn.evaluation.audit.finding import Figure, absent
from qunlearn.evaluation.audit.gradients import gradient_norms
from qunlearn.metrics.arrays import log_softmax
from qunlearn.metrics.attacks import attack_features, membership_scores, trained_attack
from qunlearn.metrics.roc import auc_interval, balanced_accuracy

Floats = npt.NDArray[np.float64]
LARGEST = 10  # probabilities that the attack with both models compares


def membership(case: Case) -> Iterator[Figure]:
    """Are forget samples told from class-matched unseen ones by what the model says about them? AUC, balanced accuracy.

    By single scores (``confidence``, ``loss``, ``entropy``, ``modified_entropy``, ``gradient_norm``; threshold by
    cross-fitting), by an attacker ``trained`` on all that the outputs say, and, where the original is given, by one who
    sees the outputs of both models (``before_after``). Greater scores speak for membership: an AUC below 0.5 is a leak
    as well, which is why ``*_excess``, the distance from the retrained models' mean, stands beside each.

    Fooled by: wrong or constant answers on the forget set, which turn the scores round (see ``streisand``); averages,
    which hide single samples that are laid bare (see ``lira``).

    Source: Yeom et al. 2018, arXiv 1709.01604; Salem et al. 2019, arXiv 1806.01246; Song and Mittal 2021, arXiv
    2003.10595; Nasr et al. 2019, arXiv 1812.00910 (gradient norm); Chen et al. 2021, arXiv 2005.02205 (both models).
    """
    if case.bench.unmatched is not None:
        yield absent("membership", case.bench.unmatched)
        return
    inside, outside = _scores(case, "forget"), _scores(case, "holdout")
    for name, scores in inside.items():
        other = outside[name]
        if isinstance(scores, str) or isinstance(other, str):
            yield from _absent(name, str(scores))
        else:
            yield from _attack(case, name, scores, other)
    yield from _trained(case)
    yield from _before_after(case)


def _scores(case: Case, name: str) -> dict[str, Floats | str]:
    """By attack, what speaks for membership, ``(n,)``."""
    norms = gradient_norms(case.subject, name)
    scores: dict[str, Floats | str] = dict(membership_scores(case.logits(name), case.bench.y(name)))
    return {**scores, "gradient_norm": norms if isinstance(norms, str) else -norms}


def _attack(case: Case, name: str, inside: Floats, outside: Floats) -> Iterator[Figure]:
    weights, n = case.bench.matching, _counted(case)
    seed = case.seeds.integer("thresholds")
    yield Figure(f"membership_{name}_auc", auc_interval(inside, outside, *weights), n)
    yield Figure(f"membership_{name}_balanced", balanced_accuracy(inside, outside, *weights, seed=seed), n)


def _trained(case: Case) -> Iterator[Figure]:
    inside, outside = ((case.logits(name), case.bench.y(name)) for name in ("forget", "holdout"))
    try:
        found = trained_attack(*inside, *outside, seed=case.seeds.integer("trained attack"))
    except InputError:
        yield from _absent(
            "trained", "fewer than four samples on one side are too few to train and to test an attacker"
        )
        return
    yield Figure("membership_trained_auc", found.auc, _counted(case))
    yield Figure("membership_trained_balanced", found.balanced_accuracy, _counted(case))


def _before_after(case: Case) -> Iterator[Figure]:
    """An attacker who sees what the original and the audited model say."""
    original = case.bench.original
    if original is None:
        yield from _absent("before_after", "no original model was given")
        return
    rows = np.concatenate(
        [_both(original.outputs.logits[name], case.logits(name), case.bench.y(name)) for name in ("forget", "holdout")]
    )
    member = np.arange(len(rows)) < len(case.bench.members)
    told = tell_apart(rows, member, case.bench.strata, "linear", case.random("before and after"))
    if isinstance(told, str):
        yield from _absent("before_after", told)
        return
    yield Figure("membership_before_after_auc", told.auc, told.n)
    yield Figure("membership_before_after_balanced", told.balanced, told.n)


def _both(before: Floats, after: Floats, y: npt.NDArray[np.int64]) -> Floats:
    """What both models say of each sample: each one's scores, and how the original's likeliest classes changed."""
    p, q = (np.exp(log_softmax(logits)) for logits in (before, after))
    order = np.argsort(-p, axis=1, kind="stable")[:, :LARGEST]
    change = np.take_along_axis(p - q, order, axis=1)
    return np.column_stack([attack_features(before, y), attack_features(after, y), change])


def _absent(name: str, reason: str) -> Iterator[Figure]:
    return (absent(f"membership_{name}_{kind}", reason) for kind in ("auc", "balanced"))


def _counted(case: Case) -> int:
    return int(sum((part > 0).sum() for part in case.bench.matching))
