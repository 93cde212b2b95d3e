"""Seeds computed together: which, under which keys, and that no result depends on how the work was done."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qunlearn.errors import NumericalError
from qunlearn.methods import registry
from qunlearn.methods.unlearn import unlearn_all
from qunlearn.study import runner, trial, worker
from qunlearn.study.executors import LocalPool
from qunlearn.study.plan import Plan, make_plan
from qunlearn.study.point import shared_out
from qunlearn.study.reading import read_study
from qunlearn.study.store import Store
from qunlearn.study.task import Task, Unit, units_of
from tests.study.conftest import records, run_alone

pytestmark = pytest.mark.usefixtures("nothing_but_the_tasks")

SEEDS = """\
name = "seeds"
retrained = 2
[data]
dataset = "iris"
[model]
qubits = 4
depth = 1
[training]
epochs = 2
[run]
together = 2
[grid]
request = [{ fraction = 0.1 }]
method = ["fine-tune", { name = "scrub", epochs = 2, label = "SCRUB" }]
seed = [0, 1, 2]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a study of three seeds, two at once."""
    path = tmp_path_factory.mktemp("studies") / "seeds.toml"
    path.write_text(SEEDS, encoding="utf-8")
    return path


def run(file: Path, root: Path, workers: int = 1, changes: tuple[str, ...] = ()) -> int:
    """Run a study; how many tasks failed."""
    return runner.run_study(read_study(file, changes), root, workers=workers, say=lambda line: None).failed


@pytest.fixture(scope="module")
def root(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of that study by two workers."""
    folder = tmp_path_factory.mktemp("runs") / "seeds"
    assert run(file, folder, workers=2) == 0
    return folder


def units(plan: Plan) -> list[tuple[str, list[int]]]:
    """What each unit computes, and its seeds."""
    found = units_of(plan.tasks, {task.key for task in plan.tasks})
    return [
        (str(unit.tasks[0].row.get("method", unit.tasks[0].kind)), [task.seed for task in unit.tasks]) for unit in found
    ]


@pytest.mark.parametrize(
    ("items", "size", "sizes"),
    [(40, 20, [20, 20]), (41, 20, [13, 14, 14]), (3, 20, [3]), (3, 1, [1, 1, 1])],
)
def test_shared_out_evenly(items: int, size: int, sizes: list[int]) -> None:
    parts = shared_out(range(items), size)
    assert sorted(len(part) for part in parts) == sizes
    assert [item for part in parts for item in part] == list(range(items))


def test_units_are_seeds_of_one_kind_of_work(file: Path) -> None:
    expected = [
        ("original", [0]), ("original", [1, 2]), ("retrained", [1000, 1001]),
        ("none", [0]), ("none", [1]), ("none", [2]), ("retrain", [1000]), ("retrain", [1001]),
        ("fine-tune", [0]), ("fine-tune", [1, 2]), ("SCRUB", [0]), ("SCRUB", [1, 2]),
    ]  # fmt: skip
    assert units(make_plan(read_study(file))) == expected
    alone = make_plan(read_study(file, ["run.together=1"]))
    assert all(len(seeds) == 1 for _, seeds in units(alone))
    convolutions = make_plan(read_study(file, ["data.dataset=digits", "model.encoder=cnn"]))
    assert all(len(seeds) == 1 for _, seeds in units(convolutions))


def test_a_key_tells_with_whom_a_seed_was_computed(file: Path) -> None:
    def keys(*changes: str) -> dict[tuple[str, int], str]:
        plan = make_plan(read_study(file, list(changes)))
        return {(str(task.row.get("method", task.kind)), task.seed): task.key for task in plan.tasks}

    two, all_, one = keys(), keys("run.together=20"), keys("run.together=1")
    assert {what for what, seed in two if two[what, seed] == all_[what, seed]} == {"retrained"}  # two either way
    assert two["original", 0] == one["original", 0] == keys("seed=[0]")["original", 0]
    assert two["original", 1] != one["original", 1]
    assert len(set(one.values())) == len(one) == len(two)
    assert keys("run.together=3") == all_  # the same groups are the same work


