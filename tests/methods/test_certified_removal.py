"""Certified removal through the whole way: training, requests, budget, refusals."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods import Task, get
from qunlearn.methods.base import fingerprint
from qunlearn.models import FrozenHead, HybridClassifier
from qunlearn.quantum import load_circuit
from qunlearn.training.trace import Trace
from tests.methods.cases import blobs, hybrid_model, plain_model

QUIET = {"name": "certified-removal", "regularization": 0.05, "sigma": 2.0, "budget": "split"}


def trained(seed: int = 0, **settings: Any) -> tuple[FrozenHead, Dataset]:
    data = Dataset(*blobs(0, 90))
    original = get({**QUIET, **settings}).train(hybrid_model(), data, seed=seed)
    assert isinstance(original, FrozenHead)
    return original, data


def task_of(original: FrozenHead, data: Dataset, gone: list[int]) -> Task:
    stay = [n for n in range(len(data.y)) if n not in gone]
    return Task(data.select(gone), data.select(stay), trace=original.trace)


def gradients(original: FrozenHead, data: Dataset, weights: torch.Tensor, b: torch.Tensor, ridge: float) -> np.ndarray:
    """Of every class's problem, by autograd."""
    w = weights.detach().clone().requires_grad_()
    scores = original.phi(data.x).detach() @ w.T
    signs = torch.where(torch.nn.functional.one_hot(data.y, 3) == 1, 1.0, -1.0)
    loss = torch.nn.functional.softplus(-signs * scores).sum() + len(data.y) * ridge / 2 * w.square().sum()
    return torch.autograd.grad(loss + (b * w).sum(), w)[0].numpy()


def test_training_solves_every_class_under_its_perturbation() -> None:
    original, data = trained()
    b = original.trace.tensors["perturbation"]
    assert b.shape == (3, 5)
    assert 1.0 < float(b.std()) < 3.5  # sigma is 2
    assert np.linalg.norm(gradients(original, data, original.head.weight, b, 0.05), axis=1).max() <= 1e-8
    assert original.training_counts.circuit_evaluations == 90  # type: ignore[union-attr]
    assert original.recipe is not None


def test_training_depends_on_its_seed_alone() -> None:
    assert fingerprint(trained(1)[0]) == fingerprint(trained(1)[0]) != fingerprint(trained(2)[0])


def test_the_frozen_weights_are_drawn_or_given() -> None:
    model = hybrid_model()
    assert not torch.equal(trained()[0].quantum.weights, model.quantum.weights)
    original, data = trained(weights="given")
    assert torch.equal(original.quantum.weights, model.quantum.weights)
    record = get({**QUIET, "weights": "given"})(original, task_of(original, data, [0])).record
    assert record.guarantee is not None
    assert any("the caller says so" in sentence for sentence in record.guarantee["assumptions"])


def test_a_removal_is_the_newton_step_of_every_class() -> None:
    original, data = trained()
    gone = [0, 1, 2, 40]
    result = get(QUIET)(original, task_of(original, data, gone), seed=3)
    guarantee = result.record.guarantee
    assert guarantee is not None
    assert not guarantee["details"]["retrained"]
    stay = data.select([n for n in range(90) if n not in gone])
    b, w = original.trace.tensors["perturbation"], original.head.weight
    phi = original.phi(stay.x).detach().numpy()
    steps, bounds = [], []
    for k in range(3):
        pull = gradients(original, data.select(gone), w, torch.zeros_like(b), 0.05)[
            k
        ]  # -(what the forget samples contributed) must vanish
        p = 1 / (1 + np.exp(-phi @ w[k].detach().numpy()))
        hessian = (phi.T * (p * (1 - p))) @ phi + 0.05 * 86 * np.eye(5)
        step = np.linalg.solve(hessian, pull)
        bounds.append(math.sqrt(3) / 18 * np.linalg.norm(phi, 2) * np.linalg.norm(step) * np.linalg.norm(phi @ step))
        steps.append(step)
    found = result.model.head.weight  # type: ignore[union-attr]
    assert isinstance(found, torch.Tensor)
    assert np.allclose(found.detach().numpy(), w.detach().numpy() + np.stack(steps), atol=1e-8)
    details = guarantee["details"]
    truth = np.linalg.norm(gradients(original, stay, found, b, 0.05))
    assert details["gradient_residual"] == pytest.approx(truth, abs=1e-9)
    assert truth <= details["bound"] == pytest.approx(np.linalg.norm(bounds), rel=1e-4)
    assert details["bound"] <= details["worst_case_of_this_step"]
    widest = math.sqrt(2 * math.log(1.5 * 3 / 1e-5))
    spent = max(3 * widest * np.array(bounds) / 2.0)
    assert spent < details["epsilon_spent"] < spent + 0.05  # the rest is the density's factor
    assert abs(details["privacy_loss_here"]) <= guarantee["epsilon"] == 1.0
    assert guarantee["kind"] == "certified"
    assert guarantee["covers"] == ["head.weight"]


def test_a_joint_budget_takes_the_norm_over_classes() -> None:
    method = get({**QUIET, "budget": "joint"})
    bounds, nothing = np.array([0.1, 0.2, 0.2]), np.zeros(3)
    widest = math.sqrt(2 * math.log(1.5 / 1e-5))
    assert method.spent(bounds, nothing) == pytest.approx(widest * 0.3 / 2.0)  # type: ignore[attr-defined]
    assert method.spent(bounds, nothing) < get(QUIET).spent(bounds, nothing)  # type: ignore[attr-defined]
    assert method.spent(nothing, np.array([0.1, -0.3, 0.0])) == pytest.approx(0.2)  # type: ignore[attr-defined]


