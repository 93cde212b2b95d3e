"""Protocols: how a data set and a forget request become a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from typing import Protocol as TypingProtocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qunlearn.data.corruption import Corruption
from qunlearn.data.dataset import Dataset
from qunlearn.data.request import ForgetRequest
from qunlearn.data.scaling import PUBLISHED_INTERVAL, SAFE_INTERVAL, MinMaxScaling, interval
from qunlearn.data.split import Split
from qunlearn.data.strata import partition, stream
from qunlearn.errors import InputError, UnknownNameError, UnsupportedError

_Positions = NDArray[np.int64]
_PARTITION_STREAM = 0


class Protocol(TypingProtocol):
    """What builds a split. `revision` counts the changes that give other splits from the same seed."""

    name: ClassVar[str]
    revision: ClassVar[int]

    def build(self, data: Dataset, request: ForgetRequest, seed: int = 0) -> Split:
        """The split of `data` for `request`."""
        ...


@dataclass(frozen=True)
class SoundProtocol:
    """Disjoint, stratified train, validation, test and holdout sets that depend on data and seed alone.

    The request only cuts the train set in two, so that an original model serves every request. The scaling is
    fitted on the whole train set, forget set included, and is part of the data from then on: retrained models
    see the same inputs as the original, and what differs between them is the training alone. Values outside
    the range of the train set are clipped.

    A corruption spoils part of the train set and nothing else: validation, test and holdout set stay clean. The
    scaling is fitted to the clean train set and applied first, so that the same data with and without corruption
    are scaled alike, and noise is drawn in the inputs as the model sees them. Requests of every kind work on the
    corrupted train set (a class is then the samples that carry its label, right or wrong).

    Attributes:
        scale: ``"auto"`` (tables to `SAFE_INTERVAL`, images untouched), ``"none"``, or (low, high) in radians.
        shares: sizes of train, validation, test and holdout set, in per cent.
        corruption: what is spoilt in the train set: a `Corruption`, or a mapping of its attributes.
    """

    name: ClassVar[str] = "sound"
    revision: ClassVar[int] = 1

    scale: str | tuple[float, float] = "auto"
    shares: tuple[int, int, int, int] = (60, 10, 15, 15)
    corruption: Corruption | Mapping[str, Any] | None = None

    def build(self, data: Dataset, request: ForgetRequest, seed: int = 0) -> Split:
        """The split; see the class.

        Raises:
            InputError: a class with too few samples for four sets, or a request that cannot be met.
        """
        request.class_number(data)  # a class that is not there is refused first
        parts = self._partition(data, seed)
        scaled, scaling = _scale(data, interval(self.scale, SAFE_INTERVAL, data.x.shape), parts[0], clip=True)
        train, validation, test, holdout = (scaled.select(part) for part in parts)
        train, uncorrupted = _corrupt(train, Corruption.of(self.corruption), seed)
        chosen = request.select(train, seed, corrupted=None if uncorrupted is None else uncorrupted.ids)
        kept = torch.ones(len(train), dtype=torch.bool)
        kept[chosen] = False
        return Split(
            train=train,
            forget=train.select(chosen),
            retain=train.select(kept),
            validation=validation,
            test=test,
            holdout=holdout,
            original=train,
            request=request,
            protocol=self.name,
            seed=seed,
            scaling=scaling and {**scaling, "fitted_on": "train"},
            uncorrupted=uncorrupted,
        )

    def _partition(self, data: Dataset, seed: int) -> list[Tensor]:
        """Positions of train, validation, test and holdout set, every class in each."""
        if len(self.shares) != 4 or any(share <= 0 for share in self.shares) or sum(self.shares) != 100:
            raise InputError(f"expected four shares in per cent that sum to 100, got {self.shares}")
        y = data.y.cpu()
        parts = partition(y, self.shares, stream(seed, _PARTITION_STREAM))
        for number in torch.unique(y).tolist():
            counts = [int((y[part] == number).sum()) for part in parts]
            if 0 in counts:
                raise InputError(
                    f"expected enough samples in every class for train, validation, test and holdout set, "
                    f"got {sum(counts)} "
                    f"of class {data.classes[number]!r} in {data.name} (shared out {counts}); "
                    "add samples or drop the class"
                )
        return parts


@dataclass(frozen=True)
class PublishedProtocol:
    """The protocol of Crivoi and Ionescu 2025, flaws included, so that their tables can be compared.

    A stratified 80/20 split into train and test set. A request for a fraction splits the train part once more;
    a request for a class takes all its training samples. Test set and validation set are one; the non-members
    of membership attacks (holdout) come from the subset-retain set, the retain set of the request for
    `subset_fraction`, and so are members. Tables are scaled to [-pi, pi] over all rows, where minimum and
    maximum of a feature give the same state. On iris the original is trained on the subset-retain set.
    Source: released code of arXiv 2512.19253.

    Attributes:
        scale: ``"auto"`` (tables to [-pi, pi], images untouched), ``"none"``, or (low, high) in radians.
        test_fraction: of all samples, for the test set.
        subset_fraction: of the train part, forgotten in the subset scenario; a request for a fraction overrides it.
        original_trains_on: ``"train"``, ``"subset-retain"``, or ``"auto"`` (the latter on iris, the former else).
    """

    name: ClassVar[str] = "published"
    revision: ClassVar[int] = 1

    scale: str | tuple[float, float] = "auto"
    test_fraction: float = 0.2
    subset_fraction: float = 0.02
    original_trains_on: str = "auto"

    def build(self, data: Dataset, request: ForgetRequest, seed: int = 0) -> Split:
        """The split; see the class. Seed 0 is the published one.

        Raises:
            UnsupportedError: the request is neither for a fraction nor for a class.
            InputError: too few samples to stratify, or a class that is not there.
        """
        if request.kind not in ("fraction", "class"):
            raise UnsupportedError(
                f"the published protocol takes a fraction or a class, not {request.kind}; use 'sound'"
            )
        everything = np.arange(len(data))
        scaled, scaling = _scale(
            data, interval(self.scale, PUBLISHED_INTERVAL, data.x.shape), torch.from_numpy(everything), clip=False
        )
        train, test = _stratified(data, everything, self.test_fraction, seed)
        fraction = request.value if isinstance(request.value, float) else self.subset_fraction
        subset_retain, subset_forget = _stratified(data, train, fraction, seed)
        retain, forget = (
            (subset_retain, subset_forget) if request.kind == "fraction" else _by_class(data, train, request)
        )
        same = "retain" if request.kind == "fraction" else "subset-retain"
        trains_on = same if self._subset_trains(data) else "train"
        return Split(
            train=scaled.select(train),
            forget=scaled.select(forget),
            retain=scaled.select(retain),
            validation=scaled.select(test),
            test=scaled.select(test),
            holdout=scaled.select(subset_retain),
            original=scaled.select(train if trains_on == "train" else subset_retain),
            request=request,
            protocol=self.name,
            seed=seed,
            original_trains_on=trains_on,
            aliases={"validation": "test", "holdout": same},
            scaling=scaling and {**scaling, "fitted_on": "all"},
        )

    def _subset_trains(self, data: Dataset) -> bool:
        """Whether the subset-retain set trains the original."""
        known = ("auto", "train", "subset-retain")
        if self.original_trains_on not in known:
            raise UnknownNameError("set that trains the original", self.original_trains_on, known)
        return self.original_trains_on == "subset-retain" or (self.original_trains_on == "auto" and data.name == "iris")


PROTOCOLS: dict[str, type[SoundProtocol] | type[PublishedProtocol]] = {
    cls.name: cls for cls in (SoundProtocol, PublishedProtocol)
}


def get_protocol(protocol: str | Protocol, **options: object) -> Protocol:
    """A protocol by name with its options; a protocol object, which has its own, comes back as it is.

    Raises:
        UnknownNameError: no protocol, or no option, of that name.
        InputError: options beside a protocol object.
        UnsupportedError: a corruption in the published protocol.
    """
    if not isinstance(protocol, str):
        if any(value not in ("auto", None) for value in options.values()):
            raise InputError(f"expected no options beside a protocol object, got {options}; give them to the object")
        return protocol
    if protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", protocol, PROTOCOLS)
    known = [item.name for item in dataclasses.fields(PROTOCOLS[protocol])]
    if "corruption" not in known and not Corruption.of(options.get("corruption")):  # type: ignore[arg-type]
        options = {name: value for name, value in options.items() if name != "corruption"}
    for option in options:
        if option == "corruption" and option not in known:
            raise UnsupportedError(
                f"the {protocol} protocol takes no corruption: it repeats an experiment on clean data, whose tables "
                "it is compared with; use 'sound'"
            )
        if option not in known:
            raise UnknownNameError(f"option of the protocol {protocol!r}", option, known)
    return PROTOCOLS[protocol](**options)  # type: ignore[arg-type]


def _corrupt(train: Dataset, corruption: Corruption, seed: int) -> tuple[Dataset, Dataset | None]:
    """The corrupted train set, and the samples that were corrupted as they were; as it is where nothing is asked."""
    if not corruption:
        return train, None
    corrupted, positions = corruption.apply(train, seed)
    return corrupted, train.select(positions)


def _scale(
    data: Dataset, bounds: tuple[float, float] | None, fitted_on: Tensor, *, clip: bool
) -> tuple[Dataset, dict[str, Any] | None]:
    """The data set scaled to the interval, fitted at some positions; and the scaling for the record."""
    if bounds is None:
        return data, None
    scaling = MinMaxScaling.fit(data.x[fitted_on.to(data.x.device)], *bounds, clip=clip)
    return data.with_x(scaling.apply(data.x)), scaling.to_config()


def _stratified(data: Dataset, positions: _Positions, fraction: float, seed: int) -> tuple[_Positions, _Positions]:
    """Positions that stay and positions taken out, by scikit-learn's stratified split."""
    from sklearn.model_selection import train_test_split

    labels = data.y.cpu().numpy()[positions]
    try:
        stay, taken = train_test_split(positions, test_size=fraction, stratify=labels, random_state=seed)
    except ValueError as error:
        raise InputError(f"expected enough samples in every class of {data.name} to stratify, got: {error}") from None
    return stay, taken


def _by_class(data: Dataset, train: _Positions, request: ForgetRequest) -> tuple[_Positions, _Positions]:
    """Training positions outside and inside the class asked for, in the order of the train set."""
    inside = data.y.cpu().numpy()[train] == request.class_number(data)
    if not 0 < inside.sum() < len(train):
        raise InputError(
            f"expected some but not all training samples of {data.name} in {request.label}, got {inside.sum()}"
        )
    return train[~inside], train[inside]
