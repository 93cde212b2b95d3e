"""Random streams: the stated derivation, and that none moves another."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest
import torch

from qunlearn.errors import InputError
from qunlearn.training.seeds import Seeds


def test_a_child_seed_is_numpy_s_for_seed_scope_and_purpose() -> None:
    words = [7, zlib.crc32(b"scrub"), zlib.crc32(b"order")]
    wanted = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]) // 2
    assert Seeds(7, "scrub").integer("order") == wanted


def test_no_two_streams_are_the_same() -> None:
    names = ("order", "loss", "dropout", "prepare", "start", "train", "")
    grid = itertools.product(range(50), ("train", "scrub", "", "order"), names)
    found = [Seeds(seed, scope).integer(purpose) for seed, scope, purpose in grid]
    assert len(set(found)) == len(found)
    assert all(0 <= value < 2**63 for value in found)


def test_a_stream_is_fresh_at_every_call_and_leaves_the_global_one_alone() -> None:
    before, seeds = torch.random.get_rng_state(), Seeds(3, "train")
    first = seeds.generator("order")
    drawn = torch.rand(5, generator=first)
    torch.rand(9, generator=seeds.generator("loss"))
    assert torch.equal(torch.rand(5, generator=seeds.generator("order")), drawn)
    assert not torch.equal(torch.rand(5, generator=seeds.generator("loss")), drawn)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("seed", [-1, 1.5, "3", True, None])
def test_what_is_no_seed_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match="expected a seed that is a whole number of at least 0, got"):
        Seeds(seed)  # type: ignore[arg-type]


def test_numpy_integers_are_seeds() -> None:
    assert Seeds(np.int64(5)).integer("order") == Seeds(5).integer("order")  # type: ignore[arg-type]
