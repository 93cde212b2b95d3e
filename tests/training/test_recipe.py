"""Recipes: what they refuse, and the optimizers they make."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.training import Recipe, recipe_of
from qunlearn.training.optimizers import SGD, Adam


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("epochs", 0, "expected epochs to be a whole number of at least 1, got 0"),
        ("epochs", 1.5, "expected epochs to be a whole number"),
        ("epochs", "3", "expected epochs to be a whole number"),
        ("epochs", None, "expected epochs to be a whole number"),
        ("epochs", True, "expected epochs to be a whole number"),
        ("batch_size", 0, "expected batch_size to be a whole number of at least 1, got 0"),
        ("patience", 0, "expected patience to be a whole number of at least 1, got 0"),
        ("learning_rate", 0.0, "expected a learning_rate above 0, got 0.0"),
        ("learning_rate", math.nan, "expected a learning_rate above 0, got nan"),
        ("learning_rate", math.inf, "expected a learning_rate above 0, got inf"),
        ("learning_rate", "0.1", "expected a learning_rate above 0, got '0.1'"),
        ("weight_decay", -0.1, "expected a weight_decay of at least 0, got -0.1"),
        ("weight_decay", math.nan, "expected a weight_decay of at least 0, got nan"),
    ],
)
def test_values_out_of_range_are_refused(setting: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe(**{setting: value})  # type: ignore[arg-type]


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'adam'"):
        Recipe(optimizer="adan")
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        Recipe(keep="acuracy")  # type: ignore[arg-type]


def test_a_recipe_survives_json_on_a_model() -> None:
    recipe, model = Recipe(7, "sgd", 0.3, 5, 2, 0.1, "last"), nn.Linear(2, 2)
    model.recipe = json.loads(json.dumps(recipe.to_dict()))
    assert recipe_of(model) == recipe


def test_a_model_without_a_recipe_has_none_and_other_things_are_refused() -> None:
    model = nn.Linear(2, 2)
    assert recipe_of(model) is None
    model.recipe = [1, 2]  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"expected model.recipe to be a Recipe, got list"):
        recipe_of(model)
    model.recipe = {"epoch": 3}  # type: ignore[assignment]
    with pytest.raises(UnknownNameError, match="did you mean 'epochs'"):
        recipe_of(model)


@pytest.mark.parametrize(("name", "cls"), [("adam", Adam), ("sgd", SGD)])
def test_the_optimizer_has_the_recipe_s_settings(name: str, cls: type) -> None:
    optimizer = Recipe(optimizer=name, learning_rate=0.2, weight_decay=0.5).make_optimizer([torch.ones(2)])
    assert type(optimizer) is cls
    assert (optimizer.learning_rate, optimizer.weight_decay) == (0.2, 0.5)
