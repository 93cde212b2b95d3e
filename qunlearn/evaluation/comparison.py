"""The same models run in several ways (exactly, with shots, with noise, on a device): figures side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from qunlearn import metrics
from qunlearn.errors import InputError
from qunlearn.metrics import Bounds, centred_bootstrap
from qunlearn.metrics.registry import metric

Floats = npt.NDArray[np.float64]
Role = Literal["original", "unlearned", "retrained"]
Figures = dict[str, tuple[float, Floats]]
"""By measure: the value, and the value of each resample ``(resamples,)``."""

ATTACKS = ("membership_auc", "membership_auc_calibrated")
RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Way:
    """What models say in one way of running them.

    Attributes:
        name: such as ``"exact"`` or ``"hardware"``.
        logits: by model, by set ``(1 + repeats, samples, classes)``: what the run gave, then what as many shots might
            have given instead; no repeats where nothing was drawn.
    """

    name: str
    logits: Mapping[str, Mapping[str, Floats]]


@dataclass(frozen=True, eq=False)
class Setting:
    """Which models are compared on which samples.

    Attributes:
        roles: by model what it is.
        labels: by set the class numbers ``(samples,)``.
        forgotten: the class that was to be forgotten, whose test samples are left out; None for other requests.
    """

    roles: Mapping[str, Role]
    labels: Mapping[str, npt.NDArray[np.int64]]
    forgotten: int | None = None

    def of(self, role: Role) -> list[str]:
        """The models of one role, in order."""
        return [name for name, own in self.roles.items() if own == role]

    @property
    def candidates(self) -> list[str]:
        """The models that are put into an order: the original and the unlearned ones."""
        return [name for name, own in self.roles.items() if own != "retrained"]

    def kept(self, name: str) -> npt.NDArray[np.bool_]:
        """Which samples of a set count, ``(samples,)``."""
        y = self.labels[name]
        apart = name == "test" and self.forgotten is not None
        return y != self.forgotten if apart else np.ones(len(y), dtype=np.bool_)


@dataclass(frozen=True)
class Entry:
    """One figure of one model in one way, with its interval."""

    model: str
    role: Role
    way: str
    measure: str
    bounds: Bounds


@dataclass(frozen=True)
class Order:
    """How far the models stand in the same order as when they are run exactly, by one measure."""

    way: str
    measure: str
    models: int
    bounds: Bounds


class Comparison:
    """Figures of models run in several ways, with intervals over samples and shots.

    A resample draws the samples of every set anew (the same ones for all models and ways), and for each of them one
    of the repeats of its run: shots of different samples are independent, so a whole repeat drawn at once would count
    their noise twice. Intervals are `centred_bootstrap`, since a run and its repeats both hold the noise of shots.

    Args:
        setting: which models and samples.
        ways: the first is the one that the others are compared with.
        resamples: how many.
        seed: of the resampling.

    Raises:
        InputError: for a way that lacks a model or a set, or with other numbers of samples.
    """

    def __init__(self, setting: Setting, ways: Sequence[Way], *, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self.setting, self.ways, self.resamples = setting, list(ways), resamples
        for way in ways:
            _check(setting, way)
        generator = np.random.default_rng(np.random.SeedSequence(seed))
        places = {name: np.flatnonzero(setting.kept(name)) for name in setting.labels}
        self._places = {name: place for name, place in places.items() if len(place)}
        self._drawn = {
            name: place[generator.integers(len(place), size=(resamples, len(place)))]
            for name, place in self._places.items()
        }
        self._chance = {name: generator.random(drawn.shape) for name, drawn in self._drawn.items()}
        self._figures = {way.name: {model: self._of(way, model) for model in setting.roles} for way in ways}

    @cached_property
    def entries(self) -> list[Entry]:
        """Every figure of every model, by measure, then by model, then by way."""
        return [
            Entry(model, role, way.name, measure, self._bounds(measure, *self._figure(way.name, model, measure)))
            for measure in self.measures
            for model, role in self.setting.roles.items()
            for way in self.ways
        ]

    @property
    def measures(self) -> list[str]:
        """The measures that there are, in the order of the tables."""
        first = self._figures[self.ways[0].name]
        return list(dict.fromkeys(measure for figures in first.values() for measure in figures))

    @cached_property
    def orders(self) -> list[Order]:
        """Kendall's tau between each further way and the first, over original and unlearned models, by measure."""
        return [self._order(way.name, measure) for measure in self.measures for way in self.ways[1:]]

    def _order(self, way: str, measure: str) -> Order:
        models = self.setting.candidates
        one, other = ([self._figure(name, model, measure) for model in models] for name in (self.ways[0].name, way))
        tau = metrics.kendall_tau([value for value, _ in one], [value for value, _ in other])
        resampled = [
            metrics.kendall_tau(first, second)
            for first, second in zip(
                np.transpose([values for _, values in one]), np.transpose([values for _, values in other]), strict=True
            )
        ]
        return Order(way, measure, len(models), centred_bootstrap(tau, resampled, limits=(-1.0, 1.0)))

    def _figure(self, way: str, model: str, measure: str) -> tuple[float, Floats]:
        """A figure and its resamples; NaN where the model has none, as one retrained model alone has no divergence."""
        return self._figures[way][model].get(measure, (float("nan"), np.full(self.resamples, np.nan)))

    def _bounds(self, measure: str, value: float, resampled: Floats) -> Bounds:
        """The interval of a figure; an exact one of a share on which all resamples agree, as they do on 0 and 1."""
        if measure.startswith("accuracy_") and np.ptp(resampled) == 0:
            samples = len(self._places[measure.removeprefix("accuracy_")])
            return metrics.share_interval(round(value * samples), samples)
        traits = metric(measure.removesuffix("_calibrated").replace("_holdout", "_test"))
        return centred_bootstrap(value, resampled, limits=(traits.lower, traits.upper))

    def _of(self, way: Way, model: str) -> Figures:
        logits, figures = way.logits[model], Figures()
        for name in self._places:
            figures[f"accuracy_{name}"] = self._mean(name, logits[name].argmax(axis=2) == self.setting.labels[name])
        others = [way.logits[other] for other in self.setting.of("retrained") if other != model]
        for name in [name for name in ("forget", "retain", "test") if name in self._places and others]:
            figures[f"js_{name}"] = self._mean(name, _divergence(logits[name], [other[name] for other in others]))
        return figures | dict(self._attacks(logits, others))

    def _attacks(
        self, logits: Mapping[str, Floats], others: Sequence[Mapping[str, Floats]]
    ) -> Iterator[tuple[str, tuple[float, Floats]]]:
        """The attack by confidence, and the one calibrated by models that never saw the forget set."""
        if not {"forget", "holdout"} <= self._places.keys():
            return
        scores = {name: _confidence(logits[name]) for name in ("forget", "holdout")}
        yield ATTACKS[0], self._auc(scores)
        if others:
            usual = {
                name: np.mean([_matched(_confidence(o[name]), s) for o in others], 0) for name, s in scores.items()
            }
            yield ATTACKS[1], self._auc({name: score - usual[name] for name, score in scores.items()})

    def _mean(self, name: str, parts: npt.NDArray[np.bool_ | np.float64]) -> tuple[float, Floats]:
        """The mean over samples of ``(1 + repeats, samples)``."""
        resampled = parts[self._repeats(parts, name), self._drawn[name]].mean(axis=1)
        return float(parts[0, self._places[name]].mean()), resampled.astype(np.float64)

    def _auc(self, scores: Mapping[str, Floats]) -> tuple[float, Floats]:
        y = self.setting.labels
        value = _one_auc(
            *(score[0, self._places[name]] for name, score in scores.items()),
            *(y[name][self._places[name]] for name in scores),
        )
        drawn = [score[self._repeats(score, name), self._drawn[name]] for name, score in scores.items()]
        classes = [y[name][self._drawn[name]] for name in scores]
        return value, np.array([_one_auc(*rows) for rows in zip(*drawn, *classes, strict=True)])

    def _repeats(self, parts: npt.NDArray[np.bool_ | np.float64], name: str) -> npt.NDArray[np.int64]:
        """Which of the runs each drawn sample takes: one of the repeats, or the one run that there is."""
        repeats = len(parts) - 1
        chosen = 1 + np.floor(self._chance[name] * repeats) if repeats else np.zeros_like(self._chance[name])
        return chosen.astype(np.int64)


