"""What any measurement of the circuit's states could still tell of the forget set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from qunlearn import metrics
from qunlearn.evaluation.audit.bench import Bench, Case
from qunlearn.evaluation.audit.finding import Figure, absent
from qunlearn.evaluation.audit.intervals import mean_bounds
from qunlearn.evaluation.reference import reference
from qunlearn.metrics import Bounds
from qunlearn.metrics.ensembles import Wires

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
VIEWS: dict[str, Wires] = {"helstrom": None, "helstrom_one_wire": 1, "helstrom_two_wires": 2}
MOST = 256  # test samples of all classes
FEW = "fewer than two forget samples have an unseen sample to stand against"
UPPER = (
    "an upper figure and no estimate, fitted and scored on the same samples; it reaches down to the lower end of the "
    "cross-fitted interval"
)


def helstrom(case: Case) -> Iterator[Figure]:
    """What could any measurement of the circuit's states tell of the forget set? Helstrom advantage: 2 P(right) - 1.

    Between forget samples and unseen ones of their classes, for a class request of the retained classes. ``helstrom``
    is of the whole register, ``helstrom_one_wire`` and ``helstrom_two_wires`` of the wires that tell most; each by a
    measurement fitted on one half of the samples and scored on the other, in equal numbers. ``helstrom_null`` is the
    same after the samples changed places at random (mean and 95 % range of 49), ``helstrom_p`` the p-value of that,
    ``helstrom_plugin`` the bound between the samples' own means, an upper figure. ``helstrom_classes`` is how often the
    pretty good measurement, cross-fitted, names the class of a test sample, ``helstrom_forgotten`` of a sample of the
    forgotten class.

    Fooled by: reading it against 0, which retrained models do not reach for a class; angles after the last encoding and
    edits of the head, which change none of it, so that a model that only stopped saying what it knows keeps the
    original's values.

    Source: Helstrom 1969, Journal of Statistical Physics 1, 231; Hausladen and Wootters 1994, Journal of Modern Optics
    41, 2385. Cross-fitting and the reference are ours.
    """
    if case.subject.stateless is not None:
        yield absent("helstrom", case.subject.stateless, "score")
        return
    yield from _against_unseen(case)
    yield from _classes(case)


def _against_unseen(case: Case) -> Iterator[Figure]:
    bench, seed = case.bench, case.seeds.integer("helstrom")
    chosen = reference(bench.members, bench.others, bench.forget_class)
    states = _states(case, "forget", chosen.forget), _states(case, "holdout", chosen.outside)
    for name, wires in VIEWS.items():
        found = metrics.helstrom_scores(*states, wires=wires, strata=chosen.strata, seed=seed)
        if not found.pairs:
            yield absent(name, FEW, "score")
            continue
        yield Figure(name, found.bounds, 2 * found.pairs, "score")
        if wires is None:
            null = metrics.helstrom_null(*states, strata=chosen.strata, seed=seed)
            low, high = np.quantile(null.values, [0.025, 0.975])
            centre = Bounds(float(null.values.mean()), float(low), float(high))
            yield Figure("helstrom_null", centre, len(null.values), "score")
            least = round(null.p_value * (len(null.values) + 1)) - 1  # permutations that reached the advantage found
            _, *ends = metrics.share_interval(least, len(null.values))
            yield Figure("helstrom_p", Bounds(null.p_value, *ends), len(null.values))
            upper = metrics.helstrom_plugin(*states, strata=chosen.strata)
            between = Bounds(upper, min(max(found.bounds.low, 0.0), upper), upper)
            yield Figure("helstrom_plugin", between, 2 * found.pairs, "score", UPPER)


def _classes(case: Case) -> Iterator[Figure]:
    places = _by_class(case.bench)
    if len(places) < 2:
        yield absent("helstrom_classes", "fewer than two classes have two test samples")
        return
    states = [_states(case, "test", own) for own in places.values()]
    scores = metrics.pretty_good_scores(states, seed=case.seeds.integer("helstrom classes"))
    named = dict(zip(places, scores, strict=True))
    yield _share("helstrom_classes", list(named.values()))
    if case.bench.forget_class in named:
        yield _share("helstrom_forgotten", [named[case.bench.forget_class]])


def _by_class(bench: Bench) -> dict[int, Places]:
    """Positions in the test set by class, of at most 256 samples, where there are two of a class."""
    y = bench.y("test")
    kept = np.unique(np.linspace(0, len(y) - 1, min(len(y), MOST)).round().astype(np.int64))
    found = {int(number): kept[y[kept] == number] for number in np.unique(y[kept])}
    return {number: own for number, own in found.items() if len(own) > 1}


def _share(name: str, scores: list[Floats]) -> Figure:
    """The mean over classes, with an interval sqrt 2 times as wide as that of samples apart (see `helstrom_scores`)."""
    value = float(np.mean([own.mean() for own in scores]))
    spread = mean_bounds(np.concatenate([own - own.mean() for own in scores]))
    low, high = (value + np.sqrt(2) * end for end in spread[1:])
    number = sum(map(len, scores))
    return Figure(name, Bounds(value, float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))), number)


def _states(case: Case, name: str, places: Places) -> torch.Tensor:
    states = case.subject.states(name)
    assert states is not None  # the subject said that it has them
    return states[torch.from_numpy(places)]
