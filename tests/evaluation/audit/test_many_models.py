"""Audits that rest on many models: LiRA with shadow models, and forgetting quality."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import t

from qunlearn.data import ForgetRequest
from qunlearn.errors import InputError
from qunlearn.evaluation.audit.lira import OF_A_CLASS
from qunlearn.evaluation.audit.quality import DRAWS
from qunlearn.metrics.curve import attack_curve
from qunlearn.metrics.forgetting_quality import Population, forgetting_quality, null_quality
from qunlearn.metrics.lira import Shadows, lira_attack, phi
from tests.evaluation.audit.cases import Trained


def _shadows(models: Trained, leak: float, number: int = 16) -> Shadows:
    """Scores of imagined shadow models: those that saw a sample are surer of it by `leak` (twice before unlearning)."""
    forget, holdout = models.split.forget, models.split.holdout
    ids = torch.cat([forget.ids, holdout.ids]).numpy()
    random = np.random.default_rng(0)
    inside = random.random((number, len(ids))) < 0.5
    noise = random.normal(size=(2, number, len(ids)))
    return Shadows(
        scores=noise[0] + leak * inside,
        inside=inside,
        trained=noise[1] + 2 * leak * inside,
        ids=ids,
        labels=torch.cat([forget.y, holdout.y]).numpy(),
        member=np.arange(len(ids)) < len(forget),
    )


def test_lira_finds_the_leak_that_shadow_models_have(by_heart: Trained) -> None:
    found = by_heart.auditor(by_heart.original, shadows=_shadows(by_heart, 2.0), audits=["lira"])
    # Two normal distributions two apart: the best attacker's area is Phi(2 / sqrt 2), his accuracy Phi(1).
    assert found["u_lira_auc"].value == pytest.approx(0.9214, abs=0.02)
    assert found["u_lira_balanced"].value == pytest.approx(0.8413, abs=0.025)
    assert found["lira_auc"].value == pytest.approx(0.9977, abs=0.01)
    assert found["u_lira_auc"].low > 0.5
    assert found["u_lira_tpr_1pct"].value > 0.2
    assert "10000 non-member scores" in found["u_lira_tpr_01pct"].reason
    assert found["u_lira_auc"].reason == "16 shadow models"


def test_lira_finds_nothing_where_shadow_models_have_none(by_heart: Trained) -> None:
    found = by_heart.auditor(by_heart.original, shadows=_shadows(by_heart, 0.0), audits=["lira"])["u_lira_auc"]
    assert found.low < 0.5 < found.high
    assert found.value == pytest.approx(0.5, abs=0.05)


def test_the_audited_and_the_retrained_models_are_attacked_on_the_same_pool(by_heart: Trained) -> None:
    shadows = _shadows(by_heart, 1.0)
    found = by_heart.auditor(by_heart.original, shadows=shadows, audits=["lira"])
    x = torch.cat([by_heart.split.forget.x, by_heart.split.holdout.x])

    def area(model: torch.nn.Module) -> float:
        own = phi(model(x).detach(), shadows.labels)[None]
        return attack_curve(lira_attack(shadows.scores, shadows.inside, own), shadows.member).auc.value

    assert found["u_lira_model_auc"].value == pytest.approx(area(by_heart.original), abs=1e-6)
    expected = [area(model) for model in by_heart.retrained]
    for name in ("u_lira_auc", "u_lira_model_auc"):
        assert found[name].retrained == pytest.approx(np.mean(expected), abs=1e-6)
    assert found["u_lira_model_auc"].value > found["u_lira_model_auc"].retrained_high


def test_shadow_models_of_another_split_are_refused(by_heart: Trained, digit: Trained) -> None:
    shadows = _shadows(by_heart, 1.0)
    other = Shadows(**{**vars(shadows), "ids": shadows.ids + 10_000})
    with pytest.raises(InputError, match="expected shadow models of this split, got 135 samples"):
        by_heart.auditor(by_heart.original, shadows=other, audits=["lira"])
    (first, *_) = digit.auditor(digit.original, shadows="none", audits=["lira"])
    assert first.reason == OF_A_CLASS


def _population(models: Trained, shift: float, number: int = 64) -> Population:
    random = np.random.default_rng(0)
    size = (number, len(models.split.forget))
    ones = np.ones(number)
    return Population(random.normal(size=size) + shift, random.normal(size=size), ones, ones, 0.9 * ones, ones)


def test_forgetting_quality_stands_beside_what_chance_gives(by_heart: Trained) -> None:
    alike, apart = (
        by_heart.auditor(by_heart.original, population=_population(by_heart, shift), audits=["quality"])
        for shift in (0.0, 6.0)
    )
    quality = alike["forgetting_quality"]
    assert quality.value == pytest.approx(forgetting_quality(_population(by_heart, 0.0)).score)
    # The two sides differ by chance alone, so that the score is one more deal of the models: it lies beyond 59 others
    # in two of 60 cases. What stands beside it is the mean of ten deals.
    chance = np.array([null_quality(_population(by_heart, 0.0), draws=1, seed=seed).value for seed in range(59)])
    assert chance.min() <= quality.value / 0.9 <= chance.max()
    error = chance.std(ddof=1) * math.sqrt(1 / DRAWS + 1 / len(chance))
    assert abs(quality.retrained - chance.mean()) <= t.ppf(0.999, len(chance) - 1) * error
    assert quality.n == 64
    assert f"ln(N - 1) = {math.log(63):.2f}" in quality.reason
    assert apart["forgetting_quality"].value < 0.1 * quality.value
    assert apart["forgetting_told_apart"].value == 1
    assert alike["forgetting_told_apart"].value < 0.2


def test_populations_that_are_too_small_or_of_other_samples_are_refused(by_heart: Trained) -> None:
    with pytest.raises(InputError, match="at least 64 models on the split's 60 forget samples, got 63 on 60"):
        by_heart.auditor(by_heart.original, population=_population(by_heart, 0.0, 63), audits=["quality"])
    small = _population(by_heart, 0.0)
    cut = Population(small.unlearned[:, 1:], small.retrained[:, 1:], *list(vars(small).values())[2:])
    with pytest.raises(InputError, match="got 64 on 59"):
        by_heart.auditor(by_heart.original, population=cut, audits=["membership"])
    assert ForgetRequest.of_fraction(0.2) == by_heart.split.request
