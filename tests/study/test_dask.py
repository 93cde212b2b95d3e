"""Studies on Dask: the bytes of a local run, whoever dies meanwhile; what kills workers is set aside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import qunlearn as qu
from qunlearn.errors import InputError, ServiceError
from qunlearn.study import cluster as clusters
from qunlearn.study import dask_pool, host
from qunlearn.study.cluster import job_cluster, require_dask
from qunlearn.study.config import ClusterConfig
from qunlearn.study.machines import machines_of, mixture, note_machines, this_machine
from qunlearn.study.plan import make_plan
from qunlearn.study.reading import read_study
from qunlearn.study.runner import run_study
from qunlearn.study.status import study_status
from tests.study.conftest import plugin, records, start

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

PLUGIN = plugin(dies="os._exit(7)", kills="os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers on this machine, in processes of their own; a task that has killed two of them is given up."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50, memory_limit=0
        ) as made,
    ):
        yield made


def on_dask(path: Path, root: Path, cluster: Any, say: Callable[[str], None] = lambda line: None) -> Any:
    return run_study(read_study(path), root, on="dask", scheduler=cluster.scheduler_address, say=say)


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.02)


@pytest.mark.usefixtures("nothing_but_the_tasks")
def test_a_worker_killed_meanwhile_changes_no_byte(
    finished: tuple[Path, str], tiny: Path, tmp_path: Path, cluster: Any
) -> None:
    root, all_of_them = tmp_path / "tiny", len(records(finished[0]))
    with distributed.Client(cluster, set_as_default=False) as client:
        before = client.run(os.getpid)
    there = []

    def kill_one() -> None:
        wait_for(lambda: len(records(root)) >= 1)
        os.kill(next(iter(before.values())), signal.SIGKILL)
        there.append(len(records(root)))

    killer = threading.Thread(target=kill_one)
    killer.start()
    said: list[str] = []
    done = on_dask(tiny, root, cluster, said.append)
    killer.join()
    assert there[0] < all_of_them  # it was at work when it was killed
    assert done.failed == 0
    assert records(root) == records(finished[0])
    assert not (root / host.SIGN).exists()
    assert any("dashboard http://" in line for line in said)
    assert {one["cpu"] for one in machines_of(root)} == {this_machine()["cpu"]}
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        assert set(client.run(os.getpid).values()) != set(before.values())


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_but_the_tasks")
def test_a_driver_killed_then_interrupted_then_done(
    finished: tuple[Path, str], tiny: Path, tmp_path: Path, cluster: Any
) -> None:
    root = tmp_path / "tiny"
    on = ["--on", "dask", "--dask-scheduler", cluster.scheduler_address]
    process = start("run", str(tiny), "--out", str(root), *on, bare=True)
    wait_for(lambda: len(records(root)) >= 1)
    process.kill()
    process.communicate(timeout=60)
    assert 0 < len(records(root)) < len(records(finished[0]))
    killed = host.sign_of(root)
    assert killed  # nobody took it away
    process = start("run", str(root), *on, bare=True)
    wait_for(lambda: host.sign_of(root) not in ("", killed))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out.strip().splitlines()[-1].endswith(f"qunlearn run {root} {' '.join(on)}")
    assert "Traceback" not in err
    assert not host.sign_of(root)
    done = run_study(
        read_study(root / "study.toml", folder=tiny.parent),
        root,
        on="dask",
        scheduler=cluster.scheduler_address,
        say=lambda line: None,
    )
    assert done.failed == 0
    assert records(root) == records(finished[0])
    assert not (root / ".draft").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_but_the_tasks", "own_methods")
def test_what_kills_workers_is_set_aside_and_the_rest_goes_on(tiny: Path, tmp_path: Path, cluster: Any) -> None:
    (tmp_path / "deadly_plugin.py").write_text(PLUGIN, encoding="utf-8")
    text = tiny.read_text().replace('"adaprob"', '"kills", "dies", "head-only"').replace(", { class = 0 }", "")
    (tmp_path / "study.toml").write_text(text + '[plugins]\nmodules = ["deadly_plugin"]\n', encoding="utf-8")
    done = on_dask(tmp_path / "study.toml", tmp_path / "out", cluster)
    assert done.failed == 2
    study = qu.load_study(tmp_path / "out")
    errors = [failure["error"] for failure in study.failed]
    assert errors[0].startswith("set aside: it killed 2 Dask workers, the last at tcp://127.0.0.1:")
    assert errors[1].startswith("its worker process ended 2 times, last with exit code 7; see ")
    methods = list(study.table()["method"])
    assert methods == ["none", "retrain", "retrain", "fine-tune", "gradient-ascent(epochs=2)", "head-only"]


def test_without_dask_a_clear_sentence(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install qunlearn\[dask\]"):
        run_study(read_study(tiny), tmp_path / "out", on="dask")
    assert not (tmp_path / "out").exists()


def test_a_scheduler_needs_on_dask(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--on dask"):
        run_study(read_study(tiny), tmp_path / "out", scheduler="tcp://127.0.0.1:9")


@pytest.mark.usefixtures("nothing_but_the_tasks")
def test_no_scheduler_and_workers_of_another_version_are_named(
    tiny: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "ANSWER", 0.5)
    with pytest.raises(InputError, match=r"tcp://127\.0\.0\.1:9, got no answer.*dask scheduler"):
        run_study(read_study(tiny), tmp_path / "out", on="dask", scheduler="tcp://127.0.0.1:9", say=lambda line: None)
    monkeypatch.undo()
    monkeypatch.setattr(qu, "__version__", "0.0.7")
    with pytest.raises(InputError, match=r"expected qunlearn 0\.0\.7, .* got 0\.1"):
        on_dask(tiny, tmp_path / "out", cluster)
    assert records(tmp_path / "out") == {}
    assert not (tmp_path / "out" / host.SIGN).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_but_the_tasks")
def test_where_no_worker_serves_any_more_the_run_stops_and_goes_on_later(
    finished: tuple[Path, str], tiny: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tiny"
    monkeypatch.setattr(dask_pool, "SEES", 0.1)
    monkeypatch.setattr(dask_pool, "LOOK", 0.2)

    def take_away() -> None:
        wait_for(lambda: len(records(root)) >= 1)
        (root / host.SIGN).unlink()  # as if the results folder were there no more

    taker = threading.Thread(target=take_away)
    taker.start()
    with pytest.raises(ServiceError, match=r"got none but those below(.|\n)*  worker tcp(.|\n)*file system that all"):
        on_dask(tiny, root, cluster)
    taker.join()
    kept = records(root)
    assert 0 < len(kept) < len(records(finished[0]))
    assert on_dask(tiny, root, cluster).failed == 0
    assert records(root) == records(finished[0])


def order(seen: Path, **changes: Any) -> dict[str, Any]:
    seen.mkdir(exist_ok=True)
    (seen / host.SIGN).write_text("now", encoding="utf-8")
    common = {"version": qu.__version__, "root": str(seen), "run": "now", "code": host.code("now"), "patience": 0.0}
    return {**common, "folder": str(seen), "needs": [], "threads": 1, "modules": [], **changes}


def test_why_a_machine_cannot_serve(tmp_path: Path) -> None:
    assert host.refusal(order(tmp_path / "a")) == ""
    assert "got other code" in host.refusal(order(tmp_path / "b", code="0"))
    assert "file system that all machines share" in host.refusal(order(tmp_path / "c", root=str(tmp_path)))
    assert "file system that all machines share" in host.refusal(order(tmp_path / "d", run="earlier"))
    assert "no_such_plugin" in host.refusal(order(tmp_path / "e", needs=["no_such_plugin"]))
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "plugin_of_f.py").touch()
    assert host.refusal(order(tmp_path / "f", needs=["plugin_of_f"])) == ""


@pytest.mark.parametrize(
    ("system", "lines"),
    [
        ("slurm", ["#SBATCH -p long", "#SBATCH -A me", "#SBATCH --cpus-per-task=6", "#SBATCH --mem=8G",
                   "#SBATCH -t 02:00:00", "#SBATCH --exclusive"]),
        ("pbs", ["#PBS -q long", "#PBS -A me", "#PBS -l select=1:ncpus=6:mem=7630MB", "#PBS -l walltime=02:00:00",
                 "#PBS --exclusive"]),
        ("lsf", ["#BSUB -q long", '#BSUB -P "me"', "#BSUB -n 6", "#BSUB -W 02:00", "#BSUB --exclusive"]),
    ],
)  # fmt: skip
def test_jobs_ask_for_what_the_study_says(system: str, lines: list[str], tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    values: dict[str, Any] = {"walltime": "02:00:00" if system != "lsf" else "02:00", "memory": "8GB"}
    config = ClusterConfig.model_validate(
        {"system": system, "workers": 2, "queue": "long", "account": "me", "setup": ["module load python"],
         "options": ["--exclusive"], **values}
    )  # fmt: skip
    before = signal.getsignal(signal.SIGINT)
    with job_cluster(config, 3, False, tmp_path) as made:
        script = made.job_script()
    assert signal.getsignal(signal.SIGINT) is before  # importing dask_jobqueue changes it
    for line in lines:
        assert line in script.splitlines()
    assert "module load python" in script
    assert "--nworkers 2" in script
    assert "--nthreads 1" in script
    assert str(tmp_path / "jobs") in script


def test_jobs_with_a_gpu_have_one_worker_each(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    with pytest.raises(InputError, match=r"cluster\.workers = 1"):
        job_cluster(ClusterConfig(system="slurm", workers=2), 1, True, tmp_path)
    with job_cluster(ClusterConfig(system="slurm"), 1, True, tmp_path) as made:
        assert "--resources GPU=1" in made.job_script()


def test_no_key_depends_on_the_cluster(tiny: Path) -> None:
    before, after = read_study(tiny), read_study(tiny, ['cluster.system="slurm"', "cluster.jobs=7"])
    assert (after.settings.cluster.system, after.settings.cluster.jobs) == ("slurm", 7)
    assert before.to_dict() == after.to_dict()
    assert [task.key for task in make_plan(before).tasks] == [task.key for task in make_plan(after).tasks]
    with pytest.raises(InputError, match="slurm"):
        read_study(tiny, ['cluster.system="slrm"'])
    with pytest.raises(InputError, match="swept"):
        read_study(tiny, ['grid."cluster.jobs"=[1, 2]'])


def test_machines_of_several_types_are_told(copied: Path) -> None:
    (one,) = machines_of(copied)
    assert mixture(copied) == ""
    assert "machines" not in study_status(copied)
    other = {**this_machine(), "cpu": "another one"}
    note_machines(copied, [other, other, this_machine()])
    counted = Counter({kind["cpu"]: kind["workers"] for kind in machines_of(copied)})
    assert counted == {one["cpu"]: 1, "another one": 2}
    note_machines(copied, [other])
    assert {kind["cpu"]: kind["workers"] for kind in machines_of(copied)} == counted
    told = study_status(copied)["machines"]
    assert "2 types" in told
    assert "another one" in told
    assert "within 1e-05" in told
    from qunlearn.study.report.gather import gather

    assert gather(copied).machines == told


def test_dask_workers_leave_the_heavy_libraries_alone() -> None:
    require_dask()
    code = "import sys, qunlearn.study.host; print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("torch", "pennylane", "pandas", "pydantic"):
        assert f"'{name}'" not in out
