"""Audits in a study: what is audited, beside what, by which rule methods are chosen, and that work is shared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qunlearn as qu
from qunlearn import cli
from qunlearn.errors import InputError
from qunlearn.evaluation.audit import Auditor
from qunlearn.files import write_bytes
from qunlearn.metrics import phi
from qunlearn.study import runner
from qunlearn.study.audit_plan import FOR_AN_EXACT_METHOD, families
from qunlearn.study.blocks import KIND, SCORES
from qunlearn.study.estimate import estimate
from qunlearn.study.plan import Plan, make_plan
from qunlearn.study.reading import read_study
from qunlearn.study.results import Study
from qunlearn.study.status import study_status
from qunlearn.study.store import Store
from qunlearn.study.task import Task, Unit, json_text, units_of
from qunlearn.study.trial import run_unit
from tests.study.conftest import plugin

AUDITED = """\
name = "audited"
retrained = 2
[data]
dataset = "iris"
[model]
qubits = 4
depth = 1
[training]
epochs = 2
learning_rate = 0.05
[run]
together = 2
[audit]
families = ["membership", "lira", "streisand"]
shadows = 6
best = 1
[grid]
request = [{ fraction = 0.1 }, { class = 0 }]
method = ["fine-tune", { name = "gradient-ascent", epochs = 1, label = "ascent" }, "head-only"]
seed = [0]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tiny audited study."""
    path = tmp_path_factory.mktemp("studies") / "audited.toml"
    path.write_text(AUDITED, encoding="utf-8")
    return path


def plan_of(file: Path, *changes: str) -> Plan:
    return make_plan(read_study(file, changes))


def run(file: Path, root: Path, *changes: str) -> Study:
    """Run what is not there yet, in this process, without a report."""
    plan, store = plan_of(file, *changes), Store(root)
    write_bytes(root / "study.toml", plan.study.text.encode())
    write_bytes(root / "plan.json", json_text(plan.to_dict()).encode())
    done, _ = store.finished(list(plan.tasks))
    for unit in units_of(plan.tasks, {task.key for task in plan.tasks} - done):
        for ended in run_unit(unit, store, str(file.parent)):
            if ended.error is not None:
                raise ended.error
    return Study(root)


def every_record(root: Path) -> dict[str, bytes]:
    found = {path: path.read_bytes() for path in root.glob("*/*/result.json")}
    return {str(path.relative_to(root)): content for path, content in found.items()}


@pytest.fixture(scope="module")
def root(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its results."""
    folder = tmp_path_factory.mktemp("runs") / "audited"
    run(file, folder)
    return folder


@pytest.fixture(scope="module")
def study(root: Path) -> Study:
    return Study(root)


def of(study: Study, kind: str, **row: Any) -> list[Task]:
    """Tasks of a kind, by columns of their rows."""
    return [
        task
        for task in study.tasks
        if task.kind == kind and all(task.row.get(name) == value for name, value in row.items())
    ]


def test_plan_of_an_audited_study(file: Path, study: Study) -> None:
    plan = plan_of(file)
    assert [task.to_dict() for task in plan.tasks] == [task.to_dict() for task in study.tasks]
    place = {task.key: number for number, task in enumerate(plan.tasks)}
    assert all(place[need] < place[task.key] for task in plan.tasks for need in (*task.needs, *task.after))
    audits = plan.of("audit")
    assert len(audits) == len(plan.of("trial")) == 2 * (1 + 2 + 3)
    assert len({task.unit for task in audits}) == 2  # beside the same models: one unit
    assert len(plan.of("ranking")) == 1  # a class is forgotten whole, and has no shadow models
    parts = [(task.kind, task.row.get("method"), task.extra["part"]) for task in plan.tasks if "part" in task.extra]
    assert sorted(parts, key=str) == sorted(
        [
            *[("shadow", None, "trained"), ("population", None, "retrained")] * 3,
            *[("shadow", name, "unlearned") for name in ("none", "fine-tune", "ascent", "head-only")] * 3,
        ],
        key=str,
    )


