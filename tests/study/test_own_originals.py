"""Methods that train their own originals in a study, corrupted samples, guarantees and the history of trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression

import qunlearn as qu
from qunlearn import methods
from qunlearn.errors import InputError
from qunlearn.study.baselines import baselines
from qunlearn.study.plan import Plan, make_plan
from qunlearn.study.prepare import model_of, split_of
from qunlearn.study.reading import read_study
from qunlearn.study.results import Study
from qunlearn.study.runner import left_out
from qunlearn.study.status import accuracy_line
from qunlearn.study.store import Store
from qunlearn.study.task import Task
from qunlearn.study.trial import restore
from qunlearn.training.trace import Trace
from tests.study.test_audits import run

OWN = """\
name = "own"
retrained = 2
[data]
dataset = "iris"
[model]
qubits = 4
depth = 1
[training]
epochs = 2
learning_rate = 0.05
[grid]
request = [{ fraction = 0.1 }, { corrupted = true, label_flips = 0.1 }]
method = ["fine-tune", { name = "sisa", shards = 2, slices = 1 }, "amnesiac", "unsir", "kernel-downdate"]
seed = [0, 1]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a study of methods that train their originals."""
    path = tmp_path_factory.mktemp("studies") / "own.toml"
    path.write_text(OWN.replace(', "unsir"', ""), encoding="utf-8")
    return path


def plan_of(file: Path, *changes: str) -> Plan:
    return make_plan(read_study(file, changes))


@pytest.fixture(scope="module")
def study(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Its results."""
    return run(file, tmp_path_factory.mktemp("runs") / "own")


def own(study: Study | Plan, kind: str, name: str | None) -> list[Task]:
    return [task for task in study.tasks if task.kind == kind and (task.method or {}).get("name") == name]


def test_a_method_that_trains_has_originals_and_retrained_models_of_its_own(file: Path) -> None:
    plan = plan_of(file)
    shared = {task.key for task in plan.tasks if task.kind in ("original", "retrained") and task.method is None}
    for name in ("sisa", "amnesiac", "kernel-downdate"):
        originals, retrained = own(plan, "original", name), own(plan, "retrained", name)
        assert [task.seed for task in originals] == [0, 1] * 2  # of the clean and the corrupted training set
        assert [task.seed for task in retrained] == [1000, 1001] * 2
        keys = {task.key for task in (*originals, *retrained)}
        trials = own(plan, "trial", name)
        assert len(trials) == 4
        assert all({str(task.original), *task.retrained} <= keys for task in trials)
        assert all(task.unit == task.key for task in (*trials, *originals, *retrained))
        assert originals[0].title.startswith(f"original model of {name}, ")
    assert all({str(task.original), *task.retrained} <= shared for task in own(plan, "trial", "fine-tune"))
    other = plan_of(file, 'method=[{name="sisa", shards=3, slices=1}]')
    assert {task.key for task in own(other, "original", "sisa")}.isdisjoint(
        task.key for task in own(plan, "original", "sisa")
    )


def test_methods_that_train_are_not_tuned(file: Path) -> None:
    plan = plan_of(file, "tuning.budget=2")
    assert {task.row["method"] for task in plan.of("tuning")} == {"fine-tune"}


def test_models_are_what_the_method_trains(study: Study, file: Path) -> None:
    for name in ("sisa", "amnesiac", "kernel-downdate"):
        task = own(study, "original", name)[0]
        split = split_of(task.settings, task.request, study.folder)
        kept = restore(task.settings, "original", task.key, split, study.store)
        fresh: Any = model_of(task.settings, split.train, task.seed)
        made = methods.get(task.method or "").train(
            fresh, split.original, validation=split.validation, recipe=fresh.recipe, seed=task.seed
        )
        assert type(kept) is type(made)
        assert all(torch.equal(t, kept.state_dict()[key]) for key, t in made.state_dict().items())
        trace: Any = kept.trace
        assert isinstance(trace, Trace)
        assert trace.to_bytes() == made.trace.to_bytes()  # type: ignore[union-attr, operator]
        record = study.store.result("original", task.key)["record"]
        assert record["method"] == name
        assert set(record["counts"]) == {"gradient_evaluations", "circuit_evaluations", "hardware_circuits", "epochs"}


