import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from qunlearn.data import Dataset, ForgetRequest, load_dataset
from qunlearn.evaluation.audit.bench import Bench
from qunlearn.evaluation.audit.gradients import gradient_norms
from qunlearn.evaluation.audit.subject import Subject
from qunlearn.training import Recipe
from tests.evaluation.audit.cases import Trained, hybrid, network, trained

SCORES = ("confidence", "loss", "entropy", "modified_entropy", "gradient_norm", "trained")


@pytest.mark.parametrize("score", SCORES)
def test_what_was_learnt_by_heart_is_found_and_what_was_not_is_not(by_heart: Trained, score: str) -> None:
    found = by_heart.audit(by_heart.original, "membership")
    auc, balanced = found[f"membership_{score}_auc"], found[f"membership_{score}_balanced"]
    assert auc.low > 0.6
    assert balanced.low > 0.55
    # Retrained models never saw either side: the rank sum's standard deviation is that of the hypothesis.
    m, n = len(by_heart.split.forget), len(by_heart.split.holdout)
    deviation = np.sqrt((m + n + 1) / (12 * m * n))
    assert max(abs(auc.retrained_low - 0.5), abs(auc.retrained_high - 0.5)) < 3.5 * deviation
    assert max(abs(balanced.retrained_low - 0.5), abs(balanced.retrained_high - 0.5)) < 3.5 * np.sqrt(0.25 / min(m, n))
    assert found[f"membership_{score}_auc_excess"].value == pytest.approx(auc.value - auc.retrained)


def test_who_sees_both_models_finds_what_was_unlearned(by_heart: Trained) -> None:
    # The retrained model says nothing of the forget samples, but beside the original it tells which they were.
    found = by_heart.audit(by_heart.retrained[0], "membership")
    assert found["membership_before_after_auc"].low > 0.7
    assert found["membership_loss_auc"].low < 0.55


@pytest.mark.parametrize("name", ["hybrid", "network", "convolution"])
def test_gradient_norms_are_those_of_a_loop(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = {
            "hybrid": hybrid(0, qubits=3, depth=1),
            "network": nn.Sequential(nn.Flatten(), network(0, 64, 10)),
            "convolution": nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(72, 10)),
        }
        data = Dataset(torch.randn(7, 1, 8, 8), torch.arange(7) % 3)
    model = models[name].double()
    expected = []
    model.eval()
    for x, y in zip(data.x.double(), data.y, strict=True):
        model.zero_grad()
        cross_entropy(model(x[None]), y[None]).backward()  # type: ignore[no-untyped-call]
        expected.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item())
    model.zero_grad(set_to_none=True)
    model.train()
    assert gradient_norms(Subject(model, {"set": data}), "set") == pytest.approx(expected, rel=1e-6)
    assert model.training
    assert "no parameters" in str(gradient_norms(Subject(model.requires_grad_(False), {"set": data}), "set"))


def test_wrong_labels_alone_do_not_look_like_membership() -> None:
    split = load_dataset("digits", per_class=40).split(
        ForgetRequest.of_corrupted(), seed=0, corruption={"label_flips": 0.2}
    )
    models = trained(split, nn.Sequential(nn.Flatten(), network(0, 64, 10)), Recipe(epochs=30), 2)
    found = models.audit(models.original, "membership")["membership_loss_auc"]
    m, n = len(split.forget), len(split.holdout)
    assert found.low > 0.55
    assert max(abs(found.retrained_low - 0.5), abs(found.retrained_high - 0.5)) < 3.5 * np.sqrt(
        (m + n + 1) / (12 * m * n)
    )


def test_a_request_whose_classes_no_holdout_sample_has_says_so(by_heart: Trained) -> None:
    bench = Bench(by_heart.split, None, [])
    bench.others[:] = 1
    bench.members[:] = 0
    assert bench.unmatched == "no holdout sample has the class of a forget sample"
