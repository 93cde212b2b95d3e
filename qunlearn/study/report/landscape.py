"""How unlearning lies over depth and entanglement: effects with intervals, controls, and the answers in words."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qunlearn.metrics.statistics import Bounds
from qunlearn.study.report.effects import Mediation, difference, effect, grid_of, mediation
from qunlearn.study.report.kinds import by_kind
from qunlearn.study.report.material import ORIGINAL, RETRAINED
from qunlearn.study.report.sweep import CIRCUIT, EQUAL, Sweep, as_text
from qunlearn.study.report.tabling import Plain
from qunlearn.study.report.wording import DASH, method_name

if TYPE_CHECKING:
    from pandas import DataFrame

UNSWEPT = "none"  # the pattern without entanglement


@dataclass(frozen=True)
class Landscape:
    """What the page says of it.

    Attributes:
        answers: a question, then its answer for each request.
        effects: by request a table of effects for each method.
        controls: the circuit beside its controls.
        cells: what was measured beside each cell.
        empty: where there is nothing to forget; empty if nowhere.
    """

    answers: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    effects: Plain
    controls: Plain | None
    cells: Plain | None
    empty: str


def landscape(sweep: Sweep | None) -> Landscape | None:
    """The page's part; None without a sweep."""
    if sweep is None:
        return None
    return Landscape(
        answers=tuple(_answers(sweep)),
        effects=_effects(sweep),
        controls=_controls(sweep),
        cells=_cells(sweep),
        empty=_empty(sweep),
    )


def shared(rows: DataFrame) -> list[str]:
    """The methods, other than the references, that ran in every cell of these trials."""
    keys = ["arm", "block", "depth", "entanglement"]
    cells = rows[rows["method"] == ORIGINAL].drop_duplicates(keys)
    counts = rows.drop_duplicates([*keys, "method"])["method"].value_counts()
    names = [str(name) for name in dict.fromkeys(rows["method"]) if name not in (ORIGINAL, RETRAINED)]
    return [name for name in names if counts[name] == len(cells)]


def pooled(rows: DataFrame, methods: Sequence[str]) -> DataFrame:
    """A row a cell and seed: the mean over some methods of their distances, with the original's memorisation."""
    keys = ["arm", "block", "depth", "entanglement", "request", "split_seed", "seed"]
    own = rows[rows["method"].isin(list(methods))]
    values = ["log_distance", "log_divergence", "log_spread", "excess", "memorised"]
    return own.groupby(keys, sort=False, dropna=False)[values].mean().reset_index()


def depth_effect(rows: DataFrame, value: str = "log_distance") -> Bounds:
    """What the outcome changes by with every doubling of depth."""
    cells, outcome = grid_of(rows, ["block", "entanglement", "depth"], value)
    return effect(np.log2(cells["depth"].to_numpy(float)).tolist(), _named(cells, "block", "entanglement"), outcome)


def pattern_effect(rows: DataFrame, pattern: str | None = None, value: str = "log_distance") -> Bounds:
    """What it changes by with a pattern, or with any, beside the same circuit without entanglement."""
    rows = rows if pattern is None else rows[rows["entanglement"].isin([UNSWEPT, pattern])]
    cells, outcome = grid_of(rows, ["block", "depth", "entanglement"], value)
    entangled = (cells["entanglement"] != UNSWEPT).astype(float)
    return effect(entangled.tolist(), _named(cells, "block", "depth"), outcome)


def depth_mediation(rows: DataFrame, mediator: str = "memorised") -> Mediation:
    """How much of the effect of depth goes by memorisation."""
    cells, outcome = grid_of(rows, ["block", "entanglement", "depth"], "log_distance")
    _, between = grid_of(rows, ["block", "entanglement", "depth"], mediator)
    factor = np.log2(cells["depth"].to_numpy(float)).tolist()
    return mediation(factor, _named(cells, "block", "entanglement"), outcome, between)


