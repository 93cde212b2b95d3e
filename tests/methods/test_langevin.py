"""Noisy fine-tuning: the account against exact Gaussians, the steps against NumPy."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods import Task, get
from qunlearn.methods.accounting import gaussian_epsilon, renyi_epsilon
from qunlearn.methods.base import fingerprint
from qunlearn.methods.langevin import drift, iterated_rate
from qunlearn.models import HybridClassifier, reinitialise
from qunlearn.quantum import load_circuit
from qunlearn.training import Recipe
from tests.methods.cases import Ignoring, blobs, hybrid_model, make_task

SIZES = st.floats(1e-3, 10)
QUIET = {"name": "langevin", "sigma": 1e-12, "epochs": 0, "batch_size": 1000}


def gaussians(radius: float, clip: float, steps: int, sigma: float, rate: float, decay: float) -> tuple[float, float]:
    """Distance of the means and variance of the last step of two linear runs in one dimension, step by step.

    They start at the two ends of the ball; each is pushed outwards by the longest gradient at every step.
    """
    one, other, variance = radius, -radius, 0.0
    for _ in range(steps):
        one = one - rate * (-clip + decay * one)
        other = other - rate * (clip + decay * other)
        variance = (1 - rate * decay) ** 2 * variance + sigma**2
    return one - other, variance


@given(SIZES, SIZES, st.integers(1, 60), SIZES, st.floats(1e-4, 0.3), st.floats(0, 3))
def test_two_linear_runs_diverge_exactly_that_much(
    radius: float, clip: float, steps: int, sigma: float, rate: float, decay: float
) -> None:
    """Gaussians of one variance: the divergence of order alpha is alpha (distance of means)^2 / (2 variance)."""
    apart, variance = gaussians(radius, clip, steps, sigma, rate, decay)
    found = iterated_rate(radius, clip, steps, sigma, learning_rate=rate, decay=decay)
    assert found == pytest.approx(apart**2 / (2 * variance), rel=1e-9)


@given(SIZES, SIZES, st.integers(1, 40), SIZES, st.floats(1e-4, 0.3))
def test_without_decay_it_is_the_closed_form_and_the_limit(
    radius: float, clip: float, steps: int, sigma: float, rate: float
) -> None:
    closed = 2 * (radius + rate * clip * steps) ** 2 / (sigma**2 * steps)
    assert iterated_rate(radius, clip, steps, sigma, learning_rate=rate, decay=0.0) == pytest.approx(closed)
    limit = iterated_rate(radius, clip, steps, sigma, learning_rate=rate, decay=1e-9)
    assert limit == pytest.approx(closed, rel=1e-5)


@given(SIZES, SIZES, st.integers(1, 40), SIZES, st.floats(1e-3, 0.3), st.floats(0.01, 3))
def test_it_grows_with_what_leaks_and_falls_with_what_hides(
    radius: float, clip: float, steps: int, sigma: float, rate: float, decay: float
) -> None:
    def at(**changes: float) -> float:
        settings = {"radius": radius, "clip": clip, "sigma": sigma, "learning_rate": rate, "decay": decay, **changes}
        return iterated_rate(steps=steps, **settings)

    assert at(radius=2 * radius) > at() > at(sigma=2 * sigma)
    assert at(clip=2 * clip) > at()
    assert at(decay=1.2 * decay) <= at() * (1 + 1e-9)


def test_no_state_of_the_best_plan_overshoots() -> None:
    """The shifts that reach the bound, in sequence: what separates the runs never falls below 0, and ends there."""
    random = np.random.default_rng(0)
    for _ in range(200):
        radius, clip, rate = 10 ** random.uniform(-2, 1, 3) * [1, 1, 0.1]
        decay = random.uniform(0, 0.95) / rate
        steps, rho = int(random.integers(1, 40)), 1 - rate * decay
        powers = rho ** np.arange(steps)[::-1]
        shifts = powers * drift(radius, clip, steps, learning_rate=rate, decay=decay) / (powers**2).sum()
        apart = 2 * radius
        for shift in shifts:
            apart = rho * apart + 2 * rate * clip - shift
            assert apart >= -1e-9 * radius
        assert apart == pytest.approx(0, abs=1e-9 * (radius + rate * clip * steps))
        price = (shifts**2).sum() / 2
        assert iterated_rate(radius, clip, steps, 1.0, learning_rate=rate, decay=decay) == pytest.approx(price)


def test_two_real_runs_stay_within_epsilon() -> None:
    """Two starts, one clipped field that pushes them apart: no threshold tells their ends apart beyond the account."""
    radius, clip, rate, steps, sigma, runs = 0.1, 1.0, 0.02, 10, 0.15, 50_000
    random = np.random.default_rng(0)

    def ends(start: float) -> np.ndarray:
        state = np.full(runs, start)
        for _ in range(steps):
            state = state + rate * clip * np.sign(state) + sigma * random.normal(size=runs)
        return state

    one, other = ends(radius), ends(-radius)
    rho = iterated_rate(radius, clip, steps, sigma, learning_rate=rate, decay=0.0)
    delta = 1e-3
    epsilon = renyi_epsilon(rho, delta)
    exact = gaussian_epsilon(math.sqrt(2 * rho), 1.0, delta)
    assert exact < epsilon
    for threshold in np.linspace(-1, 2, 31):
        hit, false = (one > threshold).mean(), (other > threshold).mean()
        error = 4 * math.sqrt(max(hit, 1 / runs) / runs) + math.exp(exact) * 4 * math.sqrt(max(false, 1 / runs) / runs)
        assert hit <= math.exp(exact) * false + delta + error


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 8.0])
def test_the_noise_for_an_epsilon_gives_it(epsilon: float) -> None:
    method = get({"name": "langevin", "epsilon": epsilon, "epochs": 0, "decay": 0.5})
    guarantee = method(hybrid_model(), make_task()).record.guarantee
    assert guarantee is not None
    assert guarantee["kind"] == "certified"
    assert guarantee["epsilon"] <= epsilon
    assert guarantee["epsilon"] == pytest.approx(epsilon, rel=1e-4)
    given_sigma = {"sigma": guarantee["details"]["sigma"]}
    again = get({"name": "langevin", "epochs": 0, "decay": 0.5, **given_sigma})(hybrid_model(), make_task())
    assert again.record.guarantee["epsilon"] == pytest.approx(guarantee["epsilon"])  # type: ignore[index]


def test_the_start_is_clipped_to_a_ball_around_public_weights() -> None:
    """No step at all: the rate is 0. Angles are as far as their shortest way."""
    model, task = hybrid_model(), make_task()
    settings = {**QUIET, "learning_rate": 0, "steps": 1, "public_seed": 7}
    public = dict(reinitialise(model, 7).named_parameters())
    for radius in (0.3, 1e6):
        found = dict(get({**settings, "radius": radius})(model, task).model.named_parameters())
        ways = {name: found[name] - centre for name, centre in public.items()}
        straight = {name: p - public[name] for name, p in model.named_parameters()}
        turns = straight["quantum.weights"]
        straight["quantum.weights"] = torch.remainder(turns + math.pi, 2 * math.pi) - math.pi
        length = math.sqrt(sum(float(w.detach().square().sum()) for w in straight.values()))
        for name, way in ways.items():
            assert torch.allclose(way, straight[name] * min(1.0, radius / length), atol=1e-9), name
    zero = get({**settings, "radius": 0.0, "centre": "zero"})(model, task).model
    assert all(float(p.detach().abs().max()) < 1e-9 for p in zero.parameters())


def test_the_steps_are_clipped_sample_by_sample() -> None:
    """Softmax regression in NumPy: the gradient of a sample is (p - e_y) x^T, of norm |p - e_y| |x|."""
    x, y = blobs(1, 30)
    data = Dataset(x, y)
    task = Task(data.select(range(6)), data.select(range(6, 30)), recipe=Recipe())
    model = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    settings = {**QUIET, "radius": 0.4, "clip": 2.5, "learning_rate": 0.3, "decay": 0.2, "steps": 4}
    (found,) = get(settings)(model, task).model.parameters()

    centre = next(reinitialise(model, 271828).parameters()).detach().numpy()
    away = model.weight.detach().numpy() - centre
    w = centre + away * min(1.0, 0.4 / np.linalg.norm(away))
    rows, labels = task.retain.x.numpy(), task.retain.y.numpy()
    for _ in range(4):
        shares = np.exp(rows @ w.T)
        shares /= shares.sum(1, keepdims=True)
        each = (shares - np.eye(3)[labels])[:, :, None] * rows[:, None, :]
        norms = np.linalg.norm(each, axis=(1, 2))
        assert (norms > 2.5).any()
        assert (norms < 2.5).any()
        mean = (each * np.minimum(1, 2.5 / norms)[:, None, None]).mean(0)
        w = w - 0.3 * (mean + 0.2 * (w - centre))
    assert np.allclose(found.detach().numpy(), w, atol=1e-9)


def test_the_noise_of_all_steps_adds_up() -> None:
    model, task = nn.Linear(4, 450, bias=False, dtype=torch.float64), make_task()
    settings = {**QUIET, "sigma": 0.2, "radius": 0.0, "learning_rate": 0, "steps": 9}
    centre = next(reinitialise(model, 271828).parameters())
    ends = [next(get(settings)(model, task, seed=seed).model.parameters()) - centre for seed in range(3)]
    spread = float(torch.stack(ends).detach().std())
    assert spread == pytest.approx(0.6, rel=0.04)  # of 5,400 draws: a standard error of 1 %


def test_of_the_forget_set_nothing_but_the_start_remains() -> None:
    """At radius 0, nothing at all: other forget samples and another original give the same model to the last bit."""
    task = make_task()
    other = dataclasses.replace(task, forget=Dataset(task.forget.x + 1, task.forget.y, ids=task.forget.ids))
    settings = {"name": "langevin", "radius": 0.0, "epochs": 2}
    one = get(settings)(hybrid_model(0), task, seed=1)
    two = get(settings)(hybrid_model(1), other, seed=1)
    assert fingerprint(one.model) == fingerprint(two.model)
    assert one.record.guarantee["details"]["kept"] == "the last noisy step"  # type: ignore[index]
    assert one.record.candidates == []


def test_what_an_encoder_learns_is_learnt_again() -> None:
    x, y = blobs(2, 60, features=8)
    data = Dataset(x, y)
    model = HybridClassifier(load_circuit("ring-cz", qubits=3), 3, "pca", inputs=8, dtype=torch.float64).fit(x)
    task = Task(data.select(range(20)), data.select(range(20, 60)))
    found = get({**QUIET, "steps": 1})(model, task).model
    known = reinitialise(model, 3)
    known.fit(x[20:])  # type: ignore[operator]
    for name, buffer in known.named_buffers():
        assert torch.equal(dict(found.named_buffers())[name], buffer), name


def test_the_clean_epochs_see_retained_classes_alone() -> None:
    """Validation samples of a class that the retain set lacks would tell which class went."""
    task = make_task(forget_class=1)
    assert task.validation is not None
    kept = task.validation.select((task.validation.y != 1).nonzero().flatten())
    settings = {"name": "langevin", "epochs": 3}
    one = get(settings)(hybrid_model(), task, seed=1)
    two = get(settings)(hybrid_model(), dataclasses.replace(task, validation=kept), seed=1)
    assert fingerprint(one.model) == fingerprint(two.model)


def test_more_noise_than_angles_drawn_anew_is_said() -> None:
    found = get({**QUIET, "sigma": 1.0, "steps": 4})(hybrid_model(), make_task()).record
    ratio = found.guarantee["details"]["randomisation_ratio"]  # type: ignore[index]
    assert ratio == pytest.approx(1.0 * 2 / (math.pi / math.sqrt(3)))
    assert any("nothing of the original is left" in note for note in found.notes)
    quiet = get({**QUIET, "sigma": 0.1, "steps": 4})(hybrid_model(), make_task()).record
    assert quiet.notes == []


def test_what_was_frozen_stays() -> None:
    circuit = load_circuit("ring-cz", qubits=4, depth=2)
    generator = torch.Generator().manual_seed(0)
    model = HybridClassifier(circuit, 3, control="frozen", dtype=torch.float64, generator=generator)
    result = get("langevin")(model, make_task())
    assert torch.equal(result.model.quantum.weights, model.quantum.weights)  # type: ignore[union-attr, arg-type]
    assert "quantum.weights" not in result.record.guarantee["covers"]  # type: ignore[index]


def test_a_pull_that_overshoots_is_refused() -> None:
    with pytest.raises(InputError, match="learning_rate \\* decay below 1"):
        get({"name": "langevin", "learning_rate": 1.0, "decay": 1.0})


def test_a_module_that_cannot_be_drawn_anew_is_refused_before_any_work() -> None:
    task = make_task()
    get("langevin").check_model(hybrid_model(), task.retain)
    with pytest.raises(InputError, match=r"public weights for langevin.*reset_parameters"):
        get("langevin").check_model(Ignoring(), task.retain)
