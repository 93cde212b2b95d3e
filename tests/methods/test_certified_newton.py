"""The certified Newton step: its bound, its noise, and what it calls a guarantee."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods import Task, get
from qunlearn.methods.angles import shortest
from qunlearn.methods.certificate import ESTIMATED
from qunlearn.methods.certified_newton import newton_bound
from qunlearn.quantum import QuantumLayer, load_circuit
from qunlearn.training import Recipe
from tests.methods.cases import blobs, hybrid_model, make_task

SILENT = {"name": "certified-newton", "sigma": 1e-12}


def linear_task(decay: float = 0.05) -> tuple[nn.Linear, Task]:
    """Softmax regression with weight decay, solved, rows of norm 1 at most, and eight samples of 80 to go."""
    x, y = blobs(3, 80)
    x = x / x.norm(dim=1).max()
    model = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    solve(model, x, y, decay)
    data = Dataset(x, y)
    recipe = Recipe(weight_decay=decay)
    return model, Task(data.select(range(8)), data.select(range(8, 80)), recipe=recipe)


def solve(model: nn.Module, x: Tensor, y: Tensor, decay: float) -> None:
    """The minimum of the mean cross entropy and decay, from the model's weights, by BFGS."""
    (parameter,) = model.parameters()
    shape = parameter.shape

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameter.data = torch.from_numpy(flat.copy()).reshape(shape)
        loss = cross_entropy(model(x), y) + decay / 2 * parameter.square().sum()
        (slope,) = torch.autograd.grad(loss, parameter)
        return float(loss.detach()), slope.reshape(-1).numpy()

    found = minimize(value, parameter.detach().reshape(-1).numpy(), jac=True, method="BFGS", options={"gtol": 1e-9})
    parameter.data = torch.from_numpy(found.x).reshape(shape)


def circuit_task() -> tuple[QuantumLayer, Task]:
    """A circuit whose expectation values are the logits, trained, and six samples of 36 to go."""
    generator = torch.Generator().manual_seed(2)
    circuit = load_circuit("ring-cz", qubits=3, depth=1)
    layer = QuantumLayer(circuit, dtype=torch.float64, generator=generator)
    x, y = blobs(0, 36, features=3)
    solve(layer, x, y, 0.0)
    data = Dataset(x, y)
    return layer, Task(data.select(range(6)), data.select(range(6, 36)))


def test_the_bound_is_zhang_s() -> None:
    assert newton_bound(2 * 3.0, 0.7, -0.1, 0.5) == pytest.approx(2 * 3 * (0.7 * 3 + 0.5) / (0.5 - 0.1))


@pytest.mark.parametrize("damping", [1e-3, 0.1, 3.0])
def test_the_bound_holds_for_softmax_regression(damping: float) -> None:
    """Convex, so that all that the bound assumes can be known: C, and M = (4 sqrt(3) / 9) max |x|^3."""
    model, task = linear_task()
    again = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    solve(again, task.retain.x, task.retain.y, 0.05)
    longest = max(float(m.weight.detach().norm()) for m in (model, again))
    settings = {**SILENT, "damping": damping, "radius": longest, "hessian_lipschitz": 4 * math.sqrt(3) / 9}
    result = get(settings)(model, task)
    guarantee = result.record.guarantee
    assert guarantee is not None
    (found,) = result.model.parameters()
    distance = float((found - again.weight).detach().norm())
    assert distance <= guarantee["details"]["bound"]
    assert distance < float((model.weight - again.weight).detach().norm())
    assert guarantee["kind"] == ESTIMATED
    assert any("Lipschitz with constant 0.7698" in sentence for sentence in guarantee["assumptions"])


def test_the_step_is_newton_s() -> None:
    """In NumPy: the Hessian of softmax regression is mean (diag p - p p^T) x (x x^T)."""
    model, task = linear_task()
    damping, decay = 0.3, 0.05
    (found,) = get({**SILENT, "damping": damping})(model, task).model.parameters()
    w, x, y = model.weight.detach().numpy(), task.retain.x.numpy(), task.retain.y.numpy()
    shares = np.exp(x @ w.T)
    shares /= shares.sum(1, keepdims=True)
    slope = (shares - np.eye(3)[y]).T @ x / len(x) + decay * w
    hessian = sum(
        np.kron(np.diag(p) - np.outer(p, p), np.outer(row, row)) for p, row in zip(shares, x, strict=True)
    ) / len(x) + (decay + damping) * np.eye(12)
    known = w - np.linalg.solve(hessian, slope.reshape(-1)).reshape(3, 4)
    assert np.allclose(found.detach().numpy(), known, atol=1e-9)


def test_a_circuit_s_retrained_optimum_lies_within_both_bounds() -> None:
    layer, task = circuit_task()
    result = get(SILENT)(layer, task)
    details = result.record.guarantee["details"]  # type: ignore[index]
    again = QuantumLayer(layer.circuit, dtype=torch.float64)
    again.weights.data = layer.weights.detach().clone()
    solve(again, task.retain.x, task.retain.y, 0.0)
    distance = float(shortest(result.model.weights, again.weights, layer.periods).detach().norm())  # type: ignore[arg-type]
    assert distance <= details["distance"] <= details["bound"]
    assert details["distance"] == pytest.approx(math.pi * 3)  # nine angles
    assert details["hessian_lipschitz"] == pytest.approx((5 + 4 * math.sqrt(3) / 9) * 27)


