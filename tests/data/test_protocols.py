"""Protocols: the guarantees of the sound one, and the published one step by step."""

import os
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler

from qunlearn.data import Dataset, ForgetRequest, PublishedProtocol, SoundProtocol, Split, load_dataset
from qunlearn.errors import InputError, UnknownNameError, UnsupportedError

NAMES = ("train", "validation", "test", "holdout")
SHARES = (0.60, 0.10, 0.15, 0.15)
CLASS_0 = ForgetRequest.of_class(0)


def sizes(split: Split) -> dict[str, int]:
    return {name: len(data) for name, data in split.sets().items()}


def check_sound(data: Dataset, split: Split) -> None:
    """The guarantees, written apart from the package."""
    sets = split.sets()
    ids = {name: set(part.ids.tolist()) for name, part in sets.items()}
    assert set.union(*(ids[name] for name in NAMES)) == set(data.ids.tolist())
    assert all(ids[first].isdisjoint(ids[second]) for first, second in combinations(NAMES, 2))
    assert ids["forget"] | ids["retain"] == ids["train"]
    assert ids["forget"].isdisjoint(ids["retain"])
    for name, share in zip(NAMES, SHARES, strict=True):
        for number in range(len(data.classes)):
            exact = share * int((data.y == number).sum())
            assert abs(int((sets[name].y == number).sum()) - exact) < 1
    row = {int(i): position for position, i in enumerate(data.ids)}
    for part in sets.values():
        positions = [row[int(i)] for i in part.ids]
        assert torch.equal(part.y, data.y[positions])
        assert torch.equal(part.x, data.x[positions])


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(6, 50), min_size=2, max_size=5),
    seed=st.integers(0, 2**40),
    which=st.sampled_from(["class", "fraction", "ids"]),
)
def test_sound_sets_are_disjoint_stratified_and_carry_their_indices(counts: list[int], seed: int, which: str) -> None:
    rng = np.random.default_rng(7)
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    data = Dataset(rng.normal(size=(len(y), 3)), y, ids=rng.permutation(1000)[: len(y)])
    first = data.split(CLASS_0, seed=seed, scale="none")
    check_sound(data, first)
    request = {
        "class": ForgetRequest.of_class(1),
        "fraction": ForgetRequest.of_fraction(0.3),
        "ids": ForgetRequest.of_ids(first.train.ids[:2]),
    }[which]
    second = data.split(request, seed=seed, scale="none")
    check_sound(data, second)
    for name in NAMES:  # whatever is asked, the sets are the same
        assert getattr(first, name).ids.tolist() == getattr(second, name).ids.tolist()


@pytest.mark.parametrize("name", ["iris", "wine", "breast-cancer", "digits"])
def test_sound_holds_on_real_data_and_depends_on_the_seed(name: str) -> None:
    data = load_dataset(name)
    splits = [data.split(ForgetRequest.of_fraction(0.05), seed=seed, scale="none") for seed in (0, 0, 1)]
    for split in splits:
        check_sound(data, split)
    first, again, other = ({part: data.ids.tolist() for part, data in split.sets().items()} for split in splits)
    assert first == again
    assert all(set(first[part]) != set(other[part]) for part in first)


def test_sound_sizes_on_iris() -> None:
    split = load_dataset("iris").split(CLASS_0)
    assert sizes(split) == {"train": 90, "forget": 30, "retain": 60, "validation": 15, "test": 24, "holdout": 21}
    assert (split.forget_class, split.protocol, split.original_trains_on, split.aliases) == (0, "sound", "train", {})
    assert split.original is split.train


def test_sound_scales_tables_by_the_train_set_alone_and_clips_the_rest() -> None:
    data = load_dataset("wine")
    split = data.split(CLASS_0, seed=1)
    fitted = MinMaxScaler((0, np.pi / 2)).fit(data.x.numpy()[split.train.ids.numpy()].astype(np.float64))
    clipped = 0
    for part in split.sets().values():
        free = fitted.transform(data.x.numpy()[part.ids.numpy()].astype(np.float64))
        np.testing.assert_allclose(part.x.numpy(), free.clip(0, np.pi / 2), atol=1e-6)
        clipped += int((free != free.clip(0, np.pi / 2)).sum())
    assert clipped > 0
    assert split.scaling is not None
    assert split.scaling["fitted_on"] == "train"


def test_sound_leaves_images_untouched_and_takes_other_intervals() -> None:
    digits, iris = load_dataset("digits", per_class=20), load_dataset("iris")
    images = digits.split(CLASS_0)
    assert images.scaling is None
    assert torch.equal(images.test.x, digits.x[torch.isin(digits.ids, images.test.ids)])
    wide = iris.split(CLASS_0, scale=(-1.0, 2.0)).train.x
    assert (float(wide.min()), float(wide.max())) == (-1.0, 2.0)
    split = SoundProtocol(shares=(70, 4, 10, 16)).build(iris, CLASS_0)
    for name, size in (("train", 35), ("validation", 2), ("test", 5), ("holdout", 8)):
        assert getattr(split, name).y.bincount().tolist() == [size] * 3


