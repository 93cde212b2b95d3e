"""JSON and tensors that know when they were damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qunlearn.errors import CorruptFileError
from qunlearn.files import sha256, tensor_digest


def json_bytes(data: Mapping[str, Any]) -> bytes:
    """A JSON object with its checksum, a line a key, the same bytes for equal data."""
    full = {**data, "checksum": sha256(canonical(data).encode())}
    lines = (f"{json.dumps(key)}: {canonical(full[key])}" for key in sorted(full))
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def read_json(path: Path, redo: str) -> dict[str, Any]:
    """What `json_bytes` made; `redo` says what to do about a damaged file.

    Raises:
        CorruptFileError: where the file is missing, damaged or something else.
    """
    try:
        data = json.loads(path.read_bytes())
        checksum = data.pop("checksum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(f"expected {path} as it was written, got one that cannot be read; {redo}") from error
    if checksum != sha256(canonical(data).encode()):
        raise CorruptFileError(f"expected {path} as it was written, got other content; {redo}")
    return dict(data)


def tensor_bytes(tensors: Mapping[str, NDArray[Any]], note: Mapping[str, Any] | None = None) -> bytes:
    """A safetensors file that holds a note and the hash of both."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    text = canonical({"note": dict(note or {}), "sha256": tensor_digest(arrays, canonical(dict(note or {})).encode())})
    return save(arrays, metadata={"qunlearn": text})


def read_tensors(path: Path, redo: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays and the note of what `tensor_bytes` made.

    Raises:
        CorruptFileError: where the file is missing, damaged or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            kept = json.loads((file.metadata() or {})["qunlearn"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if kept["sha256"] != tensor_digest(tensors, canonical(kept["note"]).encode()):
            raise KeyError("sha256")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"expected {path} as it was written, got other content; {redo}") from error
    return tensors, kept["note"]


def canonical(data: Any) -> str:
    """JSON text that is the same for equal data."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
