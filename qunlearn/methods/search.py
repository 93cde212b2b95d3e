"""Tuning: the settings of a method that are tried, drawn from the search space that its hyper-parameters declare."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import torch

from qunlearn.errors import InputError
from qunlearn.methods.base import Method
from qunlearn.training.recipe import Recipe
from qunlearn.training.seeds import Seeds


def settings(
    method: Method, budget: int, *, seed: int, recipe: Recipe, fixed: Collection[str] = ()
) -> tuple[Method, ...]:
    """The settings to try: the method as it is, then others drawn from its search space.

    The draws of each hyper-parameter are spread evenly over its space (one in each of ``budget - 1`` parts of equal
    size, in random order: a Latin hypercube) and rounded to three digits.

    Args:
        method: as the user set it.
        budget: how many settings, at least 1. A method with nothing to search has one.
        seed: of the draws.
        recipe: of the original model, for ranges that are multiples of its values.
        fixed: names of hyper-parameters that keep their value.
    """
    if isinstance(budget, bool) or budget < 1:
        raise InputError(f"expected a budget of at least 1 setting, got {budget!r}")
    space, drawn = searched(method, fixed), budget - 1
    if not space:
        return (method,)
    seeds = Seeds(seed, f"search {method.name}")
    columns = {item.name: _draws(item, drawn, recipe, seeds.generator(item.name)) for item in space}
    return (
        method,
        *(dataclasses.replace(method, **{name: values[i] for name, values in columns.items()}) for i in range(drawn)),
    )


def searched(method: Method | type[Method], fixed: Collection[str] = ()) -> list[dataclasses.Field[Any]]:
    """The fields that declare a search space, without the fixed ones."""
    fields = dataclasses.fields(method)
    return [item for item in fields if item.metadata.get("search") is not None and item.name not in fixed]


def in_words(item: dataclasses.Field[Any]) -> str:
    """The search space of a field: ``0.03 to 3 times the recipe's``."""
    space = item.metadata["search"]
    if isinstance(space, list):
        return f"one of {', '.join(str(value) for value in space)}"
    unit = " times the recipe's" if item.metadata["of_recipe"] else ""
    return f"{space[0]:g} to {space[1]:g}{unit}"


def _draws(item: dataclasses.Field[Any], count: int, recipe: Recipe, generator: torch.Generator) -> list[Any]:
    """That many values of a field, one in each of equal parts of its space, in random order."""
    order = torch.randperm(count, generator=generator).double()
    places = ((order + torch.rand(count, generator=generator, dtype=torch.float64)) / max(count, 1)).tolist()
    space = item.metadata["search"]
    if isinstance(space, list):
        return [space[int(place * len(space))] for place in places]
    low, high = space
    unit = getattr(recipe, item.name) if item.metadata["of_recipe"] else 1
    values = [float(f"{unit * low * (high / low) ** place:.3g}") for place in places]
    return [round(value) for value in values] if "int" in str(item.type) else values
