"""`Corruption`: training samples spoilt on purpose, so that a request to forget them has a visible aim."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qunlearn.data.checks import check_seed
from qunlearn.data.dataset import Dataset
from qunlearn.data.strata import stratified_sample, stream
from qunlearn.errors import InputError, UnknownNameError

_FLIP_STREAM, _NOISE_STREAM, _SWAP_STREAM = 2, 3, 4  # 0 and 1 draw the split and the request


@dataclass(frozen=True)
class Corruption:
    """Wrong labels, meaningless inputs, or two classes mixed up, in shares of the train set.

    The three strike different samples: flips are drawn first, by class shares, noise among the rest, swaps among
    what is left of the two classes. Each has its own random stream, so that asking for one more kind never moves
    the flips. Numbers of samples are shares rounded to whole.

    >>> Corruption(label_flips=0.3).to_config()
    {'label_flips': 0.3}

    Attributes:
        label_flips: share of the train set, in [0, 1), whose label becomes one of the other classes, each as likely.
        feature_noise: share of the train set, in [0, 1), whose input becomes a Gaussian vector, scaled to the mean
            Euclidean norm of the train set's inputs (in the source, where all inputs have norm 1, to norm 1).
        swap: (a, b, share): that share, in (0, 1), of the samples of class a get the label b, and of class b the
            label a (interclass confusion); classes by number or name.
        seed: of the choice and the noise; None: the seed of the split.

    Source: Chen and Zhang 2025, arXiv 2508.02422 (flips and noise; there two classes, as many flips in each);
    Goel et al. 2022, arXiv 2201.06640 (interclass confusion).
    """

    label_flips: float = 0.0
    feature_noise: float = 0.0
    swap: tuple[int | str, int | str, float] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Hold the ranges of the class."""
        for name in ("label_flips", "feature_noise"):
            object.__setattr__(self, name, _share(name, getattr(self, name)))
        if self.seed is not None:
            object.__setattr__(self, "seed", check_seed(self.seed))
        if self.swap is not None:
            object.__setattr__(self, "swap", _swap(self.swap))

    @classmethod
    def of(cls, given: Corruption | Mapping[str, Any] | None) -> Corruption:
        """A corruption as it is, or from the mapping that `to_config` wrote; None is none.

        Raises:
            UnknownNameError: for a key that is none of the class's.
            InputError: for a share out of range, or something else than a mapping.
        """
        if given is None or isinstance(given, Corruption):
            return given or cls()
        if not isinstance(given, Mapping):
            raise InputError(f"expected a Corruption or a mapping of its attributes, got {given!r}")
        known = [item.name for item in dataclasses.fields(cls)]
        for key in given:
            if key not in known:
                raise UnknownNameError("attribute of a corruption", key, known)
        return cls(**given)

    def to_config(self) -> dict[str, Any]:
        """What differs from no corruption, as JSON or TOML holds it."""
        swap = {"swap": list(self.swap)} if self.swap is not None else {}
        seed = {"seed": self.seed} if self.seed is not None else {}
        shares = {name: getattr(self, name) for name in ("label_flips", "feature_noise")}
        return {name: share for name, share in shares.items() if share} | swap | seed

    def __bool__(self) -> bool:
        """Whether anything is corrupted at all."""
        return bool(self.label_flips or self.feature_noise or self.swap)

    def apply(self, train: Dataset, seed: int = 0) -> tuple[Dataset, Tensor]:
        """The train set with its corrupted samples, and their positions.

        Args:
            train: the clean train set, scaled as the model will see it.
            seed: of the split; counts where the corruption has no seed of its own.

        Returns:
            A data set of the same ids in the same order, and sorted int64 positions ``(corrupted samples,)``.

        Raises:
            InputError: a share that is less than half a sample, more than is left, or of a class that is not there.
        """
        seed = seed if self.seed is None else self.seed
        x, y = train.x.clone(), train.y.clone()
        free = torch.ones(len(train), dtype=torch.bool)
        if self.label_flips:
            flipped = _draw(train, free, "label_flips", self.label_flips, rng := stream(seed, _FLIP_STREAM))
            y[flipped] = _other_labels(train, flipped, rng)
        if self.feature_noise:
            noisy = _draw(train, free, "feature_noise", self.feature_noise, rng := stream(seed, _NOISE_STREAM))
            x[noisy] = _noise(train.x, len(noisy), rng)
        if self.swap:
            for chosen, label in _swapped(train, free, self.swap, stream(seed, _SWAP_STREAM)):
                y[chosen] = label
        return Dataset(x, y, train.ids, train.classes, train.name), torch.nonzero(~free).flatten()


