"""Two things that the standard library's TOML reader lacks: the line of a key, and a writer."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from qunlearn.study.config import Settings

_HEADER = re.compile(r"^\s*\[\[?(?P<key>[^\[\]]+)\]\]?\s*(#.*)?$")
_ASSIGNMENT = re.compile(r"""^\s*(?P<key>(?:"[^"]*"|'[^']*'|[A-Za-z0-9_.-]|\s*\.\s*)+?)\s*=""")
_PART = re.compile(r'"([^"]*)"|\'([^\']*)\'|([A-Za-z0-9_-]+)')


def line_of(text: str, path: Sequence[str]) -> int | None:
    """The 1-based line of the longest beginning of `path` that the text names, or None."""
    lines = dict(reversed(list(_keys(text))))
    for length in range(len(path), 0, -1):
        if tuple(path[:length]) in lines:
            return lines[tuple(path[:length])]
    return None


def _keys(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _parts(header["key"])
            yield table, number
        elif assignment := _ASSIGNMENT.match(line):
            yield table + _parts(assignment["key"]), number


def _parts(key: str) -> tuple[str, ...]:
    return tuple(next(group for group in match.groups() if group is not None) for match in _PART.finditer(key))


def toml_value(value: Any) -> str:
    """A JSON value as TOML on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml_key(name)} = {toml_value(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def toml_key(name: str) -> str:
    """A key, quoted where it has to be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def dump(data: dict[str, Any]) -> str:
    """A dict with at most one level of tables as TOML text; None is left out."""
    plain = {name: value for name, value in data.items() if not isinstance(value, dict)}
    lines = [f"{toml_key(name)} = {toml_value(value)}" for name, value in plain.items() if value is not None]
    for table, content in data.items():
        if isinstance(content, dict):
            lines += ["", f"[{toml_key(table)}]"]
            lines += [f"{toml_key(name)} = {toml_value(v)}" for name, v in content.items() if v is not None]
    return "\n".join(lines) + "\n"


def reference_toml() -> str:
    """The text of `studies/reference.toml`: every key with its default and meaning."""
    lines = [_INTRODUCTION, 'name = "reference"                 # names the results folder runs/NAME']
    sections: list[str] = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            sections += ["", f"# {type(default).__doc__}", f"[{name}]"]
            for key, inner in type(default).model_fields.items():
                sections += _entry(key, inner.get_default(call_default_factory=True), inner.description)
        else:
            lines += _entry(name, default, field.description)
    return "\n".join([*lines, *sections, "", _GRID])


def _entry(key: str, default: Any, meaning: str | None) -> list[str]:
    assignment = f"# {key} =" if default is None else f"{key} = {toml_value(default)}"
    one_line = f"{assignment:<34} # {meaning}"
    if len(one_line) <= 120:
        return [one_line]
    return [f"# {line}" for line in textwrap.wrap(meaning or "", 110)] + [assignment]


_INTRODUCTION = """\
# Every key of a study file with its default and meaning; a key behind # is not set unless you set it.
# This file is made from the configuration model (`qunlearn.study.toml_text.reference_toml`) and tested equal to it.
"""

_GRID = """\
# The product of all lists. Any key of the tables above may be swept, by its dotted name in quotes; keys of [model] or
# of [training] that change together are swept as parts of the table.
[grid]
# "model.depth" = [1, 2, 4]
# model = [{ depth = 2, head = "shallow" }, { depth = 6, head = "deep" }]
# What is to be forgotten: { fraction = 0.05 }, { class = 0 }, { ids = [3, 14, 15] } or { corrupted = true }, which may
# say what is corrupted for it alone: { corrupted = true, label_flips = 0.1 }.
request = [{ fraction = 0.05 }]
# A name (`qunlearn list methods`), or a table with `name`, hyper-parameters and, if you like, a `label` for the tables.
# "none" and "retrain" are always there, and where models are audited "head-only", a control.
method = ["none", "retrain", "fine-tune"]
seed = [0]                         # initialisation, order of samples, method
"""
