"""A study from its file to its records: run, interrupted, killed, damaged, resumed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import qunlearn as qu
from qunlearn.errors import InputError, UnknownNameError
from qunlearn.study.executors import LocalPool
from qunlearn.study.plan import make_plan
from qunlearn.study.reading import read_study
from qunlearn.study.runner import run_study
from qunlearn.study.store import Store
from qunlearn.study.task import Unit
from tests.study.conftest import plugin, records, start


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the report out, which has tests of its own."""
    import qunlearn.study.report as report

    assert isinstance(report, ModuleType)
    monkeypatch.setattr(report, "write_report", lambda root: Path(root) / "report" / "report.html")


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.02)


def test_results_of_a_finished_study(finished: tuple[Path, str]) -> None:
    root, printed = finished
    study = qu.load_study(root)
    table = study.table()
    assert list(table["method"][:6]) == [
        "none",
        "retrain",
        "retrain",
        "fine-tune",
        "gradient-ascent(epochs=2)",
        "adaprob",
    ]
    assert list(table.columns[:14]) == [
        "study", "trial", "protocol", "dataset", "split_seed", "circuit", "qubits", "depth", "entanglement", "encoder",
        "head", "request", "method", "seed",
    ]  # fmt: skip
    assert list(table.columns[-4:]) == ["gradient_evaluations", "circuit_evaluations", "hardware_circuits", "epochs"]
    assert set(table["entanglement"]) == {"ring"}
    assert list(table["trial"]) == [task.key for task in study.trials]
    untouched = table[table["method"] == "none"]
    assert (untouched["accuracy_test"] == untouched["original_accuracy_test"]).all()
    retrained = table[table["method"] == "retrain"]
    assert set(retrained["seed"]) == {1000, 1001}
    np.testing.assert_allclose(retrained["kl_test"].groupby(retrained["request"]).mean(),
                               retrained.groupby("request")["kl_test_floor"].first(), atol=1e-12)  # fmt: skip
    assert list(study.timing()["trial"]) == list(table["trial"])
    assert study.failed == []
    assert "logistic regression" in printed
    assert f"Report: {root / 'report' / 'report.html'}" in printed
    assert (root / "report" / "report.html").is_file()


def test_models_of_a_study_say_what_its_table_says(finished: tuple[Path, str]) -> None:
    study = qu.load_study(finished[0])
    split = qu.load_dataset("iris").split(qu.ForgetRequest.of_fraction(0.1), seed=0)
    for row in study.table().to_dict("records")[:6]:
        model = study.model(str(row["trial"])).eval()
        with torch.no_grad():
            accuracy = (model(split.test.x).argmax(1) == split.test.y).double().mean()
        assert float(accuracy) == pytest.approx(row["accuracy_test"])
    with pytest.raises(UnknownNameError, match="trial"):
        study.model("no such trial")


def test_originals_are_shared_between_requests_and_never_with_retrained(tiny: Path) -> None:
    plan = make_plan(read_study(tiny, ["seed=[0, 1]", "model.depth=[1, 2]", "training.epochs=[3]"]))
    assert [len(plan.of(kind)) for kind in ("original", "retrained", "trial")] == [4, 8, 2 * 2 * (2 + 2 + 3 * 2)]
    assert len({task.key for task in plan.tasks}) == len(plan.tasks)
    keys = {task.key for task in plan.of("original")} | {task.key for task in plan.of("retrained")}
    assert all(keys.issuperset(task.needs) for task in plan.of("trial"))
    paired = make_plan(read_study(tiny, ["paired=true", "seed=[0, 1]"]))
    chosen = [task.retrained for task in paired.of("trial") if task.row["method"] == "fine-tune"]
    assert [len(keys) for keys in chosen] == [1, 1, 1, 1]
    assert len(set(chosen)) == 4


