import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from qunlearn.data import Dataset, ForgetRequest
from qunlearn.evaluation.audit import audit
from qunlearn.evaluation.audit.drill import Drill, train_rows
from qunlearn.evaluation.audit.relearning import BATCH, CAP, FEW_BATCH, _few_positions, _halves, _order
from qunlearn.evaluation.audit.subject import Subject
from qunlearn.training.seeds import Seeds
from tests.evaluation.audit.cases import Trained, hybrid, network


@pytest.mark.parametrize("kind", ["hybrid", "unknown"])
def test_rows_are_trained_as_torch_trains_each_alone(kind: str) -> None:
    class Unknown(nn.Sequential):
        pass

    models = [hybrid(0, qubits=2, depth=1), hybrid(1, qubits=2, depth=1)]
    models = [Unknown(*model) if kind == "unknown" else model for model in models]
    generator = torch.Generator().manual_seed(0)
    data = Dataset(torch.rand(12, 1, 8, 8, generator=generator), torch.arange(12) % 10)
    positions = torch.randint(12, (3, 3, 4), generator=generator)
    rates = torch.tensor([0.01, 0.1, 0.003])
    found = torch.empty(6, 12, 10)

    def see(step: int, rows: slice, logits: object) -> bool:
        if step == 3:
            found[rows] = logits(data.x)  # type: ignore[operator]
        return False

    before = copy.deepcopy([model.state_dict() for model in models])
    train_rows([Subject(model, {"set": data}) for model in models], Drill(data, positions, rates), see)
    for number, start in enumerate(models):
        assert all(torch.equal(t, before[number][name]) for name, t in start.state_dict().items())
        for run, rate in enumerate(rates.tolist()):
            model = copy.deepcopy(start)
            optimizer = torch.optim.Adam(model.parameters(), lr=rate)
            for batch in positions[:, run]:
                optimizer.zero_grad()
                cross_entropy(model(data.x[batch]), data.y[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            assert torch.allclose(found[3 * number + run], model(data.x), atol=2e-4)


def test_the_original_has_nothing_to_relearn_and_retrained_models_have(digit: Trained) -> None:
    found = digit.audit(digit.original, "relearning")
    for rate in ("", "_slow"):
        steps = found[f"relearn_steps{rate}"]
        assert (steps.value, steps.low, steps.high) == (0, 0, 0)
        assert steps.retrained_low > 10
        assert steps.retrained_high <= CAP
        assert found[f"relearn_samples{rate}"].retrained == pytest.approx(BATCH * steps.retrained)
    assert found["relearn_steps"].retrained <= found["relearn_steps_slow"].retrained
    assert found["relearn_few_10"].value > found["relearn_few_10"].retrained_high


def test_what_is_not_relearnt_in_time_counts_as_the_cap_and_says_so(digit: Trained) -> None:
    stuck: Any = copy.deepcopy(digit.original)
    with torch.no_grad():
        stuck[-1].bias[3] = -50  # no step of 0.01 reaches back from there
    found = digit.audit(stuck, "relearning")["relearn_steps"]
    assert found.value == CAP
    assert found.reason == f"at most {CAP} steps are tried; 5 of 5 runs did not get there and count as {CAP}"


def test_the_first_step_that_reaches_the_accuracy_counts(by_heart: Trained) -> None:
    found = by_heart.audit(by_heart.retrained[0], "relearning")["relearn_steps"]
    split, seeds = by_heart.split, Seeds(0, "audit")
    target = 0.95 * float((by_heart.original(split.forget.x).argmax(1) == split.forget.y).double().mean())
    steps = []
    for number in range(5):
        model = copy.deepcopy(by_heart.retrained[0])
        optimizer, taken = torch.optim.Adam(model.parameters(), lr=0.01), 0
        order = _order(len(split.train), seeds.generator(f"order {number}"))
        for batch in order:
            optimizer.zero_grad()
            cross_entropy(model(split.train.x[batch]), split.train.y[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            taken += 1
            if float((model(split.forget.x).argmax(1) == split.forget.y).double().mean()) >= target:
                break
        steps.append(taken)
    assert found.value == pytest.approx(np.mean(steps), abs=0.5)  # rounding may move a sample over the line


def test_orders_take_every_sample_once_an_epoch() -> None:
    order = _order(70, torch.Generator().manual_seed(0))
    assert order.shape == (CAP, BATCH)
    assert len(set(order[:2].flatten().tolist())) == 64
    assert _order(5, torch.Generator()).shape == (CAP, 5)


def test_few_samples_come_from_one_half_of_the_forget_set_alone(digit: Trained) -> None:
    bench, seeds = digit.auditor.bench, Seeds(0, "audit")
    taken, away = _halves(bench, seeds)
    forget = digit.split.forget.ids
    assert sorted([*taken.tolist(), *away.tolist()]) == list(range(len(forget)))
    assert abs(len(taken) - len(away)) <= 1
    positions = _few_positions(bench, [(1, 0.1, taken), (5, 0.1, taken)], seeds)
    ids = digit.split.train.ids[positions]
    assert set(ids[:, 0, :FEW_BATCH].flatten().tolist()) == {int(forget[taken[0]])}
    assert set(ids[:, 1, :FEW_BATCH].flatten().tolist()) == set(forget[taken[:5]].tolist())
    assert torch.isin(ids[:, :, FEW_BATCH:], digit.split.retain.ids).all()


def test_a_small_forget_set_has_no_figure_for_many_shots(by_heart: Trained) -> None:
    data = Dataset(by_heart.split.train.x, by_heart.split.train.y)
    split = data.split(ForgetRequest.of_ids(_some_training_ids(data, 9)), seed=0)
    model = network(0, 40, 2)
    found = audit(model, split, original=model, audits=["relearning"])
    assert not math.isnan(found["relearn_few_1"].value)
    assert found["relearn_few_10"].reason == (
        "half of the forget set holds no 10 samples beside one to choose the rate by"
    )
    frozen = network(1, 40, 2).requires_grad_(False)
    assert "no parameters" in audit(frozen, split, original=model, audits=["relearning"])["relearn_steps"].reason


def _some_training_ids(data: Dataset, number: int) -> list[int]:
    train = data.split(ForgetRequest.of_fraction(0.5), seed=0).train
    return train.ids[:number].tolist()
