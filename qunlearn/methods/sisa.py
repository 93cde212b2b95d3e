"""SISA: shards, isolated, sliced, aggregated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods.base import Method
from qunlearn.methods.certificate import Guarantee, Kind
from qunlearn.methods.hyper import hyper
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.models import Ensemble, reinitialise
from qunlearn.training.counting import Counts
from qunlearn.training.loop import Progress
from qunlearn.training.net import Tensors
from qunlearn.training.recipe import Recipe, recipe_of
from qunlearn.training.seeds import Seeds
from qunlearn.training.shards import Grown, Shard, grow_all, places
from qunlearn.training.trace import Trace, check_trained, trace_of
from qunlearn.training.train import matched


@register
@dataclass(frozen=True, kw_only=True)
class Sisa(Method):
    r"""An ensemble whose members saw a shard of the data each; forgetting trains again only what a request touched.

    A member learns its shard slice by slice, 1..R, on the union of the slices so far, 2 e / (R + 1) epochs each (so
    that all in all as many samples are seen as in e epochs of one model), with a checkpoint after each. A request goes
    back, in the shards that it touches, to the checkpoint before the first slice that it touches. One sample costs

    .. math:: \frac{1}{S} \cdot \frac{2R + 1}{3R}

    of a training, on average. Shard and slice of a sample are a hash of its id; every (shard, slice) has seeds of its
    own; data-fitted parts of a member are fitted to its own first slice; the last epoch counts, so that no validation
    set plays a part. Hence the result has the same bits as training from scratch on the retain set.

    A shard that has lost all samples, or nearly all, so that its model cannot learn from them, is not asked any more.

    Source: Bourtoule et al. 2021, arXiv 1912.03817; epochs a slice as in their code
        (cleverhans-lab/machine-unlearning).
    """

    name: ClassVar[str] = "sisa"
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "trace"})
    trains: ClassVar[bool] = True
    reshapes: ClassVar[bool] = True  # data-fitted parts of a member that learns nothing any more are empty
    certifies: ClassVar[Kind | None] = "exact"
    shards: int = hyper(5, "parts of the data, a model each", low=1)
    slices: int = hyper(4, "steps in which a model gets to know its part", low=1)
    vote: Literal["mean", "majority"] = hyper("mean", "how models decide together", choices=("mean", "majority"))

    def train(
        self,
        model: nn.Module,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Ensemble:
        """An ensemble of models like the given one, each drawn afresh; `validation` is not looked at.

        Raises:
            InputError: where no shard holds enough samples to learn from.
        """
        recipe = recipe or recipe_of(model) or Recipe()
        member = model.members[0] if isinstance(model, Ensemble) else model
        facts = {"seed": seed, "shards": self.shards, "slices": self.slices, "recipe": recipe.to_dict()}
        plan = _Plan.of(Trace(self.name, facts=facts))
        drawn = [reinitialise(member, plan.seeds(s).integer("initialise")) for s in range(self.shards)]
        data = matched(data, drawn[0])
        with torch.random.fork_rng(devices=[]):
            grown = plan.grow(dict.fromkeys(range(self.shards), 0), drawn, data, {}, progress)
        made = Ensemble(drawn, vote=self.vote).eval()
        made.recipe, counts = recipe, Counts()
        tensors, learnt = plan.written(made, grown, {}, counts)
        made.training_counts = counts  # type: ignore[assignment]
        tensors["ids"] = data.ids.sort().values.cpu()
        made.trace = Trace(self.name, self.hyperparameters(), tensors, {**facts, "learnt": learnt})  # type: ignore[assignment]
        return made

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """Goes back to the checkpoints that never saw a forget sample, and on from there."""
        trace = trace_of(model, task.trace, self.name)
        if not isinstance(model, Ensemble):
            raise InputError(f"expected an Ensemble that sisa trained, got {type(model).__name__}")
        plan = _Plan.of(trace)
        check_trained(trace.tensors["ids"], task.forget, task.retain)
        touched = plan.touched(task.forget)
        grown = plan.grow(touched, list(model.members), task.retain, trace.tensors, work.progress)
        tensors, learnt = plan.written(model, grown, trace.tensors, work.counts, trace.facts["learnt"])
        tensors["ids"] = task.retain.ids.sort().values.cpu()
        model.trace = dataclasses.replace(trace, tensors=tensors, facts={**trace.facts, "learnt": learnt})  # type: ignore[assignment]
        work.notes.append(f"{len(touched)} of {plan.shards} shards were trained again: {sorted(touched)}.")
        work.guarantee = Guarantee(
            "exact",
            assumptions=_ASSUMPTIONS,
            covers=tuple(name for name, _ in model.named_parameters()),
            details={"shards": sorted(touched), "first_slices": [touched[s] for s in sorted(touched)]},
        )
        return model


_ASSUMPTIONS = (
    "The retain samples are as they were in training, under the same ids.",
    "Requests do not depend on what the model has answered (else the seeds would have to be drawn anew).",
    "Training again runs on a machine whose arithmetic is that of the first training.",
)


@dataclass(frozen=True)
class _Plan:
    """What a trace says of how its ensemble is trained."""

    shards: int
    slices: int
    recipe: Recipe
    seed: int
    learnt: list[list[bool]]

    @classmethod
    def of(cls, trace: Trace) -> _Plan:
        facts = trace.facts
        never = [[False] * facts["slices"] for _ in range(facts["shards"])]
        recipe = Recipe(**facts["recipe"])
        return cls(facts["shards"], facts["slices"], recipe, facts["seed"], facts.get("learnt", never))

    @property
    def epochs(self) -> int:
        return max(1, round(2 * self.recipe.epochs / (self.slices + 1)))

    def seeds(self, shard: int) -> Seeds:
        return Seeds(self.seed, f"sisa shard {shard}")

    def touched(self, data: Dataset) -> dict[int, int]:
        """The shards that hold samples of a set, with the first slice of each that does."""
        first: dict[int, int] = {}
        for shard, number in zip(
            *(p.tolist() for p in places(data.ids, self.shards, self.slices, self.seed)), strict=True
        ):
            first[shard] = min(number, first.get(shard, number))
        return first

    def grow(
        self, first: dict[int, int], models: list[nn.Module], data: Dataset, states: Tensors, progress: Progress | None
    ) -> dict[int, tuple[int, Grown]]:
        """By shard the first slice that it learns, and what comes of it; the models are trained in place."""
        shard, number = places(data.ids, self.shards, self.slices, self.seed)
        jobs = []
        for s, start in first.items():
            _rewind(models[s], s, start, states, self.seeds(s))
            rows = [((shard == s) & (number == r)).nonzero().flatten() for r in range(self.slices)]
            learnt = start > 0 and self.learnt[s][start - 1]
            jobs.append(Shard(models[s], [data.select(part) for part in rows], start, learnt, self.seeds(s)))
        grown = grow_all(jobs, self.recipe, self.epochs, progress)
        return {s: (start, found) for (s, start), found in zip(first.items(), grown, strict=True)}

    def written(
        self, ensemble: Ensemble, grown: dict[int, tuple[int, Grown]], old: Tensors, counts: Counts, *before: Any
    ) -> tuple[Tensors, list[list[bool]]]:
        """Puts what was learnt into the ensemble; the checkpoints and what was learnt by then, with those before."""
        tensors, learnt = dict(old), [list(row) for row in self.learnt]
        for s, (start, found) in grown.items():
            counts.add(found.counts)
            ensemble.members[s].load_state_dict(found.states[-1])
            ensemble.weight[s] = float(found.learnt[-1])
            learnt[s][start:] = found.learnt
            for r, state in enumerate(found.states, start):
                tensors |= {f"{s}/{r}/{name}": tensor.cpu() for name, tensor in state.items()}
        if not any(row[-1] for row in learnt):
            why = next((found.error for _, found in grown.values() if found.error), "no samples are left")
            raise InputError(f"expected a shard with enough samples to learn from, got none ({why}); use fewer shards")
        return tensors, learnt


def _rewind(model: nn.Module, shard: int, start: int, states: Tensors, seeds: Seeds) -> None:
    """Sets a shard's model to its checkpoint before a slice, or draws it afresh."""
    if start > 0:
        prefix = f"{shard}/{start - 1}/"
        model.load_state_dict({n.removeprefix(prefix): t for n, t in states.items() if n.startswith(prefix)})
    else:
        model.load_state_dict(reinitialise(model, seeds.integer("initialise")).state_dict())
