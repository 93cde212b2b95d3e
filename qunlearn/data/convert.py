"""Take what users have (pairs of arrays, torch data sets) as data sets, and find equal rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset

from qunlearn.data.dataset import Dataset
from qunlearn.errors import InputError


def as_dataset(data: object, name: str) -> tuple[Dataset, bool]:
    """A data set from ours, a pair (x, y), or a torch Dataset of such pairs (read into memory).

    Args:
        data: what the user gave.
        name: what messages call it, such as ``"forget"``.

    Returns:
        The data set, and whether its ids are the user's (False: positions, which say nothing about
        overlap with another data set).

    Raises:
        InputError: something else, or no samples.
    """
    if isinstance(data, Dataset):
        return data, True
    if isinstance(data, TorchDataset):
        return _read(data, name), False
    if isinstance(data, tuple | list) and len(data) == 2:
        return Dataset(data[0], data[1], name=name), False
    raise InputError(f"expected a Dataset, a pair (x, y) or a torch Dataset as {name}, got {type(data).__name__}")


def _read(source: TorchDataset[Any], name: str) -> Dataset:
    """All samples of a torch Dataset, in order."""
    if not isinstance(source, IterableDataset) and not hasattr(source, "__len__"):
        raise InputError(f"expected a torch Dataset with a length as {name}, got {type(source).__name__} without")
    samples = list(source) if isinstance(source, IterableDataset) else [source[i] for i in range(len(source))]
    if not samples:
        raise InputError(f"expected at least one sample in {name}, got none")
    if any(not isinstance(sample, tuple | list) or len(sample) != 2 for sample in samples):
        raise InputError(f"expected pairs (x, y) from the torch Dataset {name}, got {type(samples[0]).__name__}")
    shapes = {tuple(torch.as_tensor(x).shape) for x, _ in samples}
    if len(shapes) > 1:
        raise InputError(f"expected features of one shape in {name}, got {sorted(shapes)}")
    labels = [y.tolist() if isinstance(y, torch.Tensor) else y for _, y in samples]
    return Dataset(torch.stack([torch.as_tensor(x) for x, _ in samples]), labels, name=name)


def count_duplicates(forget: Dataset, retain: Dataset) -> int:
    """How many samples of `forget` stand in `retain` too, with the same features and the same label.

    Raises:
        InputError: features of different shapes.
    """
    if forget.x.shape[1:] != retain.x.shape[1:]:
        raise InputError(
            f"expected features of one shape in forget and retain set, got {tuple(forget.x.shape[1:])} "
            f"and {tuple(retain.x.shape[1:])}"
        )
    return int(np.isin(_rows(forget), _rows(retain)).sum())


def _rows(data: Dataset) -> NDArray[np.void]:
    """Every row, label included, as one block of bytes that compares as a whole."""
    features = data.x.detach().to("cpu", torch.float64).reshape(len(data), -1) + 0.0  # -0.0 becomes 0.0
    table = np.ascontiguousarray(torch.cat([features, data.y.cpu().to(torch.float64)[:, None]], dim=1).numpy())
    return table.view(np.dtype((np.void, table.itemsize * table.shape[1]))).ravel()
