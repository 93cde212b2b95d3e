"""From a study to the models and samples that go to hardware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.hardware import Bundle
from qunlearn.hardware.folder import Folder
from qunlearn.study.plugins import import_plugins
from qunlearn.study.prepare import split_of
from qunlearn.study.results import Study
from qunlearn.study.task import Kind, Task
from qunlearn.study.trial import kept_as, restore

SETS = ("forget", "retain", "test", "holdout")


def bundle_of(
    study: Study,
    *,
    where: Mapping[str, Any] | None = None,
    methods: Sequence[str] | None = None,
    retrained: int = 3,
    samples: int | None = 100,
    seed: int = 0,
) -> Bundle:
    """The original, each method's unlearned model and retrained models of one cell of a study, and samples.

    Args:
        study: with the trials of that cell done.
        where: columns of the study's table and their values, such as ``{"depth": 2, "split_seed": 0}``: the first
            trial that they fit picks the split, the request, the circuit and the seed.
        methods: labels, as in the table; all if None.
        retrained: how many retrained models, of those that the study has.
        samples: how many in all, evenly from forget, retain, test and holdout set; all if None.
        seed: of the drawing of samples.

    Returns:
        Models named "original", by the label of their method, and "retrained SEED".

    Raises:
        InputError: where nothing fits, or a model is not there yet.
        UnknownNameError: for a column or a method that the study does not have.
    """
    first = _first(study, where or {})
    cell = [task for task in study.trials if (task.settings, task.request) == (first.settings, first.request)]
    import_plugins(study.folder, first.settings["plugins"]["modules"])
    split = split_of(first.settings, first.request, study.folder)
    chosen = _chosen(study, cell, first, methods, retrained)
    models: dict[str, nn.Module] = {}
    for name, (kind, key, _, _) in chosen.items():
        if not (study.store.folder(kind, key) / "model.json").is_file():
            raise InputError(f"expected the model {name!r} of {study.name} to be there, got none; run the study first")
        models[name] = restore(first.settings, kind, key, split, study.store).cpu()
    sets = {name: getattr(split, name) for name in SETS if name not in split.aliases}
    roles = {name: role for name, (_, _, role, _) in chosen.items()}
    keys = {name: trial for name, (_, _, _, trial) in chosen.items()}
    bundle = Bundle(models, {name: data for name, data in sets.items() if len(data)}, roles, keys)
    return bundle if samples is None else bundle.sampled(samples, seed)


def own_models(study: Study, folder: str | Path) -> dict[str, nn.Module]:
    """The models of a plan that are of the user's own code, by name, for `qunlearn.hardware.collect`."""
    needed = [model for model in Folder(folder).content["models"] if model["own_code"] and model["key"]]
    return {model["name"]: study.model(model["key"]) for model in needed}


_Choice = tuple[Kind, str, str, str]
"""Kind and key under which a model is kept, its role, and the key of its trial."""


def _first(study: Study, where: Mapping[str, Any]) -> Task:
    """The first trial of a method that fits."""
    columns = study.trials[0].row if study.trials else {}
    for name in where:
        if name not in columns:
            raise UnknownNameError("column", name, columns)
    fitting = [t for t in study.trials if all(str(t.row.get(name)) == str(value) for name, value in where.items())]
    if not fitting:
        wanted = ", ".join(f"{name}={value}" for name, value in where.items())
        raise InputError(f"expected trials with {wanted or 'a method'} in {study.name}, got none; see its table")
    return next((task for task in fitting if _method(task) not in ("none", "retrain")), fitting[0])


def _chosen(
    study: Study, cell: Sequence[Task], first: Task, methods: Sequence[str] | None, retrained: int
) -> dict[str, _Choice]:
    """By name what is to be run."""
    same = [task for task in cell if task.seed == first.seed]
    unlearned = {str(task.row["method"]): task for task in same if _method(task) not in ("none", "retrain")}
    for name in methods or ():
        if name not in unlearned:
            raise UnknownNameError("method of this study", name, unlearned)
    untouched = next((task.key for task in same if _method(task) == "none"), "")
    references = {task.retrained[0]: task for task in cell if _method(task) == "retrain"}
    seeds = {task.key: task.seed for task in study.tasks if task.kind == "retrained"}
    assert first.original is not None
    found: dict[str, _Choice] = {"original": ("original", first.original, "original", untouched)}
    for name in unlearned if methods is None else methods:
        found[name] = (*kept_as(unlearned[name]), "unlearned", unlearned[name].key)
    keys = list(dict.fromkeys(key for task in (*unlearned.values(), *references.values()) for key in task.retrained))
    for key in sorted(keys, key=lambda key: seeds[key])[:retrained]:
        trial = references[key].key if key in references else ""
        found[f"retrained {seeds[key]}"] = ("retrained", key, "retrained", trial)
    return found


def _method(task: Task) -> str:
    assert task.method is not None
    return str(task.method["name"])
