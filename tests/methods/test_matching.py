"""With which samples the forget samples of a split are matched where models are chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qunlearn as qu
from qunlearn.data import Dataset, ForgetRequest, Split, outsiders
from qunlearn.methods.unlearn import task_of
from tests.methods.cases import plain_model


def split(request: ForgetRequest, **options: Any) -> Split:
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    return Dataset(rng.normal(size=(300, 4)) + np.eye(4)[y], y).split(request, seed=0, **options)


def class_matched_loss(model: nn.Module, forget: Dataset, others: Dataset) -> float:
    """Mean over the forget samples of the mean loss of the others with the same label."""
    with torch.no_grad():
        losses = nn.functional.cross_entropy(
            model(others.x.to(next(model.parameters()))).double(), others.y, reduction="none"
        )
    return float(np.mean([losses[others.y == label].mean().item() for label in forget.y]))


@pytest.mark.parametrize("spoilt", [{"label_flips": 0.15}, {"feature_noise": 0.15}], ids=["labels", "inputs"])
def test_corrupted_samples_are_matched_with_validation_samples_spoilt_alike(spoilt: dict[str, float]) -> None:
    parts, model = split(ForgetRequest.of_corrupted(), corruption=spoilt), plain_model()
    unseen = task_of(parts, model).unseen
    assert unseen is not None
    assert unseen.ids.tolist() == parts.validation.ids.tolist()
    wrong, noisy = unseen.y != parts.validation.y, (unseen.x != parts.validation.x).flatten(1).any(1)
    assert bool(wrong.all()) == ("label_flips" in spoilt)
    assert bool(noisy.any()) == ("feature_noise" in spoilt)
    found = qu.unlearn(model, parts, method="fine-tune", recipe=qu.Recipe(), progress=False).record.candidates
    expected = class_matched_loss(model, parts.forget, outsiders(parts, parts.validation).data)
    assert found[0]["matched_loss"] == pytest.approx(expected, rel=1e-5)
    assert found[0]["matched_loss"] != pytest.approx(
        class_matched_loss(model, parts.forget, parts.validation), rel=1e-3
    )


def test_clean_samples_are_matched_with_validation_samples_as_they_are() -> None:
    parts, model = split(ForgetRequest.of_fraction(0.3), corruption={"label_flips": 0.15}), plain_model()
    clean = parts.forget.select(~torch.isin(parts.forget.ids, parts.corrupted))
    parts = split(ForgetRequest.of_ids(clean.ids), corruption={"label_flips": 0.15})
    assert task_of(parts, model).unseen is None
    found = qu.unlearn(model, parts, method="fine-tune", recipe=qu.Recipe(), progress=False).record.candidates
    expected = class_matched_loss(model, parts.forget, parts.validation)
    assert found[0]["matched_loss"] == pytest.approx(expected, rel=1e-5)
