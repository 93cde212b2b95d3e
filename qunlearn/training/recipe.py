"""How a model was trained, so that it can be trained again without the forget set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from qunlearn.errors import InputError, UnknownNameError

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
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
        for name, low in (("epochs", 1), ("batch_size", 1), ("weight_decay", 0)):
            if getattr(self, name) < low:
                raise InputError(f"expected {name} of at least {low}, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise InputError(f"expected a learning_rate above 0, got {self.learning_rate}")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"expected a patience of at least 1 or none, got {self.patience}")
        if self.keep not in ("loss", "accuracy", "last"):
            raise UnknownNameError("rule for the epoch to keep", self.keep, ("loss", "accuracy", "last"))

    def make_optimizer(self, parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
        """A fresh optimizer over the given leaf tensors."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=self.learning_rate, momentum=0.9, weight_decay=self.weight_decay)
        return torch.optim.Adam(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON scalars."""
        return asdict(self)


def recipe_of(model: object) -> Recipe | None:
    """The recipe that a model carries (as `train` or a model file left it), or None."""
    recipe = getattr(model, "recipe", None)
    if recipe is None or isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, dict):
        return Recipe(**recipe)
    raise InputError(f"expected model.recipe to be a Recipe, got {type(recipe).__name__}")
