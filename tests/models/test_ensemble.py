"""Ensembles against NumPy's arithmetic of votes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.models import Ensemble, HybridClassifier, QuantumKernelClassifier, load_model, save_model
from qunlearn.quantum import load_circuit


class Constant(nn.Module):
    """The same logits for every sample."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


LOGITS = st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=5)


@given(LOGITS, st.data())
def test_the_mean_is_of_probabilities(logits: list[list[float]], data: st.DataObject) -> None:
    weight = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(logits), max_size=len(logits)))
    ensemble = Ensemble([Constant(row) for row in logits])
    ensemble.weight.copy_(torch.tensor(weight))
    if not any(weight):
        with pytest.raises(InputError, match="has not learnt anything"):
            ensemble(torch.zeros(2, 1))
        return
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.average(shares, axis=0, weights=weight)
    found = ensemble(torch.zeros(2, 1))
    np.testing.assert_allclose(found.detach().exp().numpy(), np.stack([expected, expected]), rtol=1e-9)
    assert found.requires_grad


def test_the_majority_gives_each_member_one_vote_and_every_class_a_share_of_one_more() -> None:
    members = [Constant([0.0, 9.0, 1.0]), Constant([0.0, 0.2, 0.1]), Constant([0.0, 0.0, 50.0])]
    shares = Ensemble(members, vote="majority")(torch.zeros(1, 1)).exp()
    np.testing.assert_allclose(shares.detach().numpy(), [[1 / 12, 7 / 12, 4 / 12]], rtol=1e-12)


def hybrid(seed: int, encoder: str = "none") -> HybridClassifier:
    circuit = load_circuit("ring-cz", qubits=3, depth=1)
    return HybridClassifier(circuit, 3, encoder, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]


@pytest.mark.parametrize("vote", ["mean", "majority"])
def test_files_hold_every_member(tmp_path: Path, vote: str) -> None:
    x = torch.rand(9, 5)
    members = [hybrid(seed, "pca").fit(x + seed) for seed in range(3)]
    ensemble = Ensemble(members, vote=vote).eval()  # type: ignore[arg-type]
    ensemble.weight[1] = 0
    save_model(ensemble, tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, Ensemble)
    assert torch.equal(again(x), ensemble(x))
    assert [float(w) for w in again.weight] == [1, 0, 1]
    assert again.vote == vote


def test_files_hold_members_of_the_user_s_own_code_and_members_that_hold_samples(tmp_path: Path) -> None:
    x = torch.rand(5, 3, dtype=torch.float64)
    own = Ensemble([Constant([1.0, 2.0, seed]) for seed in range(2)])
    with pytest.raises(UnsupportedError, match="got Constant"):
        save_model(own, tmp_path / "own")
    save_model(own, tmp_path / "own", factory="mine:make")
    assert torch.equal(load_model(tmp_path / "own", into=Constant([0.0] * 3))(x), own(x))
    circuit = load_circuit("ring-cz", qubits=3, depth=1)
    kernels = [QuantumKernelClassifier(circuit, 2).solve(x[:n], torch.arange(n) % 2) for n in (5, 3)]
    save_model(Ensemble(kernels), tmp_path / "kernels")
    assert torch.equal(load_model(tmp_path / "kernels")(x), Ensemble(kernels)(x))


def test_members_of_two_kinds_and_unknown_votes_are_refused() -> None:
    with pytest.raises(InputError, match="got 2 kinds among 2"):
        Ensemble([Constant([0.0, 1.0]), Constant([0.0, 1.0, 2.0])])
    with pytest.raises(InputError, match="got 0 kinds among 0"):
        Ensemble([])
    with pytest.raises(UnknownNameError, match="did you mean 'mean'"):
        Ensemble([Constant([0.0, 1.0])], vote="means")  # type: ignore[arg-type]