def test_trials_unlearn_from_the_kept_models_and_say_so(study: Study) -> None:
    table = study.table().set_index(["request", "method", "seed"])
    for task in own(study, "trial", "kernel-downdate"):
        split = split_of(task.settings, task.request, study.folder)
        original = restore(task.settings, "original", str(task.original), split, study.store)
        done = qu.unlearn(original, split, method="kernel-downdate", seed=task.seed, progress=False)
        with torch.no_grad():
            said = done.model(split.test.x).argmax(1)
            assert torch.equal(said, study.model(task.key)(split.test.x).argmax(1))
        found = table.loc[(task.row["request"], task.row["method"], task.seed), "accuracy_test"]
        assert found == pytest.approx(float((said == split.test.y).double().mean()))


def test_guarantees_have_columns_and_estimates_columns_of_their_own(study: Study) -> None:
    table = study.table()
    exact = table[table["method"].isin(["sisa(shards=2, slices=1)", "kernel-downdate"])]
    assert (exact["certificate"] == "exact").all()
    assert (exact["epsilon"] == 0).all()
    assert (exact["delta"] == 0).all()
    assert exact["epsilon_estimated"].isna().all()
    assert table[table["method"] == "fine-tune"]["certificate"].isna().all()


def test_an_estimate_never_stands_beside_a_guarantee() -> None:
    from qunlearn.methods.certificate import ESTIMATED, Guarantee
    from qunlearn.study.trial import _vouched

    found = _vouched(Guarantee(ESTIMATED, 1.5, 0.01, ("a bound",)).to_dict())
    assert found == {
        "certificate": ESTIMATED, "epsilon": None, "delta": None, "epsilon_estimated": 1.5, "delta_estimated": 0.01,
    }  # fmt: skip
    assert _vouched(Guarantee("certified", 0.5, 0.01).to_dict())["epsilon"] == 0.5
    assert _vouched(None) == {}


