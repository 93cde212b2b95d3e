"""Channel forgetting: where the noise goes, what it hides, and what the record says of it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods import ChannelForgetting, Task
from qunlearn.methods.channel_forgetting import class_weights, crossfit, struck
from qunlearn.models import HybridClassifier, load_model, save_model
from qunlearn.quantum import load_circuit
from qunlearn.quantum.circuit import Angle, Channel, Circuit, Factor, Gate
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.quantum.noise import Strike
from tests.methods.cases import hybrid_model, make_task, plain_model


def product_model() -> HybridClassifier:
    """RY of feature w, then of weight w, on wire w of three; nothing entangles."""
    gates = [Gate("ry", (w,), Angle(factors=(Factor(w),)), layer=0) for w in range(3)]
    gates += [Gate("ry", (w,), Angle(weight=w), layer=0) for w in range(3)]
    circuit = Circuit(3, tuple(gates), ("ZII", "IZI", "IIZ"), 3, 3, depth=1)
    return HybridClassifier(circuit, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def layer_of(model: nn.Module) -> QuantumLayer:
    assert isinstance(model, HybridClassifier)
    assert isinstance(model.quantum, QuantumLayer)
    return model.quantum


def circuit_of(model: nn.Module) -> Circuit:
    return layer_of(model).circuit


def product_task(wire: int) -> Task:
    """Class 1 differs from class 0 in one feature alone."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(60, 3, generator=generator, dtype=torch.float64)
    y = torch.arange(60) % 2
    x[y == 1, wire] += 2.0
    data = Dataset(x, y)
    return Task(data.select((y == 1).nonzero().flatten()), data.select((y == 0).nonzero().flatten()))


@pytest.mark.parametrize("wire", [0, 1, 2])
def test_the_noise_goes_where_the_forget_set_differs(wire: int) -> None:
    result = ChannelForgetting(wires=1, strength=0.3, epochs=1)(product_model(), product_task(wire))
    assert circuit_of(result.model).channels == (Channel("depolarizing", (wire,), (0.3,), 5),)
    details = result.record.details
    assert details["wires"] == [wire]
    assert details["strength"] == 0.3
    told = details["wire_advantages"]
    assert told[wire] > 0.5 > 3 * max(value for other, value in enumerate(told) if other != wire)
    assert details["pair_advantage"] < details["pair_advantage_before"] - 0.1


def test_the_record_s_epsilon_has_the_closed_form_and_says_what_it_is_of() -> None:
    """One wire of three depolarized at its end: ln(1 + 2 (1 - p) d / p) there, infinity elsewhere."""
    method = ChannelForgetting(wires=1, strength=0.4, epochs=1, after="end", distance=0.25)
    record = method(product_model(), product_task(1)).record
    expected = math.log(1 + 2 * 0.6 * 0.25 / 0.4)
    assert record.details["epsilon_by_wire"] == {"0": None, "1": pytest.approx(expected), "2": None}
    assert record.details["epsilon_one_shot"] is None
    assert record.details["distance"] == 0.25
    assert record.guarantee is None, "it vouches for nothing about training data"
    assert any("covers inputs, not training data" in note for note in record.notes)
    whole = ChannelForgetting(wires=3, strength=0.4, epochs=1, after="end", distance=1.0)
    found = whole(product_model(), product_task(1)).record.details
    # Three wires at once: the largest eigenvalue of an effect is (1 - p / 2)^3, the least (p / 2)^3.
    assert found["epsilon_one_shot"] == pytest.approx(3 * math.log(0.8 / 0.2))


@pytest.mark.parametrize("channel", ["depolarizing", "amplitude-damping", "phase-damping"])
@pytest.mark.parametrize("after", ["layer", "encoding", "end"])
def test_only_the_noise_and_the_head_change(channel: str, after: str) -> None:
    model, task = hybrid_model(reupload=True), dataclasses.replace(make_task(forget_class=1), validation=None)
    result = ChannelForgetting(channel=channel, after=after, wires=2, strength=0.3, epochs=2)(model, task, seed=1).model  # type: ignore[arg-type]
    assert isinstance(result, HybridClassifier)
    assert torch.equal(layer_of(result).weights, layer_of(model).weights)
    struck_there = {(c.name, c.strengths) for c in circuit_of(result).channels}
    assert struck_there == {(channel, (0.3,))}
    assert circuit_of(result).without_noise() == circuit_of(model)
    assert any(not torch.equal(p, q) for p, q in zip(model.head.parameters(), result.head.parameters(), strict=True))
    assert result(task.retain.x).isfinite().all()


def test_model_files_hold_the_noise(tmp_path: Path) -> None:
    model, task = hybrid_model(), make_task()
    result = ChannelForgetting(wires=1, strength=0.2, epochs=1)(model, dataclasses.replace(task, validation=None)).model
    loaded = load_model(save_model(result, tmp_path))
    assert circuit_of(loaded) == circuit_of(result) != circuit_of(model)
    torch.testing.assert_close(loaded(task.retain.x), result(task.retain.x), rtol=0, atol=1e-12)


def test_a_second_request_adds_its_noise_to_the_first() -> None:
    task = product_task(0)
    once = ChannelForgetting(wires=1, strength=0.2, epochs=1)(product_model(), task).model
    other = product_task(2)
    later = Dataset(other.forget.x, other.forget.y, ids=other.forget.ids + 100)
    kept = Dataset(other.retain.x, other.retain.y, ids=other.retain.ids + 100)
    twice = ChannelForgetting(wires=1, strength=0.5, epochs=1)(once, Task(later, kept)).model
    found = {(c.wires, c.strengths) for c in circuit_of(twice).channels}
    assert found == {((0,), (0.2,)), ((2,), (0.5,))}


