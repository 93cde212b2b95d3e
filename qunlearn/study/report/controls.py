"""What the head-only control shows: whether outputs alone would have been fooled, and which audits were not."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qunlearn.study.report.audit_wording import main_audits
from qunlearn.study.report.audits import Audited
from qunlearn.study.report.judging import judge
from qunlearn.study.report.kinds import is_control
from qunlearn.study.report.material import ORIGINAL

_OUTPUTS = {
    "within": "lie within the retrained models\u2019 range",
    "unsettled": "cannot be told from the retrained models\u2019 by these seeds",
    "beyond": "lie beyond the retrained models\u2019 range",
}


def control_told(own: Audited) -> str:
    """What became of the control in one view, in two sentences; empty where there is none."""
    name = next((method for method in own.methods if is_control(method)), None)
    if name is None:
        return ""
    places = {verdict.method: verdict.place for verdict in judge(own.view)}
    outputs = _OUTPUTS.get(places.get(name, ""), "were not judged")
    caught, missed = _audits(own, name)
    head = f"{own.view.title}: the outputs of {name} {outputs}."
    if not caught and not missed:
        return f"{head} No probe or attack has a value for it."
    if not caught:
        return f"{head} None of {len(missed)} main audits puts it beyond.{_like_original(own, name)}"
    told = f" Beyond the retrained models\u2019 range by {_listed(caught)}."
    return f"{head}{told}" + (f" Not told apart by {_listed(missed)}." if missed else "") + _like_original(own, name)


def original_told(own: Audited) -> tuple[int, str]:
    """By how many main audits the untouched original is beyond the range, and a sentence; 0 and nothing if by none."""
    caught, missed = _audits(own, ORIGINAL)
    if not caught:
        return 0, ""
    count = len(caught) + len(missed)
    return len(caught), (
        f"But of {count} main audits {len(caught)} put{'s' if len(caught) == 1 else ''} it beyond the range: "
        f"{_listed(caught)}."
    )


def _audits(own: Audited, name: str) -> tuple[list[str], list[str]]:
    caught: list[str] = []
    missed: list[str] = []
    for measure, _ in main_audits(own.names, own.units):
        found = own.found(name, measure.key)
        if found is not None and found.side:
            (caught if found.side in ("above", "below") else missed).append(measure.head)
    return caught, missed


def _like_original(own: Audited, name: str) -> str:
    """Which probes read exactly as much from it as from the untouched original."""
    same = []
    for measure, _ in main_audits(own.names, own.units):
        pair = [own.found(method, measure.key) for method in (name, ORIGINAL)]
        values = [found.value for found in pair if found is not None and math.isfinite(found.value)]
        if measure.key.startswith("probe") and len(values) == 2 and measure.show(values[0]) == measure.show(values[1]):
            same.append(measure.head)
    return f" The untouched original gives the same figure in {_listed(same)}." if same else ""


def _listed(names: Sequence[str]) -> str:
    shown = [name if name.startswith("U-") else name[0].lower() + name[1:] for name in names]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
