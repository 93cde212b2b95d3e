import math
from collections import OrderedDict

import pennylane as qml
import pytest
import torch
from torch import Tensor, nn

from qunlearn.errors import InputError
from qunlearn.models import HybridClassifier, Stage, angle_periods, stages
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.layer import QuantumLayer

CIRCUIT = load_circuit("ring-cz", qubits=4, depth=2)


def check_partition(model: nn.Module, parts: tuple[Stage, ...]) -> None:
    """Every parameter in one stage, once; every path real; names unique."""
    together = [name for stage in parts for name in stage.parameters]
    assert sorted(together) == sorted(name for name, _ in model.named_parameters())
    assert len({stage.name for stage in parts}) == len(parts)
    for stage in parts:
        for path in stage.modules:
            model.get_submodule(path)


def test_image_model() -> None:
    model = HybridClassifier(CIRCUIT, 10, encoder="cnn")
    parts = stages(model)
    check_partition(model, parts)
    assert [(s.name, s.kind) for s in parts] == [
        ("cnn", "conv"), ("to_angles", "linear"), ("circuit", "circuit"), ("fc1", "linear"), ("fc2", "linear"),
    ]  # fmt: skip
    assert parts[0].parameters == tuple(f"encoder.cnn.{i}.{kind}" for i in (0, 3) for kind in ("weight", "bias"))
    assert parts[1].modules == ("encoder.to_angles", "encoder.squash")
    assert parts[2].parameters == ("quantum.weights",)


@pytest.mark.parametrize("control", [None, "twin", "frozen"])
def test_deep_iris_model_joins_norms_to_the_linear_before(control: None) -> None:
    model = HybridClassifier(CIRCUIT, 3, head="deep", control=control)
    parts = stages(model)
    check_partition(model, parts)
    assert [s.name for s in parts] == ["circuit", "fc1", "fc2", "fc3", "fc4"]
    assert parts[0].kind == "circuit"
    assert parts[1].modules == ("head.fc1", "head.norm1", "head.act1")
    assert parts[3].module == "head.dropout"


@pytest.mark.parametrize(("encoder", "head"), [("none", "shallow"), ("pca", "deep"), ("cnn", "linear")])
def test_running_the_stages_in_turn_is_the_forward_pass(encoder: str, head: str) -> None:
    model = HybridClassifier(CIRCUIT, 3, encoder, head, inputs=4 if encoder == "none" else (1, 8, 8))  # type: ignore[arg-type]
    x = torch.rand(9, *((4,) if encoder == "none" else (1, 8, 8)))
    model.fit(x).eval()
    value = x
    for stage in stages(model):
        for path in stage.modules:
            value = model.get_submodule(path)(value)
        caught: list[Tensor] = []
        hook = model.get_submodule(stage.module).register_forward_hook(
            lambda _m, _x, out, caught=caught: caught.append(out)
        )
        logits = model(x)
        hook.remove()
        assert torch.equal(caught[0], value)
    assert torch.equal(value, logits)


def test_any_sequential() -> None:
    model = nn.Sequential(
        nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 4), nn.LayerNorm(4),
        nn.Tanh(), nn.Linear(4, 2),
    )  # fmt: skip
    parts = stages(model)
    check_partition(model, parts)
    assert [(s.name, s.modules, s.kind) for s in parts] == [
        ("0", ("0", "1"), "conv"), ("4", ("4", "5"), "linear"), ("7", ("7",), "linear"),
    ]  # fmt: skip


class Odd(nn.Module):
    """Parameters of its own, a shared layer, a tied weight, a norm in front."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.norm = nn.LayerNorm(3)
        self.first = nn.Linear(3, 3)
        self.again = self.first
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.first.weight
        self.attention = nn.MultiheadAttention(3, 1)


def test_odd_module() -> None:
    model = Odd()
    parts = stages(model)
    check_partition(model, parts)
    assert [s.name for s in parts] == ["Odd", "first", "tied", "attention", "attention.out_proj"]
    assert parts[0].modules == ("", "norm")
    assert parts[2].parameters == ("tied.bias",)
    assert stages(nn.Linear(2, 2)) == (Stage("Linear", ("",), ("weight", "bias"), "linear"),)
    assert stages(nn.ReLU()) == ()


class Declared(nn.Module):
    """Stages in another order than registration."""

    def __init__(self, names: list[tuple[str, str]]) -> None:
        super().__init__()
        self.head = nn.Sequential(OrderedDict(fc=nn.Linear(3, 2), act=nn.Tanh()))
        self.body = nn.Linear(4, 3)
        self.names = names

    def stage_names(self) -> list[tuple[str, str]]:
        return self.names


def test_declared_stages_rule() -> None:
    model = Declared([("body", "body"), ("head", "head.fc")])
    parts = stages(model)
    check_partition(model, parts)
    assert [(s.name, s.modules) for s in parts] == [("body", ("body",)), ("head", ("head.fc", "head.act"))]
    nested = stages(Declared([("body", "body"), ("rest", "head"), ("act", "head.act")]))
    assert [s.modules for s in nested] == [("body",), ("head.fc",), ("head.act",)]
    with pytest.raises(InputError, match="stage 'x' to start at a submodule, got the path 'nowhere'"):
        stages(Declared([("x", "nowhere")]))
    with pytest.raises(InputError, match="at least one stage"):
        stages(Declared([]))


def test_a_pennylane_layer_is_a_circuit() -> None:
    def node(inputs: Tensor, weights: Tensor) -> object:
        qml.RX(inputs[..., 0], wires=0)
        qml.RY(weights[0], wires=0)
        return qml.expval(qml.PauliZ(0))

    qnode = qml.QNode(node, qml.device("default.qubit", wires=1), interface="torch")
    model = nn.Sequential(qml.qnn.TorchLayer(qnode, {"weights": (1,)}), nn.Linear(1, 2))
    assert [(s.name, s.kind) for s in stages(model)] == [("0", "circuit"), ("1", "linear")]


def test_angle_periods_are_the_gate_tables() -> None:
    gates = (Gate("ry", (0,), Angle(factors=(Factor(0),))), Gate("rx", (0,), Angle(weight=0)),
             Gate("crx", (0, 1), Angle(weight=1)))  # fmt: skip
    circuit = Circuit(2, gates, ("ZI", "IZ"), features=1, weights=2)
    model = nn.Sequential(nn.Linear(3, 1), QuantumLayer(circuit, dtype=torch.float64), nn.Linear(2, 2))
    periods = angle_periods(model)
    assert list(periods) == ["1.weights"]
    torch.testing.assert_close(periods["1.weights"].double(), torch.tensor([2, 4], dtype=torch.float64) * math.pi)
    assert list(angle_periods(HybridClassifier(CIRCUIT, 3))) == ["quantum.weights"]
    assert list(angle_periods(QuantumLayer(CIRCUIT))) == ["weights"]
    assert angle_periods(HybridClassifier(CIRCUIT, 3, control="twin")) == {}
