"""Every error that qunlearn raises on purpose. All derive from `QunlearnError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QunlearnError(Exception):
    """Base class of the errors that qunlearn raises on purpose."""


class InputError(QunlearnError, ValueError):
    """What the user gave is wrong; the message says what was expected, what was got and what to do."""


class UnknownNameError(InputError):
    """A name that is not in the list of known ones; the message names the nearest."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
        article = "an" if kind[0] in "aeiou" else "a"
        super().__init__(f"expected the name of {article} {kind}, got {name!r}; {hint}")


class UnsupportedError(QunlearnError):
    """Something that this object cannot do, with the reason and the way round."""


class NumericalError(QunlearnError):
    """A computation left the finite numbers; what was last finite is kept by whoever raises."""


class CorruptFileError(QunlearnError):
    """A file that is damaged, or is not what its name says."""


class DownloadError(QunlearnError):
    """A data set that could not be fetched; the message says where to put it by hand."""


class ServiceError(QunlearnError):
    """A service that could not be reached, or that answers wrongly; what was done is kept, so come back later."""
