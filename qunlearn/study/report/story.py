"""What a study found, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qunlearn.study.report.audits import Audited
from qunlearn.study.report.controls import original_told
from qunlearn.study.report.intervals import describe_interval
from qunlearn.study.report.judging import JUDGED, MEMBERSHIP, Verdict, judge, original_places
from qunlearn.study.report.material import ORIGINAL, RETRAINED, Material
from qunlearn.study.report.views import View
from qunlearn.study.report.wording import DASH, MAIN, method_name

NOTHING = "Nothing to unlearn here"
_INSIDE = "The untouched original lies within the retrained models\u2019 range"
_SHOWN = {column.key: column for column in MAIN}


@dataclass(frozen=True)
class Story:
    """The finding for one request.

    Args:
        title: the request, and the setting where several are compared.
        headline: three words.
        text: one or two sentences on original and retrained models.
        groups: how a group of methods stands, and their names.
    """

    title: str
    headline: str
    text: str
    groups: tuple[tuple[str, str], ...]


def tell(view: View, audited: Audited | None = None) -> Story:
    """The finding for one view; its audits, where there are any, can contradict that there is nothing to unlearn."""
    if failed := _untrained(view):
        return Story(view.title, "Some models did not train", failed, ())
    verdicts = {verdict.method: verdict for verdict in judge(view)}
    original = verdicts.get(ORIGINAL)
    headline, text = _about_original(view, original)
    if headline == NOTHING and original_places(view).get(MEMBERSHIP) in ("above", "below"):
        headline, text = _traced(view)
    if headline == NOTHING and audited is not None and (told := original_told(audited))[0]:
        headline = "Nothing to unlearn in the outputs"
        text = f"{_INSIDE}: {_compared(view)}. {told[1]} Audits judge the methods here, outputs cannot."
    methods = [verdict for name, verdict in verdicts.items() if name != ORIGINAL]
    return Story(view.title, headline, text, _groups(methods))


def _untrained(view: View) -> str:
    """Says so where an original or a retrained model learned next to nothing: then their range means nothing."""
    own = view.cells[view.cells["method"].isin([ORIGINAL, RETRAINED])]
    if "accuracy_retain" not in own or own.empty:
        return ""
    low = own[own["accuracy_retain"] < 0.5 * own["accuracy_retain"].median()]
    if low.empty:
        return ""
    counts = [
        f"{(low['method'] == name).sum()} of {(own['method'] == name).sum()} {words}"
        for name, words in ((ORIGINAL, "original models"), (RETRAINED, "retrained models"))
        if (low["method"] == name).any()
    ]
    return (
        f"{_listed(counts)} stayed below half of the usual accuracy on the retain set. Their spread is that of failed "
        "training, so it is no yardstick and nothing is concluded for this request. Train longer, or with another "
        "learning rate or initialisation."
    )


def _about_original(view: View, verdict: Verdict | None) -> tuple[str, str]:
    if verdict is None:
        return "No yardstick", (
            "Fewer than two retrained models a split are there to compare, so how much retraining differs from itself "
            "is not known, and nothing is concluded."
        )
    seen = _compared(view)
    if verdict.place == "within":
        return NOTHING, (
            f"{_INSIDE}: {seen}. It cannot be told from a model that never saw the forget set, so no method can show "
            "here that it removed anything."
        )
    if verdict.place == "unsettled":
        return "Not settled", (
            f"The untouched original is further from the retrained models than they are from each other on average, "
            f"but the interval reaches into their range: {seen}. More seeds or splits would settle it."
        )
    where = _listed([JUDGED[measure] for measure, place in verdict.places.items() if place == "beyond"])
    return "There is something to unlearn", (
        f"The untouched original differs from the retrained models by more than they differ among themselves, "
        f"in {where}: {seen}."
    )


def _traced(view: View) -> tuple[str, str]:
    """The original's outputs are like the retrained models', and yet an attack on membership tells it apart."""
    band = view.band(MEMBERSHIP)
    show = _SHOWN[MEMBERSHIP].show
    range_ = f"{show(band.least)} to {show(band.most)}" if band else DASH
    return "Only membership tells", (
        f"{_INSIDE}: {_compared(view)}. But the membership attack tells it from them: AUC "
        f"{show(view.value(ORIGINAL, MEMBERSHIP)[0])} against {range_}. What there is to unlearn shows there alone."
    )


def _compared(view: View) -> str:
    parts = []
    if view.has(ORIGINAL, "accuracy_forget") and view.has(RETRAINED, "accuracy_forget"):
        shown, column = [view.value(name, "accuracy_forget")[0] for name in (ORIGINAL, RETRAINED)], MAIN[0]
        parts.append(f"forget-set accuracy {column.show(shown[0])} % against {column.show(shown[1])} %")
    for measure in ("js_forget", "js_test"):
        band = view.band(measure)
        if view.has(ORIGINAL, measure) and band:
            show, part = _SHOWN[measure].show, measure.removeprefix("js_")
            value = show(view.value(ORIGINAL, measure)[0])
            parts.append(f"divergence on the {part} set {value} against {show(band.least)} to {show(band.most)} nats")
    return "; ".join(parts)


def _groups(verdicts: Sequence[Verdict]) -> tuple[tuple[str, str], ...]:
    groups = []
    for place, words in (
        ("within", "Within the retrained models\u2019 range"),
        ("unsettled", "Not settled by these seeds"),
        ("beyond", "Beyond the range"),
    ):
        names = [method_name(verdict.method) for verdict in verdicts if verdict.place == place]
        if names:
            groups.append((words, ("; " if any("," in name for name in names) else ", ").join(names)))
    return tuple(groups)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def counted(material: Material) -> str:
    """How many seeds, splits and retrained models every figure rests on, and what its interval is."""
    models = material.records[material.records["method"] == RETRAINED].groupby("split_seed")["seed"].nunique()
    parts = [_plural(material.seeds, "seed")]
    if material.splits > 1:
        parts[0] += f" on each of {material.splits} splits"
    if len(models):
        parts.append(_plural(int(models.min()), "retrained model") + (" a split" if material.splits > 1 else ""))
    return f"{', '.join(parts)}; {describe_interval(material.splits, material.seeds)}"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
