"""`Bundle`: the models to run on hardware, and the samples to run them on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.quantum.layer import QuantumLayer


@dataclass(frozen=True, eq=False)
class Bundle:
    """Named models and named sets of samples; every model runs on every sample.

    Attributes:
        models: each with exactly one `QuantumLayer`, through which every sample goes once.
        sets: such as forget, retain, test and holdout.
        roles: of each model "original", "unlearned" or "retrained", where it is known.
        keys: of each model the key of its trial in the study that it comes from.

    Raises:
        InputError: no model, no sample, or a model without a circuit, or with several.
    """

    models: Mapping[str, nn.Module]
    sets: Mapping[str, Dataset]
    roles: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Hold the guarantees of the class."""
        if not self.models:
            raise InputError("expected at least one model, got none")
        if not any(len(data) for data in self.sets.values()):
            raise InputError("expected at least one sample, got none")
        for name, model in self.models.items():
            circuit_layer(model, name)

    def sampled(self, samples: int, seed: int = 0) -> Bundle:
        """The same models on `samples` samples in all, as evenly from the sets as these allow.

        Raises:
            InputError: for fewer samples than sets.
        """
        sizes = {name: len(data) for name, data in self.sets.items()}
        counts = shares(sizes, samples)
        seeds = np.random.SeedSequence(seed).spawn(len(self.sets))
        drawn = {}
        for (name, data), child in zip(self.sets.items(), seeds, strict=True):
            chosen = np.random.default_rng(child).permutation(len(data))[: counts[name]]
            drawn[name] = data.select(np.sort(chosen))
        return Bundle(self.models, drawn, self.roles, self.keys)


def shares(sizes: Mapping[str, int], samples: int) -> dict[str, int]:
    """How many samples to take of sets of these sizes: the same of each, what small ones lack from the others.

    >>> shares({"forget": 3, "retain": 80, "test": 20}, 30)
    {'forget': 3, 'retain': 14, 'test': 13}
    """
    if samples < sum(size > 0 for size in sizes.values()):
        raise InputError(f"expected at least one sample a set, {len(sizes)} in all, got {samples}")
    counts = dict.fromkeys(sizes, 0)
    left = min(samples, sum(sizes.values()))
    while left:
        open_sets = [name for name in sizes if counts[name] < sizes[name]]
        for name in open_sets[:left] if left < len(open_sets) else open_sets:
            step = 1 if left < len(open_sets) else min(sizes[name] - counts[name], left // len(open_sets))
            counts[name] += step
        left = min(samples, sum(sizes.values())) - sum(counts.values())
    return counts


def circuit_layer(model: nn.Module, name: str = "model") -> QuantumLayer:
    """The one circuit of a model.

    Raises:
        InputError: where there is none, or more than one.
    """
    layers = [part for part in model.modules() if isinstance(part, QuantumLayer)]
    if len(layers) != 1:
        raise InputError(f"expected {name} to hold exactly one QuantumLayer, got {len(layers)}")
    return layers[0]
