"""Which versions of Python and of packages are at work."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of packages by name; "not installed" for one that is absent."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
