"""`QuantumLayer` and whole models on a backend, with shots, under noise."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

import qunlearn as qu
from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.quantum.backends import Backend
from qunlearn.quantum.backends.simulator import Simulator
from qunlearn.quantum.engines import density
from qunlearn.training.replicas import obstacle
from tests.quantum.backends.cases import Exact

CIRCUIT = qu.load_circuit("ring-cz", qubits=3)
NOISE = {"depolarizing": 0.05, "readout": 0.02}


def layer(**options: Any) -> qu.QuantumLayer:
    return qu.QuantumLayer(CIRCUIT, dtype=torch.float64, generator=torch.Generator().manual_seed(1), **options)


def samples(batch: int = 4) -> torch.Tensor:
    return torch.rand(batch, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3


def model(**options: Any) -> qu.HybridClassifier:
    return qu.HybridClassifier(CIRCUIT, classes=2, generator=torch.Generator().manual_seed(0), **options)


def test_a_layer_runs_on_a_backend() -> None:
    backend = Exact()
    made, here = layer(backend=backend), layer()
    assert torch.allclose(made(samples()), here(samples()), rtol=0, atol=1e-12)
    assert made(samples()[0]).shape == (3,)
    torch.autograd.backward(made(samples()).sum())
    torch.autograd.backward(here(samples()).sum())
    assert made.weights.grad is not None
    assert here.weights.grad is not None
    assert torch.allclose(made.weights.grad, here.weights.grad, rtol=0, atol=1e-12)
    assert len(backend.rows) == 3


def test_per_sample_gradients_are_one_job() -> None:
    backend = Exact()
    made, here = layer(backend=backend), layer()

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, module: nn.Module) -> torch.Tensor:
        found: torch.Tensor = functional_call(module, parameters, (x,)).square().sum()
        return found

    found, exact = (
        vmap(grad(loss), (None, 0, None))(dict(module.named_parameters()), samples(), module) for module in (made, here)
    )
    assert torch.allclose(found["weights"], exact["weights"], rtol=0, atol=1e-10)
    assert len(backend.rows) == 1


def test_print_shows_where_it_runs() -> None:
    assert "engine='auto'" in repr(layer())
    assert "backend=Exact('exact', shots=9))" in repr(layer(backend=Exact(shots=9)))
    assert "backend=PennyLane('lightning.qubit', shots=None)" in repr(layer(backend="lightning.qubit"))
    noisy = qu.QuantumLayer(CIRCUIT.with_noise(NOISE))
    assert "observables=3, noisy, engine='auto')" in repr(noisy)


def test_copies_share_the_backend_and_pickles_work() -> None:
    made = layer(backend="lightning.qubit", shots=10)
    assert copy.deepcopy(made).backend is made.backend
    again = pickle.loads(pickle.dumps(made))
    assert again(samples()).shape == (4, 3)
    assert repr(again) == repr(made)


def test_shots_alone_are_drawn_by_our_own_simulator() -> None:
    made = layer(shots=1000, seed=4)
    assert isinstance(made.backend, Simulator)
    exact = layer()(samples())
    first, second = made(samples()), made(samples())
    assert not torch.equal(first, second)
    assert torch.equal(first, layer(shots=1000, seed=4)(samples()))
    assert (first - exact).abs().max() < 5 / 1000**0.5
    made.zero_grad()
    torch.autograd.backward(made(samples()).sum())
    assert made.backend.spent.jobs == 3


@pytest.mark.parametrize("engine", ["auto", "density", "trajectories"])
def test_engines_for_noise(engine: str) -> None:
    circuit = CIRCUIT.with_noise(NOISE)
    made = qu.QuantumLayer(circuit, engine, generator=torch.Generator().manual_seed(1))
    assert (made.backend is None) == (engine != "trajectories")
    exact = density.expectations(circuit, samples(), made.weights.double())
    error = (made(samples()) - exact).abs().max()
    assert error < (0.2 if engine == "trajectories" else 1e-5)


def test_noise_on_many_qubits_is_drawn() -> None:
    wide = qu.QuantumLayer(qu.load_circuit("ring-cz", qubits=9, noise={"depolarizing": 0.01}))
    assert isinstance(wide.backend, Simulator)
    assert wide(torch.zeros(2, 9)).shape == (2, 9)
    with pytest.raises(UnknownNameError, match="expected the name of an engine"):
        layer(engine="trajectory")


def test_a_model_runs_elsewhere_and_stays_as_it_is() -> None:
    here = model()
    here.recipe = {"epochs": 1}
    there = qu.with_backend(here, "lightning.qubit", shots=30, seed=5)
    assert type(there) is qu.HybridClassifier
    assert there.recipe == here.recipe
    assert here.quantum.backend is None
    assert isinstance(there.quantum.backend, Backend)
    assert there.quantum.backend.shots == 30
    for (name, mine), (other, theirs) in zip(there.state_dict().items(), here.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(mine, theirs)
    assert there.config() == here.config()


def test_where_a_model_runs_is_replaced_not_added() -> None:
    here = model()
    noisy = qu.with_backend(here, noise=NOISE)
    assert noisy.quantum.circuit == CIRCUIT.with_noise(NOISE)
    assert noisy.circuit == CIRCUIT
    other = qu.with_backend(noisy, "aer", noise={"bit-flip": 0.1})
    assert other.quantum.circuit == CIRCUIT.with_noise({"bit-flip": 0.1})
    back = qu.with_backend(other)
    assert (back.quantum.circuit, back.quantum.backend) == (CIRCUIT, None)
    assert torch.equal(back(samples()), here(samples()))


def test_one_noise_is_the_same_everywhere() -> None:
    here = model()
    exact = qu.with_backend(here, noise=NOISE)(samples())
    assert not torch.allclose(exact, here(samples()), atol=1e-3)
    for name in ("aer", "default.mixed", "simulator"):
        assert torch.allclose(qu.with_backend(here, name, noise=NOISE)(samples()), exact, atol=1e-5)
    with pytest.raises(UnsupportedError, match=r"expected a circuit without noise on 'lightning.qubit'"):
        qu.with_backend(here, "lightning.qubit", noise=NOISE)(samples())


@pytest.mark.parametrize("encoding", [None, "amplitude"])
def test_the_noise_of_a_device(encoding: str | None) -> None:
    made = qu.QuantumLayer(qu.load_circuit("sim-13", qubits=2, encoding=encoding), dtype=torch.float64)
    noisy = qu.with_backend(made, noise="fake_manila")
    shots = qu.with_backend(made, noise="fake_manila", shots=20000)
    aer = qu.with_backend(made, "aer", noise="fake_manila")
    x = torch.rand(3, made.circuit.features, dtype=torch.float64).requires_grad_()
    assert "backend=Calibrated('noise of fake_manila', shots=None)" in repr(noisy)
    assert 1e-3 < (noisy(x) - made(x)).abs().max() < 0.2
    assert torch.allclose(aer(x), noisy(x), rtol=0, atol=1e-9)
    assert (shots(x) - noisy(x)).abs().max() < 5 / 20000**0.5
    found, exact = (torch.autograd.grad(run(x)[0].sum(), x)[0] for run in (noisy, aer))
    assert torch.allclose(found, exact, rtol=0, atol=1e-9)
    with pytest.raises(UnsupportedError, match="expected a circuit without noise of its own"):
        qu.with_backend(qu.QuantumLayer(CIRCUIT.with_noise(NOISE)), noise="fake_manila")(samples())


def test_two_circuits_of_a_model_draw_different_shots() -> None:
    part = layer()
    twins = nn.ModuleList([part, copy.deepcopy(part)])
    for backend in (None, "lightning.qubit"):
        first, second = list(qu.with_backend(twins, backend, shots=50))
        assert not torch.equal(first(samples()), second(samples()))


def test_a_model_without_a_circuit_is_refused() -> None:
    with pytest.raises(InputError, match="expected a model with a QuantumLayer, got Linear without one"):
        qu.with_backend(nn.Linear(2, 2), "aer")


def test_saved_models_say_nothing_of_where_they_ran(tmp_path: Path) -> None:
    here = model()
    there = qu.with_backend(here, "aer", shots=10, noise=NOISE)
    qu.save_model(there, tmp_path / "there")
    qu.save_model(here, tmp_path / "here")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    loaded = qu.load_model(tmp_path / "there")
    assert torch.equal(loaded(samples()), here(samples()))


def test_a_model_is_trained_and_unlearned_on_a_backend() -> None:
    backend = Exact()
    there = qu.with_backend(model(), backend)
    x, y = samples(12), torch.arange(12) % 2
    trained: Any = qu.train(there, qu.Dataset(x, y), epochs=2, batch_size=6, seed=0)
    exact: Any = qu.train(model(), qu.Dataset(x, y), epochs=2, batch_size=6, seed=0)
    assert trained.quantum.backend is backend
    assert torch.allclose(trained.quantum.weights, exact.quantum.weights, atol=1e-5)
    result: Any = qu.unlearn(trained, (x[:3], y[:3]), (x[3:], y[3:]), method="fine-tune", seed=0)
    assert result.model.quantum.backend is backend
    assert obstacle(trained) == "the circuit in quantum runs on 'exact', where what is drawn belongs to one model"
    assert obstacle(exact) is None
    assert obstacle(qu.with_backend(model(), noise=NOISE)) is None
    wide = qu.HybridClassifier(qu.load_circuit("ring-cz", qubits=6, noise=NOISE), classes=2)
    assert obstacle(wide) == "the circuit in quantum has 6 qubits, and above 5 nothing is gained"
