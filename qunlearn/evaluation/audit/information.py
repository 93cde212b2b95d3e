"""How much the stages, and the circuit's measured states, tell about having been in the forget set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qunlearn import metrics
from qunlearn.evaluation.audit.bench import Bench, Case
from qunlearn.evaluation.audit.critics import information_by_sample
from qunlearn.evaluation.audit.finding import Figure, absent
from qunlearn.evaluation.audit.holevo import holevo_by_sample
from qunlearn.evaluation.audit.intervals import mean_bounds
from qunlearn.evaluation.audit.subject import Subject
from qunlearn.models import Stage
from qunlearn.training.seeds import Seeds

Floats = npt.NDArray[np.float64]
MOST = 512  # samples of each set
NOTHING = "the original tells no more of the forget set than the retrained models do: there is nothing to remove"


class Told(NamedTuple):
    """Contributions of the samples ``(n,)`` whose mean is an information in nats; by stage, and of the states."""

    stages: dict[str, Floats | str]
    states: Floats | str


def information(case: Case) -> Iterator[Figure]:
    """What stages tell about membership in the forget set, in nats; how much of it is left; zero-retrain forgetting.

    ``information_<stage>``: a lower bound of I(Z; Y), Z what the stage hands on and Y whether a training sample is in
    the forget set, by critics that reuse the later layers' architecture. ``idi``: the information difference index,
    sum over stages of (I - retrained) / sum of (I of the original - retrained): 0 like retrained, 1 like the original,
    below 0 less than retrained. ``holevo`` is the Holevo information of the ensemble of measured states about Y, and
    ``idi_holevo`` its index. ``zrf`` is 1 - the mean Jensen-Shannon divergence (bits) from a freshly initialised model.

    Fooled by: ``zrf`` by a model that answers at random on the forget set, which no retrained model does; ``idi`` by
    nothing that leaves the stages alone, but it divides by a difference that is nothing where little was memorised
    (then it is left out).

    Source: Jeon et al. 2024, arXiv 2405.17878 (read: stages but the last, whose output is the logits; differences not
    cut at zero, so that over-unlearning shows); Holevo 1973; Chundawat et al. 2023, arXiv 2205.08096 (zrf; the
    divergence not divided by the number of classes, as released code does).
    """
    told = _told(case.subject, case.bench, case.seeds)
    for stage, rows in told.stages.items():
        name = f"information_{stage}"
        yield absent(name, rows, "nats") if isinstance(rows, str) else _mean(name, rows)
    yield _index("idi", case, _sum_of_stages)
    yield absent("holevo", told.states, "nats") if isinstance(told.states, str) else _mean("holevo", told.states)
    yield _index("idi_holevo", case, _of_states)
    yield _zero_retrain(case)


def _told(subject: Subject, bench: Bench, seeds: Seeds) -> Told:
    """The contributions of every sample, found once a model."""

    def find() -> Told:
        rows = {name: _even(len(bench.sets[name])) for name in ("forget", "retain")}
        member = np.arange(sum(map(len, rows.values()))) < len(rows["forget"])
        stages = {stage.name: information_by_sample(subject, stage, rows, member, seeds) for stage in hidden(subject)}
        return Told(stages, holevo_by_sample(subject, rows, member))

    found: Told = subject.once(("information", seeds), find)
    return found


def hidden(subject: Subject) -> tuple[Stage, ...]:
    """The stages but the last, whose output is the logits."""
    return subject.stages[:-1]


def _sum_of_stages(told: Told) -> Floats | str:
    total: Floats | None = None
    for part in told.stages.values():
        if isinstance(part, str):
            return part
        total = part if total is None else total + part
    return "the model has no hidden stage, or several side by side" if total is None else total


def _of_states(told: Told) -> Floats | str:
    return told.states


def _index(name: str, case: Case, part: Callable[[Told], Floats | str]) -> Figure:
    """The information difference index of a part, sample by sample beside the retrained models' mean."""
    original = case.bench.original
    if original is None or not case.others:
        return absent(name, "it needs the original and retrained models", "score")
    found = [part(_told(one, case.bench, case.seeds)) for one in (case.subject, original, *case.others)]
    for rows in found:
        if isinstance(rows, str):
            return absent(name, rows, "score")
    mine, before, *others = np.array(found, dtype=np.float64)
    usual = np.mean(others, axis=0)
    if not mean_bounds(before - usual).low > 0:
        return absent(name, NOTHING, "score")
    rows = metrics.information_difference_by_part(mine, before, usual)
    return Figure(name, mean_bounds(rows), len(mine), "score")


def _mean(name: str, rows: Floats) -> Figure:
    return Figure(name, mean_bounds(rows), len(rows), "nats")


def _zero_retrain(case: Case) -> Figure:
    fresh = case.bench.untrained(case.subject.model)
    if isinstance(fresh, str):
        return absent("zrf", fresh, "score")
    rows = metrics.zrf_by_sample(case.logits("forget"), fresh.outputs.logits["forget"])
    return Figure("zrf", mean_bounds(rows, 0.0, 1.0), len(rows), "score")


def _even(length: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, length - 1, min(length, MOST)).round().astype(np.int64))
