"""Tuning: what is tried, where, by which rule; and that nothing reported has a part in it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import qunlearn as qu
from qunlearn.errors import InputError, NumericalError
from qunlearn.methods import get
from qunlearn.study import runner, trial
from qunlearn.study.estimate import estimate
from qunlearn.study.plan import make_plan
from qunlearn.study.prepare import split_of
from qunlearn.study.reading import read_study
from qunlearn.study.results import Study
from qunlearn.study.store import Store
from qunlearn.study.tuning import tune, tuning_request
from tests.study.conftest import run_alone

pytestmark = pytest.mark.usefixtures("nothing_but_the_tasks")

TUNED = """\
name = "tuned"
retrained = 2
[data]
dataset = "iris"
[model]
qubits = 4
depth = 1
[training]
epochs = 4
learning_rate = 0.05
[tuning]
budget = 3
[grid]
request = [{ fraction = 0.1 }, { class = 0 }]
method = ["fine-tune", { name = "scrub", epochs = 2, alpha = 0.7, label = "SCRUB" }]
seed = [0, 1]
"""


def bytes_of(root: Path) -> dict[str, bytes]:
    """Every record with its bytes."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.glob("*/*/result.json")}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tiny tuned study."""
    path = tmp_path_factory.mktemp("studies") / "tuned.toml"
    path.write_text(TUNED, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def root(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its results, from two workers."""
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    said: list[str] = []
    assert runner.run_study(read_study(file), folder, workers=2, say=said.append).failed == 0
    assert "4 tunings of 3 settings each, 16 trials" in said[0]
    return folder


def test_plan_of_a_tuned_study(file: Path) -> None:
    plan = make_plan(read_study(file))
    assert [len(plan.of(kind)) for kind in ("original", "retrained", "tuning", "trial")] == [3, 4, 4, 2 * (2 + 2 + 4)]
    assert [task.seed for task in plan.of("original")] == [0, 1, 3000]
    place = {task.key: number for number, task in enumerate(plan.tasks)}
    assert all(place[need] < place[task.key] for task in plan.tasks for need in task.needs)
    assert plan.of("tuning")[1].title == "tuning of SCRUB on 9 ids, split 0, seed 3000"
    cost = estimate(plan)
    for task in plan.of("trial"):
        if task.tuning:  # three settings on a request of the same size, or a class of it
            own = cost.gradient_evaluations[task.key]
            assert cost.gradient_evaluations[task.tuning] == pytest.approx(3 * own, rel=0.02)
    again = make_plan(read_study(file, ["seed=[0, 3000]"]))
    assert {task.seed for task in again.of("tuning")} == {3001}


def test_budgets_of_0_and_1_are_no_tuning(file: Path) -> None:
    none, one, three = (make_plan(read_study(file, [f"tuning.budget={budget}"])) for budget in (0, 1, 3))
    assert [task.key for task in none.tasks] == [task.key for task in one.tasks]
    assert not none.of("tuning")
    assert len(none.of("original")) == 2
    kept = {task.key for task in none.of("trial")} & {task.key for task in three.of("trial")}
    assert {task.key for task in three.of("trial") if task.row["method"] in ("none", "retrain")} == kept


@pytest.mark.parametrize("changes", [['protocol="published"'], ['protocol=["sound", "published"]']])
def test_the_published_protocol_is_not_tuned(file: Path, changes: list[str]) -> None:
    with pytest.raises(InputError, match="whose paper tuned nothing"):
        read_study(file, changes)


def test_what_is_tuned_on_is_never_reported(file: Path) -> None:
    study = read_study(file, ["request=[{fraction=0.1}, {class=0}, {class=1}]"])
    plan = make_plan(study)
    reported = {need for task in plan.of("trial") for need in (task.original, *task.retrained)}
    assert reported.isdisjoint(task.original for task in plan.of("tuning"))
    used = {task.original for task in (*plan.of("trial"), *plan.of("tuning"))}
    assert {task.key for task in plan.of("original")} == used
    requests = [task.request for task in plan.of("tuning")]
    assert len(requests) == 4  # both classes are tuned on the third, once
    assert requests[2:] == [{"class": 2}, {"class": 2}]
    forgotten = split_of(plan.tasks[0].settings, {"fraction": 0.1}, str(study.folder)).forget.ids.tolist()
    assert len(requests[0]["ids"]) == len(forgotten)
    assert set(forgotten).isdisjoint(requests[0]["ids"])


def test_requests_for_tuning_where_little_is_left() -> None:
    data = qu.load_dataset("iris")
    most = data.split(qu.ForgetRequest.of_fraction(0.9), seed=0)
    assert len(tuning_request(most, [], 0)["ids"]) == len(most.retain) - 1
    every = [{"class": number} for number in range(3)]
    assert tuning_request(data.split(qu.ForgetRequest.of_class(2), seed=0), every, 0) == {"class": 0}
    single = data.split(qu.ForgetRequest.of_ids(most.train.ids[:1]), seed=0)
    assert len(tuning_request(single, [], 0)["ids"]) == 1


def by_hand(candidates: list[dict[str, float]], untouched: dict[str, float]) -> int:
    """The rule of the `sound` protocol, written once more."""
    retained = "validation_accuracy_retained"
    good = [i for i, one in enumerate(candidates) if one[retained] >= untouched[retained] - 0.02 - 1e-9]
    if not good:
        return max(range(len(candidates)), key=lambda i: (candidates[i][retained], -i))
    if "validation_accuracy_forgotten" in untouched:
        return min(good, key=lambda i: (candidates[i]["validation_accuracy_forgotten"], -candidates[i][retained], i))
    return min(good, key=lambda i: (abs(candidates[i]["forget_loss"] - candidates[i]["matched_loss"]), i))


@pytest.mark.parametrize("number", range(4))
def test_the_choice_is_the_rule_on_runs_of_ones_own(root: Path, number: int) -> None:
    study = Study(root)
    task = [one for one in study.tasks if one.kind == "tuning"][number]
    record = study.tunings()[number]
    split = qu.load_dataset("iris").split(qu.ForgetRequest.from_config(task.request), seed=0)
    assert task.original is not None
    model = trial.restore(task.settings, "original", task.original, split, study.store)
    results = [
        qu.unlearn(model, split, method={"name": record["method"], **one["hyperparameters"]}, seed=3000, progress=False)
        for one in record["settings"]
    ]
    kept = [one.record.candidates[one.record.chosen] for one in results]
    for one, candidate in zip(record["settings"], kept, strict=True):
        assert one["candidate"] == pytest.approx(candidate)
    assert record["chosen"] == by_hand(kept, results[0].record.candidates[0])
    spent = sum(one.record.counts.gradient_evaluations for one in results)
    assert record["counts"]["gradient_evaluations"] == spent
    users = [one for one in study.trials if one.tuning == task.key]
    assert {one.seed for one in users} == {0, 1}
    for one in users:
        result = study.store.result("trial", one.key)
        assert result["record"]["hyperparameters"] == record["settings"][record["chosen"]]["hyperparameters"]
        assert result["record"]["tuning"]["key"] == task.key
        assert result["row"]["tuning_gradient_evaluations"] == spent


def test_a_trial_is_the_method_as_it_was_chosen(root: Path) -> None:
    study = Study(root)
    task = next(one for one in study.trials if one.row["method"] == "fine-tune" and one.request == {"class": 0})
    split = qu.load_dataset("iris").split(qu.ForgetRequest.of_class(0), seed=0)
    assert task.original is not None
    model = trial.restore(task.settings, "original", task.original, split, study.store)
    chosen = next(one for one in study.tunings() if one["key"] == task.tuning)["hyperparameters"]
    method = {"name": "fine-tune", **chosen}
    wanted = qu.unlearn(model, split, method=method, seed=task.seed, progress=False).model.state_dict()
    found = study.model(task.key).state_dict()
    for name, tensor in wanted.items():  # the study computes two seeds at once, whose last bits may differ
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5)


def test_what_the_study_file_sets_stays(root: Path) -> None:
    scrub = [record for record in Study(root).tunings() if record["method"] == "scrub"]
    assert len(scrub) == 2
    for record in scrub:
        assert record["searched"] == ["learning_rate", "gamma"]
        assert {(one["hyperparameters"]["alpha"], one["hyperparameters"]["epochs"]) for one in record["settings"]} == {
            (0.7, 2)
        }
        assert len({one["hyperparameters"]["gamma"] for one in record["settings"]}) == 3


def test_table_of_a_tuned_study(root: Path) -> None:
    table = Study(root).table()
    assert list(dict.fromkeys(table["method"])) == ["none", "retrain", "fine-tune", "SCRUB"]
    assert table.columns[-1] == "tuning_gradient_evaluations"
    tuned = table["method"].isin(["fine-tune", "SCRUB"])
    assert (table.loc[tuned, "tuning_gradient_evaluations"] > 2 * table.loc[tuned, "gradient_evaluations"]).all()
    assert (table.loc[~tuned, "tuning_gradient_evaluations"] == 0).all()


def test_lost_tunings_are_made_again_by_one_worker_with_the_same_bytes(root: Path, file: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(root, tmp_path / "tuned"))
    plan = make_plan(read_study(file))
    lost = [*plan.of("tuning"), *plan.of("trial")[1:]]
    for task in lost:
        shutil.rmtree(Store(copied).folder(task.kind, task.key))
    said: list[str] = []
    assert runner.run_study(read_study(file), copied, workers=1, say=said.append).failed == 0
    assert "4 tunings of 3 settings each, 15 trials on 1 worker (8 tasks are done already)" in said[0]
    assert bytes_of(copied) == bytes_of(root)


def test_neither_test_set_nor_retrained_models_are_seen(
    root: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(settings: dict[str, Any], request: dict[str, Any], folder: str) -> qu.Split:
        split = split_of(settings, request, folder)
        nothing = {name: getattr(split, name).with_x(getattr(split, name).x * 0) for name in ("test", "holdout")}
        return dataclasses.replace(split, **nothing)

    monkeypatch.setattr(trial, "split_of", spoiled)
    plan, store = make_plan(read_study(file)), Store(tmp_path)
    shared = plan.of("tuning")[0].original
    assert shared is not None
    shutil.copytree(Store(root).folder("original", shared), store.folder("original", shared))
    for task in plan.of("tuning"):
        assert task.original == shared
        run_alone(task, store, str(file.parent))
        path = Path("tuning") / task.key / "result.json"
        assert (tmp_path / path).read_bytes() == (root / path).read_bytes()


def test_a_setting_that_diverges_is_no_choice() -> None:
    split = qu.load_dataset("iris").split(qu.ForgetRequest.of_fraction(0.1), seed=0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    wild, tame = (get({"name": "gradient-ascent", "epochs": 2, "learning_rate": rate}) for rate in (1e30, 0.001))
    record = tune(model, split, (wild, tame), 0)
    assert record["chosen"] == 1
    assert "candidate" not in record["settings"][0]
    assert "learning_rate" in record["settings"][0]["error"]
    assert record["hyperparameters"] == tame.hyperparameters()
    with pytest.raises(NumericalError):
        tune(model, split, (wild,), 0)


def test_the_report_says_what_was_tuned(root: Path) -> None:
    from qunlearn.study.report.gather import gather
    from qunlearn.study.report.page import render
    from qunlearn.study.report.views import views

    material = gather(root)
    page = " ".join(render(material, views(material), []).split())
    assert "Tuning: 3 settings were tried for every method" in page
    chosen = Study(root).tunings()[1]
    rate, gamma = (chosen["hyperparameters"][name] for name in ("learning_rate", "gamma"))
    shown = "by default" if rate is None else f"{rate:g}"
    assert f"<td>learning_rate = {shown}, gamma = {gamma:g}</td><td>{chosen['chosen'] + 1} of 3</td>" in page
    plain = dataclasses.replace(material, budget=0, tunings=())
    assert "Tuning:" not in render(plain, views(plain), [])
