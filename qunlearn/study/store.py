"""The results folder of a study: written atomically, checked by hashes when read.

``runs/NAME/``: ``study.toml``, ``plan.json``, ``models/KEY/`` (originals and retrained models), ``tuning/KEY/``,
``trials/KEY/``, ``rankings/KEY/``, ``shadows/KEY/``, ``populations/KEY/``, ``audits/KEY/``, ``failed/KEY.json``,
``report/``. A task's folder appears whole, by a rename, or not at all.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qunlearn.errors import CorruptFileError
from qunlearn.files import lock, sha256, write_bytes
from qunlearn.study.task import Kind, Task, canonical_again, json_text

FORMAT = 2
_END = "\n}\n"  # of a record's text
_FOLDERS: dict[Kind, str] = {
    "trial": "trials", "tuning": "tuning", "ranking": "rankings", "shadow": "shadows", "population": "populations",
    "audit": "audits",
}  # fmt: skip


class Store:
    """The results folder `root`; makes nothing until something is saved."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, kind: Kind, key: str) -> Path:
        """Where the files of a task lie, or will lie."""
        return self.root / _FOLDERS.get(kind, "models") / key

    def holds(self, key: str) -> bool:
        """Whether the record of a task of any kind is there."""
        return any((self.root / name / key / "result.json").is_file() for name in ("models", *_FOLDERS.values()))

    def failure(self, key: str) -> Path:
        """Where the report of a failed task lies, or will lie."""
        return self.root / "failed" / f"{key}.json"

    def save(self, task: Task, content: dict[str, Any], timing: dict[str, Any], files: Mapping[str, bytes]) -> None:
        """Keep a finished task: its files, by name, and the records.

        ``result.json`` holds `content` and the hashes of the files, and in its last line the hash of all before it;
        the times stand apart.
        """
        target = self.folder(task.kind, task.key)
        draft = self.root / ".draft" / f"{task.key}-{platform.node()}-{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, data in files.items():
            (draft / name).write_bytes(data)
        hashes = {name: sha256(files[name]) for name in sorted(files)}
        result = {"format": FORMAT, "key": task.key, "kind": task.kind, **content, "files": hashes}
        (draft / "result.json").write_bytes(_sealed(json_text(result).removesuffix(_END).encode()))
        (draft / "timing.json").write_text(json_text(timing), encoding="utf-8")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        try:
            draft.rename(target)
        except OSError:  # a worker that was taken for dead may be at it, too; what it keeps is the same
            if not (target / "result.json").is_file():
                raise
            shutil.rmtree(draft, ignore_errors=True)
        self.failure(task.key).unlink(missing_ok=True)

    def has(self, kind: Kind, key: str) -> bool:
        """Whether the record of a task of this kind is there."""
        return os.path.isfile(self._record(kind, key))

    def result(self, kind: Kind, key: str) -> dict[str, Any]:
        """The record of a finished task. Raises `CorruptFileError` where it is not what was written."""
        path = self._record(kind, key)
        content = _content(path)
        data = _parsed(content, path)
        checksum = data.pop("checksum", None)
        first = data.get("format") == 1  # hashed as data, not as text
        intact = checksum == sha256(canonical_again(data).encode()) if first else _intact(content)
        if data.get("key") != key or not intact:
            raise _changed(path)
        return data

    def part(self, kind: Kind, key: str, name: str) -> Any:
        """One outermost value of the record of a finished task, which takes a third of the time of reading all.

        Raises:
            CorruptFileError: where the record is not what was written.
        """
        path = self._record(kind, key)
        content = _content(path)
        if not _intact(content):
            return self.result(kind, key)[name]  # of the first format, or damaged
        lines = dict(line.split(b": ", 1) for line in content.split(b"\n")[1:-2])
        if json.loads(lines[b'"key"'].rstrip(b",")) != key:
            raise _changed(path)
        return json.loads(lines[f'"{name}"'.encode()].rstrip(b","))

    def _record(self, kind: Kind, key: str) -> str:
        return f"{self.root}/{_FOLDERS.get(kind, 'models')}/{key}/result.json"

    def seconds(self, kind: Kind, key: str) -> float:
        """How long a finished task took, as its worker measured it."""
        return float(read_json(self.folder(kind, key) / "timing.json")["seconds"])

    def check_files(self, kind: Kind, key: str) -> None:
        """Compare every file of a task with its hash. Raises `CorruptFileError` naming the file."""
        for name, expected in self.result(kind, key)["files"].items():
            path = self.folder(kind, key) / name
            if not path.is_file() or sha256(path.read_bytes()) != expected:
                raise _changed(path)

    def remove(self, kind: Kind, key: str) -> None:
        """Remove what a task left."""
        shutil.rmtree(self.folder(kind, key))

    def set_aside(self, kind: Kind, key: str) -> Path:
        """Rename a task's folder to KEY.corrupt, so that it is neither used nor lost; where it lies now."""
        folder = self.folder(kind, key)
        aside = folder.with_name(f"{key}.corrupt")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        return aside

    def finished(self, tasks: list[Task]) -> tuple[set[str], list[str]]:
        """Keys of the tasks that are done and intact, and a sentence for each that was damaged and set aside."""
        done: set[str] = set()
        damaged: list[str] = []
        for task in tasks:
            if not self.folder(task.kind, task.key).is_dir():
                continue
            try:
                self.check_files(task.kind, task.key)
                done.add(task.key)
            except CorruptFileError as error:
                aside = self.set_aside(task.kind, task.key)
                damaged.append(f"{error}. Set aside as {aside}; it is computed again.")
        return done, damaged

    def save_failure(self, task: Task, message: str, details: str) -> None:
        """Keep the report of a failed task apart: what failed, why, and how to repeat it."""
        report = {
            "key": task.key,
            "title": task.title,
            "message": message,
            "traceback": details,
            "reproduce": f"python -m qunlearn.study.worker {self.failure(task.key)}",
            "task": task.to_dict(),
        }
        write_bytes(self.failure(task.key), (json.dumps(report, indent=1) + "\n").encode())

    def failures(self) -> dict[str, dict[str, Any]]:
        """The reports of failed tasks by key; one that cannot be read is set aside, and its task runs again."""
        reports = {}
        for path in sorted((self.root / "failed").glob("*.json")):
            try:
                reports[path.stem] = read_json(path)
            except CorruptFileError:
                path.replace(path.with_suffix(".json.corrupt"))
        return reports

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one run. Raises `InputError` where another run holds it; ends with the process."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / ".lock", "a", encoding="utf-8") as handle:
            lock(handle, f"expected {self.root} to be free, got a run at work there; wait for it, or choose --out")
            shutil.rmtree(self.root / ".draft", ignore_errors=True)
            try:
                yield
            finally:
                shutil.rmtree(self.root / ".draft", ignore_errors=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises `CorruptFileError` naming the file where it is something else."""
    return _parsed(_content(path), path)


def _content(path: Path | str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _unreadable(path, error) from error


def _parsed(content: bytes, path: Path | str) -> dict[str, Any]:
    try:
        data = json.loads(content.decode())
    except ValueError as error:
        raise _unreadable(path, error) from error
    if not isinstance(data, dict):
        raise CorruptFileError(f"expected a JSON object in {path}, got {type(data).__name__}")
    return data


def _unreadable(path: Path | str, error: Exception) -> CorruptFileError:
    return CorruptFileError(f"expected a JSON file {path}, got one that cannot be read ({error})")


def _changed(path: Path | str) -> CorruptFileError:
    return CorruptFileError(f"expected {path} as it was written, got other content; run the study again")


def _sealed(body: bytes) -> bytes:
    """A record's text with the line of the hash of all before it, which tells without parsing that it is whole."""
    return body + f',\n"checksum": "{sha256(body)}"{_END}'.encode()


def _intact(content: bytes) -> bool:
    return content == _sealed(content.rpartition(b',\n"checksum": ')[0])
