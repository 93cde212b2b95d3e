"""Fisher forgetting: the noise's variances once more in NumPy, and draws that have them."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

from qunlearn.methods import FisherForgetting, Task
from qunlearn.quantum import QuantumLayer, load_circuit
from tests.methods.by_hand import Array, array, logits_of, sample_slopes, softmax, values_of
from tests.methods.cases import hybrid_model, make_task, plain_model
from tests.methods.learnt import accuracy, clusters

MODELS: dict[str, Callable[[], nn.Module]] = {"plain": plain_model, "hybrid": hybrid_model}
TASK = make_task(forget=9)
HEAD = {"plain": ("2.weight", "2.bias"), "hybrid": ("head.fc2.weight", "head.fc2.bias")}


def fisher(model: nn.Module, task: Task) -> dict[str, Array]:
    """mean_x sum_k p_k (d_j ln p_k)^2, label by label."""
    values, x = values_of(model), array(task.retain.x)
    shares = softmax(logits_of(values, x))
    total = {name: np.zeros_like(value) for name, value in values.items()}
    for k in range(shares.shape[1]):
        slopes = sample_slopes(values, x, np.eye(shares.shape[1])[[k] * len(x)] - shares)
        for name, g in slopes.items():
            weights = shares[:, k].reshape(-1, *[1] * (g.ndim - 1))
            total[name] += (weights * g**2).mean(0)
    return total


def standardised(method: FisherForgetting, model: nn.Module, task: Task, spreads: dict[str, Array], n: int) -> Array:
    """Every parameter's moves over its standard deviation, for n seeds; parameters of no spread must not move."""
    rows = []
    for seed in range(n):
        result = method(model, task, seed=seed).model
        for name, spread in spreads.items():
            moved = array(result.get_parameter(name) - model.get_parameter(name))
            rows.append((moved / spread).ravel())
    return np.concatenate(rows)


@pytest.mark.parametrize("kind", MODELS)
def test_noise_has_the_variance_of_the_formula(kind: str) -> None:
    model = MODELS[kind]()
    method = FisherForgetting(alpha=1e-3, clamp=50.0)
    spreads = {name: np.sqrt(1e-3 * np.minimum(1 / (f + 1e-8), 50.0)) for name, f in fisher(model, TASK).items()}
    drawn = standardised(method, model, TASK, spreads, 40)
    # Some 5,000 draws or more: any error of a few per cent in a variance, or of shape, is seen.
    assert kstest(drawn, "norm").pvalue > 1e-3
    assert float(drawn.var()) == pytest.approx(1.0, abs=0.08)
    free = np.concatenate([(1 / (f + 1e-8) < 50.0).ravel() for f in fisher(model, TASK).values()])
    assert 10 < free.sum() < len(free) - 10, "some are clamped, some not"
    every = drawn.reshape(40, -1)
    assert float(every[:, free].var()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("kind", MODELS)
def test_spreads_are_numpy_s(kind: str) -> None:
    from qunlearn.methods import curvature
    from qunlearn.training.net import Net

    model, information = MODELS[kind](), fisher(MODELS[kind](), TASK)
    exact = curvature.true_fisher(Net(model), TASK.retain.x)
    for name, wanted in information.items():
        assert np.abs(array(exact[name]) - wanted).max() < 1e-12
    found = FisherForgetting(alpha=1e-4, variant="released").spreads(exact, model, set(HEAD[kind]))
    for name, f in information.items():
        variance = 1e-4 * np.minimum(1 / (f + 1e-8), 100.0 if name in HEAD[kind] else 1000.0)
        if name == "quantum.weights":
            variance = np.minimum(variance, np.pi**2 / 3)
        else:
            variance = variance.mean(1, keepdims=True) + 0 * variance if variance.ndim > 1 else variance
            variance = variance * (10 if name in HEAD[kind] or variance.ndim == 1 else 1)
        assert np.abs(array(found[name]) - np.sqrt(variance)).max() < 1e-12


def test_an_angle_gets_no_more_noise_than_drawing_it_anew() -> None:
    model = hybrid_model()
    spreads = {name: np.full(tuple(p.shape), math.pi / math.sqrt(3)) for name, p in model.named_parameters()}
    angles = {"quantum.weights": spreads["quantum.weights"]}
    drawn = standardised(FisherForgetting(alpha=1e3), model, TASK, angles, 40)
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.06)
    assert kstest(drawn, "norm").pvalue > 1e-3


