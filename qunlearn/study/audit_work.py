"""What a worker does to audit a study: rank the methods by validation, attack and probe the models of trials."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from qunlearn.data import Split
from qunlearn.evaluation.audit import Auditor
from qunlearn.methods.shadows import LEAST
from qunlearn.methods.unlearn import task_of
from qunlearn.metrics import Population, Shadows
from qunlearn.metrics.keeping import arrays_from_bytes
from qunlearn.study.blocks import KIND, SCORES, Arrays, block, not_among_the_best, pool_for
from qunlearn.study.prepare import split_of
from qunlearn.study.store import Store
from qunlearn.study.task import Kind, Task, canonical
from qunlearn.study.trial import Finish, Made, at_work, kept_as, restore
from qunlearn.training.net import evaluating
from qunlearn.training.selection import Candidate, Watch, ranked_settings

LEAST_POPULATION = 64


def _one_by_one(work: Callable[[Task, Split, Store, str], Made]) -> Callable[..., list[Finish | Exception]]:
    """Work on each task of a unit by itself."""

    def found(tasks: Sequence[Task], split: Split, store: Store, folder: str) -> list[Finish | Exception]:
        return [functools.partial(work, task, split, store, folder) for task in tasks]

    return found


def _ranking(task: Task, split: Split, store: Store, folder: str) -> Made:
    """Rank methods by what validation says of the models that their trials left: no test set, no retrained model."""
    start = time.perf_counter()
    originals = [restore(task.settings, "original", key, split, store) for key in task.uses]
    watch = task_of(split, originals[0]).watch
    untouched = _mean([_candidate(watch, model) for model in originals])
    found: dict[str, Candidate] = {}
    without: list[str] = []
    for label, trials in task.extra["trials"].items():
        done = [key for key in trials if (store.folder("trial", key) / "result.json").is_file()]
        without += [key for key in trials if key not in done]
        if done:
            found[label] = _mean([_candidate(watch, restore(task.settings, "trial", k, split, store)) for k in done])
    labels = list(found)
    order = [labels[place] for place in ranked_settings(untouched, list(found.values()))]
    record = {
        "order": order,
        "best": order[: task.extra["best"]],
        "untouched": untouched.to_dict(),
        "figures": {label: candidate.to_dict() for label, candidate in found.items()},
        "failed": [label for label in task.extra["trials"] if label not in found],
        **({"without": without} if without else {}),  # once one of these trials is there, the ranking is made again
    }
    return Made({"config": task.settings, "row": task.row, "record": record}, time.perf_counter() - start)


@torch.no_grad()
def _candidate(watch: Watch, model: nn.Module) -> Candidate:
    assert watch.inputs is not None
    with evaluating(model):
        return watch.measure(model(watch.inputs)[None], 1, 0)[0]


def _mean(candidates: Sequence[Candidate]) -> Candidate:
    """A candidate of mean figures."""
    rows = [candidate.to_dict() for candidate in candidates]
    names = [item.name for item in fields(Candidate) if item.name in rows[0] and item.name != "epoch"]
    return Candidate(0, **{name: float(np.mean([row[name] for row in rows])) for name in names})


def _audit(task: Task, split: Split, store: Store, folder: str) -> Made:
    """Attack and probe the model of a trial, beside the retrained models."""
    start = time.perf_counter()
    assert task.original is not None
    kind, key = kept_as(replace(task, key=task.trial or ""))
    others, place = tuple(sorted(task.retrained)), (canonical(task.settings), canonical(task.request))
    auditor = _auditor(str(store.root), task.original, others, *place, folder)
    model = at_work(restore(task.settings, kind, key, split, store), task)
    found = auditor(
        model,
        shadows=_shadows(task, split, store),
        population=_population(task, split, store),
        audits=task.extra["families"],
        seed=task.settings["data"]["split_seed"],
    )
    record = {"families": task.extra["families"], **found.to_dict()}
    return Made({"config": task.settings, "row": task.row, "record": record}, time.perf_counter() - start)


@functools.lru_cache(maxsize=2)
def _auditor(root: str, original: str, others: tuple[str, ...], settings: str, request: str, folder: str) -> Auditor:
    cell, store = json.loads(settings), Store(root)
    split = split_of(cell, json.loads(request), folder)
    before = restore(cell, "original", original, split, store)
    return Auditor(split, original=before, retrained=[restore(cell, "retrained", k, split, store) for k in others])


def _shadows(task: Task, split: Split, store: Store) -> Shadows | str:
    """What the shadow models of the method say, or why there are none."""
    found = _material(task, store, "shadows", "shadow")
    if isinstance(found, str):
        return found
    unlearned, beside = found
    before = unlearned if "trained" in unlearned else _joined(store, "shadow", task.extra["shadows_bases"])
    numbers = [number for number in unlearned["numbers"].tolist() if number in before["numbers"]]
    if len(numbers) < LEAST:
        return f"only {len(numbers)} of its shadow models stayed finite, and {LEAST} are needed"
    pool = pool_for(task, split)
    after, trained = (_rows(one, numbers, name) for one, name in ((unlearned, "scores"), (before, "trained")))
    ids, labels = pool.data.ids.cpu().numpy(), pool.data.y.cpu().numpy()
    rest = (beside["scores"],) if len(beside["numbers"]) else ()
    return Shadows(after, pool.halves(numbers), trained, ids, labels, pool.member, *rest)


def _population(task: Task, split: Split, store: Store) -> Population | str:
    """What the unlearned and the retrained models of a population say, or why there are none."""
    found = _material(task, store, "population", "population")
    if isinstance(found, str):
        return found
    forget, number = len(split.forget), min(len(one["numbers"]) for one in found)
    if number < LEAST_POPULATION:
        return f"only {number} of its models stayed finite, and {LEAST_POPULATION} are needed"
    sets = [one[name][:number] for name in ("scores", "retain", "test") for one in found]
    return Population(sets[0][:, :forget], sets[1][:, :forget], *sets[2:])


def _material(task: Task, store: Store, what: str, kind: Kind) -> tuple[Arrays, Arrays] | str:
    """What the unlearned and the retrained models of a method say, or why there is nothing."""
    if f"no_{what}" in task.extra:
        return str(task.extra[f"no_{what}"])
    if why := not_among_the_best(task, store):
        return why
    assert task.method is not None
    again = task.method["name"] == "retrain"
    unlearned = _joined(store, "population" if again else kind, task.extra[what], task.extra[f"{what}_number"])
    beside = _joined(store, "population", task.extra[f"{what}_retrained"], task.extra[f"{what}_number"])
    return unlearned, beside


def _joined(store: Store, kind: Kind, keys: Sequence[str], number: int | None = None) -> Arrays:
    """What the models of several blocks say; those numbered from there on are left out."""
    parts = [arrays_from_bytes((store.folder(kind, key) / SCORES).read_bytes(), KIND) for key in keys]
    parts = [part for part in parts if len(part["numbers"])] or parts[:1]  # of no models there are no columns
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    chosen = joined["numbers"] < (number or np.inf)
    return {name: array[chosen] for name, array in joined.items()}


def _rows(arrays: Arrays, numbers: Sequence[int], name: str) -> npt.NDArray[np.float64]:
    place = {number: row for row, number in enumerate(arrays["numbers"].tolist())}
    found: npt.NDArray[np.float64] = arrays[name][[place[number] for number in numbers]]
    return found


WORK: dict[Kind, Callable[[Sequence[Task], Split, Store, str], list[Finish | Exception]]] = {
    "shadow": _one_by_one(block),
    "population": _one_by_one(block),
    "ranking": _one_by_one(_ranking),
    "audit": _one_by_one(_audit),
}
