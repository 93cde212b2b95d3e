"""Likelihood-ratio attacks: leave-one-out by brute force, known power for Gaussians, nothing where nothing leaks."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from qunlearn.errors import CorruptFileError, InputError
from qunlearn.metrics import Curve, Shadows, attack_curve, auc, lira_attack, lira_scores, phi


def worlds(models: int, samples: int, shift: float, seed: int, width: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian outputs whose mean depends on the sample, and lies `shift` higher where it was trained on."""
    rng = np.random.default_rng(seed)
    inside = np.stack([rng.permutation(samples) < samples // 2 for _ in range(models)])
    noise = rng.normal(size=(models, samples)) * np.where(inside, width, 1.0)
    return 3 * rng.normal(size=samples) + shift * inside + noise, inside


def halves(models: int, samples: int) -> np.ndarray:
    """Every sample inside half of the models (rounded up)."""
    rng = np.random.default_rng(9)
    return np.stack([rng.permutation(models) < (models + 1) // 2 for _ in range(samples)], axis=1)


def test_phi_is_the_formula() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 4)) * 3
    y = np.arange(50) % 4
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = p[np.arange(50), y]
    wrong = np.delete(p.ravel(), np.arange(50) * 4 + y).reshape(50, 3).sum(axis=1)
    # as in the released challenge metric, whose small constant does not show here
    released = np.log(own + 1e-45) - np.log(wrong + 1e-45)
    np.testing.assert_allclose(phi(logits, y), released, rtol=1e-10, atol=1e-12)
    with pytest.raises(InputError, match="expected 0 to 3"):
        phi(logits, y + 1)


@pytest.mark.parametrize("models", [9, 64], ids=["common-variance", "own-variance"])
def test_each_shadow_model_is_attacked_with_the_others_alone(models: int) -> None:
    scores, inside = np.random.default_rng(5).normal(size=(models, 24)) * 2 + np.arange(24), halves(models, 24)
    found = lira_scores(scores, inside)
    for i in range(models):
        rest, worlds_ = np.delete(scores, i, axis=0), np.delete(inside, i, axis=0)
        parts = [[rest[worlds_[:, j] == side, j] for j in range(24)] for side in (True, False)]
        means = [np.array([values.mean() for values in part]) for part in parts]
        own = [np.array([values.var(ddof=1) for values in part]) for part in parts]
        free = [np.array([values.size - 1 for values in part]) for part in parts]
        if models < 64:
            own = [np.full(24, (v * f).sum() / f.sum()) for v, f in zip(own, free, strict=True)]
        truth = [norm.logpdf(scores[i], m, np.sqrt(v)) for m, v in zip(means, own, strict=True)]
        np.testing.assert_allclose(found[i], truth[0] - truth[1], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(lira_attack(rest, worlds_, scores[[i]])[0] if models < 64 else found[i], found[i])


@pytest.mark.parametrize("samples", [24, 25], ids=["even", "odd"])
def test_a_model_is_attacked_without_its_complement(samples: int) -> None:
    """Pairs share out the pool, but for one sample where it is odd."""
    rng = np.random.default_rng(3)
    orders = [rng.permutation(samples) for _ in range(5)]
    inside = np.stack([np.isin(np.arange(samples), order[start : start + samples // 2])
                       for order in orders for start in (0, samples // 2)])  # fmt: skip
    scores = rng.normal(size=inside.shape) * 2
    found = lira_scores(scores, inside)
    for i in range(10):
        pair = [i, i ^ 1]
        rest, worlds_ = np.delete(scores, pair, axis=0), np.delete(inside, pair, axis=0)
        np.testing.assert_allclose(found[i], lira_attack(rest, worlds_, scores[[i]])[0], rtol=1e-9, atol=1e-9)
    assert np.isnan(lira_scores(scores[:6], inside[:6])).any() == (samples == 25)
    assert np.isnan(lira_scores(scores[:4], inside[:4])).all()  # two others: one in each world


def test_pairs_that_share_out_the_pool_are_not_pulled_below_one_half() -> None:
    areas = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        halves_ = [rng.permutation(40) < 20 for _ in range(4)]
        inside = np.stack([side for half in halves_ for side in (half, ~half)])
        ratios = lira_scores(rng.normal(size=inside.shape), inside)
        areas.append(auc(ratios[inside], ratios[~inside]))
    assert abs(np.mean(areas) - 0.5) < 4 * np.std(areas) / math.sqrt(200)


def test_a_sample_with_too_few_models_in_a_world_is_left_out() -> None:
    scores, inside = np.random.default_rng(0).normal(size=(6, 8)), halves(6, 8)
    inside[:, 3] = [True, True, False, False, False, False]
    found = lira_scores(scores, inside)
    assert np.isnan(found[:, 3]).tolist() == [True, True, False, False, False, False]
    inside[:, 3] = [True, False, False, False, False, False]
    assert np.isnan(lira_attack(scores, inside, scores[:2])[:, 3]).all()
    assert attack_curve(lira_scores(scores, inside), inside, resamples=20).positives == 7 * 3


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_known_worlds_give_the_known_power(shift: float) -> None:
    """With the Gaussians known the attack has AUC Phi(d / sqrt 2) and balanced accuracy Phi(d / 2)."""
    scores, inside = worlds(300, 60, shift, 1)
    target, world = scores[200:], inside[200:]
    curve = attack_curve(lira_attack(scores[:200], inside[:200], target), world, resamples=100)
    assert curve.auc.value == pytest.approx(norm.cdf(shift / math.sqrt(2)), abs=0.015)
    assert curve.balanced_accuracy.value == pytest.approx(norm.cdf(shift / 2), abs=0.015)
    assert curve.auc.low <= norm.cdf(shift / math.sqrt(2)) <= curve.auc.high + 0.01
    truth = norm.sf(norm.isf(0.01) - shift)
    assert curve.tpr[0.01].value == pytest.approx(truth, abs=0.03)
    pooled = attack_curve(lira_scores(scores, inside), inside, resamples=50)
    assert pooled.auc.value == pytest.approx(norm.cdf(shift / math.sqrt(2)), abs=0.015)
    # Without per-sample worlds the samples' unlike difficulty hides most of it.
    assert auc(target[world], target[~world]) < curve.auc.value - 0.05


def test_it_sees_a_change_of_width_alone() -> None:
    scores, inside = worlds(128, 40, 0.0, 2, width=0.3)
    assert auc(scores[inside], scores[~inside]) == pytest.approx(0.5, abs=0.03)
    curve = attack_curve(lira_scores(scores, inside), inside, resamples=50)
    # The area of the likelihood ratio of N(0, 0.3) and N(0, 1): |x| decides.
    rng = np.random.default_rng(0)
    truth = (np.abs(rng.normal(size=100_000)) > 0.3 * np.abs(rng.normal(size=100_000))).mean()
    assert curve.auc.value == pytest.approx(truth, abs=0.02)


@pytest.mark.parametrize("models", [12, 64], ids=["common-variance", "own-variance"])
def test_models_that_never_saw_a_sample_give_one_half(models: int) -> None:
    found: list[Curve] = []
    for seed in range(50):
        scores, inside = worlds(models, 40, 0.0, seed)
        found.append(attack_curve(lira_scores(scores, inside), inside, resamples=80, seed=seed))
    for figures in ([one.auc for one in found], [one.balanced_accuracy for one in found]):
        values = np.array([figure.value for figure in figures])
        assert abs(values.mean() - 0.5) < 4 * values.std(ddof=1) / math.sqrt(len(values)) + 0.005
        assert sum(figure.low <= 0.5 <= figure.high for figure in figures) >= binom.ppf(1e-3, len(figures), 0.95)


def test_outputs_that_never_vary_say_nothing_or_everything() -> None:
    _, inside = worlds(8, 10, 0.0, 0)
    same = attack_curve(lira_scores(np.zeros((8, 10)), inside), inside, resamples=20)
    assert (same.auc.value, same.balanced_accuracy.value) == (0.5, 0.5)
    apart = attack_curve(lira_scores(np.where(inside, 1.0, -1.0), inside), inside, resamples=20)
    assert (apart.auc.value, apart.balanced_accuracy.value) == (1.0, 1.0)
    assert apart.auc.low == pytest.approx(0.025 ** (1 / 8))


def shadows(**changes: object) -> Shadows:
    scores, inside = worlds(6, 8, 1.0, 0)
    parts: dict[str, object] = {
        "scores": scores, "inside": inside, "trained": scores + 1, "ids": np.arange(8) * 3, "labels": np.arange(8) % 2,
        "member": np.arange(8) < 4, "retrained": scores[:2] - 1,
    }  # fmt: skip
    return Shadows(**parts | changes)  # type: ignore[arg-type]


def test_shadows_go_round_and_damage_is_found() -> None:
    first = shadows()
    again = Shadows.from_bytes(first.to_bytes())
    for name in ("scores", "inside", "trained", "ids", "labels", "member", "retrained"):
        one, other = getattr(first, name), getattr(again, name)
        assert one.dtype == other.dtype
        assert one.tolist() == other.tolist()
    assert first.to_bytes() == again.to_bytes()
    assert shadows(retrained=None).retrained is not None
    assert Shadows.from_bytes(shadows(retrained=None).to_bytes()).retrained.shape == (0, 8)  # type: ignore[union-attr]
    damaged = bytearray(first.to_bytes())
    damaged[-1] ^= 1
    for content in (bytes(damaged), b"", b"nonsense" * 9, first.to_bytes()[:-3]):
        with pytest.raises(CorruptFileError, match="expected shadows as they were written"):
            Shadows.from_bytes(content)


def test_shadows_go_through_a_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("shadows") / "deep" / "shadows.safetensors"
    shadows().save(path)
    assert Shadows.load(path).scores.tolist() == shadows().scores.tolist()


def test_what_does_not_fit_is_refused() -> None:
    scores, inside = worlds(6, 8, 1.0, 0)
    with pytest.raises(InputError, match="one shape"):
        shadows(inside=inside[:, :5])
    with pytest.raises(InputError, match="a model has diverged"):
        shadows(scores=np.full((6, 8), math.inf))
    with pytest.raises(InputError, match="ids: expected shape"):
        shadows(ids=np.arange(7))
    with pytest.raises(InputError, match="at least 4 shadow models"):
        lira_scores(scores[:3], inside[:3])
    with pytest.raises(InputError, match="expected scores of 8 samples, got 3"):
        lira_attack(scores, inside, scores[:, :3])
    with pytest.raises(InputError, match="a model has diverged"):
        lira_scores(np.where(inside, math.nan, scores), inside)
