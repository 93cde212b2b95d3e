"""Figures of merit: pure functions of arrays that know no model and no data set.

`METRICS` holds the traits of every figure that `qunlearn.evaluate` returns.
"""

from qunlearn.metrics.accuracy import accuracy
from qunlearn.metrics.composite import gap, tug_of_war, uqi
from qunlearn.metrics.distance import circular_difference, state_fidelity, weight_distance
from qunlearn.metrics.divergence import agreement, js, js_published, kl, kl_published, misaligned
from qunlearn.metrics.entropy import prediction_entropy
from qunlearn.metrics.membership import confidence, membership_auc, membership_auc_published
from qunlearn.metrics.registry import METRICS, Metric, metric
from qunlearn.metrics.statistics import (
    Interval,
    PredictionInterval,
    hierarchical_bootstrap,
    interval,
    prediction_interval,
)

__all__ = [
    "METRICS",
    "Interval",
    "Metric",
    "PredictionInterval",
    "accuracy",
    "agreement",
    "circular_difference",
    "confidence",
    "gap",
    "hierarchical_bootstrap",
    "interval",
    "js",
    "js_published",
    "kl",
    "kl_published",
    "membership_auc",
    "membership_auc_published",
    "metric",
    "misaligned",
    "prediction_entropy",
    "prediction_interval",
    "state_fidelity",
    "tug_of_war",
    "uqi",
    "weight_distance",
]
