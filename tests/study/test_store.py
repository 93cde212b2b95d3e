"""The results folder: whole or not at all, and nothing damaged is used."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from qunlearn.errors import CorruptFileError, InputError
from qunlearn.files import write_bytes
from qunlearn.study.store import Store, read_json
from qunlearn.study.task import Task, canonical, hash_of, json_text


def task(key: str = "abc") -> Task:
    return Task(key, "original", {"data": {"split_seed": 0}}, {"class": 0}, 0)


def saved(root: Path) -> Store:
    store = Store(root)
    store.save(
        task(),
        {"record": {"value": 0.1 + 0.2, "missing": float("nan")}},
        {"seconds": 1.5},
        {"weights": b"\x00\x01\x02"},
    )
    return store


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    store = saved(tmp_path)
    result = store.result("original", "abc")
    assert result["record"] == {"value": 0.1 + 0.2, "missing": None}
    assert set(result["files"]) == {"weights"}
    assert store.seconds("original", "abc") == 1.5
    assert store.finished([task(), task("other")]) == ({"abc"}, [])
    assert "1.5" not in (tmp_path / "models" / "abc" / "result.json").read_text()


def test_nothing_is_there_when_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such"):
        Store(tmp_path).save(task(), {}, {}, {"weights": b"\x00", "no such/folder": b""})
    assert not (tmp_path / "models").exists()
    with Store(tmp_path).locked():
        assert not (tmp_path / ".draft").exists()  # what a killed run left is cleared


@pytest.mark.parametrize("name", ["weights", "result.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_named_set_aside_and_not_used(tmp_path: Path, name: str, damage: str) -> None:
    store = saved(tmp_path)
    path = tmp_path / "models" / "abc" / name
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content.replace(b"0.3", b"0.4") if name == "result.json" else b"\x00\x01\x03")
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    with pytest.raises(CorruptFileError, match=name):
        store.check_files("original", "abc")
    done, sentences = store.finished([task()])
    assert done == set()
    assert len(sentences) == 1
    assert name in sentences[0]
    assert (tmp_path / "models" / "abc.corrupt").is_dir()
    assert not (tmp_path / "models" / "abc").exists()


def test_one_part_of_a_record_is_what_the_whole_record_holds(tmp_path: Path) -> None:
    store = saved(tmp_path)
    whole = store.result("original", "abc")
    assert set(whole) == {"format", "key", "kind", "record", "files"}
    assert all(store.part("original", "abc", name) == value for name, value in whole.items())
    path = tmp_path / "models" / "abc" / "result.json"
    path.rename(tmp_path / "kept")
    copied = tmp_path / "models" / "other"
    copied.mkdir()
    (tmp_path / "kept").rename(copied / "result.json")
    for read in (store.result, lambda kind, key: store.part(kind, key, "record")):
        with pytest.raises(CorruptFileError, match="other content"):
            read("original", "other")  # the record of another task


@pytest.mark.parametrize("changed", ["0.3", '"format": 2', '"files"', '"checksum": "', "\n}\n"])
def test_a_part_of_a_damaged_record_is_refused(tmp_path: Path, changed: str) -> None:
    store = saved(tmp_path)
    path = tmp_path / "models" / "abc" / "result.json"
    content = path.read_text()
    assert changed in content
    path.write_text(content.replace(changed, changed.replace("3", "4").replace("2", "1").replace("s", "t") + " "))
    with pytest.raises(CorruptFileError, match=re.escape("result.json")):
        store.part("original", "abc", "kind")
    with pytest.raises(CorruptFileError, match=re.escape("result.json")):
        store.result("original", "abc")


def test_records_of_the_first_format_are_read_and_checked(tmp_path: Path) -> None:
    data = {"format": 1, "key": "abc", "kind": "original", "record": {"value": 0.5}, "files": {}}
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    path = tmp_path / "models" / "abc" / "result.json"
    write_bytes(path, json_text({**data, "checksum": hashlib.sha256(text.encode()).hexdigest()}).encode())
    store = Store(tmp_path)
    assert store.result("original", "abc") == data
    assert store.part("original", "abc", "record") == {"value": 0.5}
    path.write_text(path.read_text().replace("0.5", "0.6"))
    with pytest.raises(CorruptFileError, match="other content"):
        store.part("original", "abc", "record")


def test_saving_again_replaces_and_clears_the_failure(tmp_path: Path) -> None:
    store = saved(tmp_path)
    store.save_failure(task(), "ValueError: no", "traceback")
    assert store.failures()["abc"]["message"] == "ValueError: no"
    store.save(task(), {"record": 2}, {"seconds": 2.0}, {})
    assert store.result("original", "abc")["record"] == 2
    assert store.failures() == {}


def test_a_failure_says_how_to_repeat_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save_failure(task(), "no", "trace")
    report = store.failures()["abc"]
    assert Task.from_dict(report["task"]) == task()
    assert report["reproduce"].startswith("python -m qunlearn.study.worker")
    store.failure("abc").write_text("{", encoding="utf-8")
    assert store.failures() == {}
    assert (tmp_path / "failed" / "abc.json.corrupt").is_file()


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with Store(tmp_path).locked(), pytest.raises(InputError, match="a run at work"), Store(tmp_path).locked():
        pass
    with Store(tmp_path).locked():
        pass


def test_json_texts(tmp_path: Path) -> None:
    data = {"b": [1, (2.5, float("inf"))], "a": {"z": None, "y": "é"}}
    assert canonical(data) == '{"a":{"y":"é","z":null},"b":[1,[2.5,null]]}'
    assert list(json.loads(json_text(data))) == ["b", "a"]
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})
    assert hash_of({"a": 1}) != hash_of({"a": 2})
    write_bytes(tmp_path / "x.json", b"[1]")
    with pytest.raises(CorruptFileError, match="object"):
        read_json(tmp_path / "x.json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
