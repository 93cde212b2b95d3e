"""Shadow models: who is inside, that they are trained and unlearned as alone, and what attacks make of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import qunlearn as qu
from qunlearn.data import Dataset, ForgetRequest
from qunlearn.errors import InputError
from qunlearn.methods import get
from qunlearn.methods.shadows import make_shadows, pool_of, retrained, scores, train_shadows, unlearn_shadows
from qunlearn.methods.task import Task
from qunlearn.metrics import attack_curve, lira_scores
from qunlearn.training import Recipe
from tests.methods.cases import plain_model

RECIPE = Recipe(epochs=3, batch_size=8, optimizer="sgd", learning_rate=0.05)


def data(samples: int, classes: int = 3, seed: int = 0) -> Dataset:
    """Overlapping blobs."""
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % classes
    x = rng.normal(size=(samples, 4)) + np.eye(4)[y]
    return Dataset(x, y)


def model(seed: int = 0) -> nn.Module:
    made = plain_model(seed)
    made.recipe = RECIPE  # type: ignore[assignment]
    return made


@settings(max_examples=30, deadline=None)
@given(samples=st.integers(60, 200), fraction=st.floats(0.05, 0.4), seed=st.integers(0, 99))
def test_halves_are_complements_of_one_size_with_every_class_in_both(samples: int, fraction: float, seed: int) -> None:
    split = data(samples).split(ForgetRequest.of_fraction(fraction), seed=seed)
    pool = pool_of(split)
    members, others = pool.data.y[pool.member], pool.data.y[~pool.member]
    for number in torch.unique(split.forget.y).tolist():
        there = int((split.holdout.y == number).sum())
        assert int((others == number).sum()) == min(int((members == number).sum()), there)
    assert pool.data.ids[: len(split.forget)].tolist() == split.forget.ids.tolist()
    inside = pool.halves(range(8))
    assert (inside.sum(1) == len(pool.data) // 2).all()
    assert not (inside[::2] & inside[1::2]).any()
    assert ((inside[::2] | inside[1::2]).sum(1) >= len(pool.data) - 1).all()
    for number in torch.unique(pool.data.y).tolist():
        mine = (pool.data.y == number).numpy()
        assert (abs(2 * inside[:, mine].sum(1) - mine.sum()) <= 2).all()
    assert (pool.halves([5]) == inside[5]).all()  # a shadow is the same among any others


def test_non_members_are_spoilt_as_the_corrupted_members_are() -> None:
    split = data(300).split(ForgetRequest.of_corrupted(), seed=0, corruption={"label_flips": 0.1})
    pool = pool_of(split)
    truth = dict(zip(split.clean.ids.tolist(), split.clean.y.tolist(), strict=True))
    truth |= dict(zip(split.holdout.ids.tolist(), split.holdout.y.tolist(), strict=True))
    own = torch.tensor([truth[number] for number in pool.data.ids.tolist()])
    assert (own != pool.data.y).all(), "every label in the pool is wrong"
    assert torch.equal(own[pool.member].bincount(), own[~pool.member].bincount())


def test_shadows_are_what_training_and_unlearning_alone_give() -> None:
    split = data(120).split(ForgetRequest.of_fraction(0.15), seed=1)
    pool, numbers = pool_of(split), [0, 1, 2]
    inside, fresh = pool.halves(numbers), [model(number) for number in numbers]
    trained = train_shadows(fresh, pool, inside, seeds=numbers)
    unlearned = unlearn_shadows(trained, pool, inside, method="neggrad-plus", seeds=numbers)  # type: ignore[arg-type]
    for number, row, before, after in zip(numbers, inside, trained, unlearned, strict=True):
        assert isinstance(before, nn.Module)
        assert isinstance(after, nn.Module)
        forget = pool.data.select(torch.from_numpy(row))
        ids = [*split.retain.ids.tolist(), *forget.ids.tolist()]
        x, y = torch.cat([split.retain.x, forget.x]), torch.cat([split.retain.y, forget.y])
        alone = qu.train(
            fresh[number], Dataset(x, y, torch.tensor(ids)), validation=split.validation, epochs=3, batch_size=8,
            optimizer="sgd", learning_rate=0.05, seed=number, progress=False,
        )  # fmt: skip
        task = Task(forget, split.retain, split.validation, ForgetRequest.of_ids(forget.ids), RECIPE)
        done = get("neggrad-plus")(alone, task, seed=number).model
        for one, other in ((before, alone), (after, done)):
            state = other.state_dict()
            assert all(torch.allclose(t, state[name], atol=1e-5) for name, t in one.state_dict().items())


def test_scores_are_log_odds_of_the_own_label() -> None:
    sample = data(12)
    with torch.no_grad():
        p = torch.softmax(model()(sample.x).double(), 1)[torch.arange(12), sample.y]
    np.testing.assert_allclose(scores(model(), sample), torch.log(p / (1 - p)).numpy(), atol=1e-5)


def test_made_shadows_are_reproducible_and_do_not_depend_on_how_many_at_once() -> None:
    split = data(90).split(ForgetRequest.of_fraction(0.15), seed=0)
    one = make_shadows(model(), split, "fine-tune", number=6, together=4, progress=False)
    other = make_shadows(model(), split, "fine-tune", number=6, together=1, progress=False)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    np.testing.assert_allclose(one.trained, other.trained, atol=1e-4)
    again = make_shadows(model(), split, "fine-tune", number=6, together=4, progress=False)
    assert one.to_bytes() == again.to_bytes()
    untouched = make_shadows(model(), split, "none", number=6, progress=False)
    np.testing.assert_array_equal(untouched.scores, untouched.trained)
    assert not np.allclose(make_shadows(model(), split, "none", number=6, seed=1, progress=False).trained, one.trained)


@pytest.mark.parametrize(
    ("number", "together", "message"),
    [(7, 20, "an even number of at least 6"), (4, 20, "an even number of at least 6"), (6, 0, "at least 1 shadow")],
    ids=["odd", "few", "none-at-once"],
)
def test_numbers_out_of_range_are_refused(number: int, together: int, message: str) -> None:
    split = data(90).split(ForgetRequest.of_fraction(0.15), seed=0)
    with pytest.raises(InputError, match=message):
        make_shadows(model(), split, "none", number=number, together=together, progress=False)


def test_the_published_protocol_has_no_non_members() -> None:
    split = qu.load_dataset("iris").split(ForgetRequest.of_fraction(0.1), protocol="published")
    with pytest.raises(InputError, match="use the sound protocol"):
        pool_of(split)


def test_a_method_that_trains_its_originals_trains_its_shadows() -> None:
    split = data(90).split(ForgetRequest.of_fraction(0.15), seed=0)
    found = make_shadows(model(), split, {"name": "sisa", "shards": 2, "slices": 1}, number=6, progress=False)
    assert found.scores.shape == found.inside.shape == (6, len(found.ids))
    assert np.isfinite(found.scores).all()


def test_retrained_models_saw_nothing_of_the_forget_set() -> None:
    split = data(90).split(ForgetRequest.of_fraction(0.15), seed=0)
    (one,) = retrained([model(3)], split, seeds=[3])
    assert isinstance(one, nn.Module)
    alone = qu.train(
        model(3), split.retain, validation=split.validation, epochs=3, batch_size=8, optimizer="sgd",
        learning_rate=0.05, seed=3, progress=False,
    )  # fmt: skip
    assert all(torch.equal(t, alone.state_dict()[name]) for name, t in one.state_dict().items())


@pytest.mark.slow
def test_an_attack_has_power_on_overfitted_models_and_none_on_those_that_never_saw_the_samples() -> None:
    """Random labels, learnt by heart: members stand out; after retraining chance is all that is left."""
    rng = np.random.default_rng(0)
    noise = Dataset(rng.normal(size=(300, 4)).astype(np.float32), rng.integers(0, 3, 300))
    split = noise.split(ForgetRequest.of_fraction(0.2), seed=0)
    wide = nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 3))
    wide.recipe = Recipe(epochs=150, learning_rate=0.02, keep="last")  # type: ignore[assignment]
    found = make_shadows(wide, split, "none", number=32, progress=False)
    curve = attack_curve(lira_scores(found.trained, found.inside), found.inside, seed=0)
    assert curve.auc.low > 0.7
    assert found.retrained is not None
    blind = attack_curve(lira_scores(found.retrained, found.inside), found.inside, seed=0)
    assert blind.auc.low <= 0.5 <= blind.auc.high
