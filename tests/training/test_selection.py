"""What is measured after an epoch, against numbers worked out by hand, and which epoch each rule keeps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from qunlearn.data import Dataset
from qunlearn.training.net import Net
from qunlearn.training.selection import (
    Candidate,
    Rule,
    Watch,
    keep_accuracy,
    keep_forgotten,
    keep_last,
    keep_loss,
    keep_matched_error,
    keep_setting,
)

CLASSES = ("a", "b", "c")


def identity() -> Net:
    """Inputs are the logits."""
    module = nn.Linear(3, 3, bias=False, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(torch.eye(3))
    return Net(module)


def logits_of(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    """Logits whose softmax is the rows."""
    return torch.tensor(rows, dtype=torch.float64).log()


def data(rows: Sequence[Sequence[float]], labels: Sequence[int], first: int = 0) -> Dataset:
    numbers = torch.arange(first, first + len(labels))
    return Dataset(logits_of(rows), torch.tensor(labels), ids=numbers, classes=CLASSES)


# Class 2 is only in the forget set. Forget mix: class 0 once, class 2 three times.
FORGET = data([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], [0, 2, 2, 2])
VALIDATION = data(
    [[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5], [0.6, 0.2, 0.2]], [0, 0, 1, 2, 2], 100
)


def test_what_is_measured_equals_hand_counts() -> None:
    net = identity()
    found = Watch(FORGET, VALIDATION, frozenset({0, 1}))(net, 4)
    losses = [-math.log(p) for p in (0.8, 0.3, 0.8, 0.5, 0.2)]
    assert found.epoch == 4
    assert found.forget_loss == pytest.approx(-sum(math.log(p) for p in (0.5, 0.6, 0.1, 0.8)) / 4)
    assert found.forget_accuracy == pytest.approx(3 / 4)
    assert found.validation_loss == pytest.approx(sum(losses) / 5)
    assert found.validation_accuracy == pytest.approx(3 / 5)
    assert found.validation_accuracy_retained == pytest.approx(2 / 3)
    assert found.validation_accuracy_forgotten == pytest.approx(1 / 2)
    # A quarter of the forget set is of class 0 (validation losses 0, 1), three quarters of class 2 (3, 4).
    matched = (losses[0] + losses[1]) / 2 / 4 + (losses[3] + losses[4]) / 2 * 3 / 4
    assert found.matched_loss == pytest.approx(matched)
    assert found.matched_accuracy == pytest.approx(1 / 2 / 4 + 1 / 2 * 3 / 4)
    assert net.counts.gradient_evaluations == 0


def test_classes_without_validation_samples_drop_out_of_the_match() -> None:
    only = VALIDATION.select([0, 1, 2])  # classes 0 and 1
    found = Watch(FORGET, only, frozenset({0, 1}))(identity(), 0)
    assert found.matched_loss == pytest.approx(-(math.log(0.8) + math.log(0.3)) / 2), "class 0 alone is shared"
    assert found.validation_accuracy_forgotten is None
    none = Watch(FORGET.select([1, 2]), only, frozenset({0, 1}))(identity(), 0)
    assert none.matched_loss is None
    assert none.matched_accuracy is None


def test_forget_samples_are_matched_with_what_is_unseen_and_spoilt_alike() -> None:
    spoilt = data([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]], [2, 0], 200)
    plain = Watch(FORGET, VALIDATION, frozenset({0, 1}))(identity(), 0)
    found = Watch(FORGET, VALIDATION, frozenset({0, 1}), spoilt)(identity(), 0)
    # A quarter of the forget set is of class 0 (unseen sample 1), three quarters of class 2 (unseen sample 0).
    assert found.matched_loss == pytest.approx(-math.log(0.2) / 4 - math.log(0.1) * 3 / 4)
    assert found.matched_accuracy == 0
    others = {"matched_loss": None, "matched_accuracy": None}
    assert found.to_dict() | others == plain.to_dict() | others, "all else stays as it was"


def test_what_is_missing_is_not_measured() -> None:
    net = identity()
    assert Watch()(net, 3).to_dict() == {"epoch": 3}
    assert set(Watch(validation=VALIDATION)(net, 0).to_dict()) == {"epoch", "validation_loss", "validation_accuracy"}
    assert set(Watch(forget=FORGET)(net, 0).to_dict()) == {"epoch", "forget_loss", "forget_accuracy"}


def losses(*values: float) -> list[Candidate]:
    return [Candidate(i, validation_loss=value) for i, value in enumerate(values)]


def accuracies(*values: float) -> list[Candidate]:
    return [Candidate(i, validation_accuracy=value) for i, value in enumerate(values)]


def errors(*pairs: tuple[float, float | None]) -> list[Candidate]:
    return [Candidate(i, forget_accuracy=f, matched_accuracy=m) for i, (f, m) in enumerate(pairs)]


def subset(*triples: tuple[float, float | None, float]) -> list[Candidate]:
    """(forget loss, matched loss, validation accuracy on retained classes) an epoch."""
    return [
        Candidate(i, forget_loss=f, matched_loss=m, validation_accuracy_retained=a)
        for i, (f, m, a) in enumerate(triples)
    ]


def deleted(*pairs: tuple[float, float]) -> list[Candidate]:
    """(accuracy on the forgotten class, accuracy on retained classes) an epoch."""
    return [
        Candidate(i, validation_accuracy_forgotten=f, validation_accuracy_retained=a) for i, (f, a) in enumerate(pairs)
    ]


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("rule", "candidates", "wanted"),
    [
        (keep_last, losses(0.1, 0.5, 0.9), 2),
        (keep_loss, losses(0.1), 0),  # before the first epoch there is nothing else
        (keep_loss, losses(0.1, 0.5, 0.4, 0.4, 0.6), 2),  # epoch 0 is no candidate; ties go to the first
        (keep_loss, losses(0.1, NAN, 0.9), 2),
        (keep_accuracy, accuracies(0.99, 0.6, 0.8, 0.8, 0.7), 2),
        (keep_accuracy, accuracies(0.99, NAN, 0.0), 2),
        # subset requests: nearest to the matched loss, 2 points at most below the untouched model
        (keep_forgotten, subset((0.1, 1.0, 0.90), (0.7, 1.0, 0.89), (0.9, 1.0, 0.881), (1.0, 1.0, 0.86)), 2),
        (keep_forgotten, subset((0.1, 1.0, 0.90), (1.9, 1.0, 0.90), (1.2, 1.0, 0.90)), 2),
        (keep_forgotten, subset((0.1, 1.0, 0.90), (1.0, 1.0, 0.88)), 1),  # exactly 2 points is still eligible
        (keep_forgotten, subset((1.0, 1.0, 0.5), (1.0, 1.0, 0.9)), 0),  # ties go to the earliest
        (keep_forgotten, subset((0.1, 1.0, 0.9), (5.0, 1.0, 0.9)), 0),  # over-forgetting is no gain
        (keep_forgotten, subset((0.1, 1.0, 0.9), (INF, INF, 0.9), (0.5, 1.0, 0.9)), 2),
        # no class in common with the validation set: the last that keeps its accuracy
        (keep_forgotten, subset((0.1, None, 0.9), (0.5, None, 0.9), (0.9, None, 0.5)), 1),
        # class requests: lowest on the forgotten class, then highest on the rest, then the earliest
        (keep_forgotten, deleted((0.9, 0.90), (0.3, 0.90), (0.1, 0.89), (0.0, 0.80)), 2),
        (keep_forgotten, deleted((0.9, 0.90), (0.1, 0.89), (0.1, 0.90), (0.1, 0.90)), 2),
        (keep_forgotten, deleted((0.0, 0.90), (0.0, 0.90)), 0),
        (keep_matched_error, errors((1.0, 0.6), (0.7, 0.6), (0.55, 0.6), (0.1, 0.6)), 2),
        (keep_matched_error, errors((0.7, 0.6), (0.5, 0.6)), 0),  # equally far: the earliest
        (keep_matched_error, errors((1.0, None), (0.5, None), (0.2, None)), 2),
    ],
)
def test_rules_keep_the_epoch_that_their_sentence_names(rule: Rule, candidates: list[Candidate], wanted: int) -> None:
    assert rule(candidates) == wanted


@pytest.mark.parametrize(
    ("candidates", "wanted"),
    [
        # the first is the untouched model, which is no setting even where it ranks first
        (subset((1.0, 1.0, 0.90), (0.2, 1.0, 0.90), (0.5, 1.0, 0.89), (1.0, 1.0, 0.80)), 1),
        (subset((0.1, 1.0, 0.90), (0.7, 1.0, 0.90), (0.7, 1.0, 0.90)), 0),  # ties go to the first
        (subset((0.1, 1.0, 0.90), (1.0, 1.0, 0.80), (5.0, 1.0, 0.85), (1.0, 1.0, 0.85)), 1),  # none is eligible
        (deleted((0.9, 0.90), (0.2, 0.89), (0.1, 0.89), (0.1, 0.95), (0.0, 0.5)), 2),
        (deleted((0.9, 0.90), (0.9, 0.90)), 0),
    ],
)
def test_the_setting_that_is_kept(candidates: list[Candidate], wanted: int) -> None:
    assert keep_setting(candidates[0], candidates[1:]) == wanted


@pytest.mark.parametrize("rule", [keep_loss, keep_accuracy, keep_forgotten, keep_matched_error])
def test_a_rule_never_returns_to_an_epoch_that_it_had_left(rule: Callable[[Sequence[Candidate]], int]) -> None:
    """The loop stores the state of an epoch only when it is chosen at its end."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        table = torch.randint(0, 4, (9, 7), generator=generator).double() / 4
        candidates = [Candidate(i, *row.tolist()) for i, row in enumerate(table)]
        chosen = [rule(candidates[: n + 1]) for n in range(len(candidates))]
        for number, (before, after) in enumerate(itertools.pairwise(chosen), start=1):
            assert after in (before, number)
