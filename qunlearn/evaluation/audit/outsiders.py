"""Non-members: holdout samples, spoilt as the forget samples were where the training data were corrupted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qunlearn.data import Dataset, Split
from qunlearn.training.seeds import Seeds

Labels = npt.NDArray[np.int64]


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


def outsiders(split: Split) -> Outsiders:
    """Holdout samples (test samples, where the holdout set was trained on) that differ from members in nothing else.

    An attack on wrong labels must not succeed because wrong labels are rare among the others: where the forget set
    holds corrupted samples, every outsider takes after a forget sample of its class, drawn at random, and gets the
    same wrong label, or Gaussian noise of the same norm for its input.
    """
    data = split.test if "holdout" in split.aliases else split.holdout
    clean = _clean_forget(split)
    members = clean.y.cpu().numpy()
    classes: Labels = data.y.cpu().numpy()
    if not len(split.corrupted) or not bool(torch.isin(split.forget.ids.cpu(), split.corrupted).any()):
        return Outsiders(data, classes, members)
    seeds = Seeds(split.seed, "audit")
    model = _models(members, classes, np.random.default_rng(seeds.integer("outsiders")))
    x, y = data.x.clone(), data.y.clone()
    found = torch.from_numpy(np.flatnonzero(model >= 0))
    like = torch.from_numpy(model)[found]
    y[found] = split.forget.y[like]
    noisy = _differ(split.forget.x, clean.x)[like]
    x[found[noisy]] = _noise(split.forget.x[like[noisy]], seeds.generator("noise"))
    return Outsiders(Dataset(x, y, data.ids, data.classes, data.name), classes, members)


def _clean_forget(split: Split) -> Dataset:
    """The forget set as it was before any corruption, row by row beside `split.forget`."""
    place = {number: row for row, number in enumerate(split.clean.ids.tolist())}
    return split.clean.select(torch.tensor([place[number] for number in split.forget.ids.tolist()]))


def _models(members: Labels, classes: Labels, random: np.random.Generator) -> Labels:
    """For each outsider the position of a member of its class, drawn at random; -1 where there is none."""
    found = np.full(len(classes), -1, dtype=np.int64)
    for number in np.unique(classes):
        own = np.flatnonzero(members == number)
        if len(own):
            here = classes == number
            found[here] = own[random.integers(len(own), size=int(here.sum()))]
    return found


def _differ(one: Tensor, other: Tensor) -> Tensor:
    return (one != other).flatten(1).any(1)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian vectors of the shapes and norms of some inputs ``(n, ...)``."""
    drawn = torch.randn(like.flatten(1).shape, generator=generator, dtype=torch.float64)
    drawn *= like.flatten(1).double().cpu().norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
    return drawn.reshape(like.shape).to(like)
