"""Noise, shots and backends in a study: what they change, what they leave as it was, and what is refused."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qunlearn as qu
from qunlearn.errors import InputError
from qunlearn.files import write_bytes
from qunlearn.methods.unlearn import unlearn_all
from qunlearn.metrics import accuracy
from qunlearn.study import runner, trial
from qunlearn.study.conditions import conditions, noise_of, trained
from qunlearn.study.config import Settings
from qunlearn.study.estimate import estimate
from qunlearn.study.plan import Plan, make_plan
from qunlearn.study.reading import read_study
from qunlearn.study.report import write_report
from qunlearn.study.store import Store
from qunlearn.study.task import hash_of, json_text, units_of
from qunlearn.study.trial import run_unit
from tests.study.conftest import records

SWEEP = """\
name = "sweep"
retrained = 2
[data]
dataset = "iris"
[model]
qubits = 4
depth = 1
[training]
epochs = 3
learning_rate = 0.05
[noise]
after = "gate"
[grid]
"noise.depolarizing" = [0, 0.05]
request = [{ fraction = 0.1 }]
method = ["fine-tune"]
seed = [0]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a study of two strengths."""
    path = tmp_path_factory.mktemp("studies") / "sweep.toml"
    path.write_text(SWEEP, encoding="utf-8")
    return path


def run(file: Path, root: Path, *changes: str) -> Any:
    """Run what is not there yet of a study, in this process and without a report; its results."""
    plan, store = make_plan(read_study(file, changes)), Store(root)
    write_bytes(root / "study.toml", plan.study.text.encode())
    write_bytes(root / "plan.json", json_text(plan.to_dict()).encode())
    done, damaged = store.finished(list(plan.tasks))
    assert damaged == []
    for unit in units_of(plan.tasks, {task.key for task in plan.tasks} - done):
        for ended in run_unit(unit, store, str(file.parent)):
            if ended.error is not None:
                raise ended.error
    return qu.load_study(root)


@pytest.fixture(scope="module")
def root(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of that study."""
    folder = tmp_path_factory.mktemp("runs") / "sweep"
    run(file, folder)
    return folder


def plan_of(file: Path, *changes: str) -> Plan:
    return make_plan(read_study(file, changes))


def keys(plan: Plan, *kinds: str) -> set[str]:
    return {task.key for task in plan.tasks if task.kind in kinds}


def test_studies_without_noise_are_what_they_were(tiny: Path) -> None:
    """The hash of this plan was taken before a study could set noise; a revision in `qunlearn` renews it."""
    plan = plan_of(tiny).to_dict()
    del plan["folder"]
    assert hash_of(plan) == "963c7f206e3a3dae7342c7e3"
    for change in ("noise.after=gate", "noise.during=all", "noise.t1=50.0", "run.shots=0", "noise.readout=0.0"):
        extra = ["noise.t2=50.0", "noise.gate_time=0"] if "t1" in change else []
        assert [task.to_dict() for task in plan_of(tiny, change, *extra).tasks] == plan["tasks"]


def cell(**tables: Any) -> dict[str, Any]:
    return Settings.model_validate(tables).settled()


def test_a_cell_holds_what_bears_on_something() -> None:
    assert conditions(cell()) == {}
    assert "noise" not in cell(noise={"depolarizing": 0.0, "after": "gate", "during": "all"})
    found = cell(noise={"bit_flip": 0.1, "readout": 0.02, "t1": 3.0, "t2": 2.0, "gate_time": 0})
    assert found["noise"] == {"bit_flip": 0.1, "readout": 0.02, "during": "evaluation"}
    assert cell(noise={"readout": 0.1, "after": "gate"}) == cell(noise={"readout": 0.1})
    assert conditions(cell(run={"shots": 10})) == {"noise": {"during": "evaluation"}, "shots": 10}
    exact = cell()
    for during, same in (("evaluation", True), ("all", False)):
        one = cell(run={"shots": 10, "backend": "aer"}, noise={"depolarizing": 0.1, "during": during})
        assert (trained(one) == exact) is same


def test_noise_of_a_cell_is_a_noise_model() -> None:
    from qunlearn.quantum.noise import NoiseModel

    table = {"depolarizing": 0.1, "phase_flip": 0.2, "readout": 0.02, "t1": 3.0, "t2": 2.0, "gate_time": 0.5}
    expected = NoiseModel.of(
        depolarizing=0.1, phase_flip=0.2, thermal_relaxation=[3.0, 2.0, 0.5], readout=0.02, after="gate"
    )
    assert noise_of(cell(noise={**table, "after": "gate"})) == expected
    assert noise_of(cell(noise={"device": "fake_manila"})) == "fake_manila"
    assert noise_of(cell(run={"shots": 10})) is None


