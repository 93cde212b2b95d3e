"""Corruption: exact counts, disjoint kinds, a stream of its own, and a request for exactly what was spoilt."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qunlearn.data import Corruption, Dataset, ForgetRequest, PublishedProtocol, SoundProtocol, Split, load_dataset
from qunlearn.errors import InputError, UnknownNameError, UnsupportedError

IRIS = load_dataset("iris")
CORRUPTED = ForgetRequest.of_corrupted()
KEPT_CLEAN = ("validation", "test", "holdout")


def made(sizes: list[int], features: int = 5) -> Dataset:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return Dataset(rng.normal(size=(len(y), features)), y, ids=rng.permutation(10 * len(y))[: len(y)])


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(12, 60), min_size=2, max_size=5),
    flips=st.floats(0.05, 0.4),
    noise=st.floats(0.05, 0.4),
    seed=st.integers(0, 2**40),
)
def test_flips_and_noise_are_exact_stratified_and_strike_different_samples(
    sizes: list[int], flips: float, noise: float, seed: int
) -> None:
    train = made(sizes)
    spoilt, positions = Corruption(label_flips=flips, feature_noise=noise).apply(train, seed)
    wrong, moved = spoilt.y != train.y, (spoilt.x != train.x).any(dim=1)
    assert (int(wrong.sum()), int(moved.sum())) == (round(flips * len(train)), round(noise * len(train)))
    assert not (wrong & moved).any()
    assert positions.tolist() == torch.nonzero(wrong | moved).flatten().tolist()
    assert torch.equal(spoilt.ids, train.ids)
    for number, size in enumerate(sizes):
        assert abs(int((train.y[wrong] == number).sum()) - int(wrong.sum()) * size / len(train)) < 1
    norms, spared = spoilt.x[moved].norm(dim=1), train.x.norm(dim=1).mean()
    torch.testing.assert_close(norms, spared.expand_as(norms), rtol=1e-9, atol=0.0)


def test_a_wrong_label_is_each_of_the_others_as_often_and_noise_is_gaussian() -> None:
    train = made([1000, 1000, 1000, 1000], features=3)
    spoilt, _ = Corruption(label_flips=0.6, feature_noise=0.3).apply(train)
    flipped = spoilt.y != train.y
    for number in range(4):
        counts = Counter(spoilt.y[flipped & (train.y == number)].tolist())
        assert sum(counts.values()) == 600
        assert all(abs(counts[other] - 200) < 4 * np.sqrt(600 * 2 / 9) for other in range(4) if other != number)
    # The directions are uniform on the sphere: the mean is zero and each squared coordinate a third.
    directions = torch.nn.functional.normalize(spoilt.x[(spoilt.x != train.x).any(dim=1)], dim=1)
    assert float(directions.mean(0).abs().max()) < 4 / np.sqrt(3 * 1200)
    assert float((directions.square().mean(0) - 1 / 3).abs().max()) < 4 * np.sqrt(4 / 45 / 1200)


def test_a_swap_mixes_two_classes_up_and_leaves_the_rest() -> None:
    train = made([40, 50, 60])
    spoilt, positions = Corruption(swap=(2, 0, 0.25)).apply(train, 3)
    assert Counter(zip(train.y[positions].tolist(), spoilt.y[positions].tolist(), strict=True)) == {
        (2, 0): 15, (0, 2): 10
    }  # fmt: skip
    rest = torch.ones(len(train), dtype=torch.bool).index_fill(0, positions, False)
    assert torch.equal(spoilt.y[rest], train.y[rest])
    assert torch.equal(spoilt.x, train.x)
    by_name = Corruption(swap=("setosa", "virginica", 0.2)).apply(IRIS)[1]
    assert by_name.tolist() == Corruption(swap=(0, 2, 0.2)).apply(IRIS)[1].tolist()


def test_each_kind_has_its_own_stream_and_a_seed_may_be_given() -> None:
    train = made([40, 40, 40])
    alone = Corruption(label_flips=0.2).apply(train, 5)[0].y
    beside = Corruption(label_flips=0.2, feature_noise=0.3).apply(train, 5)[0].y
    assert torch.equal(alone, beside)
    fixed = [Corruption(label_flips=0.2, seed=5).apply(train, seed)[0].y for seed in (0, 1)]
    assert torch.equal(fixed[0], fixed[1])
    assert torch.equal(fixed[0], alone)
    assert not torch.equal(alone, Corruption(label_flips=0.2).apply(train, 6)[0].y)


def corrupted_iris(request: ForgetRequest = CORRUPTED) -> Split:
    return IRIS.split(request, seed=1, corruption={"label_flips": 0.2, "feature_noise": 0.1, "swap": [0, 1, 0.2]})


def test_a_request_for_the_corrupted_samples_takes_exactly_these() -> None:
    split, plain = corrupted_iris(), IRIS.split(ForgetRequest.of_class(0), seed=1)
    changed = (split.train.y != plain.train.y) | (split.train.x != plain.train.x).any(dim=1)
    assert len(split.corrupted) == round(0.2 * 90) + round(0.1 * 90) + 2 * round(0.2 * 30)
    assert split.forget.ids.tolist() == split.train.ids[changed].tolist()
    assert split.corrupted.tolist() == sorted(split.forget.ids.tolist())
    assert split.corrupted.dtype is torch.int64
    assert split.original is split.train
    assert (split.clean.fingerprint, split.scaling) == (plain.train.fingerprint, plain.scaling)
    for name in KEPT_CLEAN:
        assert getattr(split, name).fingerprint == getattr(plain, name).fingerprint
    retained = torch.isin(plain.train.ids, split.retain.ids)
    assert split.retain.fingerprint == plain.train.select(retained).fingerprint


def test_other_requests_work_on_the_corrupted_train_set() -> None:
    split = corrupted_iris(ForgetRequest.of_class(0))
    assert set(split.forget.y.tolist()) == {0}
    assert int((split.clean.y[torch.isin(split.train.ids, split.forget.ids)] != 0).sum()) > 0
    assert split.corrupted.tolist() == corrupted_iris().corrupted.tolist()


def test_clean_stays_beside_a_train_set_that_is_cut() -> None:
    split = corrupted_iris()
    kept = torch.arange(0, 90, 2)
    train = split.train.select(kept)
    inside = [torch.isin(part.ids, train.ids) for part in (split.forget, split.retain)]
    cut = dataclasses.replace(
        split, train=train, original=train, forget=split.forget.select(inside[0]), retain=split.retain.select(inside[1])
    )
    assert cut.clean.fingerprint == split.clean.select(kept).fingerprint
    assert cut.corrupted.tolist() == sorted(cut.forget.ids.tolist())


@pytest.mark.parametrize(
    ("name", "request_", "seed", "ids", "content"),
    [
        ("iris", ForgetRequest.of_class(0), 0, "37afc58bdcbf5629", "0c85cadc63c3eff1"),
        ("iris", ForgetRequest.of_fraction(0.1), 3, "dd42a5f2d8823dae", "c0497897fa13d4ba"),
        ("digits", ForgetRequest.of_fraction(0.05), 1, "e37560cf9f775183", "6a8c52d3ecd6bf78"),
    ],
    ids=["iris-class", "iris-fraction", "digits-fraction"],
)
def test_without_corruption_every_split_is_what_it_was(
    name: str, request_: ForgetRequest, seed: int, ids: str, content: str
) -> None:
    given: tuple[dict[str, object], ...] = ({}, {"corruption": None}, {"corruption": Corruption()}, {"corruption": {}})
    for options in given:
        split = load_dataset(name).split(request_, seed=seed, **options)  # type: ignore[arg-type]
        sets = split.sets().values()
        assert hashlib.sha256(b"".join(part.ids.numpy().tobytes() for part in sets)).hexdigest()[:16] == ids
        assert hashlib.sha256("".join(part.fingerprint for part in sets).encode()).hexdigest()[:16] == content
        assert split.clean is split.train
        assert split.corrupted.tolist() == []


def test_the_published_protocol_takes_no_corruption_and_a_protocol_object_its_own() -> None:
    class_0 = ForgetRequest.of_class(0)
    with pytest.raises(UnsupportedError, match="an experiment on clean data"):
        IRIS.split(class_0, protocol="published", corruption=Corruption(label_flips=0.1))
    assert len(IRIS.split(class_0, protocol="published", corruption=None).train) == 120
    with pytest.raises(UnsupportedError, match="not corrupted; use 'sound'"):
        IRIS.split(CORRUPTED, protocol="published")
    own = SoundProtocol(corruption={"label_flips": 0.1}).build(IRIS, CORRUPTED)
    assert own.corrupted.tolist() == IRIS.split(CORRUPTED, corruption=Corruption(label_flips=0.1)).corrupted.tolist()
    with pytest.raises(InputError, match="give them to the object"):
        IRIS.split(class_0, protocol=PublishedProtocol(), corruption=Corruption(label_flips=0.1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Corruption(label_flips=1.0), "label_flips: expected a share of the train set from 0 to below 1"),
        (lambda: Corruption(feature_noise=-0.1), "feature_noise: expected a share"),
        (lambda: Corruption(label_flips=float("nan")), "label_flips: expected a share"),
        (lambda: Corruption(label_flips=True), "label_flips: expected a share"),
        (lambda: Corruption(swap=(0, 1, 0.0)), "leave swap out"),
        (lambda: Corruption(swap=(0, 0.1)), r"expected \(class, class, share\)"),  # type: ignore[arg-type]
        (lambda: Corruption(swap=(0, 1.5, 0.1)), "class numbers or names"),  # type: ignore[arg-type]
        (lambda: Corruption(seed=-1), "whole number >= 0"),
        (lambda: Corruption(label_flips=0.001).apply(IRIS), r"got 0.001 \(0 samples\)"),
        (lambda: Corruption(label_flips=0.6, feature_noise=0.6).apply(IRIS), "a share of 1 to 60 of the 150"),
        (lambda: Corruption(label_flips=0.8, swap=(0, 1, 0.5)).apply(IRIS), "1 to 10 of the 50 training samples"),
        (lambda: Corruption(swap=(0, 3, 0.1)).apply(IRIS), "from 0 to 2, got 3"),
        (lambda: Corruption(swap=(0, "setossa", 0.1)).apply(IRIS), "did you mean 'setosa'"),
        (lambda: Corruption(swap=(0, "setosa", 0.1)).apply(IRIS), "got 0 twice"),
        (lambda: Corruption(label_flips=0.1).apply(IRIS.select(range(50))), "two classes or more in iris, got 1"),
        (lambda: Corruption.of([0.1]), "a mapping of its attributes"),  # type: ignore[arg-type]
        (lambda: ForgetRequest.of_corrupted().select(IRIS), "give the split a corruption"),
        (lambda: IRIS.split(CORRUPTED), "give the split a corruption"),
        (lambda: ForgetRequest.from_config({"corrupted": 1}), "corrupted = true"),
        (lambda: ForgetRequest.from_config({"corrupted": False}), "corrupted = true"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_refused_in_words(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_an_unknown_attribute_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'label_flips'"):
        IRIS.split(CORRUPTED, corruption={"label_flip": 0.1})


@pytest.mark.parametrize(
    "config",
    [{}, {"label_flips": 0.3}, {"feature_noise": 0.1, "seed": 4}, {"label_flips": 0.1, "swap": [3, "5", 0.2]}],
    ids=["none", "flips", "noise", "swap"],
)
def test_configuration_goes_round(config: dict[str, object]) -> None:
    corruption = Corruption.of(config)
    assert corruption.to_config() == config
    assert Corruption.of(corruption.to_config()) == corruption
    assert bool(corruption) == bool(set(config) - {"seed"})


def test_the_request_goes_round_and_has_a_label() -> None:
    assert CORRUPTED.to_config() == {"corrupted": True}
    assert ForgetRequest.from_config({"corrupted": True}) == CORRUPTED
    assert (CORRUPTED.label, CORRUPTED.kind, CORRUPTED.class_number(IRIS)) == ("corrupted samples", "corrupted", None)
