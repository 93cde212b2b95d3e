"""Users' own data: what is taken, and how equal rows are counted."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, TensorDataset

from qunlearn.data import Dataset, as_dataset, count_duplicates, load_dataset
from qunlearn.errors import InputError

IRIS = load_dataset("iris")


class Stream(IterableDataset[tuple[torch.Tensor, int]]):
    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        yield from zip(IRIS.x, IRIS.y.tolist(), strict=True)


class Map(TorchDataset[object]):
    def __init__(self, samples: list[object]) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> object:
        return self.samples[index]

    def __len__(self) -> int:
        return len(self.samples)


class Endless(TorchDataset[object]):
    def __getitem__(self, index: int) -> object:
        return torch.zeros(2), 0


@pytest.mark.parametrize(
    "given",
    [
        (IRIS.x, IRIS.y),
        [IRIS.x.numpy(), IRIS.y.numpy()],
        (IRIS.x.tolist(), IRIS.y.tolist()),
        TensorDataset(IRIS.x, IRIS.y),
        torch.utils.data.Subset(TensorDataset(IRIS.x, IRIS.y), range(150)),
        Stream(),
    ],
)
def test_pairs_and_torch_data_sets_are_read_whole(given: object) -> None:
    data, had_ids = as_dataset(given, "forget")
    assert not had_ids
    assert torch.equal(data.x, IRIS.x)
    assert torch.equal(data.y, IRIS.y)
    assert data.name == "forget"


def test_ours_comes_back_with_its_ids() -> None:
    part = IRIS.select([3, 4])
    data, had_ids = as_dataset(part, "forget")
    assert data is part
    assert had_ids


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (IRIS.x, "pair .* as retain, got Tensor"),
        ((IRIS.x, IRIS.y, IRIS.ids), "got tuple"),
        ("iris", "got str"),
        ((IRIS.x[:0], IRIS.y[:0]), "at least one sample in retain"),
        (Map([]), "at least one sample in retain"),
        (Map([torch.zeros(2)]), "expected pairs"),
        (Map([(torch.zeros(2), 0), (torch.zeros(3), 0)]), "one shape in retain"),
        (Map([(torch.zeros(2), 0.5)]), "whole class numbers in y of retain"),
        (Endless(), "a length as retain"),
    ],
)
def test_anything_else_is_refused_by_name(given: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_dataset(given, "retain")


def test_the_one_repeated_flower_of_iris_is_found() -> None:
    assert count_duplicates(IRIS.select([101, 7]), IRIS.select([142, 9])) == 1
    assert count_duplicates(IRIS.select([101, 7]), IRIS.select([141, 9])) == 0


@settings(max_examples=50, deadline=None)
@given(
    forget=st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 1), st.integers(0, 1)), min_size=1, max_size=20),
    retain=st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 1), st.integers(0, 1)), min_size=1, max_size=20),
)
def test_the_count_equals_a_count_by_hand(
    forget: list[tuple[int, int, int]], retain: list[tuple[int, int, int]]
) -> None:
    def data(rows: list[tuple[int, int, int]], zero: float) -> Dataset:
        table = np.array(rows, dtype=np.float64)
        return Dataset(np.where(table[:, :2] == 0, zero, table[:, :2]), table[:, 2])

    expected = sum(row in set(retain) for row in forget)
    assert count_duplicates(data(forget, -0.0), data(retain, 0.0)) == expected


def test_labels_count_and_precision_does_not() -> None:
    flipped = Dataset(IRIS.x, 2 - IRIS.y)
    assert count_duplicates(IRIS.to(torch.float64), IRIS) == 150
    assert count_duplicates(IRIS, flipped) == 50
    with pytest.raises(InputError, match=r"got \(4,\) and \(1, 4\)"):
        count_duplicates(IRIS, IRIS.with_x(IRIS.x[:, None]))
