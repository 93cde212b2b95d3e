"""`Trace`: what a training recorded for a method that needs it to unlearn."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qunlearn.data import Dataset
from qunlearn.errors import CorruptFileError, InputError
from qunlearn.files import tensor_digest

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Trace:
    """What the training of an original recorded for the method that will unlearn from it.

    Attributes:
        method: name of the method whose `train` recorded it.
        hyperparameters: of that method.
        tensors: by name; of any shape and dtype that safetensors knows.
        facts: everything else, as JSON values.
    """

    method: str
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """A safetensors file that holds the hash of its content."""
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        said = {"method": self.method, "hyperparameters": self.hyperparameters, "facts": self.facts}
        note = {"format": FORMAT, **said, "sha256": _digest(tensors, said)}
        return save(tensors, metadata={"qunlearn": json.dumps(note, sort_keys=True)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Trace:
        """What `to_bytes` wrote. Raises `CorruptFileError` for anything else."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            header = int.from_bytes(data[:8], "little")
            note = json.loads(json.loads(data[8 : 8 + header])["__metadata__"]["qunlearn"])
            tensors, kept, digest = load(data), note.pop("format"), note.pop("sha256")
            if kept != FORMAT or digest != _digest(tensors, note):
                raise KeyError("sha256")
            return cls(**note, tensors=tensors)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CorruptFileError("expected a trace as it was written, got other content; train again") from error


def _digest(tensors: dict[str, Tensor], said: dict[str, Any]) -> str:
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    return tensor_digest(arrays, json.dumps(said, sort_keys=True).encode())


def trace_of(model: object, given: Trace | None, method: str) -> Trace:
    """The trace that a model carries, or else the given one.

    Raises:
        InputError: where there is none, or one that another method recorded.
    """
    own = getattr(model, "trace", None)
    trace = own if own is not None else given
    if trace is None or trace.method != method:
        got = "none" if trace is None else f"one of {trace.method}"
        raise InputError(
            f"expected a trace that {method} recorded, got {got}; train the original by "
            f"methods.get({method!r}).train(model, data)"
        )
    return trace


def check_trained(ids: Tensor, *sets: Dataset) -> None:
    """Refuses sets that are not together the samples of the given ids ``(n,)``, which a training knew.

    Raises:
        InputError: says how many are which.
    """
    given = torch.cat([data.ids for data in sets]).cpu()
    if not torch.equal(given.sort().values, ids.cpu().sort().values):
        known = int(torch.isin(given, ids.cpu()).sum())
        raise InputError(
            f"expected the forget and retain sets to hold the {len(ids)} samples that the model was trained on and has "
            f"not forgotten, under the same ids, got {len(given)} samples, {known} of them known; pass the sets whole"
        )
