"""Search spaces: what methods declare, and the settings that are drawn from them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from qunlearn.errors import InputError
from qunlearn.methods import GradientMethod, Method, available, get
from qunlearn.methods.search import in_words, searched, settings
from qunlearn.training.recipe import Recipe

RECIPE = Recipe(learning_rate=0.02)


@pytest.mark.parametrize("name", available())
def test_search_spaces_lie_within_what_is_allowed(name: str) -> None:
    cls = available()[name]
    space = searched(cls)
    assert any(item.name == "learning_rate" for item in space) == issubclass(cls, GradientMethod)
    assert len(space) <= 3
    for item in space:
        values = item.metadata["search"]
        if isinstance(values, tuple):
            assert 0 < values[0] < values[1]
        if not item.metadata["of_recipe"]:
            for value in values:  # the base class refuses what is not allowed
                assert getattr(get({"name": name, item.name: value}), item.name) == value
            if isinstance(item.default, float) and isinstance(values, tuple):
                assert values[0] <= item.default <= values[1]
        assert in_words(item)


def test_none_and_retrain_have_nothing_to_search() -> None:
    for name in ("none", "retrain"):
        assert settings(get(name), 8, seed=0, recipe=RECIPE) == (get(name),)


def test_the_given_setting_comes_first_and_the_others_cover_the_space() -> None:
    method = get({"name": "scrub", "epochs": 3})
    tried = settings(method, 9, seed=3000, recipe=RECIPE)
    assert tried[0] == method
    assert len(set(tried)) == 9
    assert all(getattr(one, "epochs", None) == 3 for one in tried)
    for name, low, high in (("learning_rate", 0.0006, 0.06), ("alpha", 0.05, 5.0), ("gamma", 0.1, 10.0)):
        values = [one.hyperparameters()[name] for one in tried[1:]]
        places = [math.log(value / low) / math.log(high / low) for value in values]
        # One in each eighth of the range, on a log scale, but for the rounding to three digits.
        assert all(number / 8 - 0.01 <= place <= (number + 1) / 8 + 0.01 for number, place in enumerate(sorted(places)))
        assert values != sorted(values)
    assert settings(method, 9, seed=3000, recipe=RECIPE) == tried
    assert settings(method, 9, seed=3001, recipe=RECIPE) != tried


def test_fixed_hyper_parameters_stay_and_move_no_other() -> None:
    method = get({"name": "scrub", "alpha": 0.7})
    free = settings(method, 4, seed=0, recipe=RECIPE)
    tried = settings(method, 4, seed=0, recipe=RECIPE, fixed=["alpha", "variant"])
    assert {one.hyperparameters()["alpha"] for one in tried} == {0.7}
    for name in ("learning_rate", "gamma"):
        values = [one.hyperparameters()[name] for one in tried]
        assert values == [one.hyperparameters()[name] for one in free]
        assert len(set(values)) == 4
    assert settings(get("fine-tune"), 4, seed=0, recipe=RECIPE, fixed=["learning_rate"]) == (get("fine-tune"),)


def test_lists_and_whole_numbers() -> None:
    alphas = {one.hyperparameters()["alpha"] for one in settings(get("neggrad-plus"), 7, seed=0, recipe=RECIPE)}
    assert alphas == {None, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995}

    @dataclass(frozen=True, kw_only=True)
    class Mine(Method):
        name: ClassVar[str] = "mine"
        steps: int = dataclasses.field(
            default=2,
            metadata={"doc": "", "low": 1, "high": 64, "choices": (), "optional": False, "search": (1, 64),
                      "of_recipe": False},
        )  # fmt: skip
        plain: float = 1.0

        def run(self, model: Any, task: Any, work: Any) -> Any:
            return model

    steps = [one.hyperparameters()["steps"] for one in settings(Mine(), 5, seed=0, recipe=RECIPE)]
    assert steps[0] == 2
    assert all(type(value) is int and 1 <= value <= 64 for value in steps)
    assert max(steps) > 8


def test_a_budget_of_one_tries_what_is_given() -> None:
    assert settings(get("scrub"), 1, seed=0, recipe=RECIPE) == (get("scrub"),)
    with pytest.raises(InputError, match="at least 1"):
        settings(get("scrub"), 0, seed=0, recipe=RECIPE)
