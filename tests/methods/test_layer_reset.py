"""Layer reset: which angles are new, which stand still to the last bit, and that the repair learns."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Any

import pytest
import torch
from torch import nn

from qunlearn.errors import InputError
from qunlearn.methods import LayerReset
from qunlearn.models import HybridClassifier
from qunlearn.quantum import Angle, Circuit, Factor, Gate, load_circuit
from tests.methods.cases import make_task
from tests.methods.learnt import accuracy, clusters, loss

WEIGHTS = "quantum.weights"
TASK = dataclasses.replace(make_task(), validation=None)


def make(seed: int = 0, depth: int = 3, card: str = "ring-cz", **settings: object) -> HybridClassifier:
    circuit, generator = load_circuit(card, qubits=4, depth=depth), torch.Generator().manual_seed(seed)
    return HybridClassifier(circuit, 3, dtype=torch.float64, generator=generator, **settings)  # type: ignore[arg-type]


def started(model: nn.Module, seed: int = 0, **settings: Any) -> nn.Module:
    """The model from which the repair starts."""
    method = LayerReset(**settings)
    return method.start(copy.deepcopy(model), TASK, torch.Generator().manual_seed(100 + seed))


def changed(one: nn.Module, other: nn.Module) -> list[int]:
    return (one.get_parameter(WEIGHTS) != other.get_parameter(WEIGHTS)).nonzero().flatten().tolist()


@pytest.mark.parametrize("to", ["fresh", "identity"])
@pytest.mark.parametrize(
    ("settings", "wanted"),
    [({"k": 1}, range(24, 36)), ({"k": 2}, range(12, 36)), ({"k": 3}, range(36)),
     ({"layers": "0"}, range(12)), ({"layers": "0, 2"}, [*range(12), *range(24, 36)])],
    ids=["last", "two", "all", "first", "chosen"],
)  # fmt: skip
def test_the_layers_that_are_asked_for_are_drawn_anew(settings: dict[str, Any], wanted: range, to: str) -> None:
    model = make()
    start = started(model, to=to, **settings)
    assert changed(model, start) == list(wanted)
    for name, p in model.named_parameters():
        assert name == WEIGHTS or torch.equal(start.get_parameter(name), p)


def test_fresh_angles_are_uniform_and_those_of_the_identity_near_zero() -> None:
    model = make()
    fresh = torch.cat([started(model, seed, k=3).get_parameter(WEIGHTS).detach() for seed in range(30)])
    near = [started(model, seed, k=3, to="identity", spread=0.2).get_parameter(WEIGHTS).detach() for seed in range(30)]
    assert 0 <= float(fresh.min()) < 0.05
    assert 6.2 < float(fresh.max()) <= 6.2832
    assert float(fresh.mean()) == pytest.approx(3.1416, abs=0.2)
    assert float(torch.cat(near).std()) == pytest.approx(0.2, rel=0.1)
    assert float(torch.cat(near).mean()) == pytest.approx(0, abs=0.03)
    assert torch.equal(started(model, 4).get_parameter(WEIGHTS), started(model, 4).get_parameter(WEIGHTS))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_repair_moves_new_angles_and_the_head_alone(weight_decay: float) -> None:
    task = dataclasses.replace(TASK, recipe=dataclasses.replace(TASK.recipe, weight_decay=weight_decay))  # type: ignore[type-var]
    model = make()
    after = LayerReset(k=1, epochs=3)(model, task).model
    assert changed(model, after) == list(range(24, 36))
    for name, p in model.named_parameters():
        assert name == WEIGHTS or not torch.equal(after.get_parameter(name), p)
    everything = LayerReset(k=1, epochs=3, repair="all")(model, task).model
    assert changed(model, everything) == list(range(36))


def test_an_encoder_stays_unless_everything_moves() -> None:
    generator = torch.Generator().manual_seed(0)
    circuit = load_circuit("ring-cz", qubits=2, depth=2)
    model = HybridClassifier(circuit, 3, "cnn", inputs=(1, 4, 4), dtype=torch.float64, generator=generator)
    parts = {
        name: dataclasses.replace(getattr(TASK, name), x=getattr(TASK, name).x.repeat(1, 4).reshape(-1, 1, 4, 4))
        for name in ("forget", "retain")
    }
    task = dataclasses.replace(TASK, **parts)
    for repair, moves in (("behind", False), ("all", True)):
        after = LayerReset(epochs=1, repair=repair)(model, task).model  # type: ignore[arg-type]
        for name, p in model.named_parameters():
            if name.startswith("encoder."):
                assert torch.equal(after.get_parameter(name), p) != moves


def test_angles_outside_the_layers_are_layers_of_their_own() -> None:
    method = LayerReset()
    circuit = load_circuit("sim-10", qubits=3, depth=2)
    assert LayerReset(layers="start").chosen(circuit) == [0, 1, 2]
    assert method.chosen(circuit) == [6, 7, 8]
    plain = Circuit(1, (Gate("ry", (0,), Angle(1.0, (Factor(0),))), Gate("rx", (0,), Angle(weight=0))), ("Z",), 1, 1)
    assert method.chosen(plain) == [0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"k": 4}, "expected k of at most 3"), ({"layers": "0,7"}, "expected layers out of 0, 1, 2 .* got 7"),
     ({"layers": ""}, "expected layers out of")],
    ids=["k", "unknown", "empty"],
)  # fmt: skip
def test_layers_that_are_not_there_are_refused(settings: dict[str, Any], message: str) -> None:
    method = LayerReset(**settings)
    with pytest.raises(InputError, match=message):
        method(make(), TASK)
    with pytest.raises(InputError, match=message):
        method.check_model(make(), TASK.retain)


@pytest.mark.parametrize("to", ["fresh", "identity"])
def test_what_is_left_is_learnt_again_and_the_class_is_gone(to: str) -> None:
    """A class that only the forget set holds: the repair sees two classes, and knows them."""
    task, model = clusters(1, functools.partial(make, 0, 2))
    start = started(model, to=to)
    after = LayerReset(epochs=40, to=to)(model, task).model  # type: ignore[arg-type]
    assert accuracy(model, task.forget) > 0.9
    assert loss(after, task.retain) < 0.5 * loss(start, task.retain)
    assert accuracy(after, task.retain) > 0.9
    assert accuracy(after, task.forget) < 0.3
