"""Training again without the forget set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from qunlearn.methods.base import Method
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.models import reinitialise
from qunlearn.training.recipe import Recipe
from qunlearn.training.train import check_retrainable, fit, of_classes


@register
@dataclass(frozen=True, kw_only=True)
class Retrain(Method):
    r"""A fresh initialisation, trained on the retain set by the original's recipe: exact, and the reference.

    .. math:: \theta_u = A(D_r; \text{fresh seed})

    Every parameter is drawn anew and data-fitted parts of the model are fitted to the retain set alone. Under
    ``sound``, validation samples of forgotten classes are left out.

    Source: the definition of exact unlearning (Cao & Yang 2015; Bourtoule et al. 2021, arXiv 1912.03817).
    """

    name: ClassVar[str] = "retrain"
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "recipe"})

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """A newly trained model."""
        check_retrainable(model)
        recipe = task.recipe
        assert isinstance(recipe, Recipe)  # the base class checked the task
        published = task.protocol == "published"
        validation = task.validation if published else of_classes(task.validation, task.retain)
        fresh = reinitialise(model, work.seeds.integer("initialise"))
        seed = work.seeds.integer("train")
        trained, work.counts = fit(fresh, task.retain, validation, recipe, seed=seed, progress=work.progress)
        return trained