def test_audits_leave_every_other_key_alone(file: Path) -> None:
    audited, plain = plan_of(file), plan_of(file, "audit.families=[]", "audit.shadows=0")
    assert [task for task in audited.tasks if task.kind in ("original", "retrained", "trial")] == list(plain.tasks)
    assert {task.key for task in plan_of(file, "audit.best=2").of("audit")}.isdisjoint(
        task.key for task in audited.of("audit")
    )
    first = plan_of(file, "seed=[0, 1, 2]", "audit.seeds=2", "audit.shadows=0")
    assert {task.seed for task in first.of("audit") if task.row["method"] != "retrain"} == {0, 1}
    noisy = plan_of(file, '"noise.depolarizing"=[0, 0.05]')
    assert len(noisy.of("audit")) == len(audited.of("audit"))  # audits look at models, whatever strikes later


def test_controls_may_go_without_shadow_models(file: Path) -> None:
    both = plan_of(file, '"model.control"=["twin", "frozen"]', "audit.controls=false", "audit.quality=64")
    assert not both.of("shadow") + both.of("population") + both.of("ranking")
    reason = "not made for controls (audit.controls)"
    audits = both.of("audit")
    assert all(task.extra["no_shadows"] == task.extra["no_population"] == reason for task in audits)
    assert plan_of(file, '"model.control"=["twin"]').of("shadow")


def test_originals_of_a_population_serve_every_request(file: Path) -> None:
    plan = plan_of(file, "audit.quality=64", "audit.shadows=0", "run.together=20")
    trained = [task for task in plan.of("population") if task.extra["part"] == "trained"]
    assert [task.extra["numbers"][0] for task in trained] == [0, 20, 40, 60]
    retrained = [task for task in plan.of("population") if task.extra["part"] == "retrained"]
    assert len(retrained) == 2 * 4


def test_findings_are_those_of_an_audit_of_the_same_models(study: Study) -> None:
    split = qu.load_dataset("iris").split(qu.ForgetRequest.of_fraction(0.1), seed=0)
    (task,) = of(study, "audit", method="fine-tune", request="10 %")
    retrained = [study.model(one.key) for one in of(study, "trial", method="retrain", request="10 %")]
    original = study.model(of(study, "trial", method="none", request="10 %")[0].key)
    auditor = Auditor(split, original=original, retrained=retrained)
    wanted = auditor(study.model(task.trial), audits=["membership", "streisand"], seed=0)  # type: ignore[arg-type]
    table = study.audits()
    rows = table[(table["method"] == "fine-tune") & (table["request"] == "10 %")].set_index("audit")
    for finding in wanted:
        for name in ("value", "low", "high", "retrained", "retrained_low", "retrained_high"):
            # The references stand in another order.
            assert rows.loc[finding.name, name] == pytest.approx(getattr(finding, name), nan_ok=True, abs=1e-9)


def test_table_of_audits(study: Study) -> None:
    table = study.audits()
    assert list(table.columns[:2]) == ["study", "trial"]
    assert list(table.columns[-10:]) == [
        "audit", "value", "low", "high", "retrained", "retrained_low", "retrained_high", "n", "unit", "reason",
    ]  # fmt: skip
    assert set(table["trial"]) == {task.key for task in study.trials}
    assert (table[table["value"].isna()]["reason"] != "").all()
    assert len(study.rankings()) == 1


def test_only_the_best_by_validation_have_shadow_models(study: Study) -> None:
    (ranking,) = study.rankings()
    best, other = ranking["order"]
    assert ranking["best"] == [best]
    assert {best, other} == {"fine-tune", "ascent"}
    table = study.audits()
    lira = table[table["audit"].str.startswith("u_lira_auc") & (table["request"] == "10 %")]
    given = lira.groupby("method")["value"].count()
    assert given[other] == 0
    assert all(given[name] for name in (best, "none", "head-only", "retrain"))
    assert set(lira[lira["method"] == other]["reason"]) == {"not among the best 1 by validation"}
    whole = table[table["audit"].str.startswith("u_lira_auc") & (table["request"] == "class 0")]
    assert whole["value"].isna().all()
    assert whole["reason"].str.contains("class").all()
    for task in of(study, "shadow", method=other):
        record = study.store.result("shadow", task.key)
        assert record["record"] == {"reason": "not among the best 1 by validation"}
        assert record["files"] == {}


