"""`QuantumLayer` as an honest module of torch."""

from __future__ import annotations

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, hessian, vmap

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.layer import QuantumLayer, weight_periods
from tests.quantum.cases import every_engine

# torch's own forward-mode rules are still made with its deprecated compiler.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

CIRCUIT = load_circuit("ring-cz", qubits=3, depth=2)


def layer(used: bool = False, dtype: torch.dtype = torch.float64, engine: str = "auto") -> QuantumLayer:
    made = QuantumLayer(CIRCUIT, engine, dtype=dtype, generator=torch.Generator().manual_seed(1))
    if used:
        torch.autograd.backward(made(samples().to(dtype)).sum())
    return made


def samples(batch: int = 4) -> torch.Tensor:
    return torch.rand(batch, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3


used_or_new = pytest.mark.parametrize("used", [False, True], ids=["new", "after a forward"])


def test_shapes_and_types() -> None:
    made = layer()
    assert made(samples()).shape == (4, 3)
    assert made(samples()[0]).shape == (3,)
    assert made(samples()[:0]).shape == (0, 3)
    assert made.state(samples()).shape == (4, 2, 2, 2)
    assert made(samples()).dtype == torch.float64
    assert made.float()(samples().float()).dtype == torch.float32
    assert made.double()(samples()).dtype == torch.float64


def test_the_default_type_is_that_of_torch() -> None:
    assert QuantumLayer(CIRCUIT).weights.dtype == torch.float32


def test_arrays_are_taken() -> None:
    made = layer()
    assert torch.equal(made(samples().numpy()), made(samples()))
    assert torch.equal(made([[1.0, 2.0, 3.0]]), made(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)))


@pytest.mark.parametrize("shape", [(4, 2), (4, 4), (2,), (2, 2, 3), ()])
def test_another_width_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as raised:
        layer()(torch.zeros(shape))
    assert f"expected features of shape (batch, 3), got {shape}" in str(raised.value)


def test_an_unknown_engine_is_refused_at_once() -> None:
    with pytest.raises(UnknownNameError, match="engine, got 'trch'; did you mean 'torch'"):
        QuantumLayer(CIRCUIT, engine="trch")


def test_initial_weights_follow_the_generator_and_fill_the_circle() -> None:
    assert torch.equal(layer().weights, layer().weights)
    wide = QuantumLayer(load_circuit("ring-cz", qubits=10, depth=100), generator=torch.Generator().manual_seed(0))
    drawn = wide.weights.detach().double()
    assert 0 <= drawn.min() < 0.02
    assert 2 * math.pi - 0.02 < drawn.max() < 2 * math.pi
    # 3,000 uniform draws: the mean has a standard error of 2 pi / sqrt(12 * 3000) = 0.033.
    assert drawn.mean().item() == pytest.approx(math.pi, abs=0.13)


def test_reset_draws_anew_in_place() -> None:
    made = layer()
    parameter, before = made.weights, made.weights.detach().clone()
    made.reset_parameters(torch.Generator().manual_seed(9))
    assert made.weights is parameter
    assert not torch.equal(made.weights, before)
    made.reset_parameters(torch.Generator().manual_seed(1))
    assert torch.equal(made.weights, before)


@every_engine
@used_or_new
def test_functional_call_uses_the_weights_it_is_given(used: bool, engine: str) -> None:
    made, other = layer(used, engine=engine), layer(engine=engine)
    other.reset_parameters(torch.Generator().manual_seed(5))
    called = functional_call(made, {"weights": other.weights.detach()}, (samples(),))
    assert torch.equal(called, other(samples()))
    assert not torch.equal(called, made(samples()))


