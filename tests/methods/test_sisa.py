"""SISA: the same bits as training from scratch without the forget set, at a fraction of the work."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import qunlearn as qu
from qunlearn.data import Dataset, ForgetRequest, Split
from qunlearn.errors import InputError
from qunlearn.methods import Sisa
from qunlearn.models import Ensemble, HybridClassifier, load_model, save_model
from qunlearn.quantum import load_circuit
from qunlearn.training import Recipe
from qunlearn.training.shards import places
from qunlearn.training.trace import Trace
from tests.methods.cases import blobs, hybrid_model, plain_model

RECIPE = Recipe(epochs=3, learning_rate=0.05, batch_size=8)


def trained(method: Sisa, model: nn.Module, data: Dataset, seed: int = 0, recipe: Recipe = RECIPE) -> Any:
    return method.train(model, data, recipe=recipe, seed=seed)


def with_pca() -> HybridClassifier:
    circuit = load_circuit("ring-cz", qubits=2, depth=1)
    return HybridClassifier(circuit, 3, encoder="pca", generator=torch.Generator().manual_seed(0))


def assert_same_bits(one: Any, other: Any) -> None:
    """Models and traces: every tensor, and all facts."""
    assert one.trace.facts == other.trace.facts
    for a, b in ((one.state_dict(), other.state_dict()), (one.trace.tensors, other.trace.tensors)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a), "not the same bits"


def test_request_follows_request() -> None:
    """Three in turn, the last of a whole class, and back from a file in between."""
    method, data = Sisa(shards=3, slices=3), Dataset(*blobs(0, 90))
    model, left = trained(method, hybrid_model(), data), data
    for gone in (torch.arange(90) % 31 == 3, torch.arange(90) == 50, data.y == 2):
        stay = ~gone[left.ids]
        found = qu.unlearn(model, left.select(~stay), left.select(stay), method=method, progress=False)
        model, left = found.model, left.select(stay)
        assert_same_bits(model, trained(method, hybrid_model(), left))
    assert int((model(left.x).argmax(1) == 2).sum()) < 9, "the class is hardly ever answered"


@settings(max_examples=12, phases=[Phase.generate])  # no shrinking: every example trains
@given(
    seed=st.integers(0, 10**6),
    shards=st.integers(1, 4),
    slices=st.integers(1, 4),
    gone=st.sets(st.integers(0, 59), min_size=1, max_size=40),
    kind=st.sampled_from([plain_model, hybrid_model, with_pca]),
)
def test_unlearning_gives_the_bits_of_training_on_the_retain_set(
    seed: int, shards: int, slices: int, gone: set[int], kind: Any
) -> None:
    method = Sisa(shards=shards, slices=slices)
    x, y = blobs(seed, 60)
    data = Dataset(x, y, ids=torch.randperm(500, generator=torch.Generator().manual_seed(seed))[:60])
    forget, retain = data.select(sorted(gone)), data.select([i for i in range(60) if i not in gone])
    original = trained(method, kind(), data, seed)
    found: Any = qu.unlearn(original, forget, retain, method=method, seed=seed + 1, progress=False).model
    assert_same_bits(found, trained(method, kind(), retain, seed))


def test_what_comes_from_files_unlearns_alike(tmp_path: Any) -> None:
    method, data = Sisa(shards=2, slices=2), Dataset(*blobs(0, 40))
    model = trained(method, hybrid_model(), data)
    save_model(model, tmp_path)
    trace = Trace.from_bytes(model.trace.to_bytes())
    sets = data.select([3, 4]), data.select([i for i in range(40) if i not in {3, 4}])
    one: Any = qu.unlearn(model, *sets, method=method, progress=False).model
    other: Any = qu.unlearn(load_model(tmp_path), *sets, method=method, trace=trace, progress=False).model
    assert_same_bits(one, other)


def split_of(request: ForgetRequest, number: int = 120) -> Split:
    return Dataset(*blobs(0, number)).split(request, seed=0)


def test_only_what_a_request_touches_is_trained_again() -> None:
    method = Sisa(shards=4, slices=3)
    split = split_of(ForgetRequest.of_fraction(0.02))
    model = trained(method, hybrid_model(), split.original)
    found = qu.unlearn(model, split, method=method, progress=False)
    shard, first = (p.tolist() for p in places(split.forget.ids, 4, 3, 0))
    changed = {
        s
        for s in range(4)
        if any(
            not torch.equal(a, b)
            for a, b in zip(model.members[s].parameters(), found.model.members[s].parameters(), strict=True)  # type: ignore[index,union-attr]
        )
    }
    assert changed == set(shard)
    assert 0 < len(changed) < 4
    touched = {s: min(f for t, f in zip(shard, first, strict=True) if t == s) for s in changed}
    # Two epochs (2 * 3 / 4, rounded) of every slice from the first touched one, over the slices so far.
    home, number = places(split.retain.ids, 4, 3, 0)
    sizes = [2 * int(((home == s) & (number <= r)).sum()) for s, f in touched.items() for r in range(f, 3)]
    assert found.record.counts.gradient_evaluations == sum(sizes)
    guarantee = found.record.guarantee
    assert guarantee is not None
    assert (guarantee["kind"], guarantee["details"]["shards"]) == ("exact", sorted(touched))
    assert guarantee["details"]["first_slices"] == [touched[s] for s in sorted(touched)]


@pytest.mark.parametrize(("shards", "slices"), [(1, 1), (1, 4), (3, 2), (4, 3)])
def test_one_sample_costs_the_share_of_a_training_that_theory_says(shards: int, slices: int) -> None:
    """(1/S) (2R + 1) / (3R), over deletions of 25 random samples; within three standard errors and 2 %."""
    method, data = Sisa(shards=shards, slices=slices), Dataset(*blobs(0, 240))
    recipe = Recipe(epochs=1, batch_size=240)
    model = trained(method, nn.Linear(4, 3).double(), data, recipe=recipe)
    whole, shares = model.training_counts.gradient_evaluations, []
    for gone in np.random.default_rng(0).choice(240, 25, replace=False):
        stay = data.select([i for i in range(240) if i != gone])
        record = qu.unlearn(model, data.select([int(gone)]), stay, method=method, progress=False).record
        shares.append(record.counts.gradient_evaluations / whole)
    expected = (2 * slices + 1) / (3 * slices) / shards
    assert np.mean(shares) == pytest.approx(expected, abs=3 * np.std(shares) / np.sqrt(25) + 0.02 * expected)


def test_it_sees_as_many_samples_as_one_model_does() -> None:
    data = Dataset(*blobs(0, 200))
    for shards, slices, epochs in ((1, 1, 10), (5, 4, 10), (3, 3, 10)):
        model = trained(
            Sisa(shards=shards, slices=slices), plain_model(), data, recipe=dataclasses.replace(RECIPE, epochs=epochs)
        )
        assert model.training_counts.gradient_evaluations == pytest.approx(200 * epochs, rel=0.1)


def test_members_are_drawn_apart_and_the_ensemble_learns() -> None:
    split = split_of(ForgetRequest.of_fraction(0.1), 360)
    model = trained(
        Sisa(shards=3, slices=2), plain_model(), split.original, recipe=Recipe(epochs=30, learning_rate=0.05)
    )
    assert isinstance(model, Ensemble)
    firsts = [next(member.parameters()) for member in model.members]
    assert not torch.equal(firsts[0], firsts[1])
    assert (model(split.test.x).argmax(1) == split.test.y).double().mean() > 0.8
    with torch.no_grad():
        mean = torch.stack([m(split.test.x).softmax(1) for m in model.members]).mean(0)
    torch.testing.assert_close(model(split.test.x).softmax(1), mean)
    majority: Any = trained(Sisa(shards=3, slices=2, vote="majority"), plain_model(), split.original)
    assert majority.vote == "majority"


def test_neither_validation_set_nor_the_order_of_samples_plays_a_part() -> None:
    split, method = split_of(ForgetRequest.of_fraction(0.1)), Sisa(shards=2, slices=2)
    model = trained(method, hybrid_model(), split.original)
    shuffled = split.original.select(torch.randperm(len(split.original), generator=torch.Generator().manual_seed(1)))
    assert_same_bits(model, method.train(hybrid_model(3), shuffled, validation=split.validation, recipe=RECIPE, seed=0))
    other = trained(method, hybrid_model(), split.original, seed=1)
    assert not torch.equal(model(split.test.x), other(split.test.x))


def test_a_shard_that_cannot_learn_any_more_is_not_asked() -> None:
    data = Dataset(*blobs(0, 40))
    method = Sisa(shards=2, slices=2)
    model = trained(method, with_pca(), data)
    emptied = places(data.ids, 2, 2, 0)[0] == 1
    found: Any = qu.unlearn(model, data.select(emptied), data.select(~emptied), method=method, progress=False).model
    assert found.weight.tolist() == [1, 0]
    x = data.x.float()
    torch.testing.assert_close(found(x), found.members[0](x).log_softmax(1))
    with pytest.raises(InputError, match="use fewer shards"):
        trained(method, with_pca(), data.select([7]))


def test_the_recipe_alone_retrains_no_ensemble() -> None:
    split = split_of(ForgetRequest.of_fraction(0.1))
    model = trained(Sisa(shards=2, slices=2), plain_model(), split.original)
    for call in (
        lambda: qu.retrain(model, split, seed=1, progress=False),
        lambda: qu.unlearn(model, split, method="retrain", progress=False),
    ):
        with pytest.raises(InputError, match=r"reference is methods.get\('sisa'\).train"):
            call()


def test_what_it_cannot_serve_is_refused() -> None:
    data, method = Dataset(*blobs(0, 40)), Sisa(shards=2, slices=2)
    model = trained(method, plain_model(), data)
    rest = data.select(range(1, 40))
    with pytest.raises(InputError, match="samples that the model was trained on"):
        qu.unlearn(model, data.select([0]), rest.select(range(20)), method=method, progress=False)
    with pytest.raises(InputError, match="expected a task with a trace for sisa"):
        qu.unlearn(plain_model(), data.select([0]), rest, method=method, progress=False)
    with pytest.raises(InputError, match="expected an Ensemble that sisa trained, got Sequential"):
        qu.unlearn(plain_model(), data.select([0]), rest, method=method, trace=model.trace, progress=False)
    stolen = dataclasses.replace(model.trace, method="amnesiac")
    with pytest.raises(InputError, match="expected a trace that sisa recorded, got one of amnesiac"):
        qu.unlearn(plain_model(), data.select([0]), rest, method=method, trace=stolen, progress=False)