def test_ranking_is_the_rule_of_epochs_on_means_over_seeds(study: Study) -> None:
    """Without the test set, without a retrained model; written once more from the rule of the protocol."""
    split = qu.load_dataset("iris").split(qu.ForgetRequest.of_fraction(0.1), seed=0)
    (ranking,) = study.rankings()
    weights = torch.bincount(split.forget.y).double() / len(split.forget)
    per_class = weights / torch.bincount(split.validation.y, minlength=3)

    def measured(label: str) -> tuple[float, float]:
        model = study.model(of(study, "trial", method=label, request="10 %")[0].key).eval()
        with torch.no_grad():
            forget, valid = model(split.forget.x).double(), model(split.validation.x).double()
        losses = torch.nn.functional.cross_entropy(valid, split.validation.y, reduction="none")
        matched = (losses * per_class[split.validation.y]).sum()
        own = torch.nn.functional.cross_entropy(forget, split.forget.y)
        return float((valid.argmax(1) == split.validation.y).double().mean()), abs(float(own - matched))

    floor = measured("none")[0] - 0.02 - 1e-9
    found = {label: measured(label) for label in ("fine-tune", "ascent")}

    def rank(label: str) -> tuple[bool, float]:
        accuracy, gap = found[label]
        return accuracy < floor, gap if accuracy >= floor else -accuracy

    assert ranking["order"] == sorted(found, key=rank)


def test_shadow_models_are_trained_on_the_retain_set_and_half_of_the_pool(study: Study) -> None:
    from qunlearn.methods.shadows import pool_of, shadow_seed
    from qunlearn.metrics.keeping import arrays_from_bytes
    from qunlearn.study.prepare import model_of
    from qunlearn.training.train import fit

    split = qu.load_dataset("iris").split(qu.ForgetRequest.of_fraction(0.1), seed=0)
    pool = pool_of(split)
    inside = pool.halves(range(6))
    assert pool.member.sum() == len(split.forget) == 9
    assert (np.bincount(pool.data.y[pool.member]) == np.bincount(pool.data.y[~pool.member])).all()
    assert set(pool.data.ids[~pool.member].tolist()) <= set(split.holdout.ids.tolist())
    assert (inside.sum(1) == 9).all()
    assert (inside[0] ^ inside[1]).all()
    assert (inside[2] ^ inside[3]).all()
    assert not (inside[0] == inside[2]).all()
    task, *_ = [task for task in study.tasks if task.kind == "shadow" and task.extra["part"] == "trained"]
    said = arrays_from_bytes((study.store.folder("shadow", task.key) / SCORES).read_bytes(), KIND)
    assert said["numbers"].tolist() == [0, 1]
    for number in (0, 1):
        data = pool.union.select(
            torch.cat(
                [torch.arange(len(split.retain)), len(split.retain) + torch.from_numpy(np.flatnonzero(inside[number]))]
            )
        )
        fresh = model_of(task.settings, split.train, shadow_seed(number))
        alone, _ = fit(fresh, data, split.validation, fresh.recipe, seed=shadow_seed(number))  # type: ignore[arg-type]
        with torch.no_grad():
            logits = alone(pool.data.x).double().numpy()
        np.testing.assert_allclose(said["trained"][number], phi(logits, pool.data.y.numpy()), atol=1e-4)


def test_what_is_lost_is_done_again_with_the_same_bytes(root: Path, file: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(root, tmp_path / "audited"))
    study = Study(copied)
    for kind in ("shadow", "population", "ranking", "audit"):
        shutil.rmtree(study.store.folder(kind, next(task.key for task in study.tasks if task.kind == kind)))
    assert study_status(copied)["left"] == 4
    run(file, copied)
    assert every_record(copied) == every_record(root)
    assert study_status(copied)["left"] == 0