def test_models_are_shared_between_strengths_unless_they_train_under_them(file: Path) -> None:
    exact, models = plan_of(file, "noise.depolarizing=[0]"), ("original", "retrained")
    swept = plan_of(file)
    assert keys(swept, *models) == keys(exact, *models)
    assert len(keys(swept, "trial")) == 2 * len(keys(exact, "trial"))
    assert keys(exact, "trial") < keys(swept, "trial")
    for change in ("run.shots=[0, 50]", 'noise=[{}, { readout = 0.1 }, { device = "fake_manila" }]'):
        assert keys(plan_of(file, "noise.depolarizing=[0]", change), *models) == keys(exact, *models)
    under = plan_of(file, "noise.during=all")
    assert len(keys(under, *models)) == 2 * len(keys(exact, *models))
    assert keys(exact, *models) < keys(under, *models)
    assert not {task.key for task in swept.of("trial") if "noise" in task.settings} & keys(under, "trial")
    tuned = plan_of(file, "tuning.budget=2")
    assert [len(tuned.of("tuning")), len(plan_of(file, "tuning.budget=2", "noise.during=all").of("tuning"))] == [1, 2]
    assert "noise_depolarizing" not in tuned.of("tuning")[0].row


def test_seeds_are_computed_one_by_one_where_each_draws(file: Path) -> None:
    def sizes(*changes: str) -> set[int]:
        plan = plan_of(file, "seed=[0, 1, 2]", "noise.depolarizing=[0.1]", *changes)
        units = [task.unit for task in plan.of("original")]
        return {units.count(unit) for unit in units}

    assert sizes() == sizes("noise.during=all") == {3}
    assert sizes("noise.during=all", "run.shots=10") == {1}
    assert sizes("run.shots=10") == {3}
    assert sizes("noise.during=all", "model.qubits=6", "model.encoder=pca", "data.dataset=wine") == {1}


def test_trials_that_differ_in_noise_alone_unlearn_once(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[int]] = []

    def counted(models: Any, *given: Any, seeds: list[int], **options: Any) -> Any:
        calls.append(seeds)
        return unlearn_all(models, *given, seeds=seeds, **options)

    monkeypatch.setattr(trial, "unlearn_all", counted)
    run(file, tmp_path / "both", "seed=[0, 1, 2]", "training.epochs=1")
    assert sorted(calls) == [[0], [0, 1, 2], [1], [2]]  # the untouched one by one
    run(file, tmp_path / "exact", "seed=[0, 1, 2]", "training.epochs=1", "noise.depolarizing=[0]")
    both, exact = records(tmp_path / "both"), records(tmp_path / "exact")
    assert {path: both[path] for path in exact} == exact


