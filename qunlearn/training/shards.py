"""Training on shards of a data set, slice by slice, so that what one sample touched is known."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError, NumericalError
from qunlearn.training.counting import Counts
from qunlearn.training.loop import DivergedError, Progress, no_samples, run_phases, samples_of
from qunlearn.training.net import Net, Tensors, check_functional
from qunlearn.training.phases import Phase
from qunlearn.training.recipe import Recipe
from qunlearn.training.seeds import Seeds
from qunlearn.training.selection import Watch, keep_last
from qunlearn.training.train import check_outputs, supervised

SLOW = 10.0  # seconds that a shard takes from which the others are given to processes: starting those takes some


def places(ids: Tensor, shards: int, slices: int, seed: int) -> tuple[Tensor, Tensor]:
    """The shard and the slice of every sample, both ``(n,)`` int64, by a hash of its id and the seed alone.

    Source: the hash is SplitMix64 (Steele, Lea and Flood 2014), whose 64 bits are as good as uniform.
    """
    words = _mixed(ids.cpu().numpy().astype(np.uint64) ^ _mixed(np.array([seed], dtype=np.uint64)))
    shard, rest = words % np.uint64(shards), words // np.uint64(shards)
    return torch.from_numpy(shard.astype(np.int64)), torch.from_numpy((rest % np.uint64(slices)).astype(np.int64))


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: NDArray[np.uint64] = words ^ (words >> np.uint64(31))
    return mixed


@dataclass(frozen=True)
class Shard:
    """What one shard's model is to learn.

    Attributes:
        model: as it stands before the first slice; trained in place.
        slices: of the training set the part that each slice adds, in the order of ids; some may be empty.
        first: number of the first slice to learn; the model has learnt those before it.
        learnt: whether it has learnt anything yet, and so has its data-fitted parts.
        seeds: of this shard; every slice has streams of its own.
    """

    model: nn.Module
    slices: Sequence[Dataset]
    first: int
    learnt: bool
    seeds: Seeds


@dataclass
class Grown:
    """What came of a shard: after every slice from the first the model's state, and whether it had learnt anything."""

    states: list[Tensors] = field(default_factory=list)
    learnt: list[bool] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    error: str = ""  # why the last slice that was passed over could not be learnt


def grow_all(shards: Sequence[Shard], recipe: Recipe, epochs: int, progress: Progress | None = None) -> list[Grown]:
    """`grow` for every shard: one after another, or where that takes long, on as many processes as torch has threads.

    Each is trained on one thread, alone: what comes out has the same bits wherever it runs.
    """
    grown: list[Grown] = []
    jobs = min(torch.get_num_threads(), len(shards) - 1)
    for number, shard in enumerate(shards):
        begun = time.perf_counter()
        grown.append(grow(shard, recipe, epochs))
        if progress is not None:
            progress(number + 1, len(shards), "shards")
        if jobs > 1 and time.perf_counter() - begun > SLOW:
            grown += _elsewhere(shards[number + 1 :], recipe, epochs, jobs)
            if progress is not None:
                progress(len(shards), len(shards), "shards")
            break
    return grown


def _elsewhere(shards: Sequence[Shard], recipe: Recipe, epochs: int, jobs: int) -> list[Grown]:
    from joblib import Parallel, delayed

    found: list[Grown] = Parallel(n_jobs=jobs)(delayed(grow)(shard, recipe, epochs) for shard in shards)
    return found


def grow(shard: Shard, recipe: Recipe, epochs: int) -> Grown:
    """Trains a shard's model on its first slice, then on its first two, and so on, `epochs` passes each.

    The last epoch counts; every slice begins with a fresh optimizer. Data-fitted parts are fitted once, at the first
    slice whose samples suffice for that; until then nothing is learnt.

    Raises:
        NumericalError: where the loss leaves the finite numbers.
    """
    found, learnt = Grown(), shard.learnt
    with _one_thread():
        for number in range(shard.first, len(shard.slices)):
            data = _joined(shard.slices[: number + 1])
            if len(data):
                try:
                    found.counts.add(
                        _learn(shard.model, data, recipe, epochs, shard.seeds.integer(f"slice {number}"), learnt)
                    )
                    learnt = True
                except InputError as error:  # too few samples for a fit, or for batch norm
                    if learnt:
                        raise
                    found.error = str(error)
            found.states.append({name: t.detach().clone() for name, t in shard.model.state_dict().items()})
            found.learnt.append(learnt)
    return found


def _learn(model: nn.Module, data: Dataset, recipe: Recipe, epochs: int, seed: int, learnt: bool) -> Counts:
    if not learnt:
        if callable(prepare := getattr(model, "fit", None)):
            prepare(data.x)
        check_outputs(model, data)
        check_functional(model, data.x[:1])
    samples = samples_of(data)
    (out,) = run_phases(
        [Net(model)],
        [Phase("retain", supervised, epochs)],
        forget=no_samples(samples),
        retain=samples,
        recipe=dataclasses.replace(recipe, epochs=epochs, patience=None),
        seeds=[Seeds(seed, "train")],
        watch=Watch(),
        rule=keep_last,
    )
    if isinstance(out, DivergedError):
        raise NumericalError(str(out))
    out.net.write_back()
    return out.net.counts


def _joined(slices: Sequence[Dataset]) -> Dataset:
    """The union, in the order of ids."""
    first = slices[0]
    ids = torch.cat([part.ids for part in slices])
    order = ids.argsort()
    x, y = torch.cat([part.x for part in slices])[order], torch.cat([part.y for part in slices])[order]
    return Dataset(x, y, ids[order], first.classes, first.name)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