def pattern_mediation(rows: DataFrame, mediator: str = "memorised") -> Mediation:
    """How much of the effect of any entanglement goes by memorisation."""
    cells, outcome = grid_of(rows, ["block", "depth", "entanglement"], "log_distance")
    _, between = grid_of(rows, ["block", "depth", "entanglement"], mediator)
    factor = (cells["entanglement"] != UNSWEPT).astype(float).tolist()
    return mediation(factor, _named(cells, "block", "depth"), outcome, between)


def beside(rows: DataFrame, control: DataFrame, slope: bool = False) -> Bounds:
    """The circuit minus a control, paired by depth and seed, in log distance; or that of their slopes over depth.

    A control with fewer cells (a twin has no pattern) is set beside each of the circuit's cells at its depth.
    """
    cells, one = grid_of(rows, ["block", "entanglement", "depth"], "log_distance")
    found, other = grid_of(control, ["block", "entanglement", "depth"], "log_distance")
    if len(found) == found["depth"].nunique():
        places = [int(np.flatnonzero(found["depth"] == depth)[0]) if (found["depth"] == depth).any() else -1
                  for depth in cells["depth"]]  # fmt: skip
    else:
        known = {values: place for place, values in enumerate(found.itertuples(index=False, name=None))}
        places = [known.get(values, -1) for values in cells.itertuples(index=False, name=None)]
    kept = [number for number, place in enumerate(places) if place >= 0]
    blocks = _named(cells.iloc[kept], "block", "entanglement")
    gap = one[kept], other[[places[number] for number in kept]]
    if not slope:
        return difference(blocks, *gap)
    return effect(np.log2(cells["depth"].to_numpy(float)[kept]).tolist(), blocks, gap[0] - gap[1])


def _named(cells: DataFrame, *names: str) -> list[str]:
    return [as_text(values) for values in cells[list(names)].itertuples(index=False, name=None)]


def _answers(sweep: Sweep) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    main = sweep.arm(CIRCUIT)
    methods = shared(main)
    asked: list[tuple[str, list[tuple[str, str]]]] = []
    deep, entangled = main["depth"].nunique() > 1, main["entanglement"].nunique() > 1
    entangled = entangled and UNSWEPT in set(main["entanglement"])
    if deep:
        asked.append(("Does depth matter for unlearning?", []))
    if entangled:
        asked.append(("Does entanglement?", []))
    asked.append(("Is it mediated by memorisation?", []))
    if len(sweep.arms) > 1 and deep:
        asked.append(("Does the circuit or the classical part do it?", []))
    for request in sweep.requests:
        rows = main[main["request"] == request]
        own = pooled(rows, methods)
        told = iter(asked)
        if deep:
            each = [depth_effect(rows[rows["method"] == name]) for name in methods]
            sentence = _sentence("every doubling of depth", depth_effect(own), each)
            next(told)[1].append((request, f"{sentence} {_yardstick(functools.partial(depth_effect, own))}"))
        if entangled:
            each = [pattern_effect(rows[rows["method"] == name]) for name in methods]
            sentence = _sentence("entanglement of any pattern", pattern_effect(own), each)
            next(told)[1].append((request, f"{sentence} {_yardstick(functools.partial(pattern_effect, own))}"))
        parts = [("depth", depth_mediation)] * deep + [("entanglement", pattern_mediation)] * entangled
        next(told)[1].append((request, " ".join(_mediated(name, found(own)) for name, found in parts)))
        if len(sweep.arms) > 1 and deep:
            next(told)[1].append((request, _who(sweep, request)))
    yield from ((question, tuple(told)) for question, told in asked)


