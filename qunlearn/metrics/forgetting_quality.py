"""Forgetting quality: how far the outputs of unlearned models can be told from those of retrained ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qunlearn.errors import InputError
from qunlearn.files import write_bytes
from qunlearn.metrics.arrays import Array, Values, column, rows
from qunlearn.metrics.keeping import arrays_from_bytes, arrays_to_bytes
from qunlearn.metrics.rules import LARGEST, epsilon, family, lower_bound
from qunlearn.metrics.statistics import Bounds

LEAST_MODELS = 64
BUCKET = 0.5  # of epsilon, in nats; each earns half the points of the one below
_SIDES = ("unlearned", "retrained")


@dataclass(frozen=True, eq=False)
class Population:
    """Outputs of many unlearned models and as many retrained ones on the forget set, and how good the models are.

    Attributes:
        unlearned: `phi` of every forget sample, ``(N, forget samples)``, nats.
        retrained: the same by retrained models, ``(N, forget samples)``.
        retain_unlearned: accuracy on the retain set, ``(N,)``, in [0, 1].
        retain_retrained: of the retrained models.
        test_unlearned: accuracy on the test set, ``(N,)``, in [0, 1].
        test_retrained: of the retrained models.
    """

    unlearned: Array
    retrained: Array
    retain_unlearned: Array
    retain_retrained: Array
    test_unlearned: Array
    test_retrained: Array

    def __post_init__(self) -> None:
        """Check shapes and numbers."""
        tables = {side: rows(getattr(self, side), side) for side in _SIDES}
        one, other = tables.values()
        if one.shape != other.shape:
            raise InputError(
                f"expected as many retrained as unlearned models and the same samples, got {one.shape} unlearned and "
                f"{other.shape} retrained; a score means nothing for unequal numbers"
            )
        if not all(np.isfinite(table).all() for table in tables.values()):
            raise InputError("expected finite scores of every model, got NaN or infinity; a model has diverged")
        names = [f"{part}_{side}" for part in ("retain", "test") for side in _SIDES]
        shares = {name: column(getattr(self, name), name) for name in names}
        for name, values in shares.items():
            if values.shape != (len(one),) or not ((values >= 0) & (values <= 1)).all():
                raise InputError(f"{name}: expected {len(one)} accuracies in [0, 1], one a model, got {values}")
        for name, array in {**tables, **shares}.items():
            object.__setattr__(self, name, array)

    def to_bytes(self) -> bytes:
        """A safetensors file that holds the hash of its content."""
        return arrays_to_bytes({name: getattr(self, name) for name in self.__dataclass_fields__}, "population")

    @classmethod
    def from_bytes(cls, content: bytes) -> Population:
        """What `to_bytes` wrote.

        Raises:
            CorruptFileError: where the bytes are damaged or something else.
        """
        return cls(**arrays_from_bytes(content, "population"))

    def save(self, path: str | Path) -> None:
        """Write `to_bytes` to a file, which is there whole or not at all."""
        write_bytes(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Population:
        """What `save` wrote; see `from_bytes`."""
        return cls.from_bytes(Path(path).read_bytes())


@dataclass(frozen=True, eq=False)
class Quality:
    """Forgetting quality of N unlearned models; only scores of the same N may be compared.

    Attributes:
        score: points * retain_ratio * test_ratio, at least 0; about as high as two sets of retrained models get
            (`null_quality`) is the best there is.
        low: of the interval for other forget samples; it holds the models as they are.
        high: of that interval.
        points: mean points of the forget samples, in [0, 1].
        epsilons: privacy loss of each forget sample ``(forget samples,)``, nats, in [0, 50].
        lower_bounds: what is certain of them at 95 % each, ``(forget samples,)``, nats.
        n: number of models on each side.
        cap: ln(n - 1), about the greatest finite epsilon that n models can show, nats.
        retain_ratio: mean accuracy on the retain set over that of the retrained models.
        test_ratio: the same on the test set.
    """

    score: float
    low: float
    high: float
    points: float
    epsilons: Array
    lower_bounds: Array
    n: int
    cap: float
    retain_ratio: float
    test_ratio: float

    def __lt__(self, other: Quality) -> bool:
        return self.score < self._comparable(other)

    def __gt__(self, other: Quality) -> bool:
        return self.score > self._comparable(other)

    def __le__(self, other: Quality) -> bool:
        return self.score <= self._comparable(other)

    def __ge__(self, other: Quality) -> bool:
        return self.score >= self._comparable(other)

    def __sub__(self, other: Quality) -> float:
        return self.score - self._comparable(other)

    def _comparable(self, other: Quality) -> float:
        """The other's score, if it rests on as many models."""
        if not isinstance(other, Quality):
            raise InputError(f"expected another forgetting quality to compare with, got {other!r}")
        if other.n != self.n:
            raise InputError(
                f"expected scores of the same number of models, got {self.n} (cap {self.cap:.2f}) and {other.n} "
                f"(cap {other.cap:.2f}); train as many models on both sides"
            )
        return other.score


