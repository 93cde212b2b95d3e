"""Three clusters that lie apart, and models that have learnt them: one class is to go."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from qunlearn.data import Dataset
from qunlearn.methods import Task
from qunlearn.training import Recipe, train
from tests.methods.cases import blobs, plain_model


@functools.lru_cache(maxsize=8)
def clusters(gone: int, make: Callable[[], nn.Module] = plain_model, number: int = 90) -> tuple[Task, nn.Module]:
    """The task to forget a class, without validation set, and a model that knows all three."""
    x, y = blobs(0, number, spread=0.15)
    data = Dataset(x, y)
    parts = [data.select(where.nonzero().flatten()) for where in (y == gone, y != gone)]
    model = train(make(), (x, y), epochs=60, learning_rate=0.02, progress=False)
    return Task(parts[0], parts[1], recipe=Recipe(learning_rate=0.02)), model


def everything(task: Task) -> Dataset:
    """Forget and retain set as one."""
    return Dataset(torch.cat([task.forget.x, task.retain.x]), torch.cat([task.forget.y, task.retain.y]))


def loss(model: nn.Module, data: Dataset) -> float:
    with torch.no_grad():
        return float(cross_entropy(model(data.x), data.y))


def accuracy(model: nn.Module, data: Dataset) -> float:
    with torch.no_grad():
        return float((model(data.x).argmax(1) == data.y).double().mean())
