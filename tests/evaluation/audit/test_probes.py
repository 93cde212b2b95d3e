import copy
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from qunlearn.evaluation import evaluate
from qunlearn.evaluation.audit.crossfit import matched, tell_apart
from qunlearn.evaluation.audit.probes import marginals
from tests.evaluation.audit.cases import Trained

SIX = ("probe_linear_encoder", "probe_rbf_encoder", "probe_linear_circuit", "probe_rbf_circuit", "probe_linear_states",
       "probe_rbf_states")  # fmt: skip


def _random_state(samples: int, qubits: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(samples, *[2] * qubits, dtype=torch.complex128, generator=generator)
    found: torch.Tensor = state / state.flatten(1).norm(dim=1).reshape(-1, *[1] * qubits)
    return found


def _head_only(models: Trained) -> nn.Module:
    """The control: the head alone learns the original's answers with the forgotten class struck out."""
    control = copy.deepcopy(models.original)
    *body, head = control.children()
    with torch.no_grad():
        logits, features = models.original(models.split.train.x), nn.Sequential(*body)(models.split.train.x)
        logits[:, models.split.forget_class] = -torch.inf
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        cross_entropy(head(features), logits.softmax(1)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return control


def test_outputs_take_the_head_only_control_for_forgetting_and_probes_do_not(digit: Trained) -> None:
    control = _head_only(digit)
    found = digit.audit(control, "probes", "information", "class_deletion")
    before = digit.audit(digit.original, "probes", "information", "class_deletion")
    # By its outputs the class is gone, and the model is as near to retraining as retraining is to itself.
    row = evaluate(control, digit.split, original=digit.original, retrained=digit.retrained)
    assert row["accuracy_forget"] == found["class_deletion_forgotten"].value == 0
    assert before["class_deletion_forgotten"].value > 0.4
    assert row["js_forget"] < row["js_forget_floor_high"]
    assert row["tow"] > row["tow_floor_low"]
    assert row["oracle_distance"] < row["oracle_distance_floor_high"]
    # Inside nothing has changed, and what was to go stands out beside the retrained models.
    for name in SIX:
        assert found[name] == before[name]
    for name in SIX[2:]:
        assert found[name].value > found[name].retrained_high
        assert found[f"{name}_auc"].value > found[f"{name}_auc"].retrained_high
    assert found["idi"].value == before["idi"].value == pytest.approx(1)
    assert found["idi"].retrained_high < 0.6
    assert found["idi_holevo"].value == pytest.approx(1)


def test_the_encoders_and_the_circuits_features_are_what_enters_and_leaves_it(digit: Trained) -> None:
    subject = digit.auditor.bench.retrained[0]
    stages: Any = subject.model
    flat, linear, squash, circuit, _ = stages
    entered = squash(linear(flat(digit.split.test.x)))
    assert subject.outputs.encoded is not None
    assert subject.outputs.circuit is not None
    assert torch.allclose(subject.outputs.encoded["test"], entered, atol=1e-6)
    assert torch.allclose(subject.outputs.circuit["test"], circuit(entered), atol=1e-6)
    states = subject.states("test")
    assert states is not None
    assert torch.allclose(states, circuit.state(entered).to(states), atol=1e-6)


def test_marginals_are_the_partial_traces_with_their_distances() -> None:
    state = _random_state(5, 4)
    full = state.reshape(5, 16).numpy()
    coordinates = marginals(state).numpy()
    assert coordinates.shape == (5, 6 * 16)
    gram = np.zeros((5, 5))
    for number, wires in enumerate(combinations(range(4), 2)):
        rho = []
        for row in full:
            density = np.outer(row, row.conj()).reshape([2] * 8)
            for wire in sorted(set(range(4)) - set(wires), reverse=True):
                density = np.trace(density, axis1=wire, axis2=wire + density.ndim // 2)
            rho.append(density.reshape(4, 4))
        gram += np.real([[np.trace(one @ other) for other in rho] for one in rho])
        block = coordinates[:, 16 * number : 16 * (number + 1)]
        assert block[:, :4] == pytest.approx(np.real([np.diag(one) for one in rho]))
        upper = np.sqrt(2) * np.array([one[np.triu_indices(4, 1)] for one in rho])
        assert block[:, 4:10] == pytest.approx(upper.real)
        assert block[:, 10:] == pytest.approx(upper.imag)
    assert coordinates @ coordinates.T == pytest.approx(gram)
    assert marginals(_random_state(3, 1)).shape == (3, 4)


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_probes_read_nothing_from_random_features_and_everything_from_plain_ones(kind: str) -> None:
    target, found = np.arange(120) < 30, []
    for seed in range(40):
        random = np.random.default_rng(seed)
        told = tell_apart(random.normal(size=(120, 6)), target, np.zeros(120, dtype=int), kind, random)  # type: ignore[arg-type]
        assert not isinstance(told, str)
        found.append(told)
    # The rank sum's variance, doubled by cross-fitting; binomial shares of both sides; of the mean of forty.
    assert abs(np.mean([told.auc.value for told in found]) - 0.5) < 3.5 * np.sqrt(2 * 121 / (12 * 30 * 90) / 40)
    spread = np.sqrt(2 * (0.25 / 30 + 0.25 / 90) / 4 / 40)
    assert abs(np.mean([told.balanced.value for told in found]) - 0.5) < 3.5 * spread
    # An interval of 95 % misses 7 of 40 or more once in a thousand times.
    for bounds in ([told.auc for told in found], [told.balanced for told in found]):
        assert sum(not one.low <= 0.5 <= one.high for one in bounds) < 7
    plain = np.where(target, 1.0, -1.0)[:, None] + 0.1 * random.normal(size=(120, 1))
    told = tell_apart(plain, target, np.zeros(120, dtype=int), kind, random)  # type: ignore[arg-type]
    assert not isinstance(told, str)
    assert told.balanced.value == 1
    assert told.auc.value == pytest.approx(1)
    assert told.balanced.low < 1


def test_a_bent_feature_hides_from_the_linear_probe_alone() -> None:
    random = np.random.default_rng(0)
    radius = np.where(np.arange(200) < 60, 1.0, 2.0) + 0.1 * random.normal(size=200)
    angle = random.uniform(0, 2 * np.pi, 200)
    rows = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    linear, rbf = (
        tell_apart(rows, np.arange(200) < 60, np.zeros(200, dtype=int), kind, np.random.default_rng(1))
        for kind in ("linear", "rbf")
    )
    assert not isinstance(linear, str)
    assert not isinstance(rbf, str)
    assert linear.balanced.value < 0.65
    assert rbf.balanced.value > 0.95


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_classes_that_one_side_holds_more_often_tell_nothing(kind: str) -> None:
    # The features are the class, of which members have few of one and many of the other.
    member = np.arange(200) < 50
    strata = np.where(member, np.arange(200) % 5 == 0, np.arange(200) % 2 == 0).astype(int)
    rows = strata[:, None] + 0.3 * np.random.default_rng(0).normal(size=(200, 1))
    told = tell_apart(rows, member, strata, kind, np.random.default_rng(0))  # type: ignore[arg-type]
    unmatched = tell_apart(rows, member, np.zeros(200, dtype=int), kind, np.random.default_rng(0))  # type: ignore[arg-type]
    assert not isinstance(told, str)
    assert not isinstance(unmatched, str)
    assert told.auc.low < 0.5 < told.auc.high
    assert unmatched.auc.value > 0.6


def test_matching_gives_the_others_the_groups_class_shares() -> None:
    target = np.array([True, True, True, False, False, False, False, True])
    strata = np.array([0, 0, 1, 0, 1, 1, 2, 3])
    assert matched(target, strata).tolist() == [1, 1, 1, 2, 0.5, 0.5, 0, 0]


def test_too_few_samples_are_a_reason() -> None:
    told = tell_apart(np.zeros((10, 1)), np.arange(10) < 3, np.zeros(10, dtype=int), "rbf", np.random.default_rng(0))
    assert told == "3 samples on one side are too few to train a classifier and to test it"