def test_a_failed_trial_costs_its_own_audit_and_no_other(root: Path, file: Path, tmp_path: Path) -> None:
    """The ranking does without it; whoever waits for it alone fails with it."""
    from qunlearn.study.executors import LocalPool

    (tmp_path / "out").mkdir()
    plan, store = plan_of(file), Store(tmp_path / "out")
    bad = next(task for task in plan.of("trial") if task.row["method"] == "fine-tune")
    (ranking,) = plan.of("ranking")
    shutil.copytree(root / "models", store.root / "models")
    shutil.copytree(root / "trials", store.root / "trials")
    shutil.rmtree(store.folder("trial", bad.key))
    ready = {task.key for task in plan.tasks if task.kind in ("original", "retrained", "trial")} - {bad.key}
    audit = next(task for task in plan.of("audit") if task.trial == bad.key)
    pool = LocalPool(store, file.parent, workers=1, threads=1)
    outcomes = {out.task.key: out for out in pool.run([Unit.alone(ranking), Unit.alone(audit)], ready, {bad.key})}
    assert outcomes[ranking.key].status == "done"
    assert outcomes[audit.key].status == "failed"
    assert store.result("ranking", ranking.key)["record"]["failed"] == ["fine-tune"]
    assert store.result("ranking", ranking.key)["record"]["order"] == ["ascent"]


LATE = plugin(
    late="""
        mark = Path(__file__).with_suffix(".mark")
        if not mark.exists():
            mark.touch()
            raise ValueError("not yet")
        return model
    """
)


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_but_the_tasks", "own_methods")
def test_a_ranking_is_made_again_with_a_trial_that_had_failed(tmp_path: Path) -> None:
    """What is left then is what a study leaves in which nothing ever failed."""
    (tmp_path / "late_plugin.py").write_text(LATE, encoding="utf-8")
    file = tmp_path / "late.toml"
    harmful = '{ name = "gradient-ascent", epochs = 20, learning_rate = 1.0, label = "ascent" }'
    methods = f'method=["late", {harmful}]'
    text = AUDITED.replace(', "streisand"', "").replace(", { class = 0 }", "")
    file.write_text(text + '[plugins]\nmodules = ["late_plugin"]\n', encoding="utf-8")
    config, out, said = read_study(file, [methods]), tmp_path / "out", list[str]()

    def finish(root: Path, retry: bool = False) -> runner.Finished:
        return runner.run_study(config, root, workers=1, retry_failed=retry, say=said.append)

    assert finish(out).failed > 0
    study = Study(out)
    (bad,) = of(study, "trial", method="late")
    (ranking,) = study.rankings()
    assert ranking["without"] == [bad.key]
    assert ranking["best"] == ["ascent"]
    before = every_record(out)
    assert finish(out).failed > 0
    assert every_record(out) == before
    assert finish(out, retry=True).failed == 0
    assert "without trials that had failed" in said[-2]
    (ranking,) = study.rankings()
    assert "without" not in ranking
    assert ranking["best"] == ["late"]
    assert finish(tmp_path / "whole").failed == 0
    after, whole = every_record(out), every_record(tmp_path / "whole")
    kept = {f"shadows/{task.key}/result.json" for task in of(study, "shadow", method="ascent")}
    assert {place for place in whole if after[place] != whole[place]} == kept  # made before, and no longer looked at
    assert after.keys() == whole.keys()


def test_exact_methods_are_neither_ranked_nor_shadowed(file: Path) -> None:
    """Of every exact method that can unlearn here the audits say why."""
    from qunlearn.methods import available
    from qunlearn.methods.certificate import EXACT

    exact = [name for name, method in available().items() if method.certifies == EXACT and name != "retrain"]
    plan = plan_of(file, f"method={json.dumps([*exact, 'fine-tune'])}", "audit.quality=64", "request=[{fraction=0.1}]")
    audits = {name: [task for task in plan.of("audit") if task.row["method"] == name] for name in exact}
    there = [name for name in exact if audits[name]]
    assert "sisa" in there
    for task in (task for name in there for task in audits[name]):
        assert task.extra["no_shadows"] == task.extra["no_population"] == FOR_AN_EXACT_METHOD
        assert not task.uses
        assert task.ranking is None
    blocks = [task.row.get("method") for task in plan.of("shadow") + plan.of("population")]
    assert set(blocks) == {None, "none", "fine-tune", "head-only"}
    (ranking,) = plan.of("ranking")
    assert list(ranking.extra["trials"]) == ["fine-tune"]