@pytest.mark.parametrize(
    ("change", "models_stay", "trials_stay"),
    [
        ("run.workers=1", True, True),
        ("retrained=3", True, False),
        ('method=["fine-tune", {name="gradient-ascent", epochs=2}, "scrub"]', True, True),
        ('method=[{name="fine-tune", epochs=9}]', True, False),
        ("training.epochs=4", False, False),
        ("run.dtype=float64", False, False),
        ("data.split_seed=1", False, False),
        ('model.entanglement="linear"', False, False),
        ('model.entanglement="ring"', True, True),
    ],
)
def test_keys_change_with_what_determines_a_result(
    tiny: Path, change: str, models_stay: bool, trials_stay: bool
) -> None:
    before, after = make_plan(read_study(tiny)), make_plan(read_study(tiny, [change]))

    def keys(plan: Any, kind: str) -> set[str]:
        return {task.key for task in plan.of(kind) if kind != "trial" or task.row["method"] == "fine-tune"}

    assert bool(keys(before, "original") & keys(after, "original")) == models_stay
    assert bool(keys(before, "trial") & keys(after, "trial")) == trials_stay


@pytest.mark.usefixtures("no_report")
def test_one_worker_gives_the_same_bytes(finished: tuple[Path, str], tiny: Path, tmp_path: Path) -> None:
    done = run_study(read_study(tiny), tmp_path / "tiny", workers=1, say=lambda line: None)
    assert done.failed == 0
    assert records(tmp_path / "tiny") == records(finished[0])


