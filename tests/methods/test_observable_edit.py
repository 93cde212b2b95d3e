"""Observable edit: its least squares once more in NumPy, its observables as matrices, and what no state notices."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import pennylane as qml
import pytest
import torch
from torch import Tensor, nn

from qunlearn.errors import InputError
from qunlearn.methods import ObservableEdit, Task, Unlearned
from qunlearn.methods.observable_edit import null_space
from qunlearn.models import HybridClassifier
from qunlearn.quantum import load_circuit
from tests.methods.cases import hybrid_model, make_task, plain_model
from tests.methods.learnt import accuracy, clusters

Array = npt.NDArray[np.float64]


def hybrid(head: str = "linear", **settings: Any) -> HybridClassifier:
    """Four wires, so that the head's first map has five inputs, the bias counted."""
    circuit = load_circuit("ring-cz", qubits=4, depth=1)
    settings = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(3), **settings}
    return HybridClassifier(circuit, 3, head=head, **settings)  # type: ignore[arg-type]


def few(task: Task, retain: int) -> Task:
    return dataclasses.replace(task, retain=task.retain.select(range(retain)))


def seen(model: HybridClassifier, x: Tensor) -> Array:
    """Expectation values and a 1, ``(n, 5)``."""
    with torch.no_grad():
        values = model.quantum(model.encoder(x))
    return np.concatenate([values.double().numpy(), np.ones((len(x), 1))], 1)


def outputs(model: nn.Module, x: Tensor) -> Array:
    with torch.no_grad():
        return np.asarray(model(x).numpy())


def change(model: HybridClassifier, result: Unlearned, path: str = "head.fc1") -> Array:
    """How far the map moved, ``(inputs, outputs)``."""
    parts = [
        (result.model.get_parameter(f"{path}.{n}") - model.get_parameter(f"{path}.{n}")).detach().numpy()
        for n in ("weight", "bias")
    ]
    return np.concatenate([parts[0].T, parts[1][None]])


def squares(forget: Array, retain: Array, gain: Array, weight: float, ridge: float) -> Array:
    """The weighted least squares as one tall system."""
    rows = np.concatenate(
        [
            retain / np.sqrt(len(retain)),
            np.sqrt(weight / len(forget)) * forget,
            np.sqrt(ridge) * np.eye(forget.shape[1]),
        ]
    )
    wanted = np.zeros((len(rows), gain.shape[1]))
    wanted[len(retain) : len(retain) + len(forget)] = np.sqrt(weight / len(forget)) * gain
    return np.asarray(np.linalg.lstsq(rows, wanted, rcond=None)[0])


@pytest.mark.parametrize(("weight", "ridge"), [(1.0, 1e-6), (3.0, 0.1), (0.2, 1e-3)])
@pytest.mark.parametrize("head", ["linear", "shallow"])
def test_the_change_is_the_ridge_solution_for_the_nearest_retained_values(
    head: str, weight: float, ridge: float
) -> None:
    model, task = hybrid(head), make_task()
    result = ObservableEdit(weight=weight, ridge=ridge)(model, task)
    forget, retain = seen(model, task.forget.x), seen(model, task.retain.x)
    with torch.no_grad():
        layer = model.head.fc1
        assert isinstance(layer, nn.Linear)
        of_forget, of_retain = (layer(torch.tensor(rows[:, :4])).numpy() for rows in (forget, retain))
    nearest = [int(((retain - row) ** 2).sum(1).argmin()) for row in forget]
    wanted = squares(forget, retain, of_retain[nearest] - of_forget, weight, ridge)
    assert np.allclose(change(model, result), wanted, rtol=1e-6, atol=1e-9)


