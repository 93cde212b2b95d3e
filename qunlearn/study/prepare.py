"""From a cell's settings to data, split, circuit and model: the same in the plan and in every worker."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qunlearn.data import Dataset, ForgetRequest, Split, load_dataset
from qunlearn.models import HybridClassifier, reinitialise
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Circuit
from qunlearn.study.plugins import load_factory, source_hash
from qunlearn.study.task import CORRUPTION, canonical, hash_of
from qunlearn.training import Recipe

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def dataset_of(settings: dict[str, Any], folder: str) -> Dataset:
    """The samples that `[data]` names; `folder` is where a relative `file` lies."""
    data = settings["data"]
    seed = data["split_seed"] if data["subset_seed"] == "split" else data["subset_seed"]
    return _dataset(data["dataset"], data["file"], data["label"], data["per_class"], seed, folder)


@functools.lru_cache(maxsize=4)
def _dataset(
    name: str | None, file: str | None, label: str | None, per_class: int | None, seed: int, folder: str
) -> Dataset:
    if name is not None:
        return load_dataset(name, per_class=per_class, seed=seed)
    assert file is not None
    assert label is not None
    return Dataset.from_csv(Path(folder) / file, label=label)


def split_of(settings: dict[str, Any], request: dict[str, Any], folder: str) -> Split:
    """The split of those samples for a forget request."""
    part = {key: settings[key] for key in ("data", "protocol")}
    return _split(canonical(part), canonical(request), folder)


@functools.lru_cache(maxsize=8)
def _split(part: str, request: str, folder: str) -> Split:
    settings = json.loads(part)
    data, protocol = settings["data"], settings["protocol"]
    options = {"original_trains_on": data["original_trains_on"]} if protocol == "published" else {}
    if corruption := {key: data[key] for key in CORRUPTION if key in data}:
        options["corruption"] = {**corruption, "seed": data.get("corruption_seed")}
    if "shares" in data:
        options["shares"] = tuple(data["shares"])
    return dataset_of(settings, folder).split(
        ForgetRequest.from_config(json.loads(request)), seed=data["split_seed"], protocol=protocol, **options
    )


def circuit_of(settings: dict[str, Any]) -> Circuit:
    """The circuit that `[model]` names."""
    model = settings["model"]
    return load_circuit(
        model["circuit"],
        qubits=model["qubits"],
        depth=model["depth"],
        entanglement=model["entanglement"],
        encoding=model["circuit_encoding"],
        reupload=model["reupload"],
    )


def engine_of(settings: dict[str, Any]) -> str:
    """The engine of the circuits as a model is made and kept, without noise: trajectories need noise to be drawn."""
    engine = str(settings["run"]["engine"])
    return "auto" if engine == "trajectories" else engine


def recipe_of(settings: dict[str, Any]) -> Recipe:
    """The recipe that `[training]` names."""
    return Recipe(**settings["training"])


def model_of(settings: dict[str, Any], data: Dataset, seed: int) -> nn.Module:
    """A model with its recipe, drawn from `seed`, for inputs and classes like those of `data`."""
    inputs, classes = tuple(data.x.shape[1:]), len(data.classes)
    model, run = settings["model"], settings["run"]
    if model["factory"] is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made: nn.Module = load_factory(model["factory"])(inputs, classes)
    else:
        made = HybridClassifier(
            circuit_of(settings),
            classes,
            encoder=model["encoder"],
            head=model["head"],
            hidden=model.get("hidden"),
            control=model["control"],
            inputs=inputs if len(inputs) > 1 else inputs[0],
            engine=engine_of(settings),
            dtype=DTYPES[run["dtype"]],
        )
    made = reinitialise(made, seed).to(device=run["device"], dtype=DTYPES[run["dtype"]])
    made.recipe = recipe_of(settings)  # type: ignore[assignment]
    return made


def model_identity(settings: dict[str, Any]) -> dict[str, Any]:
    """What determines an untrained model but its seed: two spellings of one circuit are the same."""
    model = settings["model"]
    if model["factory"] is not None:
        return {"factory": model["factory"], "source": source_hash(model["factory"])}
    parts = {key: model[key] for key in ("encoder", "head", "hidden", "control") if key in model}
    return {**parts, "circuit": json.loads(circuit_of(settings).to_json())}


def identities_of(settings: dict[str, Any], request: dict[str, Any], folder: str) -> dict[str, str]:
    """By name a hash of every set of a split, content, numbers and order.

    Beside the sets that `Split.sets` names, "original" trains the original, and "clean" is there where some are
    corrupted.
    """
    part = {key: settings[key] for key in ("data", "protocol")}
    return dict(_identities(canonical(part), canonical(request), folder))


@functools.lru_cache(maxsize=1024)
def _identities(part: str, request: str, folder: str) -> dict[str, str]:
    split = _split(part, request, folder)
    sets = {**split.sets(), "original": split.original} | ({"clean": split.clean} if len(split.corrupted) else {})
    return {name: hash_of({"content": data.fingerprint, "ids": data.ids.tolist()}) for name, data in sets.items()}
