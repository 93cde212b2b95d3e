"""Outsiders: samples that no model was trained on, spoilt as the forget samples are where these were corrupted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qunlearn.data.dataset import Dataset
from qunlearn.data.split import Split
from qunlearn.data.strata import stream

Labels = npt.NDArray[np.int64]
_STREAM = 5  # of a split's seed; 0 and 1 are the partition's and the request's, 2 to 4 the corruption's


class Outsiders(NamedTuple):
    """What forget samples are compared with.

    Attributes:
        data: samples that no model was trained on.
        classes: the classes that they really have ``(n,)``.
        forget_classes: the classes that the forget samples really have ``(forget,)``.
    """

    data: Dataset
    classes: Labels
    forget_classes: Labels


def outsiders(split: Split, data: Dataset) -> Outsiders:
    """Samples outside the train set that differ from forget samples in nothing but that they were never trained on.

    A wrong label is rare, and its loss high, whether or not it was ever learnt. So where the forget set holds
    corrupted samples, every outsider takes after one of them of its own class, drawn at random, and gets the same wrong
    label, or Gaussian noise of the same norm for its input. That takes the forget samples' true classes, which
    whoever found the corruption knows.

    Args:
        split: of the forget set.
        data: its validation or holdout set.
    """
    clean = _clean_forget(split)
    members: Labels = clean.y.cpu().numpy()
    classes: Labels = data.y.cpu().numpy()
    if not forgets_corrupted(split):
        return Outsiders(data, classes, members)
    rng = stream(split.seed, _STREAM)
    model = _models(members, classes, rng)
    x, y = data.x.clone(), data.y.clone()
    found = torch.from_numpy(np.flatnonzero(model >= 0))
    like = torch.from_numpy(model)[found]
    y[found] = split.forget.y[like]
    noisy = _differ(split.forget.x, clean.x)[like]
    x[found[noisy]] = _noise(split.forget.x[like[noisy]], rng)
    return Outsiders(Dataset(x, y, data.ids, data.classes, data.name), classes, members)


def forgets_corrupted(split: Split) -> bool:
    """Whether any sample of the forget set was corrupted."""
    return bool(torch.isin(split.forget.ids.cpu(), split.corrupted).any())


def _clean_forget(split: Split) -> Dataset:
    """The forget set as it was before any corruption, row by row beside `split.forget`."""
    place = {number: row for row, number in enumerate(split.clean.ids.tolist())}
    return split.clean.select(torch.tensor([place[number] for number in split.forget.ids.tolist()]))


def _models(members: Labels, classes: Labels, rng: np.random.RandomState) -> Labels:
    """For each outsider the position of a member of its class, drawn at random; -1 where there is none."""
    found = np.full(len(classes), -1, dtype=np.int64)
    for number in np.unique(classes):
        own = np.flatnonzero(members == number)
        if len(own):
            here = classes == number
            found[here] = own[rng.randint(len(own), size=int(here.sum()))]
    return found


def _differ(one: Tensor, other: Tensor) -> Tensor:
    return (one != other).flatten(1).any(1)


def _noise(like: Tensor, rng: np.random.RandomState) -> Tensor:
    """Gaussian vectors of the shapes and norms of some inputs ``(n, ...)``."""
    drawn = torch.from_numpy(rng.standard_normal(like.flatten(1).shape))
    drawn *= like.flatten(1).double().cpu().norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
    return drawn.reshape(like.shape).to(like)