def _one_auc(members: Floats, others: Floats, member_y: npt.NDArray[np.int64], other_y: npt.NDArray[np.int64]) -> float:
    return metrics.weighted_auc(members, others, *metrics.class_weights(member_y, other_y))


def _check(setting: Setting, way: Way) -> None:
    for model in setting.roles:
        for name, y in setting.labels.items():
            logits = way.logits.get(model, {}).get(name)
            if logits is None or logits.ndim != 3 or logits.shape[1] != len(y):
                got = None if logits is None else logits.shape
                raise InputError(
                    f"{way.name}: expected logits (1 + repeats, {len(y)}, classes) of {model!r} on the {name} set, "
                    f"got {got}"
                )


def _divergence(logits: Floats, others: Sequence[Floats]) -> Floats:
    """Jensen-Shannon divergence to each of the others, averaged over them: ``(1 + repeats, samples)``."""
    rows = [
        np.mean([metrics.js_by_sample(run, other[min(number, len(other) - 1)]) for other in others], axis=0)
        for number, run in enumerate(logits)
    ]
    return np.array(rows)


def _confidence(logits: Floats) -> Floats:
    runs, samples, classes = logits.shape
    return metrics.confidence(logits.reshape(-1, classes)).reshape(runs, samples)


def _matched(runs: Floats, like: Floats) -> Floats:
    """As many runs as another model has."""
    return runs if len(runs) == len(like) else np.broadcast_to(runs[:1], like.shape)