def _draw(train: Dataset, free: Tensor, name: str, share: float, rng: np.random.RandomState) -> Tensor:
    """Positions of a share of the train set among those that are free, by class shares; they are free no longer."""
    count, left = round(share * len(train)), torch.nonzero(free).flatten()
    if not 1 <= count <= len(left):
        raise InputError(
            f"{name}: expected a share of 1 to {len(left)} of the {len(train)} training samples of {train.name}, "
            f"got {share} ({count} samples); change it"
        )
    chosen = left[stratified_sample(train.y.cpu()[left], count, rng)]
    free[chosen] = False
    return chosen


def _other_labels(train: Dataset, chosen: Tensor, rng: np.random.RandomState) -> Tensor:
    """For each chosen sample one of the classes of the train set that it does not have, each as likely."""
    present = torch.unique(train.y.cpu())
    if len(present) < 2:
        raise InputError(f"label_flips: expected two classes or more in {train.name}, got {len(present)}")
    own = torch.searchsorted(present, train.y.cpu()[chosen])
    steps = torch.from_numpy(rng.randint(1, len(present), size=len(chosen)).astype(np.int64))
    labels: Tensor = present[(own + steps) % len(present)]
    return labels.to(train.y.device)


def _noise(x: Tensor, count: int, rng: np.random.RandomState) -> Tensor:
    """Gaussian vectors ``(count, ...)`` of the mean norm of the inputs ``(samples, ...)``."""
    length = float(x.double().flatten(1).norm(dim=1).mean())
    drawn = torch.from_numpy(rng.standard_normal((count, x[0].numel())))
    drawn *= length / drawn.norm(dim=1, keepdim=True)
    return drawn.reshape(count, *x.shape[1:]).to(x)


def _swapped(
    train: Dataset, free: Tensor, swap: tuple[int | str, int | str, float], rng: np.random.RandomState
) -> list[tuple[Tensor, int]]:
    """The samples of each of the two classes that get the label of the other, with that label."""
    numbers = [_class_number(train, which) for which in swap[:2]]
    if numbers[0] == numbers[1]:
        raise InputError(f"swap: expected two classes of {train.name}, got {swap[0]!r} twice")
    found = []
    for number, other in (numbers, numbers[::-1]):
        members = torch.eq(train.y.cpu(), number)
        count, left = round(swap[2] * int(members.sum())), torch.nonzero(members & free).flatten()
        if not 1 <= count <= len(left):
            raise InputError(
                f"swap: expected a share of 1 to {len(left)} of the {int(members.sum())} training samples of class "
                f"{train.classes[number]!r}, got {swap[2]} ({count} samples); change it"
            )
        chosen = torch.sort(left[torch.from_numpy(rng.permutation(len(left))[:count])]).values
        free[chosen] = False
        found.append((chosen, other))
    return found


def _class_number(train: Dataset, which: int | str) -> int:
    if isinstance(which, str):
        if which not in train.classes:
            raise UnknownNameError(f"class of {train.name}", which, train.classes)
        return train.classes.index(which)
    if not 0 <= which < len(train.classes):
        raise InputError(f"swap: expected classes of {train.name} from 0 to {len(train.classes) - 1}, got {which}")
    return which


def _share(name: str, value: Any) -> float:
    """A number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= float(value) < 1:
        raise InputError(f"{name}: expected a share of the train set from 0 to below 1, got {value!r}")
    return float(value)


def _swap(given: Any) -> tuple[int | str, int | str, float]:
    """(a, b, share), checked."""
    if not isinstance(given, tuple | list) or len(given) != 3:
        raise InputError(f"swap: expected (class, class, share), got {given!r}")
    first, second, share = given
    for which in (first, second):
        if isinstance(which, bool) or not isinstance(which, int | np.integer | str):
            raise InputError(f"swap: expected class numbers or names, got {which!r}")
    if not _share("swap", share) > 0:
        raise InputError(f"swap: expected a share above 0, got {share!r}; leave swap out to swap nothing")
    one, other = (which if isinstance(which, str) else int(which) for which in (first, second))
    return one, other, float(share)