def test_channels_are_put_where_they_act() -> None:
    circuit = load_circuit("ring-cz", qubits=2, depth=2).with_noise({"bit-flip": 0.1, "after": "end"})
    both = struck(circuit, Strike("depolarizing", (0.2,), "layer", (1,)))
    places = [made.after for made in both.channels]
    assert places == sorted(places)
    assert [made.name for made in both.channels].count("bit-flip") == 2
    assert [made.wires for made in both.channels if made.name == "depolarizing"] == [(1,), (1,)]


def test_noise_on_all_wires_at_the_end_only_scales_what_is_read() -> None:
    """What the page warns of: a head can undo it, so that exact expectation values keep everything."""
    model = hybrid_model(reupload=True)
    x = make_task().retain.x
    noisy = struck(circuit_of(model), Strike("depolarizing", (0.35,), "end"))
    shrunk = HybridClassifier(noisy, 3, dtype=torch.float64)
    shrunk.load_state_dict(model.state_dict())
    torch.testing.assert_close(layer_of(shrunk)(x), 0.65 * layer_of(model)(x), rtol=0, atol=1e-12)


def test_the_protocol_s_rule_chooses_among_all_candidates_and_the_untouched_model() -> None:
    record = ChannelForgetting(epochs=2)(hybrid_model(reupload=True), make_task(forget_class=1)).record
    assert len(record.candidates) == 1 + 3 * 3
    assert "strength" not in record.candidates[0]
    tried = {(len(c["wires"]), c["strength"]) for c in record.candidates[1:]}
    assert tried == {(m, p) for m in (1, 2, 4) for p in (0.05, 0.2, 0.5)}
    floor = record.candidates[0]["validation_accuracy_retained"] - 0.02
    eligible = [c for c in record.candidates if c["validation_accuracy_retained"] >= floor - 1e-9]
    least = min(c["validation_accuracy_forgotten"] for c in eligible)
    assert record.candidates[record.chosen]["validation_accuracy_forgotten"] == least
    assert record.candidates[record.chosen] in eligible


def random_densities(seed: int, number: int, groups: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(number, groups, 4, 2, dtype=torch.complex128, generator=generator)
    rho = root @ root.mH
    return rho / rho.diagonal(dim1=-2, dim2=-1).sum(-1).real[..., None, None]


def test_the_advantage_is_fitted_on_one_half_and_scored_on_the_other() -> None:
    ours, theirs = random_densities(0, 7, 2), random_densities(1, 10, 2)
    weights = torch.rand(10, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = crossfit(ours, theirs, weights)
    for group in range(2):
        expected = 0.0
        for fitted, scored in ((0, 1), (1, 0)):
            apart = [
                np.mean(ours[start::2, group].numpy(), axis=0)
                - np.average(theirs[start::2, group].numpy(), axis=0, weights=weights[start::2].numpy())
                for start in (fitted, scored)
            ]
            values, vectors = np.linalg.eigh(apart[0])
            expected += sum(
                np.vdot(vectors[:, k], apart[1] @ vectors[:, k]).real / 2 for k in range(4) if values[k] > 0
            )
        assert found[group] == pytest.approx(expected, abs=1e-12)


def test_retain_samples_are_weighted_to_the_forget_set_s_classes() -> None:
    x = torch.zeros(6, 1)
    retain = Dataset(x, torch.tensor([0, 0, 0, 1, 2, 2]))
    mixed = Task(Dataset(x[:3], torch.tensor([0, 2, 2]), ids=torch.arange(10, 13)), retain)
    assert class_weights(mixed).tolist() == pytest.approx([1 / 3] * 3 + [0.0] + [1.0] * 2)
    whole = Task(Dataset(x[:2], torch.tensor([3, 3]), ids=torch.arange(10, 12)), retain)
    assert class_weights(whole).tolist() == [1.0] * 6


def test_models_that_cannot_have_the_noise_are_refused() -> None:
    with pytest.raises(InputError, match="expected a HybridClassifier with a circuit"):
        ChannelForgetting()(plain_model(), make_task())
    twin = HybridClassifier(load_circuit("ring-cz", qubits=4), 3, control="twin", dtype=torch.float64)
    with pytest.raises(InputError, match="got ClassicalTwin"):
        ChannelForgetting()(twin, make_task())
    large = HybridClassifier(load_circuit("ring-cz", qubits=9), 3, dtype=torch.float64)
    with pytest.raises(InputError, match="at most 8 qubits for channel-forgetting"):
        ChannelForgetting().check_model(large, make_task().retain)
    sampled = hybrid_model()
    layer_of(sampled).run_on(shots=10)
    with pytest.raises(InputError, match="runs exactly on this machine"):
        ChannelForgetting().check_model(sampled, make_task().retain)


def test_counts_equal_hand_counts() -> None:
    counts = ChannelForgetting(wires=1, strength=0.2, epochs=3)(hybrid_model(), make_task()).record.counts
    # Two circuits on all 6 + 30 + 18 samples; advantages on 36: one wire before, pairs before and after.
    assert counts.circuit_evaluations == 2 * 54 + 3 * 36
    assert counts.hardware_circuits == 2 * 54 + 36 * 3 + 2 * 36 * (3 + 6 * 2)
    assert counts.gradient_evaluations == 3 * 30