def test_the_control_is_always_audited(file: Path, root: Path, tmp_path: Path) -> None:
    named = read_study(file, ['method=["fine-tune", { name = "head-only", epochs = 2, label = "mine" }]'])
    assert [one.label for one in named.methods] == ["none", "retrain", "fine-tune", "mine"]
    added = read_study(file, ['method=["fine-tune"]'])
    assert [one.label for one in added.methods] == ["none", "retrain", "fine-tune", "head-only"]
    assert "head-only" in {task.row["method"] for task in make_plan(added).of("audit")}
    plain = ["audit.families=[]", "audit.shadows=0", 'method=["fine-tune"]']
    assert [one.label for one in read_study(file, plain).methods] == ["none", "retrain", "fine-tune"]
    write_bytes(tmp_path / "plan.json", json_text(plan_of(file, *plain).to_dict()).encode())
    runner.refuse_other_study(Store(tmp_path), added)  # audits, asked for later, bring it in
    with pytest.raises(InputError, match=r"grid\.method"):
        runner.refuse_other_study(Store(root), added)


def test_a_model_that_the_control_cannot_serve_is_audited_without_it(tmp_path: Path) -> None:
    (tmp_path / "bent_factory.py").write_text(BENT, encoding="utf-8")
    text = AUDITED.replace("qubits = 4\ndepth = 1", 'factory = "bent_factory:make_model"').replace(', "head-only"', "")
    (tmp_path / "bent.toml").write_text(text, encoding="utf-8")
    plan = plan_of(tmp_path / "bent.toml")
    assert {task.row["method"] for task in plan.of("audit")} == {"none", "retrain", "fine-tune", "ascent"}
    assert {one["method"] for one in plan.left_out} == {"head-only"}
    assert all("linear" in one["reason"] for one in plan.left_out)


BENT = """
from torch import nn


def make_model(inputs, classes):
    return nn.Sequential(nn.Unflatten(1, (1, inputs[0])), nn.Conv1d(1, classes, inputs[0]), nn.Flatten())
"""


def test_estimate_counts_audits(file: Path) -> None:
    plan = plan_of(file)
    cost = estimate(plan, patience=2.0)
    assert all(cost.seconds[task.key] > 0 for task in plan.tasks if task.row.get("method") != "none")
    (shadow, *_) = [task for task in plan.of("shadow") if task.extra["part"] == "trained"]
    assert cost.gradient_evaluations[shadow.key] == pytest.approx(2 * 2 * 90, rel=0.1)  # shadows, epochs, samples
    text = runner.summary(plan, list(plan.tasks), cost, 2)
    assert "12 trials, 18 blocks of models for audits, 12 audits on 2 workers" in text


def test_audits_may_be_asked_for_later(root: Path, file: Path) -> None:
    store = Store(root)
    runner.refuse_other_study(store, read_study(file, ["audit.families=[]", "audit.shadows=0"]))
    with pytest.raises(InputError, match=r"training\.epochs"):
        runner.refuse_other_study(store, read_study(file, ["training.epochs=3"]))


@pytest.mark.parametrize(
    ("before", "after", "fragments"),
    [
        ("best = 1", "bets = 1", ["line 16", "audit.bets", "did you mean 'best'"]),
        ("shadows = 6", "shadows = 7", ["line 13", "even number", "got 7"]),
        ("best = 1", "quality = 10", ["line 13", "at least 64", "got 10"]),
        ('"membership", ', '"membershp", ', ["line 14", "audit.families", "'membership'"]),
        ('families = ["membership", "lira", "streisand"]', "", ["beside shadows", "audit.families"]),
        ('dataset = "iris"', 'dataset = "iris"\nlabel_flips = 1.0', ["line 5", "data.label_flips", "less than 1"]),
        ('dataset = "iris"', 'dataset = "iris"\nswap = [0, 0.1]', ["line 5", "data.swap"]),
        ('dataset = "iris"', 'dataset = "iris"\nswap = [0, 1, 1.5]', ["data", "share"]),
        ('dataset = "iris"', 'dataset = "iris"\nlabel_flip = 0.1', ["line 5", "'label_flips'"]),
        ("{ class = 0 }", "{ corrupted = true }", ["line 18", "request", "corrupted samples"]),
        ("{ class = 0 }", "{ corupted = true }", ["line 18", "'corrupted'"]),
        ("{ class = 0 }", "{ corrupted = true, label_flips = 2.0 }", ["line 18", "label_flips", "less than 1"]),
        ('"fine-tune"', '"unsir"', ["unsir"]),
        ("[grid]", '[grid]\n"audit.shadows" = [4, 8]', ["line 18", "can be swept"]),
        ('name = "audited"', 'name = "audited"\nprotocol = "published"', ["audit.shadows", "published"]),
    ],
    ids=lambda value: None if isinstance(value, list) else str(value)[:30],
)
def test_what_cannot_work_is_refused_with_its_place(
    tmp_path: Path, before: str, after: str, fragments: list[str]
) -> None:
    assert before in AUDITED
    path = tmp_path / "study.toml"
    text = AUDITED.replace(before, after, 1)
    if "unsir" in after:
        text = text.replace(", { class = 0 }", "")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        make_plan(read_study(path))
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_all_families_are_named_in_the_order_of_the_registry() -> None:
    from qunlearn.evaluation.audit import AUDITS

    assert families(["all"]) == list(AUDITS)
    assert families(["lira", "membership"]) == ["membership", "lira"]


