"""Tuning: several settings of a method, tried on a forget request and an original model that are never reported."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import nn

from qunlearn import methods
from qunlearn.data import ForgetRequest, Split
from qunlearn.errors import NumericalError
from qunlearn.methods import Method, Unlearned
from qunlearn.methods.search import searched, settings
from qunlearn.methods.unlearn import task_of
from qunlearn.study.prepare import recipe_of
from qunlearn.training.counting import Counts
from qunlearn.training.net import Net
from qunlearn.training.selection import Candidate, keep_setting

REVISION = 1  # of what a tuning does beside the method: raise it when its choice changes


def is_tuned(cell: dict[str, Any]) -> bool:
    """Whether the settings of a cell ask for a search."""
    return int(cell["tuning"]["budget"]) > 1


def settings_of(cell: dict[str, Any], method: dict[str, Any], seed: int) -> tuple[Method, ...]:
    """The settings of a method that are tried; what its entry in the study file sets stays as it is.

    A method that trains its originals has one: every other would need originals and retrained models of its own.
    """
    budget, fixed, chosen = cell["tuning"]["budget"], set(method) - {"name"}, methods.get(method)
    if chosen.trains:
        return (chosen,)
    return settings(chosen, budget, seed=seed, recipe=recipe_of(cell), fixed=fixed)


def tuning_request(split: Split, reported: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """A forget request like the split's, for tuning alone.

    For a class: the next one, round and round, that no reported request asks for; the next where all are asked for.
    For the corrupted samples: these, of a split in which others are corrupted. Otherwise as many samples of the retain
    set, drawn by class shares, so that none is among the reported ones.
    """
    if split.forget_class is not None:
        asked = {ForgetRequest.from_config(one).class_number(split.train) for one in reported}
        classes = len(split.train.classes)
        others = [(split.forget_class + step) % classes for step in range(1, classes)]
        return {"class": next((number for number in others if number not in asked), others[0])}
    if split.request.kind == "corrupted":
        return split.request.to_config()
    count = min(len(split.forget), len(split.retain) - 1)
    drawn = ForgetRequest.of_fraction(count / len(split.retain)).select(split.retain, seed)
    return {"ids": sorted(split.retain.ids[drawn].tolist())}


def tune(model: nn.Module, split: Split, tried: Sequence[Method], seed: int) -> dict[str, Any]:
    """Run every setting on the split, and choose one by the rule that picks epochs: the record.

    Neither a retrained model nor the test set has a part in it.

    Raises:
        NumericalError: where every setting leaves the finite numbers.
    """
    task, counts = task_of(split, model), Counts()
    watch = task.watch
    untouched = watch(Net(model, counts), 0)
    rows: list[dict[str, Any]] = []
    found: dict[int, Candidate] = {}
    failure: NumericalError | None = None
    for number, method in enumerate(tried):
        row: dict[str, Any] = {"hyperparameters": method.hyperparameters()}
        try:
            done = methods.unlearn(model, split, method=method, seed=seed, progress=False)
        except NumericalError as error:
            failure, row = error, {**row, "error": str(error)}
        else:
            found[number] = watch(Net(done.model, counts), _epoch(done))
            row |= {"candidate": found[number].to_dict(), **_trace(done)}
            _add(counts, done.record.counts)
        rows.append(row)
    if not found and failure is not None:
        raise failure
    chosen = list(found)[keep_setting(untouched, list(found.values()))]
    return {
        "method": tried[0].name,
        "revision": tried[0].revision,
        "seed": seed,
        "searched": [item.name for item in searched(tried[0]) if _varies(tried, item.name)],
        "untouched": untouched.to_dict(),
        "settings": rows,
        "chosen": chosen,
        "hyperparameters": rows[chosen]["hyperparameters"],
        "counts": dataclasses.asdict(counts),
    }


def _trace(done: Unlearned) -> dict[str, Any]:
    """What the method itself measured: its epochs, the one it kept, what it cost."""
    record = done.record
    return {"epochs": record.candidates, "kept": record.chosen, "counts": dataclasses.asdict(record.counts)}


def _epoch(done: Unlearned) -> int:
    """The epoch that the method kept; of one without epochs, all that it did."""
    record = done.record
    return int(record.candidates[record.chosen]["epoch"]) if record.candidates else record.counts.epochs


def _varies(tried: Sequence[Method], name: str) -> bool:
    return any(getattr(method, name) != getattr(tried[0], name) for method in tried)


def _add(total: Counts, spent: Counts) -> None:
    for name, value in dataclasses.asdict(spent).items():
        setattr(total, name, getattr(total, name) + value)
