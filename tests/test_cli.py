"""The command line: what it lists and shows, and that a wrong word is one clear message and exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qunlearn.cli import main
from qunlearn.errors import ServiceError
from qunlearn.study import runner

STUDY = """\
name = "small"
[data]
dataset = "iris"
[model]
depth = 1
[training]
epochs = 4
[grid]
method = ["fine-tune"]
"""


def call(*arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def test_workers_that_serve_no_more_leave_the_command_that_goes_on(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise ServiceError("expected a worker that can serve this study, got none")

    monkeypatch.setattr(runner, "run_study", refuse)
    root = tmp_path / "out"
    assert call("run", str(study), "--out", str(root), "--on", "dask", "--dask-scheduler", "tcp://a:1") == 1
    said = capsys.readouterr()
    assert said.err.startswith("Error: expected a worker that can serve this study")
    assert said.out.strip().endswith(f"Go on with: qunlearn run {root} --on dask --dask-scheduler tcp://a:1")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("methods", {"none", "retrain", "fine-tune", "adaprob", "scrub"}),
        ("circuits", {"ring-cz", "sim-01", "sim-19", "real-amplitudes"}),
        ("datasets", {"iris", "wine", "breast-cancer", "digits", "mnist", "fashion-mnist"}),
        ("metrics", {"accuracy_test", "kl_test", "membership_auc", "tow"}),
        ("engines", {"torch", "fused"}),
    ],
)
def test_lists(kind: str, expected: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", kind, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert expected <= {row["name"] for row in rows}
    assert all(row["about"] for row in rows)
    assert call("list", kind) == 0
    assert sorted(expected)[0] in capsys.readouterr().out


def test_quantum_strategies_are_listed_by_what_they_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "methods") == 0
    tables = capsys.readouterr().out.split("quantum strategies: ")
    assert [table.split("\n")[0].strip() for table in tables[1:]] == [
        "suppresses", "can erase by re-uploading", "can erase by re-uploading or encoder", "aims to erase",
    ]  # fmt: skip
    assert "state-er" in tables[-1]
    assert "adaprob" in tables[0]


def test_show_circuit_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("show", "circuit", "ring-cz", "--qubits", "4", "--depth", "2") == 0
    # RZ commutes with the CZ ring and with Z: the last layer's turns reach nothing.
    assert "weights          24 (4 reach no observable: 14, 17, 20, 23)" in capsys.readouterr().out


def test_about_names_versions(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert call("about", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert facts["threads"] == torch.get_num_threads()
    assert call("about") == 0
    assert "pennylane" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["list", "method"], "'methods'"),
        (["show", "circuit", "ring-cx"], "'ring-cz'"),
        (["status", "."], "plan.json"),
        (["report", "."], "plan.json"),
        (["run", "absent.toml"], "absent.toml"),
        (["run", "STUDY", "--on", "locl"], "'local'"),
        (["run", "STUDY", "--set", "grid.method=['fine-tun']"], "'fine-tune'"),
        (["run", "STUDY", "--set", "grid.method=[{name='scrub', epoch=3}]"], "'epochs'"),
        (["run", "STUDY", "--set", "grid.method=[{name='scrub', epochs=-3}]"], "at least 1"),
        (["run", "STUDY", "--set", "data.dataset=digit"], "'digits'"),
        (["run", "STUDY", "--set", "model.circuit=ring-cx"], "'ring-cz'"),
        (["run", "STUDY", "--set", "model.circuit=['sim-01', 'sim-0']"], "'sim-0"),
        (["run", "STUDY", "--set", "model.entanglement=rng"], "'ring'"),
        (["run", "STUDY", "--set", "run.engine=troch"], "'torch'"),
        (["run", "STUDY", "--set", "run.engine=fused", "--set", "run.device=cuda"], "on the CPU alone"),
        (["run", "STUDY", "--set", "model.qubits=5"], "expected"),
        (["run", "STUDY", "--set", "grid.request=[{class = 7}]"], "from 0 to 2"),
        (["run", "STUDY", "--set", "grid.request=[{fraction = 1.0}]"], "expected"),
        (["run", "STUDY", "--set", "protocol=published", "--set", "tuning.budget=8"], "tuned nothing"),
        (["run", "STUDY", "--set", "tuning.budget=-1"], "at least 0"),
        (["run", "STUDY", "--set", "model.factory=mine:make"], "'mine'"),
        (["run", "STUDY", "--set", "plugins.modules=['no_such_module']"], "'no_such_module'"),
        (["run", "STUDY", "--set", "data.file=mine.csv", "--set", "data.label=y"], "`dataset` or `file`"),
    ],
)
def test_wrong_words_are_one_message(
    arguments: list[str], fragment: str, study: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = [str(study) if word == "STUDY" else word for word in arguments]
    assert call(*given, *(["--out", str(tmp_path / "out")] if given[0] == "run" else [])) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("Error: ")
    assert fragment in shown.err
    assert "Traceback" not in shown.err
    assert not (tmp_path / "out").exists()


def test_a_refused_knob_names_its_line(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = STUDY.replace("depth = 1", 'circuit = "sim-01"\nentanglement = "ring"')
    study.write_text(text, encoding="utf-8")
    assert call("run", str(study)) == 2
    assert "line 6, model.entanglement" in capsys.readouterr().err


def test_plan_counts_and_writes_nothing(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("run", str(study), "--plan", "--set", "seed=[0, 1]") == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    counts = {row[1].strip(): (row[2].strip(), row[3].strip()) for row in rows}
    assert counts["original models"] == ("2", f"{2 * 4 * 90:,}")
    assert counts["retrained models"] == ("5", f"{5 * 4 * 86:,}")
    assert counts["trials"][0] == str(2 + 5 + 2)
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"]


@pytest.mark.parametrize("arguments", [["run"], ["run", "x", "--wokers", "2"], ["nonsense"], ["show", "nonsense"]])
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("run", "status", "report", "list", "show", "about"))
