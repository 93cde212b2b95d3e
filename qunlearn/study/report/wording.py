"""How measures and methods are called and printed in a report."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qunlearn.errors import UnknownNameError
from qunlearn.metrics.registry import metric
from qunlearn.study.report.material import ORIGINAL, RETRAINED

THIN = "\u202f"  # narrow no-break space: between thousands
DASH = "\u2013"

_NAMES = {ORIGINAL: "original", RETRAINED: "retrained models"}
_NOISE = {"noise_readout": "readout error", "noise_t1": "T1", "noise_t2": "T2", "noise_gate_time": "gate time"}
_UNSET = {"shots": "exact values", "noise_device": "no device", "backend": "no backend", "corruption": "not corrupted"}
_SWITCHES = {"model.reupload": ("encoding once", "re-uploading")}  # off and on
_AXES = {
    "shots": "{} shots",
    "backend": "on {}",
    "circuit": "{}",
    "corruption": "{}",
    "dataset": "{}",
    "encoder": "encoder {}",
    "head": "{} head",
    "qubits": "{} qubits",
}


def method_name(method: str) -> str:
    """The name of a method on page and figure."""
    return _NAMES.get(method, method)


def axis_name(axis: str) -> str:
    """An axis in words: ``depolarizing noise``."""
    name = axis.rsplit(".", 1)[-1].replace("_", " ")
    return _NOISE.get(axis, f"{name.removeprefix('noise ')} noise" if axis.startswith("noise_") else name)


def setting_name(axes: dict[str, object]) -> str:
    """One swept setting in words: ``shallow head, depth 2``."""
    return ", ".join(_one_setting(axis, value) for axis, value in axes.items())


def _one_setting(axis: str, value: object) -> str:
    if value is None or value != value or (axis in _UNSET and value in (0, "")):
        return _UNSET.get(axis, f"no {axis_name(axis)}")
    if axis in _SWITCHES:
        return _SWITCHES[axis][bool(value)]
    if axis == "noise_device":
        return f"noise of {value}"
    shown = f"{value:g}" if isinstance(value, float) else value
    shown = str(shown).replace("_", " ") if axis == "corruption" else shown
    return _AXES.get(axis, axis_name(axis) + " {}").format(shown)


@dataclass(frozen=True)
class Measure:
    """How one column is printed.

    Args:
        key: its name in the records.
        head: the column's heading.
        unit: what the numbers count in; empty for plain numbers.
        meaning: one sentence for whoever hovers or listens.
        factor: what the value is multiplied with before printing.
        digits: decimals printed.
    """

    key: str
    head: str
    unit: str = ""
    meaning: str = ""
    factor: float = 1.0
    digits: int = 3

    def show(self, value: float) -> str:
        """The value as printed; a dash where it is missing."""
        if not math.isfinite(value):
            return DASH
        text = f"{value * self.factor:,.{self.digits}f}".replace(",", THIN).replace("-", "\u2212")
        return text.removeprefix("\u2212") if not text.strip("\u22120." + THIN) else text

    def show_interval(self, low: float, high: float) -> str:
        """Both limits as printed; empty where there is no interval, or where all trials count alike."""
        if not (math.isfinite(low) and math.isfinite(high)) or (self.digits == 0 and low == high):
            return ""
        return f"{self.show(low)} {DASH} {self.show(high)}"


def share(key: str, head: str, meaning: str = "") -> Measure:
    """A fraction, printed in per cent."""
    return Measure(key, head, "%", meaning, 100.0, 1)


MAIN = (
    share("accuracy_forget", "Accuracy, forget", "Share of the forget set that is classified correctly."),
    share("accuracy_forget_true", "Accuracy, forget, true labels", "Share of the corrupted samples that get the label "
          "they had before: whether the harm is gone shows without any retrained model."),
    share("accuracy_retain", "Accuracy, retain", "Share of the retain set that is classified correctly."),
    share("accuracy_test", "Accuracy, test", "Share of the test set that is classified correctly."),
    Measure("js_forget", "JS, forget", "nats", "Jensen\u2013Shannon divergence between the predictions of this model "
            "and of the retrained models on the forget set; 0 is the same, ln 2 = 0.693 the most."),
    Measure("js_test", "JS, test", "nats", "The same on the test set."),
    Measure("oracle_distance", "Oracle distance", "", "Divergence to the retrained models in units of their divergence "
            "among themselves, mean over forget, retain and test set; 1 is as near as retraining is to itself.",
            digits=2),
    Measure("membership_auc", "Membership AUC", "", "How well an attack tells the forget set from samples never "
            "trained on; the mark is the retrained models' value, not 0.5."),
    Measure("tow", "Tug-of-war", "", "(1 \u2212 gap on forget)(1 \u2212 gap on retain)(1 \u2212 gap on test) to the "
            "retrained models; 1 is the best."),
    Measure("gradient_evaluations", "Gradient evaluations", "", "Samples differentiated, all epochs together.",
            digits=0),
    Measure("seconds", "Time", "s", "Wall time of the method on one worker.", digits=2),
)  # fmt: skip

FAMILIES = (
    ("Accuracy", ("accuracy", "gap_")),
    ("Distance to the retrained models", ("oracle_distance", "kl_", "js_", "agreement_")),
    ("Traces of membership", ("membership", "entropy")),
    ("Scores", ("tow", "uqi")),
    ("Weights and states", ("weight_distance", "state_fidelity", "helstrom")),
    ("Cost", ("gradient_evaluations", "circuit_evaluations", "hardware_circuits", "epochs", "seconds", "tuning_")),
)
_LETTERS = ("kl", "js", "uqi")
_COUNTS = FAMILIES[-1][1]
_REFERENCE = (("original_", "retrained_"), ("_floor", "_floor_low", "_floor_high", "_original"))
_PER_CENT = ("accuracy", "gap_", "agreement_")


def other(key: str) -> Measure:
    """How a column outside the main table is printed."""
    first, *words = key.split("_")
    head = " ".join([first.upper() if first in _LETTERS else first.capitalize(), *words])
    try:
        traits = metric(key)
    except UnknownNameError:
        return Measure(key, head, digits=0 if key.startswith(_COUNTS) else 3)
    if key.startswith(_PER_CENT):
        return share(key, head, traits.doc)
    return Measure(key, head, traits.unit if traits.unit == "nats" else "", traits.doc)


def families(measures: list[str]) -> list[tuple[str, list[Measure]]]:
    """All columns in named groups, floors and repeated references left out (each stands in a row of its own)."""
    kept = [key for key in measures if not key.endswith(_REFERENCE[1]) and not key.startswith(_REFERENCE[0])]
    groups: list[tuple[str, list[Measure]]] = []
    for title, starts in FAMILIES:
        groups.append((title, [other(key) for key in kept if key.startswith(starts)]))
    rest = [key for key in kept if not any(key.startswith(starts) for _, starts in FAMILIES)]
    groups.append(("Other", [other(key) for key in rest]))
    return [(title, columns) for title, columns in groups if columns]
