"""How a model was trained, so that it can be trained again without the forget set."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import torch

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.training.optimizers import SGD, Adam, Optimizer

OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "sgd": SGD}
Keep = Literal["loss", "accuracy", "last"]


@dataclass(frozen=True)
class Recipe:
    """Everything that repeats a training but the data and the seed.

    Attributes:
        epochs: passes over the training data, at least 1.
        optimizer: ``"adam"`` (default betas) or ``"sgd"`` (momentum 0.9).
        learning_rate: above 0.
        batch_size: samples a step, at least 1.
        patience: stop after this many epochs without a better one; None trains all epochs.
        weight_decay: L2 coefficient, 0 or more.
        keep: which epoch is kept: the lowest validation ``"loss"``, the first of highest validation
            ``"accuracy"``, or the ``"last"`` (always so without a validation set).
    """

    epochs: int = 60
    optimizer: str = "adam"
    learning_rate: float = 0.01
    batch_size: int = 32
    patience: int | None = None
    weight_decay: float = 0.0
    keep: Keep = "loss"

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.optimizer, OPTIMIZERS)
        for name in ("epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if not (_whole(value) and value >= 1) and not (name == "patience" and value is None):
                raise InputError(f"expected {name} to be a whole number of at least 1, got {value!r}")
        if not (_finite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"expected a learning_rate above 0, got {self.learning_rate!r}")
        if not (_finite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"expected a weight_decay of at least 0, got {self.weight_decay!r}")
        if self.keep not in ("loss", "accuracy", "last"):
            raise UnknownNameError("rule for the epoch to keep", self.keep, ("loss", "accuracy", "last"))

    def make_optimizer(self, parameters: Iterable[torch.Tensor]) -> Optimizer:
        """A fresh optimizer over the given leaf tensors."""
        cls = OPTIMIZERS[self.optimizer]
        return cls(parameters, learning_rate=self.learning_rate, weight_decay=self.weight_decay)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON scalars."""
        return asdict(self)


def recipe_of(model: object) -> Recipe | None:
    """The recipe that a model carries (as `train` or a model file left it), or None."""
    recipe = getattr(model, "recipe", None)
    if recipe is None or isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, dict):
        if unknown := sorted(set(recipe) - {field.name for field in fields(Recipe)}):
            raise UnknownNameError("setting of a recipe", unknown[0], (field.name for field in fields(Recipe)))
        return Recipe(**recipe)
    raise InputError(f"expected model.recipe to be a Recipe, got {type(recipe).__name__}")


def _whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _finite(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)
