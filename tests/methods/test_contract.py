"""One contract for every method of the registry: what goes in stays as it was, what comes out is complete."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pennylane as qml
import pytest
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError, NumericalError, UnknownNameError, UnsupportedError
from qunlearn.methods import GradientMethod, Task, Unlearned, available, get
from qunlearn.methods.base import fingerprint
from qunlearn.models import HybridClassifier
from qunlearn.quantum import load_circuit
from qunlearn.training.loop import DivergedError
from tests.methods.cases import (
    CLASSES_ONLY,
    HYBRID_ONLY,
    Ignoring,
    blobs,
    hybrid_for,
    hybrid_model,
    make_task,
    original_for,
    plain_model,
    quick,
    task_for,
)

NAMES = list(available())
GRADIENT = [name for name, cls in available().items() if issubclass(cls, GradientMethod)]
# Closed forms, and what draws in training alone; then those whose forget samples are one batch, the same but for
# rounding in any order.
NOTHING_RANDOM = {"none", "ssd", "influence", "kernel-downdate", "sisa", "observable-edit"} | {
    "angle-dampening", "natural-ascent",
}  # fmt: skip
ONE_BATCH = {"gradient-ascent", "fisher-penalty", "boundary-shrink", "distribution-guided"}


class QNodeModel(nn.Module):
    """A PennyLane QNode called from a module that owns its weights: what qunlearn asks of foreign circuits."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.linspace(0.1, 2.0, 12, dtype=torch.float64).reshape(2, 2, 3))
        self.head = nn.Linear(2, 3, dtype=torch.float64)
        device = qml.device("default.qubit", wires=2)

        @qml.qnode(device, interface="torch", diff_method="backprop")  # type: ignore[untyped-decorator]
        def node(x: Tensor, weights: Tensor) -> list[object]:
            qml.AngleEmbedding(x[..., :2], wires=(0, 1))
            qml.StronglyEntanglingLayers(weights, wires=(0, 1))
            return [qml.expval(qml.PauliZ(0)), qml.expval(qml.PauliZ(1))]

        self.node = node

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weights, 0, 6.283)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.stack(list(self.node(x, self.weights)), -1))  # type: ignore[no-any-return]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "sequential": plain_model,
    "hybrid": hybrid_model,
    "qnode": QNodeModel,
}


def unlearned(name: str, model: nn.Module, task: Task | None = None, *, seed: int = 0, **settings: Any) -> Unlearned:
    """What the quick method makes of the model, or of the original that it makes of it."""
    method = quick(name, **settings)
    original, task = original_for(method, model, task or task_for(name))
    return method(original, task, seed=seed)


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in NAMES for kind in MODELS if kind == "hybrid" or name not in HYBRID_ONLY]
)
def test_the_given_model_and_data_are_left_alone(name: str, kind: str) -> None:
    model, task = original_for(quick(name), hybrid_for(name) if kind == "hybrid" else MODELS[kind](), task_for(name))
    before, mode = fingerprint(model), model.training
    data = [t.clone() for d in (task.forget, task.retain) for t in (d.x, d.y, d.ids)]
    gradients = [p.grad for p in model.parameters()]
    random_state = torch.random.get_rng_state()
    result = quick(name)(model, task, seed=1)
    assert fingerprint(model) == before
    assert model.training == mode
    assert [p.grad for p in model.parameters()] == gradients
    assert all(
        torch.equal(a, t)
        for a, t in zip(data, [t for d in (task.forget, task.retain) for t in (d.x, d.y, d.ids)], strict=True)
    )
    assert torch.equal(torch.random.get_rng_state(), random_state), "global random state moved"
    assert result.model is not model
    assert all(p.dtype == torch.float64 for p in result.model.parameters())
    assert result.model(task.retain.x).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_model_and_another_seed_another(name: str) -> None:
    method = quick(name, **({"batch_size": 8} if name in GRADIENT else {}))
    model, task = original_for(method, hybrid_for(name), dataclasses.replace(task_for(name), validation=None))
    first, again, other = (fingerprint(method(model, task, seed=seed).model) for seed in (1, 1, 2))
    assert first == again
    assert name in ONE_BATCH or (first == other) == (name in NOTHING_RANDOM)