@every_engine
@used_or_new
def test_per_sample_gradients_and_hessian(used: bool, engine: str) -> None:
    made = layer(used, engine=engine)
    weights = made.weights.detach().clone()

    def loss(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = functional_call(made, {"weights": w}, (x,))
        return values.square().sum()

    rows = vmap(grad(loss), in_dims=(None, 0))(weights, samples())
    step = 1e-6
    values = vmap(loss, in_dims=(None, 0))
    for index in (0, 4, 7):
        shift = torch.zeros_like(weights)
        shift[index] = step
        slope = (values(weights + shift, samples()) - values(weights - shift, samples())) / (2 * step)
        torch.testing.assert_close(rows[:, index], slope, rtol=0, atol=1e-8)
    matrix = hessian(loss)(weights, samples()[0])
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    assert matrix.abs().max() > 0.1


@every_engine
@used_or_new
def test_copies_and_files_keep_the_function(used: bool, engine: str) -> None:
    made = layer(used, engine=engine)
    expected = made(samples())
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    loaded = QuantumLayer(CIRCUIT, engine, dtype=torch.float64)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), loaded):
        assert torch.equal(twin(samples()), expected)
        assert twin.engine == engine
        assert twin.weights is not made.weights
        with torch.no_grad():
            twin.weights.add_(0.1)
        assert not torch.equal(twin(samples()), expected)
    assert torch.equal(made(samples()), expected)


def test_the_state_dict_holds_the_weights_alone() -> None:
    assert list(layer(used=True).state_dict()) == ["weights"]


@every_engine
def test_double_backward(engine: str) -> None:
    made = layer(engine=engine)
    x = samples().requires_grad_()
    (slope,) = torch.autograd.grad(made(x).sum(), x, create_graph=True)
    torch.autograd.backward(slope.square().sum())
    assert made.weights.grad is not None
    assert made.weights.grad.abs().max() > 0.1


@every_engine
def test_it_trains(engine: str) -> None:
    made = layer(dtype=torch.float32, engine=engine)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    x = samples().float()
    first = made(x)[:, 0].sum().item()
    for _ in range(40):
        optimizer.zero_grad()
        torch.autograd.backward(made(x)[:, 0].sum())
        optimizer.step()
    assert made(x)[:, 0].sum().item() < first - 1


def test_by_depth_gives_views_of_the_layers() -> None:
    made = QuantumLayer(load_circuit("sim-10", qubits=3, depth=2))
    parts = made.by_depth()
    assert {name: part.tolist() for name, part in parts.items()} == {
        "start": made.weights[:3].tolist(), "0": made.weights[3:6].tolist(), "1": made.weights[6:].tolist(),
    }  # fmt: skip
    with torch.no_grad():
        parts["1"].zero_()
    assert made.weights[6:].tolist() == [0, 0, 0]
    assert list(QuantumLayer(load_circuit("real-amplitudes", qubits=2)).by_depth()) == ["0", "end"]


def test_periods_are_those_of_the_gates() -> None:
    gates = (
        Gate("ry", (0,), Angle(weight=0)),
        Gate("crx", (0, 1), Angle(weight=1)),
        Gate("ry", (1,), Angle(scale=-2.0, weight=2)),
        Gate("ry", (1,), Angle(weight=3)),
        Gate("cry", (1, 0), Angle(weight=3)),
        Gate("ry", (1,), Angle(factors=(Factor(0),), weight=4)),
    )
    circuit = Circuit(2, gates, ("ZI", "IZ"), features=1, weights=6)
    turn = 2 * math.pi
    assert weight_periods(circuit).tolist() == [turn, 2 * turn, math.pi, 2 * turn, math.inf, turn]


def test_moving_a_weight_by_its_period_changes_nothing() -> None:
    made = QuantumLayer(load_circuit("sim-14", qubits=3), dtype=torch.float64)
    expected, weights = made(samples()).detach(), made.weights.detach()
    moved = weights + torch.diag(made.periods)
    for row in moved:
        torch.testing.assert_close(functional_call(made, {"weights": row}, (samples(),)), expected, rtol=0, atol=1e-12)
    half = weights + torch.diag(made.periods / 2)
    changes = [(functional_call(made, {"weights": row}, (samples(),)) - expected).abs().max() for row in half]
    assert float(np.max(changes)) > 0.1


def test_it_says_what_it_is() -> None:
    assert "ring-cz, qubits=3, depth=2, features=3, weights=18, observables=3, engine='auto'" in repr(layer())
