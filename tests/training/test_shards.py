"""Where samples go, and what a shard learns from them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.data import Dataset
from qunlearn.errors import InputError, NumericalError
from qunlearn.training import Recipe, shards
from qunlearn.training.seeds import Seeds
from qunlearn.training.shards import Shard, grow, grow_all, places


def test_the_hash_is_splitmix64() -> None:
    """The first outputs of the published generator from the states 0 and 1."""
    words = shards._mixed(torch.tensor([0, 1]).numpy().astype("uint64"))
    assert [int(word) for word in words] == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1]


def test_a_place_depends_on_the_id_and_the_seed_alone() -> None:
    ids = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))
    shard, number = places(ids, 5, 4, seed=3)
    for chosen in (slice(0, 1), slice(7, 300), slice(9_999, None)):
        assert torch.equal(places(ids[chosen], 5, 4, 3)[0], shard[chosen])
        assert torch.equal(places(ids[chosen], 5, 4, 3)[1], number[chosen])
    assert not torch.equal(places(ids, 5, 4, 4)[0], shard)


@pytest.mark.parametrize("ids", [torch.arange(60_000), torch.arange(60_000) * 20, torch.arange(60_000) + 2**40])
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_every_shard_and_slice_gets_its_share(ids: Tensor, seed: int) -> None:
    """60,000 draws of 20 equal shares: each count has a standard deviation of 53; five of them."""
    shard, number = places(ids, 5, 4, seed)
    counts = torch.bincount(shard * 4 + number, minlength=20)
    assert len(counts) == 20
    assert (counts - 3_000).abs().max() < 5 * 53.4


def data(number: int, seed: int = 0) -> Dataset:
    x = torch.randn(number, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Dataset(x, (x.sum(1) > 0).long(), ids=range(100, 100 + number))


def linear(seed: int = 0) -> nn.Linear:
    model = nn.Linear(3, 2).double()
    nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(model.bias)
    return model


RECIPE = Recipe(optimizer="sgd", learning_rate=0.1, batch_size=64)


def test_a_shard_learns_the_union_of_its_slices_so_far() -> None:
    """Full batches of gradient descent with momentum, a fresh optimizer a slice, against the same by hand."""
    whole, model = data(12), linear()
    slices = [whole.select([9, 2, 4]), whole.select([]), whole.select([0, 1, 3, 5]), whole.select([11, 10, 8, 7, 6])]
    expected = copy.deepcopy(model)
    found = grow(Shard(model, slices, 0, False, Seeds(0)), RECIPE, 3)
    seen: list[int] = []
    for new, state in zip(([9, 2, 4], [], [0, 1, 3, 5], [11, 10, 8, 7, 6]), found.states, strict=True):
        seen += new
        momenta = [torch.zeros_like(p) for p in expected.parameters()]
        for _ in range(3):
            loss = cross_entropy(expected(whole.x[seen]), whole.y[seen])
            gradients = torch.autograd.grad(loss, list(expected.parameters()))
            with torch.no_grad():
                for p, m, g in zip(expected.parameters(), momenta, gradients, strict=True):
                    m.mul_(0.9).add_(g)
                    p.sub_(0.1 * m)
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(state[name], value, atol=1e-12, rtol=0)
    assert found.learnt == [True] * 4
    assert found.counts.gradient_evaluations == 3 * (3 + 3 + 7 + 12)


def test_a_shard_goes_on_from_a_checkpoint_with_the_same_bits() -> None:
    whole = data(40)
    slices = [whole.select(range(start, 40, 4)) for start in range(4)]
    recipe = Recipe(learning_rate=0.05, batch_size=4)
    full = grow(Shard(linear(), slices, 0, False, Seeds(5)), recipe, 2)
    middle = linear(9)
    middle.load_state_dict(full.states[1])
    rest = grow(Shard(middle, slices, 2, True, Seeds(5)), recipe, 2)
    for one, other in zip(full.states[2:], rest.states, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    elsewhere = grow(Shard(linear(), slices, 0, False, Seeds(6)), recipe, 2)
    assert not torch.equal(elsewhere.states[0]["weight"], full.states[0]["weight"]), "the order is the seed's"


class Fitted(nn.Module):
    """Needs four samples to learn where the middle is."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = linear()
        self.register_buffer("middle", torch.zeros(3, dtype=torch.float64))

    def fit(self, x: Tensor) -> None:
        if len(x) < 4:
            raise InputError("expected at least 4 samples")
        self.middle = x.mean(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x - self.middle)  # type: ignore[no-any-return]


def test_parts_are_fitted_once_when_there_are_samples_enough() -> None:
    whole = data(12)
    slices = [whole.select([0, 1]), whole.select([2, 3, 4]), whole.select(range(5, 12))]
    found = grow(Shard(Fitted(), slices, 0, False, Seeds(0)), RECIPE, 2)
    assert found.learnt == [False, True, True]
    assert torch.equal(found.states[0]["linear.weight"], linear().weight)
    for state in found.states[1:]:
        torch.testing.assert_close(state["middle"], whole.x[:5].mean(0))
    short = grow(Shard(Fitted(), slices[:1], 0, False, Seeds(0)), RECIPE, 2)
    assert short.learnt == [False]
    assert "at least 4 samples" in short.error


def test_divergence_is_an_error() -> None:
    with pytest.raises(NumericalError, match="lower learning_rate"):
        grow(Shard(linear(), [data(9)], 0, False, Seeds(0)), Recipe(learning_rate=1e308), 4)


@pytest.mark.slow
def test_shards_come_out_of_other_processes_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data(60)
    recipe, jobs = Recipe(batch_size=4), []
    for number in range(4):
        slices = [whole.select(range(number, 60, 8)), whole.select(range(number + 4, 60, 8))]
        jobs.append(Shard(linear(number), slices, 0, False, Seeds(number)))
    alone = grow_all(copy.deepcopy(jobs), recipe, 2)
    monkeypatch.setattr(shards, "SLOW", 0.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    done: list[int] = []
    elsewhere = grow_all(jobs, recipe, 2, lambda number, total, _: done.append(number))
    assert done == [1, 4]
    for one, other in zip(alone, elsewhere, strict=True):
        assert one.learnt == other.learnt
        for a, b in zip(one.states, other.states, strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)
