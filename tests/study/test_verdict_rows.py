"""Every trial's row carries the verdict, also beside retrained models that an earlier version kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qunlearn as qu
from qunlearn.evaluation import VERDICTS, Predictions, evaluate, usual_range
from qunlearn.study import trial
from qunlearn.study.plan import Plan, make_plan
from qunlearn.study.prepare import split_of
from qunlearn.study.reading import read_study
from qunlearn.study.store import Store
from tests.study.conftest import TINY, run_alone

CHANGES = {"retrained = 2": "retrained = 3", "[{ fraction = 0.1 }, { class = 0 }]": "[{ class = 0 }]"}
METHODS = ('["fine-tune", { name = "gradient-ascent", epochs = 2 }, "adaprob"]', '["fine-tune", "head-only"]')


def _run(folder: Path, **model: str) -> tuple[Store, Plan]:
    """A study of one class request with three retrained models, in this process."""
    text = TINY
    for old, new in (*CHANGES.items(), METHODS):
        assert old in text
        text = text.replace(old, new)
    for key, value in model.items():
        text = text.replace("[model]", f"[model]\n{key} = {value}")
    folder.mkdir()
    (folder / "study.toml").write_text(text, encoding="utf-8")
    plan, store = make_plan(read_study(folder / "study.toml")), Store(folder / "run")
    for task in plan.tasks:
        run_alone(task, store, str(folder))
    return store, plan


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan]:
    return _run(tmp_path_factory.mktemp("verdicts") / "study")


def _rows(store: Store, plan: Plan) -> dict[str, dict[str, Any]]:
    return {task.row["method"]: store.result("trial", task.key)["row"] for task in plan.of("trial")}


def test_rows_hold_the_figures_and_the_verdict(made: tuple[Store, Plan]) -> None:
    store, plan = made
    rows = _rows(store, plan)
    task = plan.of("trial")[0]
    split = split_of(task.settings, task.request, str(store.root.parent))
    models = [trial.restore(task.settings, "retrained", key, split, store) for key in task.retrained]
    values = [evaluate(model, split)["helstrom_forget"] for model in models]
    for method in ("none", "fine-tune", "head-only"):
        row = rows[method]
        assert row["helstrom_forget_floor"] == pytest.approx(np.mean(values))
        low, high = usual_range(values)
        inside = [low <= row[name] <= high for name in ("helstrom_forget", "helstrom_forget_original")]
        assert row["verdict"] in VERDICTS
        assert (row["verdict"] == "undecided") == inside[1]
        assert (row["verdict"] == "erases") == (inside == [True, False])
    # The head alone was edited, and the untouched original not at all.
    for method in ("none", "head-only"):
        assert rows[method]["helstrom_forget"] == rows["none"]["helstrom_forget_original"]
    assert rows["retrain"]["verdict"] == ""  # two others are too few


def test_models_without_states_have_no_verdict(tmp_path: Path) -> None:
    rows = _rows(*_run(tmp_path / "twin", control='"twin"'))
    assert {row["verdict"] for row in rows.values()} == {""}
    assert {row["helstrom_forget"] for row in rows.values()} == {None}


def test_retrained_models_kept_without_unseen_states_are_asked_again(
    made: tuple[Store, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plan = made
    task = next(task for task in plan.of("trial") if task.row["method"] == "fine-tune")
    before = (store.folder("trial", task.key) / "result.json").read_bytes()
    load = Predictions.load

    def older(path: Path) -> Predictions:
        found = load(path)
        return dataclasses.replace(found, states={n: part for n, part in found.states.items() if n != "outside"})

    monkeypatch.setattr(Predictions, "load", older)
    for cache in (trial._predictions, trial._judge):
        cache.cache_clear()
    run_alone(task, store, str(store.root.parent))
    assert (store.folder("trial", task.key) / "result.json").read_bytes() == before


def test_the_table_of_a_study_holds_them(finished: tuple[Path, str]) -> None:
    table = qu.load_study(finished[0]).table()
    assert set(table["verdict"]) == {""}  # beside two retrained models
    assert table["helstrom_forget"].notna().all()
    assert (table.loc[table["method"] == "none", "helstrom_forget"] != 0).all()
