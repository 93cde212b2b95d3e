"""Samples outside the train set, spoilt as the forget samples are."""

from __future__ import annotations

import torch

from qunlearn.data import ForgetRequest, load_dataset, outsiders


def test_outsiders_get_the_forget_samples_wrong_labels_and_noise() -> None:
    data = load_dataset("digits", per_class=40)
    whole = data.split(ForgetRequest.of_fraction(0.2), seed=0)
    clean = outsiders(whole, whole.holdout)
    assert torch.equal(clean.data.y, torch.from_numpy(clean.classes))
    split = data.split(ForgetRequest.of_corrupted(), seed=0, corruption={"label_flips": 0.15, "feature_noise": 0.15})
    found = outsiders(split, split.holdout)
    truth = dict(zip(split.clean.ids.tolist(), split.clean.y.tolist(), strict=True))
    assert [truth[number] for number in split.forget.ids.tolist()] == found.forget_classes.tolist()
    pairs = set(zip(found.forget_classes.tolist(), split.forget.y.tolist(), strict=True))
    assert set(zip(found.classes.tolist(), found.data.y.tolist(), strict=True)) <= pairs
    holdout = split.holdout
    assert torch.equal(torch.from_numpy(found.classes), holdout.y)
    flipped, noisy = (found.data.y != holdout.y), (found.data.x != holdout.x).flatten(1).any(1)
    assert not (flipped & noisy).any()
    assert 0.25 < flipped.double().mean() < 0.75
    assert (flipped | noisy).all()
    spoilt = split.forget.x[split.forget.y == torch.from_numpy(found.forget_classes)].flatten(1).norm(dim=1)
    norms = found.data.x[noisy].flatten(1).norm(dim=1)
    assert norms.min() >= spoilt.min() * (1 - 1e-5)
    assert norms.max() <= spoilt.max() * (1 + 1e-5)
    # Noise of its own: a forget sample's very input, which a model may know by heart, would be no outsider's.
    seen = split.forget.x.flatten(1).double()
    alone = torch.cdist(found.data.x[noisy].flatten(1).double(), seen).min(1).values
    assert (alone > 0.1 * norms.min()).all()
