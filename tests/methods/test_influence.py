"""Influence: Newton steps of logistic regression in NumPy, retraining to second order, and solvers that agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from qunlearn.data import Dataset
from qunlearn.methods import Influence, Task, curvature
from qunlearn.training import Recipe
from qunlearn.training.net import Net
from tests.methods.by_hand import Array, array, softmax
from tests.methods.cases import blobs, hybrid_model, make_task, plain_model
from tests.methods.learnt import accuracy, clusters

Labels = NDArray[np.int64]
DECAY = 0.1


def logistic(x: Array, y: Labels, decay: float, start: Array | None = None, steps: int = 50) -> Array:
    """Weights ``(K, d + 1)``, bias last, that minimise the mean cross entropy plus decay / 2 |w|^2, by Newton."""
    w = np.zeros((3, x.shape[1] + 1)) if start is None else start.copy()
    for _ in range(steps):
        gradient, hessian = pieces(w, x, y, decay)
        w -= np.linalg.solve(hessian, gradient.ravel()).reshape(w.shape)
    return w


def pieces(w: Array, x: Array, y: Labels, decay: float) -> tuple[Array, Array]:
    """Gradient ``(K, d + 1)`` and Hessian of that loss."""
    inputs = np.hstack([x, np.ones((len(x), 1))])
    p = softmax(inputs @ w.T)
    gradient = (p - np.eye(3)[y]).T @ inputs / len(x) + decay * w
    kernel = p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None, :]
    hessian = np.einsum("nkl,na,nb->kalb", kernel, inputs, inputs) / len(x)
    size = w.size
    return gradient, hessian.reshape(size, size) + decay * np.eye(size)


def model_of(w: Array) -> nn.Linear:
    model = nn.Linear(w.shape[1] - 1, 3).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(w[:, :-1]))
        model.bias.copy_(torch.from_numpy(w[:, -1]))
    return model


def weights_of(model: nn.Module) -> Array:
    return np.hstack([array(model.get_parameter("weight")), array(model.get_parameter("bias"))[:, None]])


def problem(forget: int, copies: int = 1, decay: float = DECAY) -> Task:
    """Overlapping clusters; every retain sample as often as told."""
    x, y = blobs(3, 60)
    keep = torch.arange(forget, 60).repeat(copies)
    data = Dataset(x, y)
    retain = Dataset(x[keep], y[keep], ids=torch.arange(100, 100 + len(keep)))
    return Task(data.select(range(forget)), retain, recipe=Recipe(weight_decay=decay))


def sets(task: Task) -> tuple[tuple[Array, Labels], tuple[Array, Labels], tuple[Array, Labels]]:
    (fx, fy), (rx, ry) = ((array(d.x), d.y.numpy()) for d in (task.forget, task.retain))
    return (fx, fy), (rx, ry), (np.concatenate([fx, rx]), np.concatenate([fy, ry]))


@pytest.mark.parametrize("damping", [0.0, 0.05])
@pytest.mark.parametrize("exact_up_to", [1000, 0], ids=["formed", "products"])
def test_the_step_is_newton_s_by_numpy(damping: float, exact_up_to: int) -> None:
    task, w = problem(5), np.random.default_rng(0).normal(size=(3, 5))
    (fx, fy), (rx, ry), _ = sets(task)
    pull = pieces(w, fx, fy, DECAY)[0] * 5 / 55
    hessian = pieces(w, rx, ry, DECAY)[1] + damping * np.eye(15)
    wanted = w + 0.7 * np.linalg.solve(hessian, pull.ravel()).reshape(w.shape)
    method = Influence(damping=damping, strength=0.7, exact_up_to=exact_up_to, tolerance=1e-12)
    found = weights_of(method(model_of(w), task).model)
    assert np.abs(found - wanted).max() < 1e-9
    newton = w - 0.7 * np.linalg.solve(hessian, pieces(w, rx, ry, DECAY)[0].ravel()).reshape(w.shape)
    other = weights_of(dataclasses.replace(method, step="newton")(model_of(w), task).model)
    assert np.abs(other - newton).max() < 1e-9
    assert np.abs(newton - wanted).max() > 0.1, "away from a minimum the two steps differ"


def test_at_a_minimum_both_steps_are_one_and_miss_retraining_by_second_order() -> None:
    misses, distances = [], []
    for copies in (4, 8, 16):
        task = problem(5, copies)
        _, (rx, ry), (x, y) = sets(task)
        original = logistic(x, y, DECAY)
        retrained = logistic(rx, ry, DECAY)
        assert np.abs(pieces(original, x, y, DECAY)[0]).max() < 1e-12
        found = [
            weights_of(Influence(damping=0.0, step=step)(model_of(original), task).model)
            for step in ("influence", "newton")
        ]
        assert np.abs(found[0] - found[1]).max() < 1e-10
        distances.append(np.linalg.norm(original - retrained))
        misses.append(np.linalg.norm(found[0] - retrained))
    assert misses[0] < 0.1 * distances[0]
    for k in range(2):  # half the share forgotten: half the distance, a quarter of the miss
        assert distances[k] / distances[k + 1] == pytest.approx(2, rel=0.1)
        assert misses[k] / misses[k + 1] == pytest.approx(4, rel=0.2)


def test_without_decay_or_damping_the_direction_that_no_output_sees_is_left_alone() -> None:
    """Adding the same to the weights of all classes changes nothing, and has no curvature."""
    task, w = problem(5, decay=0.0), np.random.default_rng(0).normal(size=(3, 5))
    found = weights_of(Influence(damping=0.0)(model_of(w), task).model)
    assert np.abs((found - w).sum(0)).max() < 1e-8
    assert np.abs(found - w).max() > 1e-3


MODELS: dict[str, Callable[[], nn.Module]] = {"plain": plain_model, "hybrid": hybrid_model}


@pytest.mark.parametrize("kind", MODELS)
def test_negative_eigenvalues_count_as_none(kind: str) -> None:
    model, task = MODELS[kind](), dataclasses.replace(make_task(), recipe=Recipe(weight_decay=0.01))
    net = Net(model)
    matrix = array(curvature.hessian(net, task.retain.x, task.retain.y)) + 0.01 * np.eye(len(flat(model)))
    values, vectors = np.linalg.eigh(matrix)
    assert values[0] < -1e-3
    slope = curvature.flattened(curvature.gradient(net, task.forget.x, task.forget.y))
    pull = (array(slope) + 0.01 * flat(model)) * 6 / 30
    wanted = flat(model) + vectors @ (vectors.T @ pull / (np.maximum(values, 0) + 0.02))
    result = Influence(damping=0.02)(model, task)
    assert np.abs(flat(result.model) - wanted).max() < 1e-9
    (note,) = result.record.notes
    assert f"; {int((values < 0).sum())} negative eigenvalues, the least {values[0]:.3g}, raised to 0" in note
    assert f"Exact Hessian of {len(values)} parameters, damping 0.02" in note


def flat(model: nn.Module) -> Array:
    return np.concatenate([array(p).ravel() for p in model.parameters()])


@pytest.mark.parametrize("kind", MODELS)
def test_conjugate_gradients_give_what_the_whole_matrix_gives(kind: str) -> None:
    model, task = MODELS[kind](), make_task()
    formed = Influence(damping=0.02, matrix="gauss-newton")(model, task)
    products = Influence(damping=0.02, matrix="gauss-newton", exact_up_to=0, tolerance=1e-10)(model, task)
    assert np.abs(flat(formed.model) - flat(products.model)).max() < 1e-8
    assert np.abs(flat(formed.model) - flat(model)).max() > 1e-2
    assert "conjugate gradients with products of the Gauss-Newton matrix, damping 0.02" in products.record.notes[0]
    strong = [Influence(damping=5.0, exact_up_to=limit, tolerance=1e-10)(model, task) for limit in (1000, 0)]
    net = Net(model)
    hessian = curvature.hessian(net, task.retain.x, task.retain.y)
    pull = curvature.flattened(curvature.gradient(net, task.forget.x, task.forget.y)) * 6 / 30
    wanted = flat(model) + np.linalg.solve(array(hessian) + 5 * np.eye(len(hessian)), array(pull))
    assert np.abs(flat(strong[1].model) - wanted).max() < 1e-9, "so much damping leaves no negative curvature"
    assert "products of the Hessian" in strong[1].record.notes[0]


def test_negative_curvature_calls_the_gauss_newton_matrix() -> None:
    model, task = hybrid_model(), make_task()
    fallen = Influence(damping=1e-3, exact_up_to=0, tolerance=1e-10)(model, task)
    wanted = Influence(damping=1e-3, exact_up_to=0, tolerance=1e-10, matrix="gauss-newton")(model, task)
    assert fallen.record.notes[0].startswith("The Hessian has directions of negative curvature")
    assert fallen.record.notes[1] == wanted.record.notes[0]
    assert np.array_equal(flat(fallen.model), flat(wanted.model))


def test_counts_are_hand_counts() -> None:
    """6 forget samples' gradients; of 30 retain samples the gradient and its derivative by each of 155 parameters."""
    model, task = hybrid_model(), make_task()
    counts = Influence()(model, task).record.counts
    assert counts.gradient_evaluations == 6 + 30 * (1 + 155)
    assert counts.circuit_evaluations == 6 + 30
    assert counts.hardware_circuits == 6 * 49 + 30 * (49 + 48**2)


def test_frozen_parameters_stay() -> None:
    model, task = plain_model(), make_task()
    model[0].requires_grad_(False)
    result = Influence()(model, task).model
    assert torch.equal(result.get_parameter("0.weight"), model.get_parameter("0.weight"))
    assert not torch.equal(result.get_parameter("2.weight"), model.get_parameter("2.weight"))


def test_influence_undoes_a_class_that_a_model_has_learnt() -> None:
    task, model = clusters(0)
    after = Influence(damping=0.001)(model, task).model
    assert accuracy(model, task.forget) == accuracy(model, task.retain) == 1.0
    assert accuracy(after, task.forget) < 0.05
    assert accuracy(after, task.retain) > 0.95
    assert np.abs(flat(after) - flat(model)).max() > 0.1
