"""What the report of a hardware run shows: figures of models by way and measure, and what these are called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qunlearn.evaluation.comparison import ATTACKS, Comparison
from qunlearn.metrics import Bounds
from qunlearn.study.report.wording import Measure, share

WAYS = {
    "exact": "Exact expectation values, without shots or noise.",
    "shots": "As many shots as the hardware took, drawn without noise.",
    "noisy model": "As many shots, drawn with the noise that the calibration of the device states.",
    "hardware": "What came back.",
}
MEASURES = (
    share("accuracy_forget", "Accuracy, forget"),
    share("accuracy_retain", "Accuracy, retain"),
    share("accuracy_test", "Accuracy, test"),
    share("accuracy_holdout", "Accuracy, holdout"),
    Measure("js_forget", "Divergence to the retrained models, forget", "nats"),
    Measure("js_retain", "Divergence to the retrained models, retain", "nats"),
    Measure("js_test", "Divergence to the retrained models, test", "nats"),
    Measure(ATTACKS[0], "AUC, confidence alone"),
    Measure(ATTACKS[1], "AUC, calibrated"),
)


@dataclass(frozen=True)
class Sides:
    """Every entry of a comparison, found by model, way and measure."""

    entries: dict[tuple[str, str, str], Bounds]
    comparison: Comparison

    @classmethod
    def of(cls, comparison: Comparison) -> Sides:
        """All figures of a comparison."""
        return cls({(e.model, e.way, e.measure): e.bounds for e in comparison.entries}, comparison)

    @property
    def ways(self) -> list[str]:
        """The names of the ways, the exact one first and the hardware last."""
        return [way.name for way in self.comparison.ways]

    def shown(self, keys: Sequence[str]) -> list[Measure]:
        """The measures among these that hold a number."""
        numbers = {key for (_, _, key), bounds in self.entries.items() if math.isfinite(bounds.value)}
        return [measure for measure in MEASURES if measure.key in keys and measure.key in numbers]