def forgetting_quality(population: Population, *, resamples: int = 1000, seed: int = 0) -> Quality:
    """The score of the NeurIPS 2023 unlearning challenge.

    For each forget sample every decision rule of two families tells unlearned from retrained models by `phi`, with
    a share FPR of false positives and FNR of false negatives: "at least t" for the group with the greater median,
    "from l to r" for the group with the smaller range w (r within 2 of that group's greatest value, r - l within 2
    of w). Its privacy loss is max(0, ln(1 - delta - FPR) - ln FNR, ln(1 - delta - FNR) - ln FPR) with delta = 1e-5;
    infinite where both are 0, and discarded where exactly one is. The sample's epsilon is the greatest, at most 50;
    it is 50 where one range is below 1 % of the other. A sample earns 2^-k points for epsilon in [k / 2, (k + 1) / 2)
    below ceil(ln(N - 1)), and none above. The score is the mean of the points times the ratios of mean accuracies,
    unlearned to retrained, on retain and test set.

    The released code tries 100 thresholds a unit on a grid whose memory grows with their square, runs on a GPU
    alone, and stops at an assertion on an array; here the values are sorted once and every rule that differs on them
    is tried, which is the limit of an ever finer grid. Outputs that are one and the same constant on both sides have
    epsilon 0.

    Args:
        population: at least 64 models on each side.
        resamples: of the bootstrap over forget samples, at least 2.
        seed: of the bootstrap.

    Raises:
        InputError: fewer models.

    Source: Triantafillou et al. 2024, arXiv 2406.09073, and the organisers' released metric.
    """
    models, samples = population.unlearned.shape
    if models < LEAST_MODELS or samples < 1 or resamples < 2:
        raise InputError(
            f"expected at least {LEAST_MODELS} unlearned and as many retrained models, a forget sample and two "
            f"resamples, got {models}, {samples} and {resamples}; train more models"
        )
    pairs = list(zip(population.unlearned.T, population.retrained.T, strict=True))
    epsilons = np.array([_epsilon(*pair) for pair in pairs])
    bounds = np.array([lower_bound(*pair) for pair in pairs])
    retain, test = (_ratio(population, part) for part in ("retain", "test"))
    earned = points(epsilons, models)
    low, high = _interval(earned, resamples, np.random.default_rng(seed))
    factor, value = retain * test, float(earned.mean())
    cap = float(np.log(models - 1))
    return Quality(value * factor, low * factor, high * factor, value, epsilons, bounds, models, cap, retain, test)


def null_quality(population: Population, *, draws: int = 20, seed: int = 0) -> Bounds:
    """What forgetting that cannot be told from retraining scores with as many models: the aim of `forgetting_quality`.

    Both sides' models are mixed and dealt out anew; the two new sides differ by chance alone. Accuracies count as
    equal.

    Args:
        population: at least 64 models on each side.
        draws: how often they are dealt out.
        seed: of the dealing.

    Returns:
        Mean, least and greatest score.
    """
    models = len(population.unlearned)
    if models < LEAST_MODELS or draws < 1:
        raise InputError(f"expected at least {LEAST_MODELS} models a side and one draw, got {models} and {draws}")
    both, generator = np.concatenate([population.unlearned, population.retrained]), np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        dealt = both[generator.permutation(len(both))]
        pairs = zip(dealt[:models].T, dealt[models:].T, strict=True)
        found.append(float(points(np.array([_epsilon(*pair) for pair in pairs]), models).mean()))
    return Bounds(float(np.mean(found)), min(found), max(found))


def points(epsilons: Values, models: int) -> Array:
    """Points of samples with such an epsilon: 1, 1/2, 1/4, ... a bucket of width 1/2, none from ceil(ln(N - 1)) on.

    Args:
        epsilons: ``(samples,)``, nats.
        models: N, on each side.

    Returns:
        ``(samples,)``, in [0, 1].
    """
    values = column(epsilons, "epsilons")
    earned: Array = np.where(values < np.ceil(np.log(models - 1)), 0.5 ** np.floor(values / BUCKET), 0.0)
    return earned


def _epsilon(unlearned: Array, retrained: Array) -> float:
    """The greatest epsilon of all rules on one sample."""
    rules = family(unlearned, retrained)
    if rules is None:
        return LARGEST
    found = epsilon(*rules.errors(unlearned, retrained), len(unlearned))
    # Rules are all discarded for one constant in common alone: any other groups have a window with both errors.
    return 0.0 if np.isnan(found) else min(found, LARGEST)


def _ratio(population: Population, part: str) -> float:
    """Mean accuracy of the unlearned models over that of the retrained ones."""
    one, other = (float(getattr(population, f"{part}_{side}").mean()) for side in _SIDES)
    if not other > 0:
        raise InputError(f"expected retrained models of an accuracy above 0 on the {part} set, got {other}")
    return one / other


def _interval(earned: Array, resamples: int, generator: np.random.Generator) -> tuple[float, float]:
    """The percentile interval of a mean over samples."""
    means = earned[generator.integers(earned.size, size=(resamples, earned.size))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
