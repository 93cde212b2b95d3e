"""How often the most probable class is right."""

from __future__ import annotations

from qunlearn.metrics.arrays import Values, labels, mean, rows


def accuracy(logits: Values, y: Values) -> float:
    """Share of samples whose largest logit belongs to their class: mean of [argmax_k z_ik = y_i].

    Args:
        logits: ``(samples, classes)``; of equal ones the first counts as largest.
        y: class numbers ``(samples,)``.

    Returns:
        A share in [0, 1]; NaN for no samples.
    """
    table = rows(logits)
    return mean(table.argmax(axis=1) == labels(y, len(table)))
