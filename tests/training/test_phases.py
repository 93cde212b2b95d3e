"""Batches: every kind of data covers each sample exactly as its description says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qunlearn.errors import InputError
from qunlearn.training.phases import DataOf, Samples, positions

sizes = st.integers(1, 12)
lengths = st.integers(1, 30)
seeds = st.integers(0, 99)


def drawn(
    data: DataOf, forget: int, retain: int, size: int, seed: int, alone: bool = True, share: float = 1.0
) -> list[dict[str, list[int]]]:
    """The positions of each batch; none for a part that is not there, and of mixed batches those of either set."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for batch in positions(data, forget, retain, size, generator, alone, share):
        both = batch.get("mixed", torch.empty(0, dtype=torch.int64))
        parts = {"forget": both[both < forget], "retain": both[both >= forget] - forget, **batch}
        found.append({name: parts[name].tolist() for name in ("forget", "retain")})
    return found


def joined(parts: Iterable[list[int]]) -> list[int]:
    return [i for each in parts for i in each]


@given(forget=lengths, retain=lengths, size=sizes, seed=seeds)
def test_forget_and_retain_are_one_pass_over_one_set(forget: int, retain: int, size: int, seed: int) -> None:
    of_forget, of_retain = (drawn(name, forget, retain, size, seed) for name in ("forget", "retain"))
    assert sorted(joined(b["forget"] for b in of_forget)) == list(range(forget))
    assert sorted(joined(b["retain"] for b in of_retain)) == list(range(retain))
    assert joined(b["retain"] for b in of_forget) == joined(b["forget"] for b in of_retain) == []
    assert [len(b["retain"]) for b in of_retain[:-1]] == [size] * (len(of_retain) - 1)