@pytest.mark.parametrize(
    ("before", "after", "fragments"),
    [
        ("[0, 0.05]", "[0, 1.5]", ["line 14", "noise.depolarizing", "at most 1", "1.5"]),
        ("[0, 0.05]", "[0, -0.1]", ["line 14", "at least 0", "-0.1"]),
        ("[0, 0.05]", '[0, "low"]', ["line 14", "a number", "'low'"]),
        ("noise.depolarizing", "noise.depolarising", ["line 14", "'noise.depolarizing'"]),
        ('after = "gate"', 'after = "gat"', ["line 12", "noise.after", "'gat'", "did you mean 'gate'"]),
        ('after = "gate"', "readuot = 0.1", ["line 12", "noise.readuot", "'readout'"]),
        ('after = "gate"', 'during = "training"', ["line 12", "noise.during", "'all'"]),
        ('after = "gate"', "t1 = 10.0", ["line 11", "noise", "no t2 and no gate_time"]),
        ('after = "gate"', "t1 = 10.0\nt2 = 30.0\ngate_time = 1.0", ["line 11", "at most 2 t1 = 20, got 30"]),
        ('after = "gate"', 'device = "fake_manila"', ["line 14", "device or strengths"]),
        ("[noise]", "[run]\nshots = -1\n[noise]", ["line 12", "run.shots", "at least 0"]),
        ("[noise]", '[run]\nbackend = "ibm_torino"\n[noise]', ["line 12", "run.backend", "qunlearn hardware plan"]),
        ("[noise]", '[run]\nbackend = "lightnin.qubit"\n[noise]', ["line 12", "run.backend", "lightning.qubit"]),
        ("[noise]", '[run]\nengine = "fused"\n[noise]', ["line 12", "run.engine", "'auto' with noise"]),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(
    tmp_path: Path, before: str, after: str, fragments: list[str]
) -> None:
    assert before in SWEEP
    path = tmp_path / "study.toml"
    path.write_text(SWEEP.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        make_plan(read_study(path))
    for fragment in ("study.toml", *fragments):
        assert fragment in str(caught.value)


def test_devices_are_refused_with_their_place(tmp_path: Path) -> None:
    for name, expected in (("fake_manilla", "fake_manila"), ("ibm_torino", "a fake backend")):
        path = tmp_path / "study.toml"
        text = SWEEP.replace('after = "gate"', f'device = "{name}"').replace('"noise.depolarizing" = [0, 0.05]', "")
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=rf"line 12, noise\.device.*{expected}"):
            make_plan(read_study(path))


def test_the_column_of_strength_zero_is_the_exact_study(root: Path, file: Path, tmp_path: Path) -> None:
    table = qu.load_study(root).table()
    assert list(table["noise_depolarizing"]) == [0.0] * 4 + [0.05] * 4
    run(file, tmp_path / "exact", "noise.depolarizing=[0]", "noise.after=two-qubit")
    exact, swept = records(tmp_path / "exact"), records(root)
    assert {path: swept[path] for path in exact} == exact
    assert len(exact) == 3 + 4


def test_predictions_under_noise_are_those_of_another_simulator(root: Path) -> None:
    """PennyLane's density matrices, and the head by hand."""
    import pennylane as qml

    study = qu.load_study(root)
    split = qu.load_dataset("iris").split(qu.ForgetRequest.of_fraction(0.1), seed=0)
    circuit = qu.load_circuit("ring-cz", qubits=4, depth=1).with_noise({"depolarizing": 0.05, "after": "gate"})
    node = qml.QNode(circuit.to_pennylane(), qml.device("default.mixed", wires=4))
    for row in study.table().to_dict("records")[4:]:
        model: Any = study.model(str(row["trial"]))
        x, weights = split.test.x.double().numpy(), model.quantum.weights.detach().double().numpy()
        values = np.stack([np.stack([float(v) for v in node(one, weights)]) for one in x])
        with torch.no_grad():
            logits = model.head(torch.from_numpy(values).float())
        assert accuracy(logits, split.test.y) == row["accuracy_test"]
    kept = {str(row["trial"]): row for row in study.table().to_dict("records")}
    models = [study.store.folder("trial", key) / "model.safetensors" for key in kept]
    unlearned = [path.read_bytes() for path in models if path.is_file()]
    assert len(unlearned) == 2
    assert unlearned[0] == unlearned[1]


def test_fidelities_of_states_are_left_out_under_noise(root: Path) -> None:
    table = qu.load_study(root).table()
    there = table["state_fidelity_test"].notna()
    assert list(there) == [True] * 4 + [False] * 4
    assert table["js_test"].notna().all()


def test_training_under_noise_gives_other_models_and_the_same_bytes_again(file: Path, tmp_path: Path) -> None:
    changes = ("noise.during=all", "seed=[0, 1]")
    study = run(file, tmp_path / "one", *changes)
    originals = [task for task in study.tasks if task.kind == "original" and task.seed == 0]
    weights = [study.store.folder("original", task.key) / "model.safetensors" for task in originals]
    assert weights[0].read_bytes() != weights[1].read_bytes()
    table = study.table()
    noisy = table[table["noise_depolarizing"] > 0]
    assert (noisy["accuracy_test"] == noisy["original_accuracy_test"])[noisy["method"] == "none"].all()
    before = records(study.root)
    for kind in ("trials", "models"):
        shutil.rmtree(next(iter(sorted((study.root / kind).iterdir()))))
    run(file, tmp_path / "one", *changes)
    assert records(study.root) == before


@pytest.mark.parametrize("during", ["evaluation", "all"])
def test_shots_draw_from_seeds_of_the_task(file: Path, tmp_path: Path, during: str) -> None:
    changes = ("noise.depolarizing=[0.05]", "run.shots=[0, 20]", f"noise.during={during}", "training.epochs=1")
    one, two = (run(file, tmp_path / name, *changes) for name in ("one", "two"))
    assert records(one.root) == records(two.root)
    table = one.table()
    assert list(table["shots"]) == [0] * 4 + [20] * 4
    exact, drawn = (table[table["shots"] == shots] for shots in (0, 20))
    assert (exact["js_test"].to_numpy() != drawn["js_test"].to_numpy()).all()
    untouched = drawn[drawn["method"] == "none"]
    assert (untouched["accuracy_test"] == untouched["original_accuracy_test"]).all()
    twice = drawn[drawn["method"] == "retrain"]["js_test"].nunique()
    assert twice == 1  # of two retrained models each is compared with the other, on the same draws


def test_trajectories_come_near_the_density_matrix(file: Path, root: Path, tmp_path: Path) -> None:
    drawn = run(file, tmp_path / "drawn", "run.engine=trajectories")
    assert keys(plan_of(file), "original", "retrained") == keys(
        plan_of(file, "run.engine=trajectories"), "original", "retrained"
    )
    exact = qu.load_study(root).table()
    for name in ("js_test", "kl_retain"):
        np.testing.assert_array_equal(drawn.table()[name][:4], exact[name][:4])
        assert not np.allclose(drawn.table()[name][4:], exact[name][4:], rtol=1e-6)
    np.testing.assert_allclose(drawn.table()["accuracy_test"], exact["accuracy_test"], atol=0.15)


def test_predictions_on_a_backend(file: Path, tmp_path: Path) -> None:
    changes = ("noise.depolarizing=[0]", "run.backend=lightning.qubit", "training.epochs=1")
    study = run(file, tmp_path / "lightning", *changes)
    exact = run(file, tmp_path / "exact", "noise.depolarizing=[0]", "training.epochs=1")
    for name in ("accuracy_test", "js_test", "membership_auc"):
        np.testing.assert_allclose(study.table()[name], exact.table()[name], atol=1e-5)
    assert "state_fidelity_test" not in study.table()


@pytest.mark.slow  # by the clock
def test_the_estimate_knows_that_noise_costs(file: Path) -> None:
    wide = ("data.dataset=digits", "data.per_class=20", "model.encoder=pca", "model.qubits=7")
    changes = {
        "exact": ("noise.depolarizing=[0]",),
        "evaluation": ("noise.depolarizing=[0.01]",),
        "all": ("noise.depolarizing=[0.01]", "noise.during=all"),
    }
    seconds = {}
    for name, own in changes.items():
        plan = plan_of(file, *wide, *own)
        cost = estimate(plan, patience=1.0)
        models = sum(cost.seconds[task.key] for task in plan.tasks if task.kind != "trial")
        seconds[name] = models, sum(cost.seconds.values()) - models
    assert seconds["all"][0] > max(seconds["exact"][0], seconds["evaluation"][0])
    assert seconds["evaluation"][1] > seconds["exact"][1]


@pytest.mark.slow
def test_workers_change_no_byte(file: Path, tmp_path: Path) -> None:
    changes = ("run.shots=[0, 20]", "noise.during=all", "training.epochs=1", "seed=[0, 1]")
    alone = run(file, tmp_path / "alone", *changes)
    done = runner.run_study(read_study(file, changes), tmp_path / "two", workers=2, say=lambda line: None)
    assert done.failed == 0
    assert records(tmp_path / "two") == records(alone.root)


@pytest.mark.slow
@pytest.mark.parametrize("during", ["evaluation", "all"])
def test_estimated_seconds_are_within_a_factor_of_three(file: Path, tmp_path: Path, during: str) -> None:
    changes = [
        "model.qubits=6",
        "model.encoder=pca",
        "data.dataset=wine",
        f"noise.during={during}",
        "training.epochs=5",
    ]
    plan = plan_of(file, *changes, "noise.depolarizing=[0.01]")
    expected, start = estimate(plan), time.thread_time()
    run(file, tmp_path / "run", *changes, "noise.depolarizing=[0.01]")
    taken = time.thread_time() - start
    assert taken / 3 <= sum(expected.seconds.values()) <= taken * 3


def test_the_report_shows_what_noise_changes(root: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(root, tmp_path / "sweep"))
    page = write_report(copied)
    assert (copied / "report" / "figures" / "noise-noise-depolarizing-5-percent.svg").is_file() or list(
        (copied / "report" / "figures").glob("noise-noise-depolarizing-*.svg")
    )
    text = page.read_text(encoding="utf-8")
    assert "What noise and shots change" in text
    assert "depolarizing noise 0.05" in text
