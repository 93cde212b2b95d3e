"""Quantum trajectories: exactly right on average over their branches, and right within their own errors when drawn."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from qunlearn.errors import InputError
from qunlearn.quantum.backends import find_backend
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.channels import CHANNELS
from qunlearn.quantum.circuit import Angle, Channel, Circuit, Gate
from qunlearn.quantum.engines import density, trajectories
from qunlearn.quantum.engines.trajectories.branches import Lottery, branches_of, pauli_matrix
from qunlearn.quantum.engines.trajectories.method import find_method
from qunlearn.quantum.gates import GATES
from qunlearn.quantum.noise import NoiseModel
from tests.quantum.cases import STRENGTHS, draw, exact_noisy, gradients, random_circuit, with_channels

RING = load_circuit("ring-cz", qubits=4, depth=2, observables=["ZIII", "IXYI", "ZZZZ", "IIIZ"])
MODELS = {
    "depolarizing": NoiseModel.of(depolarizing=0.05),
    "damping": NoiseModel.of(amplitude_damping=0.1),
    "relaxation": NoiseModel.of(thermal_relaxation=[50, 70, 3], readout=[0.1, 0.02]),
    "warm": NoiseModel.of(thermal_relaxation=[50, 70, 3, 0.2], depolarizing=0.02, after="gate"),
    "flips": NoiseModel.of(phase_damping=0.1, bit_flip=0.03, bit_phase_flip=0.02, phase_flip=0.01, readout=0.05),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def in_all_branches(circuit: Circuit, x: Tensor, w: Tensor, engine: str = "auto") -> tuple[Tensor, Tensor]:
    """Values ``(samples, observables)`` and probabilities ``(samples, 2**qubits)``: no draw, but every branch."""
    values, reads = torch.zeros(len(x), len(circuit.observables)), torch.zeros(len(x), 2**circuit.qubits)
    for everything in (False, True):
        method = find_method(circuit, engine, everything)
        tables = method.framed.lottery.shares
        picks = itertools.product(*(range(len(share)) for share in tables))
        branches = np.array(list(picks), dtype=np.int64).reshape(-1, len(tables))
        odds = torch.ones(len(branches), dtype=torch.float64)
        for k, share in enumerate(tables):
            odds = odds * torch.from_numpy(share[branches[:, k]])
        wide = torch.cat([x.repeat(len(branches), 1), _each(method.framed.further(branches), x)], 1)
        if everything:
            flips = torch.from_numpy(method.framed.flips(branches)).repeat_interleave(len(x))
            found = method.states(wide, w).abs().square().gather(1, torch.arange(2**circuit.qubits) ^ flips[:, None])
            reads = torch.tensordot(odds, found.reshape(len(branches), len(x), -1), 1)
        else:
            found = method.values(wide, w) * _each(method.framed.signs(branches), x)
            read = found @ torch.from_numpy(method.readout) + torch.from_numpy(method.constant)
            values = torch.tensordot(odds, read.reshape(len(branches), len(x), -1), 1)
    return values, reads


def _each(rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]], x: Tensor) -> Tensor:
    return torch.from_numpy(rows).repeat_interleave(len(x), 0)


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("wires", [1, 2])
def test_the_branches_of_a_channel_make_the_channel(name: str, wires: int) -> None:
    if wires > CHANNELS[name].widest:
        return
    rng = np.random.default_rng(0)
    rho = rng.normal(size=(2**wires, 2**wires)) + 1j * rng.normal(size=(2**wires, 2**wires))
    for strengths in STRENGTHS[name]:
        kraus = CHANNELS[name].kraus(strengths, wires)
        found, branches = np.zeros_like(rho), branches_of(Channel(name, tuple(range(wires)), strengths, -1))
        assert branches.shares.sum() == pytest.approx(1, abs=1e-14)
        assert name in ("amplitude-damping", "thermal-relaxation") or not branches.tilts.any()
        for share, word, tilt in zip(branches.shares, branches.words, branches.tilts, strict=True):
            lean = np.sqrt(2) * np.diag([np.cos(np.pi / 4 + tilt), np.sin(np.pi / 4 + tilt)]) if wires == 1 else 1
            matrix = pauli_matrix(word) @ lean if wires == 1 else pauli_matrix(word)
            found += share * matrix @ rho @ matrix.conj().T
        np.testing.assert_allclose(found, np.einsum("kij,jl,kml->im", kraus, rho, kraus.conj()), atol=1e-11)


def test_the_weight_of_damping_spreads_as_little_as_is_said() -> None:
    gamma, rng = 0.05, np.random.default_rng(0)
    branches = branches_of(Channel("amplitude-damping", (0,), (gamma,), -1))
    z = rng.uniform(-1, 1, 20_000)  # of random pure states
    tilted = np.pi / 4 + branches.tilts[:, None]
    weights = np.square(np.cos(tilted)) * (1 + z) + np.square(np.sin(tilted)) * (1 - z)
    np.testing.assert_allclose(branches.shares @ weights, 1)
    assert (branches.shares @ np.square(weights - 1)).mean() == pytest.approx(gamma / 6, rel=0.05)
    np.testing.assert_allclose(np.square(np.cos(tilted)) + np.square(np.sin(tilted)), 1)  # the maximally mixed state


@pytest.mark.parametrize("name", GATES)
def test_an_error_may_strike_before_and_after_every_gate(name: str) -> None:
    wires, middle = GATES[name].wires, Gate(name, (2, 0)[: GATES[name].wires], None)
    middle = replace(middle, angle=Angle(0.7, (), 0, 0.3)) if GATES[name].has_angle else middle
    turns = [Gate(gate, (wire,), Angle(offset=0.4 + wire)) for gate in ("ry", "rx") for wire in range(3)]
    gates = (*turns, Gate("cz", (0, 1)), middle, *turns, Gate("cx", (1, 2)), *turns)
    for kind, strengths in (("depolarizing", (0.4,)), ("thermal-relaxation", (5.0, 6.0, 2.0, 0.3))):
        struck = tuple(Channel(kind, (wire,), strengths, after) for after, wire in ((5, 2), (6, 0), (7, 2)))
        circuit = Circuit(3, gates, ("ZII", "IXY", "ZZZ"), 0, 1, channels=struck)
        x, w = torch.zeros(1, 0, dtype=torch.float64), torch.tensor([0.9], dtype=torch.float64)
        values, _ = in_all_branches(circuit, x, w)
        torch.testing.assert_close(values, exact_noisy(circuit, x, w), rtol=0, atol=1e-10, msg=f"{name} on {wires}")


@pytest.mark.parametrize("seed", range(25))
def test_the_mean_over_all_branches_is_the_noisy_value_and_its_gradient(seed: int) -> None:
    circuit = with_channels(random_circuit(seed), seed, most=4)
    x, w = (value.requires_grad_() for value in draw(circuit, batch=2))
    values, reads = in_all_branches(circuit, x, w)
    truth = exact_noisy(circuit, x, w)
    torch.testing.assert_close(values, truth, rtol=0, atol=1e-10)
    for ours, theirs in zip(gradients(values, x, w), gradients(truth, x, w), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    bare = density.probabilities(replace(circuit, readout=()), x, w)
    torch.testing.assert_close(reads, bare, rtol=0, atol=1e-10)


def test_encoded_amplitudes_meet_noise_too() -> None:
    circuit = load_circuit("sim-13", qubits=3, encoding="amplitude", features=5)
    channels = (Channel("bit-flip", (1,), (0.2,), -1), Channel("depolarizing", (0, 2), (0.3,), 4))
    for further in ((), (Channel("amplitude-damping", (2,), (0.3,), 5),)):
        noisy = replace(circuit, channels=channels + further)
        x, w = (value.requires_grad_() for value in draw(noisy))
        values, _ = in_all_branches(noisy, x, w)
        truth = exact_noisy(noisy, x, w)
        torch.testing.assert_close(values, truth, rtol=0, atol=1e-10)
        for ours, theirs in zip(gradients(values, x, w), gradients(truth, x, w), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_branches_are_drawn_with_their_probabilities_given_that_any_jumps() -> None:
    shares = (np.array([0.7, 0.2, 0.1]), np.array([1.0]), np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    for chosen in (shares[:2], (shares[0], shares[3], shares[1]), shares):
        lottery, rows = Lottery(chosen), 200_000
        drawn = lottery.draw(rows, np.random.default_rng(1))
        for branches in itertools.product(*(range(len(share)) for share in chosen)):
            odds = np.prod([share[b] for share, b in zip(chosen, branches, strict=True)])
            odds = odds / (1 - lottery.quiet) if any(branches) else 0.0
            seen = (drawn == np.array(branches)).all(1).mean()
            assert abs(seen - odds) <= 4 * np.sqrt(odds * (1 - odds) / rows)


@every_model
@pytest.mark.parametrize("device", ["default.mixed", "aer"])
def test_estimates_are_right_within_their_errors(model: NoiseModel, device: str) -> None:
    noisy, (x, w) = model.apply(RING), draw(RING)
    truth = find_backend(device).expectations(noisy, x, w)
    found = trajectories.estimate(noisy, x, w, trajectories=2000, generator=np.random.default_rng(0))
    assert (found.errors > 0).all()
    assert ((found.values - truth).abs() / found.errors).max() < 4


@every_model
def test_gradients_are_unbiased(model: NoiseModel) -> None:
    noisy = model.apply(RING)
    x, w = (value.requires_grad_() for value in draw(RING, batch=2))
    generator, repetitions = np.random.default_rng(1), 40
    drawn: list[list[Tensor]] = [
        gradients(trajectories.expectations(noisy, x, w, trajectories=50, generator=generator), x, w)
        for _ in range(repetitions)
    ]
    truth = gradients(density.expectations(noisy, x, w), x, w)
    for ours, theirs in zip(zip(*drawn, strict=True), truth, strict=True):
        stack = torch.stack(ours)
        error = stack.std(0) / repetitions**0.5
        assert ((stack.mean(0) - theirs).abs() <= 4 * error + 1e-12).all()


@pytest.mark.parametrize("model", ["depolarizing", "relaxation"])
def test_ten_qubits_are_right_within_their_errors(model: str) -> None:
    circuit = load_circuit("ring-cz", qubits=10, depth=1)
    noisy, (x, w) = MODELS[model].apply(circuit), draw(circuit, batch=1)
    truth = density.expectations(noisy, x, w)
    found = trajectories.estimate(noisy, x, w, trajectories=1000, generator=np.random.default_rng(2))
    assert ((found.values - truth).abs() / found.errors).max() < 4
    assert found.errors.max() < 0.03


def test_errors_fall_with_the_root_of_the_number_of_trajectories() -> None:
    noisy, (x, w) = MODELS["warm"].apply(RING), draw(RING, batch=1)
    generator, spreads = np.random.default_rng(3), []
    for number in (16, 256):
        runs = [trajectories.estimate(noisy, x, w, trajectories=number, generator=generator) for _ in range(100)]
        spread = torch.stack([run.values for run in runs]).std(0)
        told = torch.stack([run.errors for run in runs]).square().mean(0).sqrt()
        torch.testing.assert_close(told, spread, rtol=0.3, atol=0)  # a spread of 100 is known to 7 %
        spreads.append(spread)
    torch.testing.assert_close(spreads[0] / spreads[1], torch.full_like(spreads[0], 4.0), rtol=0.4, atol=0)


@every_model
def test_probabilities_are_those_of_the_density_matrix(model: NoiseModel) -> None:
    noisy, (x, w) = model.apply(RING), draw(RING)
    truth = density.probabilities(noisy, x, w).numpy()
    runs = [
        trajectories.probabilities(noisy, x, w, trajectories=40, generator=np.random.default_rng([4, k]))
        for k in range(40)
    ]
    error = np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))
    assert (np.abs(np.mean(runs, axis=0) - truth) <= 4.2 * error + 1e-12).all()  # 48 numbers in each of 5 models


def test_probabilities_have_wire_0_first() -> None:
    flips = tuple(Channel("bit-flip", (wire,), (p,), 0) for wire, p in ((0, 0.1), (1, 0.3)))
    circuit = Circuit(3, (Gate("x", (0,)),), ("ZII",), 0, 0, channels=flips, readout=((0, 0), (0, 0), (0.2, 0.0)))
    nothing = torch.zeros(0, dtype=torch.float64)
    found = trajectories.probabilities(
        circuit, nothing, nothing, trajectories=20_000, generator=np.random.default_rng(5)
    )
    truth = np.kron(np.kron([0.1, 0.9], [0.7, 0.3]), [0.8, 0.2])
    np.testing.assert_allclose(found, truth, atol=4 * 0.5 / np.sqrt(20_000))


def test_without_channels_there_is_nothing_to_draw() -> None:
    x, w = draw(RING)
    noisy = replace(RING, readout=((0.1, 0.2), (0.0, 0.0), (0.05, 0.0), (0.3, 0.3)))
    found = trajectories.estimate(noisy, x, w, trajectories=3, generator=np.random.default_rng(6))
    torch.testing.assert_close(found.values, exact_noisy(noisy, x, w), rtol=0, atol=1e-12)
    assert not found.errors.any()


@every_model
def test_parts_give_what_the_whole_gives(model: NoiseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = model.apply(RING)
    x, w = (value.requires_grad_() for value in draw(RING))
    found = []
    for step in (10_000, 7):
        monkeypatch.setattr(trajectories, "_at_once", lambda *_, step=step: step)
        values = trajectories.expectations(noisy, x, w, trajectories=20, generator=np.random.default_rng(7))
        reads = trajectories.probabilities(noisy, x, w, trajectories=20, generator=np.random.default_rng(7))
        found.append([values, torch.from_numpy(reads), *gradients(values, x, w)])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("model", ["depolarizing", "relaxation"])
def test_transforms_of_torch_func_work(model: str) -> None:
    noisy, (x, w) = MODELS[model].apply(RING), draw(RING)

    def total(weights: Tensor, sample: Tensor) -> Tensor:
        generator = np.random.default_rng(8)
        return trajectories.expectations(noisy, sample, weights, trajectories=10, generator=generator).sum()

    mapped = torch.func.vmap(torch.func.grad(total), in_dims=(None, 0))(w, x)
    for row, sample in zip(mapped, x, strict=True):
        weights = w.clone().requires_grad_()
        (alone,) = torch.autograd.grad(total(weights, sample), weights)
        torch.testing.assert_close(row, alone, rtol=0, atol=1e-11)
    hessian = torch.func.hessian(total)(w, x[0])
    torch.testing.assert_close(hessian, hessian.mT, rtol=0, atol=1e-10)


def test_draws_follow_the_generator_and_shapes_the_input() -> None:
    noisy, (x, w) = MODELS["depolarizing"].apply(RING), draw(RING, dtype=torch.float32)
    generator = np.random.default_rng(9)
    first, second = (trajectories.expectations(noisy, x, w, trajectories=5, generator=generator) for _ in range(2))
    again = trajectories.expectations(noisy, x, w, trajectories=5, generator=np.random.default_rng(9))
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert first.dtype == torch.float32
    for shape in ((), (0,), (2, 1), (3,)):
        few = x[0].expand(*shape, -1)
        assert trajectories.expectations(noisy, few, w, trajectories=2, generator=generator).shape == (*shape, 4)
        assert trajectories.probabilities(noisy, few, w, trajectories=2, generator=generator).shape == (*shape, 16)
    assert trajectories.estimate(noisy, x, w, trajectories=1, generator=generator).errors.isnan().all()
    with pytest.raises(InputError, match="at least 1 trajectory, got 0"):
        trajectories.expectations(noisy, x, w, trajectories=0, generator=generator)


@every_model
def test_everything_stays_on_the_device_of_the_inputs(model: NoiseModel) -> None:
    x, w = (value.to("meta") for value in draw(RING))  # a tensor of another device beside these raises
    generator = np.random.default_rng(10)
    assert trajectories.expectations(model.apply(RING), x, w, trajectories=3, generator=generator).device.type == "meta"


def test_a_state_that_does_not_fit_is_refused() -> None:
    large = MODELS["damping"].apply(load_circuit("ring-cz", qubits=40, depth=1))
    x, w = torch.zeros(1, large.features), torch.zeros(large.weights)
    with pytest.raises(InputError, match="40 qubits"):
        trajectories.expectations(large, x, w, trajectories=1, generator=np.random.default_rng(11))
