"""Our own engines as a backend: shots that scatter as they should, noise exactly or by trajectories, honest seeds."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum.backends import find_backend
from qunlearn.quantum.backends.simulator import Simulator
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.engines import density, torch_engine
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.quantum.noise import NoiseModel
from tests.quantum.backends.cases import ASYMMETRIC, POINT, both, swapped, worst
from tests.quantum.cases import CIRCUITS, draw, every_circuit, exact_noisy, gradients

NOISE = NoiseModel.of(depolarizing=0.05, amplitude_damping=0.03, readout=[0.08, 0.02])
NOISY = NOISE.apply(ASYMMETRIC)
NINE = NOISE.apply(load_circuit("ring-cz", qubits=9, depth=1))


def repeated(backend: Simulator, circuit: Circuit, x: Tensor, w: Tensor, times: int) -> Tensor:
    """Values of many equal samples, each with draws of its own: ``(times, observables)``."""
    return backend.expectations(circuit, x.expand(times, -1), w)


def true_gradients(circuit: Circuit, x: Tensor, w: Tensor) -> list[Tensor]:
    """What `gradients` gives of the exact values."""
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    return gradients(exact_noisy(circuit, x, w), x, w)


@every_circuit
def test_without_shots_it_is_the_engine(circuit: Circuit) -> None:
    assert worst(both(circuit, Simulator(), *draw(circuit))) < 1e-12


def test_without_shots_noise_is_exact_up_to_eight_qubits() -> None:
    x, w = (value.clone().requires_grad_() for value in POINT)
    for circuit in (NOISY, replace(NOISY, channels=()), replace(NOISY, readout=())):
        truth = exact_noisy(circuit, x, w)
        slopes = gradients(truth, x, w)
        for engine in ("auto", "density", "torch", "fused"):
            found = Simulator(engine=engine).expectations(circuit, x, w)
            torch.testing.assert_close(found, truth, rtol=0, atol=1e-10)
            for ours, theirs in zip(gradients(found, x, w), slopes, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("circuit", [ASYMMETRIC, NOISY], ids=["exact", "noisy"])
def test_shots_scatter_around_the_exact_values_as_a_multinomial_does(circuit: Circuit) -> None:
    shots, times = 200, 4000
    values = repeated(Simulator(shots=shots), circuit, *POINT, times)
    truth = exact_noisy(circuit, *POINT)[0]
    variance = (1 - truth.square()) / shots
    assert ((values.mean(0) - truth).abs() <= 4 * (variance / times).sqrt()).all()
    torch.testing.assert_close(values.var(0), variance, rtol=4 * (2 / times) ** 0.5, atol=0)
    close = 6 * variance.max().sqrt() / times**0.5  # the test can tell the wires apart
    assert all((values.mean(0) - other[0]).abs().max() > close for other in swapped(truth[None], circuit))


def test_values_of_one_basis_come_from_the_same_shots() -> None:
    circuit = replace(ASYMMETRIC, observables=("ZII", "IZI", "ZZI"))
    values = repeated(Simulator(shots=50), circuit, *POINT, 3000)
    truth = torch_engine.expectations(circuit, *POINT)[0]
    covariance = torch.cov(values.T)[0, 1] * 50
    assert covariance.item() == pytest.approx((truth[2] - truth[0] * truth[1]).item(), abs=4 / 3000**0.5)


@pytest.mark.parametrize("circuit", [ASYMMETRIC, NOISY, CIRCUITS["amplitude"]], ids=["exact", "noisy", "amplitude"])
def test_gradients_of_shots_are_unbiased(circuit: Circuit) -> None:
    point = POINT if circuit.qubits == 3 and not circuit.amplitude else draw(circuit, batch=1)
    truth = true_gradients(circuit, *point)
    backend, found, times = Simulator(shots=100), [], 60
    for _ in range(times):
        x, w = (value.clone().requires_grad_() for value in point)
        found.append(gradients(backend.expectations(circuit, x, w), x, w))
    for ours, theirs in zip(zip(*found, strict=True), truth, strict=True):
        stack = torch.stack(ours)
        error = stack.std(0) / times**0.5
        assert ((stack.mean(0) - theirs).abs() <= 4 * error + 1e-9).all()


@pytest.mark.parametrize("shots", [None, 100])
def test_trajectories_run_what_is_too_large_for_a_density_matrix(shots: int | None) -> None:
    x, w = draw(NINE, batch=1)
    truth = density.expectations(NINE, x, w)
    values = repeated(Simulator(shots=shots, trajectories=25), NINE, x, w, 60)
    error = values.std(0) / 60**0.5
    assert ((values.mean(0) - truth[0]).abs() <= 4 * error).all()
    assert values.std(0).min() > 0


def test_shots_of_trajectories_scatter_as_both_do() -> None:
    """Few trajectories with strong damping: their mean weight is far from 1, and a bias would show."""
    circuit = NoiseModel.of(amplitude_damping=0.5).apply(ASYMMETRIC)
    truth = exact_noisy(circuit, *POINT)[0]
    values = repeated(Simulator(shots=20, trajectories=3), circuit, *POINT, 4000)
    error = values.std(0) / 4000**0.5
    assert ((values.mean(0) - truth).abs() <= 4 * error).all()


@pytest.mark.parametrize("options", [{"shots": 50}, {"trajectories": 5}, {"shots": 50, "trajectories": 5}])
def test_no_noise_is_drawn_twice_and_a_seed_repeats_it(options: dict[str, Any]) -> None:
    x, w = POINT
    first, second = Simulator(seed=3, **options), Simulator(seed=3, **options)
    calls = [first.expectations(NOISY, x, w) for _ in range(3)]
    assert not torch.equal(calls[0], calls[1])
    assert not torch.equal(calls[1], calls[2])
    for values in calls:
        torch.testing.assert_close(second.expectations(NOISY, x, w), values, rtol=0, atol=0)
    other = Simulator(seed=4, **options).expectations(NOISY, x, w)
    assert not torch.equal(other, calls[0])
    loaded = pickle.loads(pickle.dumps(first))  # goes on where the other stands
    torch.testing.assert_close(loaded.expectations(NOISY, x, w), first.expectations(NOISY, x, w), rtol=0, atol=0)
    assert copy.deepcopy(first) is first


def test_rows_in_parts_are_still_one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = draw(ASYMMETRIC, batch=10)
    monkeypatch.setattr(Simulator, "_at_once", lambda *_: 3)
    backend = Simulator(shots=100_000)
    values = backend.expectations(ASYMMETRIC, x, w)
    torch.testing.assert_close(values, torch_engine.expectations(ASYMMETRIC, x, w), rtol=0, atol=4.5 / 100_000**0.5)
    assert (backend.spent.jobs, backend.spent.circuits, backend.spent.executions) == (1, 20, 2_000_000)  # two bases


def test_what_is_spent_is_counted() -> None:
    (x, w), backend = POINT, Simulator(trajectories=7)
    backend.expectations(ASYMMETRIC, x, w)
    assert (backend.spent.jobs, backend.spent.circuits, backend.spent.executions) == (1, 1, 1)
    backend.expectations(NOISY, x.expand(3, -1), w)
    assert (backend.spent.jobs, backend.spent.circuits, backend.spent.executions) == (2, 4, 22)


def test_spsa_runs_on_it_with_and_without_shots() -> None:
    truth = true_gradients(NOISY, *POINT)
    for shots in (None, 1000):
        backend, found = Simulator(shots=shots, gradient="spsa", repetitions=4), []
        for _ in range(60):
            x, w = (value.clone().requires_grad_() for value in POINT)
            found.append(gradients(backend.expectations(NOISY, x, w), x, w)[1])
        stack = torch.stack(found)
        assert ((stack.mean(0) - truth[1]).abs() <= 4 * stack.std(0) / 60**0.5 + 0.01).all()  # a finite step is biased


def test_layers_find_it_and_keep_their_type() -> None:
    layer = QuantumLayer(NINE, shots=20, seed=1)
    assert isinstance(layer.backend, Simulator)
    values = layer(torch.zeros(2, NINE.features))
    assert values.dtype == torch.float32
    assert isinstance(find_backend("simulator", trajectories=3), Simulator)
    drawn = QuantumLayer(NINE)
    torch.autograd.backward(drawn(torch.zeros(2, NINE.features)).sum())
    assert drawn.weights.grad is not None
    assert drawn.weights.grad.abs().max() > 0


def test_wrong_options_are_refused_in_words() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'density'"):
        Simulator(engine="densty")
    with pytest.raises(InputError, match="at least 1 trajectory"):
        Simulator(trajectories=0)
    with pytest.raises(InputError, match="other than 'density'"):
        Simulator(trajectories=5, engine="density")
    with pytest.raises(InputError, match="at least 1 shot"):
        Simulator(shots=0)
    with pytest.raises(InputError, match="options of backend 'simulator'"):
        find_backend("simulator", trajectory=5)


def test_a_seed_is_no_more_than_a_seed() -> None:
    state = np.random.get_state()[1][:5].tolist()  # type: ignore[index]
    before = torch.random.get_rng_state()
    Simulator(shots=10).expectations(NOISY, *POINT)
    assert np.random.get_state()[1][:5].tolist() == state  # type: ignore[index]
    assert torch.equal(torch.random.get_rng_state(), before)
