"""The methods by name."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.methods.base import Method

M = TypeVar("M", bound=Method)

_REGISTRY: dict[str, type[Method]] = {}


def register(cls: type[M]) -> type[M]:
    """Class decorator: makes a method known under its `name`."""
    if _REGISTRY.get(cls.name, cls).__qualname__ != cls.__qualname__ or not cls.name:
        raise InputError(f"expected a new method name, got {cls.name!r}, which is taken or empty")
    _REGISTRY[cls.name] = cls
    return cls


def available() -> dict[str, type[Method]]:
    """All registered methods by name, in the order of registration."""
    return dict(_REGISTRY)


def get(method: str | dict[str, Any] | Method) -> Method:
    """A method from its name, from a table such as ``{"name": "scrub", "epochs": 10}``, or itself.

    Raises:
        UnknownNameError: for an unknown method or hyper-parameter; it names the nearest.
        InputError: for a value out of range.
    """
    if isinstance(method, Method):
        return method
    settings = {"name": method} if isinstance(method, str) else dict(method)
    name = settings.pop("name", None)
    if name not in _REGISTRY:
        raise UnknownNameError("method", name, _REGISTRY)
    known = [item.name for item in dataclasses.fields(_REGISTRY[name])]
    for key in settings:
        if key not in known:
            raise UnknownNameError(f"hyper-parameter of {name}", key, known)
    return _REGISTRY[name](**settings)
