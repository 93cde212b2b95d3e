import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from qunlearn import metrics
from qunlearn.data import Dataset
from qunlearn.evaluation.audit.critics import information_by_sample
from qunlearn.evaluation.audit.holevo import contributions, measured
from qunlearn.evaluation.audit.information import NOTHING
from qunlearn.evaluation.audit.subject import Subject
from qunlearn.quantum import load_circuit
from qunlearn.training.seeds import Seeds
from tests.evaluation.audit.cases import Trained, network


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 1e-14]
    return float(-(shares * np.log(shares)).sum())


def test_the_index_is_one_for_the_original_and_about_zero_for_retrained_models(digit: Trained) -> None:
    found = digit.audit(digit.original, "information")
    idi = found["idi"]
    assert idi.value == pytest.approx(1)
    assert idi.low < 1 < idi.high
    assert -0.5 < idi.retrained_low <= idi.retrained_high < 0.5
    names = [finding.name for finding in found if finding.name.startswith("information_")]
    assert names == ["information_1", "information_3"]  # the linear map, the circuit; the last stage gives the logits
    parts = [[found[name].value for name in names], [found[name].retrained for name in names]]
    control = digit.audit(digit.retrained[0], "information")
    mine = [control[name].value for name in names]
    others = [control[name].retrained for name in names]
    expected = metrics.information_difference(mine, parts[0], others)
    assert control["idi"].value == pytest.approx(expected)


def test_a_subset_that_is_as_unknown_after_as_before_has_no_index(by_heart: Trained) -> None:
    alike = dataclasses.replace(by_heart, original=by_heart.retrained[0], retrained=by_heart.retrained[1:])
    assert alike.audit(by_heart.retrained[1], "information")["idi"].reason == NOTHING


@pytest.mark.parametrize(("told", "expected"), [("all", 1.0), ("nothing", 0.0)])
def test_critics_find_what_there_is(told: str, expected: float) -> None:
    random = np.random.default_rng(0)
    member = np.arange(240) < 60
    x = random.normal(size=(240, 5)).astype(np.float32)
    if told == "all":
        x[:, 0] = np.where(member, 3, -3)
    linear = nn.Linear(5, 5)
    model = nn.Sequential(nn.Identity(), linear, *network(0, 5, 3, hidden=8))
    with torch.no_grad():
        linear.weight.copy_(torch.eye(5))
        linear.bias.zero_()
    data = Dataset(x, np.zeros(240, dtype=int))
    subject = Subject(model, {"set": data})
    terms = information_by_sample(subject, subject.stages[0], {"set": np.arange(240)}, member, Seeds(0))
    assert not isinstance(terms, str)
    assert terms.mean() == pytest.approx(expected * _entropy(np.array([0.25, 0.75])), abs=0.06)
    # No critic scores a sample higher than being certain of its label.
    assert (terms <= np.log(np.where(member, 4, 4 / 3)) + 1e-6).all()


def test_a_stage_that_is_passed_by_cannot_be_read_alone() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = x + self.second(self.first(x))
            return found

    data = Dataset(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), np.arange(20) % 4)
    subject = Subject(Residual(), {"set": data})
    reason = information_by_sample(subject, subject.stages[0], {"set": np.arange(20)}, np.arange(20) < 5, Seeds(0))
    assert "also reads earlier stages" in str(reason)


def test_terms_of_density_matrices_average_to_the_holevo_information() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(9, 4)) + 1j * random.normal(size=(9, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rho = np.einsum("ni,nj->nij", vectors, vectors.conj())
    member = np.arange(9) < 3

    def entropy(matrix: np.ndarray) -> float:
        return _entropy(np.linalg.eigvalsh(matrix))

    chi = entropy(rho.mean(0)) - entropy(rho[member].mean(0)) / 3 - 2 * entropy(rho[~member].mean(0)) / 3
    assert contributions(torch.from_numpy(rho), member).mean() == pytest.approx(chi)


def test_terms_of_distributions_average_to_the_mutual_information_also_where_an_outcome_never_comes() -> None:
    chances = np.random.default_rng(1).dirichlet(np.ones(5), size=8)
    chances[:, 2] = 0
    chances[:4, 0] = 0
    chances /= chances.sum(axis=1, keepdims=True)
    member = np.arange(8) < 4
    chi = _entropy(chances.mean(0)) - np.mean([_entropy(chances[side].mean(0)) for side in (member, ~member)])
    assert contributions(torch.from_numpy(chances), member).mean() == pytest.approx(chi)


def test_what_is_measured_are_outcomes_of_z_and_reduced_states_of_the_rest() -> None:
    circuit = load_circuit("ring-cz", qubits=3, depth=1)
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(4, 2, 2, 2, dtype=torch.complex128, generator=generator)
    state /= state.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    two = dataclasses.replace(circuit, observables=("ZII", "IIZ"))
    expected = np.abs(state.numpy()) ** 2
    assert measured(state, two).numpy() == pytest.approx(expected.sum(axis=2).reshape(4, 4))
    other = dataclasses.replace(circuit, observables=("XII",))
    rho = np.einsum("nabc,ndbc->nad", state.numpy(), state.numpy().conj())
    assert measured(state, other).numpy() == pytest.approx(rho)


def test_zero_retrain_forgetting_is_one_for_what_answers_like_a_fresh_model(digit: Trained) -> None:
    fresh = digit.auditor.bench.untrained(digit.original)
    assert not isinstance(fresh, str)
    assert digit.audit(fresh.model, "information")["zrf"].value == pytest.approx(1)
    found = digit.audit(digit.original, "information")["zrf"]
    logits = [model(digit.split.forget.x).detach() for model in (digit.original, fresh.model)]
    assert found.value == pytest.approx(metrics.zrf(*logits), abs=1e-5)
