"""Figures of merit: pure functions of arrays that know no model and no data set.

`METRICS` holds the traits of every figure that `qunlearn.evaluate` returns.
"""

from qunlearn.metrics.accuracy import accuracy
from qunlearn.metrics.composite import gap, tug_of_war, uqi
from qunlearn.metrics.distance import circular_difference, state_fidelity, weight_distance
from qunlearn.metrics.divergence import agreement, js, js_by_sample, js_published, kl, kl_published, misaligned
from qunlearn.metrics.entropy import prediction_entropy
from qunlearn.metrics.membership import (
    calibrated_membership_auc,
    class_weights,
    confidence,
    membership_auc,
    membership_auc_published,
    weighted_auc,
)
from qunlearn.metrics.registry import METRICS, Metric, metric
from qunlearn.metrics.statistics import (
    Bounds,
    Interval,
    PredictionInterval,
    centred_bootstrap,
    hierarchical_bootstrap,
    interval,
    kendall_tau,
    prediction_interval,
    share_interval,
)

__all__ = [
    "METRICS",
    "Bounds",
    "Interval",
    "Metric",
    "PredictionInterval",
    "accuracy",
    "agreement",
    "calibrated_membership_auc",
    "centred_bootstrap",
    "circular_difference",
    "class_weights",
    "confidence",
    "gap",
    "hierarchical_bootstrap",
    "interval",
    "js",
    "js_by_sample",
    "js_published",
    "kendall_tau",
    "kl",
    "kl_published",
    "membership_auc",
    "membership_auc_published",
    "metric",
    "misaligned",
    "prediction_entropy",
    "prediction_interval",
    "share_interval",
    "state_fidelity",
    "tug_of_war",
    "uqi",
    "weight_distance",
    "weighted_auc",
]