def test_the_uniform_target_of_logits_is_each_row_s_mean_logit() -> None:
    model, task = hybrid("linear"), make_task()
    result = ObservableEdit(target="uniform")(model, task)
    logits = outputs(model, task.forget.x)
    gain = logits.mean(1, keepdims=True) - logits
    wanted = squares(seen(model, task.forget.x), seen(model, task.retain.x), gain, 1.0, 1e-6)
    assert np.allclose(change(model, result), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("target", ["uniform", "shift"])
def test_references_are_the_retained_rows_of_most_entropy(target: Any) -> None:
    """A hidden layer has no logits to level: its values go to those of unsure rows, row by row or all by one step."""
    model, task = hybrid("shallow"), make_task(retain=200)
    result = ObservableEdit(target=target, alpha=0.5)(model, task)
    logits = outputs(model, task.retain.x)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    unsure = np.argsort((p * np.log(p)).sum(1))[:10]  # 5 % of 200
    forget, retain = seen(model, task.forget.x), seen(model, task.retain.x)
    layer = model.head.fc1
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        values, reference = (layer(torch.tensor(rows[:, :4])).numpy() for rows in (forget, retain[unsure]))
    gain = reference.mean(0) - values
    if target == "shift":
        gain = np.tile(0.5 * gain.mean(0), (len(values), 1))
    assert np.allclose(change(model, result), squares(forget, retain, gain, 1.0, 1e-6), rtol=1e-6, atol=1e-9)


def test_the_edited_map_is_a_change_of_observables_and_no_state_moves() -> None:
    model, task = hybrid("shallow"), make_task()
    edited = ObservableEdit(target="shift")(model, task).model
    assert isinstance(edited, HybridClassifier)
    fixed = {n for n, p in edited.named_parameters() if torch.equal(p, model.get_parameter(n))}
    assert {n for n, _ in model.named_parameters()} - fixed == {"head.fc1.weight", "head.fc1.bias"}

    gates = qml.tape.make_qscript(model.circuit.to_pennylane())
    device = qml.device("default.qubit", wires=4)

    def state(features: Tensor) -> Any:
        found = gates(features, edited.quantum.weights.detach()).operations
        return qml.execute([qml.tape.QuantumScript(found, [qml.state()])], device)[0]

    layer = edited.head.fc1
    assert isinstance(layer, nn.Linear)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    signs = [functools.reduce(np.kron, [np.diag([1, -1]) if w == k else np.eye(2) for w in range(4)]) for k in range(4)]
    with torch.no_grad():
        measured = layer(edited.quantum(task.forget.x)).numpy()
    for x, row in zip(task.forget.x, measured, strict=True):
        psi = np.asarray(state(x))
        for c, value in enumerate(row):
            observable = sum(weight[c, k] * signs[k] for k in range(4)) + bias[c] * np.eye(16)
            assert value == pytest.approx((psi.conj() @ observable @ psi).real, abs=1e-12)


@pytest.mark.parametrize("forget", [1, 3])
def test_the_constrained_mode_is_the_equality_constrained_least_squares(forget: int) -> None:
    """Against the equations of Lagrange: forget rows exactly, retained rows least."""
    model, task = hybrid("linear"), make_task(forget=forget)
    result = ObservableEdit(mode="constrained", target="uniform")(model, task)
    f, r = seen(model, task.forget.x), seen(model, task.retain.x)
    logits = outputs(model, task.forget.x)
    gain = logits.mean(1, keepdims=True) - logits
    system = np.block([[r.T @ r, f.T], [f, np.zeros((forget, forget))]])
    wanted = np.linalg.solve(system, np.concatenate([np.zeros((5, 3)), gain]))[:5]
    assert np.allclose(change(model, result), wanted, atol=1e-9)
    assert np.ptp(outputs(result.model, task.forget.x), axis=1) == pytest.approx(np.zeros(forget), abs=1e-10)
    details = result.record.details
    assert details["forget_residual"] == pytest.approx(0, abs=1e-10)
    assert details["null_space"] == 0
    moved = outputs(result.model, task.retain.x) - outputs(model, task.retain.x)
    assert details["retain_residual"] == pytest.approx(
        np.linalg.norm(moved) / np.linalg.norm(outputs(model, task.retain.x))
    )
    assert details["retain_residual"] > 1e-3


def test_where_a_null_space_allows_it_both_sets_get_what_they_should_exactly() -> None:
    """Two retained rows leave three of five dimensions: enough for three forget rows, not for four."""
    model = hybrid("linear")
    task = few(make_task(forget=3), 2)
    result = ObservableEdit(mode="constrained", target="uniform")(model, task)
    details = result.record.details
    assert (details["null_space"], details["rank_retain"], details["inputs"]) == (3, 2, 5)
    assert details["forget_residual_in_null_space"] == pytest.approx(0, abs=1e-10)
    assert np.allclose(outputs(result.model, task.retain.x), outputs(model, task.retain.x), atol=1e-10)
    assert np.ptp(outputs(result.model, task.forget.x), axis=1) == pytest.approx(np.zeros(3), abs=1e-10)

    four = few(make_task(forget=4), 2)
    details = ObservableEdit(mode="constrained", target="uniform")(model, four).record.details
    assert details["forget_residual_in_null_space"] > 1e-3
    assert details["forget_residual_least"] == pytest.approx(0, abs=1e-10)
    assert details["retain_residual"] > 1e-3


def test_forget_rows_that_contradict_each_other_get_the_ridge_form_and_a_note() -> None:
    model, task = hybrid("linear"), make_task(forget=20)
    result, plain = (ObservableEdit(mode=m, target="nearest")(model, task) for m in ("constrained", "ridge"))
    assert np.array_equal(change(model, result), change(model, plain))
    assert any("No linear map gives all 20 forget rows" in note for note in result.record.notes)
    assert not any("No linear map" in note for note in plain.record.notes)
    best, reached = (plain.record.details[k] for k in ("forget_residual_least", "forget_residual"))
    assert 0.01 < best < reached < 1


@pytest.mark.parametrize(("rows", "rank"), [(3, 3), (9, 6), (9, 2)])
def test_the_null_space_is_orthonormal_and_mapped_to_zero(rows: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in (rows, 6))
    basis = null_space(left @ right.T, 1e-10)
    assert basis.shape == (6, 6 - np.linalg.matrix_rank((left @ right.T).numpy()))
    assert torch.allclose(left @ (right.T @ basis), torch.zeros(rows, 6 - rank, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(basis.T @ basis, torch.eye(6 - rank, dtype=torch.float64), atol=1e-12)


def test_rounding_of_single_precision_is_no_rank() -> None:
    """Retained rows all alike but for rounding: one dimension is taken, whatever the type."""
    for dtype in (torch.float32, torch.float64):
        model = hybrid("linear", dtype=dtype)
        task = make_task(retain=6)
        same = dataclasses.replace(task.retain, x=task.retain.x[:1].repeat(6, 1))
        result = ObservableEdit(mode="constrained")(model, dataclasses.replace(task, retain=same))
        assert result.record.details["null_space"] == 4
        assert all(p.dtype == dtype for p in result.model.parameters())


def test_it_costs_one_forward_pass_over_the_forget_set_and_the_buffer() -> None:
    task = make_task()
    whole = ObservableEdit()(hybrid(), task).record
    part = ObservableEdit(buffer=0.2)(hybrid(), task).record
    assert (whole.counts.circuit_evaluations, part.counts.circuit_evaluations) == (36, 12)
    assert (whole.counts.gradient_evaluations, whole.counts.hardware_circuits) == (0, 36)
    assert (whole.details["retain_rows"], part.details["retain_rows"]) == (30, 6)
    one, other = (ObservableEdit(buffer=0.2)(hybrid(), task, seed=s) for s in (0, 1))
    assert not torch.equal(one.model.get_parameter("head.fc1.weight"), other.model.get_parameter("head.fc1.weight"))


def test_the_site_is_the_first_map_after_the_circuit_or_the_last() -> None:
    for head, last in (("linear", "fc1"), ("shallow", "fc2"), ("deep", "fc4")):
        model = hybrid(head)
        assert ObservableEdit().edited(model) == "head.fc1"
        assert ObservableEdit(site="logits").edited(model) == f"head.{last}"
        found = ObservableEdit(site="logits", target="uniform")(model.eval(), make_task())
        assert found.record.details["edited"] == f"head.{last}"
        assert found.record.details["forget_residual"] < 1


def test_models_without_a_circuit_or_a_head_are_refused_before_any_work() -> None:
    with pytest.raises(InputError, match="expected a model with a circuit for observable-edit"):
        ObservableEdit()(plain_model(), make_task())
    with pytest.raises(InputError, match="expected a model with a circuit"):
        ObservableEdit().check_model(plain_model(), make_task().retain)
    bare = nn.Sequential(hybrid().quantum)
    with pytest.raises(InputError, match="expected a linear map after the circuit"):
        ObservableEdit()(bare, make_task())
    assert ObservableEdit()(hybrid(control="twin"), make_task()).record.details["edited"] == "head.fc1"


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_class_is_no_longer_told_and_the_others_are(gone: int) -> None:
    task, model = clusters(gone, hybrid_model)
    assert accuracy(model, task.forget) > 0.9
    for settings in ({"site": "logits", "target": "uniform", "weight": 3.0}, {"target": "shift", "weight": 0.3}):
        result = ObservableEdit(**settings)(model, task).model  # type: ignore[arg-type]
        assert accuracy(result, task.forget) < 0.5
        assert accuracy(result, task.retain) > 0.9
