"""The Hessian by blocks against double backward through the reference engine, over cards, encoders, heads, controls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qunlearn.methods import curvature
from qunlearn.methods.circuit_hessian import splits
from qunlearn.models import HybridClassifier
from qunlearn.quantum import Circuit, QuantumLayer, load_circuit
from qunlearn.quantum.circuit import Angle, Factor, Gate
from qunlearn.training.net import Net
from tests.methods.cases import blobs, hybrid_model, plain_model

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ring-cz": ({"card": "ring-cz", "qubits": 4, "depth": 1}, {}),
    "again": (
        {"card": "ring-cz", "qubits": 4, "depth": 2, "reupload": True, "entanglement": "linear"},
        {"head": "linear"},
    ),
    "controlled": ({"card": "sim-13", "qubits": 4, "depth": 1}, {"head": "linear"}),
    "deep": ({"card": "strongly-entangling", "qubits": 4, "depth": 1}, {"head": "deep"}),
    "pca": ({"card": "real-amplitudes", "qubits": 3, "depth": 1}, {"encoder": "pca", "inputs": 4}),
    "frozen": ({"card": "ring-cz", "qubits": 4, "depth": 1}, {"control": "frozen"}),
}


def made(name: str, dtype: torch.dtype = torch.float64) -> HybridClassifier:
    circuit, settings = CASES[name]
    options = {key: value for key, value in circuit.items() if key != "card"}
    generator = torch.Generator().manual_seed(2)
    model = HybridClassifier(load_circuit(circuit["card"], **options), 3, dtype=dtype, generator=generator, **settings)
    return model.fit(blobs(9, 20)[0].to(dtype))


def both(model: nn.Module, x: Tensor, y: Tensor, patch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """By blocks, and the general way; counted alike."""
    nets = [Net(model), Net(model)]
    assert splits(nets[0])
    found = curvature.hessian(nets[0], x, y)
    patch.setattr(curvature, "splits", lambda net: False)
    general = curvature.hessian(nets[1], x, y)
    assert nets[0].counts == nets[1].counts
    return found, general


@pytest.mark.parametrize("name", CASES)
def test_blocks_are_the_hessian(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curvature, "ROWS", 5)
    model, (x, y) = made(name), blobs(1, 8)
    found, general = both(model, x, y, monkeypatch)
    assert found.shape == general.shape
    assert float((found - general).abs().max()) < 1e-10
    if name != "frozen":
        angles = _layer(model).circuit.weights
        for block in (found[:angles, :angles], found[:angles, angles:], found[angles:, angles:]):
            assert float(block.abs().max()) > 1e-3


def test_single_precision_is_as_near_as_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(1, 8)
    found, general = both(made("ring-cz", torch.float32), x.float(), y, monkeypatch)
    assert found.dtype == torch.float32
    assert float((found - general).abs().max()) < 1e-5


def test_frozen_parts_of_the_head_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, y) = made("ring-cz"), blobs(1, 8)
    model.head.requires_grad_(False)
    found, general = both(model, x, y, monkeypatch)
    assert found.shape == (12, 12)
    assert float((found - general).abs().max()) < 1e-10


def test_another_point_and_its_buffers_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The net's own tensors count, not the module's."""
    model, (x, y) = made("deep"), blobs(1, 8)
    net = Net(model).at({name: p.detach() + 0.1 for name, p in model.named_parameters()})
    net.buffers = {name: b + 1 if b.dtype.is_floating_point else b for name, b in net.buffers.items()}
    found = curvature.hessian(net, x, y)
    monkeypatch.setattr(curvature, "splits", lambda net: False)
    assert float((found - curvature.hessian(net, x, y)).abs().max()) < 1e-10
    assert float((found - curvature.hessian(Net(model), x, y)).abs().max()) > 1e-3


def test_everything_else_goes_the_general_way() -> None:
    circuit = load_circuit("ring-cz", qubits=4, depth=1)
    twin = HybridClassifier(circuit, 3, control="twin")
    images = HybridClassifier(circuit, 3, encoder="cnn")
    drawn = hybrid_model()
    _layer(drawn).run_on(shots=100)
    noisy = HybridClassifier(circuit.with_noise({"depolarizing": 0.01}), 3)
    ry, rx = Gate("ry", (0,), Angle(weight=0)), Gate("rx", (0,), Angle(weight=0))
    times = Gate("ry", (0,), Angle(factors=(Factor(0),), weight=0))
    shared, multiplied, alone = (
        HybridClassifier(Circuit(1, gates, ("Z",), features=1, weights=1), 2) for gates in ((ry, rx), (times,), (ry,))
    )
    for model in (plain_model(), twin, images, noisy, drawn, shared, multiplied):
        assert not splits(Net(model))
    assert splits(Net(hybrid_model()))
    assert splits(Net(alone))


def test_a_scaled_angle_turns_as_far_as_its_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = (
        Gate("ry", (0,), Angle(factors=(Factor(0),))),
        Gate("rx", (0,), Angle(weight=1, scale=-0.3, offset=0.4)),
        Gate("crx", (0, 1), Angle(weight=0, scale=2.0)),
        Gate("ry", (1,), Angle(weight=2, scale=0.0)),
    )
    circuit = Circuit(2, gates, ("ZI", "IZ"), features=1, weights=4)
    model = HybridClassifier(circuit, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, y = blobs(1, 6, features=1)
    found, general = both(model, x, y, monkeypatch)
    assert float((found - general).abs().max()) < 1e-10
    assert float(found[:2, :2].abs().min()) > 1e-6
    assert float(found[2:4].abs().max()) == 0.0, "of no gate, or of one that it does not turn"


def _layer(model: HybridClassifier) -> QuantumLayer:
    assert isinstance(model.quantum, QuantumLayer)
    return model.quantum