@pytest.mark.parametrize("variant", ["exact", "released"])
def test_the_row_of_a_forgotten_class_is_erased(variant: str) -> None:
    task, model = clusters(1)
    method = FisherForgetting(alpha=1e-12, variant=variant)  # type: ignore[arg-type]
    rows = []
    for seed in range(60):
        result = method(model, task, seed=seed)
        weight, bias = result.model.get_parameter("2.weight"), result.model.get_parameter("2.bias")
        rows.append(torch.cat([weight[1], bias[1:2]]).detach())
        kept = torch.tensor([0, 2])
        assert torch.allclose(weight[kept], model.get_parameter("2.weight")[kept], atol=1e-3)
    assert "The rows of classes 1 in 2.weight, 2.bias were erased." in result.record.notes
    wanted = 1e-2 if variant == "exact" else math.sqrt(1e-3)
    assert float(torch.cat(rows).std()) == pytest.approx(wanted, rel=0.08)
    assert abs(float(torch.cat(rows).mean())) < 4 * wanted / math.sqrt(1020)
    asis = FisherForgetting(alpha=1e-12, forgotten_rows=False)(model, task).model
    assert torch.allclose(asis.get_parameter("2.weight"), model.get_parameter("2.weight"), atol=1e-4)


def test_no_row_is_erased_for_a_subset_or_where_no_parameter_is_a_class_s_own() -> None:
    assert FisherForgetting()(plain_model(), TASK).record.notes == []

    class Bare(nn.Module):
        """Expectation values are the logits, and there are as many angles as classes."""

        def __init__(self) -> None:
            super().__init__()
            circuit = load_circuit("basic-entangler", qubits=3, depth=1)
            self.quantum = QuantumLayer(circuit, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.quantum(x[:, : self.quantum.circuit.features])  # type: ignore[no-any-return]

    bare, task = Bare(), dataclasses.replace(make_task(forget_class=1), validation=None)
    result = FisherForgetting(alpha=1e-12)(bare, task)
    assert result.record.notes == [
        "No parameter belongs to the forgotten class's logit alone, so that no row was erased."
    ]
    assert torch.allclose(result.model.get_parameter("quantum.weights"), bare.quantum.weights, atol=1e-4)


def test_what_is_frozen_gets_no_noise() -> None:
    model = plain_model()
    model[0].weight.requires_grad_(False)
    result = FisherForgetting()(model, TASK).model
    assert torch.equal(result.get_parameter("0.weight"), model.get_parameter("0.weight"))
    assert not torch.equal(result.get_parameter("0.bias"), model.get_parameter("0.bias"))


def test_fisher_forgetting_harms_a_class_more_than_those_it_holds_on_to() -> None:
    """Without the erased row, and beside noise of the same size that is equally strong everywhere."""
    forgot, kept, even = [], [], []
    for gone in range(3):
        task, model = clusters(gone)
        for seed in range(6):
            after = FisherForgetting(alpha=1e-4, clamp=1e4, forgotten_rows=False)(model, task, seed=seed).model
            forgot.append(accuracy(after, task.forget))
            kept.append(accuracy(after, task.retain))
            even.append(accuracy(_evenly(model, after, seed), task.retain))
    assert np.mean(kept) > 0.85
    assert np.mean(forgot) < np.mean(kept) - 0.08
    assert np.mean(even) < np.mean(kept) - 0.3


def _evenly(model: nn.Module, after: nn.Module, seed: int) -> nn.Module:
    """The model with noise of one standard deviation everywhere, of the same mean square as another's."""
    found, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    moves = [(after.get_parameter(name) - p).flatten() for name, p in model.named_parameters()]
    size = torch.cat(moves).square().mean().sqrt()
    with torch.no_grad():
        for p in found.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return found
