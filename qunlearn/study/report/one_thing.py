"""Circuits that differ in one thing only, beside each other."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from qunlearn.metrics.statistics import Bounds
from qunlearn.study.report.effects import difference, grid_of
from qunlearn.study.report.landscape import as_factor, pooled, shared
from qunlearn.study.report.sweep import CIRCUIT, Sweep
from qunlearn.study.report.tabling import Plain
from qunlearn.study.report.wording import setting_name

if TYPE_CHECKING:
    from pandas import DataFrame

#: Cards, and what the second has in place of the first; of Sim et al. 2019 (arXiv 1905.10876), but for sim-15-cz.
PAIRS = (
    ("sim-01", "sim-02", "a stair of CX for no entangler"),
    ("sim-03", "sim-04", "CRX for CRZ"),
    ("sim-16", "sim-17", "CRX for CRZ"),
    ("sim-16", "sim-18", "a ring for bricks"),
    ("sim-11", "sim-12", "CZ for CX"),
    ("sim-15", "sim-15-cz", "CZ for CX"),
)
_MEASURED = {"oracle distance": "log_distance", "yardstick": "log_spread", "divergence": "log_divergence"}


def one_thing(sweep: Sweep) -> Plain | None:
    """A row a request and pair of circuits: the second's figures as factors of the first's; None without a pair."""
    main = sweep.arm(CIRCUIT)
    others = [name for name in sweep.others if name != "card"]
    blocks = [setting_name(dict(zip(others, row, strict=True))) for row in main[others].itertuples(index=False)]
    main = main.assign(block=blocks)
    rows = []
    for request, (first, second, what) in product(sweep.requests, PAIRS):
        own = main[main["request"] == request]
        one, other = (own[own["card"] == card] for card in (first, second))
        methods = [name for name in shared(one) if name in shared(other)]
        if methods:
            found = [_beside(pooled(other, methods), pooled(one, methods), value) for value in _MEASURED.values()]
            rows.append((request, f"{second} beside {first}", what, str(len(methods)), *map(as_factor, found)))
    heads = ("forget", "circuits", "what differs", "methods", *_MEASURED)
    return Plain("Circuits that differ in one thing, as factors", heads, tuple(rows)) if rows else None


def _beside(rows: DataFrame, base: DataFrame, value: str) -> Bounds:
    """The difference of a logarithm, paired by depth, everything else swept, and seed."""
    cells, one = grid_of(rows, ["block", "depth"], value)
    known, other = grid_of(base, ["block", "depth"], value)
    places = {key: place for place, key in enumerate(known.itertuples(index=False, name=None))}
    kept = [(n, places[key]) for n, key in enumerate(cells.itertuples(index=False, name=None)) if key in places]
    mine, theirs = ([pair[side] for pair in kept] for side in (0, 1))
    return difference([f"{n}" for n in mine], one[mine], other[theirs])