def test_records_say_who_was_computed_together_and_why_not(root: Path, file: Path, tmp_path: Path) -> None:
    store = Store(root)
    found = {task.seed: store.result("original", task.key) for task in make_plan(read_study(file)).of("original")}
    assert [found[seed].get("together") for seed in (0, 1, 2)] == [None, [1, 2], [1, 2]]
    assert found[1]["record"]["notes"] == []
    changes = ["data.dataset=digits", "data.per_class=20", "model.encoder=cnn", "training.epochs=1"]
    image = make_plan(read_study(file, changes)).of("original")[0]
    run_alone(image, Store(tmp_path), str(file.parent))
    (note,) = Store(tmp_path).result("original", image.key)["record"]["notes"]
    assert note.startswith("Several models like this are trained one by one: ")
    assert "encoder" in note


def test_one_worker_gives_the_same_bytes_as_two(root: Path, file: Path, tmp_path: Path) -> None:
    assert run(file, tmp_path / "seeds") == 0
    assert records(tmp_path / "seeds") == records(root)


def test_one_at_a_time_is_what_a_seed_gives_alone(file: Path, tmp_path: Path) -> None:
    assert run(file, tmp_path / "three", changes=("run.together=1",)) == 0
    assert run(file, tmp_path / "one", changes=("run.together=1", "seed=[1]")) == 0
    three, one = records(tmp_path / "three"), records(tmp_path / "one")
    same = {path for path in one if one[path] == three.get(path)}
    assert len(one) - len(same) == 2  # the rows of the retrained models, beside the first original
    assert len(same) == 3 + 3  # the models, and what was made of the original


def test_what_is_lost_of_a_unit_is_computed_again_with_the_same_bytes(root: Path, file: Path, tmp_path: Path) -> None:
    copied, plan = Path(shutil.copytree(root, tmp_path / "seeds")), make_plan(read_study(file))
    for kind in ("original", "retrained", "trial"):
        task = next(task for task in plan.of(kind) if task.unit != task.key)
        shutil.rmtree(Store(copied).folder(task.kind, task.key))
    kept = {path: path.stat().st_mtime_ns for path in copied.glob("*/*/result.json")}
    assert run(file, copied) == 0
    assert records(copied) == records(root)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def copied_without_trials(root: Path, target: Path) -> Store:
    """A store that holds the models of a study alone."""
    shutil.copytree(root / "models", target / "models")
    shutil.copy(root / "plan.json", target / "plan.json")
    return Store(target)


def unit_of(plan: Plan, label: str) -> Unit:
    """The unit of seeds 1 and 2 for a method."""
    tasks = [task for task in plan.of("trial") if task.row["method"] == label and task.seed > 0]
    (unit,) = units_of(plan.tasks, {task.key for task in tasks})
    return unit


