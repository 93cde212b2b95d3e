"""CSV files: what is read, and that every refusal names the place."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_iris

from qunlearn.data import Dataset
from qunlearn.errors import InputError, UnknownNameError


def write(folder: Path, text: str) -> Path:
    path = folder / "flowers.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_iris_survives_the_way_through_a_file(tmp_path: Path) -> None:
    bunch = load_iris()
    rows = [
        f"{','.join(str(value) for value in x)},{bunch.target_names[y]}"
        for x, y in zip(bunch.data, bunch.target, strict=True)
    ]
    data = Dataset.from_csv(write(tmp_path, "\n".join(["a,b,c,d,species", *rows])), label="species")
    assert data.classes == ("setosa", "versicolor", "virginica")
    assert data.y.tolist() == bunch.target.tolist()
    assert torch.equal(data.x, torch.tensor(bunch.data, dtype=torch.float32))
    assert data.name == "flowers"


def test_marks_spaces_quotes_and_blank_lines_are_taken_care_of(tmp_path: Path) -> None:
    text = '\ufeffkey, "length, cm", kind\n7, 1.5, "red"\n\n9, 2e1, blue\n'
    data = Dataset.from_csv(write(tmp_path, text), label="kind", ids="key")
    assert data.ids.tolist() == [7, 9]
    assert data.x.tolist() == [[1.5], [20.0]]
    assert data.classes == ("blue", "red")


def test_whole_numbers_as_labels_are_named_in_order_of_value(tmp_path: Path) -> None:
    data = Dataset.from_csv(write(tmp_path, "a,quality\n1,10\n2,9\n3,10\n"), label="quality")
    assert (data.classes, data.y.tolist()) == (("9", "10"), [1, 0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,kind\n1,2,x\n1,red,y\n", "column 'b' of flowers.csv, got 'red' in line 3"),
        ("a,b,kind\n1,2,x\n1,,y\n3,NA,y\n", r"none in line 3 \(b\), line 4 \(b\)"),
        ("a,b,kind\n1,2,x\n1,2,\n", r"none in line 3 \(kind\)"),
        ("a,b,kind\n1,2,x\n1,2\n", "expected 3 fields in line 3 of flowers.csv, got 2"),
        ("a,a,kind\n1,2,x\n", "got a more than once"),
        ("a,b,kind\n1,inf,x\n", "expected finite numbers in column 'b'"),
        ("a,b,kind\n", "at least one line of data"),
        ("", "at least one line of data"),
        ("kind\nx\n", "at least one feature column"),
    ],
)
def test_refusals_name_column_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dataset.from_csv(write(tmp_path, text), label="kind")


def test_an_unknown_column_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'species'"):
        Dataset.from_csv(write(tmp_path, "a,species\n1,x\n"), label="specie")


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv, got nothing there"):
        Dataset.from_csv(tmp_path / "nowhere.csv", label="kind")
    (tmp_path / "picture.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"UTF-8 at .*picture\.csv"):
        Dataset.from_csv(tmp_path / "picture.csv", label="kind")
