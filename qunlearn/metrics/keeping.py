"""Arrays in a file that holds the hash of its content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from qunlearn.errors import CorruptFileError
from qunlearn.files import tensor_digest

FORMAT = 1


def arrays_to_bytes(arrays: Mapping[str, npt.NDArray[Any]], kind: str) -> bytes:
    """A safetensors file of arrays by name, of a kind that is named in it."""
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    note = json.dumps({"format": FORMAT, "kind": kind, "sha256": tensor_digest(tensors)}, sort_keys=True)
    return save(tensors, metadata={"qunlearn": note})


def arrays_from_bytes(content: bytes, kind: str) -> dict[str, npt.NDArray[Any]]:
    """What `arrays_to_bytes` wrote.

    Raises:
        CorruptFileError: where the bytes are damaged, or of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        note = json.loads(header["__metadata__"]["qunlearn"])
        tensors = load(content)
        if note["format"] != FORMAT or note["kind"] != kind or note["sha256"] != tensor_digest(tensors):
            raise KeyError("sha256")
    except (SafetensorError, KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"expected {kind} as they were written, got other or damaged content") from error
    return dict(tensors)
