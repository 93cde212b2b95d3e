"""From a finished study to hardware and back, through the command line, offline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("qiskit_ibm_runtime")
pytest.importorskip("qiskit_aer")

import qunlearn as qu
from qunlearn import hardware
from qunlearn.errors import InputError, UnknownNameError
from tests.study.conftest import TINY
from tests.test_cli import call


def study_of(finished: tuple[Path, str]) -> qu.study.Study:
    return qu.load_study(finished[0])


def test_what_is_taken_of_a_study(finished: tuple[Path, str]) -> None:
    study = study_of(finished)
    found = study.bundle(samples=20)
    methods = list(dict.fromkeys(study.table().query("method not in ('none', 'retrain')")["method"]))
    assert list(found.models) == ["original", *methods, "retrained 1000", "retrained 1001"]
    assert [found.roles[name] for name in found.models] == ["original", *["unlearned"] * 3, *["retrained"] * 2]
    assert {name: len(data) for name, data in found.sets.items()} == dict.fromkeys(
        ["forget", "retain", "test", "holdout"], 5
    )
    for name in methods:
        row = study.table().set_index("trial").loc[found.keys[name]]
        assert row["method"] == name
        for mine, kept in zip(found.models[name].parameters(), study.model(found.keys[name]).parameters(), strict=True):
            assert torch.equal(mine, kept)


def test_a_cell_and_methods_are_chosen(finished: tuple[Path, str]) -> None:
    study = study_of(finished)
    request = study.trials[-1].row["request"]
    found = study.bundle(where={"request": request}, methods=["adaprob"], retrained=1, samples=None)
    assert list(found.models) == ["original", "adaprob", "retrained 1000"]
    assert study.task(found.keys["adaprob"]).row["request"] == request
    with pytest.raises(UnknownNameError, match="'depth'"):
        study.bundle(where={"deph": 1})
    with pytest.raises(InputError, match="depth=7"):
        study.bundle(where={"depth": 7})
    with pytest.raises(UnknownNameError, match="'adaprob'"):
        study.bundle(methods=["adaprb"])


def test_a_study_that_did_not_run(copied: Path) -> None:
    study = qu.load_study(copied)
    shutil.rmtree(copied / "models")
    with pytest.raises(InputError, match="run the study first"):
        study.bundle()


def test_the_way_to_a_device_and_back(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--backend", "fake_manila", "--name", "try", "--samples", "8", "--shots", "100", "--method", "adaprob"]
    assert call("hardware", "plan", str(copied), *options, "--retrained", "2", "--readout") == 0
    place = copied / "hardware" / "try"
    assert capsys.readouterr().out.splitlines()[-1] == f"Submit it with: qunlearn hardware submit {place}"
    assert call("hardware", "status", str(copied)) == 0
    assert "1 planned" in capsys.readouterr().out
    assert call("hardware", "submit", str(copied)) == 0
    assert f"qunlearn hardware collect {place}" in capsys.readouterr().out.splitlines()[-1]
    assert call("hardware", "status", str(copied), "--json") == 0
    assert json.loads(capsys.readouterr().out)["jobs"] == {"collected": 1}
    alone = copied.parent / "elsewhere"  # another machine, which has the folder alone
    shutil.move(place, alone)
    assert call("hardware", "collect", str(alone)) == 0
    shown = capsys.readouterr().out
    assert "accuracy on fake_manila" in shown
    assert "retrained 1000" in shown
    found = hardware.load(alone)
    assert found.complete
    assert set(found.roles.values()) == {"original", "unlearned", "retrained"}


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["plan", "STUDY", "--backend", "fake_manil"], "fake_manila"),
        (["plan", "STUDY", "--backend", "fake_manila", "--zne", "1,2"], "odd factors"),
        (["plan", "STUDY", "--backend", "fake_manila", "--zne", "1,x"], "whole numbers"),
        (["plan", "STUDY", "--backend", "fake_manila", "--where", "depth"], "COLUMN=VALUE"),
        (["plan", "STUDY", "--backend", "fake_manila", "--decoupling", "XX2"], "'XX'"),
        (["plan", ".", "--backend", "fake_manila"], "plan.json"),
        (["submit", "STUDY"], "found none"),
        (["collect", "STUDY", "--name", "x"], "'x'"),
    ],
)
def test_wrong_words_start_nothing(
    words: list[str], fragment: str, finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    root = finished[0]
    assert call("hardware", *(str(root) if word == "STUDY" else word for word in words)) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("Error: ")
    assert fragment in shown.err
    assert not (root / "hardware").exists()


OWN = """\
import torch
import qunlearn as qu


def make(inputs, classes):
    circuit = qu.QuantumLayer(qu.load_circuit("ring-cz", qubits=3, depth=1))
    return torch.nn.Sequential(torch.nn.Linear(4, 3), circuit, torch.nn.Linear(3, classes))
"""


def test_models_of_the_users_own_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_for_hardware.py").write_text(OWN)
    text = TINY.replace("qubits = 4\ndepth = 1", 'factory = "mine_for_hardware:make"')
    text = text.replace("epochs = 3", "epochs = 1").replace(", { class = 0 }", "")
    (tmp_path / "own.toml").write_text(text.replace('method = ["fine-tune", ', "method = ["))
    monkeypatch.chdir(tmp_path)
    assert call("run", "own.toml", "--out", "own", "--workers", "1") == 0
    words = ["--backend", "fake_manila", "--samples", "4", "--shots", "50", "--method", "adaprob", "--retrained", "2"]
    assert call("hardware", "plan", "own", *words) == 0
    assert call("hardware", "submit", "own") == 0
    assert call("hardware", "collect", "own") == 0
    assert "accuracy on fake_manila" in capsys.readouterr().out
