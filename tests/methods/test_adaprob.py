"""AdaProb's two stages against closed forms, Sinkhorn, and the released recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qunlearn.errors import InputError
from qunlearn.methods import get
from qunlearn.methods.adaprob import FLOOR, LEAST_ENTROPY, STARTS, AdaProb, pseudo_probabilities
from qunlearn.methods.distil import class_distribution
from qunlearn.training.net import Net
from tests.methods.cases import make_task, plain_model


def distributions(rows: int, classes: int, seed: int, concentration: float = 1.0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.as_tensor(rng.dirichlet(np.full(classes, concentration), size=rows))


def objective(m: Tensor, a: Tensor, w: Tensor) -> float:
    return float((w[:, None] * (torch.xlogy(m, m) - m * a.log())).sum())


def test_equal_weights_and_uniform_start_give_the_marginal_in_every_row() -> None:
    marginal = distributions(1, 10, 0)[0]
    found = pseudo_probabilities(torch.full((60, 10), 0.1), 60 * marginal)
    assert torch.allclose(found, marginal.expand(60, 10), atol=1e-12)


@given(rows=st.integers(1, 30), classes=st.integers(2, 6), seed=st.integers(0, 999))
def test_a_feasible_start_is_its_own_solution(rows: int, classes: int, seed: int) -> None:
    start = distributions(rows, classes, seed)
    weights = 0.1 + torch.as_tensor(np.random.default_rng(seed).random(rows))
    assert torch.allclose(pseudo_probabilities(start, start.sum(0), weights), start, atol=1e-9)


@given(rows=st.integers(2, 40), classes=st.integers(2, 8), seed=st.integers(0, 999), entropy=st.booleans())
def test_rows_and_columns_sum_as_asked(rows: int, classes: int, seed: int, entropy: bool) -> None:
    start = distributions(rows, classes, seed).clamp(min=1e-6)
    start = start / start.sum(1, keepdim=True)
    totals = rows * distributions(1, classes, seed + 1, 3.0)[0]
    weights = 1 / (-torch.xlogy(start, start).sum(1)).clamp(min=1e-2) if entropy else None
    found = pseudo_probabilities(start, totals, weights)
    assert torch.allclose(found.sum(1), torch.ones(rows, dtype=torch.float64), atol=1e-10)
    assert torch.allclose(found.sum(0), totals, atol=1e-10 * rows)
    assert bool((found >= 0).all())


@given(
    rows=st.integers(1, 200),
    classes=st.integers(2, 10),
    seed=st.integers(0, 999),
    confidence=st.sampled_from([1, 20, 60]),
    masked=st.booleans(),
    weighted=st.booleans(),
)
def test_starts_that_are_nearly_one_hot_are_solved_too(
    rows: int, classes: int, seed: int, confidence: int, masked: bool, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    start = torch.softmax(torch.as_tensor(confidence * rng.normal(size=(rows, classes))), 1)
    if masked:
        start = start.scatter(1, start.argmax(1)[:, None], 0.0)
    start = start.clamp(min=FLOOR) / start.clamp(min=FLOOR).sum(1, keepdim=True)
    weights = 1 / (-torch.xlogy(start, start).sum(1)).clamp(min=LEAST_ENTROPY) if weighted else None
    totals = rows * torch.as_tensor(rng.dirichlet(np.full(classes, rng.choice([0.3, 1, 10])))).clamp(min=1e-9)
    totals = rows * totals / totals.sum()
    found = pseudo_probabilities(start, totals, weights)
    assert torch.allclose(found.sum(0), totals, atol=1e-10 * rows)


@pytest.mark.parametrize("weighted", [False, True])
def test_no_other_feasible_matrix_has_a_smaller_objective(weighted: bool) -> None:
    start, totals = distributions(30, 5, 1), 30 * distributions(1, 5, 2)[0]
    weights = 0.2 + distributions(1, 30, 3)[0] * 30 if weighted else torch.ones(30, dtype=torch.float64)
    found = pseudo_probabilities(start, totals, weights)
    for seed in range(20):  # other feasible matrices: projections of other starts, and mixtures with them
        other = pseudo_probabilities(distributions(30, 5, 100 + seed), totals)
        for share in (0.001, 0.1, 0.5, 1.0):
            mixture = (1 - share) * found + share * other
            assert objective(found, start, weights) <= objective(mixture, start, weights) + 1e-12


def test_the_released_recipe_changes_nothing() -> None:
    """It replaces the forget rows first and then asks for the column sums that this matrix has."""
    retained = distributions(340, 10, 4, 0.2).clamp(min=1e-8)
    forget = torch.as_tensor(np.random.default_rng(5).random((60, 10)))
    matrix = torch.cat([retained / retained.sum(1, keepdim=True), forget / forget.sum(1, keepdim=True)])
    assert float((pseudo_probabilities(matrix, matrix.sum(0)) - matrix).abs().max()) < 3e-8


def test_equals_sinkhorn_for_equal_weights() -> None:
    start, totals = distributions(40, 6, 6), 40 * distributions(1, 6, 7)[0]
    plan = start.clone()
    for _ in range(5000):
        plan = plan * (totals / plan.sum(0))
        plan = plan / plan.sum(1, keepdim=True)
    assert torch.allclose(pseudo_probabilities(start, totals), plan, atol=1e-9)


def test_a_class_of_total_zero_gets_nothing() -> None:
    found = pseudo_probabilities(distributions(20, 4, 8), 20 * torch.tensor([0.0, 0.5, 0.3, 0.2], dtype=torch.float64))
    assert float(found[:, 0].abs().max()) == 0.0
    assert torch.allclose(found.sum(1), torch.ones(20, dtype=torch.float64))


def test_class_distribution_leaves_out_forgotten_classes() -> None:
    rows = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.6, 0.3]], dtype=torch.float64)
    assert torch.allclose(class_distribution(rows), torch.tensor([0.3, 0.425, 0.275], dtype=torch.float64))
    left = class_distribution(rows, frozenset({0}))
    assert torch.allclose(left, torch.tensor([0.0, 0.425, 0.275], dtype=torch.float64) / 0.7)


@pytest.mark.parametrize(
    ("start", "totals", "message"),
    [
        (torch.full((4, 2), 0.5), torch.tensor([1.0, 1.0]), "expected totals that sum to 4 rows"),
        (torch.full((4, 2), 0.5), torch.tensor([5.0, -1.0]), "expected totals"),
        (torch.tensor([[1.0, 0.0]]), torch.tensor([0.5, 0.5]), "expected positive start probabilities"),
    ],
)
def test_what_cannot_be_met_is_refused(start: Tensor, totals: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pseudo_probabilities(start, totals)


@pytest.mark.parametrize("start_from", STARTS)
def test_every_start_gives_targets_that_follow_the_retain_distribution(start_from: str) -> None:
    task, net = make_task(), Net(plain_model())
    method = get({"name": "adaprob", "start_from": start_from})
    assert isinstance(method, AdaProb)
    targets = method.prepare(net, task, torch.Generator().manual_seed(0))["targets"]
    marginal = torch.softmax(net.logits(task.retain.x), 1).mean(0)
    assert torch.allclose(targets.sum(1), torch.ones(len(task.forget), dtype=torch.float64))
    assert torch.allclose(targets.mean(0), marginal, atol=1e-9)
    assert (float(targets.std(0).max()) < 1e-9) == (start_from == "uniform"), "only uniform starts end in one vector"
