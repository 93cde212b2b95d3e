"""The privacy of noisy circuits, against sampled measurements, optimal ones, and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qunlearn.errors import InputError
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.channels import channel
from qunlearn.quantum.circuit import Angle, Channel, Circuit, Factor, Gate
from qunlearn.quantum.engines import density, state
from qunlearn.quantum.gates import gate
from qunlearn.quantum.privacy import (
    hockey_stick,
    input_delta,
    input_epsilon,
    max_divergence,
    measured_wires,
    reduced_densities,
)
from qunlearn.quantum.states import reduced_state

Array = NDArray[np.complex128]
NOISE = {"amplitude-damping": 0.15, "depolarizing": 0.08, "after": "layer", "readout": [0.03, 0.06]}


def noisy_tail(qubits: int, depth: int = 2) -> tuple[Circuit, torch.Tensor]:
    """A circuit whose input is any state (amplitude-encoded), noisy after each layer, and its weights."""
    gates = [g for g in load_circuit("ring-cz", qubits=max(2, qubits), depth=depth).gates if _fits(g, qubits)]
    used = sorted({g.angle.weight for g in gates if g.angle and g.angle.weight is not None})
    gates = [replace(g, angle=replace(g.angle, weight=used.index(g.angle.weight))) if g.angle else g for g in gates]  # type: ignore[arg-type]
    words = tuple("I" * w + "Z" + "I" * (qubits - 1 - w) for w in range(qubits))
    circuit = Circuit(qubits, tuple(gates), words, 2**qubits, len(used), amplitude=True, depth=depth)
    weights = torch.rand(len(used), generator=torch.Generator().manual_seed(qubits), dtype=torch.float64) * 6.28
    return circuit.with_noise(NOISE), weights


def _fits(gate: Gate, qubits: int) -> bool:
    return max(gate.wires) < qubits and not (gate.angle is not None and gate.angle.factors)


def readings(circuit: Circuit, weights: torch.Tensor, inputs: Array) -> NDArray[np.float64]:
    """Probabilities of readings ``(2**qubits,)`` for a density matrix at the input, by the density engine.

    The engine takes real amplitudes; a linear map known on enough real pure states is known on real matrices.
    """
    values, vectors = np.linalg.eigh(inputs.real)
    features = torch.from_numpy(np.ascontiguousarray(vectors.T))
    return np.asarray(values @ density.probabilities(circuit, features, weights).numpy())


def real_neighbours(rng: np.random.Generator, size: int, distance: float) -> tuple[Array, Array]:
    """Two real density matrices at exactly this trace distance: a common part, and orthogonal rests."""
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    rank = int(rng.integers(1, size)) if size > 1 else 1
    shares = rng.dirichlet(np.ones(rank) * rng.choice([0.1, 1.0])), rng.dirichlet(np.ones(size - rank))
    plus = (basis[:, :rank] * shares[0]) @ basis[:, :rank].T
    minus = (basis[:, rank:] * shares[1]) @ basis[:, rank:].T
    common = rng.normal(size=(size, int(rng.integers(1, 3))))
    common = common @ common.T / np.trace(common @ common.T)
    return (
        ((1 - distance) * common + distance * plus).astype(complex),
        ((1 - distance) * common + distance * minus).astype(complex),
    )


def random_state(rng: np.random.Generator, size: int, rank: int) -> Array:
    root = rng.normal(size=(size, rank)) + 1j * rng.normal(size=(size, rank))
    rho = root @ root.conj().T
    return np.asarray(rho / np.trace(rho))


@pytest.mark.parametrize("qubits", [1, 2, 3, 4])
def test_no_sampled_measurement_exceeds_epsilon_and_the_optimal_one_reaches_it(qubits: int) -> None:
    """10,000 measurements of what is read (mixtures and subsets of readings), on sampled neighbours."""
    circuit, weights = noisy_tail(qubits)
    rng, distance = np.random.default_rng(qubits), 0.4
    epsilon = input_epsilon(circuit, weights, distance)
    assert 0 < epsilon < math.inf
    largest = 0.0
    for _ in range(100):
        rho, sigma = real_neighbours(rng, 2**qubits, distance)
        p, q = readings(circuit, weights, rho), readings(circuit, weights, sigma)
        effects = rng.random((100, 2**qubits)) ** rng.choice([1, 20])  # any effect of 0 <= M <= 1 after the reading
        effects[::2] = effects[::2] > 0.6
        effects = effects[effects.sum(1) > 0]
        largest = max(largest, float(np.log((effects @ p) / (effects @ q)).max()))
    assert largest <= epsilon + 1e-9


@pytest.mark.parametrize("qubits", [1, 2, 3, 4])
def test_the_worst_neighbours_are_told_apart_by_the_eigenprojector(qubits: int) -> None:
    """The channel with its reading as Kraus operators, built here; the worst neighbours from its effects' eigenvectors.

    The projector on the positive part of E(rho) - exp(0.99 epsilon) E(sigma) is the optimal measurement there.
    """
    circuit, weights = noisy_tail(qubits)
    distance = 0.3
    epsilon = input_epsilon(circuit, weights, distance)
    table = channel_matrix(circuit, weights)  # (readings, d, d): effects by linearity, from probabilities alone
    spreads = [np.linalg.eigh(effect) for effect in table]
    _, vectors = max(spreads, key=lambda found: found[0][-1] / found[0][0])
    best, least = np.outer(vectors[:, -1], vectors[:, -1].conj()), np.outer(vectors[:, 0], vectors[:, 0].conj())
    rho, sigma = (1 - distance) * least + distance * best, least
    p, q = (np.einsum("aij,ji->a", table, state).real for state in (rho, sigma))
    assert 0.5 * np.abs(np.linalg.eigvalsh(rho - sigma)).sum() == pytest.approx(distance, abs=1e-12)
    chosen = (p - math.exp(0.99 * epsilon) * q) > 0
    assert chosen.any(), "the bound is not reached within 1 %"
    assert 0.99 * epsilon <= math.log(p[chosen].sum() / q[chosen].sum()) <= epsilon + 1e-9
    assert max_divergence(np.diag(p), np.diag(q)) == pytest.approx(epsilon, abs=1e-9)
    assert hockey_stick(np.diag(p), np.diag(q), math.exp(epsilon)) == pytest.approx(0, abs=1e-12)
    assert hockey_stick(np.diag(p), np.diag(q), math.exp(0.99 * epsilon)) > 1e-9


def channel_matrix(circuit: Circuit, weights: torch.Tensor) -> Array:
    """The effect of each reading, ``(readings, d, d)``, from Kraus operators applied forwards to matrix units."""
    n, size = circuit.qubits, 2**circuit.qubits
    steps = [[embedded(k, step.wires, n) for k in kraus(step, weights)] for step in circuit.steps]
    mixings = [
        embedded(np.array([[1 - a, b], [a, 1 - b]], dtype=complex), (w,), n) for w, (a, b) in enumerate(circuit.readout)
    ]
    effects = np.zeros((size, size, size), dtype=complex)
    for row in range(size):
        for column in range(size):
            unit = np.zeros((size, size), dtype=complex)
            unit[row, column] = 1
            for operators in steps:
                unit = np.sum([k @ unit @ k.conj().T for k in operators], axis=0)
            seen = np.diag(unit)
            for mixing in mixings:
                seen = mixing @ seen
            effects[:, column, row] = seen  # Tr(M |row><column|) = M[column, row]
    return effects


def kraus(step: Gate | Channel, weights: torch.Tensor) -> Array:
    if isinstance(step, Channel):
        return channel(step.name).kraus(step.strengths, len(step.wires))
    if step.angle is None:
        return gate(step.name).matrix().numpy()[None]
    assert step.angle.weight is not None
    return gate(step.name).matrix(weights[step.angle.weight] * step.angle.scale).numpy()[None]


def embedded(operator: Array, wires: tuple[int, ...], qubits: int) -> Array:
    """An operator on some wires as a matrix on all, by looking at every pair of bit strings."""
    whole = np.zeros((2**qubits, 2**qubits), dtype=complex)
    bits = [tuple((i >> (qubits - 1 - w)) & 1 for w in range(qubits)) for i in range(2**qubits)]
    for i, a in enumerate(bits):
        for j, b in enumerate(bits):
            if all(a[w] == b[w] for w in range(qubits) if w not in wires):
                row, column = (int("".join(str(x[w]) for w in wires), 2) for x in (a, b))
                whole[i, j] = operator[row, column]
    return whole


@pytest.mark.parametrize(("p", "distance"), [(0.1, 0.2), (0.5, 1.0), (0.9, 0.05)])
def test_one_depolarized_wire_has_the_closed_form(p: float, distance: float) -> None:
    """Dimension 2, an effect of eigenvalues 0 and 1 under depolarizing: ln(1 + 2 (1 - p) d / p)."""
    circuit = Circuit(1, (Gate("ry", (0,), Angle(weight=0)),), ("Z",), 2, 1, amplitude=True)
    noisy = circuit.with_noise({"depolarizing": p, "after": "end"})
    expected = math.log(1 + 2 * (1 - p) * distance / p)
    assert input_epsilon(noisy, torch.tensor([0.7]), distance) == pytest.approx(expected, abs=1e-6)


def test_global_depolarizing_of_two_wires_has_the_form_of_zhou_and_ying() -> None:
    """ln(1 + (1 - p) d D / p): all readings of two wires, which are struck as one; and one wire of them."""
    gates = (Gate("h", (0,)), Gate("cx", (0, 1)))
    circuit = Circuit(2, gates, ("ZI", "IZ"), 4, 0, amplitude=True)
    noisy = circuit.with_noise({"depolarizing": 0.3, "after": "two-qubit"})
    nothing = torch.empty(0)
    assert input_epsilon(noisy, nothing, 0.25) == pytest.approx(math.log(1 + 0.7 * 0.25 * 4 / 0.3), abs=1e-9)
    # One wire: an effect with as many eigenvalues 1 as 0, whatever the dimension.
    assert input_epsilon(noisy, nothing, 0.25, wires=[1]) == pytest.approx(math.log(1 + 2 * 0.7 * 0.25 / 0.3), abs=1e-9)
    # Delta of the depolarized pair of wires, as a hockey-stick divergence: max(0, (1 - e^eps) p / D + (1 - p) d).
    expected = max(0.0, (1 - math.e**0.4) * 0.3 / 4 + 0.7 * 0.25)
    assert expected > 0
    assert input_delta(noisy, nothing, 0.25, 0.4) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dimension", [2, 4, 8])
def test_any_measurement_of_depolarized_states_stays_below_zhou_and_ying(dimension: int) -> None:
    """10,000 sampled effects on 1 to 3 wires, and the eigenprojector, which reaches the bound within 1 %."""
    rng, p = np.random.default_rng(dimension), 0.2
    a, b = (random_state(rng, dimension, 1) for _ in range(2))
    distance = math.sqrt(1 - float(np.trace(a @ b).real))
    mixed = np.eye(dimension) / dimension
    rho, sigma = ((1 - p) * s + p * mixed for s in (a, b))
    bound = math.log(1 + (1 - p) * distance * dimension / p)
    exact = max_divergence(rho, sigma)
    for _ in range(10_000):
        effect = random_state(rng, dimension, int(rng.integers(1, dimension + 1)))
        assert math.log(np.trace(effect @ rho).real / np.trace(effect @ sigma).real) <= exact + 1e-9 <= bound + 2e-9
    values, vectors = np.linalg.eigh(rho - math.exp(0.99 * exact) * sigma)
    best = vectors[:, values > 0]
    ratio = np.trace(best.conj().T @ rho @ best).real / np.trace(best.conj().T @ sigma @ best).real
    assert math.log(ratio) == pytest.approx(exact, rel=0.01)
    # Orthogonal inputs reach the closed form itself.
    e = [np.diag(np.eye(dimension)[k]) for k in (0, 1)]
    far = [(1 - p) * s + p * mixed for s in e]
    assert max_divergence(*far) == pytest.approx(math.log(1 + (1 - p) * dimension / p), abs=1e-9)


def test_a_hockey_stick_at_one_is_the_trace_distance_and_no_effect_exceeds_it() -> None:
    rng = np.random.default_rng(0)
    rho, sigma = random_state(rng, 4, 2), random_state(rng, 4, 4)
    assert hockey_stick(rho, sigma, 1.0) == pytest.approx(0.5 * np.abs(np.linalg.eigvalsh(rho - sigma)).sum())
    for _ in range(2000):
        vectors = np.linalg.qr(rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4)))[0]
        effect = (vectors * rng.random(4)) @ vectors.conj().T
        assert np.trace(effect @ (rho - 1.7 * sigma)).real <= hockey_stick(rho, sigma, 1.7) + 1e-12


def test_the_delta_falls_from_the_trace_distance_to_zero_at_epsilon() -> None:
    circuit, weights = noisy_tail(2)
    epsilon = input_epsilon(circuit, weights, 0.5)
    deltas = [input_delta(circuit, weights, 0.5, share * epsilon) for share in (0.0, 0.5, 0.99, 1.0)]
    assert deltas[0] <= 0.5
    assert deltas == sorted(deltas, reverse=True)
    assert deltas[2] > 1e-9
    assert deltas[3] == pytest.approx(0, abs=1e-12)


def test_only_what_follows_the_last_upload_counts() -> None:
    """Noise before the last features is part of how the inputs are prepared; after it, of the channel."""
    upload = Gate("rx", (0,), Angle(factors=(Factor(0),)))
    turn = Gate("ry", (0,), Angle(weight=0))
    weights = torch.tensor([0.4])
    circuit = Circuit(1, (upload, turn, upload, turn), ("Z",), 1, 1)
    early = circuit.with_noise({"strikes": [{"channel": "depolarizing", "strengths": 0.2, "after": "start"}]})
    late = circuit.with_noise({"depolarizing": 0.2, "after": "end"})
    assert input_epsilon(early, weights, 1.0) == math.inf
    assert input_epsilon(late, weights, 1.0) == pytest.approx(math.log(1 + 2 * 0.8 / 0.2), abs=1e-6)
    uploads = circuit.with_noise({"depolarizing": 0.2, "after": "encoding"})
    assert input_epsilon(uploads, weights, 1.0) == pytest.approx(input_epsilon(late, weights, 1.0)), (
        "one is in the tail"
    )


def test_reduced_densities_are_those_of_pure_states_without_noise() -> None:
    circuit = load_circuit("ring-cz", qubits=3, depth=2, reupload=True)
    generator = torch.Generator().manual_seed(2)
    features, weights = (torch.rand(n, generator=generator, dtype=torch.float64) for n in ((5, 3), (circuit.weights,)))
    found = reduced_densities(circuit, features, weights, [(0, 1), (2, 0)])
    pure = state(circuit, features, weights)
    for place, wires in enumerate([(0, 1), (2, 0)]):
        torch.testing.assert_close(found[:, place], reduced_state(pure, wires), rtol=0, atol=1e-12)


def test_reduced_densities_of_a_lost_wire_are_mixed_and_readout_leaves_them_alone() -> None:
    circuit = load_circuit("ring-cz", qubits=2, depth=1)
    noise = {"strikes": [{"channel": "depolarizing", "strengths": 1.0, "after": "end", "wires": [1]}], "readout": 0.1}
    features, weights = torch.rand(3, 2, dtype=torch.float64), torch.rand(circuit.weights, dtype=torch.float64)
    found = reduced_densities(circuit.with_noise(noise), features, weights, [(0,), (1,)])
    half = torch.eye(2, dtype=torch.complex128) / 2
    torch.testing.assert_close(found[:, 1], half.expand(3, 2, 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(found[:, 0], reduced_state(state(circuit, features, weights), (0,)), rtol=0, atol=1e-12)


def test_wrong_questions_are_refused() -> None:
    circuit, weights = noisy_tail(2)
    for distance in (0.0, 1.5):
        with pytest.raises(InputError, match="trace distance of neighbours above 0 and at most 1"):
            input_epsilon(circuit, weights, distance)
    with pytest.raises(InputError, match="different wires from 0 to 1"):
        input_epsilon(circuit, weights, 0.5, wires=[2])
    with pytest.raises(InputError, match="an epsilon of at least 0"):
        input_delta(circuit, weights, 0.5, -1.0)
    with pytest.raises(InputError, match="at most 3 wires"):
        input_delta(*noisy_tail(4), 0.5, 0.1)
    with pytest.raises(InputError, match="observables of I and Z"):
        measured_wires(replace(circuit, observables=("XI",)))
    with pytest.raises(InputError, match="two square matrices of one size"):
        hockey_stick(np.eye(2), np.eye(4), 1.0)
    big = Circuit(11, (), ("Z" + "I" * 10,), 0, 0)
    with pytest.raises(InputError, match="at most 10 qubits"):
        input_epsilon(big, torch.empty(0), 0.5)
