"""The rows of a plan: every sample through every model, as angles of opened circuits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qunlearn.hardware.bundle import Bundle, circuit_layer
from qunlearn.hardware.files import tensor_bytes
from qunlearn.hardware.folder import SAMPLES
from qunlearn.hardware.halves import features_of
from qunlearn.models import HybridClassifier
from qunlearn.models.files import model_files
from qunlearn.quantum.backends.opened import Opened, open_circuit

Files = dict[str, bytes]


class SampleRows:
    """The rows of a bundle: samples in an order that mixes the sets, models by the structure of their circuits."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.order = sample_order({name: len(data) for name, data in bundle.sets.items()})
        self.features = {name: self._features(name) for name in bundle.models}
        opened = {name: open_circuit(circuit_layer(model, name).circuit.without_noise()) for name, model in self._named}
        kinds = dict.fromkeys(one.circuit for one in opened.values())
        self.structures: list[Opened] = [
            next(one for one in opened.values() if one.circuit == circuit) for circuit in kinds
        ]
        self.structure = {name: list(kinds).index(one.circuit) for name, one in opened.items()}
        self.models_of = [sum(found == index for found in self.structure.values()) for index in range(len(kinds))]
        self.opened = opened

    @property
    def _named(self) -> list[tuple[str, Any]]:
        return list(self.bundle.models.items())

    def _ordered(self, parts: Mapping[str, Tensor]) -> Tensor:
        """What is known of the samples of each set, in the order of the plan."""
        names = list(self.bundle.sets)
        starts = np.cumsum([0, *(len(parts[name]) for name in names)])
        index = torch.tensor([int(starts[number]) + position for number, position in self.order])
        return torch.cat([parts[name] for name in names])[index]

    def _features(self, name: str) -> Tensor:
        model = self.bundle.models[name]
        return self._ordered({key: features_of(model, data.x, name) for key, data in self.bundle.sets.items()})

    def angles(self, structure: int) -> NDArray[np.float64]:
        """The angles ``(samples, models, K)`` of all models of a structure."""
        parts = [
            self.opened[name].angles(self.features[name], circuit_layer(model).weights.detach().cpu())
            for name, model in self._named
            if self.structure[name] == structure
        ]
        found: NDArray[np.float64] = torch.stack(parts, 1).numpy()
        return found

    def describe(self) -> dict[str, Any]:
        """What the plan says of models and samples."""
        models = [
            {
                "name": name,
                "role": self.bundle.roles.get(name, ""),
                "key": self.bundle.keys.get(name, ""),
                "structure": self.structure[name],
                "file": f"models/{number:03d}",
                "own_code": not _rebuildable(model),
            }
            for number, (name, model) in enumerate(self._named)
        ]
        sizes = [[name, len(data)] for name, data in self.bundle.sets.items()]
        return {"models": models, "sets": sizes, "order": [list(place) for place in self.order]}

    def files(self) -> Files:
        """The samples and the models."""
        sets = self.bundle.sets
        arrays = {f"angles/{index}": self.angles(index) for index in range(len(self.structures))}
        arrays |= {f"features/{n}": self.features[name].numpy() for n, name in enumerate(self.bundle.models)}
        arrays["labels"] = self._ordered({name: data.y.cpu() for name, data in sets.items()}).numpy()
        arrays["ids"] = self._ordered({name: data.ids.cpu() for name, data in sets.items()}).numpy()
        if not all(_rebuildable(model) for model in self.bundle.models.values()):
            arrays["x"] = self._ordered({name: data.x.cpu() for name, data in sets.items()}).numpy()
        files = {SAMPLES: tensor_bytes(arrays)}
        for number, (_, model) in enumerate(self._named):
            factory = None if _rebuildable(model) else f"{type(model).__module__}:{type(model).__qualname__}"
            weights, card = model_files(model, factory=factory)
            files |= {f"models/{number:03d}.safetensors": weights, f"models/{number:03d}.json": card}
        return files


def sample_order(sizes: Mapping[str, int]) -> list[tuple[int, int]]:
    """(number of the set, position in it) of every sample, the sets spread evenly over the whole.

    >>> sample_order({"forget": 1, "test": 2})
    [(1, 0), (0, 0), (1, 1)]
    """
    places = [(number, position, size) for number, size in enumerate(sizes.values()) for position in range(size)]
    places.sort(key=lambda place: ((place[1] + 0.5) / place[2], place[0]))
    return [(number, position) for number, position, _ in places]


def _rebuildable(model: torch.nn.Module) -> bool:
    return type(model) is HybridClassifier
