"""Files that are there whole or not at all, their hashes, and folders that one command holds at a time."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from qunlearn.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old or the new content; it is on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder last; where folders cannot be opened (Windows) the system does it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(content: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def tensor_digest(tensors: Mapping[str, NDArray[Any]], note: bytes = b"") -> str:
    """The SHA-256 of a note and of arrays in the order of their names, in hexadecimal digits."""
    total = hashlib.sha256(note)
    for name in sorted(tensors):
        array = tensors[name]
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def lock(handle: IO[Any], refusal: str) -> None:
    """Hold an open file until it is closed, or its process ends, however that ends.

    Raises:
        InputError: with the sentence `refusal`, where another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two commands in one folder are then the user's care
        return
    try:
        fcntl.flock(handle.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(refusal) from None
