"""Dataset: what is kept, what is refused, and that nothing changes behind its back."""

import copy
import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from qunlearn.data import Dataset, load_dataset
from qunlearn.errors import InputError

X = np.arange(12.0).reshape(6, 2)
Y = [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.float64, torch.float64),
        (np.float32, torch.float32),
        (np.float16, torch.float32),
        (np.int64, torch.float32),
        (np.uint8, torch.float32),
        (np.dtype(">f8"), torch.float64),
    ],
)
def test_float64_stays_and_all_other_numbers_become_float32(given: np.dtype, kept: torch.dtype) -> None:
    data = Dataset(X.astype(given), Y)
    assert data.x.dtype is kept
    assert data.x.tolist() == X.tolist()
    assert data.y.dtype is torch.int64
    assert data.ids.tolist() == list(range(6))


def test_torch_tensors_and_lists_are_taken() -> None:
    from_tensor = Dataset(torch.from_numpy(X), torch.tensor(Y, dtype=torch.int32))
    from_list = Dataset([torch.tensor(row) for row in X], [float(label) for label in Y])
    assert from_tensor.y.tolist() == from_list.y.tolist() == Y
    assert torch.equal(from_tensor.x, from_list.x.to(torch.float64))


def test_whole_numbers_stay_as_they_are_so_that_a_part_keeps_its_classes() -> None:
    data = Dataset(X[:2], [3, 3])
    assert data.y.tolist() == [3, 3]
    assert data.classes == ("0", "1", "2", "3")


def test_strings_are_numbered_by_name_and_numerals_by_value() -> None:
    data = Dataset(X, ["b", "a", "c", "b", "a", "c"])
    assert (data.y.tolist(), data.classes) == ([1, 0, 2, 1, 0, 2], ("a", "b", "c"))
    assert Dataset(X[:3], ["10", "9", "-1"]).classes == ("-1", "9", "10")


def test_later_changes_of_the_callers_arrays_do_not_reach_the_data() -> None:
    array, tensor = X.copy(), torch.from_numpy(X.copy())
    first, second = Dataset(array, Y), Dataset(tensor, Y)
    array[:] = -1
    tensor[:] = -1
    assert torch.equal(first.x, torch.from_numpy(X))
    assert torch.equal(second.x, torch.from_numpy(X))
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X[:, 0], "y": Y}, r"reshape\(-1, 1\)"),
        ({"x": [[1.0, np.nan], [0.0, 0.0]], "y": [0, 1]}, "first at position 0"),
        ({"x": [[1.0, 0.0], [0.0, np.inf]], "y": [0, 1]}, "first at position 1"),
        ({"x": [["a", "b"]], "y": [0]}, "expected numbers in x"),
        ({"x": [[1.0, 2.0], [3.0]], "y": [0, 1]}, "equal length"),
        ({"x": X * 1j, "y": Y}, "expected real numbers"),
        ({"x": X, "y": Y[:4]}, "got 6 in x, 4 in y, 6 in ids"),
        ({"x": X, "y": [0.5, 1, 2, 0, 1, 2]}, "whole class numbers"),
        ({"x": X, "y": [np.nan, 1, 2, 0, 1, 2]}, "whole class numbers"),
        ({"x": X, "y": [-1, 1, 1, -1, 1, 1]}, "labels as strings"),
        ({"x": X, "y": np.eye(6)}, "one label a sample"),
        ({"x": X, "y": Y, "ids": [0, 1, 2, 3, 4, 4]}, "got 4 more than once"),
        ({"x": X, "y": Y, "ids": [0, 1]}, "2 in ids"),
        ({"x": X, "y": Y, "ids": [0, 1, 2, 3, 4, 5.5]}, "whole numbers"),
        ({"x": X, "y": Y, "classes": ["a", "b"]}, "name for each of 3 classes"),
        ({"x": X, "y": Y, "classes": ["a", "b", "a"]}, "distinct name"),
        ({"x": np.zeros((0, 2)), "y": []}, "at least one sample"),
    ],
)
def test_bad_input_is_refused_in_words(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dataset(**arguments)  # type: ignore[arg-type]


def test_select_carries_rows_labels_ids_and_names() -> None:
    data = Dataset(X, Y, ids=[10, 11, 12, 13, 14, 15], classes=["a", "b", "c"], name="six")
    part = data.select([4, 0])
    assert part.x.tolist() == [X[4].tolist(), X[0].tolist()]
    assert (part.y.tolist(), part.ids.tolist(), part.classes, part.name) == ([1, 0], [14, 10], ("a", "b", "c"), "six")
    assert data.select(data.y == 2).ids.tolist() == [12, 15]
    assert len(data.select([])) == 0


@pytest.mark.parametrize("positions", [[6], [-1], [0, 0]])
def test_select_refuses_positions_outside_or_twice(positions: list[int]) -> None:
    with pytest.raises(InputError, match="expected"):
        Dataset(X, Y).select(positions)


def test_fingerprint_depends_on_content_and_on_nothing_else() -> None:
    data = Dataset(X, Y, name="one")
    same = Dataset(X.tolist(), Y, name="two").to(torch.float64)
    assert len(data.fingerprint) == 64
    assert same.fingerprint == copy.deepcopy(data).fingerprint == data.fingerprint
    others = [
        Dataset(X + 1e-15 * (X == 1), Y),
        Dataset(X.astype(np.float32), Y),
        Dataset(X, Y[::-1]),
        Dataset(X, Y, ids=[1, 0, 2, 3, 4, 5]),
        Dataset(X, Y, classes=["a", "b", "c"]),
        Dataset(X.reshape(6, 1, 2), Y),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 7


def test_per_class_takes_the_first_of_one_permutation_after_the_other() -> None:
    data = load_dataset("digits")
    generator = torch.Generator().manual_seed(3)
    expected: list[int] = []
    for digit in range(10):
        members = np.flatnonzero(data.y.numpy() == digit)
        expected += members[torch.randperm(len(members), generator=generator).numpy()[:20]].tolist()
    assert data.per_class(20, seed=3).ids.tolist() == expected
    assert data.per_class(20, seed=4).ids.tolist() != expected


@pytest.mark.parametrize("count", [0, 49])
def test_per_class_names_how_many_there_are(count: int) -> None:
    with pytest.raises(
        InputError, match=r"expected 1 to 48 samples a class.*'class_2' of wine has 48|expected 1 to 59"
    ):
        load_dataset("wine").per_class(count)


def test_repr_is_one_short_line() -> None:
    assert repr(load_dataset("iris")) == "Dataset('iris', 150 samples of shape (4,), 3 classes)"


def test_importing_the_data_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, qunlearn.data; "
        "print([m for m in ('sklearn', 'pandas', 'pooch', 'pennylane', 'qiskit', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