@pytest.mark.parametrize("name", NAMES)
def test_the_record_is_complete_json(name: str) -> None:
    method = quick(name)
    model, task = original_for(method, hybrid_for(name), task_for(name))
    record = method(model, task, seed=3).record
    table = json.loads(json.dumps(record.to_dict()))
    assert set(table) == {field.name for field in dataclasses.fields(record)}
    assert table["method"] == name
    assert table["seed"] == 3
    assert table["hyperparameters"] == json.loads(json.dumps(method.hyperparameters()))
    assert table["seconds"] >= 0
    assert table["parent"] == fingerprint(model)
    ids = json.dumps(sorted(task.forget.ids.tolist()))
    assert table["removed"] == hashlib.sha256(ids.encode()).hexdigest()
    if name in GRADIENT:
        # A max epoch and a min epoch in turn, of which the min epoch counts; amnesiac's model before its repair, but
        # not the model between noise and repair.
        special = {"scrub": [0, 2, 4], "unsir": [0, 2, 4], "relative-ascent": [0, 2, 4], "amnesiac": [0, 1, 2, 3]}
        special["kernel-guided"] = [0, 2]  # the last fifth of its epochs
        epochs = {**special, "sensitivity-noise": [0, 2, 3], "state-erasure": [0, 3, 4]}.get(name, [0, 1, 2])
        assert [c["epoch"] for c in table["candidates"]] == epochs
        assert 0 <= table["chosen"] < len(epochs)
        assert all(torch.isfinite(torch.tensor(entry["loss"])) for entry in table["history"])


@pytest.mark.parametrize("name", NAMES)
def test_what_a_second_request_removes_is_added_to_the_first(name: str) -> None:
    method = quick(name)
    model, task = original_for(method, hybrid_for(name), task_for(name))
    once = method(model, task)
    gone = task.retain.y == 0 if name in CLASSES_ONLY else torch.arange(len(task.retain)) < 3
    trace = getattr(once.model, "trace", None)
    later = dataclasses.replace(task, forget=task.retain.select(gone), retain=task.retain.select(~gone), trace=trace)
    twice = method(once.model, later)
    ids = sorted({*task.forget.ids.tolist(), *later.forget.ids.tolist()})
    assert twice.record.removed == hashlib.sha256(json.dumps(ids).encode()).hexdigest()
    assert twice.record.parent == fingerprint(once.model)


