"""What the audit says of the circuit's states, on models whose states are known."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from qunlearn.data import Dataset, ForgetRequest, Split
from qunlearn.evaluation import evaluate
from qunlearn.evaluation.audit import audit
from qunlearn.metrics import helstrom_null, helstrom_plugin, pretty_good_measurement
from qunlearn.quantum import QuantumLayer, load_circuit
from qunlearn.training.seeds import Seeds
from tests.evaluation.audit.cases import Trained, network

NAMES = [
    "helstrom", "helstrom_null", "helstrom_p", "helstrom_plugin", "helstrom_one_wire", "helstrom_two_wires",
    "helstrom_classes",
]  # fmt: skip


class Known(nn.Module):
    """Feature 0 turns wire 0 by itself, so that the states are known; the logits say nothing."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        circuit = load_circuit("ring-cz", qubits=2, depth=1, encoding="ry")
        self.layer, self.gain = QuantumLayer(circuit), nn.Parameter(torch.tensor(gain))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(self.gain * x) @ torch.zeros(2, 3)
        return found


def _split(request: ForgetRequest) -> Split:
    """Three classes of samples: of class 1 both features are 1, of the others 0."""
    y = torch.arange(300) % 3
    return Dataset((y == 1).float()[:, None].repeat(1, 2), y).split(request, seed=0, scale="none")


def test_states_that_differ_by_a_known_angle() -> None:
    found = audit(Known(1.0), _split(ForgetRequest.of_class(1)), audits=["helstrom"], retrained=[Known(0.0)])
    assert [finding.name for finding in found] == [*NAMES, "helstrom_forgotten"]
    fidelity = math.cos(0.5) ** 4  # of RY(1) twice against none
    both = found["helstrom"]
    assert both.value == pytest.approx(math.sqrt(1 - fidelity), abs=1e-6)
    assert both.low == pytest.approx(both.high, abs=1e-6)  # all samples of a side are alike
    assert both.retrained == pytest.approx(0, abs=1e-9)
    assert found["helstrom_plugin"].value == pytest.approx(both.value, abs=1e-6)
    assert found["helstrom_p"].value == 1 / 50
    assert found["helstrom_p"].retrained == 1  # every permutation ties
    # The other classes are one to the states: right 1/2 of the time at most, were the forgotten one known.
    assert found["helstrom_classes"].retrained == pytest.approx(1 / 3, abs=1e-6)
    assert 1 / 3 < found["helstrom_classes"].value < 2 / 3
    assert found["helstrom_forgotten"].value > found["helstrom_forgotten"].retrained + 0.1
    assert found["helstrom_two_wires"].value == pytest.approx(both.value, abs=1e-6)
    assert found["helstrom_one_wire"].value < both.value


def test_class_matched_samples_of_known_states_tell_nothing() -> None:
    found = audit(Known(1.0), _split(ForgetRequest.of_fraction(0.2)), audits=["helstrom"])
    assert [finding.name for finding in found] == NAMES
    for name in ("helstrom", "helstrom_one_wire", "helstrom_two_wires", "helstrom_null"):
        assert found[name].value == pytest.approx(0, abs=1e-9)


def test_figures_are_the_pure_functions_of_the_models_states(digit: Trained) -> None:
    found = digit.audit(digit.original, "helstrom")
    seeds, split = Seeds(0, "audit"), digit.split
    layer, before = digit.original[3], digit.original[:3]  # type: ignore[index]
    with torch.no_grad():
        forget, outside, test = (
            layer.state(before(x)) for x in (split.forget.x, split.holdout.x[split.holdout.y != 3], split.test.x)
        )
    null = helstrom_null(forget, outside, seed=seeds.integer("helstrom"))
    assert found["helstrom_null"].value == pytest.approx(null.values.mean(), abs=1e-5)
    assert found["helstrom_p"].value == null.p_value
    assert found["helstrom_plugin"].value == pytest.approx(helstrom_plugin(forget, outside), abs=1e-5)
    classes = [test[split.test.y == number] for number in range(10)]
    named = pretty_good_measurement(classes, seed=seeds.integer("helstrom classes"))
    assert found["helstrom_classes"].value == pytest.approx(named, abs=1e-5)
    assert found["helstrom_plugin"].value > found["helstrom"].value > found["helstrom_null"].high
    # The same samples as in a trial's row, by other halvings.
    row = evaluate(digit.original, split)["helstrom_forget"]
    assert found["helstrom"].low < row < found["helstrom"].high
    values = [digit.audit(model, "helstrom")["helstrom"].value for model in digit.retrained]
    assert found["helstrom"].retrained == pytest.approx(np.mean(values))


def test_a_model_that_only_stopped_saying_it_keeps_the_originals_values(digit: Trained) -> None:
    silent = copy.deepcopy(digit.original)
    with torch.no_grad():
        next(reversed(list(silent.parameters())))[3] = -1000.0
    found, before = digit.audit(silent, "helstrom", "class_deletion"), digit.audit(digit.original, "helstrom")
    assert found["class_deletion_forgotten"].value == 0
    assert [found[name].value for name in NAMES] == [before[name].value for name in NAMES]


def test_without_states_or_matching_samples_there_is_a_reason(by_heart: Trained) -> None:
    found = by_heart.audit(network(0, 40, 2), "helstrom")
    assert [finding.name for finding in found] == ["helstrom"]
    assert found["helstrom"].reason == "the model has no one circuit"
    alone = _split(ForgetRequest.of_ids([_split(ForgetRequest.of_class(1)).train.ids[0].item()]))
    told = audit(Known(1.0), alone, audits=["helstrom"])
    assert told["helstrom"].reason.startswith("fewer than two forget samples")
    assert math.isnan(told["helstrom"].value)
    assert not math.isnan(told["helstrom_classes"].value)
