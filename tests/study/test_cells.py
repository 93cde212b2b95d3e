"""What is measured beside each cell, on a small study that was run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qunlearn.errors import InputError
from qunlearn.quantum.describe import entangling_capability, expressibility
from qunlearn.quantum.engines import state
from qunlearn.study.cells import FIGURES, FILE, measure_cells
from qunlearn.study.prepare import circuit_of, model_of, split_of
from qunlearn.study.reading import read_study
from qunlearn.study.report.pictures import _turn, states_of
from qunlearn.study.results import Study
from qunlearn.study.runner import run_study

TEXT = """\
name = "cells"
retrained = 2
[data]
dataset = "iris"
[training]
epochs = 2
[grid]
"model.depth" = [1, 2]
model = [{ entanglement = "none" }, { entanglement = "ring" }, { entanglement = "ring", control = "twin" },
         { entanglement = "ring", control = "frozen" }]
request = [{ fraction = 0.2 }]
method = ["fine-tune", "layer-reset"]
seed = [0, 1]
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, nothing_but_the_tasks: None) -> Study:
    folder = tmp_path_factory.mktemp("cells")
    (folder / "cells.toml").write_text(TEXT, encoding="utf-8")
    run_study(read_study(folder / "cells.toml"), folder / "run", workers=1, say=lambda line: None)
    return Study(folder / "run")


def derivatives(model: Any, x: Any) -> tuple[Any, Any]:
    """States and their derivatives by central differences, in float64."""
    layer, step = model.quantum, 1e-5
    features = model.encoder(model._tensor(x)).detach().double()

    def at(weights: Any) -> Any:
        return state(layer.circuit, features, weights).flatten(1)

    weights = layer.weights.detach().double()
    moves = torch.eye(len(weights), dtype=torch.float64) * step
    return at(weights), torch.stack([(at(weights + move) - at(weights - move)) / (2 * step) for move in moves], dim=1)


def test_every_cell_has_its_figures_and_controls_what_they_have(study: Study) -> None:
    found = measure_cells(study, study.table()).set_index(["circuit", "entanglement", "depth"])
    assert len(found) == 8
    for depth in (1, 2):
        assert found.loc[("ring-cz", "none", depth), list(FIGURES)].notna().all()
        assert found.loc[("ring-cz (classical twin)", "ring", depth), ["expressibility", "fisher_rank"]].isna().all()
        assert found.loc[("ring-cz (frozen)", "ring", depth), ["gradient_variance", "fisher_trace"]].isna().all()
        assert found.loc[("ring-cz (frozen)", "ring", depth), "circuit_weights"] == 0
        same = found.loc[[("ring-cz", "ring", depth), ("ring-cz (classical twin)", "ring", depth)], "weights"]
        assert same.nunique() == 1


def test_figures_are_those_of_their_definitions(study: Study) -> None:
    table = study.table()
    own = table[(table["circuit"] == "ring-cz") & (table["entanglement"] == "ring") & (table["depth"] == 1)]
    task = study.task(own[own["method"] == "none"].iloc[0])
    split = split_of(task.settings, task.request, study.folder)
    cells = measure_cells(study, table)
    one = cells[(cells["circuit"] == "ring-cz") & (cells["entanglement"] == "ring") & (cells["depth"] == 1)].iloc[0]
    circuit = circuit_of(task.settings)
    assert one["expressibility"] == expressibility(circuit)
    assert one["entangling_capability"] == entangling_capability(circuit)

    some = split.retain.x[np.unique(np.linspace(0, len(split.retain) - 1, 16).round().astype(int))]
    traces = []
    for key in own[own["method"] == "none"]["trial"]:
        states, slopes = derivatives(study.model(str(key)), some)
        along = torch.einsum("bwd,bd->bw", slopes, states.conj())
        traces.append(float(4 * (slopes.abs().square().sum(-1) - along.abs().square()).sum(1).mean()))
    assert one["fisher_trace"] == pytest.approx(np.mean(traces), rel=1e-5)

    batch, slopes = split.retain.select(np.unique(np.linspace(0, len(split.retain) - 1, 64).round().astype(int))), []
    for seed in range(20):
        model: Any = model_of(task.settings, split.train, seed)
        model.fit(split.train.x)
        loss = nn.functional.cross_entropy(model(batch.x), batch.y)
        slopes.append(torch.autograd.grad(loss, model.quantum.weights)[0].numpy())
    assert one["gradient_variance"] == pytest.approx(np.var(slopes, axis=0, ddof=1).mean(), rel=1e-4)

    rows = own[own["method"] == "none"]
    assert one["memorised"] == pytest.approx((rows["accuracy_forget"] - rows["retrained_accuracy_forget"]).mean())
    assert one["membership_advantage"] == pytest.approx((2 * rows["membership_auc"] - 1).mean())
    assert one["generalisation_gap"] == pytest.approx((rows["accuracy_retain"] - rows["accuracy_test"]).mean())


def test_what_took_models_is_kept(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure_cells(study, study.table())
    written = (Path(study.root) / FILE).read_bytes()
    monkeypatch.setattr("qunlearn.study.cells.quantum_fisher", None)  # must not be asked again
    monkeypatch.setattr("qunlearn.study.cells.expressibility", None)
    again = measure_cells(study, study.table())
    assert first.equals(again)
    assert (Path(study.root) / FILE).read_bytes() == written


def test_states_are_of_one_original_before_and_after_and_of_a_retrained_model(study: Study) -> None:
    found = states_of(study, "layer-reset")
    assert found is not None
    assert found.models == ("original", "layer-reset", "retrained")
    assert "depth 2, ring" in found.title
    table = study.table()
    own = table[(table["circuit"] == "ring-cz") & (table["entanglement"] == "ring") & (table["depth"] == 2)]
    for name, method in zip(found.models, ("none", "layer-reset", "retrain"), strict=True):
        key = str(own[own["method"] == method]["trial"].iloc[0])
        model: Any = study.model(key)
        split = split_of(study.task(key).settings, study.task(key).request, study.folder)
        with torch.no_grad():
            read = model.quantum(model.encoder(model._tensor(split.forget.x)))  # <Z> of every wire
        assert found.forget[name][..., 2] == pytest.approx(read.double().numpy(), abs=1e-5)
        assert found.overlaps[name].shape == (3, 3)
    assert not np.allclose(found.forget["original"], found.forget["retrained"], atol=1e-3)
    with pytest.raises(InputError, match="expected a trial of layer-reset"):
        states_of(study, "layer-reset", trial=str(own[own["method"] == "none"]["trial"].iloc[0]))


def test_a_method_that_aims_to_move_states_is_drawn_first(study: Study) -> None:
    plain = [task for task in study.done() if task.row["method"] == "layer-reset"]
    moving = dataclasses.replace(plain[-1], method={"name": "state-erasure"})
    assert min([*plain, moving], key=_turn) is moving
    known = dataclasses.replace(plain[-1], method={"name": "a method of the user's own"})
    assert _turn(known) == _turn(plain[-1])
