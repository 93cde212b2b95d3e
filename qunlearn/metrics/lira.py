"""Likelihood-ratio attacks with shadow models: on trained models (LiRA) and on unlearned ones (U-LiRA)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qunlearn.errors import InputError
from qunlearn.files import write_bytes
from qunlearn.metrics.arrays import Array, Labels, Values, labels, rows
from qunlearn.metrics.attacks import log_odds
from qunlearn.metrics.keeping import arrays_from_bytes, arrays_to_bytes

OWN_VARIANCE = 64  # from so many shadow models on each sample has a variance of its own
LEAST_MODELS = 4
LEAST_VARIANCE = 1e-12  # nats squared: outputs that never vary still have a density

Mask = npt.NDArray[np.bool_]


def phi(logits: Values, y: Values) -> Array:
    """Logit-scaled confidence in the label: ln p_y - ln(1 - p_y) = z_y - ln sum_(k != y) exp z_k.

    Computed from the logits without a probability in between, so that no certainty rounds it off.

    Args:
        logits: ``(samples, classes)``.
        y: class numbers ``(samples,)``.

    Returns:
        ``(samples,)``, nats; infinite only where logits are.

    Source: Carlini et al. 2022, arXiv 2112.03570 (section VI A), who add 1e-45 to both probabilities instead.
    """
    odds = log_odds(logits)
    numbers = labels(y, len(odds))
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < odds.shape[1]):
        raise InputError(f"labels: expected 0 to {odds.shape[1] - 1}, got {numbers.min()} to {numbers.max()}")
    own: Array = odds[np.arange(numbers.size), numbers]
    return own


@dataclass(frozen=True, eq=False)
class Shadows:
    """What shadow models say about a pool of samples: the forget set and class-matched samples never trained on.

    Shadow i is trained on the retain set and a random half of the pool, which the method then unlearns. A sample of
    that half lives in the world "trained and unlearned", any other in the world "never seen"; all else is alike.

    Attributes:
        scores: `phi` of each sample under its own label by the unlearned shadow, ``(N, samples)``, nats.
        inside: whether the shadow was trained on the sample, ``(N, samples)``.
        trained: the same as `scores` before unlearning, ``(N, samples)``.
        ids: of the samples, ``(samples,)``.
        labels: their class numbers, ``(samples,)``.
        member: whether it is of the forget set, ``(samples,)``.
        retrained: `phi` by models that saw no sample of the pool, ``(M, samples)``; M may be 0.
    """

    scores: Array
    inside: Mask
    trained: Array
    ids: Labels
    labels: Labels
    member: Mask
    retrained: Array | None = None

    def __post_init__(self) -> None:
        """Check shapes and numbers."""
        scores, trained = rows(self.scores, "scores"), rows(self.trained, "trained")
        pool = scores.shape[1]
        retrained = np.empty((0, pool)) if self.retrained is None else rows(self.retrained, "retrained")
        inside, member = np.asarray(self.inside, dtype=bool), np.asarray(self.member, dtype=bool)
        if not (inside.shape == trained.shape == scores.shape) or retrained.shape[1] != pool or member.shape != (pool,):
            raise InputError(
                f"expected scores, inside and trained of one shape (shadows, samples), retrained (models, samples) and "
                f"member (samples,), got {scores.shape}, {inside.shape}, {trained.shape}, {retrained.shape} and "
                f"{member.shape}"
            )
        if not all(np.isfinite(part).all() for part in (scores, trained, retrained)):
            raise InputError("expected finite scores of every shadow model, got NaN or infinity; a model has diverged")
        numbers = {name: labels(getattr(self, name), pool, name) for name in ("ids", "labels")}
        found = {"scores": scores, "inside": inside, "trained": trained, "member": member, "retrained": retrained}
        for name, array in {**found, **numbers}.items():
            object.__setattr__(self, name, array)

    def to_bytes(self) -> bytes:
        """A safetensors file that holds the hash of its content."""
        return arrays_to_bytes({name: getattr(self, name) for name in self.__dataclass_fields__}, "shadows")

    @classmethod
    def from_bytes(cls, content: bytes) -> Shadows:
        """What `to_bytes` wrote.

        Raises:
            CorruptFileError: where the bytes are damaged or something else.
        """
        return cls(**arrays_from_bytes(content, "shadows"))

    def save(self, path: str | Path) -> None:
        """Write `to_bytes` to a file, which is there whole or not at all."""
        write_bytes(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Shadows:
        """What `save` wrote; see `from_bytes`."""
        return cls.from_bytes(Path(path).read_bytes())


class Worlds(NamedTuple):
    """A Gaussian a sample and world, from all shadow models or, in rows, from all but one.

    Attributes:
        inside: mean of `phi` where the sample was trained on, ``(samples,)`` or ``(N, samples)``; NaN for fewer than
            two models.
        outside: where it was not, of the same shape.
        variance_inside: of `phi` in the first world, broadcast against it.
        variance_outside: in the second.
    """

    inside: Array
    outside: Array
    variance_inside: Array
    variance_outside: Array

    def ratio(self, scores: Array) -> Array:
        """The logarithm of the likelihood ratio, inside over outside, of `phi`; NaN where a world is not known."""
        first = np.square(scores - self.inside) / self.variance_inside + np.log(self.variance_inside)
        second = np.square(scores - self.outside) / self.variance_outside + np.log(self.variance_outside)
        result: Array = (second - first) / 2
        return result


def lira_scores(scores: Values, inside: npt.ArrayLike) -> Array:
    """Likelihood ratios of every shadow model's outputs, each by an attacker who has all the other shadow models.

    ln N(phi; m_in, v_in) - ln N(phi; m_out, v_out), with the means m of a sample over the other models in either
    world. The variances v are the sample's own for 64 shadow models or more; for fewer they are the mean of all
    samples' variances about their own means, one a world (weighed by degrees of freedom), since a variance from a few
    values would wreck the ratio. Positive speaks for "inside", and 0 is where a fair attacker decides.

    Where shadow models come in pairs that share out the pool, the attacker of one does without the other as well:
    with it, the worlds of the rest would be of unlike sizes, which pulls the area below one half where nothing
    leaks. Six models are the fewest of which anything is said then.

    Args:
        scores: `phi` ``(N, samples)`` of N >= 4 shadow models, nats.
        inside: whether the model was trained on the sample, ``(N, samples)``.

    Returns:
        ``(N, samples)``, nats; NaN where fewer than two other models are in one of the worlds.

    Source: Carlini et al. 2022, arXiv 2112.03570 (online attack); on unlearned models Hayes et al. 2024,
    arXiv 2403.01218 (U-LiRA).
    """
    values, mask = _checked(scores, inside)
    return _left_out(values, mask).ratio(values)


def lira_attack(shadows: Values, inside: npt.ArrayLike, scores: Values) -> Array:
    """Likelihood ratios of other models' outputs (the audited one, retrained ones), from all shadow models.

    Args:
        shadows: `phi` ``(N, samples)`` of the shadow models, nats.
        inside: whether the shadow model was trained on the sample, ``(N, samples)``.
        scores: `phi` ``(models, samples)`` of the models under attack, on the same samples.

    Returns:
        ``(models, samples)``, nats; NaN where fewer than two shadow models are in one of the worlds.
    """
    values, mask = _checked(shadows, inside)
    attacked = rows(scores, "scores")
    if attacked.shape[1] != values.shape[1]:
        raise InputError(f"expected scores of {values.shape[1]} samples, got {attacked.shape[1]}; align them by id")
    parts = [_moments(values, side) for side in (mask, ~mask)]
    variances = [_variance(squares, counts, len(values)) for _, squares, counts in parts]
    return Worlds(parts[0][0], parts[1][0], *variances).ratio(attacked)


def _checked(scores: Values, inside: npt.ArrayLike) -> tuple[Array, Mask]:
    values, mask = rows(scores, "scores"), np.asarray(inside, dtype=bool)
    if values.shape != mask.shape or len(values) < LEAST_MODELS:
        raise InputError(
            f"expected scores and inside of one shape, at least {LEAST_MODELS} shadow models, "
            f"got {values.shape} and {mask.shape}; train more shadow models"
        )
    if not np.isfinite(values).all():
        raise InputError("expected finite scores of every shadow model, got NaN or infinity; a model has diverged")
    return values, mask


def _moments(values: Array, side: Mask) -> tuple[Array, Array, Array]:
    """By sample the mean of one world, the squares about it, and how many; NaN means for fewer than two."""
    counts = side.sum(axis=0).astype(np.float64)
    mean = np.where(side, values, 0.0).sum(axis=0) / np.where(counts > 1, counts, np.nan)
    squares = np.square(np.where(side, values - mean, 0.0)).sum(axis=0)
    return mean, squares, counts


def _left_out(values: Array, mask: Mask) -> Worlds:
    """The worlds of each model's attacker: what the model and its complement add is taken out again."""
    partner = complements(mask)
    beside = (partner >= 0)[:, None]
    means, variances = [], []
    for side in (mask, ~mask):
        mean, squares, counts = _moments(values, side)
        own = np.where(side, values - mean, 0.0)
        other = np.where(beside, own[partner], 0.0)
        left = counts - side - (side[partner] & beside)
        taken = own + other
        with np.errstate(divide="ignore", invalid="ignore"):
            means.append(np.where(left > 1, mean - taken / left, np.nan))
            rest = squares - np.square(own) - np.square(other) - np.where(left > 1, np.square(taken) / left, 0.0)
        variances.append(_variance(np.maximum(rest, 0.0), left, len(values)))
    return Worlds(means[0], means[1], variances[0], variances[1])


def complements(mask: Mask) -> Labels:
    """For every shadow model the first that was trained on the other samples (all but one at most), or -1.

    Args:
        mask: whether the model was trained on the sample, ``(N, samples)``.
    """
    inside = mask.astype(np.float64)
    both, neither = inside @ inside.T, (1 - inside) @ (1 - inside).T
    found = (both == 0) & (neither <= 1)
    np.fill_diagonal(found, False)
    return np.where(found.any(axis=1), found.argmax(axis=1), -1)


def _variance(squares: Array, counts: Array, models: int) -> Array:
    """Variances from sums of squares ``(..., samples)``: the samples' own, or one in common."""
    known = counts > 1
    if models >= OWN_VARIANCE:
        own: Array = np.maximum(squares / np.where(known, counts - 1, np.nan), LEAST_VARIANCE)
        return own
    total = np.where(known, squares, 0.0).sum(axis=-1, keepdims=True)
    freedom = np.where(known, counts - 1, 0.0).sum(axis=-1, keepdims=True)
    common: Array = np.maximum(total / np.maximum(freedom, 1.0), LEAST_VARIANCE)
    return common
