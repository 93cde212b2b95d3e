"""What a worker does for the blocks of models that audits need: shadow models, and populations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qunlearn import methods
from qunlearn.data import Dataset, Split
from qunlearn.errors import NumericalError
from qunlearn.methods.base import train_own_way
from qunlearn.methods.shadows import (
    Model,
    Pool,
    pool_of,
    retrained,
    scores,
    shadow_seed,
    train_shadows,
    unlearn_shadows,
)
from qunlearn.methods.unlearn import unlearn_all
from qunlearn.metrics.keeping import arrays_to_bytes
from qunlearn.study.prepare import model_of
from qunlearn.study.store import Store
from qunlearn.study.task import Kind, Task, canonical
from qunlearn.study.trial import Made, at_work, choice_of
from qunlearn.training.net import evaluating
from qunlearn.training.train import fit_all, matched, required_recipe

Arrays = dict[str, npt.NDArray[Any]]
MODELS, SCORES, KIND = "models.safetensors", "scores.safetensors", "block of models"


def block(task: Task, split: Split, store: Store, folder: str) -> Made:
    """Train or unlearn the models of a block; of a method that is not among the best, say so and do nothing."""
    start = time.perf_counter()
    if why := not_among_the_best(task, store):
        return Made({"config": task.settings, "row": task.row, "record": {"reason": why}}, 0.0)
    numbers, part = list(task.extra["numbers"]), task.extra["part"]
    found, files = _PARTS[task.kind, part](task, split, store, numbers)
    record: dict[str, Any] = {"part": part, "numbers": sorted(found)}
    if lost := {str(number): str(why) for number, why in found.items() if isinstance(why, Exception)}:
        record |= {"numbers": [number for number in numbers if str(number) not in lost], "diverged": lost}
    content = {"config": task.settings, "row": task.row, "record": record}
    return Made(content, time.perf_counter() - start, files)


Found = tuple[dict[int, Model], dict[str, bytes]]


def _trained_shadows(task: Task, split: Split, store: Store, numbers: list[int]) -> Found:
    """Shadow models with their weights, and what they say about the pool."""
    pool, seeds = pool_for(task, split), [shadow_seed(number) for number in numbers]
    models = train_shadows(_fresh(task, split, seeds), pool, pool.halves(numbers), seeds=seeds, progress=_silent)
    found = dict(zip(numbers, models, strict=True))
    return found, {MODELS: _weights(found), SCORES: _said(found, {"trained": lambda one: scores(one, pool.data)})}


def _trained_originals(task: Task, split: Split, store: Store, numbers: list[int]) -> Found:
    """Originals with their weights, which serve every request."""
    seeds = [shadow_seed(number, "original") for number in numbers]
    fresh = _fresh(task, split, seeds)
    trained = fit_all(fresh, split.original, split.validation, required_recipe(fresh[0]), seeds=seeds, progress=_silent)
    models: list[Model] = [one if isinstance(one, NumericalError) else one.model for one in trained]
    found = dict(zip(numbers, models, strict=True))
    return found, {MODELS: _weights(found)}


def _retrained(task: Task, split: Split, store: Store, numbers: list[int]) -> Found:
    """Models trained on the retain set alone, and what they say about the pool and the sets."""
    seeds = [shadow_seed(number, "retrained") for number in numbers]
    own = methods.get(task.method) if task.method else None
    models = retrained(_fresh(task, split, seeds), split, seeds=seeds, method=own, progress=_silent)
    found = dict(zip(numbers, models, strict=True))
    return found, {SCORES: _said(found, _asked(task, split))}


def _unlearned_shadows(task: Task, split: Split, store: Store, numbers: list[int]) -> Found:
    """What a method makes of shadow models; of those that it has to train itself, also what they said before."""
    pool, method, seeds = pool_for(task, split), _method(task, store), [shadow_seed(number) for number in numbers]
    if task.uses:
        before: dict[int, Model] = dict(_models(task, split, store, task.uses[0]))
    else:
        inside = pool.halves(numbers)
        trained = train_shadows(_fresh(task, split, seeds), pool, inside, seeds=seeds, method=method)
        before = dict(zip(numbers, trained, strict=True))
    found, good = dict(before), {number: one for number, one in before.items() if isinstance(one, nn.Module)}
    if good:
        kept = list(good)
        own = [shadow_seed(number) for number in kept]
        unlearned = unlearn_shadows(
            list(good.values()), pool, pool.halves(kept), method=method, seeds=own, progress=_silent
        )
        found |= dict(zip(kept, unlearned, strict=True))
    said = _arrays(found, {"scores": lambda one: scores(one, pool.data)})
    if not task.uses:
        rows = [good[number] for number in said["numbers"].tolist()]
        said["trained"] = np.array([scores(one, pool.data) for one in rows]).reshape(len(rows), len(pool.data))
    return found, {SCORES: arrays_to_bytes(said, KIND)}


def _unlearned_originals(task: Task, split: Split, store: Store, numbers: list[int]) -> Found:
    """What a method makes of many originals, and what these say then."""
    method, seeds = _method(task, store), {number: shadow_seed(number, "original") for number in numbers}
    before: dict[int, Model] = {}
    if task.uses:
        before |= _models(task, split, store, task.uses[0])
    else:
        for (number, seed), fresh in zip(seeds.items(), _fresh(task, split, list(seeds.values())), strict=True):
            before[number] = train_own_way(method, fresh, split.original, split.validation, seed)
    good = {number: one for number, one in before.items() if isinstance(one, nn.Module)}
    found = dict(before)
    if good:
        groups = [[number] for number in good] if method.trains else [list(good)]
        for group in groups:
            models, own = [good[number] for number in group], [seeds[number] for number in group]
            done = unlearn_all(models, split, method=method, seeds=own, progress=_silent)
            found |= {n: one if isinstance(one, Exception) else one.model for n, one in zip(group, done, strict=True)}
    return found, {SCORES: _said(found, _asked(task, split))}


_PARTS: dict[tuple[Kind, str], Callable[[Task, Split, Store, list[int]], Found]] = {
    ("shadow", "trained"): _trained_shadows,
    ("shadow", "unlearned"): _unlearned_shadows,
    ("population", "trained"): _trained_originals,
    ("population", "retrained"): _retrained,
    ("population", "unlearned"): _unlearned_originals,
}


def _fresh(task: Task, split: Split, seeds: Sequence[int]) -> list[nn.Module]:
    return [at_work(model_of(task.settings, split.train, seed), task) for seed in seeds]


def _method(task: Task, store: Store) -> methods.Method:
    """The method of a task with the hyper-parameters that its tuning chose."""
    assert task.method is not None
    tuned = choice_of(task, store)
    return methods.get({**task.method, **(tuned["hyperparameters"] if tuned else {})})


def _weights(found: Mapping[int, Model]) -> bytes:
    """The weights of the models that there are, by number and name."""
    from safetensors.torch import save

    tensors = {
        f"{number}/{name}": tensor.detach().cpu().clone().contiguous()
        for number, model in found.items()
        if isinstance(model, nn.Module)
        for name, tensor in model.state_dict().items()
    }
    return save(tensors)


def _models(task: Task, split: Split, store: Store, key: str) -> dict[int, nn.Module]:
    """The models of a block by number, as `_weights` wrote them."""
    from safetensors.torch import load

    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load((store.folder(task.kind, key) / MODELS).read_bytes()).items():
        number, _, rest = name.partition("/")
        states.setdefault(int(number), {})[rest] = tensor
    found = {}
    for place, state in sorted(states.items()):
        found[place] = at_work(model_of(task.settings, split.train, 0), task)
        found[place].load_state_dict(state)
    return found


def _said(found: Mapping[int, Model], asked: Mapping[str, Callable[[nn.Module], Any]]) -> bytes:
    return arrays_to_bytes(_arrays(found, asked), KIND)


def _arrays(found: Mapping[int, Model], asked: Mapping[str, Callable[[nn.Module], Any]]) -> Arrays:
    """What every model that there is answers, a row each, and its number."""
    there = {number: model for number, model in sorted(found.items()) if isinstance(model, nn.Module)}
    answers = {
        name: np.array([ask(model) for model in there.values()], dtype=np.float64) for name, ask in asked.items()
    }
    return {"numbers": np.array(list(there), dtype=np.int64), **answers}


def _asked(task: Task, split: Split) -> dict[str, Callable[[nn.Module], Any]]:
    """What a population is asked: scores of the forget set, or of the pool that begins with it, and accuracies."""
    data = pool_for(task, split).data if task.extra["pool"] else split.forget
    return {
        "scores": lambda one: scores(one, data),
        "retain": lambda one: _accuracy(one, split.retain),
        "test": lambda one: _accuracy(one, _judged(split)),
    }


def _judged(split: Split) -> Dataset:
    """The test samples that count: where a class is forgotten, those of the others."""
    return split.test if split.forget_class is None else split.test.select(split.test.y != split.forget_class)


@torch.no_grad()
def _accuracy(model: nn.Module, data: Dataset) -> float:
    with evaluating(model):
        data = matched(data, model)
        return float((model(data.x).argmax(1) == data.y).double().mean())


def pool_for(task: Task, split: Split) -> Pool:
    """The samples under attack in a task's cell."""
    return _pool_of(canonical([task.settings["data"], task.settings["protocol"], task.request]), split)


_POOLS: dict[str, Pool] = {}


def _pool_of(key: str, split: Split) -> Pool:
    """The pool of a split; that of the last one is kept."""
    if key not in _POOLS:
        _POOLS.clear()
        _POOLS[key] = pool_of(split)
    return _POOLS[key]


def not_among_the_best(task: Task, store: Store) -> str | None:
    """Why a method has no shadow models and no population; None where it has, or is no method of the ranking."""
    if task.ranking is None or task.row["method"] in store.result("ranking", task.ranking)["record"]["best"]:
        return None
    return f"not among the best {task.extra['best']} by validation"


def _silent(done: int, total: int, known: str) -> None:
    """Shows nothing."""
