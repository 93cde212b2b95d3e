"""The comparison that is read at the end of a hardware run, with measurements whose truth is known."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

import qunlearn as qu
from qunlearn.errors import InputError
from qunlearn.evaluation import evaluate
from qunlearn.study.hardware_report import EXACT, HARDWARE, SHOTS, compare, write_comparison

Floats = NDArray[np.float64]
SHOTS_TAKEN = 400


@dataclass
class Collected:
    """As a hardware run leaves it."""

    models: dict[str, Any]
    roles: dict[str, str]
    keys: dict[str, str]
    ids: dict[str, NDArray[np.int64]]
    labels: dict[str, NDArray[np.int64]]
    features: dict[str, dict[str, Floats]]
    values: dict[str, dict[str, Floats]]
    errors: dict[str, dict[str, Floats]]
    backend: str = "ibm_somewhere"
    shots: int = SHOTS_TAKEN
    mitigation: None = None
    prepared: dict[str, Any] = field(default_factory=dict)


def exact_values(model: Any, x: Floats) -> Floats:
    with torch.no_grad():
        found: Floats = model.quantum.double()(torch.from_numpy(x)).numpy()
    model.float()
    return found


@pytest.fixture(scope="module")
def run() -> Collected:
    """Six models on 24 samples of each set of an iris split; the hardware halves every expectation value."""
    split = qu.load_dataset("iris").split(qu.ForgetRequest.of_fraction(0.2), seed=0)
    circuit, roles, models = qu.load_circuit("ring-cz", qubits=4, depth=1), {}, {}
    for seed, name in enumerate(("original", "one", "two", "three", "retrained 0", "retrained 1")):
        models[name] = qu.HybridClassifier(circuit, 3, generator=torch.Generator().manual_seed(seed)).eval()
        roles[name] = "unlearned" if seed in (1, 2, 3) else name.split()[0]
    sets = {name: getattr(split, name) for name in ("forget", "retain", "test", "holdout")}
    sets = {name: data.select(np.arange(min(24, len(data)))) for name, data in sets.items()}
    features = {m: {name: data.x.double().numpy() for name, data in sets.items()} for m in models}
    values = {m: {name: 0.5 * exact_values(models[m], x) for name, x in features[m].items()} for m in models}
    errors = {m: {name: np.sqrt((1 - v**2) / SHOTS_TAKEN) for name, v in values[m].items()} for m in models}
    labels = {name: data.y.numpy() for name, data in sets.items()}
    ids = {name: data.ids.numpy() for name, data in sets.items()}
    return Collected(models, roles, dict.fromkeys(models, ""), ids, labels, features, values, errors)


def entry(outcome: Any, model: str, way: str, measure: str) -> Any:
    return next(e.bounds for e in outcome.comparison.entries if (e.model, e.way, e.measure) == (model, way, measure))


def test_columns_are_what_the_heads_make_of_the_values(run: Collected) -> None:
    outcome = compare(None, run, resamples=100)  # type: ignore[arg-type]
    for name, model in run.models.items():
        with torch.no_grad():
            exact = model(torch.from_numpy(run.features[name]["test"]).float()).argmax(1).numpy()
            halved = model.head(torch.from_numpy(run.values[name]["test"]).float()).argmax(1).numpy()
        y = run.labels["test"]
        assert entry(outcome, name, EXACT, "accuracy_test").value == np.mean(exact == y)
        assert entry(outcome, name, HARDWARE, "accuracy_test").value == np.mean(halved == y)
        assert abs(entry(outcome, name, SHOTS, "accuracy_test").value - np.mean(exact == y)) < 0.25
    assert [way.name for way in outcome.comparison.ways] == [EXACT, SHOTS, HARDWARE]
    assert any("noisy model is left out" in note and "ibm_somewhere" in note for note in outcome.notes)


def test_a_perfect_device_changes_nothing(run: Collected) -> None:
    values = {m: {name: exact_values(run.models[m], x) for name, x in run.features[m].items()} for m in run.models}
    errors = {m: {name: np.zeros_like(v) for name, v in sets.items()} for m, sets in values.items()}
    outcome = compare(None, replace(run, values=values, errors=errors), resamples=100)  # type: ignore[arg-type]
    for one in outcome.comparison.entries:
        if one.way == HARDWARE:
            assert one.bounds.value == pytest.approx(
                entry(outcome, one.model, EXACT, one.measure).value, abs=1e-6, nan_ok=True
            )
    taus = [order.bounds for order in outcome.comparison.orders if order.way == HARDWARE]
    assert all(bounds.value == 1.0 for bounds in taus if np.isfinite(bounds.value))


def test_samples_that_are_not_there_yet_are_left_out_and_counted(run: Collected) -> None:
    values = {m: {name: v.copy() for name, v in sets.items()} for m, sets in run.values.items()}
    values["two"]["test"][[3, 5]] = np.nan
    outcome = compare(None, replace(run, values=values), resamples=50)  # type: ignore[arg-type]
    assert len(outcome.comparison.setting.labels["test"]) == len(run.labels["test"]) - 2
    assert any(note.startswith("2 of ") for note in outcome.notes)
    nothing = {m: {name: v * np.nan for name, v in sets.items()} for m, sets in values.items()}
    with pytest.raises(InputError, match="got none yet"):
        compare(None, replace(run, values=nothing))  # type: ignore[arg-type]


def test_the_report_stands_alone_and_twice_the_same(run: Collected, tmp_path: Path) -> None:
    pages = [write_comparison(None, tmp_path / name, run) for name in ("a", "b")]  # type: ignore[arg-type]
    files = [
        {str(p.relative_to(page.parent)): p.read_bytes() for p in page.parent.rglob("*") if p.is_file()}
        for page in pages
    ]
    assert files[0] == files[1]
    assert pages[0] == tmp_path / "a" / "report" / "report.html"
    assert {"comparison.csv", "comparison.parquet", "order.csv", "order.parquet"} <= files[0].keys()
    assert {"figures/side-by-side.png", "figures/order.svg"} <= files[0].keys()
    text = pages[0].read_text(encoding="utf-8")
    assert "://" not in text
    assert set(re.findall(r'href="([^#"][^"]*)"', text)) == {"data:,", "comparison.csv", "order.csv"}
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert "Does the order of methods survive?" in text
    table = pd.read_parquet(tmp_path / "a" / "report" / "comparison.parquet")
    row = table[(table["model"] == "two") & (table["way"] == HARDWARE) & (table["measure"] == "accuracy_forget")]
    assert f'data-value="{row["value"].iloc[0]}"' in text
    read = pd.read_csv(tmp_path / "a" / "report" / "comparison.csv")
    pd.testing.assert_frame_equal(read, table, rtol=1e-15)


def test_every_measure_of_a_studys_models_stands_beside(finished: tuple[Path, str], tmp_path: Path) -> None:
    root = Path(shutil.copytree(finished[0], tmp_path / "tiny"))
    study = qu.load_study(root)
    rows = [task for task in study.trials if task.request == study.trials[0].request]
    split = qu.load_dataset("iris").split(qu.ForgetRequest.of_fraction(0.1), seed=0)
    chosen = {"original": rows[0], "retrained 1000": rows[1], "retrained 1001": rows[2], "fine-tune": rows[3]}
    models = {name: study.model(task.key).eval() for name, task in chosen.items()}
    sets = {name: getattr(split, name) for name in ("forget", "retain", "test", "holdout")}
    features = {m: {name: data.x.double().numpy() for name, data in sets.items()} for m in models}
    values = {m: {name: exact_values(models[m], x) for name, x in features[m].items()} for m in models}
    collected = Collected(
        models,
        {name: "unlearned" if name == "fine-tune" else name.split()[0] for name in models},
        {name: task.key for name, task in chosen.items()},
        {name: data.ids.numpy() for name, data in sets.items()},
        {name: data.y.numpy() for name, data in sets.items()},
        features,
        values,
        {m: {name: np.full_like(v, 0.05) for name, v in sets_.items()} for m, sets_ in values.items()},
    )
    page = write_comparison(root, tmp_path / "hardware", collected)  # type: ignore[arg-type]
    table = pd.read_parquet(page.parent / "metrics.parquet").set_index(["model", "way"])
    retrained = [models["retrained 1000"], models["retrained 1001"]]
    expected = evaluate(models["fine-tune"], split, original=models["original"], retrained=retrained)
    for name in ("accuracy_test", "js_forget", "kl_test", "membership_auc", "gap_forget", "tow", "weight_distance"):
        for way in (EXACT, HARDWARE):  # which measured the exact values here
            assert table.loc[("fine-tune", way), name] == pytest.approx(expected[name], abs=2e-5)
    assert table["accuracy_validation"].isna().all()
    assert "state_fidelity_test" not in table


@pytest.mark.slow
def test_the_noisy_model_is_what_a_simulated_machine_gives(run: Collected, tmp_path: Path) -> None:
    """On a fake device both draw from the same distribution: squared differences in standard errors average 1."""
    from qunlearn.study.hardware_report import _noisy, _sampled

    split = qu.load_dataset("iris").split(qu.ForgetRequest.of_fraction(0.2), seed=0)
    sets = {name: getattr(split, name).select(np.arange(10)) for name in ("forget", "retain", "test", "holdout")}
    bundle = qu.hardware.Bundle({name: run.models[name] for name in ("original", "one", "retrained 0")}, sets)
    qu.hardware.plan(bundle, tmp_path / "run", backend="fake_manila", shots=2000)
    qu.hardware.submit(tmp_path / "run")
    collected = qu.hardware.collect(tmp_path / "run")

    def squares(other: Any) -> float:
        parts = [
            np.square(other.values[m][n] - collected.values[m][n])
            / (np.square(other.errors[m][n]) + np.square(collected.errors[m][n]) + 1e-9)
            for m in collected.models
            for n in collected.ids
        ]
        return float(np.mean(parts))

    assert 0.8 < squares(_noisy(collected)) < 1.25
    assert squares(_sampled(collected)) > 3
    text = write_comparison(None, tmp_path / "run", collected).read_text(encoding="utf-8")
    assert "noisy model is left out" not in text
