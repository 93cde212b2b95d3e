"""Verdicts: how often each method erased the forget set from the states, or only stopped saying so."""

from __future__ import annotations

from qunlearn.evaluation.verdict import VERDICTS
from qunlearn.study.report.kinds import by_kind
from qunlearn.study.report.material import Material
from qunlearn.study.report.tabling import Plain
from qunlearn.study.report.wording import method_name


def verdicts(material: Material) -> Plain | None:
    """A row a method and request with the number of models by verdict; None where no trial has one."""
    if "verdict" not in material.records:
        return None
    rows = material.records[material.records["verdict"].isin(VERDICTS)]
    if rows.empty:
        return None
    printed = []
    for method in by_kind([str(name) for name in dict.fromkeys(rows["method"])]):
        for request, own in rows[rows["method"] == method].groupby("request", sort=False):
            counts = own["verdict"].value_counts()
            numbers = (str(int(counts.get(name, 0))) for name in VERDICTS)
            printed.append((method_name(method), str(request), *numbers))
    return Plain("Models by verdict", ("method", "forget", *VERDICTS), tuple(printed))