def test_the_certificate_of_a_circuit_is_that_of_wrapped_noise() -> None:
    """Fourier's series of the wrapped normal density: (1 + 2 sum_k exp(-k^2 sigma^2 / 2) cos k x) / 2 pi."""
    layer, task = circuit_task()
    for settings in ({"sigma": 2.0}, {"epsilon": 3.0}):
        record = get({"name": "certified-newton", **settings})(layer, task, seed=1).record
        guarantee = record.guarantee
        assert guarantee is not None
        assert guarantee["kind"] == "certified"
        assert guarantee["covers"] == ["weights"]
        waves = np.arange(1, 50)
        series = 2 * np.exp(-(waves**2) * guarantee["details"]["sigma"] ** 2 / 2)
        known = 9 * math.log((1 + series.sum()) / (1 + (series * (-1.0) ** waves).sum()))
        assert guarantee["epsilon"] == pytest.approx(known, rel=1e-9)
        assert guarantee["delta"] == 0
    assert guarantee is not None
    assert guarantee["epsilon"] == pytest.approx(3.0)
    ratio = guarantee["details"]["sigma"] / (math.pi / math.sqrt(3))
    assert guarantee["details"]["randomisation_ratio"] == pytest.approx(ratio)
    assert ratio > 1
    assert any("nothing of the original is left" in note for note in record.notes)


def test_an_estimate_s_epsilon_is_the_gaussian_mechanism_s() -> None:
    model, task = linear_task()
    for settings in ({"sigma": 30.0, "delta": 1e-3}, {"epsilon": 3.0, "delta": 1e-3}):
        guarantee = get({"name": "certified-newton", **settings})(model, task).record.guarantee
        assert guarantee is not None
        r, epsilon = guarantee["details"]["bound"] / guarantee["details"]["sigma"], guarantee["epsilon"]
        sticks_out = norm.cdf(r / 2 - epsilon / r) - math.exp(epsilon) * norm.cdf(-r / 2 - epsilon / r)
        assert sticks_out == pytest.approx(1e-3, rel=1e-6)
    assert guarantee is not None
    assert guarantee["epsilon"] == pytest.approx(3.0)


def test_turns_in_full_tell_nothing() -> None:
    """The same original, an angle one period on, gives the same unlearned angles, in (-pi, pi]."""
    layer, task = circuit_task()
    turned = QuantumLayer(layer.circuit, dtype=torch.float64)
    turned.weights.data = layer.weights.detach() + 2 * math.pi * torch.arange(9)
    one, other = (get("certified-newton")(model, task, seed=4).model for model in (layer, turned))
    assert torch.allclose(one.weights, other.weights, atol=1e-9)  # type: ignore[arg-type]
    assert float(one.weights.detach().abs().max()) <= math.pi  # type: ignore[operator]


def test_the_noise_is_what_was_asked() -> None:
    model, task = linear_task()
    (clean,) = get(SILENT)(model, task).model.parameters()
    drawn = []
    for seed in range(60):
        (noisy,) = get({**SILENT, "sigma": 0.5})(model, task, seed=seed).model.parameters()
        drawn.append((noisy - clean).detach().reshape(-1))
    noise = torch.stack(drawn)
    assert float(noise.std()) == pytest.approx(0.5, rel=0.1)  # of 720 draws: a standard error of 2.6 %
    assert float(noise.mean().abs()) < 5 * 0.5 / math.sqrt(720)


def test_where_constants_are_assumed_no_certificate_is_given() -> None:
    record = get("certified-newton")(hybrid_model(), make_task()).record
    assert record.guarantee is not None
    assert record.guarantee["kind"] == ESTIMATED
    assert record.guarantee["details"]["assumed"] == ["reach", "hessian_lipschitz"]
    assert any("next to nothing" in note for note in record.notes)
    length = math.sqrt(sum(float(p.detach().square().sum()) for p in hybrid_model().parameters()))
    assert record.guarantee["details"]["reach"] == pytest.approx(2 * length)


def test_negative_curvature_raises_the_damping() -> None:
    model, task = hybrid_model(), make_task()
    record = get({**SILENT, "damping": 1e-3})(model, task).record
    details = record.guarantee["details"]  # type: ignore[index]
    assert details["least_eigenvalue"] < 0
    assert details["damping"] == pytest.approx(1e-3 - details["least_eigenvalue"])
    assert any("damping was raised" in note for note in record.notes)


def test_without_the_matrix_the_step_is_the_same() -> None:
    model, task = hybrid_model(), dataclasses.replace(make_task(), validation=None)
    formed, by_products = (get({**SILENT, "exact_up_to": limit})(model, task) for limit in (1000, 0))
    for a, b in zip(formed.model.parameters(), by_products.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    one, other = (found.record.guarantee["details"]["least_eigenvalue"] for found in (formed, by_products))  # type: ignore[index]
    assert one == pytest.approx(other, rel=1e-3)


def test_a_radius_that_the_original_exceeds_is_refused() -> None:
    model, task = linear_task()
    with pytest.raises(InputError, match="radius of at least the original's length"):
        get({**SILENT, "radius": 1e-3})(model, task)
