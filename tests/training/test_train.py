"""`train` and `retrain`: what they leave alone, what they repeat, and whom they refuse."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from qunlearn.data import Dataset, ForgetRequest, Split
from qunlearn.errors import InputError, UnsupportedError
from qunlearn.models import HybridClassifier, reinitialise
from qunlearn.quantum import load_circuit
from qunlearn.training import Recipe, retrain, train
from qunlearn.training.train import fit, of_classes
from tests.methods.cases import Ignoring, blobs, hybrid_model, plain_model
from tests.training.cases import deep_hybrid, norm_model

X, Y = blobs(0, 33)
VALIDATION = blobs(1, 18)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(t, b.state_dict()[name]) for name, t in a.state_dict().items())


def quick(model: nn.Module, **settings: Any) -> nn.Module:
    settings = {"epochs": 2, "learning_rate": 0.02, "progress": False, **settings}
    return train(model, settings.pop("data", (X, Y)), **settings)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [plain_model, lambda: norm_model(dropout=0.5), hybrid_model])
def test_the_given_model_and_the_global_state_are_left_alone(make: Callable[[], nn.Module], training: bool) -> None:
    model = make().train(training)
    list(model.children())[-1].eval()
    modes = [part.training for part in model.modules()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    trained = quick(model, validation=VALIDATION)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters() if p.grad is not None)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert getattr(model, "recipe", None) is None
    assert not same(trained, model)
    assert not trained.training
    assert all(p.grad is None for p in trained.parameters())


def test_the_same_seed_gives_the_same_bytes_whatever_the_global_seed() -> None:
    model = norm_model(dropout=0.5)
    found = []
    for seed, of_torch in ((1, 0), (1, 99), (2, 0)):
        with torch.random.fork_rng():
            torch.manual_seed(of_torch)
            found.append(quick(model, seed=seed, batch_size=8))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_model_s_precision_is_kept_whatever_the_data_s(dtype: torch.dtype) -> None:
    for data in ((X.float(), Y), (X.numpy(), Y.numpy()), TensorDataset(X, Y), Dataset(X, Y)):
        trained = quick(plain_model().to(dtype), data=data)
        assert {p.dtype for p in trained.parameters()} == {dtype}


def test_arrays_data_sets_and_torch_data_sets_train_the_same() -> None:
    wanted = quick(plain_model())
    for data in ((X.numpy(), Y.numpy()), TensorDataset(X, Y), Dataset(X, Y)):
        assert same(quick(plain_model(), data=data), wanted)


def test_the_recipe_says_how_it_was_trained_and_repeats_it() -> None:
    settings = {
        "epochs": 3, "optimizer": "sgd", "learning_rate": 0.03, "batch_size": 8,
        "patience": 2, "weight_decay": 0.01, "keep": "accuracy",
    }  # fmt: skip
    trained = quick(plain_model(), validation=VALIDATION, seed=4, **settings)
    assert trained.recipe == Recipe(**settings)  # type: ignore[arg-type]
    again, _ = fit(plain_model(), (X, Y), VALIDATION, trained.recipe, seed=4)  # type: ignore[arg-type]
    assert same(trained, again)


def test_a_linear_model_reaches_scikit_learn_s_optimum() -> None:
    """Full batches and a small L2 term: the loss is convex, so that both must end at the same place."""
    model = nn.Linear(4, 3, dtype=torch.float64)
    decay = 0.02  # Adam adds it to the gradient: the loss is mean CE + decay / 2 |weights|^2, bias included
    x = torch.cat([X, torch.ones(33, 1, dtype=torch.float64)], 1).numpy()
    exact = LogisticRegression(C=1 / (decay * 33), fit_intercept=False, tol=1e-12, max_iter=10_000).fit(x, Y.numpy())
    trained = quick(model, epochs=800, learning_rate=0.05, batch_size=33, weight_decay=decay)
    wanted = torch.as_tensor(exact.coef_)
    found = torch.cat([trained.get_parameter("weight"), trained.get_parameter("bias")[:, None]], 1)
    assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("keep", ["loss", "accuracy", "last"])
def test_the_validation_set_decides_which_epoch_is_kept(keep: Any) -> None:
    """Labels that contradict the training data: every epoch makes the validation loss worse than the one before."""
    against = (VALIDATION[0], (VALIDATION[1] + 1) % 3)
    trained = quick(plain_model(), validation=against, epochs=12, keep=keep, batch_size=64)
    ends = [quick(plain_model(), epochs=n, batch_size=64) for n in range(1, 13)]
    x, y = torch.as_tensor(against[0]), torch.as_tensor(against[1])
    with torch.no_grad():
        losses = [float(cross_entropy(model(x), y)) for model in ends]
        hits = [int((model(x).argmax(1) == y).sum()) for model in ends]
    wanted = {"loss": int(np.argmin(losses)), "accuracy": int(np.argmax(hits)), "last": 11}[keep]
    assert same(trained, ends[wanted])
    assert wanted < 11 or keep == "last", "the case must not end with its best epoch"


def test_data_fitted_parts_are_fitted_on_the_training_inputs() -> None:
    circuit = load_circuit("ring-cz", qubits=2, depth=1, features=2)
    model = HybridClassifier(circuit, 3, encoder="pca", inputs=4, dtype=torch.float64)
    trained = quick(model, epochs=1, validation=(VALIDATION[0] * 9, VALIDATION[1]))
    by_hand = copy.deepcopy(model).fit(X)
    for name, buffer in by_hand.named_buffers():
        assert torch.equal(trained.get_buffer(name), buffer), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": (X[:0], Y[:0])}, "expected at least one sample in training set, got none"),
        ({"data": (X, Y + 1)}, r"expected logits of shape \(2, 4 or more classes\), got \(2, 3\)"),
        ({"validation": (X, Y + 1)}, r"expected logits of shape \(2, 4 or more classes\), got \(2, 3\)"),
        ({"seed": -1}, "expected a seed that is a whole number of at least 0, got -1"),
        ({"epochs": 0}, "expected epochs to be a whole number of at least 1"),
        ({"optimizer": "adamw"}, "did you mean 'adam'"),
    ],
)
def test_what_cannot_be_used_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        quick(plain_model(), **settings)
    with pytest.raises(UnsupportedError, match="Ignoring"):
        quick(Ignoring())


def split_of(request: ForgetRequest) -> Split:
    return Dataset(*blobs(0, 240)).split(request, seed=1)


@pytest.mark.parametrize("make", [hybrid_model, deep_hybrid])
def test_retraining_draws_everything_anew(make: Callable[[], nn.Module]) -> None:
    split = split_of(ForgetRequest.of_fraction(0.1))
    features = split.train.x[:, :3] if make is deep_hybrid else split.train.x
    original = quick(make(), data=(features, split.train.y))
    narrow = {
        n: getattr(split, n).with_x(getattr(split, n).x[:, : features.shape[1]]) for n in ("retain", "validation")
    }
    split = dataclasses.replace(split, **narrow)
    again = retrain(original, split, seed=5, progress=False)
    for name, parameter in again.named_parameters():
        if "norm" not in name:  # these begin at ones and zeros in both
            gap = float((parameter - original.get_parameter(name)).detach().abs().min())
            assert gap > 1e-9 or parameter.numel() == 0, name
    assert again.recipe == original.recipe
    assert same(again, retrain(original, split, seed=5, progress=False))
    assert not same(again, retrain(original, split, seed=6, progress=False))


def test_retraining_is_the_recipe_on_the_retain_set_and_knows_nothing_of_the_original_s_weights() -> None:
    split = split_of(ForgetRequest.of_fraction(0.1))
    original = quick(plain_model(0), data=split.train)
    other = plain_model(7)
    other.recipe = original.recipe
    assert same(retrain(original, split, seed=3, progress=False), retrain(other, split, seed=3, progress=False))
    poisoned = dataclasses.replace(split, forget=split.forget.with_x(split.forget.x * 0))
    assert same(retrain(original, split, seed=3, progress=False), retrain(original, poisoned, seed=3, progress=False))


def test_validation_samples_of_deleted_classes_are_left_out_under_sound_alone() -> None:
    split, model = split_of(ForgetRequest.of_class(1)), plain_model()
    model.recipe = Recipe(epochs=15, learning_rate=0.05)  # type: ignore[assignment]
    kept = split.validation.select([i for i, y in enumerate(split.validation.y.tolist()) if y != 1])
    assert set(split.validation.y.tolist()) == {0, 1, 2}
    by_hand = [
        fit(reinitialise(model, 4), split.retain, chosen, Recipe(epochs=15, learning_rate=0.05), seed=4)[0]
        for chosen in (kept, split.validation)
    ]
    assert not same(*by_hand), "the case must tell the two apart"
    assert same(retrain(model, split, seed=4, progress=False), by_hand[0])
    published = dataclasses.replace(split, protocol="published")
    assert same(retrain(model, published, seed=4, progress=False), by_hand[1])


def test_no_validation_set_or_none_left_is_none() -> None:
    data = Dataset(X, Y)
    assert of_classes(None, data) is None
    assert (
        of_classes(data.select(torch.nonzero(Y == 2).flatten()), data.select(torch.nonzero(Y == 0).flatten())) is None
    )


def test_a_model_without_a_recipe_cannot_be_retrained() -> None:
    with pytest.raises(InputError, match=r"train it by qunlearn\.train, or set model.recipe"):
        retrain(plain_model(), split_of(ForgetRequest.of_class(0)), seed=0)


def test_what_training_costs_is_counted() -> None:
    """33 samples and 18 for validation: 2 epochs of 33 gradients, 3 looks at the validation set."""
    _, counts = fit(hybrid_model(), (X, Y), VALIDATION, Recipe(epochs=2), seed=0)
    assert counts.gradient_evaluations == 66
    assert counts.circuit_evaluations == 66 + 3 * 18
    assert counts.hardware_circuits == 66 * (1 + 2 * 24) + 3 * 18
    assert counts.epochs == 2


def test_progress_false_is_silent_and_a_function_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, int]] = []
    quick(plain_model(), progress=lambda done, total, known: told.append((done, total)))
    quick(plain_model(), progress=False)
    assert told == [(1, 2), (2, 2)]
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
