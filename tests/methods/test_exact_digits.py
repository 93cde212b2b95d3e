"""A class of digits leaves models that were trained so that it can."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qunlearn as qu
from qunlearn.data import Split
from qunlearn.methods import get
from qunlearn.training import Recipe
from tests.methods.learnt import accuracy

pytestmark = pytest.mark.slow

RECIPE = Recipe(epochs=40, learning_rate=0.005)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def hybrid() -> nn.Module:
    circuit = qu.load_circuit("ring-cz", qubits=6, depth=2)
    return qu.HybridClassifier(circuit, 10, encoder="pca", generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=[0, 3, 8])
def split(request: pytest.FixtureRequest) -> Split:
    return qu.load_dataset("digits").split(qu.ForgetRequest.of_class(request.param), seed=0)


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        ({"name": "sisa", "shards": 3, "slices": 2}, network),
        ({"name": "amnesiac", "epochs": 40}, network),
        ({"name": "kernel-downdate", "embedding": "amplitude"}, hybrid),
        ({"name": "kernel-downdate", "embedding": "validation"}, hybrid),
    ],
    ids=["sisa", "amnesiac", "kernel of amplitudes", "kernel of components"],
)
def test_the_class_goes_and_the_others_stay(settings: dict[str, Any], make: Any, split: Split) -> None:
    method = get(settings)
    original = method.train(make(), split.original, validation=split.validation, recipe=RECIPE, seed=0)
    found = qu.unlearn(original, split, method=method, progress=False).model
    gone = int(split.forget.y[0])
    others = split.test.select((split.test.y != gone).nonzero().flatten())
    assert accuracy(original, split.forget) > 0.88
    assert accuracy(original, others) > 0.88
    assert accuracy(found, split.forget) < 0.05
    assert accuracy(found, split.test.select((split.test.y == gone).nonzero().flatten())) < 0.05
    assert accuracy(found, others) >= accuracy(original, others) - 0.03
