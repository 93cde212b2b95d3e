"""How undecided the predictions are."""

from __future__ import annotations

import numpy as np

from qunlearn.metrics.arrays import Values, log_softmax, mean


def prediction_entropy(logits: Values) -> float:
    """Mean entropy of the predictions: mean_i of -sum_k p_ik ln p_ik.

    Neither high nor low is good in itself: constant or uniform outputs on forgotten samples are as much a
    fingerprint as memory is. Compare it with the retrained models' value.

    Args:
        logits: ``(samples, classes)``.

    Returns:
        Nats, in [0, ln K] for K classes; NaN for no samples.

    Source: Golatkar et al. 2020, arXiv 1911.04933 (entropy on the forget set).
    """
    log_p = log_softmax(logits)
    p = np.exp(log_p)
    per_sample = -(p * np.where(p > 0, log_p, 0.0)).sum(axis=1)
    return mean(np.clip(per_sample, 0.0, np.log(log_p.shape[1])))