def _sentence(what: str, found: Bounds, each: Sequence[Bounds]) -> str:
    """What a factor does to the mean over methods, and to how many of them."""
    if not math.isfinite(found.low):
        return "Not to be told from these trials."
    away = sum(1 for one in each if one.low > 0)
    near = sum(1 for one in each if one.high < 0)
    verb = "takes" if found.low > 0 else "brings" if found.high < 0 else ""
    head = (
        f"Yes: {what} {verb} unlearned models {'away from' if found.low > 0 else 'nearer to'} retraining"
        if verb
        else f"Not to be told: {what} leaves the distance to retraining within what seeds and circuits explain"
    )
    return (
        f"{head}; it multiplies the oracle distance by {as_factor(found)}, mean over {len(each)} methods. Of these "
        f"{away} end farther off, {near} nearer, {len(each) - away - near} are not told apart."
    )


def _yardstick(effect_on: Callable[..., Bounds]) -> str:
    """What becomes of both parts of the oracle distance, which may be what moves it."""
    spread, plain = effect_on(value="log_spread"), effect_on(value="log_divergence")
    if not math.isfinite(spread.low):
        return ""
    head = "The yardstick holds" if spread.low <= 0 <= spread.high else "The yardstick moves, too"
    return (
        f"{head}: the retrained models\u2019 divergence from each other is multiplied by {as_factor(spread)}, that of "
        f"the unlearned models from them, not measured in it, by {as_factor(plain)}."
    )


def _mediated(name: str, found: Mediation) -> str:
    total, direct, indirect = found.total, found.direct, found.indirect
    start = f"Of the effect of {name} ({as_factor(total)})"
    if not math.isfinite(direct.low):
        return f"{start} it is not to be told: originals have memorised the same in all cells."
    parts = f"{as_factor(indirect)} goes with memorisation, {as_factor(direct)} does not"
    if total.low <= 0 <= total.high:
        return f"{start}, which is not told from none, {parts}."
    gone, left = not indirect.low <= 0 <= indirect.high, not direct.low <= 0 <= direct.high
    word = {(True, False): "Mediated", (True, True): "In part", (False, True): "Not mediated"}.get(
        (gone, left), "Not settled"
    )
    return f"{word}: of the effect of {name} ({as_factor(total)}) {parts}."


def _who(sweep: Sweep, request: str) -> str:
    """The circuit beside each control: levels and slopes over depth."""
    parts = []
    main = sweep.arm(CIRCUIT)
    for name in sweep.arms[1:]:
        other = sweep.arm(name)
        methods = [method for method in shared(main) if method in shared(other)]
        one, two = (pooled(rows[rows["request"] == request], methods) for rows in (main, other))
        parts.append(f"{name}: every doubling of depth multiplies the distance by {as_factor(depth_effect(two))}")
        if name != EQUAL:
            parts[-1] += f", and the circuit stands at {as_factor(beside(one, two))} times its distance"
            parts[-1] += (
                f"; the circuit\u2019s slope is {as_factor(beside(one, two, slope=True))} times the control\u2019s"
            )
    slope = depth_effect(pooled(main[main["request"] == request], shared(main)))
    return f"Circuit: {as_factor(slope)} with every doubling. " + ". ".join(_upper(part) for part in parts) + "."


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def as_factor(found: Bounds) -> str:
    """A change of log distance as a factor with its interval."""
    if not math.isfinite(found.value):
        return DASH
    value, low, high = (math.exp(part) if math.isfinite(part) else math.nan for part in found)
    return f"{value:.2f}" + (f" ({low:.2f} to {high:.2f})" if math.isfinite(low) else "")


def _nats(found: Bounds) -> str:
    if not math.isfinite(found.value):
        return DASH
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})".replace("-", "\u2212")


