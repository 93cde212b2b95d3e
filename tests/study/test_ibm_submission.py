"""The script that takes a study to a machine and back."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("qiskit_ibm_runtime")

import ibm_submission

from qunlearn import hardware
from qunlearn.cli import main


@pytest.fixture
def script(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script with its lines edited; the folder of the plan that it will make."""
    for name, value in {"STUDY": str(copied), "BACKEND": "fake_manila", "SAMPLES": 8, "SHOTS": 200}.items():
        monkeypatch.setattr(ibm_submission, name, value)
    monkeypatch.setattr("sys.argv", ["ibm_submission.py"])
    return copied / "hardware" / "fake_manila"


def test_one_run_goes_to_a_fake_device_and_back(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ibm_submission.main()
    said = capsys.readouterr().out
    assert "8: 2 forget, 2 retain, 2 test, 2 holdout" in said
    assert f"Comparison: {script / 'report' / 'report.html'}" in said
    kept = {path.name: path.read_bytes() for path in (script / "counts").iterdir()}
    assert kept
    ibm_submission.main()  # plans nothing anew and runs nothing anew
    assert {path.name: path.read_bytes() for path in (script / "counts").iterdir()} == kept
    assert capsys.readouterr().out.count("200 a circuit") == 0
    with pytest.raises(SystemExit) as ended:
        main(["hardware", "status", ibm_submission.STUDY, "--backend", "fake_manila"])
    assert ended.value.code == 0
    assert "1 collected" in capsys.readouterr().out


def test_a_real_machine_is_sent_nothing_without_being_asked_to(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = hardware.plan

    def plan_on_manila(bundle: hardware.Bundle, folder: Path, **options: object) -> hardware.Plan:
        return planned(bundle, folder, **{**options, "backend": "fake_manila"})  # type: ignore[arg-type]

    monkeypatch.setattr(ibm_submission, "BACKEND", "ibm_manila")
    monkeypatch.setattr(hardware, "plan", plan_on_manila)
    ibm_submission.main()
    assert "Nothing was sent" in capsys.readouterr().out
    folder = script.with_name("ibm_manila")
    assert (folder / "plan.json").is_file()
    assert not (folder / "counts").exists()
