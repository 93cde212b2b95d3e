"""A frozen circuit's features and the head on them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.models import FrozenHead, HybridClassifier, load_model, reinitialise, save_model, stages
from qunlearn.models.amplitude import amplitude_circuit, amplitude_model
from qunlearn.models.execution import with_backend
from qunlearn.quantum import Circuit, load_circuit
from qunlearn.quantum.circuit import Angle, Gate


def body(seed: int = 0, control: str | None = None, observables: list[str] | None = None) -> HybridClassifier:
    circuit = load_circuit("ring-cz", qubits=3, depth=2, observables=observables)
    generator = torch.Generator().manual_seed(seed)
    return HybridClassifier(circuit, 4, control=control, dtype=torch.float64, generator=generator)  # type: ignore[arg-type]


def samples(n: int = 7, width: int = 3) -> Tensor:
    return torch.rand(n, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.5


def shares(model: FrozenHead, x: Tensor) -> np.ndarray:
    """Outcome probabilities ``(n, 8)`` of all three wires."""
    return model.quantum.state(x).abs().square().flatten(1).detach().numpy()  # type: ignore[operator]


def test_expectations_are_signed_sums_of_outcomes() -> None:
    model, x = FrozenHead(body()), samples()
    bits = np.array(list(itertools.product((0, 1), repeat=3)))
    known = shares(model, x) @ (1 - 2 * bits)
    found = model.phi(x).numpy()
    assert np.allclose(found * 2, np.hstack([known, np.ones((7, 1))]))
    assert model.width == 4
    assert (np.linalg.norm(found, axis=1) <= 1).all()


def test_probabilities_are_z_strings_turned() -> None:
    model, x = FrozenHead(body(), "probabilities"), samples()
    found = model.phi(x).numpy()
    assert np.allclose(found, shares(model, x))
    turn = np.array([[1]])
    for _ in range(3):
        turn = np.kron(turn, [[1, 1], [1, -1]])
    assert np.allclose(turn @ turn.T / 8, np.eye(8))
    strings = shares(model, x) @ turn / math.sqrt(8)  # the expectation values of III, IIZ, ..., ZZZ, scaled
    assert np.allclose(strings @ strings.T, found @ found.T)


def test_only_wires_that_an_observable_touches_are_measured() -> None:
    model, x = FrozenHead(body(observables=["ZII", "IIX"]), "probabilities"), samples()
    assert model.width == 4
    assert np.allclose(model.phi(x).numpy(), shares(model, x).reshape(7, 2, 2, 2).sum(2).reshape(7, 4))


def test_softmax_gives_the_one_against_rest_probabilities() -> None:
    model, x = FrozenHead(body()), samples()
    scores = model.head(model.phi(x))
    each = torch.sigmoid(scores)
    assert torch.allclose(torch.softmax(model(x), 1), each / each.sum(1, keepdim=True))
    assert torch.equal(model(x).argmax(1), scores.argmax(1))


def test_the_head_alone_is_trained_in_float64() -> None:
    model = FrozenHead(HybridClassifier(load_circuit("ring-cz", qubits=3), 4, "cnn", inputs=(1, 8, 8)))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["head.weight"]
    assert model.head.weight.dtype == torch.float64
    x = torch.rand(5, 1, 8, 8)
    assert model(x).dtype == torch.float32
    assert model.checked_phi(x).dtype == torch.float64
    assert [stage.name for stage in stages(model)] == ["encoder", "circuit", "head"]


@pytest.mark.parametrize("features", ["expectations", "probabilities"])
def test_it_is_rebuilt_from_its_files(features: str, tmp_path: Path) -> None:
    model, x = FrozenHead(body(), features), samples()  # type: ignore[arg-type]
    loaded = load_model(save_model(model, tmp_path / "m"))
    assert isinstance(loaded, FrozenHead)
    assert torch.equal(loaded(x), model(x))
    assert loaded.config() == model.config()


def test_a_fresh_one_differs_in_every_part() -> None:
    model = FrozenHead(body())
    fresh = reinitialise(model, 5)
    for (name, a), b in zip(model.named_parameters(), fresh.parameters(), strict=True):
        assert not torch.equal(a, b), name
        assert a.requires_grad == b.requires_grad


def test_a_twin_has_expectations_but_no_outcomes() -> None:
    assert FrozenHead(body(control="twin")).checked_phi(samples()).norm(dim=1).max() <= 1
    with pytest.raises(InputError, match="use features='expectations'"):
        FrozenHead(body(control="twin"), "probabilities")


def test_what_differs_from_call_to_call_is_refused() -> None:
    shots = with_backend(body(), None, shots=100)
    assert isinstance(shots, HybridClassifier)
    with pytest.raises(InputError, match="would differ from call to call"):
        FrozenHead(shots)
    with pytest.raises(InputError, match="expected a HybridClassifier"):
        FrozenHead(nn.Linear(3, 4))  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="expectations"):
        FrozenHead(body(), "expectation")  # type: ignore[arg-type]


def test_longer_features_are_refused() -> None:
    model = FrozenHead(body())
    model.quantum.forward = lambda x: 2 * torch.ones(len(x), 3, dtype=torch.float64)  # type: ignore[method-assign]
    with pytest.raises(UnsupportedError, match=r"features of norm 1 at most, got 1\.8"):
        model.checked_phi(samples())
    assert float(model.phi(samples()).norm(dim=1).max()) <= 1 + 1e-12


def test_amplitudes_take_the_same_card_at_the_size_that_fits() -> None:
    circuit = load_circuit("ring-cz", qubits=3, depth=2, entanglement="linear", rotations="ry-rz")
    found = amplitude_circuit(circuit, 20)
    known = load_circuit(
        "ring-cz", qubits=5, depth=2, entanglement="linear", rotations="ry-rz", encoding="amplitude", features=20
    )
    assert found == known
    assert amplitude_circuit(circuit, 2).qubits == amplitude_circuit(circuit, 1).qubits == 1


def test_an_amplitude_model_reads_whole_images() -> None:
    circuit = load_circuit("ring-cz", qubits=3, depth=2)
    model = amplitude_model(HybridClassifier(circuit, 4, "pca", inputs=64, dtype=torch.float64), (1, 8, 8))
    assert model.circuit.qubits == 6
    x = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    assert model(x).shape == (5, 4)
    assert torch.allclose(model(3 * x), model(x))  # amplitudes are normalised


def test_a_circuit_without_a_card_has_no_amplitude_sibling() -> None:
    gates = (Gate("rx", (0,), Angle(weight=0)),)
    with pytest.raises(InputError, match="made from a card"):
        amplitude_circuit(Circuit(1, gates, ("Z",), 0, 1), 4)
