"""The user's own code: imported only when a study names it."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from qunlearn.errors import InputError


def import_plugins(folder: str, modules: list[str]) -> None:
    """Import modules that may register methods, cards and data sets; `folder` is searched too."""
    if folder not in sys.path:
        sys.path.append(folder)
    for name in modules:
        _import(name)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"expected a Python module {name!r} beside the study file or installed, got none ({error})"
        ) from error


def load_factory(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names. Raises `InputError` where it isn't there."""
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise InputError(f'expected a factory as "module:function", got {name!r}')
    made = getattr(_import(module), function, None)
    if not callable(made):
        raise InputError(f"expected a function {function!r} in module {module!r}, got {made!r}")
    factory: Callable[..., Any] = made
    return factory


def source_hash(name: str) -> str:
    """A hash of a module's file, so that changed code gives new keys."""
    path = getattr(_import(name.partition(":")[0]), "__file__", None)
    if path is None:
        return ""
    with open(path, "rb") as handle:
        return hashlib.sha256(handle.read()).hexdigest()
