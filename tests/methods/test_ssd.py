"""SSD once more in NumPy from its formula, angles a turn away, and what it does to a model that has memorised."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods import SSD, Task
from qunlearn.methods.ssd import initial_angles
from qunlearn.training.net import Net
from qunlearn.training.trace import Trace
from tests.methods.by_hand import Array, array, expectations, logits_of, sample_slopes, softmax, task_slopes, values_of
from tests.methods.cases import hybrid_model, make_task, plain_model
from tests.methods.learnt import accuracy, clusters, everything

MODELS: dict[str, Callable[[], nn.Module]] = {"plain": plain_model, "hybrid": hybrid_model}
TASK = make_task(forget_class=1)


def slopes_of(model: nn.Module, data: Dataset, label_free: bool = False) -> dict[str, Array]:
    values, x = values_of(model), array(data.x)
    if not label_free:
        return task_slopes(values, x, data.y.numpy())
    return sample_slopes(values, x, 2 * logits_of(values, x))


def importances(model: nn.Module, task: Task, form: str) -> tuple[dict[str, Array], dict[str, Array]]:
    def of(data: Dataset) -> dict[str, Array]:
        slopes = slopes_of(model, data, form == "label-free")
        return {n: (np.abs(g) if form == "label-free" else g**2).mean(0) for n, g in slopes.items()}

    return of(task.forget), of(everything(task))


def wrapped(angles: Array) -> Array:
    return np.asarray(np.pi - (np.pi - angles) % (2 * np.pi))


def dampened(
    model: nn.Module, task: Task, *, alpha: float, strength: float, form: str, reference: Array | float = 0.0
) -> tuple[dict[str, Array], dict[str, NDArray[np.bool_]]]:
    """The formula; the new values, and where they were chosen."""
    of_forget, of_all = importances(model, task, form)
    values, chosen = values_of(model), {n: of_forget[n] > alpha * of_all[n] for n in of_forget}
    for name, value in values.items():
        with np.errstate(
            invalid="ignore", divide="ignore"
        ):  # what reaches no observable has importance 0, and is never chosen
            factor = np.minimum(strength * of_all[name] / of_forget[name], 1.0)
        start = reference if name == "quantum.weights" else 0.0
        apart = wrapped(value - start) if name == "quantum.weights" else value
        values[name] = np.where(chosen[name], start + factor * apart, value)
    return values, chosen


def test_numpy_s_model_is_the_model() -> None:
    for make in MODELS.values():
        model = make()
        with torch.no_grad():
            found = model(TASK.retain.x).numpy()
        assert np.abs(found - logits_of(values_of(model), array(TASK.retain.x))).max() < 1e-13
    assert expectations(np.zeros((1, 4)), np.zeros(24)) == pytest.approx(np.ones((1, 4)))


@pytest.mark.parametrize("form", ["fisher", "label-free"])
@pytest.mark.parametrize("kind", MODELS)
def test_importances_equal_numpy_s(kind: str, form: str) -> None:
    model = MODELS[kind]()
    method = SSD(importance=form)  # type: ignore[arg-type]
    found = method.importances(Net(model), TASK, torch.Generator())
    for ours, theirs in zip(found, importances(model, TASK, form), strict=True):
        for name, wanted in theirs.items():
            assert np.abs(array(ours[name]) - wanted).max() < 1e-10
            assert wanted.max() > 1e-4


@pytest.mark.parametrize(
    ("form", "alpha", "strength"), [("fisher", 1.2, 1.0), ("fisher", 1.8, 0.3), ("label-free", 1.1, 0.7)]
)
@pytest.mark.parametrize("kind", MODELS)
def test_dampened_weights_equal_numpy_s(kind: str, form: str, alpha: float, strength: float) -> None:
    model = MODELS[kind]()
    result = SSD(alpha=alpha, strength=strength, importance=form)(model, TASK)  # type: ignore[arg-type]
    wanted, chosen = dampened(model, TASK, alpha=alpha, strength=strength, form=form)
    for name, value in wanted.items():
        found, given = array(result.model.get_parameter(name)), array(model.get_parameter(name))
        assert np.abs(found - value).max() < 1e-10
        assert np.array_equal(found[~chosen[name]], given[~chosen[name]]), "what is not chosen keeps its bits"
    number = sum(int(where.sum()) for where in chosen.values())
    assert 0 < number < sum(where.size for where in chosen.values())
    angles = int(chosen["quantum.weights"].sum()) if kind == "hybrid" else 0
    (note,) = result.record.notes
    assert note.startswith(f"{number} of ")
    assert f", {angles} of them angles" in note
    assert kind == "plain" or angles > 0, "the case must dampen angles"


def test_batches_square_the_gradients_of_batch_means() -> None:
    model = plain_model()
    ssd = SSD(importance="batches", batch_size=6)
    of_forget, of_all = ssd.importances(Net(model), TASK, torch.Generator().manual_seed(4))
    order = torch.Generator().manual_seed(4)
    for found, data in ((of_forget, TASK.forget), (of_all, everything(TASK))):
        slopes = slopes_of(model, data)
        rows = np.split(torch.randperm(len(data.y), generator=order).numpy(), range(6, len(data.y), 6))
        for name, g in slopes.items():
            wanted = np.mean([g[part].mean(0) ** 2 for part in rows], 0)
            assert np.abs(array(found[name]) - wanted).max() < 1e-10
    sample_by_sample, _ = SSD().importances(Net(model), TASK, torch.Generator())
    assert all(bool((sample_by_sample[n] - of_forget[n] > -1e-12).all()) for n in of_forget), "E[g]^2 <= E[g^2]"


@pytest.mark.parametrize("reference", ["zero", "initial"])
def test_an_angle_one_period_on_is_the_same_angle(reference: str) -> None:
    """All angles a turn or two away: the unlearned model gives the same outputs, and is moved by the same turns."""
    model, other = hybrid_model(), hybrid_model()
    turns = torch.arange(24, dtype=torch.float64) % 5 - 2
    with torch.no_grad():
        other.quantum.weights.add_(2 * math.pi * turns)
    task = dataclasses.replace(TASK, trace=initial_angles(hybrid_model(8)))
    ssd = SSD(alpha=1.2, strength=0.3, reference=reference)  # type: ignore[arg-type]
    one, two = ssd(model, task).model, ssd(other, task).model
    with torch.no_grad():
        assert torch.allclose(one(TASK.retain.x), two(TASK.retain.x), atol=1e-9, rtol=0)
        assert not torch.allclose(one(TASK.retain.x), model(TASK.retain.x), atol=1e-3, rtol=0)
        moved = two.get_parameter("quantum.weights") - one.get_parameter("quantum.weights")
    assert torch.allclose(moved / (2 * math.pi), (moved / (2 * math.pi)).round(), atol=1e-9, rtol=0)


def test_angles_are_led_to_where_they_began() -> None:
    fresh, model = hybrid_model(8), hybrid_model()
    task = dataclasses.replace(TASK, trace=initial_angles(fresh))
    result = SSD(alpha=1.2, strength=0.3, reference="initial")(model, task).model
    start = array(fresh.quantum.weights)
    wanted, chosen = dampened(model, TASK, alpha=1.2, strength=0.3, form="fisher", reference=start)
    found = array(result.get_parameter("quantum.weights"))
    assert np.abs(found - wanted["quantum.weights"]).max() < 1e-10
    before, after = (np.abs(wrapped(a - start)) for a in (array(model.quantum.weights), found))
    assert (after < before)[chosen["quantum.weights"]].all()


@pytest.mark.parametrize(
    "trace",
    [None, Trace("ssd"), Trace("ssd", tensors={"quantum.weights": torch.zeros(3)})],
    ids=["none", "empty", "short"],
)
def test_initial_angles_are_asked_for_before_any_work(trace: Trace | None) -> None:
    with pytest.raises(InputError, match=r"initial_angles\(the model before training\)"):
        SSD(reference="initial")(hybrid_model(), dataclasses.replace(TASK, trace=trace))


def test_an_alpha_of_the_ratio_of_samples_chooses_nothing() -> None:
    """I(D_f) <= (n / n_f) I(D): 12 of 36 samples, 3."""
    result = SSD(alpha=3.0)(hybrid_model(), TASK)
    assert result.record.notes[0].startswith("0 of 155 parameters dampened")
    assert "n / n_f" in result.record.notes[0]
    for name, p in hybrid_model().named_parameters():
        assert torch.equal(result.model.get_parameter(name), p)
    assert not SSD(alpha=1.2)(hybrid_model(), TASK).record.notes[0].startswith("0 of")


def test_ssd_forgets_a_class_that_a_network_has_learnt() -> None:
    """Of three clusters one goes, the others stay; nothing is trained: what is chosen comes nearer to 0."""
    task, model = clusters(1)
    after = SSD(alpha=2.0, strength=0.1)(model, task).model
    assert accuracy(model, task.forget) == accuracy(model, task.retain) == 1.0
    assert accuracy(after, task.forget) < 0.05
    assert accuracy(after, task.retain) > 0.95
    for name, p in model.named_parameters():
        new = after.get_parameter(name)
        assert bool((new.abs() <= p.abs()).all())
        assert bool(((new == p) | (new.sign() == p.sign())).all())


def test_softmax_of_the_twin_is_a_distribution() -> None:
    shares = softmax(np.array([[1.0, 2.0, 800.0]]))
    assert shares.sum() == pytest.approx(1.0)
