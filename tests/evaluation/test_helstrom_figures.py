"""What a row says of the states: which samples are compared, beside what, and the verdict of real models."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from qunlearn.data import Corruption, Dataset, ForgetRequest, Split
from qunlearn.evaluation import Judge, Predictions, evaluate, predict, verdict
from qunlearn.evaluation.audit.bench import Bench
from qunlearn.evaluation.reference import MOST, reference, unseen, unseen_set
from qunlearn.metrics import helstrom_crossfit, helstrom_scores
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.layer import QuantumLayer
from tests.quantum.cases import kraus_density

Splits = Callable[..., Split]


def _data(samples: int = 240, classes: int = 3) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(samples) % classes
    x = torch.randn(samples, 2, generator=generator) * 0.3 + y[:, None]
    return Dataset(x, y)


def _model(seed: int, scale: float = 1.0) -> nn.Sequential:
    """Linear(2, 2), a circuit of two wires, Linear(2, 3); `scale` is how far the encoder spreads its inputs."""
    generator = torch.Generator().manual_seed(seed)
    layer = QuantumLayer(load_circuit("ring-cz", qubits=2, depth=1), generator=generator)
    model = nn.Sequential(nn.Linear(2, 2), layer, nn.Linear(2, 3))
    with torch.no_grad():
        for parameter in (*model[0].parameters(), *model[2].parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        next(model[0].parameters()).add_(scale * torch.eye(2))
    return model


def _states(model: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    layer = model[1]
    assert isinstance(layer, QuantumLayer)
    with torch.no_grad():
        return layer.state(model[:1](x)).to(torch.complex64)


def test_a_class_stands_against_unseen_samples_of_the_others() -> None:
    split, model = _data().split(ForgetRequest.of_class(1), seed=0), _model(0)
    kept = split.holdout.x[split.holdout.y != 1]
    found = evaluate(model, split)["helstrom_forget"]
    assert found == pytest.approx(
        helstrom_crossfit(_states(model, split.forget.x), _states(model, kept), seed=split.seed), abs=1e-6
    )
    assert found > 0.1
    assert helstrom_scores(_states(model, split.forget.x), _states(model, kept)).pairs == len(kept)


def test_a_subset_stands_against_unseen_samples_of_its_classes() -> None:
    split, model = _data().split(ForgetRequest.of_fraction(0.2), seed=0), _model(0)
    found = evaluate(model, split)["helstrom_forget"]
    classes = split.forget.y.numpy(), split.holdout.y.numpy()
    states = _states(model, split.forget.x), _states(model, split.holdout.x)
    assert found == pytest.approx(helstrom_crossfit(*states, strata=classes, seed=split.seed), abs=1e-6)
    # Samples of one class that all are alike to the model: nothing to tell, whatever the shares of the classes.
    y = np.array([0] * 9 + [2] * 3), np.array([0] * 4 + [1] * 9 + [2] * 7)
    chosen = reference(*y, None)
    assert helstrom_scores(torch.eye(4)[y[0]], torch.eye(4)[y[1]], strata=chosen.strata).pairs == 7
    assert helstrom_crossfit(torch.eye(4)[y[0]], torch.eye(4)[y[1]], strata=chosen.strata) == 0


def test_many_samples_are_thinned_out_evenly() -> None:
    members, others = np.zeros(1000, dtype=np.int64), np.arange(3000) % 2
    chosen = reference(members, others, 0)
    assert (len(chosen.forget), len(chosen.outside)) == (MOST, 2 * MOST)
    assert (others[chosen.outside] == 1).all()
    assert (chosen.forget[0], chosen.forget[-1], chosen.outside[-1]) == (0, 999, 2999)
    assert len(reference(members, others[:0], None).outside) == 0


def test_where_the_holdout_set_was_trained_on_the_test_set_is_outside() -> None:
    data = _data()
    split = data.split(ForgetRequest.of_class(1), protocol="published", seed=0)
    assert "holdout" in split.aliases
    assert unseen_set(split) == "test"
    found = predict(_model(0), split)
    np.testing.assert_array_equal(found.states["outside"], found.states["test"])
    row = evaluate(_model(0), split)
    assert row["helstrom_forget"] == pytest.approx(
        helstrom_crossfit(
            _states(_model(0), split.forget.x), _states(_model(0), split.test.x[split.test.y != 1]), seed=split.seed
        ),
        abs=1e-6,
    )


SPOILT = {"labels": Corruption(label_flips=0.3), "inputs": Corruption(feature_noise=0.3)}


@pytest.mark.parametrize("kind", SPOILT)
def test_corrupted_samples_stand_against_unseen_ones_corrupted_alike(kind: str) -> None:
    split = _data().split(ForgetRequest.of_corrupted(), seed=0, corruption=SPOILT[kind])
    outside = unseen(split)
    found = predict(_model(0), split)
    truth = _states(_model(0), outside.data.x).flatten(1).numpy()
    np.testing.assert_allclose(found.states["outside"], truth, atol=1e-6)
    assert torch.equal(outside.data.x, split.holdout.x) == (kind == "labels")
    assert found.logits.keys() == {"forget", "retain", "validation", "test", "holdout"}
    bench = Bench(split, None, [])
    np.testing.assert_array_equal(bench.members, outside.forget_classes)


def test_the_row_holds_it_beside_the_original_and_the_retrained_models() -> None:
    split = _data().split(ForgetRequest.of_class(1), seed=0)
    original, others = _model(1, 2.0), [_model(seed) for seed in (2, 3, 4, 5)]
    judge = Judge(split, original=original, retrained=others)
    row = judge.row(_model(9))
    own = [evaluate(model, split)["helstrom_forget"] for model in others]
    assert row["helstrom_forget_original"] == evaluate(original, split)["helstrom_forget"]
    assert row["helstrom_forget_floor"] == pytest.approx(np.mean(own))
    assert (row["helstrom_forget_floor_low"], row["helstrom_forget_floor_high"]) == (min(own), max(own))
    assert {**judge(_model(9)), "verdict": row["verdict"]} == row


def _js_of_each(split: Split, models: list[nn.Sequential]) -> list[float]:
    return [
        evaluate(one, split, retrained=[other for other in models if other is not one])["js_forget"] for one in models
    ]


def test_the_verdict_of_a_row_is_that_of_its_figures() -> None:
    split = _data().split(ForgetRequest.of_class(1), seed=0)
    original, others = _model(1, 2.0), [_model(seed, 0.2) for seed in (2, 3, 4, 5)]
    judge, found = Judge(split, original=original, retrained=others), set()
    states = [evaluate(model, split)["helstrom_forget"] for model in others]
    for model in (_model(9, 0.2), _model(8, 3.0), original):
        row = judge(model)
        told = row["helstrom_forget"], row["helstrom_forget_original"]
        expected = verdict(*told, states, row["js_forget"], _js_of_each(split, others))
        assert judge.row(model)["verdict"] == expected
        found.add(expected)
    assert "erases" in found
    assert found - {"erases"}
    # A retrained model is judged beside the others, as if it were not among them.
    row = judge(others[0])
    told = row["helstrom_forget"], row["helstrom_forget_original"]
    expected = verdict(*told, states[1:], row["js_forget"], _js_of_each(split, others[1:]))
    assert judge.row(others[0])["verdict"] == expected == "erases"


def test_no_verdict_without_states_an_original_or_three_retrained_models(
    tables: Callable[..., nn.Module], splits: Splits
) -> None:
    flat = Judge(splits(), original=tables(1), retrained=[tables(seed) for seed in (2, 3, 4)]).row(tables(0))
    assert flat["verdict"] == ""
    assert math.isnan(float(flat["helstrom_forget"]))
    assert math.isnan(float(flat["helstrom_forget_floor"]))
    split = _data().split(ForgetRequest.of_class(1), seed=0)
    others = [_model(seed) for seed in (2, 3, 4)]
    assert Judge(split, original=_model(1), retrained=others).row(_model(0))["verdict"] != ""
    assert Judge(split, original=_model(1), retrained=others[:2]).row(_model(0))["verdict"] == ""
    assert Judge(split, retrained=others).row(_model(0))["verdict"] == ""
    assert Judge(split, original=_model(1), retrained=others).row(others[0])["verdict"] == ""


def test_predictions_kept_by_earlier_versions_are_known_as_such(tables: Callable[..., nn.Module]) -> None:
    split = _data().split(ForgetRequest.of_class(1), seed=0)
    found = predict(_model(0), split)
    assert found.complete
    states = {name: part for name, part in found.states.items() if name != "outside"}
    old = Predictions(found.logits, found.labels, found.ids, found.parameters, found.periods, states)
    assert not old.complete
    assert math.isnan(evaluate(old, split)["helstrom_forget"])


def _noisy(model: nn.Sequential, strength: float) -> nn.Sequential:
    noisy = copy.deepcopy(model)
    layer = noisy[1]
    assert isinstance(layer, QuantumLayer)
    layer.run_on(noise={"depolarizing": strength})
    return noisy


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_a_noisy_circuit_is_judged_by_its_density_matrices(strength: float) -> None:
    split, model = _data().split(ForgetRequest.of_class(1), seed=0), _model(1, 2.0)
    noisy = _noisy(model, strength)
    layer = noisy[1]
    assert isinstance(layer, QuantumLayer)
    kept = split.holdout.x[split.holdout.y != 1]
    with torch.no_grad():
        states = [
            torch.stack([kraus_density(layer.circuit, row, layer.weights).reshape(4, 4) for row in noisy[:1](x)])
            for x in (split.forget.x, kept)
        ]
    found = Judge(split, original=model, retrained=[_model(seed) for seed in (2, 3, 4)]).row(noisy)
    assert found["helstrom_forget"] == pytest.approx(helstrom_crossfit(*states, seed=split.seed), abs=1e-5)
    assert found["verdict"] != ""
    before = evaluate(model, split)["helstrom_forget"]
    assert before > 0.3
    assert float(found["helstrom_forget"]) < before
    if strength == 1.0:  # nothing is left
        assert found["helstrom_forget"] == pytest.approx(0.0, abs=1e-5)
    assert predict(noisy, split).states.keys() == {"forget", "outside"}
    assert not any(name.startswith("state_fidelity") for name in found)
    among = evaluate(_noisy(model, 0.9 * strength), split, retrained=[noisy])
    assert "js_forget" in among
    assert not any(name.startswith("state_fidelity") for name in among)  # mixed states are not taken for pure ones