def test_the_budget_is_kept_over_requests_and_ends_in_retraining() -> None:
    settings = {**QUIET, "sigma": 0.1}
    original, data = trained(sigma=0.1)
    model, left, spent, outcomes = original, list(range(90)), [], []
    for number in range(12):
        gone, left = left[:4], left[4:]
        task = Task(data.select(gone), data.select(left), trace=model.trace)
        found = get(settings)(model, task, seed=number)
        details = found.record.guarantee["details"]  # type: ignore[index]
        outcomes.append(details["retrained"])
        spent.append(details["epsilon_spent"])
        assert spent[-1] <= 1.0
        assert details["gradient_residual"] <= details["bound"] + 1e-12
        assert any("solved anew" in note for note in found.record.notes) == outcomes[-1]
        if outcomes[-1]:
            b = found.model.trace.tensors["perturbation"]  # type: ignore[union-attr, index]
            assert not torch.equal(b, model.trace.tensors["perturbation"])
            again = gradients(original, data.select(left), found.model.head.weight, b, 0.05)  # type: ignore[union-attr, arg-type]
            assert np.linalg.norm(again, axis=1).max() <= 1e-8
            assert details["requests_since_training"] == 0
        model = found.model  # type: ignore[assignment]
    assert any(outcomes)
    assert not outcomes[0]
    for now, then, fresh in zip(spent[1:], spent, outcomes[1:], strict=False):
        assert fresh or now > then  # what was spent stays spent until the head is solved anew


def test_a_request_beyond_the_budget_draws_from_its_own_seed() -> None:
    original, data = trained(sigma=0.01)
    task = task_of(original, data, list(range(20)))
    method = get({**QUIET, "sigma": 0.01})
    first, again, other = (method(original, task, seed=seed) for seed in (1, 1, 2))
    assert first.record.guarantee["details"]["retrained"]  # type: ignore[index]
    assert fingerprint(first.model) == fingerprint(again.model) != fingerprint(other.model)


def test_a_trace_survives_its_file() -> None:
    original, data = trained()
    task = task_of(original, data, [5, 6])
    reread = dataclasses.replace(task, trace=Trace.from_bytes(original.trace.to_bytes()))
    assert fingerprint(get(QUIET)(original, reread).model) == fingerprint(get(QUIET)(original, task).model)


def test_the_order_of_the_samples_does_not_matter() -> None:
    original, data = trained()
    task = task_of(original, data, [2, 8, 40, 71])
    mixed = dataclasses.replace(
        task, forget=task.forget.select([2, 0, 3, 1]), retain=task.retain.select(list(range(85, -1, -1)))
    )
    assert fingerprint(get(QUIET)(original, mixed).model) == fingerprint(get(QUIET)(original, task).model)


def test_samples_that_were_not_trained_on_are_refused() -> None:
    original, data = trained()
    task = task_of(original, data, [0, 1])
    fewer = dataclasses.replace(task, retain=task.retain.select(range(50)))
    with pytest.raises(InputError, match="together the 90 samples"):
        get(QUIET)(original, fewer)
    moved = Dataset(task.forget.x + 0.3, task.forget.y, ids=task.forget.ids)
    with pytest.raises(InputError, match=r"2 of 2 forget samples with other features under the same ids \(id 0 first"):
        get(QUIET)(original, dataclasses.replace(task, forget=moved))
    relabelled = Dataset(task.forget.x, (task.forget.y + 1) % 3, ids=task.forget.ids)
    with pytest.raises(InputError, match="by id and label"):
        get(QUIET)(original, dataclasses.replace(task, forget=relabelled))


def test_another_training_s_settings_or_models_are_refused() -> None:
    original, data = trained()
    task = task_of(original, data, [0])
    with pytest.raises(InputError, match=r"expected sigma=2.0, as the original was trained with, got 1.0"):
        get({**QUIET, "sigma": 1.0})(original, task)
    with pytest.raises(InputError, match="expected an original that certified-removal trained"):
        get(QUIET)(hybrid_model(), task)


def test_an_encoder_that_saw_the_forget_set_is_refused_and_amplitudes_are_not() -> None:
    data = Dataset(torch.rand(60, 12, dtype=torch.float64), torch.arange(60) % 3)
    model = HybridClassifier(load_circuit("ring-cz", qubits=3, depth=2), 3, "pca", inputs=12, dtype=torch.float64)
    with pytest.raises(InputError, match=r"fitted to the training set.*embedding='amplitude'"):
        get(QUIET).check_model(model, data)
    with pytest.raises(InputError, match="fitted to the training set"):
        get(QUIET).train(model, data)
    method = get({**QUIET, "embedding": "amplitude", "features": "probabilities"})
    original = method.train(model, data)
    assert isinstance(original, FrozenHead)
    assert original.width == 16
    result = method(original, task_of(original, data, [3, 4]))
    assert result.record.guarantee is not None
    with pytest.raises(InputError, match="weights='drawn' with embedding='amplitude'"):
        get({**QUIET, "embedding": "amplitude", "weights": "given"}).check_model(model, data)


def test_foreign_models_and_labels_are_refused() -> None:
    data = Dataset(*blobs(0, 30))
    with pytest.raises(InputError, match="expected a HybridClassifier"):
        get(QUIET).train(plain_model(), data)
    with pytest.raises(InputError, match="expected labels below 3"):
        get(QUIET).train(hybrid_model(), Dataset(data.x, data.y + 1))
