"""Deleting a class of handwritten digits from a small network by the gradient methods of the classical family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset, ForgetRequest, Split
from qunlearn.methods import unlearn
from qunlearn.training import train

pytestmark = pytest.mark.slow

SEEDS = range(4)
GONE = 3


@pytest.fixture(scope="module")
def split() -> Split:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return Dataset(torch.tensor(x / 16), torch.tensor(y)).split(ForgetRequest.of_class(GONE), seed=0)


@pytest.fixture(scope="module")
def original(split: Split) -> nn.Module:
    """64-64-10, trained to its least validation loss."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).double()
    model = train(network, split.train, validation=split.validation, learning_rate=0.003, progress=False)
    assert accuracy(model, split.test.x, split.test.y) > 0.95
    return model


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


def retained_accuracy(model: nn.Module, split: Split) -> float:
    rows = split.test.y != GONE
    return accuracy(model, split.test.x[rows], split.test.y[rows])


# The last epoch, no validation set: what a method does by itself.
SETTINGS: list[dict[str, Any]] = [
    {"name": "bad-teacher", "epochs": 20, "learning_rate": 0.01},
    {"name": "boundary-shrink", "retain_weight": 1.0},
    {"name": "boundary-expand", "retain_weight": 1.0},
    {"name": "unsir"},
    {"name": "npo"},
    {"name": "npo", "variant": "simnpo"},
    {"name": "rmu"},
    {"name": "head-only"},
    {"name": "l1-sparse"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(str(v) for v in s.values()))
def test_a_class_goes_and_the_others_stay(settings: dict[str, Any], original: nn.Module, split: Split) -> None:
    """Below 5 % of the forget set and at most 3 points of test accuracy on the rest, means over four seeds.

    A bad teacher's student ends at the share of forget samples that its untrained teacher happens to call by their
    label, about one in ten but for what is not yet learnt: hence the mean.
    """
    before = retained_accuracy(original, split)
    assert accuracy(original, split.forget.x, split.forget.y) > 0.95
    models = [
        unlearn(original, split.forget, split.retain, method=settings, seed=seed, progress=False).model
        for seed in SEEDS
    ]
    forgotten = [accuracy(model, split.forget.x, split.forget.y) for model in models]
    kept = [retained_accuracy(model, split) for model in models]
    assert sum(forgotten) / len(forgotten) < 0.05
    assert sum(kept) / len(kept) >= before - 0.03
