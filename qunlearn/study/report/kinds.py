"""Families of methods: by them many methods are ordered and coloured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

MANY = 14  # with more methods, figures group them by family

_FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Descent on the retain set", ("fine-tune", "noisy-fine-tune", "l1-sparse")),
    ("Ascent on the forget set", ("gradient-ascent", "neggrad-plus", "fisher-penalty", "npo", "scrub")),
    ("New targets for the forget set", (
        "random-label", "lca", "adaprob", "adv-uniform", "q-mul", "bad-teacher", "salun", "boundary-shrink",
        "boundary-expand", "unsir", "rmu",
    )),
    ("Layers trained anew", ("cf-k", "eu-k")),
    ("Weights edited", ("fisher-forgetting", "ssd", "jit", "influence", "amnesiac")),
    ("Exact", ("sisa", "kernel-downdate")),
    ("Certified", ("certified-removal", "certified-newton", "langevin")),
    ("Control", ("head-only",)),
)  # fmt: skip
OTHER = "Other"
_KNOWN = {name: title for title, names in _FAMILIES for name in names}


@cache
def kind_of(method: str) -> str:
    """The family of a method, told by its name or by a label that begins with it; ``Other`` where unknown."""
    fitting = [name for name in _KNOWN if re.match(rf"{re.escape(name)}(?![\w-])", method)]
    return _KNOWN[max(fitting, key=len)] if fitting else OTHER


def is_control(method: str) -> bool:
    """Whether a method only pretends: it changes the last layer alone, so that output metrics cannot tell."""
    return kind_of(method) == "Control"


def grouped(methods: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The methods by family in a fixed order of families, within each in the given order."""
    titles = [*(title for title, _ in _FAMILIES), OTHER]
    groups = [(title, [name for name in methods if kind_of(name) == title]) for title in titles]
    return [(title, names) for title, names in groups if names]


def by_kind(methods: Sequence[str]) -> list[str]:
    """The methods in the order of their families where they are many, else as they are."""
    return [name for _, names in grouped(methods) for name in names] if len(methods) > MANY else list(methods)