def _effects(sweep: Sweep) -> Plain:
    """A row a request and method: what depth, every pattern and everything else swept does to the distance."""
    main = sweep.arm(CIRCUIT)
    patterns = [name for name in dict.fromkeys(main["entanglement"]) if name != UNSWEPT]
    patterns = patterns if UNSWEPT in set(main["entanglement"]) else []
    heads = ["forget", "method", "doubling of depth", *(f"{name} beside none" for name in patterns),
             "depth, forget set, nats", "depth at equal memorisation"]  # fmt: skip
    rows = []
    for request in sweep.requests:
        own = main[main["request"] == request]
        for name in (ORIGINAL, *by_kind([m for m in dict.fromkeys(own["method"]) if m not in (ORIGINAL, RETRAINED)])):
            one = own[own["method"] == name]
            values = [as_factor(depth_effect(one)), *(as_factor(pattern_effect(one, pattern)) for pattern in patterns)]
            values += [_nats(depth_effect(one, "excess")), as_factor(depth_mediation(one).direct)]
            rows.append((request, method_name(name), *values))
    return Plain("Effects on the distance to retraining, as factors of the oracle distance", tuple(heads), tuple(rows))


def _controls(sweep: Sweep) -> Plain | None:
    """A row a request and method: the circuit beside twin and frozen circuit, and slopes over depth of all arms."""
    others = [name for name in sweep.arms[1:] if name != EQUAL]
    if len(sweep.arms) < 2:
        return None
    main, rows = sweep.arm(CIRCUIT), []
    heads = ("forget", "method", *(f"circuit / {name}" for name in others), *(f"depth, {name}" for name in sweep.arms))
    for request in sweep.requests:
        own = main[main["request"] == request]
        for name in (ORIGINAL, *by_kind([m for m in dict.fromkeys(own["method"]) if m not in (ORIGINAL, RETRAINED)])):
            cells = []
            arms = {arm: _of(sweep.arm(arm), request, name) for arm in sweep.arms}
            cells += [as_factor(beside(arms[CIRCUIT], arms[arm])) if len(arms[arm]) else DASH for arm in others]
            cells += [as_factor(depth_effect(rows_)) if len(rows_) else DASH for rows_ in arms.values()]
            rows.append((request, method_name(name), *cells))
    return Plain("The circuit beside its controls, as factors of the oracle distance", heads, tuple(rows))


def _of(rows: DataFrame, request: str, method: str) -> DataFrame:
    return rows[(rows["request"] == request) & (rows["method"] == method)]


_COLUMNS = {
    "weights": ("weights", 0), "expressibility": ("expressibility", 3), "entangling_capability": ("entangling", 2),
    "fisher_rank": ("Fisher rank", 1), "fisher_trace": ("Fisher trace", 2),
    "gradient_variance": ("gradient variance", 6),
    "generalisation_gap": ("generalisation gap, %", 1),
    "membership_advantage": ("membership advantage", 2), "memorised": ("memorised, %", 1),
}  # fmt: skip


def _cells(sweep: Sweep) -> Plain | None:
    if sweep.cells is None:
        return None
    heads = ("model", "depth", "entanglement", "forget", *(head for head, _ in _COLUMNS.values()), "to forget")
    rows = []
    for one in sweep.cells.to_dict("records"):
        figures = []
        for name, (head, digits) in _COLUMNS.items():
            value = float(one[name]) * (100.0 if head.endswith("%") else 1.0)
            figures.append(f"{value:.{digits}f}" if math.isfinite(value) else DASH)
        model = one["arm"] + (f", {one['block']}" if one["block"] else "")
        place = (model, str(one["depth"]), str(one["entanglement"]), one["request"])
        rows.append((*place, *figures, "nothing" if one["empty"] else "something"))
    return Plain("What was measured beside each cell", heads, tuple(rows))


def _empty(sweep: Sweep) -> str:
    """Where there is nothing to forget."""
    if sweep.cells is None:
        return ""
    cells = sweep.cells
    told = []
    for (arm, request), own in cells.groupby(["arm", "request"], sort=False):
        if own["empty"].any():
            told.append(f"{arm}, forget {request}: {int(own['empty'].sum())} of {len(own)}")
    if not told:
        return "In every cell the original differs from the retrained models by more than their own spread."
    return "Cells in which there is nothing to forget (hatched in the maps): " + "; ".join(told) + "."