def test_a_method_is_left_out_where_it_cannot_work_and_the_plan_says_so(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(OWN.replace("{ fraction = 0.1 }", "{ fraction = 0.1 }, { class = 0 }"), encoding="utf-8")
    plan = plan_of(path)
    assert {task.row["request"] for task in plan.of("trial") if task.row["method"] == "unsir"} == {"class 0"}
    (sentence,) = left_out(plan)
    assert sentence.startswith("left out: unsir on 10 %, corrupted samples (10 % label flips): expected a request")
    assert [one["request"] for one in plan.to_dict()["left_out"]] == ["10 %", "corrupted samples (10 % label flips)"]
    with pytest.raises(InputError, match="unsir fits no part of this study"):
        plan_of(path, "request=[{fraction=0.1}]")


def test_what_an_encoder_learns_from_data_is_refused_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    text = OWN.replace('dataset = "iris"', 'dataset = "wine"').replace("qubits = 4", 'qubits = 4\nencoder = "pca"')
    path.write_text(text.replace('"unsir", ', ""), encoding="utf-8")
    with pytest.raises(InputError, match=r"line 14.*kernel-downdate fits no part of this study"):
        plan_of(path)


def test_a_trace_must_come_from_a_method_that_trains(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.available()["fine-tune"], "needs", frozenset({"forget", "retain", "trace"}))
    with pytest.raises(InputError, match="fine-tune fits no part of this study: it needs a trace"):
        plan_of(file)


def test_corrupted_samples_are_what_is_forgotten(study: Study) -> None:
    task = next(task for task in study.trials if task.row["request"].startswith("corrupted"))
    assert task.row["request"] == "corrupted samples (10 % label flips)"
    assert task.settings["data"]["label_flips"] == 0.1
    split = split_of(task.settings, task.request, study.folder)
    assert split.forget.ids.tolist() == split.corrupted.tolist()
    assert len(split.corrupted) == 9
    wanted = qu.load_dataset("iris").split(
        qu.ForgetRequest.of_corrupted(), seed=0, corruption=qu.Corruption(label_flips=0.1)
    )
    assert torch.equal(split.train.y, wanted.train.y)
    assert "accuracy_forget_true" in study.table().columns


def test_corruption_makes_keys_of_its_own_and_none_leaves_none(file: Path) -> None:
    def models(*changes: str) -> set[str]:
        return {task.key for task in plan_of(file, "request=[{fraction=0.1}]", *changes).of("original")}

    clean = models()
    assert models("data.label_flips=0.0", "data.feature_noise=0.0") == clean
    assert len(clean | models("data.label_flips=0.1") | models("data.swap=[0, 1, 0.2]")) == 3 * len(clean)
    swept = plan_of(file, "request=[{fraction=0.1}]", '"data.label_flips"=[0, 0.1]', '"data.swap"=[[0, 1, 0.2]]')
    assert {(task.row["label_flips"], task.row["swap"]) for task in swept.of("trial")} == {
        (0, "0, 1, 0.2"), (0.1, "0, 1, 0.2"),
    }  # fmt: skip
    with pytest.raises(InputError, match=r"expected label_flips once, got it beside data\.label_flips"):
        plan_of(file, "data.label_flips=0.2")


def test_originals_stand_beside_logistic_regression_on_the_same_training_set(file: Path) -> None:
    plan = plan_of(file, "tuning.budget=2")
    rows = baselines(plan)
    assert [row.get("corruption") for row in rows] == [None, "label_flips 0.1"], "none of those that tune"
    settings = own(plan, "original", None)[0].settings
    split = split_of(settings, {"fraction": 0.1}, str(file.parent))
    mean, deviation = split.train.x.mean(0), split.train.x.std(0, correction=0)
    train, test = (((data.x - mean) / deviation).numpy() for data in (split.train, split.test))
    model = LogisticRegression(max_iter=5000).fit(train, split.train.y.numpy())
    assert rows[0]["accuracy_train"] == pytest.approx(model.score(train, split.train.y.numpy()))
    assert rows[0]["accuracy_test"] == pytest.approx(model.score(test, split.test.y.numpy()))


def test_the_accuracy_of_originals_is_that_of_one_kind_of_training_set(study: Study, file: Path) -> None:
    clean = [task for task in study.trials if task.row["request"] == "10 %" and task.row["method"] == "none"]
    rows = [study.store.result("trial", task.key)["row"]["accuracy_test"] for task in clean]
    study.store.root.joinpath("baselines.json").write_text(json.dumps({"rows": baselines(plan_of(file))}))
    line = accuracy_line(study.store.root)
    assert line.startswith(f"Original models: test accuracy {sum(rows) / len(rows):.1%}; logistic regression ")
    assert line.endswith(f"{baselines(plan_of(file))[0]['accuracy_test']:.1%} on inputs")


def test_the_sizes_of_the_sets_are_a_key_that_leaves_no_trace_by_default(file: Path) -> None:
    request = "request=[{fraction=0.1}]"
    (task,) = plan_of(file, request, "data.shares=[40, 30, 10, 20]").of("original")[:1]
    split = split_of(task.settings, task.request, str(file.parent))
    assert [len(getattr(split, name)) for name in ("train", "validation", "test", "holdout")] == [60, 45, 15, 30]
    assert "shares" not in plan_of(file, request).of("original")[0].settings["data"]
    for wrong in ("[40, 20, 20, 30]", "[60, 20, 20]"):
        with pytest.raises(InputError, match="shares"):
            plan_of(file, request, f"data.shares={wrong}")


def test_corrupted_samples_are_tuned_on_other_corrupted_samples(file: Path) -> None:
    plan = plan_of(file, "tuning.budget=2", 'method=["fine-tune"]')
    tuning = plan.of("tuning")[-1]
    assert tuning.request == {"corrupted": True}
    there = split_of(tuning.settings, tuning.request, str(file.parent))
    trial = plan.of("trial")[-1]
    reported = split_of(trial.settings, trial.request, str(file.parent))
    assert there.corrupted.tolist() != reported.corrupted.tolist()
    assert torch.equal(there.test.x, reported.test.x)
    (original,) = [task for task in plan.of("original") if task.key == tuning.original]
    assert original.settings == tuning.settings
    assert original.key not in {task.original for task in plan.of("trial")}


def test_histories_are_what_training_measured(study: Study) -> None:
    table = study.histories()
    clean = table[(table["kind"] == "original") & table["method"].isna() & (table["corruption"] == "")]
    assert len(clean) == 2 * 3
    assert list(table.columns) == [
        "dataset", "split_seed", "circuit", "qubits", "depth", "entanglement", "control", "corruption", "method",
        "request", "kind", "seed", "epoch", "loss", "validation_loss", "validation_accuracy", "kept",
    ]  # fmt: skip
    assert (clean.groupby("seed")["kept"].sum() == 1).all()
    assert set(table[table["kind"] == "retrained"]["request"]) == {"10 %", "corrupted samples (10 % label flips)"}
    task = next(task for task in study.tasks if task.kind == "original" and task.method is None)
    split = split_of(task.settings, task.request, study.folder)
    model = restore(task.settings, "original", task.key, split, Store(study.root)).eval()
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(split.validation.x).double(), split.validation.y)
    kept = clean[(clean["seed"] == task.seed) & clean["kept"]]
    assert float(loss) == pytest.approx(float(kept["validation_loss"].iloc[0]), abs=1e-6)
