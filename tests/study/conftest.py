"""A tiny study on iris, run once through the command line, and what the tests of this folder share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from qunlearn.methods import registry
from qunlearn.study import report, runner
from qunlearn.study.estimate import Estimate
from qunlearn.study.store import Store
from qunlearn.study.task import Task, Unit
from qunlearn.study.trial import run_unit

TINY = """\
name = "tiny"
retrained = 2
[data]
dataset = "iris"
[model]
qubits = 4
depth = 1
[training]
epochs = 3
[grid]
request = [{ fraction = 0.1 }, { class = 0 }]
method = ["fine-tune", { name = "gradient-ascent", epochs = 2 }, "adaprob"]
seed = [0]
"""


_BARE = """
import collections, qunlearn.study.report as report, qunlearn.study.runner as runner
from qunlearn.study.estimate import Estimate
runner.estimate = lambda plan: Estimate(collections.defaultdict(float), collections.defaultdict(float))
report.write_report = lambda root: root
"""


def start(*arguments: str, bare: bool = False) -> subprocess.Popen[str]:
    """The command line in a process of its own, to which Ctrl-C can be sent, also where this one ignores it.

    With `bare`, the study's estimate and its report, which take seconds, are left out.
    """
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import qunlearn.cli as c"
    code += (_BARE if bare else "") + "\nc.main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def plugin(**bodies: str) -> str:
    """The text of a module that registers a method of each name, with that body of `run`."""
    text = "import os, signal, time\nfrom pathlib import Path\nfrom typing import ClassVar\n"
    text += "from dataclasses import dataclass\nfrom qunlearn.methods import Method, register\n"
    for name, body in bodies.items():
        text += f"""

@register
@dataclass(frozen=True, kw_only=True)
class {name.title().replace("_", "")}(Method):
    name: ClassVar[str] = "{name.replace("_", "-")}"

    def run(self, model, task, work):
{textwrap.indent(textwrap.dedent(body).strip(), " " * 8)}
"""
    return text


def records(root: Path) -> dict[str, bytes]:
    """The bytes of every record, by its place in the results folder."""
    found = [*root.glob("models/*/result.json"), *root.glob("trials/*/result.json")]
    return {str(path.relative_to(root)): path.read_bytes() for path in found if ".corrupt" not in str(path)}


def run_alone(task: Task, store: Store, folder: str) -> None:
    """One task in this process."""
    for ended in run_unit(Unit.alone(task), store, folder):
        if ended.error is not None:
            raise ended.error


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the tiny study."""
    path = tmp_path_factory.mktemp("studies") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The results folder of the tiny study, and what the command line printed."""
    root = tmp_path_factory.mktemp("runs") / "tiny"
    process = start("run", str(tiny), "--out", str(root), "--workers", "2")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return root, out + err


@pytest.fixture
def own_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what a plugin registers in this process within the test."""
    monkeypatch.setattr(registry, "_REGISTRY", registry.available())


@pytest.fixture
def copied(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the finished results folder, to be damaged."""
    return Path(shutil.copytree(finished[0], tmp_path / "tiny"))


@pytest.fixture(scope="module")
def nothing_but_the_tasks() -> Iterator[None]:
    """Leaves out the report and the estimate of a study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write_report", lambda root: Path(root) / "report" / "report.html")
        patch.setattr(runner, "estimate", lambda plan: Estimate(defaultdict(float), defaultdict(float)))
        yield
