"""The repeat of Chen and Zhang: circuit, inputs, corruption and objective against formulas; the script end to end."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pennylane as qml
import pytest
import torch
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp, Statevector

import qunlearn as qu
from qunlearn.data import sources
from qunlearn.study.plan import make_plan
from qunlearn.study.reading import read_study

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def poison() -> Iterator[ModuleType]:
    """`studies/poison.py` under the name by which its study file imports it; its data sets are gone afterwards."""
    sys.path.append(str(STUDIES))
    known = dict(sources._REGISTERED)
    try:
        yield importlib.import_module("poison")
    finally:
        sys.path.remove(str(STUDIES))
        sys.modules.pop("poison", None)
        sources._REGISTERED.clear()
        sources._REGISTERED.update(known)


def images(count: int = 24, rows: int = 28) -> NDArray[np.float32]:
    """Grey values with blank columns on both sides."""
    drawn = np.random.default_rng(0).uniform(0, 1, (count, rows, rows)).astype(np.float32)
    drawn[:, :, :5] = drawn[:, :, 22:] = 0
    return drawn


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,144 images in MNIST's place, of all digits, ones and nines told apart by a bright half."""
    rng = np.random.default_rng(1)
    y = rng.permutation(np.repeat([1, 9, 4], [1010, 1010, 124]))
    x = rng.uniform(0.0, 0.4, (len(y), 1, 28, 28)).astype(np.float32)
    x[y == 1, :, :, 15:] += 0.6
    x[y == 9, :, :, :13] += 0.6
    data = qu.Dataset(x, y, ids=60_000 + np.arange(len(y)), classes=[str(d) for d in range(10)], name="mnist")
    monkeypatch.setitem(sources._REGISTERED, "mnist", lambda: data)


def test_the_card_is_their_circuit_in_qiskit_and_pennylane() -> None:
    qubits, depth = 4, 2
    rng = np.random.default_rng(3)
    x, angles = rng.normal(size=16), rng.uniform(-3, 3, (depth, qubits, 4))  # [layer, wire, angle], as they number
    x /= np.linalg.norm(x)
    built = QuantumCircuit(qubits)
    built.initialize(Statevector(x).reverse_qargs())  # qiskit's first qubit is the least significant
    for layer in angles:
        for wire, (a, b, c, _) in enumerate(layer):
            built.rx(a, wire)
            built.ry(b, wire)
            built.rx(c, wire)
        for wire, row in enumerate(layer):
            built.rzz(row[3], wire, (wire + 1) % qubits)
    expected = Statevector(built).expectation_value(SparsePauliOp.from_sparse_list([("Z", [3], 1.0)], qubits)).real

    def node() -> Any:
        qml.StatePrep(x, wires=range(qubits))
        for layer in angles:
            for wire, (a, b, c, _) in enumerate(layer):
                qml.RX(a, wire)
                qml.RY(b, wire)
                qml.RX(c, wire)
            for wire, row in enumerate(layer):
                qml.IsingZZ(row[3], [wire, (wire + 1) % qubits])
        return qml.expval(qml.PauliZ(qubits - 1))

    theirs = qml.QNode(node, qml.device("default.qubit", wires=qubits))
    circuit = qu.load_circuit("rzz-ring", qubits=qubits, depth=depth, observables=["IIIZ"])
    layer = qu.QuantumLayer(circuit, dtype=torch.float64)
    flat = np.concatenate([np.concatenate([row[:, :3].reshape(-1), row[:, 3]]) for row in angles])
    layer.weights.data.copy_(torch.as_tensor(flat))
    found = layer(torch.as_tensor(x)).item()
    assert abs(found) > 0.01
    assert found == pytest.approx(expected, abs=1e-10)
    assert found == pytest.approx(float(theirs()), abs=1e-10)


def test_columns_are_normalised_along_axis_1_of_the_array(poison: ModuleType) -> None:
    array = images()
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    expected = np.divide(array, norms, out=np.zeros_like(array), where=norms > 0)
    found = poison.normalised(torch.as_tensor(array)[:, None], "columns")
    np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-5, atol=1e-7)
    # So no image is a unit vector: its squared norm is the number of columns that are not blank.
    np.testing.assert_allclose(found.flatten(1).square().sum(1).numpy(), 17, rtol=1e-5)
    unit = poison.normalised(torch.as_tensor(array)[:, None], "unit")
    flat = array.reshape(len(array), -1)
    np.testing.assert_allclose(
        unit.flatten(1).numpy(), flat / np.linalg.norm(flat, axis=1, keepdims=True), rtol=1e-5, atol=1e-7
    )


def test_the_network_computes_the_expectation_of_a_state_that_is_not_normalised(poison: ModuleType) -> None:
    model: Any = qu.reinitialise(poison.qnn(), 0).double()
    assert model.quantum.weights.std().item() == pytest.approx(0.01, rel=0.2)
    assert model.quantum.weights.numel() == 240 == poison.twin().quantum.weights.numel()
    x = poison.normalised(torch.as_tensor(images(3))[:, None].double(), "columns")
    states = model.quantum.state(x.flatten(1)) * x.flatten(1).norm(dim=1).reshape(-1, *[1] * 10)
    last = states.abs().square().sum(tuple(range(1, 10)))
    logits = model(x)
    probability = torch.sigmoid(5 * (last[:, 0] - last[:, 1]))
    torch.testing.assert_close(torch.softmax(logits, 1)[:, 1], probability, rtol=1e-9, atol=1e-12)


