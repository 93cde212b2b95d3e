"""Shadow models: many trainings with and without chosen samples, for attacks that know how a forgotten one looks.

The samples under attack are the `Pool`: the forget set, and as many samples of the holdout set by class. Every shadow
model is trained on the retain set and a random half of the pool, then unlearns that half. Shadows come in pairs of
complementary halves, so that each sample of the pool is inside half of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset, ForgetRequest, Split, outsiders
from qunlearn.errors import InputError, NumericalError
from qunlearn.methods.base import Method, train_own_way
from qunlearn.methods.registry import get
from qunlearn.methods.task import Task, Unlearned
from qunlearn.methods.unlearn import task_of
from qunlearn.models import reinitialise
from qunlearn.training.loop import Progress
from qunlearn.training.net import evaluating
from qunlearn.training.progress import shown
from qunlearn.training.seeds import Seeds
from qunlearn.training.train import fit_all, matched, of_classes, required_recipe

if TYPE_CHECKING:
    from qunlearn.metrics import Shadows

LEAST = 6
Floats = npt.NDArray[np.float64]
Model = nn.Module | NumericalError
"""A model, or why there is none."""


@dataclass(frozen=True, eq=False)
class Pool:
    """The samples under attack.

    Attributes:
        data: forget samples, then holdout samples.
        member: whether a sample is of the forget set ``(len(data),)``.
        split: where they are from.
        union: the retain set, then `data`: what shadow models learn from.
    """

    data: Dataset
    member: npt.NDArray[np.bool_]
    split: Split
    union: Dataset

    def halves(self, numbers: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which samples are inside each of the shadows with these numbers ``(len(numbers), len(data))``.

        Shadow 2 k + 1 holds what 2 k leaves out, all hold as many samples, every class shared out evenly; where the
        pool is odd, one sample, another for every pair, is in neither.
        """
        rows = {pair: self._pair(pair) for pair in {number // 2 for number in numbers}}
        return np.array([rows[number // 2][number % 2] for number in numbers]).reshape(len(numbers), len(self.data))

    def _pair(self, pair: int) -> npt.NDArray[np.bool_]:
        rng = np.random.default_rng(Seeds(self.split.seed, "shadows").integer(f"halves {pair}"))
        y, order = self.data.y.cpu().numpy(), rng.permutation(len(self.data))
        # In turn by class: neighbours of one class part, and what is odd of a class meets what is odd of the next.
        order = order[np.argsort(y[order], kind="stable")]
        inside = np.zeros((2, len(self.data)), dtype=np.bool_)
        whole = order[: len(order) // 2 * 2] if rng.random() < 0.5 else order[len(order) % 2 :]
        turn = rng.integers(2, size=len(whole) // 2)
        for side in (0, 1):
            inside[side, whole.reshape(-1, 2)[np.arange(len(turn)), turn ^ side]] = True
        return inside

    def rows(self, inside: npt.NDArray[np.bool_]) -> Tensor:
        """The positions in `union` that each shadow learns from, ``(shadows, samples)``."""
        retain = len(self.split.retain)
        return torch.tensor([[*range(retain), *(retain + np.flatnonzero(row))] for row in inside])

    def task(self, inside: npt.NDArray[np.bool_], model: nn.Module, shared: Task) -> Task:
        """What a shadow model is to unlearn: the samples that were inside it ``(len(data),)``."""
        forget = matched(self.data.select(torch.from_numpy(inside)), model)
        request = ForgetRequest.of_ids(forget.ids)
        trace = getattr(model, "trace", None)
        return dataclasses.replace(shared, forget=forget, request=request, trace=trace)


def pool_of(split: Split) -> Pool:
    """The pool of a split: its forget set, and as many holdout samples of each class where there are as many.

    Raises:
        InputError: where no holdout sample has the class of a forget sample, or the holdout set was trained on.
    """
    if "holdout" in split.aliases:
        raise InputError(
            f"expected a holdout set that nobody trained on, got one that stands for the {split.aliases['holdout']} "
            "set; use the sound protocol"
        )
    rng = np.random.default_rng(Seeds(split.seed, "shadows").integer("pool"))
    others, there, wanted = outsiders(split, split.holdout)
    chosen = [
        rng.permutation(np.flatnonzero(there == number))[: int((wanted == number).sum())]
        for number in np.unique(wanted)
    ]
    places = np.sort(np.concatenate(chosen))
    if len(places) == 0:
        raise InputError("expected holdout samples of the forget samples' classes, got none")
    others = others.select(torch.from_numpy(places))
    data = _joined(split.forget, others)
    member = np.arange(len(data)) < len(split.forget)
    return Pool(data, member, split, _joined(split.retain, data))


def _joined(one: Dataset, other: Dataset) -> Dataset:
    x, y, ids = (torch.cat([getattr(one, name), getattr(other, name)]) for name in ("x", "y", "ids"))
    return Dataset(x, y, ids, one.classes, one.name)


def shadow_seed(number: int, purpose: str = "shadow") -> int:
    """The seed of a shadow model, which is that of no other model."""
    return Seeds(number, purpose).integer("model")


def train_shadows(
    fresh: Sequence[nn.Module],
    pool: Pool,
    inside: npt.NDArray[np.bool_],
    *,
    seeds: Sequence[int],
    method: Method | None = None,
    progress: Progress | None = None,
) -> list[Model]:
    """Shadow models, trained at once where that is faster; the error stands in the place of one that diverged.

    Args:
        fresh: freshly initialised models with a recipe, one a shadow.
        pool: the samples under attack.
        inside: those that each shadow learns ``(shadows, len(pool.data))``.
        seeds: of order and dropout, one a shadow.
        method: trains them its own way, one by one, where it `trains`.
        progress: called after every epoch.
    """
    recipe = required_recipe(fresh[0])
    validation = of_classes(pool.split.validation, pool.union)
    if method is not None and method.trains:
        parts = [pool.union.select(row) for row in pool.rows(inside)]
        each = zip(fresh, parts, seeds, strict=True)
        return [train_own_way(method, model, part, validation, seed) for model, part, seed in each]
    found = fit_all(fresh, pool.union, validation, recipe, seeds=seeds, rows=pool.rows(inside), progress=progress)
    return [one if isinstance(one, NumericalError) else one.model for one in found]


def unlearn_shadows(
    models: Sequence[nn.Module],
    pool: Pool,
    inside: npt.NDArray[np.bool_],
    *,
    method: str | dict[str, Any] | Method,
    seeds: Sequence[int],
    progress: Progress | None = None,
) -> list[Model]:
    """Every shadow model after it unlearned what was inside; the error stands in the place of one that diverged.

    Args:
        models: trained shadow models of one architecture.
        pool: the samples under attack.
        inside: what each has learnt of them ``(shadows, len(pool.data))``.
        method: how.
        seeds: of the method, one a shadow.
        progress: called after every epoch.
    """
    chosen = get(method)
    if chosen.name == "none":
        return list(models)
    shared = task_of(pool.split, models[0], recipe=required_recipe(models[0]))
    tasks = [pool.task(row, model, shared) for row, model in zip(inside, models, strict=True)]
    found = chosen.together(models, tasks, seeds=seeds, progress=progress)
    return [one.model if isinstance(one, Unlearned) else one for one in found]


def retrained(
    fresh: Sequence[nn.Module],
    split: Split,
    *,
    seeds: Sequence[int],
    method: Method | None = None,
    progress: Progress | None = None,
) -> list[Model]:
    """Models trained on the retain set alone; by `method` where it trains its own way."""
    validation = of_classes(split.validation, split.retain)
    if method is not None and method.trains:
        each = zip(fresh, seeds, strict=True)
        return [train_own_way(method, model, split.retain, validation, seed) for model, seed in each]
    recipe = required_recipe(fresh[0])
    found = fit_all(fresh, split.retain, validation, recipe, seeds=seeds, progress=progress)
    return [one if isinstance(one, NumericalError) else one.model for one in found]


@torch.no_grad()
def scores(model: nn.Module, data: Dataset) -> Floats:
    """The logit-scaled confidence of every sample under its own label ``(len(data),)``; see `qunlearn.metrics.phi`."""
    from qunlearn.metrics import phi

    with evaluating(model):
        logits = model(matched(data, model).x)
    found: Floats = phi(logits.double().cpu().numpy(), data.y.cpu().numpy())
    return found


def make_shadows(
    model: nn.Module,
    split: Split,
    method: str | dict[str, Any] | Method,
    *,
    number: int = 64,
    seed: int = 0,
    together: int = 20,
    progress: Progress | bool | None = None,
) -> Shadows:
    """The scores of shadow models on the forget set and class-matched holdout samples, for (U-)LiRA.

    Args:
        model: an original with its recipe, as `qunlearn.train` made it; shadows are of its architecture.
        split: what it was trained and is to forget.
        method: how shadows unlearn; one that trains its own way trains them, too.
        number: of shadow models, an even number of at least 6 (of the others, two on each side of every sample).
        seed: shadows of one seed share no randomness with those of another.
        together: how many are trained and unlearned at once.
        progress: None shows a bar on a terminal, False shows nothing.

    Raises:
        InputError: for a number out of range, or a split without non-members.
        NumericalError: where fewer than 6 shadow models stay finite.
    """
    from qunlearn.metrics import Shadows

    if isinstance(number, bool) or number < LEAST or number % 2:
        raise InputError(f"expected an even number of at least {LEAST} shadow models, got {number!r}")
    if together < 1:
        raise InputError(f"expected at least 1 shadow model at once, got {together!r}")
    chosen, pool = get(method), pool_of(split)
    parts: list[tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]] = []
    with shown((lambda done, total, known: None) if progress is False else None, "shadow models") as report:
        for numbers in _blocks(number, together):
            parts += _block(model, pool, chosen, numbers, seed)
            if report is not None:
                report(numbers[-1] + 1, number, chosen.name)
    if len(parts) < LEAST:
        raise NumericalError(f"expected at least {LEAST} shadow models that stay finite, got {len(parts)} of {number}")
    unlearned, trained, fresh, inside = (np.array(rows) for rows in zip(*parts, strict=True))
    ids, labels = pool.data.ids.cpu().numpy(), pool.data.y.cpu().numpy()
    return Shadows(unlearned, inside, trained, ids, labels, pool.member, fresh)


def _blocks(number: int, together: int) -> Iterator[range]:
    yield from (range(start, min(start + together, number)) for start in range(0, number, together))


def _block(
    model: nn.Module, pool: Pool, method: Method, numbers: range, seed: int
) -> list[tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]]:
    """For each shadow that stays finite: scores unlearned, trained and retrained, and what was inside."""
    inside, seeds = pool.halves(numbers), [shadow_seed(number, f"shadow {seed}") for number in numbers]
    trained = train_shadows(_fresh(model, seeds), pool, inside, seeds=seeds, method=method)
    good = [place for place, one in enumerate(trained) if isinstance(one, nn.Module)]
    models, own = [one for one in trained if isinstance(one, nn.Module)], [seeds[place] for place in good]
    if not models:
        return []
    unlearned = unlearn_shadows(models, pool, inside[good], method=method, seeds=own)
    others = [shadow_seed(numbers[place], f"retrained {seed}") for place in good]
    again = retrained(_fresh(model, others), pool.split, seeds=others, method=method)
    rows = zip(unlearned, models, again, inside[good], strict=True)
    return [
        (scores(one, pool.data), scores(before, pool.data), scores(other, pool.data), row)
        for one, before, other, row in rows
        if isinstance(one, nn.Module) and isinstance(other, nn.Module)
    ]


def _fresh(model: nn.Module, seeds: Sequence[int]) -> list[nn.Module]:
    """Freshly initialised models of one architecture, with the recipe."""
    found = [reinitialise(model, seed) for seed in seeds]
    for one in found:
        one.recipe = required_recipe(model)  # type: ignore[assignment]
    return found
