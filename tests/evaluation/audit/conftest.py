"""Small real models, trained once: a hybrid that forgets a digit, and a network that learnt noise by heart."""

import numpy as np
import pytest

from qunlearn.data import Dataset, ForgetRequest, load_dataset
from qunlearn.training import Recipe
from tests.evaluation.audit.cases import Trained, hybrid, network, trained


@pytest.fixture(scope="session")
def digit() -> Trained:
    """Digits of which all threes are to be forgotten."""
    split = load_dataset("digits", per_class=50).split(ForgetRequest.of_class(3), seed=0)
    return trained(split, hybrid(0), Recipe(epochs=40, learning_rate=0.03), 3)


@pytest.fixture(scope="session")
def by_heart() -> Trained:
    """Labels that nothing but memory tells: Gaussian inputs, random classes; a fifth is to be forgotten."""
    random = np.random.default_rng(0)
    data = Dataset(random.normal(size=(500, 40)).astype(np.float32), random.integers(0, 2, size=500))
    split = data.split(ForgetRequest.of_fraction(0.2), seed=0)
    return trained(split, network(0, 40, 2), Recipe(epochs=40, learning_rate=0.02), 4)