def test_a_seed_that_diverges_harms_no_other_and_can_be_repeated(
    root: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, unit = copied_without_trials(root, tmp_path), unit_of(make_plan(read_study(file)), "SCRUB")

    def first_diverges(*given: Any, **options: Any) -> list[Any]:
        return [NumericalError("no way"), *unlearn_all(*given, **options)[1:]]

    with monkeypatch.context() as patch:
        patch.setattr(trial, "unlearn_all", first_diverges)
        answers = list(worker.perform(unit, store, str(file.parent)))
    bad, good = unit.tasks
    assert [(answer["key"], answer["status"]) for answer in answers] == [(bad.key, "failed"), (good.key, "done")]
    report = json.loads(store.failure(bad.key).read_text())
    assert report["message"] == "NumericalError: no way"
    assert "Traceback" in report["traceback"]
    path = f"trials/{good.key}/result.json"
    assert records(tmp_path)[path] == records(root)[path]
    worker.repeat(store.failure(bad.key))
    assert capsys.readouterr().out == f"{bad.title}: done\n"
    assert not store.failures()
    path = f"trials/{bad.key}/result.json"
    assert records(tmp_path)[path] == records(root)[path]


def test_what_breaks_a_unit_fails_all_of_it(root: Path, file: Path, tmp_path: Path) -> None:
    store, unit = copied_without_trials(root, tmp_path), unit_of(make_plan(read_study(file)), "SCRUB")
    shutil.rmtree(store.folder("original", str(unit.tasks[1].original)))
    answers = list(worker.perform(unit, store, str(file.parent)))
    assert [answer["status"] for answer in answers] == ["failed", "failed"]
    assert str(unit.tasks[1].original) in answers[0]["message"]


def test_a_seed_without_its_original_is_left_out_and_the_others_go_on(root: Path, file: Path, tmp_path: Path) -> None:
    store, plan = copied_without_trials(root, tmp_path), make_plan(read_study(file))
    chosen, models = unit_of(plan, "SCRUB"), {task.key for task in plan.tasks if task.kind != "trial"}
    lost, kept = chosen.tasks
    pool = LocalPool(store, file.parent, workers=1, threads=1)
    outcomes = list(pool.run([chosen], models - {str(lost.original)}, {str(lost.original)}))
    assert [(outcome.task.key, outcome.status) for outcome in outcomes] == [(lost.key, "failed"), (kept.key, "done")]
    assert str(lost.original) in outcomes[0].message


DIES_ONCE = """
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from qunlearn.methods import register
from qunlearn.methods.fine_tune import FineTune


@register
@dataclass(frozen=True, kw_only=True)
class DiesOnce(FineTune):
    name: ClassVar[str] = "dies-once-in-a-unit"

    def phases(self, model, task):
        mark = Path(__file__).with_suffix(".mark")
        if not mark.exists():
            mark.touch()
            os._exit(7)
        return super().phases(model, task)
"""


@pytest.mark.slow  # beside the same of single tasks in test_study.py
def test_a_unit_whose_worker_dies_is_tried_again(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", registry.available())  # what a plugin registers stays in this test
    (tmp_path / "mortal_plugin.py").write_text(DIES_ONCE, encoding="utf-8")
    text = SEEDS.replace('{ name = "scrub", epochs = 2, label = "SCRUB" }', '"dies-once-in-a-unit"')
    (tmp_path / "study.toml").write_text(text + '[plugins]\nmodules = ["mortal_plugin"]\n', encoding="utf-8")
    assert run(tmp_path / "study.toml", tmp_path / "out") == 0
    assert (tmp_path / "mortal_plugin.mark").exists()
    assert len(records(tmp_path / "out")) == len(make_plan(read_study(tmp_path / "study.toml")).tasks)


def test_units_as_json() -> None:
    tasks = [Task(key, "original", {"a": 1}, {"class": 0}, seed, unit="x") for seed, key in enumerate("xyz")]
    unit = Unit(tuple(tasks), frozenset("yz"))
    assert Unit.from_dict(json.loads(json.dumps(unit.to_dict()))) == unit
    assert [task.key for task in unit.left] == ["y", "z"]
    assert unit.without(frozenset("xy")).key == "x"
    assert units_of(tasks, {"a"}) == []


def test_a_worker_imports_what_it_needs_and_no_more(file: Path, root: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from qunlearn.study.store import Store, read_json
from qunlearn.study.task import Task, units_of
from qunlearn.study.worker import perform, prepare
tasks = [Task.from_dict(task) for task in read_json(Path(sys.argv[1]))["tasks"]]
prepare(1, sys.argv[3], [])
for unit in units_of(tasks, {task.key for task in tasks}):
    assert all(answer["status"] == "done" for answer in perform(unit, Store(sys.argv[2]), sys.argv[3]))
print(*sorted(sys.modules))
"""
    arguments = [sys.executable, "-c", code, str(root / "plan.json"), str(tmp_path / "again"), str(file.parent)]
    loaded = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded
    heavy = {"pennylane", "qiskit", "matplotlib", "typer", "pydantic", "torch._dynamo"}
    assert heavy & set(loaded) == set()
