"""Two facts that unlearning in circuits rests on: what no later angle can erase, and what no measurement can exceed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from qunlearn.metrics import helstrom_crossfit, helstrom_plugin, trace_distance
from qunlearn.models import HybridClassifier, PiTanh
from qunlearn.quantum import QuantumLayer
from qunlearn.quantum.card import available_cards, load_circuit
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.engines import torch_engine
from qunlearn.quantum.states import fidelity, reduced_state

# Every card, at four wires and, where it takes a depth, depth 2.
CARDS = sorted(available_cards())
EXACT = 1e-9


def _load(name: str, **knobs: object) -> Circuit:
    card = available_cards()[name]
    asked = {"depth": 2} if "depth" in card.knobs else {}
    return load_circuit(name, qubits=4, **asked, **knobs)  # type: ignore[arg-type]


def _late(circuit: Circuit) -> Tensor:
    """Which weights act only after the last gate that reads a feature ``(weights,)``."""
    reads = [number for number, gate in enumerate(circuit.gates) if gate.angle is not None and gate.angle.factors]
    last = reads[-1] if reads else -1
    found = torch.ones(circuit.weights, dtype=torch.bool)
    for number, gate in enumerate(circuit.gates):
        if gate.angle is not None and gate.angle.weight is not None and number <= last:
            found[gate.angle.weight] = False
    return found


def _draw(circuit: Circuit, seed: int, samples: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of two sets one below the other, weights, and other weights."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, circuit.features, generator=generator, dtype=torch.float64)
    x[samples // 2 :] += 0.5
    weights = torch.rand(2, circuit.weights, generator=generator, dtype=torch.float64) * 2 * math.pi
    return x, weights[0], weights[1]


def _fidelities(states: Tensor) -> Tensor:
    pairs = torch.combinations(torch.arange(len(states)))
    return fidelity(states[pairs[:, 0]], states[pairs[:, 1]])


def _mean(states: Tensor) -> Tensor:
    return reduced_state(states, range(states.dim() - 1)).mean(0)


def _figures(states: Tensor) -> np.ndarray:
    """Fidelities of all pairs, then the distances between both sets: true, plug-in, cross-fitted."""
    half = len(states) // 2
    sets = states[:half], states[half:]
    distances = [
        trace_distance(_mean(sets[0]), _mean(sets[1])), helstrom_plugin(*sets), helstrom_crossfit(*sets, seed=1)
    ]  # fmt: skip
    return np.concatenate([_fidelities(states).numpy(), distances])


@pytest.mark.parametrize("card", CARDS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_angles_after_the_last_encoding_change_no_distance_of_states(card: str, seed: int) -> None:
    circuit = _load(card)
    late = _late(circuit)
    x, weights, others = _draw(circuit, seed)
    before = torch_engine.state(circuit, x, weights)
    after = torch_engine.state(circuit, x, torch.where(late, others, weights))
    np.testing.assert_allclose(_figures(after), _figures(before), atol=EXACT)
    if bool(late.any()):
        assert float((before - after).abs().max()) > 1e-3  # the states themselves have moved


def test_in_encode_once_circuits_those_are_all_angles() -> None:
    circuit = load_circuit("ring-cz", qubits=4, depth=3)
    assert bool(_late(circuit).all())
    again = load_circuit("ring-cz", qubits=4, depth=3, reupload=True)
    assert int(_late(again).sum()) == again.weights // 3


@pytest.mark.parametrize("card", ["ring-cz", "sim-06", "sim-14"])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_angles_between_two_encodings_do_change_them(card: str, seed: int) -> None:
    circuit = _load(card, reupload=True)
    late = _late(circuit)
    assert not bool(late.all())
    x, weights, others = _draw(circuit, seed)
    before = _figures(torch_engine.state(circuit, x, weights))
    after = _figures(torch_engine.state(circuit, x, torch.where(late, weights, others)))
    assert np.abs(after - before)[:-3].max() > 0.05  # of a fidelity
    assert abs(after - before)[-3] > 1e-4  # of the distance between both sets


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_trained_encoder_changes_them_and_a_head_does_not(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = QuantumLayer(load_circuit("ring-cz", qubits=3, depth=2), dtype=torch.float64)
        encoder, head = nn.Linear(5, 3, dtype=torch.float64), nn.Linear(3, 4, dtype=torch.float64)
        model = nn.Sequential(encoder, PiTanh(), layer, head)
        x = torch.randn(12, 5, dtype=torch.float64)
        with torch.no_grad():
            before, answers = _figures(layer.state(model[:2](x))), model(x)
            head.weight.normal_()
            np.testing.assert_array_equal(_figures(layer.state(model[:2](x))), before)
            assert float((model(x) - answers).abs().max()) > 1e-2
            encoder.weight.add_(0.5 * torch.randn_like(encoder.weight))
            assert np.abs(_figures(layer.state(model[:2](x))) - before)[:-3].max() > 1e-3


def test_head_edits_of_a_hybrid_classifier_leave_its_states() -> None:
    circuit = load_circuit("ring-cz", qubits=3, depth=2, reupload=True)
    model = HybridClassifier(circuit, classes=3, encoder="none", head="shallow").double()
    x = torch.randn(10, circuit.features, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer = model.quantum
    assert isinstance(layer, QuantumLayer)
    with torch.no_grad():
        before = layer.state(model.encoder(x))
        for parameter in model.head.parameters():
            parameter.zero_()
        assert torch.equal(layer.state(model.encoder(x)), before)


@pytest.mark.parametrize("wires", [(0,), (1, 2), (0, 1, 2)])
def test_no_measurement_of_some_wires_tells_more_than_the_bound(wires: tuple[int, ...]) -> None:
    """A thousand measurements of several outcomes, each with its best guess, against the advantage of these wires."""
    circuit = load_circuit("ring-cz", qubits=3, depth=2, reupload=True)
    x, weights, _ = _draw(circuit, 3)
    states = torch_engine.state(circuit, x, weights)
    rho, sigma = (reduced_state(part, wires).mean(0).numpy() for part in (states[:6], states[6:]))
    values, vectors = np.linalg.eigh(rho - sigma)
    bound = float(np.abs(values).sum() / 2)
    assert trace_distance(rho, sigma) == pytest.approx(bound, abs=1e-12)
    assert helstrom_plugin(states[:6], states[6:], wires=wires) == pytest.approx(bound, abs=1e-9)
    random, best = np.random.default_rng(0), 0.0
    for number in range(1000):
        effects = _povm(random, len(rho), 2 + number % 4)
        told = [abs(np.trace(effect @ (rho - sigma)).real) for effect in effects]
        best = max(best, sum(told) / 2)  # each outcome is put down to the likelier state
    assert 0.2 * bound < best <= bound + 1e-12
    optimal = (vectors * (values > 0)) @ vectors.conj().T
    assert np.trace(optimal @ (rho - sigma)).real == pytest.approx(bound, abs=1e-12)


def _povm(random: np.random.Generator, size: int, outcomes: int) -> list[np.ndarray]:
    """Positive matrices that add up to one."""
    roots = random.normal(size=(outcomes, size, size)) + 1j * random.normal(size=(outcomes, size, size))
    positive = roots @ roots.conj().swapaxes(1, 2)
    values, vectors = np.linalg.eigh(positive.sum(0))
    root = (vectors / np.sqrt(values)) @ vectors.conj().T
    found = [root @ one @ root for one in positive]
    np.testing.assert_allclose(sum(found), np.eye(size), atol=1e-9)
    return found
