"""Fresh initial weights: a copy of a model, drawn again from a seed."""

from __future__ import annotations

import copy
import inspect
import math
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.models.stages import stages


def reinitialise(model: nn.Module, seed: int, only: Collection[str] | None = None) -> nn.Module:
    """A deep copy of a model with every parameter drawn again, and nothing learnt from data left.

    Each submodule's ``reset_parameters`` draws from a child seed of its own (by its path), so that adding a
    layer leaves the others' weights as they were. Running statistics of norm layers start anew, and
    data-fitted parts (those with ``unfit``, such as the PCA encoder) forget what they learnt. What is
    frozen stays frozen.

    Args:
        model: any module; left untouched.
        seed: 0 or more. torch's global generator is left as it was.
        only: names of stages; nothing outside them changes, and data-fitted parts stay as they are.

    Raises:
        UnsupportedError: names the submodules whose parameters no ``reset_parameters`` draws.
    """
    fresh = copy.deepcopy(model)
    paths = None if only is None else _paths_of(fresh, only)
    redraw(fresh, seed, paths)
    if only is None:
        for part in fresh.modules():
            unfit = getattr(part, "unfit", None)
            if callable(unfit):
                unfit()
    return fresh


@torch.no_grad()
def redraw(model: nn.Module, seed: int, paths: Collection[str] | None = None) -> None:
    """Draws the parameters of a model's submodules again, in place; of all, or of those at `paths`."""
    if isinstance(seed, bool) or seed < 0:
        raise InputError(f"expected a seed of 0 or more, got {seed}")
    chosen = {path: part for path, part in model.named_modules() if paths is None or path in paths}
    owned = [(path, p) for path, part in chosen.items() for p in part.parameters(recurse=False)]
    for _, parameter in owned:
        parameter.fill_(math.nan)  # whatever is not drawn again shows
    with isolated_random(model):
        for path, part in chosen.items():
            _reset(part, int(np.random.SeedSequence((seed, zlib.crc32(path.encode()))).generate_state(1, np.uint32)[0]))
    left = sorted({f"{path or 'the model'} ({type(chosen[path]).__name__})" for path, p in owned if p.isnan().any()})
    if left:
        raise UnsupportedError(
            f"expected a reset_parameters() that draws every parameter, got none for {', '.join(left)}; "
            "define reset_parameters() there, or give a function that makes a fresh model"
        )


@contextmanager
def isolated_random(model: nn.Module | None = None) -> Iterator[None]:
    """Leaves torch's global generators, of the CPU and of a model's GPUs, as they were before."""
    with torch.random.fork_rng(devices=[] if model is None else _cuda_indices(model)):
        yield


def _cuda_indices(model: nn.Module) -> list[int]:
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})


def _reset(part: nn.Module, seed: int) -> None:
    """Calls the submodule's own reset, with a generator if it takes one and under the global seed if not."""
    # MultiheadAttention and Transformer spell it with an underscore.
    reset: Callable[..., Any] | None = getattr(part, "reset_parameters", None) or getattr(
        part, "_reset_parameters", None
    )
    if not callable(reset):
        return
    if "generator" in inspect.signature(reset).parameters:
        device = next((p.device for p in part.parameters(recurse=False)), torch.device("cpu"))
        reset(generator=torch.Generator(device).manual_seed(seed))
        return
    # Not torch.manual_seed: that would also touch the generators of devices that nobody restores.
    torch.default_generator.manual_seed(seed)
    for index in _cuda_indices(part):
        torch.cuda.default_generators[index].manual_seed(seed)
    reset()


def _paths_of(model: nn.Module, names: Collection[str]) -> set[str]:
    known = {stage.name: stage.modules for stage in stages(model)}
    for name in names:
        if name not in known:
            raise UnknownNameError("stage", name, known)
    return {path for name in names for path in known[name]}