@given(forget=lengths, retain=lengths, size=sizes, seed=seeds)
def test_paired_ends_with_the_shorter_set(forget: int, retain: int, size: int, seed: int) -> None:
    found = drawn("paired", forget, retain, size, seed)
    assert len(found) == min(-(-forget // size), -(-retain // size))
    for parts, length in (([b["forget"] for b in found], forget), ([b["retain"] for b in found], retain)):
        seen = joined(parts)
        assert len(seen) == len(set(seen)) == min(length, len(found) * size)
    assert all(len(b["forget"]) and len(b["retain"]) for b in found)


@given(forget=lengths, retain=lengths, size=sizes, seed=seeds)
def test_cycled_passes_once_over_retain_and_begins_forget_again(forget: int, retain: int, size: int, seed: int) -> None:
    found = drawn("cycled", forget, retain, size, seed)
    assert sorted(joined(b["retain"] for b in found)) == list(range(retain))
    per_pass = -(-forget // size)
    for first in range(0, len(found), per_pass):
        seen = joined(b["forget"] for b in found[first : first + per_pass])
        assert len(seen) == len(set(seen)), "a sample came twice before all had come once"
        if first + per_pass <= len(found):
            assert sorted(seen) == list(range(forget))


def test_every_pass_over_the_forget_set_is_shuffled_anew() -> None:
    found = drawn("cycled", 20, 100, 5, 0)
    passes = [joined(b["forget"] for b in found[i : i + 4]) for i in range(0, 20, 4)]
    assert len({tuple(order) for order in passes}) == 5


@given(forget=lengths, retain=lengths, size=sizes, seed=seeds)
def test_mixed_is_a_partition_of_both_sets(forget: int, retain: int, size: int, seed: int) -> None:
    found = drawn("mixed", forget, retain, size, seed)
    assert sorted(joined(b["forget"] for b in found)) == list(range(forget))
    assert sorted(joined(b["retain"] for b in found)) == list(range(retain))
    lengths_found = [len(b["forget"]) + len(b["retain"]) for b in found]
    assert lengths_found[:-1] == [size] * (len(found) - 1)
    assert 1 <= lengths_found[-1] <= size


@given(
    data=st.sampled_from(["forget", "retain", "paired", "cycled", "mixed"]),
    forget=st.integers(2, 30),
    retain=st.integers(2, 30),
    size=st.integers(2, 12),
    seed=seeds,
)
def test_no_batch_of_one_where_batch_norm_needs_two(
    data: DataOf, forget: int, retain: int, size: int, seed: int
) -> None:
    found = drawn(data, forget, retain, size, seed, alone=False)
    if data == "mixed":  # both parts run through the model together
        counts = [len(b["forget"]) + len(b["retain"]) for b in found]
    else:
        counts = [len(each) for b in found for each in b.values() if each]
    assert min(counts) >= 2
    assert max(counts) <= size + 1
    if data in ("retain", "cycled", "mixed"):
        assert sorted(joined(b["retain"] for b in found)) == list(range(retain))


@pytest.mark.parametrize(("data", "forget", "size"), [("forget", 1, 4), ("cycled", 1, 4), ("retain", 1, 1)])
def test_a_single_sample_is_refused_where_batch_norm_needs_two(data: DataOf, forget: int, size: int) -> None:
    with pytest.raises(InputError, match="batches of at least 2 samples"):
        drawn(data, forget, 6, size, 0, alone=False)
    assert drawn(data, forget, 6, size, 0, alone=True)


def test_the_order_is_the_generator_s_permutation() -> None:
    wanted = torch.randperm(7, generator=torch.Generator().manual_seed(5)).tolist()
    assert joined(b["retain"] for b in drawn("retain", 1, 7, 3, 5)) == wanted
    state = torch.random.get_rng_state()
    drawn("cycled", 3, 9, 2, 0)
    assert torch.equal(torch.random.get_rng_state(), state)


@given(
    data=st.sampled_from(["retain", "cycled", "mixed"]),
    forget=lengths,
    retain=lengths,
    size=sizes,
    seed=seeds,
    share=st.floats(0.01, 1.0),
)
def test_a_share_of_the_retain_set_comes_once_and_the_forget_set_whole(
    data: DataOf, forget: int, retain: int, size: int, seed: int, share: float
) -> None:
    found = drawn(data, forget, retain, size, seed, share=share)
    kept = joined(b["retain"] for b in found)
    assert len(kept) == len(set(kept)) == max(1, round(share * retain))
    assert set(kept) <= set(range(retain))
    if data == "mixed":
        assert sorted(joined(b["forget"] for b in found)) == list(range(forget))
        assert all(len(b["forget"]) + len(b["retain"]) <= size for b in found)


@pytest.mark.parametrize("data", ["retain", "mixed"])
def test_every_retain_sample_is_as_likely_to_be_in_the_share(data: DataOf) -> None:
    """2,000 seeds, 3 of 10: each is there with a share of 0.3 (5 sigma: 0.051)."""
    shares = Counter(i for seed in range(2000) for b in drawn(data, 2, 10, 4, seed, share=0.3) for i in b["retain"])
    assert all(abs(shares[i] / 2000 - 0.3) < 0.051 for i in range(10))


@pytest.mark.parametrize("data", ["forget", "cycled", "mixed"])
def test_every_order_is_as_likely_as_any_other(data: DataOf) -> None:
    """2,000 seeds: the first forget sample of an epoch is each of 4 with a share of 1/4 (5 sigma: 0.048)."""
    firsts = Counter(joined(b["forget"] for b in drawn(data, 4, 4, 8, seed))[0] for seed in range(2000))
    assert all(abs(firsts[i] / 2000 - 0.25) < 0.048 for i in range(4))


def test_samples_are_taken_row_by_row() -> None:
    """Inputs, labels and positions stay together; several orders are taken at once."""
    numbers = torch.arange(7)
    whole = Samples((numbers + 100).double()[:, None], numbers % 3, numbers)
    found = whole.take(torch.tensor([[4, 2, 2], [0, 6, 5]]))
    assert found.x.squeeze(-1).tolist() == [[104.0, 102.0, 102.0], [100.0, 106.0, 105.0]]
    assert found.y.tolist() == [[1, 2, 2], [0, 0, 2]]
    assert found.position.tolist() == [[4, 2, 2], [0, 6, 5]]


@given(length=st.integers(1, 8), number=st.integers(1, 4))
def test_copies_number_every_copy_of_every_sample(length: int, number: int) -> None:
    numbers = torch.arange(length)
    found = Samples(numbers.double()[:, None], numbers % 3, numbers).copies(number)
    assert found.position.tolist() == list(range(length * number))
    for row, position in enumerate(found.position.tolist()):
        assert float(found.x[row, 0]) == position // number
        assert int(found.y[row]) == (position // number) % 3
