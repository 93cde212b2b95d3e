"""What is known of every figure that `qunlearn.evaluate` returns: unit, range, direction, and what it needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from qunlearn.errors import UnknownNameError
from qunlearn.metrics.divergence import LN2

SUFFIXES = ("_floor_low", "_floor_high", "_floor", "_original")
PREFIXES = ("original_", "retrained_")
JS_MAX = LN2 + 1e-6  # the published variant clips without normalising again


@dataclass(frozen=True)
class Metric:
    """Traits of a figure.

    Attributes:
        name: the key under which it is reported.
        doc: one line for lists and captions.
        unit: "share", "nats", "score" or "rad and weight units".
        higher_is_better: None where only nearness to the retrained models counts, or neither direction is good.
        lower: least possible value.
        upper: greatest possible value, or inf.
        needs_retrained: whether it has no value without retrained models.
    """

    name: str
    doc: str
    unit: str
    higher_is_better: bool | None
    lower: float
    upper: float
    needs_retrained: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value lies in the range; NaN, which stands for no value, does."""
        return math.isnan(value) or self.lower <= value <= self.upper


def _accuracies() -> Iterator[Metric]:
    yield Metric("accuracy_retain", "accuracy on the retain set", "share", True, 0, 1)
    yield Metric("accuracy_forget", "accuracy on the forget set (aim: the retrained models')", "share", None, 0, 1)
    yield Metric("accuracy_test", "accuracy on the test set", "share", True, 0, 1)
    yield Metric("accuracy_validation", "accuracy on the validation set", "share", True, 0, 1)
    line = "accuracy on the test samples of the forgotten class (aim: the retrained models')"
    yield Metric("accuracy_test_forgotten", line, "share", None, 0, 1)
    line = "accuracy on the forget inputs under their true labels, where the corrupted samples are to be forgotten"
    yield Metric("accuracy_forget_true", line, "share", True, 0, 1)


def _comparisons() -> Iterator[Metric]:
    for part in ("retain", "forget", "test"):
        where = f"on the {part} set"
        yield Metric(f"kl_{part}", f"KL(unlearned || retrained) {where}", "nats", False, 0, math.inf, True)
        yield Metric(f"js_{part}", f"Jensen-Shannon divergence to retraining {where}", "nats", False, 0, JS_MAX, True)
        yield Metric(f"agreement_{part}", f"share of equal predictions {where}", "share", True, 0, 1, True)
        yield Metric(f"gap_{part}", f"|accuracy - mean retrained accuracy| {where}", "share", False, 0, 1, True)
        line = f"mean fidelity of the circuit's states to the retrained models' {where}"
        yield Metric(f"state_fidelity_{part}", line, "share", True, 0, 1, True)
    yield Metric("tow", "tug-of-war: product of 1 - gap on retain, forget, test", "score", True, 0, 1, True)
    line = "divergence from retraining over that of the retrained models from each other, mean of forget, retain, test"
    yield Metric("oracle_distance", line, "score", False, 0, math.inf, True)
    line = "Euclidean distance of the weights to retraining, angles wrapped by their period"
    yield Metric("weight_distance", line, "rad and weight units", None, 0, math.inf, True)


def _attacks() -> Iterator[Metric]:
    line = "forget drop - (retain drop + test drop) / 2, as published; rewards over-forgetting"
    yield Metric("uqi", line, "score", None, -2, 2)
    line = "AUC of forget samples against class-matched non-members by confidence (aim: the retrained models')"
    yield Metric("membership_auc", line, "share", None, 0, 1)
    line = "Helstrom advantage, cross-fitted, of the forget set's states over unseen ones (aim: the retrained models')"
    yield Metric("helstrom_forget", line, "score", None, -1, 1)
    line = "mean entropy of the predictions on the forget set (aim: the retrained models')"
    yield Metric("entropy_forget", line, "nats", None, 0, math.inf)


def _published() -> Iterator[Metric]:
    line = "KL on the retain set between different samples, as published; compares nothing meaningful"
    yield Metric("kl_retain_misaligned", line, "nats", None, 0, math.inf, True)
    yield Metric("js_retain_misaligned", line.replace("KL", "JS"), "nats", None, 0, JS_MAX, True)
    line = "AUC of forget samples against retain samples by confidence, as published; no membership in it"
    yield Metric("membership_auc_published", line, "share", None, 0, 1)


METRICS: dict[str, Metric] = {
    metric.name: metric for family in (_accuracies, _comparisons, _attacks, _published) for metric in family()
}


def metric(key: str) -> Metric:
    """The traits of a key of `qunlearn.evaluate`, also of ``original_*``, ``retrained_*`` and the floors.

    Args:
        key: for example ``"kl_test"``, ``"kl_test_floor_low"``, ``"retrained_accuracy_test"``.

    Raises:
        UnknownNameError: for any other name.
    """
    base = key
    for prefix in PREFIXES:
        base = base.removeprefix(prefix)
    for suffix in SUFFIXES:
        base = base.removesuffix(suffix)
    if base not in METRICS:
        raise UnknownNameError("metric", key, METRICS)
    return replace(METRICS[base], name=key)
