import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax

from qunlearn.errors import InputError
from qunlearn.metrics import (
    agreement,
    js,
    js_published,
    kl,
    kl_published,
    misaligned,
    prediction_entropy,
)
from qunlearn.metrics.divergence import LN2


def _two(scale: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(scale=scale, size=(40, 6)), rng.normal(scale=scale, size=(40, 6))


def test_kl_is_scipys() -> None:
    a, b = _two()
    p, q = softmax(a, axis=1), softmax(b, axis=1)
    assert kl(a, b) == pytest.approx(rel_entr(p, q).sum(axis=1).mean(), rel=1e-12)
    assert kl(a, b) != pytest.approx(kl(b, a), rel=1e-3)


def test_js_is_scipys() -> None:
    a, b = _two()
    expected = np.mean(jensenshannon(softmax(a, axis=1), softmax(b, axis=1), axis=1) ** 2)
    assert js(a, b) == pytest.approx(expected, rel=1e-12)
    assert js(a, b) == pytest.approx(js(b, a), rel=1e-12)


def test_kl_is_exact_where_probabilities_underflow() -> None:
    # q of the first class is exp(-2000), zero in double precision: KL = 2000 nats all the same
    assert kl([[0.0, -2000.0]], [[-2000.0, 0.0]]) == pytest.approx(2000.0)
    assert js([[0.0, -2000.0]], [[-2000.0, 0.0]]) == pytest.approx(LN2)


def test_impossible_classes_count_nothing() -> None:
    assert kl([[0.0, 0.0, -np.inf]], [[0.0, math.log(3.0), -np.inf]]) == pytest.approx(math.log(2 / math.sqrt(3)))
    assert kl([[0.0, 0.0]], [[0.0, -np.inf]]) == math.inf


def test_published_kl_is_clipped() -> None:
    assert kl_published([[0.0, -2000.0]], [[-2000.0, 0.0]]) == pytest.approx(8 * math.log(10), rel=1e-6)
    a, b = _two(scale=0.5)
    assert kl_published(a, b) == pytest.approx(kl(a, b), rel=1e-12)
    assert js_published(a, b) == pytest.approx(js(a, b), rel=1e-12)


def test_published_divergences_by_the_papers_recipe() -> None:
    a, b = _two(scale=20.0)
    p, q = (torch.softmax(torch.tensor(z), dim=1).clamp(min=1e-8) for z in (a, b))
    m = (p + q) / 2
    assert kl_published(a, b) == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-7)
    expected = 0.5 * (p * (p / m).log()).sum(1) + 0.5 * (q * (q / m).log()).sum(1)
    assert js_published(a, b) == pytest.approx(float(expected.mean()), rel=1e-7)


def test_misalignment_inflates_and_keeps_the_rows() -> None:
    a, _ = _two(scale=5.0)
    shuffled = misaligned(a, np.random.default_rng(3))
    assert sorted(map(tuple, shuffled)) == sorted(map(tuple, a))
    assert kl(a, a) == 0
    assert kl(a, shuffled) > 1
    assert (shuffled == misaligned(a, np.random.default_rng(3))).all()
    # one shuffled side is all there is to it: the expectation is the mean over all pairs of samples
    pairs = np.mean([kl(a, np.repeat(a[i : i + 1], len(a), axis=0)) for i in range(len(a))])
    draws = [kl(a, misaligned(a, np.random.default_rng(seed))) for seed in range(200)]
    assert np.mean(draws) == pytest.approx(pairs, abs=4 * float(np.std(draws)) / math.sqrt(200))


def test_agreement_by_hand() -> None:
    assert agreement([[1, 0], [0, 1], [1, 0]], [[5, 1], [9, 1], [2, 1]]) == pytest.approx(2 / 3)


def test_shapes_must_be_equal() -> None:
    with pytest.raises(InputError, match="align them by id"):
        kl(np.zeros((3, 2)), np.zeros((4, 2)))


def test_entropy_of_known_distributions() -> None:
    assert prediction_entropy(np.zeros((4, 10))) == pytest.approx(math.log(10))
    assert prediction_entropy([[0.0, -np.inf]]) == 0
    assert prediction_entropy(torch.tensor([[0.0, math.log(3.0)]])) == pytest.approx(
        0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    )
