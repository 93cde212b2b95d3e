"""What is measured beside each cell of a study: what its circuit is like, and how far its originals memorised."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset, Split
from qunlearn.files import write_bytes
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.describe import entangling_capability, expressibility
from qunlearn.quantum.fisher import quantum_fisher
from qunlearn.study.plugins import import_plugins
from qunlearn.study.prepare import identities_of, model_identity, model_of, split_of
from qunlearn.study.store import read_json
from qunlearn.study.task import Task, canonical, hash_of
from qunlearn.study.trial import restore

if TYPE_CHECKING:
    from pandas import DataFrame

    from qunlearn.study.results import Study

FILE = "cells.json"  # figures by the hash of all that determines them
REVISION = 1  # of what is measured here
SAMPLES = 16  # retained samples of a Fisher matrix: 16 states of n wires span more directions than angles are swept
DRAWS = 20  # initialisations over which gradients vary
BATCH = 64  # retained samples of their loss
RANK = 1e-9  # eigenvalues below this share of the largest count as none
FIGURES = (
    "weights", "circuit_weights", "expressibility", "entangling_capability", "fisher_rank", "fisher_trace",
    "gradient_variance", "generalisation_gap", "membership_advantage", "memorised",
)  # fmt: skip


def measure_cells(study: Study, records: DataFrame) -> DataFrame:
    """One row a cell, which is a setting of the models with a request: what identifies it, then `FIGURES`.

    - ``weights``, ``circuit_weights``: trained scalars of the model, and of its circuit or what stands for it;
    - ``expressibility``, ``entangling_capability``: of the circuit alone, at features of 0 (`qunlearn.quantum`);
    - ``fisher_rank``, ``fisher_trace``: of the quantum Fisher information of the trained angles, averaged over 16
      evenly spaced retained samples, at the originals' weights; means over seeds;
    - ``gradient_variance``: variance over 20 initialisations of the loss's derivative by an angle (or a weight of the
      twin), mean over angles; on up to 64 retained samples;
    - ``generalisation_gap``: the originals' accuracy on the retain set minus that on the test set;
    - ``membership_advantage``: 2 AUC - 1 of the loss attack on the originals' forget set;
    - ``memorised``: accuracy on the forget set, original minus retrained models.

    The last three are means over splits and seeds. What a cell has not (a twin no states, a frozen circuit no trained
    angles) is NaN. What takes models is computed once and kept in the study's ``cells.json``.

    Args:
        study: with trials done.
        records: its table.
    """
    import pandas as pd

    own = records[records["method"] == "none"].set_index("trial")
    import_plugins(study.folder, study.config["plugins"]["modules"])
    kept = _Kept(study.root / FILE)
    cells: dict[str, list[Task]] = {}
    for task in study.trials:
        if task.key in own.index:
            cells.setdefault(canonical([task.settings["model"], task.request, _place(task.row)]), []).append(task)
    rows = []
    for tasks in cells.values():
        told = own.loc[[task.key for task in tasks]]
        rows.append(_place(tasks[0].row) | _of_models(study, tasks, kept) | _of_records(told))
    kept.save()
    return pd.DataFrame(rows, columns=[*(_place(study.trials[0].row)), *FIGURES])


def _place(row: dict[str, Any]) -> dict[str, Any]:
    """What names a cell in tables."""
    return {k: v for k, v in row.items() if k not in ("study", "trial", "split_seed", "method", "seed")}


def _of_records(told: DataFrame) -> dict[str, float]:
    """What the trials of the untouched originals say."""
    mean = told.mean(numeric_only=True)
    return {
        "generalisation_gap": float(mean["accuracy_retain"] - mean["accuracy_test"]),
        "membership_advantage": float(2 * mean["membership_auc"] - 1) if "membership_auc" in mean else np.nan,
        "memorised": float(mean["accuracy_forget"] - mean["retrained_accuracy_forget"]),
    }


def _of_models(study: Study, tasks: Sequence[Task], kept: _Kept) -> dict[str, float]:
    """What circuit and models are like."""
    first = tasks[0]
    split = split_of(first.settings, first.request, study.folder)
    fresh = model_of(first.settings, split.train, 0)
    trained = sum(parameter.numel() for parameter in fresh.parameters() if parameter.requires_grad)
    found = dict.fromkeys(FIGURES[:7], float("nan")) | {"weights": float(trained)}
    middle = getattr(fresh, "quantum", None)
    if not isinstance(middle, nn.Module):
        return found
    angles = middle.weights
    assert isinstance(angles, Tensor)
    moved = angles.requires_grad
    circuit = middle.circuit if hasattr(middle, "circuit") else None
    found["circuit_weights"] = float(angles.numel()) if moved else 0.0
    if isinstance(circuit, Circuit):
        text = circuit.to_json()
        if not circuit.amplitude:
            found["expressibility"] = kept("expressibility", text, lambda: expressibility(circuit))
            found["entangling_capability"] = kept("entangling", text, lambda: entangling_capability(circuit))
        if moved:
            pairs = [_fisher(study, task, kept) for task in tasks]
            found["fisher_rank"], found["fisher_trace"] = np.mean(pairs, axis=0).tolist()
    if moved:
        determined = [model_identity(first.settings), first.settings["run"], _retained(study, first)]
        found["gradient_variance"] = kept("gradient", determined, lambda: _gradient_variance(first, split))
    return found


def _fisher(study: Study, task: Task, kept: _Kept) -> tuple[float, float]:
    """Rank and trace for one original, at retained samples of its request."""
    split = split_of(task.settings, task.request, study.folder)

    def measure() -> list[float]:
        assert task.original is not None
        model: Any = restore(task.settings, "original", task.original, split, study.store)
        circuit, weights = model.quantum.circuit.without_noise(), model.quantum.weights.detach()
        with torch.no_grad():
            features = model.encoder(model._tensor(_even(split.retain, SAMPLES).x))
        fisher = quantum_fisher(circuit, features, weights)
        rank = int(torch.linalg.matrix_rank(fisher, hermitian=True, rtol=RANK))
        return [float(rank), float(fisher.trace())]

    rank, trace = kept("fisher", [task.original, _retained(study, task)], measure)
    return rank, trace


def _retained(study: Study, task: Task) -> str:
    """What names the retain set."""
    return identities_of(task.settings, task.request, study.folder)["retain"]


def _gradient_variance(task: Task, split: Split) -> float:
    """Var over initial weights of the loss's derivative by each weight of the circuit or twin, mean over weights."""
    data, slopes = _even(split.retain, BATCH), []
    for seed in range(DRAWS):
        model: Any = model_of(task.settings, split.train, seed)
        model.fit(split.train.x)
        loss = nn.functional.cross_entropy(model(data.x), data.y)
        slopes.append(torch.autograd.grad(loss, model.quantum.weights)[0].double())
    return float(torch.stack(slopes).var(dim=0, unbiased=True).mean())


def _even(data: Dataset, count: int) -> Dataset:
    """Evenly spaced samples, at most so many."""
    return data.select(np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(np.int64)))


class _Kept:
    """Figures that a file keeps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = read_json(path) if path.is_file() else {}
        self.more = False

    def __call__(self, what: str, determined: Any, measure: Callable[[], Any]) -> Any:
        """The figure of that name, measured if the file has it not."""
        key = hash_of([REVISION, what, determined])
        if key not in self.found:
            self.found[key], self.more = measure(), True
        return self.found[key]

    def save(self) -> None:
        """Write the file if there is anything new."""
        if self.more:
            write_bytes(self.path, (json.dumps(self.found, indent=0, sort_keys=True) + "\n").encode())