def test_command_line(root: Path, file: Path, study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    (task,) = of(study, "audit", method="ascent", request="class 0")
    folder = study.store.folder("trial", str(task.trial))
    chosen = ["--audit", "membership", "--json"]

    def said(*arguments: str) -> dict[str, Any]:
        with pytest.raises(SystemExit) as left:
            cli.main(["audit", str(folder), *arguments])
        assert left.value.code == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    found = said("--study", str(root), *chosen)
    assert found["request"] == "class 0"  # of the trial itself
    kept = study.store.result("audit", task.key)["record"]["findings"]
    known = {finding["name"]: finding for finding in kept}
    assert found["findings"]
    for finding in found["findings"]:
        assert finding["value"] == pytest.approx(known[finding["name"]]["value"])
        assert finding["retrained"] == pytest.approx(known[finding["name"]]["retrained"])
    other = said("--study", str(file), "--out", str(root), "--request", "10 %", *chosen)
    assert other["request"] == "10 %"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--request", "20 %"], "request of this study"),
        (["--audit", "membershp"], "did you mean 'membership'"),
        (["--where", "dept=1"], "'depth'"),
    ],
    ids=["request", "audit", "where"],
)
def test_command_line_refuses(
    arguments: list[str], message: str, root: Path, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study.store.folder("original", str(study.trials[0].original))
    with pytest.raises(SystemExit) as left:
        cli.main(["audit", str(folder), "--study", str(root), *arguments])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_a_model_from_elsewhere_is_audited_beside_models_trained_for_it(
    file: Path, tmp_path: Path, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    qu.save_model(study.model(study.trials[0].key), tmp_path / "mine")
    with pytest.raises(SystemExit) as left:
        cli.main(
            [
                "audit",
                str(tmp_path / "mine"),
                "--study",
                str(file),
                "--out",
                str(tmp_path / "no"),
                "--audit",
                "streisand",
            ]
        )
    assert left.value.code == 0
    printed = capsys.readouterr()
    assert "3 original and retrained models are not in" in printed.err
    assert "streisand" in printed.out
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_populations_and_two_workers(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgetting quality from real populations; the same bytes by one worker and by two."""
    import qunlearn.study.report as report

    monkeypatch.setattr(report, "write_report", lambda root: Path(root) / "report" / "report.html")
    changes = ["audit.quality=64", 'audit.families=["quality", "lira"]', "run.together=20", "request=[{fraction=0.1}]"]
    config = read_study(file, changes)
    for workers in (1, 2):
        assert runner.run_study(config, tmp_path / str(workers), workers=workers, say=lambda line: None).failed == 0
    assert every_record(tmp_path / "1") == every_record(tmp_path / "2")
    assert (tmp_path / "1" / "ranking.json").read_bytes() == (tmp_path / "2" / "ranking.json").read_bytes()
    table = Study(tmp_path / "1").audits()
    quality = table[table["audit"] == "forgetting_quality"].set_index("method")
    best = Study(tmp_path / "1").rankings()[0]["best"]
    assert (quality.loc[[*best, "none", "head-only"], "n"] == 64).all()
    assert quality.loc[[*best, "none", "head-only"], "value"].between(0, np.log(63)).all()
    assert quality.loc[["retrain"], "reason"].str.contains("by chance alone").all()
