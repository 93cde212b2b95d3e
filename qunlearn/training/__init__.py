"""Training: the recipe, the one loop, `train` and `retrain`."""

from qunlearn.training.recipe import Recipe, recipe_of
from qunlearn.training.train import retrain, train

__all__ = ["Recipe", "recipe_of", "retrain", "train"]
