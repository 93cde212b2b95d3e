"""Figures of merit: pure functions of arrays that know no model and no data set.

`METRICS` holds the traits of every figure that `qunlearn.evaluate` returns.
"""

from qunlearn.metrics.accuracy import accuracy
from qunlearn.metrics.attacks import (
    TrainedAttack,
    membership_scores,
    modified_entropy,
    sample_entropy,
    sample_loss,
    trained_attack,
)
from qunlearn.metrics.composite import gap, tug_of_war, uqi
from qunlearn.metrics.curve import Curve, attack_curve
from qunlearn.metrics.distance import (
    circular_difference,
    layer_distance,
    state_fidelity,
    weight_distance,
)
from qunlearn.metrics.divergence import agreement, js, js_by_sample, js_published, kl, kl_published, misaligned
from qunlearn.metrics.entropy import prediction_entropy
from qunlearn.metrics.forgetting_quality import Population, Quality, forgetting_quality, null_quality
from qunlearn.metrics.helstrom import (
    Advantage,
    Null,
    helstrom_advantage,
    helstrom_crossfit,
    helstrom_null,
    helstrom_plugin,
    helstrom_scores,
    trace_distance,
)
from qunlearn.metrics.lira import Shadows, lira_attack, lira_scores, phi
from qunlearn.metrics.membership import (
    calibrated_membership_auc,
    class_weights,
    confidence,
    membership_auc,
    membership_auc_published,
    weighted_auc,
)
from qunlearn.metrics.pretty_good import pretty_good_measurement, pretty_good_scores
from qunlearn.metrics.ranking import Paired, Ranking, paired_difference, rank
from qunlearn.metrics.registry import METRICS, Metric, metric
from qunlearn.metrics.residue import (
    Confusion,
    information_difference,
    information_difference_by_part,
    interclass_confusion,
    zrf,
    zrf_by_sample,
)
from qunlearn.metrics.roc import Rate, auc, auc_interval, balanced_accuracy
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
    "Advantage",
    "Bounds",
    "Confusion",
    "Curve",
    "Interval",
    "Metric",
    "Null",
    "Paired",
    "Population",
    "PredictionInterval",
    "Quality",
    "Ranking",
    "Rate",
    "Shadows",
    "TrainedAttack",
    "accuracy",
    "agreement",
    "attack_curve",
    "auc",
    "auc_interval",
    "balanced_accuracy",
    "calibrated_membership_auc",
    "centred_bootstrap",
    "circular_difference",
    "class_weights",
    "confidence",
    "forgetting_quality",
    "gap",
    "helstrom_advantage",
    "helstrom_crossfit",
    "helstrom_null",
    "helstrom_plugin",
    "helstrom_scores",
    "hierarchical_bootstrap",
    "information_difference",
    "information_difference_by_part",
    "interclass_confusion",
    "interval",
    "js",
    "js_by_sample",
    "js_published",
    "kendall_tau",
    "kl",
    "kl_published",
    "layer_distance",
    "lira_attack",
    "lira_scores",
    "membership_auc",
    "membership_auc_published",
    "membership_scores",
    "metric",
    "misaligned",
    "modified_entropy",
    "null_quality",
    "paired_difference",
    "phi",
    "prediction_entropy",
    "prediction_interval",
    "pretty_good_measurement",
    "pretty_good_scores",
    "rank",
    "sample_entropy",
    "sample_loss",
    "share_interval",
    "state_fidelity",
    "trace_distance",
    "trained_attack",
    "tug_of_war",
    "uqi",
    "weight_distance",
    "weighted_auc",
    "zrf",
    "zrf_by_sample",
]
