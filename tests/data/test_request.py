"""Forget requests: what they choose, what they refuse, how they compare."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qunlearn.data import Dataset, ForgetRequest, load_dataset
from qunlearn.errors import InputError, UnknownNameError, UnsupportedError

IRIS = load_dataset("iris")


def big_petal(x: Tensor, y: int) -> bool:
    return y == 2 and float(x[2]) > 6.0


def test_ids_are_found_wherever_they_stand() -> None:
    shuffled = IRIS.select(np.random.default_rng(0).permutation(150))
    chosen = shuffled.select(ForgetRequest.of_ids([149, 3, 77]).select(shuffled))
    assert sorted(chosen.ids.tolist()) == [3, 77, 149]


def test_a_class_is_chosen_by_number_or_name() -> None:
    by_number, by_name = ForgetRequest.of_class(1), ForgetRequest.of_class("versicolor")
    assert by_number.select(IRIS).tolist() == by_name.select(IRIS).tolist() == list(range(50, 100))
    assert by_number.class_number(IRIS) == by_name.class_number(IRIS) == 1
    assert ForgetRequest.of_fraction(0.5).class_number(IRIS) is None


def test_a_predicate_chooses_alike_by_sample_and_at_once() -> None:
    single = ForgetRequest.where(big_petal)
    at_once = ForgetRequest.where(lambda x, y: (y == 2) & (x[:, 2] > 6.0), "big petal", vectorised=True)
    expected = np.flatnonzero((IRIS.y.numpy() == 2) & (IRIS.x[:, 2].numpy() > 6.0)).tolist()
    assert single.select(IRIS).tolist() == at_once.select(IRIS).tolist() == expected
    assert 0 < len(expected) < 50
    assert (single.to_config(), at_once.label) == ({"predicate": "big_petal"}, "predicate big petal")


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=6),
    fraction=st.floats(0.02, 0.98),
    seed=st.integers(0, 2**40),
)
def test_a_fraction_is_stratified_seeded_and_of_the_right_size(sizes: list[int], fraction: float, seed: int) -> None:
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    data = Dataset(np.zeros((len(y), 1)), y)
    total = round(fraction * len(y))
    request = ForgetRequest.of_fraction(fraction)
    if not 0 < total < len(y):
        with pytest.raises(InputError, match="some but not all"):
            request.select(data, seed)
        return
    chosen = request.select(data, seed)
    assert len(set(chosen.tolist())) == len(chosen) == total
    assert chosen.tolist() == request.select(data, seed).tolist()
    counts = Counter(data.y[chosen].tolist())
    assert all(abs(counts[number] - total * size / len(y)) < 1 for number, size in enumerate(sizes))


def test_a_fraction_draws_anew_with_each_seed_and_prefers_no_class() -> None:
    draws = [ForgetRequest.of_fraction(0.02).select(IRIS, seed) for seed in range(60)]
    assert len({tuple(draw.tolist()) for draw in draws}) > 50
    short = Counter(
        number
        for seed in range(60)
        for number in {0, 1, 2} - set(IRIS.y[ForgetRequest.of_fraction(0.012).select(IRIS, seed)].tolist())
    )
    assert sum(short.values()) == 60  # two samples for three equal classes: chance decides which goes short
    assert min(short[number] for number in range(3)) > 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ForgetRequest.of_ids([]), "at least one id"),
        (lambda: ForgetRequest.of_ids([1, 1]), "got 1 more than once"),
        (lambda: ForgetRequest.of_fraction(0), r"got 0 \(nothing\)"),
        (lambda: ForgetRequest.of_fraction(1), r"got 1 \(everything\)"),
        (lambda: ForgetRequest.of_fraction(5), "between 0 and 1"),
        (lambda: ForgetRequest.of_fraction(float("nan")), "between 0 and 1"),
        (lambda: ForgetRequest.of_fraction(True), "fraction of the train set"),
        (lambda: ForgetRequest.of_fraction("half"), "fraction of the train set"),  # type: ignore[arg-type]
        (lambda: ForgetRequest.of_class(1.0), "class number or name"),  # type: ignore[arg-type]
        (lambda: ForgetRequest.where("x > 1"), "expected a function"),  # type: ignore[arg-type]
        (
            lambda: ForgetRequest.of_ids(range(200)).select(IRIS),
            r"50 that are not among them: 150, 151, 152, 153, 154 and 45 more",
        ),
        (lambda: ForgetRequest.of_ids(range(150)).select(IRIS), "everything"),
        (lambda: ForgetRequest.of_class(3).select(IRIS), "from 0 to 2 to forget, got 3"),
        (lambda: ForgetRequest.of_class(-1).select(IRIS), "from 0 to 2 to forget, got -1"),
        (lambda: ForgetRequest.of_class("setossa").select(IRIS), "did you mean 'setosa'"),
        (lambda: ForgetRequest.of_class(0).select(IRIS.select(range(50))), "everything"),
        (lambda: ForgetRequest.of_class(0).select(IRIS.select(range(60, 90))), "nothing"),
        (lambda: ForgetRequest.of_fraction(0.001).select(IRIS), "nothing"),
        (lambda: ForgetRequest.where(lambda x, y: False).select(IRIS), "nothing"),
        (lambda: ForgetRequest.where(lambda x, y: True).select(IRIS), "everything"),
        (lambda: ForgetRequest.where(lambda x, y: x > 5, vectorised=True).select(IRIS), r"bools of shape \(150,\)"),
        (lambda: ForgetRequest.from_config({}), "with one of class, fraction, ids"),
        (lambda: ForgetRequest.from_config({"class": 0, "fraction": 0.1}), "with one of"),
    ],
)
def test_what_cannot_be_met_is_refused_in_words(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("config", "label"),
    [({"class": 0}, "class 0"), ({"class": "setosa"}, "class setosa"), ({"fraction": 0.025}, "2.5 %"),
     ({"ids": [3, 5]}, "2 ids"), ({"ids": [3]}, "1 id")],
)  # fmt: skip
def test_configuration_goes_round(config: dict[str, object], label: str) -> None:
    request = ForgetRequest.from_config(config)
    assert request.to_config() == config
    assert request.label == label
    assert ForgetRequest.from_config(request.to_config()) == request


def test_an_unknown_kind_names_the_nearest_and_predicates_need_code() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fraction'"):
        ForgetRequest.from_config({"fractions": 0.1})
    with pytest.raises(UnsupportedError, match=r"ForgetRequest\.where"):
        ForgetRequest.from_config({"predicate": "big_petal"})


def test_requests_that_ask_for_the_same_are_equal_and_hash_alike() -> None:
    same = {
        ForgetRequest.of_ids([5, 3]),
        ForgetRequest.of_ids(np.array([3, 5])),
        ForgetRequest.of_ids(torch.tensor([3, 5])),
    }
    assert len(same) == 1
    assert ForgetRequest.of_class(np.int64(0)) == ForgetRequest.of_class(0)  # type: ignore[arg-type]
    assert ForgetRequest.of_class(0) != ForgetRequest.of_ids([0])
    assert ForgetRequest.where(big_petal) == ForgetRequest.where(big_petal)
    assert ForgetRequest.where(big_petal) != ForgetRequest.where(lambda x, y: False, "big_petal")