def test_multilayer_networks_are_as_they_ran_them(poison: ModuleType) -> None:
    for made, hidden in ((poison.mlp(), (64, 16)), (poison.small_mlp(), (16, 4))):
        model = qu.reinitialise(made, 0)
        linear = [part for part in model.modules() if isinstance(part, torch.nn.Linear)]
        assert [(part.in_features, part.out_features) for part in linear] == list(
            zip((1024, *hidden), (*hidden, 1), strict=True)
        )
        limit = np.sqrt(6 / (1024 + hidden[0]))
        assert 0.95 * limit < float(linear[0].weight.detach().abs().max()) <= limit
        assert all(not part.bias.detach().any() for part in linear)


@pytest.mark.usefixtures("mnist")
def test_half_of_the_corruption_strikes_each_class(poison: ModuleType) -> None:
    train, validation = poison.sets_of(qu.load_dataset("mnist-1-9-columns"))
    assert (len(train), len(validation)) == (500, 1000)
    assert torch.bincount(train.y).tolist() == [250, 250]
    assert not torch.isin(train.ids, validation.ids).any()
    for share in (0.1, 0.3, 0.9):
        flipped, wrong = poison.corrupted(train, "flips", share, 4)
        assert torch.equal(flipped.y[wrong], 1 - train.y[wrong])
        assert torch.bincount(train.y[wrong]).tolist() == [round(250 * share)] * 2
        assert torch.equal(flipped.x, train.x)
        noisy, moved = poison.corrupted(train, "noise", share, 4)
        changed = (noisy.x != train.x).flatten(1).any(1).nonzero().flatten()
        assert torch.equal(changed, moved)
        assert torch.bincount(train.y[moved]).tolist() == [round(250 * share)] * 2
        torch.testing.assert_close(noisy.x[moved].flatten(1).norm(dim=1), torch.ones(len(moved)))
        assert torch.equal(noisy.y, train.y)


def test_their_scrub_descends_the_released_objective() -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    y = (x[:, 0] > 0).long()
    forget, retain = (x[:12], 1 - y[:12]), (x[12:], y[12:])
    model, student = (torch.nn.Linear(5, 2).double() for _ in range(2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    student.load_state_dict(model.state_dict())
    table = {"name": "scrub", "variant": "chen-zhang", "alpha": 0.3, "beta": 0.2, "epochs": 3, "learning_rate": 0.01}
    found = qu.unlearn(model, forget, retain, method={**table, "batch_size": 40}, seed=0).model

    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)

    def of_second_class(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        logits = network(x)
        return torch.sigmoid(logits[:, 1] - logits[:, 0])

    def term(x: torch.Tensor) -> torch.Tensor:
        p, q = of_second_class(model, x).detach(), of_second_class(student, x)
        return (p * torch.log(p / q)).mean()

    for _ in range(3):
        optimizer.zero_grad()
        task = torch.nn.functional.cross_entropy(student(retain[0]), retain[1])
        (task + 0.3 * term(retain[0]) - 0.2 * term(forget[0])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for mine, theirs in zip(found.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures("mnist")
def test_the_script_writes_curves_comparison_and_figure(
    poison: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poison, "EPOCHS", {"train": 30, "unlearn": 12})
    monkeypatch.setattr(poison, "SHARES", (0.0, 0.3, 0.9))
    arguments = ["--out", str(tmp_path), "--runs", "2", "--models", "twin", "mlp", "--inputs", "columns"]
    assert poison.main(arguments) == 0
    curve = pd.read_csv(tmp_path / "accuracy-mlp-columns.csv").groupby(["corruption", "share"])["accuracy"].mean()
    assert curve["flips", 0.0] == curve["noise", 0.0] > 0.99  # the same runs
    assert curve["flips", 0.9] < 0.2  # nine of ten labels say the opposite
    assert curve["noise", 0.9] > 0.8
    unlearned = pd.read_csv(tmp_path / "unlearning-mlp-columns.csv")
    assert set(unlearned["method"]) == {"Retrain", "Finetune", "Scrub", "GA"}
    starts = unlearned[(unlearned["epoch"] == 0) & (unlearned["method"] != "Retrain")].groupby("seed")["accuracy"]
    assert (starts.nunique() == 1).all()  # one original a run, for all methods
    assert unlearned["epoch"].max() == 12
    table = pd.read_csv(tmp_path / "comparison-accuracy.csv")
    row = table[(table["corruption"] == "flips") & (table["model"] == "mlp") & (table["share"] == 0.3)].iloc[0]
    assert (row["published"], row["runs"]) == (0.731, 2)
    assert table[table["model"] == "twin"]["published"].isna().all()
    assert (tmp_path / "poison.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")
    before = (tmp_path / "accuracy-mlp-columns.csv").stat().st_mtime_ns
    assert poison.main(arguments) == 0
    assert (tmp_path / "accuracy-mlp-columns.csv").stat().st_mtime_ns == before  # nothing twice


@pytest.mark.usefixtures("mnist", "poison")
def test_the_study_file_plans_with_500_and_1000_images() -> None:
    study = read_study(STUDIES / "poison.toml", ["seed=[0, 1]"])
    plan = make_plan(study)
    assert [len(plan.of(kind)) for kind in ("original", "retrained", "trial")] == [36, 90, 18 * (4 * 2 + 5)]
    assert not plan.left_out


def test_published_tables_are_complete(poison: ModuleType) -> None:
    accuracy, unlearning = poison.published("accuracy"), poison.published("unlearning")
    assert len(accuracy) == 40
    assert len(unlearning) == 24
    for table in (accuracy, unlearning):
        assert table["published"].between(0, 1).all()
    methods = read_study(STUDIES / "poison.toml").methods
    tables = {choice.label: dict(choice.parameters) for choice in methods[2:]}
    same = {
        label: {k: v for k, v in one.items() if k != "name"} | {"epochs": 50} for label, one in poison.METHODS.items()
    }
    assert json.dumps(tables, sort_keys=True) == json.dumps(same, sort_keys=True)
