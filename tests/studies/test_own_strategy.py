"""The judgement of our own strategy: its studies plan, and its differences are paired by seed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from qunlearn.data import Dataset, sources
from qunlearn.study.plan import make_plan
from qunlearn.study.reading import read_study

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("own_strategy", STUDIES / "own_strategy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["own-strategy-mnist", "own-strategy-poison"])
def test_its_studies_of_images_plan(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = torch.arange(10).repeat_interleave(60)
    images = Dataset(torch.rand(600, 1, 28, 28), classes, name="mnist")
    monkeypatch.setitem(sources._REGISTERED, "mnist", lambda: images)
    study = read_study(STUDIES / f"{name}.toml")
    plan = make_plan(study)
    assert len(plan.of("trial")) == len(study.requests) * (len(study.seeds) * (len(study.methods) - 1) + 6)


def test_differences_are_paired_by_seed(script: Any) -> None:
    rows = pd.DataFrame(
        [
            {"method": method, "seed": seed, "oracle_distance": value, "gradient_evaluations": cost}
            for method, values, cost in (
                ("kernel-guided", (1.0, 2.0, 3.0), 25),
                ("near", (1.5, 2.5, 3.5), 20),
                ("far", (4.0, 3.0, 5.0), 10),
                ("retrain", (1.0, 1.0, 1.0), 100),
            )
            for seed, value in zip((2, 0, 1), values, strict=True)
        ]
    ).assign(verdict="erases", accuracy_forget=0.5, accuracy_test=0.9)
    found = script.compared(rows.sample(frac=1, random_state=0), "kernel-guided")
    assert list(found.index) == ["kernel-guided", "near", "far"]
    assert found.loc["near", ["difference", "difference_low", "difference_high"]].tolist() == [-0.5, -0.5, -0.5]
    assert found.loc["far", "difference"] == pytest.approx(-2)
    assert found.loc["far", "difference_low"] < -2 < found.loc["far", "difference_high"]
    assert found["share"].tolist() == [0.25, 0.2, 0.1]
    assert found.loc["near", "verdicts"] == "3 erases"
    assert pd.isna(found.loc["kernel-guided", "difference"])
