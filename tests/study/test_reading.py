"""A study file is read strictly: what is wrong is named with its place, what was expected and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from qunlearn.errors import InputError
from qunlearn.study.reading import read_study
from qunlearn.study.toml_text import dump, line_of, reference_toml, toml_value

GOOD = """\
name = "good"
[data]
dataset = "digits"
split_seed = [0, 1]
[model]
encoder = "pca"
qubits = 6
[grid]
"model.depth" = [1, 2]
request = [{ fraction = 0.05 }, { class = 0 }]
method = ["fine-tune", { name = "scrub", epochs = 3 }]
seed = [0, 1, 2]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_good_file(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, GOOD))
    assert study.name == "good"
    assert [axis for axis, _ in study.axes] == ["model.depth", "data.split_seed"]
    cells = [(cell.model.depth, cell.data.split_seed) for cell in study.cells()]
    assert cells == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert [choice.label for choice in study.methods] == ["none", "retrain", "fine-tune", "scrub(epochs=3)"]
    assert study.settings.model.qubits == 6
    assert study.settings.training.epochs == 60
    assert study.folder == tmp_path.resolve()


@pytest.mark.parametrize(
    ("before", "after", "fragments"),
    [
        ("qubits = 6", "qubit = 6", ["line 7", "model.qubit", "'qubits'"]),
        ("[model]", "[modle]", ["line 5", "modle", "'model'"]),
        ("qubits = 6", 'qubits = "6"', ["line 7", "model.qubits", "a whole number", "'6'"]),
        ("qubits = 6", "qubits = 0", ["line 7", "at least 1", "got 0"]),
        ("qubits = 6", "qubits = true", ["line 7", "a whole number", "True"]),
        ("qubits = 6", "qubits = 6\nreupload = 1", ["line 8", "model.reupload", "true or false"]),
        ('encoder = "pca"', 'encoder = "pcaa"', ["line 6", "model.encoder", "did you mean 'pca'"]),
        ('"model.depth" = [1, 2]', '"model.dept" = [1]', ["line 9", "model.dept", "'model.depth'"]),
        ('"model.depth" = [1, 2]', '"model.depth" = [1, "2"]', ["line 9", "a whole number", "'2'"]),
        ('"model.depth" = [1, 2]', '"model.depth" = []', ["line 9", "at least one value"]),
        ('"model.depth" = [1, 2]', '"model.depth" = 2', ["line 9", "a list"]),
        ('"model.depth" = [1, 2]', '"model.depth" = [1, 1]', ["line 9", "every value once"]),
        ('"model.depth" = [1, 2]', '"run.workers" = [1, 2]', ["line 9", "can be swept"]),
        ("{ class = 0 }", "{ klass = 0 }", ["line 10", "grid.request", "'class'"]),
        ("{ class = 0 }", "0.5", ["line 10", "{ fraction = 0.05 }"]),
        ("{ name = ", "{ nam = ", ["line 11", "table with `name`"]),
        ('"fine-tune", ', '"fine-tune", "fine-tune", ', ["line 11", "every value once"]),
        ("seed = [0, 1, 2]", "seed = [-1]", ["line 12", "at least 0", "-1"]),
        ("seed = [0, 1, 2]", "seed = 0", ["line 12", "a list"]),
        ('name = "good"', 'name = "../good"', ["line 1", "name a folder"]),
        ('name = "good"', "", ["name", "got None"]),
        ('dataset = "digits"', 'dataset = "digits"\nfile = "mine.csv"', ["line 2", "`dataset` or `file`"]),
        ('dataset = "digits"', 'file = "mine.csv"', ["line 2", "`label`"]),
        ("split_seed = [0, 1]", 'split_seed = [0, "1"]', ["line 4", "a whole number"]),
        ("[model]", '[training]\noptimizer = "adm"\n[model]', ["line 6", "training.optimizer", "'adam'"]),
        ("[model]", "[training]\nlearning_rate = 0\n[model]", ["line 6", "more than 0"]),
        ("[model]", "[training]\nlearning_rate = nan\n[model]", ["line 6", "nan"]),
        ('name = "good"', 'name = "good"\nprotocol = "soud"', ["line 2", "protocol", "'sound'"]),
        ('name = "good"', 'name = "good"\nretrained = 1', ["line 2", "retrained", "at least 2"]),
        ("[model]", "[plugins]\nmodules = 3\n[model]", ["line 6", "plugins.modules", "a list"]),
        ("qubits = 6", "qubits = ", ["TOML", "line 7"]),
        ('dataset = "digits"', 'dataset = "digits"\noriginal_trains_on = "train"', ["original_trains_on", "published"]),
        ('name = "good"', 'name = "good"\npaired = true\nretrained = 2', ["line 2", "paired", "3 seeds"]),
    ],
)
def test_bad_files(tmp_path: Path, before: str, after: str, fragments: list[str]) -> None:
    assert before in GOOD
    path = write(tmp_path, GOOD.replace(before, after, 1))
    with pytest.raises(InputError) as caught:
        read_study(path)
    assert "study.toml" in str(caught.value)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_keys_that_change_together(tmp_path: Path) -> None:
    tables = 'model = [{ depth = 2, head = "shallow" }, { depth = 6, head = "deep" }]'
    study = read_study(write(tmp_path, GOOD.replace('"model.depth" = [1, 2]', tables)))
    found = {(cell.model.depth, cell.model.head) for cell in study.cells()}
    assert found == {(2, "shallow"), (6, "deep")}
    assert {cell.model.qubits for cell in study.cells()} == {6}
    assert study.swept() == ("model.depth", "model.head", "data.split_seed")
    assert "line 9, grid.model" in study.where("model.depth")


