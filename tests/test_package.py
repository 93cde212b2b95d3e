"""The package as it is installed: what it brings, what it leaves out, and what an import costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import qunlearn

ROOT = Path(__file__).parents[1]
HEAVY = ("pennylane", "qiskit", "pandas", "sklearn", "matplotlib", "pydantic", "typer", "numba", "pyarrow")


def _python(code: str, where: Path, **environment: str) -> str:
    """What `code` prints in a fresh interpreter started in `where`, outside of the checkout."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, cwd=where, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, so that no leftover of an earlier build gets in."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    without = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("qunlearn", "circuits", "studies"):
        shutil.copytree(ROOT / folder, source / folder, ignore=without)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(place), str(source)], check=True, timeout=120, capture_output=True)
    return next(place.glob("*.whl"))


def test_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"qunlearn"}
    expected = {f"qunlearn/{path.relative_to(ROOT / 'qunlearn')}" for path in (ROOT / "qunlearn").rglob("*.py")}
    expected |= {f"qunlearn/circuits/{path.name}" for path in (ROOT / "circuits").glob("*.toml")}
    assert expected | {"qunlearn/py.typed"} <= set(names)


@pytest.mark.parametrize("origin", ["wheel", "editable", "checkout"])
def test_cards_are_found(origin: str, wheel: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    path = {"wheel": str(unpacked), "editable": "", "checkout": str(ROOT)}[origin]
    code = f"""
import json, sys
if {origin != "editable"}:   # the environment holds the editable installation; what it adds must not help here
    sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
import qunlearn
from qunlearn.quantum.card import available_cards
print(json.dumps([qunlearn.__file__, sorted(available_cards()), qunlearn.load_circuit("ring-cz", qubits=3).weights]))
"""
    place, cards, weights = json.loads(_python(code, tmp_path, PYTHONPATH=path))
    assert Path(place).is_relative_to(unpacked if origin == "wheel" else ROOT)
    assert cards == sorted(file.stem for file in (ROOT / "circuits").glob("*.toml"))
    assert weights == 9


def test_installing_leaks_no_top_level_name(tmp_path: Path) -> None:
    code = """
import importlib.util
for name in ("circuits", "studies", "docs", "tests"):
    spec = importlib.util.find_spec(name)
    print(*(list(spec.submodule_search_locations or []) + [spec.origin] if spec else []), sep="\\n")
"""
    found = [Path(line) for line in _python(code, tmp_path).split("\n") if line not in ("", "None")]
    # PennyLane 0.45 installs a folder `tests` of its own; it is not ours to remove.
    assert [path for path in found if "site-packages" not in path.parts] == []


def test_import_leaves_the_heavy_libraries_alone(tmp_path: Path) -> None:
    code = f"""
import json, sys, time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import qunlearn
end = time.perf_counter()
heavy = [name for name in {HEAVY} if name in sys.modules]
print(json.dumps([heavy, (end - start) / (middle - start)]))
"""
    heavy, ratio = json.loads(_python(code, tmp_path))
    print(f"import qunlearn takes {ratio:.2f} times import torch")
    assert heavy == []


def test_citation_changelog_and_package_name_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == qunlearn.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text()


def test_lock_pins_plain_versions_torch_first() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert lines[0].startswith("torch==")
    for line in lines:
        name, _, version = line.partition("==")
        assert name, line
        assert version, line
        assert not set("+;@ ") & set(line), f"expected name==version, got {line!r}"
