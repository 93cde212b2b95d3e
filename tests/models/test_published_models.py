"""The four published models against the paper's own way of coding them: torch around a PennyLane TorchLayer."""

import math
from collections.abc import Callable
from typing import Any

import pennylane as qml
import pytest
import torch
from torch import Tensor, nn

from qunlearn.errors import InputError
from qunlearn.models import HybridClassifier, published_weights
from qunlearn.quantum.card import load_circuit


def paper_circuit(wires: int, layers: int) -> nn.Module:
    """The circuit as the paper states it: three rotations by each feature, then rotations and a CZ ring a layer."""
    device = qml.device("default.qubit", wires=wires)

    def node(inputs: Tensor, weights: Tensor) -> list[Any]:
        for w in range(wires):
            qml.RX(inputs[..., w], wires=w)
            qml.RY(inputs[..., w], wires=w)
            qml.RZ(inputs[..., w], wires=w)
        for layer in range(layers):
            for w in range(wires):
                qml.RX(weights[layer, 0, w], wires=w)
                qml.RY(weights[layer, 1, w], wires=w)
                qml.RZ(weights[layer, 2, w], wires=w)
            for w in range(wires - 1):
                qml.CZ(wires=[w, w + 1])
            qml.CZ(wires=[wires - 1, 0])
        return [qml.expval(qml.PauliZ(w)) for w in range(wires)]

    qnode = qml.QNode(node, device, interface="torch", diff_method="backprop")
    layer: nn.Module = qml.qnn.TorchLayer(qnode, {"weights": (layers, 3, wires)})
    return layer


class PaperShallow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = paper_circuit(4, 2)
        self.fc1, self.fc2 = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc2(torch.relu(self.fc1(self.q(x))))
        return logits


class PaperDeep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = paper_circuit(4, 6)
        self.fc1, self.bn1 = nn.Linear(4, 32), nn.BatchNorm1d(32)
        self.fc2, self.bn2 = nn.Linear(32, 32), nn.BatchNorm1d(32)
        self.fc3, self.drop, self.fc4 = nn.Linear(32, 16), nn.Dropout(0.2), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.elu(self.bn1(self.fc1(self.q(x))))
        x = nn.functional.elu(self.bn2(self.fc2(x)))
        logits: Tensor = self.fc4(self.drop(nn.functional.elu(self.fc3(x))))
        return logits


class PaperImages(nn.Module):
    def __init__(self, wires: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.to_angles = nn.Linear(1568, wires)
        self.q = paper_circuit(wires, 2)
        self.fc1, self.fc2 = nn.Linear(wires, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        angles = math.pi * torch.tanh(self.to_angles(x.flatten(1)))
        logits: Tensor = self.fc2(torch.relu(self.fc1(self.q(angles))))
        return logits


def ours(name: str) -> HybridClassifier:
    if name.startswith("iris"):
        deep = name == "iris-deep"
        circuit = load_circuit("ring-cz", qubits=4, depth=6 if deep else 2)
        return HybridClassifier(circuit, 3, head="deep" if deep else "shallow", dtype=torch.float64)
    circuit = load_circuit("ring-cz", qubits={"mnist": 8, "fashion": 10}[name], depth=2)
    return HybridClassifier(circuit, 10, encoder="cnn", dtype=torch.float64)


def copy_published(checkpoint: dict[str, Tensor], model: HybridClassifier) -> None:
    """Fills our model with a published checkpoint: the circuit reordered, all else tensor by tensor."""
    circuit = [value for name, value in checkpoint.items() if name.startswith("q.")]
    rest = [value for name, value in checkpoint.items() if not name.startswith("q.")]
    state = model.state_dict()
    target = [name for name in state if not name.startswith("quantum.")]
    assert len(circuit) == 1
    assert [tuple(state[name].shape) for name in target] == [tuple(value.shape) for value in rest]
    state |= dict(zip(target, rest, strict=True)) | {"quantum.weights": published_weights(circuit[0])}
    model.load_state_dict(state)


CASES: list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = [
    ("iris-shallow", PaperShallow, (4,)),
    ("iris-deep", PaperDeep, (4,)),
    ("mnist", lambda: PaperImages(8), (1, 28, 28)),
    ("fashion", lambda: PaperImages(10), (1, 28, 28)),
]


@pytest.mark.parametrize(("name", "paper", "sample"), CASES, ids=[case[0] for case in CASES])
def test_logits_equal_the_papers_model(name: str, paper: Callable[[], nn.Module], sample: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    reference = paper().double()
    x = torch.rand(6, *sample, dtype=torch.float64) * (2 * math.pi if len(sample) == 1 else 1)
    if name == "iris-deep":  # running statistics other than 0 and 1
        reference.train()
        reference(x)
    reference.eval()
    model = ours(name).eval()
    copy_published(reference.state_dict(), model)
    with torch.no_grad():
        expected = reference(x)
        assert expected.std() > 1e-3
        torch.testing.assert_close(model(x), expected, atol=1e-10, rtol=0)


def test_training_mode_moves_batch_norm_as_in_the_paper() -> None:
    torch.manual_seed(4)
    reference, model = PaperDeep().double(), ours("iris-deep")
    copy_published(reference.state_dict(), model)
    reference.drop.p = 0.0
    model.head.get_submodule("dropout").p = 0.0  # type: ignore[assignment]
    x = torch.rand(8, 4, dtype=torch.float64)
    torch.testing.assert_close(model(x), reference(x), atol=1e-10, rtol=0)
    buffers = [b for name, b in model.state_dict().items() if "running" in name]
    theirs = [b for name, b in reference.state_dict().items() if "running" in name]
    torch.testing.assert_close(buffers, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("name", "total", "quantum"),
    [("iris-shallow", 155, 24), ("iris-deep", 1995, 72), ("mnist", 18018, 48), ("fashion", 21232, 60)],
)
def test_parameter_counts_are_the_published_ones(name: str, total: int, quantum: int) -> None:
    model = ours(name)
    assert sum(p.numel() for p in model.parameters()) == total
    assert sum(p.numel() for p in model.quantum.parameters()) == quantum


def test_published_weights_follow_the_written_rule() -> None:
    layers, wires = 3, 5
    tensor = torch.arange(layers * 3 * wires, dtype=torch.float64).reshape(layers, 3, wires)
    flat = published_weights(tensor)
    for layer in range(layers):
        for rotation in range(3):
            for wire in range(wires):
                assert flat[(layer * wires + wire) * 3 + rotation] == tensor[layer, rotation, wire]
    assert flat.dtype == torch.float64
    with pytest.raises(InputError, match=r"\(layers, 3, wires\), got \(2, 4, 3\)"):
        published_weights(torch.zeros(2, 4, 3))
