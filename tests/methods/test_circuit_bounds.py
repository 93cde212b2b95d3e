"""Constants of circuits, against derivatives that autograd takes along the worst directions found."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.methods.circuit_bounds import bare_circuit, diameter, hessian_lipschitz, weight_slopes
from qunlearn.models import DirectEncoder
from qunlearn.quantum import Circuit, QuantumLayer, load_circuit
from qunlearn.quantum.circuit import Angle, Factor, Gate

SHARED = Circuit(
    2,
    (
        Gate("h", (0,)),
        Gate("rx", (0,), Angle(factors=(Factor(0),))),
        Gate("ry", (0,), Angle(weight=0)),
        Gate("cry", (0, 1), Angle(scale=2.0, weight=0)),
        Gate("p", (1,), Angle(scale=-0.5, weight=1)),
        Gate("rxx", (0, 1), Angle(weight=2)),
        Gate("crz", (1, 0), Angle(weight=1)),
        Gate("ry", (1,), Angle(weight=1)),
    ),
    ("ZI", "IX"),
    1,
    3,
)
CIRCUITS = {
    "ring-cz": load_circuit("ring-cz", qubits=2, depth=2, features=1),
    "shared": SHARED,
    "noisy": SHARED.with_noise({"depolarizing": 0.05}),
}


def derivatives(layer: QuantumLayer, x: Tensor, y: Tensor, at: Tensor, way: Tensor) -> list[list[float]]:
    """The first three derivatives along a way, of each expectation value and of the mean cross entropy."""
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def output() -> Tensor:
        return torch.func.functional_call(layer, {"weights": at + t * way}, (x,))  # type: ignore[no-any-return]

    values = [*output().flatten(), cross_entropy(output(), y)]
    found = []
    for value in values:
        orders = []
        for _ in range(3):
            (value,) = torch.autograd.grad(value, t, create_graph=True)
            orders.append(abs(float(value.detach())))
        found.append(orders)
    return found


@pytest.mark.parametrize("name", CIRCUITS)
def test_no_derivative_is_larger(name: str) -> None:
    circuit = CIRCUITS[name]
    engine = "density" if circuit.noisy else "torch"
    layer = QuantumLayer(circuit, engine, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    slopes, bend = weight_slopes(circuit), hessian_lipschitz(circuit)
    size = float(slopes.norm())
    x, y = torch.rand(3, 1, generator=generator, dtype=torch.float64) * 2, torch.tensor([0, 1, 0])
    steepest = 0.0
    for number in range(6):
        at = torch.rand(circuit.weights, generator=generator, dtype=torch.float64) * 7
        way = torch.randn(circuit.weights, generator=generator, dtype=torch.float64) if number % 2 else slopes.clone()
        way = way / way.norm()
        along = float((slopes * way.abs()).sum())
        *values, loss = derivatives(layer, x, y, at, way)
        assert along <= size * (1 + 1e-12)
        for orders in values:
            assert all(order <= along ** (k + 1) + 1e-9 for k, order in enumerate(orders))
            steepest = max(steepest, orders[0] / along)
        assert loss[2] <= bend
    assert steepest > 0.1  # the bound is of the right size, not merely large


def test_slopes_count_scales_and_shared_gates() -> None:
    assert weight_slopes(SHARED).tolist() == [1 + 2, 0.5 + 1 + 1, 1]
    assert weight_slopes(load_circuit("ring-cz", qubits=2, depth=2)).tolist() == [1.0] * 12
    multiplied = Circuit(1, (Gate("rx", (0,), Angle(factors=(Factor(0),), weight=0)),), ("Z",), 1, 1)
    assert weight_slopes(multiplied).tolist() == [math.inf]


def test_one_rotation_reaches_its_bound() -> None:
    """<Z> after RY(t) on |+> is -sin t: every derivative reaches 1 somewhere."""
    circuit = Circuit(1, (Gate("h", (0,)), Gate("ry", (0,), Angle(weight=0))), ("Z",), 0, 1)
    assert weight_slopes(circuit).tolist() == [1.0]
    layer, nothing = QuantumLayer(circuit, dtype=torch.float64), torch.zeros(1, 0, dtype=torch.float64)
    for at, orders in ((0.0, (1, 0, 1)), (math.pi / 2, (0, 1, 0))):
        (found, _) = derivatives(
            layer, nothing, torch.tensor([0]), torch.full((1,), at, dtype=torch.float64), torch.ones(1).double()
        )
        assert found == pytest.approx(orders, abs=1e-9)
    assert hessian_lipschitz(circuit) == pytest.approx(5 + 4 * math.sqrt(3) / 9)


def test_the_third_central_moment_on_an_interval_is_at_most_that_of_two_points() -> None:
    generator = torch.Generator().manual_seed(0)
    worst = 8 * math.sqrt(3) / 18
    p = torch.distributions.Dirichlet(torch.full((5,), 0.3, dtype=torch.float64))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shares = p.sample((20_000,))
    values = torch.rand(20_000, 5, generator=generator, dtype=torch.float64) * 2 - 1
    values[:10_000] = values[:10_000].sign()
    centred = values - (shares * values).sum(1, keepdim=True)
    moments = (shares * centred**3).sum(1).abs()
    assert 0.95 * worst < float(moments.max()) <= worst + 1e-12


def test_the_diameter_is_half_the_diagonal_of_the_periods() -> None:
    assert diameter(load_circuit("ring-cz", qubits=2, depth=2)) == pytest.approx(math.pi * math.sqrt(12))
    # 4 pi / 2 of the controlled rotation that doubles its angle, 4 pi of the crz, 2 pi of the rxx.
    assert diameter(SHARED) == pytest.approx(math.sqrt(2**2 + 4**2 + 2**2) / 2 * math.pi)


def test_only_a_model_that_is_all_circuit_counts_as_one() -> None:
    layer = QuantumLayer(load_circuit("ring-cz", qubits=3))
    assert bare_circuit(layer) is layer
    assert bare_circuit(nn.Sequential(DirectEncoder(3), layer)) is layer
    assert bare_circuit(nn.Sequential(layer, nn.Softmax(1))) is None
    assert bare_circuit(nn.Sequential(nn.Linear(3, 3), layer)) is None
    assert bare_circuit(nn.Sequential(nn.BatchNorm1d(3, affine=False), layer)) is None
    multiplied = Circuit(1, (Gate("rx", (0,), Angle(factors=(Factor(0),), weight=0)),), ("Z",), 1, 1)
    assert bare_circuit(QuantumLayer(multiplied)) is None
    layer.weights.requires_grad_(False)
    assert bare_circuit(layer) is None
