"""Training several models at once: what is trained so, and that each comes out as it does alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from qunlearn.data import Dataset, ForgetRequest
from qunlearn.errors import InputError
from qunlearn.models import ClassicalTwin, HybridClassifier
from qunlearn.quantum import QuantumLayer, load_circuit
from qunlearn.training import Recipe
from qunlearn.training.loop import DivergedError
from qunlearn.training.replicas import TOGETHER, obstacle
from qunlearn.training.train import fit, fit_all, refit, refit_all
from tests.methods.cases import blobs, hybrid_model, plain_model
from tests.training.cases import norm_model

DATA, VALIDATION = Dataset(*blobs(0, 33)), Dataset(*blobs(1, 18), ids=torch.arange(100, 118))
SEEDS = (5, 0, 2, 9)


def deep(seed: int) -> HybridClassifier:
    return model_of(seed, head="deep")


def model_of(seed: int, **settings: Any) -> HybridClassifier:
    circuit = load_circuit("ring-cz", qubits=2 if settings.get("encoder") == "pca" else 4, depth=1)
    return HybridClassifier(circuit, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), **settings)


def pca(seed: int) -> HybridClassifier:
    return model_of(seed, encoder="pca", inputs=4)


def compare(make: Callable[[int], nn.Module], recipe: Recipe, validation: Dataset | None = VALIDATION) -> list[int]:
    """Holds models trained together to those trained alone; the epochs that each ran."""
    models = [make(seed) for seed in SEEDS]
    together, epochs = fit_all(models, DATA, validation, recipe, seeds=SEEDS), []
    for model, seed, found in zip(models, SEEDS, together, strict=True):
        assert isinstance(found, tuple)
        wanted, counts = fit(model, DATA, validation, recipe, seed=seed)
        for name, value in wanted.state_dict().items():
            assert torch.allclose(found[0].state_dict()[name], value, atol=1e-6, rtol=0), name
        assert found[1] == counts
        assert found[0].recipe == recipe
        assert not found[0].training
        epochs.append(counts.epochs)
    return epochs


@pytest.mark.parametrize("keep", ["loss", "accuracy", "last"])
@pytest.mark.parametrize("make", [hybrid_model, deep, pca, plain_model, norm_model])
def test_models_trained_together_are_those_trained_alone(make: Callable[[int], nn.Module], keep: Any) -> None:
    def seeded(seed: int) -> nn.Module:
        return norm_model(seed=seed) if make is norm_model else make(seed)

    compare(seeded, Recipe(epochs=5, batch_size=8, weight_decay=0.1, keep=keep))


def test_without_validation_the_last_epoch_is_kept() -> None:
    assert compare(hybrid_model, Recipe(epochs=4), None) == [4, 4, 4, 4]


def test_each_stops_when_its_own_patience_is_out() -> None:
    epochs = compare(plain_model, Recipe(epochs=30, batch_size=8, patience=3, learning_rate=0.03, keep="accuracy"))
    assert len(set(epochs)) > 2, "the case must have models that stop at different epochs"
    assert max(epochs) < 30


def test_the_same_group_gives_the_same_bytes() -> None:
    recipe = Recipe(epochs=4, batch_size=8, patience=1)
    groups = [fit_all([deep(seed) for seed in SEEDS], DATA, VALIDATION, recipe, seeds=SEEDS) for _ in range(2)]
    for one, other in zip(*groups, strict=True):
        assert isinstance(one, tuple)
        assert isinstance(other, tuple)
        assert all(torch.equal(t, other[0].state_dict()[name]) for name, t in one[0].state_dict().items())


def test_a_model_that_diverges_is_an_error_in_its_place() -> None:
    models = [plain_model(seed) for seed in SEEDS]
    with torch.no_grad():
        models[1].get_parameter("2.weight").fill_(1e308)
    found = fit_all(models, DATA, None, Recipe(epochs=3), seeds=SEEDS)
    assert [isinstance(one, DivergedError) for one in found] == [False, True, False, False]
    with pytest.raises(DivergedError):
        fit(models[1], DATA, None, Recipe(epochs=3), seed=0)


def test_retraining_together_is_retraining_alone() -> None:
    split = Dataset(*blobs(0, 120)).split(ForgetRequest.of_class(1), seed=1)
    originals = [plain_model(seed) for seed in SEEDS]
    for original in originals:
        original.recipe = Recipe(epochs=3, learning_rate=0.05)  # type: ignore[assignment]
    for protocol in ("sound", "published"):
        chosen = dataclasses.replace(split, protocol=protocol)
        for original, seed, found in zip(originals, SEEDS, refit_all(originals, chosen, seeds=SEEDS), strict=True):
            assert isinstance(found, tuple)
            wanted, counts = refit(original, chosen, seed=seed)
            assert found[1] == counts
            for name, value in wanted.state_dict().items():
                assert torch.allclose(found[0].state_dict()[name], value, atol=1e-6, rtol=0), name


def test_progress_is_told_once_an_epoch_for_all() -> None:
    told: list[tuple[int, int]] = []
    models = [plain_model(seed) for seed in SEEDS]
    fit_all(
        models, DATA, None, Recipe(epochs=2), seeds=SEEDS, progress=lambda done, total, _: told.append((done, total))
    )
    assert told == [(1, 2), (2, 2)]


def test_as_many_seeds_as_models_are_needed() -> None:
    models = [plain_model(0), plain_model(1)]
    with pytest.raises(InputError, match="expected at least one model and a seed for each, got 2 and 1 seeds"):
        fit_all(models, DATA, None, Recipe(epochs=1), seeds=[0])
    with pytest.raises(InputError, match="got 2 and 3 seeds"):
        refit_all(models, Dataset(*blobs(0, 90)).split(ForgetRequest.of_class(1), seed=1), seeds=[0, 1, 2])


class Mine(nn.Linear):
    """A subclass may do anything."""


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (norm_model(), "nn.Dropout in 3 draws from torch's global generator"),
        (nn.Dropout(0.5), "nn.Dropout as the model draws"),
        (model_of(0, encoder="cnn"), "ImageEncoder in encoder is not known to be faster"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), "Conv2d in 0 is not known"),
        (nn.Sequential(Mine(2, 2)), "Mine in 0 is not known"),
        (nn.Sequential(nn.BatchNorm1d(2, momentum=None)), "BatchNorm1d in 0 has no momentum"),
        (
            QuantumLayer(load_circuit("ring-cz", qubits=11, depth=1)),
            "the circuit as the model has 11 qubits, and above 10",
        ),
        (nn.TransformerEncoderLayer(4, 1), "TransformerEncoderLayer as the model is not known"),
    ],
)
def test_what_stands_in_the_way_is_named(model: nn.Module, why: str) -> None:
    assert (found := obstacle(model)) is not None
    assert found.startswith(why)


@pytest.mark.parametrize(
    "settings", [{}, {"head": "deep"}, {"head": "linear"}, {"control": "twin"}, {"encoder": "pca"}]
)
def test_our_small_models_are_trained_together(settings: dict[str, Any]) -> None:
    assert obstacle(model_of(0, **settings)) is None


def test_what_is_trained_together_was_measured_to_be_faster() -> None:
    assert {QuantumLayer, ClassicalTwin, nn.Linear, HybridClassifier} <= TOGETHER.keys()
    assert min(TOGETHER.values()) > 1