def test_parts_of_a_table_are_checked(tmp_path: Path) -> None:
    for wrong, expected in (('[{ head = "dep" }]', "'deep'"), ("[3]", "a table"), ("[{ dept = 2 }]", "'depth'")):
        path = write(tmp_path, GOOD.replace('"model.depth" = [1, 2]', f"model = {wrong}"))
        with pytest.raises(InputError, match=rf"line 9, grid\.model.*{expected}"):
            read_study(path)


def test_one_retrained_model_suffices_a_paired_study(tmp_path: Path) -> None:
    paired = GOOD.replace('name = "good"', 'name = "good"\npaired = true\nretrained = 1')
    study = read_study(write(tmp_path, paired.replace("seed = [0, 1, 2]", "seed = [0]")))
    assert study.retrained_seeds() == (1000,)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.toml"):
        read_study(tmp_path / "absent.toml")


def test_overrides_replace_and_are_written_down(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    study = read_study(path, ["model.depth=[4]", "training.epochs=7", "seed=[5]", "data.dataset=wine"])
    assert dict(study.axes)["model.depth"] == (4,)
    assert study.settings.training.epochs == 7
    assert study.settings.data.dataset == "wine"
    assert study.seeds == (5,)
    copy = tmp_path / "copy.toml"
    copy.write_text(study.text, encoding="utf-8")
    assert read_study(copy).to_dict() == study.to_dict()
    with pytest.raises(InputError, match=r"--set model\.dpeth.*'depth'"):
        read_study(path, ["model.dpeth=3"])
    with pytest.raises(InputError, match="key=value"):
        read_study(path, ["model.depth"])


def test_retrained_seeds_are_used_by_no_original(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, GOOD), ["seed=[1000, 1002]"])
    assert study.retrained_seeds() == (1001, 1003, 1004, 1005, 1006)


def test_reference_file_is_made_from_the_model(tmp_path: Path) -> None:
    kept = Path(__file__).parents[2] / "studies" / "reference.toml"
    assert kept.read_text(encoding="utf-8") == reference_toml()
    study = read_study(kept)
    assert study.settings.to_dict() == read_study(write(tmp_path, 'name = "bare"')).settings.to_dict()


def test_lines_and_values() -> None:
    text = '# a\nx = 1\n["a b".c]\n"d.e" = [\n  1,\n]\nf.g = 2\n'
    assert line_of(text, ["x"]) == 2
    assert line_of(text, ["a b", "c", "d.e"]) == 4
    assert line_of(text, ["a b", "c", "f", "g"]) == 7
    assert line_of(text, ["a b", "c", "missing"]) == 3
    assert line_of(text, ["missing"]) is None
    assert toml_value({"a b": [1, 0.5, True, "x\n"]}) == '{ "a b" = [1, 0.5, true, "x\\n"] }'
    assert dump({"a": 1, "t": {"b": None, "model.depth": [1]}}) == 'a = 1\n\n[t]\n"model.depth" = [1]\n'
