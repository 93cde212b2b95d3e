"""Did forgetting make the forget samples stand out among unseen ones?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from qunlearn.evaluation.audit.bench import Case
from qunlearn.evaluation.audit.crossfit import tell_apart
from qunlearn.evaluation.audit.finding import Figure, absent
from qunlearn.evaluation.audit.intervals import distance_of_distributions
from qunlearn.metrics.attacks import log_odds, sample_entropy, sample_loss

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def streisand(case: Case) -> Iterator[Figure]:
    """Whether forget samples are told from class-matched unseen ones by entropy, loss and logit-scaled confidence.

    ``streisand_ks_*`` is the largest gap of the two distribution functions (Kolmogorov-Smirnov), ``streisand_auc`` and
    ``streisand_balanced`` what a cross-fitted logistic regression on all three gets. A model that forgot gives the
    retrained models' values; one that was made sure to be wrong about the forget samples gives more.

    Fooled by: a change that hits all samples of the class alike, unseen ones included.

    Source: Golatkar et al. 2020, arXiv 1911.04933 (the effect, and its check by entropies).
    """
    if case.bench.unmatched is not None:
        yield absent("streisand", case.bench.unmatched)
        return
    inside = signals(case.logits("forget"), case.bench.y("forget"))
    outside = signals(case.logits("holdout"), case.bench.y("holdout"))
    weights = case.bench.matching
    n = int(sum((part > 0).sum() for part in weights))
    for name, values in inside.items():
        bounds = distance_of_distributions(values, outside[name], *weights)
        yield Figure(f"streisand_ks_{name}", bounds, n)
    rows = np.concatenate([np.stack(list(part.values()), axis=1) for part in (inside, outside)])
    member = np.arange(len(rows)) < len(case.bench.members)
    told = tell_apart(rows, member, case.bench.strata, "linear", case.random("streisand"))
    if isinstance(told, str):
        yield from (absent(f"streisand_{name}", told) for name in ("auc", "balanced"))
        return
    yield Figure("streisand_auc", told.auc, told.n)
    yield Figure("streisand_balanced", told.balanced, told.n)


def signals(logits: Floats, y: Labels) -> dict[str, Floats]:
    """Entropy, loss and phi = ln p_y - ln(1 - p_y) of each sample, ``(n,)`` each, in nats."""
    odds = log_odds(logits)[np.arange(len(y)), y]
    return {"entropy": sample_entropy(logits), "loss": sample_loss(logits, y), "phi": odds}