@pytest.mark.parametrize(
    ("subset", "forget", "retain", "holdout", "original_trains_on", "original"),
    [(True, 3, 117, "retain", "retain", 117), (False, 40, 80, "subset-retain", "subset-retain", 117)],
)
def test_published_iris_is_the_released_protocol(
    subset: bool, forget: int, retain: int, holdout: str, original_trains_on: str, original: int
) -> None:
    data = load_dataset("iris")
    split = data.split(ForgetRequest.of_fraction(0.02) if subset else CLASS_0, protocol="published")
    assert sizes(split) == {
        "train": 120, "forget": forget, "retain": retain, "validation": 30, "test": 30, "holdout": 117
    }  # fmt: skip
    assert split.aliases == {"validation": "test", "holdout": holdout}
    assert (split.original_trains_on, len(split.original)) == (original_trains_on, original)
    angles = MinMaxScaler((-np.pi, np.pi)).fit_transform(data.x.numpy().astype(np.float64))
    y = data.y.numpy()
    train, test = train_test_split(np.arange(150), test_size=0.2, stratify=y, random_state=0)
    kept, gone = train_test_split(train, test_size=0.02, stratify=y[train], random_state=0)
    if not subset:
        gone = np.array([position for position in train if y[position] == 0])
    assert split.train.ids.tolist() == train.tolist()
    assert split.test.ids.tolist() == split.validation.ids.tolist() == test.tolist()
    assert split.forget.ids.tolist() == gone.tolist()
    assert split.original.ids.tolist() == split.holdout.ids.tolist() == kept.tolist()
    for part in split.sets().values():
        np.testing.assert_allclose(part.x.numpy(), angles[part.ids.numpy()], atol=2e-6)


@pytest.mark.skipif("QUNLEARN_DATA" not in os.environ, reason="QUNLEARN_DATA names no folder with MNIST")
@pytest.mark.parametrize(("subset", "forget", "retain"), [(True, 32, 1568), (False, 160, 1440)])
def test_published_mnist_has_the_released_sizes(subset: bool, forget: int, retain: int) -> None:
    data = load_dataset("mnist", per_class=200)
    split = data.split(ForgetRequest.of_fraction(0.02) if subset else CLASS_0, protocol="published")
    assert sizes(split) == {
        "train": 1600, "forget": forget, "retain": retain, "validation": 400, "test": 400, "holdout": 1568
    }  # fmt: skip
    assert (split.original_trains_on, len(split.original), split.scaling) == ("train", 1600, None)
    assert split.test.y.bincount().tolist() == [40] * 10
    assert 0.0 <= float(split.train.x.min()) < float(split.train.x.max()) <= 1.0


def test_published_takes_options_and_other_seeds() -> None:
    iris = load_dataset("iris")
    split = iris.split(CLASS_0, seed=5, protocol="published", original_trains_on="train", scale="none")
    assert split.original.ids.tolist() == split.train.ids.tolist()
    assert torch.equal(split.test.x, iris.x[split.test.ids])
    assert split.test.ids.tolist() != iris.split(CLASS_0, protocol="published").test.ids.tolist()


def test_what_a_protocol_cannot_build_is_refused_in_words() -> None:
    iris = load_dataset("iris")
    with pytest.raises(UnknownNameError, match="did you mean 'published'"):
        iris.split(CLASS_0, protocol="publish")
    with pytest.raises(UnknownNameError, match="did you mean 'shares'"):
        iris.split(CLASS_0, share=(60, 10, 15, 15))
    with pytest.raises(UnknownNameError, match="did you mean 'subset-retain'"):
        iris.split(CLASS_0, protocol="published", original_trains_on="subset_retain")
    with pytest.raises(InputError, match="give them to the object"):
        iris.split(CLASS_0, protocol=PublishedProtocol(), scale="none")
    with pytest.raises(InputError, match="sum to 100"):
        iris.split(CLASS_0, shares=(60, 10, 15, 10))
    with pytest.raises(InputError, match="'auto', 'none' or an interval"):
        iris.split(CLASS_0, scale="wide")
    with pytest.raises(InputError, match=r"whole number >= 0 as seed, got -1"):
        iris.split(CLASS_0, seed=-1)
    with pytest.raises(UnsupportedError, match="not ids; use 'sound'"):
        iris.split(ForgetRequest.of_ids([0]), protocol="published")
    with pytest.raises(InputError, match="from 0 to 2"):
        iris.split(ForgetRequest.of_class(3), protocol="published")
    not_train = iris.split(CLASS_0).test.ids[:2]
    with pytest.raises(InputError, match="2 that are not among them"):
        iris.split(ForgetRequest.of_ids(not_train))


def test_too_few_samples_to_stratify_are_named() -> None:
    few = load_dataset("iris").select([*range(5), *range(50, 100)])
    with pytest.raises(InputError, match="got 5 of class 'setosa' in iris"):
        few.split(ForgetRequest.of_class(1))
    with pytest.raises(InputError, match="enough samples in every class of iris to stratify"):
        few.select(range(4, 55)).split(ForgetRequest.of_class(1), protocol="published")
    six = load_dataset("iris").select([*range(6), *range(50, 56)])
    assert sizes(six.split(ForgetRequest.of_class(1))) == {
        "train": 6, "forget": 3, "retain": 3, "validation": 2, "test": 2, "holdout": 2
    }  # fmt: skip


def test_a_split_put_together_by_hand_is_held_to_the_guarantees() -> None:
    iris = load_dataset("iris")
    good = iris.split(CLASS_0)

    def build(**changes: object) -> Split:
        sets = good.sets() | {"original": good.train, "request": CLASS_0, "protocol": "mine", "seed": 0} | changes
        return Split(**sets)  # type: ignore[arg-type]

    assert build().protocol == "mine"
    with pytest.raises(InputError, match="both test and holdout set"):
        build(holdout=good.test)
    assert build(holdout=good.test, aliases={"holdout": "test"}).aliases == {"holdout": "test"}
    with pytest.raises(InputError, match="cut in two"):
        build(retain=good.train)
    with pytest.raises(InputError, match="samples in the forget set, got none"):
        build(forget=good.forget.select([]))
