"""A class leaves a network that has learnt the digits: what editing weights and masks reach, on data never selected on.

Measured on the classes 0 to 9 in turn at settings that validation chose (64-64-10, weight decay 0.001, test accuracy
0.978); below 5 % of the class, on forget and test samples, at 3 points of the others' test accuracy or less: SalUn on
all ten, SSD on seven (not on 1 and 5, where 7 to 10 % stay, nor on 2, where it finds nothing that the others spare).
Class 3: influence 0 % at 0.4 points, Fisher forgetting 4 % at 2.0, of which the erased row does most; JiT 86 % at 2.5:
it smooths outputs, and the class stays.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

import qunlearn as qu
from qunlearn.data import Dataset, Split
from qunlearn.methods.unlearn import unlearn
from qunlearn.training.selection import Candidate, Watch, keep_setting
from tests.methods.learnt import accuracy

pytestmark = pytest.mark.slow

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "ssd": [{"alpha": alpha, "strength": 0.1} for alpha in (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)],
    "salun": [{"epochs": 10, "learning_rate": 0.002}, {"epochs": 10, "learning_rate": 0.002, "share": 0.2}],
    "influence": [
        {"matrix": "gauss-newton", "damping": damping, "strength": strength}
        for damping in (0.0003, 0.001, 0.003)
        for strength in (1.0, 2.0)
    ],
    "jit": [{"variant": "released", "epochs": 10, "sigma": sigma, "learning_rate": 0.0003} for sigma in (0.1, 0.5)],
    "fisher-forgetting": [{"alpha": alpha} for alpha in (1e-6, 1e-5, 1e-4)],
}


@functools.lru_cache(maxsize=4)
def digits(gone: int) -> tuple[Split, nn.Module]:
    """The split that forgets a class, and the network that learnt all of them."""
    split = qu.load_dataset("digits").split(qu.ForgetRequest.of_class(gone), seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    recipe: dict[str, Any] = {"epochs": 60, "learning_rate": 0.005, "weight_decay": 0.001}
    return split, qu.train(fresh, split.train, validation=split.validation, seed=0, progress=False, **recipe)


def best(name: str, gone: int) -> nn.Module:
    """What the settings leave that validation ranks first, by the rule of tuning."""
    split, model = digits(gone)
    watch = Watch(split.forget, split.validation, frozenset(range(10)) - {gone})
    found = [unlearn(model, split, method={"name": name, **s}, progress=False).model for s in SETTINGS[name]]
    return found[keep_setting(_measured(watch, model), [_measured(watch, each) for each in found])]


def _measured(watch: Watch, model: nn.Module) -> Candidate:
    from qunlearn.training.net import Net

    return watch(Net(model), 0)


def parts(data: Dataset, gone: int) -> tuple[Dataset, Dataset]:
    """The samples of the class, and all others."""
    return data.select((data.y == gone).nonzero().flatten()), data.select((data.y != gone).nonzero().flatten())


@pytest.mark.parametrize("gone", [0, 3, 8])
@pytest.mark.parametrize("name", ["ssd", "salun"])
def test_a_class_is_removed_and_the_others_stay(name: str, gone: int) -> None:
    split, model = digits(gone)
    of_class, others = parts(split.test, gone)
    assert accuracy(model, split.test) > 0.95
    assert accuracy(model, split.forget) > 0.95
    after = best(name, gone)
    assert accuracy(after, split.forget) < 0.05
    assert accuracy(after, of_class) < 0.05
    assert accuracy(after, others) >= accuracy(model, others) - 0.03


@pytest.mark.parametrize(("name", "most"), [("influence", 0.05), ("fisher-forgetting", 0.5), ("jit", 1.0)])
def test_what_the_others_reach(name: str, most: float) -> None:
    split, model = digits(3)
    of_class, others = parts(split.test, 3)
    after = best(name, 3)
    print(
        name, accuracy(after, split.forget), accuracy(after, of_class), accuracy(after, others), accuracy(model, others)
    )
    assert accuracy(after, split.forget) <= most
    assert accuracy(after, others) >= accuracy(model, others) - 0.05