@pytest.mark.usefixtures("no_report")
@pytest.mark.usefixtures("no_report")
def test_interrupted_then_killed_then_resumed(finished: tuple[Path, str], tiny: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    process = start("run", str(tiny), "--out", str(root), "--workers", "1", bare=True)
    wait_for(lambda: len(records(root)) >= 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out.strip().splitlines()[-1].endswith(f"qunlearn run {root}")
    assert "Traceback" not in err
    kept = len(records(root))
    process = start("run", str(root), "--workers", "2", bare=True)
    wait_for(lambda: len(records(root)) >= kept + 2)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate(timeout=60)
    assert len(workers) == 2
    wait_for(lambda: not any(_alive(int(worker)) for worker in workers), 20)
    partly = records(root)
    assert len(partly) < len(records(finished[0]))
    run_study(read_study(root / "study.toml", folder=tiny.parent), root, workers=1, say=lambda line: None)
    assert records(root) == records(finished[0])
    assert not (root / ".draft").exists()


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.usefixtures("no_report")
def test_damaged_files_are_named_and_computed_again(finished: tuple[Path, str], copied: Path, tiny: Path) -> None:
    study = qu.load_study(copied)
    model = study.store.folder("original", study.tasks[0].key) / "model.safetensors"
    record = study.store.folder("trial", study.trials[3].key) / "result.json"
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    record.write_text(record.read_text().replace("accuracy_test", "accuracy_tset"), encoding="utf-8")
    with pytest.raises(qu.QunlearnError, match=record.parent.name):
        study.table()
    said: list[str] = []
    run_study(read_study(tiny), copied, workers=1, say=said.append)
    assert any(str(model) in line and "Set aside" in line for line in said)
    assert any(str(record) in line for line in said)
    assert records(copied) == records(finished[0])
    assert len(list(copied.glob("*/*.corrupt"))) == 2


def test_another_study_in_the_folder_is_refused(copied: Path, tiny: Path) -> None:
    before = records(copied)
    with pytest.raises(InputError, match=r"training\.epochs: 3 there, 4 now"):
        run_study(read_study(tiny, ["training.epochs=4"]), copied)
    assert records(copied) == before


PLUGIN = plugin(
    raises='raise ValueError("no way")',
    dies="os._exit(7)",
    dies_once="""
        print("this must not be taken for an answer")
        mark = Path(__file__).with_suffix(".mark")
        if not mark.exists():
            mark.touch()
            os._exit(7)
        return model
    """,
)


def test_failures_are_kept_apart_and_the_rest_goes_on(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "unlikely_plugin.py").write_text(PLUGIN, encoding="utf-8")
    text = tiny.read_text().replace('"adaprob"', '"raises", "dies", "dies-once"').replace(", { class = 0 }", "")
    (tmp_path / "study.toml").write_text(text + '[plugins]\nmodules = ["unlikely_plugin"]\n', encoding="utf-8")
    root = tmp_path / "out"
    process = start("run", str(tmp_path / "study.toml"), "--out", str(root), "--workers", "1", bare=True)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "no way" in err
    assert "Traceback" not in err, err
    assert out.strip().splitlines()[-1].endswith(f"qunlearn run {root} --retry-failed")
    study = qu.load_study(root)
    assert [failure["error"].partition(";")[0] for failure in study.failed] == [
        "ValueError: no way",
        "its worker process ended 2 times, last with exit code 7",
    ]
    report = json.loads(study.store.failure(study.failed[0]["trial"]).read_text())
    assert 'raise ValueError("no way")' in report["traceback"]
    assert report["reproduce"].startswith("python -m qunlearn.study.worker ")
    methods = list(study.table()["method"])
    assert methods == ["none", "retrain", "retrain", "fine-tune", "gradient-ascent(epochs=2)", "dies-once"]


def test_what_needs_a_failed_model_fails_too(tiny: Path, tmp_path: Path) -> None:
    plan = make_plan(read_study(tiny))
    broken = {**plan.tasks[0].settings, "data": {**plan.tasks[0].settings["data"], "dataset": "no such"}}
    first = type(plan.tasks[0])(**{**vars(plan.tasks[0]), "settings": broken})
    (tmp_path / "out").mkdir()
    pool = LocalPool(Store(tmp_path / "out"), tmp_path, workers=1, threads=1)
    needing = [task for task in plan.of("trial") if task.original == first.key][:2]
    finished = {key for task in needing for key in task.retrained}
    outcomes = list(pool.run([Unit.alone(task) for task in (first, *needing)], finished, set()))
    assert [outcome.status for outcome in outcomes] == ["failed"] * 3
    assert "did you mean" in outcomes[0].message or "known:" in outcomes[0].message
    assert all(first.key in outcome.message for outcome in outcomes[1:])
    assert len(Store(tmp_path / "out").failures()) == 3


def test_workers_leave_the_heavy_libraries_alone() -> None:
    code = "import sys, qunlearn.study.trial, qunlearn.study.worker; print(sorted(sys.modules))"
    import subprocess
    import sys

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("pennylane", "qiskit", "matplotlib", "pandas", "sklearn", "typer", "pydantic"):
        assert f"'{name}'" not in out
    assert os.environ.get("PYTHONPATH") is None or "'torch'" in out


MINE = """
from torch import nn


def make_model(inputs, classes):
    return nn.Sequential(nn.Linear(inputs[0], 8), nn.Tanh(), nn.Linear(8, classes))
"""


@pytest.mark.usefixtures("no_report")
def test_a_model_and_data_of_ones_own(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(90, 3)) + np.repeat(np.arange(3), 30)[:, None] * 3
    rows = [",".join([*(f"{value:.4f}" for value in row), "abc"[i // 30]]) for i, row in enumerate(x)]
    (tmp_path / "mine.csv").write_text("u,v,w,kind\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "factory_of_mine.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nretrained = 2\n[data]\nfile = "mine.csv"\nlabel = "kind"\n'
        '[model]\nfactory = "factory_of_mine:make_model"\n[training]\nepochs = 20\n'
        '[grid]\nrequest = [{ class = "b" }]\nmethod = ["fine-tune"]\n',
        encoding="utf-8",
    )
    done = run_study(read_study(tmp_path / "mine.toml"), tmp_path / "out", workers=1, say=lambda line: None)
    assert done.failed == 0
    study = qu.load_study(tmp_path / "out")
    table = study.table()
    assert set(table["circuit"]) == {"factory_of_mine:make_model"}
    assert set(table["dataset"]) == {"mine.csv"}
    assert table["qubits"].isna().all()
    assert table["original_accuracy_test"].min() > 0.8
    model = study.model(table.iloc[-1])
    assert isinstance(model, torch.nn.Sequential)
    assert make_plan(read_study(tmp_path / "mine.toml")).tasks[0].key == study.tasks[0].key
    (tmp_path / "factory_of_mine.py").write_text(MINE.replace("Tanh", "ReLU"), encoding="utf-8")
    assert make_plan(read_study(tmp_path / "mine.toml")).tasks[0].key != study.tasks[0].key