def spoiled(task: Task) -> list[tuple[Task, str]]:
    nothing = task.retain.select(range(0))
    return [
        (dataclasses.replace(task, forget=nothing), "expected samples in the forget set, got none"),
        (dataclasses.replace(task, retain=nothing), "expected samples in the retain set, got none"),
        (dataclasses.replace(task, forget=task.retain.select([3])), "no id in common"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_empty_and_overlapping_sets_are_refused(name: str) -> None:
    model, given = original_for(quick(name), hybrid_for(name), task_for(name))
    for task, message in spoiled(given):
        with pytest.raises(InputError, match=message):
            quick(name)(model, task)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_method_needs_is_asked_for_before_any_work(name: str) -> None:
    for need in sorted(available()[name].needs - {"forget", "retain"}):
        lacking: dict[str, Any] = {need: None}
        with pytest.raises(InputError, match=f"expected a task with a {need} for {name}"):
            quick(name)(hybrid_for(name), dataclasses.replace(task_for(name), **lacking))
    assert available()[name].needs <= {"forget", "retain", "validation", "request", "recipe", "trace"}


@pytest.mark.parametrize("name", GRADIENT)
def test_divergence_is_an_error_that_holds_the_last_good_state(name: str) -> None:
    method = quick(name, epochs=4, learning_rate=1e308)
    start = hybrid_for(name) if name in HYBRID_ONLY else plain_model()
    model, task = original_for(method, start, dataclasses.replace(task_for(name), validation=None))
    with pytest.raises(DivergedError, match="lower learning_rate") as caught:
        method(model, task)
    assert isinstance(caught.value, NumericalError)
    assert set(caught.value.last_good) == set(model.state_dict())
    assert all(t.isfinite().all() for t in caught.value.last_good.values())


@pytest.mark.parametrize("name", sorted({*GRADIENT} - HYBRID_ONLY))
def test_a_module_that_ignores_functional_call_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match="call the QNode in the forward of a module of your own"):
        unlearned(name, Ignoring())


def test_pennylane_s_torch_layer_is_refused() -> None:
    device = qml.device("default.qubit", wires=2)

    @qml.qnode(device, interface="torch")  # type: ignore[untyped-decorator]
    def node(inputs: Tensor, w: Tensor) -> list[object]:
        qml.AngleEmbedding(inputs[..., :2], wires=(0, 1))
        qml.BasicEntanglerLayers(w, wires=(0, 1))
        return [qml.expval(qml.PauliZ(0)), qml.expval(qml.PauliZ(1))]

    model = nn.Sequential(qml.qnn.TorchLayer(node, {"w": (1, 2)}), nn.Linear(2, 3)).double()
    with pytest.raises(UnsupportedError, match="TorchLayer"):
        quick("fine-tune")(model, make_task())


# Hand counts. 30 retain and 6 forget samples, 18 validation samples, one epoch, batches of 32: every method below
# measures epoch 0 and epoch 1 on forget and validation sets, 2 * (6 + 18) = 48 forward samples.
COUNTS = {
    # fine-tune: every retain sample differentiated once.
    "fine-tune": (30, 30 + 48),
    # gradient-ascent: every forget sample.
    "gradient-ascent": (6, 6 + 48),
    # scrub: the teacher's outputs (36 forward), a max epoch (6) and a min epoch (30).
    "scrub": (36, 36 + 36 + 48),
    # adv-uniform: one paired step; the sign step differentiates 6 inputs, the loss 30 + 6 samples.
    "adv-uniform": (42, 42 + 48),
    # amnesiac: two retain samples make the model after the subtraction a third candidate; then the repair.
    "amnesiac": (30, 2 + 30 + 72),
    # bad-teacher: the outputs of both teachers (36), then the forget set with three tenths of the retain set.
    "bad-teacher": (6 + 9, 36 + 15 + 48),
    # boundary-shrink: the sign step differentiates 6 inputs, the neighbours' labels are 6 forward, the loss 6.
    "boundary-shrink": (6 + 6, 6 + 6 + 6 + 48),
    # l1-sparse: as fine-tune; a penalty costs no sample.
    "l1-sparse": (30, 30 + 48),
    # layer-reset: as fine-tune; drawing costs no sample.
    "layer-reset": (30, 30 + 48),
    # kernel-guided: the states of all three sets (54), a look at the number of classes (1), how sure the model is of
    # the validation set (18), and a mixed epoch.
    "kernel-guided": (36, 54 + 1 + 18 + 36 + 48),
    # npo: the original's outputs on the forget set (6), then a batch of both.
    "npo": (36, 6 + 36 + 48),
    # salun: the saliency of 6 forget samples, a look at the number of classes (1), and a mixed epoch.
    "salun": (6 + 36, 6 + 1 + 36 + 48),
    # distribution-guided: all 30 retain samples are anchors; the original's outputs on these and the forget set (36), a
    # dual step (30), and a batch of the forget set with 32 draws of anchors.
    "distribution-guided": (6 + 32, 36 + 30 + 38 + 48),
    # relative-ascent: the forget set up, the retain set down.
    "relative-ascent": (36, 36 + 48),
    # sensitivity-noise: the gradients of 6 forget samples, those of 2 retain samples where noise is placed, a repair.
    "sensitivity-noise": (6 + 2 + 30, 6 + 2 + 30 + 48),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_equal_hand_counts(name: str) -> None:
    counts = unlearned(name, hybrid_for(name), make_task(), epochs=1, batch_size=32).record.counts
    gradients, circuits = COUNTS[name]
    assert (counts.gradient_evaluations, counts.circuit_evaluations) == (gradients, circuits)
    # The shift rule takes two circuits for each of the 24 weights. An input's derivative takes two for each of the
    # 12 encoding gates; nothing before the circuit is trained, so that only the six inputs of sign steps need it.
    inputs = 6 if name in {"adv-uniform", "boundary-shrink"} else 0
    assert counts.hardware_circuits == circuits + (gradients - inputs) * 48 + inputs * 24


@pytest.mark.parametrize("name", NAMES)
def test_hyper_parameters_out_of_range_are_refused(name: str) -> None:
    cls = available()[name]
    for field in dataclasses.fields(cls):
        assert field.metadata["doc"], f"{name}.{field.name} says nothing of itself"
        if field.metadata["low"] is not None:
            with pytest.raises(InputError, match=f"{name}: expected {field.name}"):
                cls(**{field.name: -1})
        if field.metadata["choices"]:
            with pytest.raises(UnknownNameError, match=field.name):
                cls(**{field.name: "nonsense"})


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'adaprob'"):
        get("adaprop")
    with pytest.raises(UnknownNameError, match="did you mean 'temperature'"):
        get({"name": "scrub", "temprature": 2})


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    text = available()[name].__doc__ or ""
    assert text.split("\n")[0].endswith((".", ":")), "one sentence first"
    assert "Source:" in text


def test_labels_outside_the_outputs_are_refused() -> None:
    x, y = blobs(0, 12)
    data = Dataset(x, y)
    task = Task(data.select(range(3)), data.select(range(3, 12)))
    with pytest.raises(InputError, match="expected logits of shape"):
        quick("fine-tune")(plain_model(classes=2), task)


def test_a_deep_copy_of_a_result_unlearns_again() -> None:
    result = quick("fine-tune")(hybrid_model(), make_task())
    clone = copy.deepcopy(result.model)
    assert quick("fine-tune")(clone, make_task(seed=5)).record.parent == fingerprint(result.model)


@pytest.mark.parametrize("name", ["angle-dampening", "entangler-cut", "layer-reset", "natural-ascent"])
@pytest.mark.parametrize(("control", "why"), [(None, "got none"), ("twin", "got none"), ("frozen", "frozen weights")])
def test_a_model_without_a_trained_circuit_is_refused(name: str, control: str | None, why: str) -> None:
    circuit = load_circuit("ring-cz", qubits=4)
    model = HybridClassifier(circuit, 3, control=control, dtype=torch.float64) if control else plain_model()  # type: ignore[arg-type]
    task = task_for(name)
    for attempt in (lambda: get(name)(model, task), lambda: get(name).check_model(model, task.retain)):
        with pytest.raises(InputError, match=f"for {name}.*{why}"):
            attempt()
