"""How far the predictions of two models are apart, on the same samples in the same order."""

from __future__ import annotations

import numpy as np

from qunlearn.metrics.arrays import Array, Values, log_softmax, mean, pair, rows

PUBLISHED_CLIP = 1e-8
LN2 = float(np.log(2.0))


def kl(logits: Values, reference: Values) -> float:
    """Mean Kullback-Leibler divergence KL(p || q) = sum_k p_k (ln p_k - ln q_k), from log-probabilities.

    Args:
        logits: of the judged model (p), ``(samples, classes)``.
        reference: logits of the reference (q), row by row for the same samples.

    Returns:
        Nats, in [0, inf); NaN for no samples.

    Source: Kullback and Leibler 1951.
    """
    log_p, log_q = (log_softmax(values) for values in pair(logits, reference))
    return mean(_kl_rows(log_p, log_q))


def js(logits: Values, reference: Values) -> float:
    """Mean Jensen-Shannon divergence (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2, from log-probabilities.

    Args:
        logits: of one model, ``(samples, classes)``.
        reference: logits of the other, row by row for the same samples.

    Returns:
        Nats, in [0, ln 2]; NaN for no samples.

    Source: Lin 1991.
    """
    return mean(js_by_sample(logits, reference))


def js_by_sample(logits: Values, reference: Values) -> Array:
    """What `js` is the mean of: the divergence of each sample, ``(samples,)`` in nats."""
    log_p, log_q = (log_softmax(values) for values in pair(logits, reference))
    log_m = np.logaddexp(log_p, log_q) - LN2
    rows: Array = np.minimum((_kl_rows(log_p, log_m) + _kl_rows(log_q, log_m)) / 2, LN2)
    return rows


def kl_published(logits: Values, reference: Values) -> float:
    """`kl` as Crivoi and Ionescu compute it: both probabilities clipped below at 1e-8, not normalised again.

    The clip caps a sample's divergence near 18.4 nats.

    Returns:
        Nats, in [0, 18.5]; NaN for no samples.

    Source: Crivoi and Ionescu 2025, arXiv 2512.19253 (their released code).
    """
    log_p, log_q = (_clipped(values) for values in pair(logits, reference))
    return mean(_kl_rows(log_p, log_q))


def js_published(logits: Values, reference: Values) -> float:
    """`js` as Crivoi and Ionescu compute it: both probabilities clipped below at 1e-8, not normalised again.

    Returns:
        Nats, in [0, ln 2] up to 1e-6; NaN for no samples.

    Source: Crivoi and Ionescu 2025, arXiv 2512.19253 (their released code).
    """
    log_p, log_q = (_clipped(values) for values in pair(logits, reference))
    log_m = np.logaddexp(log_p, log_q) - LN2
    return mean((_kl_rows(log_p, log_m) + _kl_rows(log_q, log_m)) / 2)


def agreement(logits: Values, reference: Values) -> float:
    """Share of samples to which two models give the same class: mean of [argmax z_i = argmax z'_i].

    Args:
        logits: of one model, ``(samples, classes)``.
        reference: logits of the other, row by row for the same samples.

    Returns:
        A share in [0, 1]; NaN for no samples.
    """
    one, other = pair(logits, reference)
    return mean(one.argmax(axis=1) == other.argmax(axis=1))


def misaligned(logits: Values, generator: np.random.Generator) -> Array:
    """The rows in a random order, for repeating a comparison of sample i with some other sample.

    The paper reads its two models' predictions in two passes over a shuffled loader, so that its divergence on
    the retain set compares different samples. Only for comparing with its table.

    Source: Crivoi and Ionescu 2025, arXiv 2512.19253 (their released code).
    """
    return generator.permutation(rows(logits), axis=0)


def _clipped(logits: Values) -> Array:
    return np.maximum(log_softmax(logits), np.log(PUBLISHED_CLIP))


def _kl_rows(log_p: Array, log_q: Array) -> Array:
    p = np.exp(log_p)
    # 0 ln 0 = 0, also where the logarithm itself is -inf; rounding can fall just below zero.
    terms = np.where(p > 0, p * (np.where(p > 0, log_p, 0.0) - np.where(p > 0, log_q, 0.0)), 0.0)
    per_sample: Array = np.maximum(terms.sum(axis=1), 0.0)
    return per_sample
