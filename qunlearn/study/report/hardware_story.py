"""What a hardware run found, in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qunlearn.evaluation.comparison import ATTACKS
from qunlearn.study.report.hardware_material import MEASURES, Sides
from qunlearn.study.report.wording import DASH, Measure

_HEADLINES = ("js_forget", "accuracy_forget", "accuracy_test")


@dataclass(frozen=True)
class Story:
    """A question, its answer in a few words, and in a few sentences."""

    question: str
    headline: str
    text: str


def stories(sides: Sides) -> list[Story]:
    """What can be said of order, attack and accuracy."""
    made = [_about_order(sides), _about_attack(sides), _about_accuracy(sides)]
    return [story for story in made if story is not None]


def _about_order(sides: Sides) -> Story | None:
    comparison = sides.comparison
    last, key = sides.ways[-1], next((m.key for k in _HEADLINES for m in sides.shown([k])), None)
    order = next((o for o in comparison.orders if (o.way, o.measure) == (last, key)), None)
    if order is None or key is None or not math.isfinite(order.bounds.value):
        return None
    show, (tau, low, high) = Measure("tau", "", digits=2).show, order.bounds
    headline = "The order survives" if low > 0 else "The order is reversed" if high < 0 else "The order is not settled"
    head, _, part = next(measure.head for measure in MEASURES if measure.key == key).partition(", ")
    standing = [_standing(sides, way, key) for way in (sides.ways[0], last)]
    text = (
        f"Ordered by {head[0].lower() + head[1:]} on the {part} set, the {order.models} models stand as {standing[0]} "
        f"when run exactly, and as {standing[1]} on the hardware: Kendall\u2019s tau {show(tau)} "
        f"({show(low)} {DASH} {show(high)}); 1 is the same order, \u22121 the reverse."
    )
    return Story("Does the order of methods survive?", headline, text)


def _standing(sides: Sides, way: str, key: str) -> str:
    """The models in the order of a measure, least first."""
    models = sides.comparison.setting.candidates
    return ", ".join(sorted(models, key=lambda model: sides.entries[model, way, key].value))


def _about_attack(sides: Sides) -> Story | None:
    key = next((measure.key for attack in reversed(ATTACKS) for measure in sides.shown([attack])), None)
    original = next(iter(sides.comparison.setting.of("original")), None)
    if key is None or original is None:
        return None
    exact, run = (sides.entries[original, way, key] for way in (sides.ways[0], sides.ways[-1]))
    show = Measure("auc", "", digits=2).show
    headline = "The attack works on hardware" if run.low > 0.5 else "The attack is not told from guessing on hardware"
    own = [sides.entries[model, sides.ways[-1], key].value for model in sides.comparison.setting.of("retrained")]
    own = [value for value in own if math.isfinite(value)]
    beside = f"; of the retrained models {show(min(own))} to {show(max(own))}" if own else ""
    text = (
        f"An attacker who sees nothing but the hardware\u2019s outputs tells the forget set from samples never trained "
        f"on with an AUC of {show(run.value)} ({show(run.low)} {DASH} {show(run.high)}) on the untouched original, "
        f"against {show(exact.value)} on exact outputs{beside}. 0.5 is guessing."
    )
    return Story("Can membership be told?", headline, text)


def _about_accuracy(sides: Sides) -> Story | None:
    shown = sides.shown(["accuracy_test"]) or sides.shown(["accuracy_retain"])
    if not shown:
        return None
    measure, models = shown[0], list(sides.comparison.setting.roles)
    values = {way: [sides.entries[model, way, measure.key].value for model in models] for way in sides.ways}
    means = {way: measure.show(sum(own) / len(own)) for way, own in values.items()}
    lost = [before - after for before, after in zip(values[sides.ways[0]], values[sides.ways[-1]], strict=True)]
    listed = ", ".join(f"{mean} % ({way})" for way, mean in means.items())
    text = (
        f"{measure.head}, mean of the {len(lost)} models: {listed}. The largest loss of a model is "
        f"{measure.show(max(lost))} points."
    )
    return Story("What does the hardware cost?", f"{measure.show(sum(lost) / len(lost))} points of accuracy", text)
