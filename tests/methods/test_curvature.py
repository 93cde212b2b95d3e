"""Curvature: closed forms of logistic regression in NumPy, finite differences for circuits, and what is counted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.methods import curvature
from qunlearn.models import HybridClassifier
from qunlearn.quantum import load_circuit
from qunlearn.training.net import Net
from tests.methods.cases import blobs, hybrid_model, plain_model
from tests.methods.test_contract import QNodeModel

Array = NDArray[np.float64]


def noisy_model() -> HybridClassifier:
    """A density matrix, whose derivatives are the reference engine's."""
    circuit = load_circuit("ring-cz", qubits=4, depth=1).with_noise({"depolarizing": 0.02})
    generator = torch.Generator().manual_seed(0)
    return HybridClassifier(circuit, 3, head="linear", dtype=torch.float64, generator=generator)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "sequential": plain_model,
    "hybrid": hybrid_model,
    "qnode": QNodeModel,
    "noisy": noisy_model,
}


def linear_model() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Linear(4, 3).double()


def normed_model() -> nn.Sequential:
    """Batch norm, whose statistics would mix samples in training mode, and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)).double()
        model(torch.randn(50, 4, dtype=torch.float64))
    return model


def softmax_pieces(model: nn.Linear, x: Tensor) -> tuple[Array, Array]:
    """Probabilities ``(n, K)`` and inputs with a one for the bias ``(n, d + 1)``."""
    inputs = x.numpy()
    logits = inputs @ model.weight.detach().numpy().T + model.bias.detach().numpy()
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True), np.hstack([inputs, np.ones((len(inputs), 1))])


def ordered(by_class: Array) -> Array:
    """Entries ``(..., K, d + 1)`` in the order weight, then bias."""
    lead = by_class.shape[:-2]
    return np.concatenate([by_class[..., :-1].reshape(*lead, -1), by_class[..., -1]], -1)


def logistic_hessian(model: nn.Linear, x: Tensor) -> Array:
    """mean_i (diag p - p p^T) (x) x x^T, in the order weight, then bias."""
    p, inputs = softmax_pieces(model, x)
    kernel = np.einsum("nk,kl->nkl", p, np.eye(3)) - np.einsum("nk,nl->nkl", p, p)
    blocks = np.einsum("nkl,na,nb->kalb", kernel, inputs, inputs) / len(inputs)
    places = ordered(np.arange(15).reshape(3, 5).astype(float)).astype(int)
    return np.asarray(blocks.reshape(15, 15)[np.ix_(places, places)])


def test_sample_gradients_are_those_of_logistic_regression() -> None:
    model, (x, y) = linear_model(), blobs(0, 20)
    p, inputs = softmax_pieces(model, x)
    wanted = ordered((p - np.eye(3)[y.numpy()])[:, :, None] * inputs[:, None, :])
    (found,) = curvature.sample_gradients(Net(model), x, y)
    rows = torch.cat([g.flatten(1) for g in found.values()], 1)
    assert np.abs(rows.numpy() - wanted).max() < 1e-14
    empirical = curvature.flattened(curvature.empirical_fisher(Net(model), x, y))
    assert np.abs(empirical.numpy() - (wanted**2).mean(0)).max() < 1e-14
    mean = curvature.flattened(curvature.gradient(Net(model), x, y))
    assert np.abs(mean.numpy() - wanted.mean(0)).max() < 1e-14


def test_the_true_fisher_is_the_expectation_over_all_labels() -> None:
    model, (x, _) = linear_model(), blobs(0, 20)
    p, inputs = softmax_pieces(model, x)
    wanted = np.zeros(15)
    for k in range(3):  # the label that the model may draw
        gradients = ordered((p - np.eye(3)[[k] * 20])[:, :, None] * inputs[:, None, :])
        wanted += (p[:, k : k + 1] * gradients**2).mean(0)
    found = curvature.flattened(curvature.true_fisher(Net(model), x)).numpy()
    assert np.abs(found - wanted).max() < 1e-14
    # In logistic regression, Hessian, Gauss-Newton matrix and Fisher matrix are one.
    assert np.abs(found - np.diag(logistic_hessian(model, x))).max() < 1e-14


def test_hessian_and_gauss_newton_of_logistic_regression() -> None:
    model, (x, y) = linear_model(), blobs(0, 20)
    wanted = logistic_hessian(model, x)
    assert np.abs(curvature.hessian(Net(model), x, y).numpy() - wanted).max() < 1e-14
    assert np.abs(curvature.gauss_newton(Net(model), x).numpy() - wanted).max() < 1e-14


@pytest.mark.parametrize("kind", MODELS)
def test_sample_gradients_are_gradients_of_one_sample(kind: str) -> None:
    model, (x, y) = MODELS[kind](), blobs(1, 7)
    (found,) = curvature.sample_gradients(Net(model), x, y)
    for i in range(7):
        alone = torch.autograd.grad(cross_entropy(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters()))
        for g, wanted in zip(found.values(), alone, strict=True):
            assert float((g[i] - wanted).abs().max()) < 1e-12


@pytest.mark.parametrize("kind", MODELS)
def test_the_hessian_is_what_finite_differences_of_the_gradient_give(kind: str) -> None:
    model, (x, y) = MODELS[kind](), blobs(1, 7)
    net = Net(model)
    found = curvature.hessian(net, x, y)
    assert torch.equal(found, found.T)
    start = curvature.flattened(net.parameters)
    for j in range(0, len(start), 7):

        def at(shift: float, j: int = j) -> Tensor:
            moved = start.clone()
            moved[j] += shift
            there = net.at(curvature.unflattened(moved, net.parameters))
            return curvature.flattened(curvature.gradient(there, x, y))

        # Fourth order: f(h) and f(2h) on both sides.
        slope = (8 * (at(1e-3) - at(-1e-3)) - (at(2e-3) - at(-2e-3))) / 12e-3
        assert float((found[j] - slope).abs().max()) < 1e-8


@pytest.mark.parametrize("kind", MODELS)
def test_the_true_fisher_is_its_definition_by_autograd(kind: str) -> None:
    model, (x, _) = MODELS[kind](), blobs(1, 5)
    wanted = [torch.zeros_like(p) for p in model.parameters()]
    for i in range(5):
        logs = torch.log_softmax(model(x[i : i + 1]), 1)[0]
        for k in range(3):
            gradients = torch.autograd.grad(logs[k], list(model.parameters()), retain_graph=True)
            for total, g in zip(wanted, gradients, strict=True):
                total += logs[k].detach().exp() * g**2 / 5
    found = curvature.true_fisher(Net(model), x)
    for name, total in zip(found, wanted, strict=True):
        assert float((found[name] - total).abs().max()) < 1e-12


@pytest.mark.parametrize("kind", ["sequential", "hybrid"])
def test_products_are_those_with_the_matrices(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curvature, "ROWS", 4)  # parts of unequal length
    monkeypatch.setattr(curvature, "NUMBERS", 1000)
    net, (x, y) = Net(MODELS[kind]()), blobs(1, 7)
    vector = torch.randn(len(curvature.flattened(net.parameters)), generator=torch.Generator().manual_seed(0)).double()
    for matrix, product in (
        (curvature.hessian(net, x, y), curvature.hessian_product(net, x, y)),
        (curvature.gauss_newton(net, x), curvature.gauss_newton_product(net, x)),
    ):
        assert float((matrix @ vector - product(vector)).abs().max()) < 1e-12
        assert float(matrix.abs().max()) > 1e-3


def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (x, y) = Net(hybrid_model()), blobs(1, 11)

    def everything() -> list[Tensor]:
        diagonals = [
            curvature.true_fisher(net, x),
            curvature.empirical_fisher(net, x, y),
            curvature.gradient(net, x, y),
        ]
        return [*map(curvature.flattened, diagonals), curvature.hessian(net, x, y), curvature.gauss_newton(net, x)]

    whole = everything()
    monkeypatch.setattr(curvature, "ROWS", 3)
    monkeypatch.setattr(curvature, "NUMBERS", 2000)
    for one, other in zip(whole, everything(), strict=True):
        assert float((one - other).abs().max()) < 1e-14


def test_evaluation_mode_keeps_samples_apart_and_the_module_as_it_was() -> None:
    model, (x, y) = normed_model().train(), blobs(0, 9)
    statistics = [b.clone() for b in model.buffers()]
    net = Net(model)
    (found,) = curvature.sample_gradients(net, x, y)
    curvature.hessian(net, x, y)
    assert all(torch.equal(a, b) for a, b in zip(statistics, net.buffers.values(), strict=True))
    assert all(part.training for part in model.modules())
    model.eval()
    alone = torch.autograd.grad(cross_entropy(model(x[3:4]), y[3:4]), list(model.parameters()))
    for g, wanted in zip(found.values(), alone, strict=True):
        assert float((g[3] - wanted).abs().max()) < 1e-13


def test_frozen_parameters_are_left_out() -> None:
    model, (x, y) = plain_model(), blobs(0, 6)
    model[0].weight.requires_grad_(False)
    net = Net(model)
    for names in (curvature.gradient(net, x, y), curvature.true_fisher(net, x), curvature.empirical_fisher(net, x, y)):
        assert list(names) == ["0.bias", "2.weight", "2.bias"]
    assert curvature.hessian(net, x, y).shape == (16 + 48 + 3, 16 + 48 + 3)


def test_flattening_goes_there_and_back() -> None:
    tensors = curvature.trained(Net(plain_model()))
    vector = curvature.flattened(tensors)
    assert vector.shape == (4 * 16 + 16 + 16 * 3 + 3,)
    back = curvature.unflattened(vector, tensors)
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


# 7 samples, 3 classes; the circuit has 24 weights of two-term shift rules: 48 circuits a gradient.
COUNTS: dict[str, tuple[Callable[[Net, Tensor, Tensor], object], int, int, int]] = {
    "sample_gradients": (lambda n, x, y: list(curvature.sample_gradients(n, x, y)), 7, 7, 7 * 49),
    # Logits to know the classes, and a forward pass with the Jacobian, a derivative for each class.
    "true_fisher": (lambda n, x, y: curvature.true_fisher(n, x), 7 * 3, 2 * 7, 7 * 50),
    "empirical_fisher": (curvature.empirical_fisher, 7, 7, 7 * 49),
    # The gradient, and one more derivative for each of 24 + 80 + 51 parameters; shifts of shifts on a machine.
    "hessian": (curvature.hessian, 7 * (1 + 155), 7, 7 * (49 + 48**2)),
    "hessian_product": (lambda n, x, y: curvature.hessian_product(n, x, y)(torch.ones(155)), 14, 7, 7 * (49 + 48**2)),
    "gauss_newton_product": (lambda n, x, y: curvature.gauss_newton_product(n, x)(torch.ones(155)), 14, 7, 7 * 49),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_equal_hand_counts(name: str) -> None:
    run, gradients, circuits, hardware = COUNTS[name]
    net, (x, y) = Net(hybrid_model()), blobs(0, 7)
    run(net, x, y)
    counts = net.counts
    assert (counts.gradient_evaluations, counts.circuit_evaluations, counts.hardware_circuits) == (
        gradients,
        circuits,
        hardware,
    )


def spd(size: int, seed: int) -> Tensor:
    drawn = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn @ drawn.T / size + 0.1 * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_conjugate_gradients_solve_what_elimination_solves(damping: float) -> None:
    matrix, target = spd(30, 0), torch.linspace(-1, 1, 30, dtype=torch.float64)
    found = curvature.conjugate_gradients(lambda v: matrix @ v, target, damping=damping, tolerance=1e-12)
    wanted = np.linalg.solve(matrix.numpy() + damping * np.eye(30), target.numpy())
    assert np.abs(found.vector.numpy() - wanted).max() < 1e-9
    assert found.residual < 1e-11
    assert 0 < found.steps <= 100


def test_conjugate_gradients_say_how_far_they_came_and_refuse_negative_curvature() -> None:
    matrix, target = spd(30, 0), torch.ones(30, dtype=torch.float64)
    early = curvature.conjugate_gradients(lambda v: matrix @ v, target, tolerance=1e-12, steps=2)
    assert early.steps == 2
    left = target - matrix @ early.vector
    assert early.residual == pytest.approx(float(left.norm() / target.norm()))
    assert early.residual > 1e-3
    indefinite = matrix - 2 * torch.eye(30, dtype=torch.float64)
    with pytest.raises(curvature.NegativeCurvatureError, match="raise the damping"):
        curvature.conjugate_gradients(lambda v: indefinite @ v, target)
    assert float(curvature.conjugate_gradients(lambda v: matrix @ v, 0 * target).vector.abs().max()) == 0.0


def test_a_loss_of_one_s_own_is_differentiated() -> None:
    def squared(net: Net, x: Tensor, y: Tensor) -> Tensor:
        return net(x).square().sum(1).mean()

    model, (x, y) = linear_model(), blobs(0, 8)
    inputs = np.hstack([x.numpy(), np.ones((8, 1))])
    places = ordered(np.arange(15).reshape(3, 5).astype(float)).astype(int)
    wanted = np.kron(np.eye(3), 2 * inputs.T @ inputs / 8)[np.ix_(places, places)]
    assert np.abs(curvature.hessian(Net(model), x, y, squared).numpy() - wanted).max() < 1e-12
