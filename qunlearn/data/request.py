"""`ForgetRequest`: which training samples must go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from qunlearn.data.checks import Array, as_ids, some
from qunlearn.data.dataset import Dataset
from qunlearn.data.strata import stratified_sample, stream
from qunlearn.errors import InputError, UnknownNameError, UnsupportedError

Kind = Literal["ids", "class", "fraction", "predicate", "corrupted"]
_FRACTION_STREAM = 1  # the split itself draws from stream 0 (protocols.py)


@dataclass(frozen=True)
class ForgetRequest:
    """Which training samples must go: by id, by class, a random fraction, a predicate, or all that are corrupted.

    Requests are equal, and hash alike, if they ask for the same; two predicates, if they are the same function.

    >>> ForgetRequest.of_fraction(0.05).label, ForgetRequest.of_class(0).to_config()
    ('5 %', {'class': 0})

    Attributes:
        kind: ``"ids"``, ``"class"``, ``"fraction"``, ``"predicate"`` or ``"corrupted"``.
        value: sorted ids, a class number or name, a fraction of the train set in (0, 1), the predicate's name, or
            True for the corrupted samples.
        predicate: the function of a predicate.
        vectorised: the predicate takes all samples at once.
    """

    kind: Kind
    value: tuple[int, ...] | int | str | float
    predicate: Callable[[Tensor, Any], Any] | None = None
    vectorised: bool = False

    @classmethod
    def of_ids(cls, ids: Array) -> ForgetRequest:
        """The samples with these ids, at least one; the order does not matter."""
        wanted = tuple(sorted(as_ids(ids, 0, "the forget request").tolist()))
        if not wanted:
            raise InputError("expected at least one id to forget, got none")
        return cls("ids", wanted)

    @classmethod
    def of_class(cls, which: int | str) -> ForgetRequest:
        """All training samples of a class, by its number (int) or its name (str)."""
        if isinstance(which, bool) or not isinstance(which, int | np.integer | str):
            raise InputError(f"expected a class number or name to forget, got {which!r}")
        return cls("class", which if isinstance(which, str) else int(which))  # NumPy integers become int

    @classmethod
    def of_fraction(cls, fraction: float) -> ForgetRequest:
        """A random fraction of the train set, stratified by class, drawn with the split's seed."""
        if isinstance(fraction, bool) or not isinstance(fraction, int | float | np.number):
            raise InputError(f"expected a fraction of the train set to forget, got {fraction!r}")
        if not 0 < float(fraction) < 1:
            extreme = {0.0: "nothing", 1.0: "everything"}.get(float(fraction), "more or less than there is")
            raise InputError(f"expected a fraction between 0 and 1 to forget, got {fraction} ({extreme})")
        return cls("fraction", float(fraction))

    @classmethod
    def where(
        cls, predicate: Callable[[Tensor, Any], Any], name: str | None = None, *, vectorised: bool = False
    ) -> ForgetRequest:
        """The training samples for which ``predicate(x_i, y_i)`` is true.

        Args:
            predicate: takes the features of one sample and its class number (int) and gives a bool; or, with
                `vectorised`, all features ``(samples, ...)`` and class numbers ``(samples,)`` and gives bools.
            name: what records call it; the function's own name by default.
            vectorised: call it once with all samples.
        """
        if not callable(predicate):
            raise InputError(f"expected a function of (x_i, y_i) as predicate, got {predicate!r}")
        return cls("predicate", name or str(getattr(predicate, "__name__", "predicate")), predicate, vectorised)

    @classmethod
    def of_corrupted(cls, which: bool = True) -> ForgetRequest:
        """Exactly the training samples that the split's `Corruption` spoilt."""
        if which is not True:
            raise InputError(f"expected corrupted = true to forget the corrupted samples, got {which!r}")
        return cls("corrupted", True)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ForgetRequest:
        """A request from a file: ``{class = 0}``, ``{fraction = 0.05}``, ``{ids = [1]}`` or ``{corrupted = true}``."""
        makers: dict[str, Callable[[Any], ForgetRequest]] = {
            "class": cls.of_class,
            "fraction": cls.of_fraction,
            "ids": cls.of_ids,
            "corrupted": cls.of_corrupted,
        }
        if not isinstance(config, Mapping) or len(config) != 1:
            raise InputError(f"expected a request with one of {', '.join(makers)}, got {config!r}")
        ((key, value),) = config.items()
        if key == "predicate":
            raise UnsupportedError("a predicate cannot come from a file; use ForgetRequest.where, or list the ids")
        if key not in makers:
            raise UnknownNameError("forget request", key, makers)
        return makers[key](value)

    def to_config(self) -> dict[str, Any]:
        """The request as JSON or TOML holds it; of a predicate, its name."""
        return {self.kind: list(self.value) if isinstance(self.value, tuple) else self.value}

    @property
    def label(self) -> str:
        """The request in a word or two, for tables: ``class 0``, ``5 %``, ``3 ids``, ``corrupted samples``."""
        if self.kind == "corrupted":
            return "corrupted samples"
        if isinstance(self.value, tuple):
            return f"{len(self.value)} id{'s' if len(self.value) > 1 else ''}"
        return f"{100 * self.value:g} %" if isinstance(self.value, float) else f"{self.kind} {self.value}"

    def class_number(self, data: Dataset) -> int | None:
        """The number in `data` of the class to forget; None if the request is not for a class.

        Raises:
            InputError: there is no such class.
        """
        if self.kind != "class":
            return None
        if isinstance(self.value, str):
            if self.value not in data.classes:
                raise UnknownNameError(f"class of {data.name}", self.value, data.classes)
            return data.classes.index(self.value)
        number = int(self.value)  # type: ignore[arg-type]
        if not 0 <= number < len(data.classes):
            raise InputError(
                f"expected a class of {data.name} from 0 to {len(data.classes) - 1} to forget, got {number}"
            )
        return number

    def select(self, train: Dataset, seed: int = 0, corrupted: Tensor | None = None) -> Tensor:
        """Positions in `train` of the samples to forget, sorted, int64 ``(forget samples,)``.

        Args:
            train: the train set, corrupted samples with their wrong labels and inputs.
            seed: of the split; draws a fraction.
            corrupted: the ids ``(corrupted samples,)`` that a request for the corrupted samples asks for.

        Raises:
            InputError: an id or class is not there, or nothing, or everything, would be forgotten.
        """
        choose: dict[str, Callable[[], Tensor]] = {
            "ids": lambda: self._by_ids(train),
            "class": lambda: self._by_class(train),
            "fraction": lambda: self._by_fraction(train, seed),
            "predicate": lambda: self._by_predicate(train),
            "corrupted": lambda: self._by_corruption(train, corrupted),
        }
        chosen = choose[self.kind]()
        if not 0 < len(chosen) < len(train):
            amount = "nothing" if len(chosen) == 0 else "everything"
            raise InputError(
                f"expected some but not all of the {len(train)} training samples of {train.name} to forget, "
                f"got {amount} ({self.label}); change the request"
            )
        return chosen

    def _by_ids(self, train: Dataset) -> Tensor:
        """The positions of the ids asked for."""
        wanted = torch.tensor(self.value, dtype=torch.int64)
        missing = wanted[~torch.isin(wanted, train.ids.cpu())]
        if len(missing):
            raise InputError(
                f"expected ids of training samples of {train.name}, got {len(missing)} that are not among them: "
                f"{some(missing.tolist())}; choose from split.train.ids"
            )
        return torch.nonzero(torch.isin(train.ids.cpu(), wanted)).flatten()

    def _by_class(self, train: Dataset) -> Tensor:
        """The positions of the class asked for."""
        number = self.class_number(train)
        assert number is not None  # by kind
        return torch.nonzero(torch.eq(train.y.cpu(), number)).flatten()

    def _by_fraction(self, train: Dataset, seed: int) -> Tensor:
        """A stratified random choice of fraction * samples positions, rounded to whole."""
        total = round(float(self.value) * len(train))  # type: ignore[arg-type]
        return stratified_sample(train.y.cpu(), total, stream(seed, _FRACTION_STREAM))

    def _by_corruption(self, train: Dataset, corrupted: Tensor | None) -> Tensor:
        """The positions of the corrupted samples."""
        if corrupted is None or len(corrupted) == 0:
            raise InputError(
                f"expected corrupted samples in the train set of {train.name} to forget, got none; give the split a "
                "corruption, such as corruption=Corruption(label_flips=0.1)"
            )
        return torch.nonzero(torch.isin(train.ids.cpu(), corrupted.cpu())).flatten()

    def _by_predicate(self, train: Dataset) -> Tensor:
        """The positions where the predicate is true."""
        if self.predicate is None:
            raise InputError(
                f"expected the function of the predicate {self.value!r}, got none; use ForgetRequest.where"
            )
        if not self.vectorised:
            pairs = zip(train.x, train.y.tolist(), strict=True)
            return torch.nonzero(torch.tensor([bool(self.predicate(x, y)) for x, y in pairs])).flatten()
        mask = torch.as_tensor(self.predicate(train.x, train.y)).cpu()
        if mask.dtype is not torch.bool or mask.shape != (len(train),):
            raise InputError(
                f"expected bools of shape ({len(train)},) from the predicate {self.value!r}, "
                f"got {mask.dtype} {tuple(mask.shape)}"
            )
        return torch.nonzero(mask).flatten()
