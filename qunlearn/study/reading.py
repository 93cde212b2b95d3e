"""From a study file to a `StudyConfig`; what is wrong in it is named with its place, and nothing is started."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qunlearn.errors import InputError
from qunlearn.study.config import Settings
from qunlearn.study.grid import CONTROLS, OWN_AXES, REQUESTS, MethodChoice, StudyConfig, sweepable, with_values
from qunlearn.study.task import CORRUPTION
from qunlearn.study.toml_text import dump, line_of

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text in quotes",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "a table",
    "dict_type": "a table",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


Axes = tuple[tuple[str, tuple[Any, ...]], ...]


class _Source:
    """Where the study's keys stand, for messages."""

    def __init__(self, name: str, text: str, overrides: Iterable[str]) -> None:
        self.name, self.text = name, text
        self.overrides = set(overrides)

    def place(self, path: Sequence[str]) -> str:
        """The place of a key, such as ``study.toml, line 12, model.depth``."""
        key = ".".join(f'"{part}"' if "." in part else part for part in path)
        if not self.overrides.isdisjoint((key, key.removeprefix("grid."), path[-1] if path else "")):
            return f"--set {key}"
        line = line_of(self.text, path)
        return ", ".join([self.name, *([f"line {line}"] if line else []), *([key] if key else [])])


def read_study(path: str | Path, overrides: Sequence[str] = (), folder: Path | None = None) -> StudyConfig:
    """The checked study of a file.

    Args:
        path: the file.
        overrides: ``key=value`` as on the command line.
        folder: where relative paths and the user's modules are found, if not beside the file.

    Raises:
        InputError: for a file that isn't there or isn't TOML, for a wrong key or value: the place in the file,
            what was expected, and the nearest known name.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a study file, got {str(path)!r}, which isn't there")
    text = path.read_text(encoding="utf-8")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: expected a TOML file, got one that cannot be read: {error}") from error
    changed = [_override(raw, item) for item in overrides]
    study = _build(raw, _Source(str(path), text, changed), folder or path.resolve().parent)
    if not changed:
        return study
    note = f"# {path.name} with --set {' --set '.join(overrides)}\n"
    return StudyConfig(**{**vars(study), "text": note + dump(raw)})


def _override(raw: dict[str, Any], item: str) -> str:
    key, equals, value = item.partition("=")
    key = key.strip().replace('"', "")
    if not equals or not key:
        raise InputError(f"expected --set key=value, got {item!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    grid = raw.setdefault("grid", {})
    name = key.removeprefix("grid.")
    if not isinstance(grid, dict):
        return key
    if key != name or name in OWN_AXES or name in grid or (_swept(parsed, name) and name in sweepable()):
        grid[name] = parsed if isinstance(parsed, list) else [parsed]
        return name
    *tables, last = key.split(".")
    inner = raw
    for table in tables:
        inner = inner.setdefault(table, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {key}: expected {table!r} to be a table")
    inner[last] = parsed
    return key


def _swept(value: Any, name: str) -> bool:
    """Whether a value given for a key is a list of its values; the value of one key is a list itself."""
    return isinstance(value, list) and (
        name not in ("data.swap", "data.shares") or all(isinstance(item, list) for item in value)
    )


def _build(raw: dict[str, Any], source: _Source, folder: Path) -> StudyConfig:
    tables = dict(raw)
    name = tables.pop("name", None)
    if not isinstance(name, str) or not name.strip() or set(name) & set('/\\:*?"<>|') or name.startswith("."):
        raise InputError(f"{source.place(['name'])}: expected a name that can name a folder, got {name!r}")
    grid = tables.pop("grid", {})
    if not isinstance(grid, dict):
        raise InputError(f"{source.place(['grid'])}: expected a table, got {grid!r}")
    swept = {key: value for key, value in grid.items() if key not in OWN_AXES}
    data = tables.get("data")
    if isinstance(data, dict) and isinstance(data.get("split_seed"), list):
        swept.setdefault("data.split_seed", data["split_seed"])
        tables["data"] = {key: value for key, value in data.items() if key != "split_seed"}
    settings = _settings(tables, source)
    axes = _axes(swept, settings, source)
    study = StudyConfig(
        name=name,
        settings=settings,
        axes=axes,
        requests=_requests(grid.get("request", [{"fraction": 0.05}]), settings, axes, source),
        methods=_methods(grid.get("method", []), bool(settings.audit.families), source),
        seeds=_seeds(grid.get("seed", [0]), source),
        folder=folder,
        text=source.text,
        place=source.place,
    )
    _check_cells(study, source)
    return study


def _settings(tables: dict[str, Any], source: _Source) -> Settings:
    try:
        return Settings.model_validate(tables)
    except ValidationError as error:
        raise InputError("\n".join(_messages(error, source))) from None


def _messages(error: ValidationError, source: _Source, path: Sequence[str] = ()) -> list[str]:
    found: dict[str, str] = {}
    for item in error.errors(include_url=False):
        where = _known_part(item["loc"], item["type"])
        place = source.place(path or where)
        found.setdefault(place, f"{place}: {_expected(dict(item), where)}")
    return list(found.values())


def _known_part(loc: tuple[int | str, ...], kind: str) -> list[str]:
    # A union adds the names of its members behind the key.
    names = [part for part in loc if isinstance(part, str)]
    sections = Settings.model_fields
    if len(names) > 1 and names[0] in sections and (kind == "extra_forbidden" or names[1] in _fields(names[0])):
        return names[:2]
    return names[:1]


def _fields(section: str) -> list[str]:
    default = Settings.model_fields[section].get_default(call_default_factory=True)
    return list(getattr(type(default), "model_fields", {}))


def _expected(item: dict[str, Any], where: Sequence[str]) -> str:
    kind, got, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        known = _fields(where[0]) if len(where) > 1 else ["name", *Settings.model_fields, "grid"]
        return f"expected a key that is known, got {where[-1]!r}; {_nearest(where[-1], known)}"
    if kind == "literal_error":
        options = [option.strip("' ") for option in context["expected"].replace(" or ", ", ").split(",")]
        return f"expected {context['expected']}, got {got!r}; {_nearest(got, options)}"
    if kind == "value_error":
        return str(context["error"])
    if kind in _BOUNDS:
        limit, words = _BOUNDS[kind]
        return f"expected {words} {context[limit]}, got {got!r}"
    return f"expected {_EXPECTED.get(kind, item['msg'])}, got {got!r}"


def _nearest(name: object, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def _axes(swept: dict[str, Any], settings: Settings, source: _Source) -> Axes:
    axes = []
    for key, values in swept.items():
        path = _axis_path(key, source)
        if key not in sweepable():
            known = (*OWN_AXES, *sweepable())
            raise InputError(f"{source.place(path)}: expected a key that can be swept; {_nearest(key, known)}")
        for value in _list(values, path, source):
            try:
                with_values(settings, {key: value})
            except ValidationError as error:
                raise InputError("\n".join(_messages(error, source, path))) from None
        axes.append((key, tuple(values)))
    return tuple(sorted(axes, key=lambda axis: axis[0] == "data.split_seed"))


def _axis_path(key: str, source: _Source) -> list[str]:
    inside = line_of(source.text, ["grid", key]) != line_of(source.text, ["grid"]) or key != "data.split_seed"
    return ["grid", key] if inside else ["data", "split_seed"]


def _list(values: Any, path: Sequence[str], source: _Source) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise InputError(f"{source.place(path)}: expected a list with at least one value, got {values!r}")
    if any(value in values[:index] for index, value in enumerate(values)):
        raise InputError(f"{source.place(path)}: expected every value once, got {values!r}")
    return values


def _requests(values: Any, settings: Settings, axes: Axes, source: _Source) -> tuple[dict[str, Any], ...]:
    path = ["grid", "request"]
    for value in _list(values, path, source):
        bases = [key for key in value if key not in CORRUPTION] if isinstance(value, dict) else []
        if len(bases) != 1:
            raise InputError(
                f"{source.place(path)}: expected tables such as {{ fraction = 0.05 }} or {{ class = 0 }}, got {value!r}"
            )
        if bases[0] not in REQUESTS:
            known = (*REQUESTS, *CORRUPTION)
            raise InputError(
                f"{source.place(path)}: expected a kind of request, got {bases[0]!r}; {_nearest(bases[0], known)}"
            )
        _check_corruption(value, settings, axes, source)
    return tuple(values)


def _check_corruption(request: dict[str, Any], settings: Settings, axes: Axes, source: _Source) -> None:
    """A request may say what is corrupted for it, unless the file says so for all."""
    own, path = {key: value for key, value in request.items() if key in CORRUPTION}, ["grid", "request"]
    for key in own:
        if key in settings.data.corruption or f"data.{key}" in dict(axes):
            raise InputError(f"{source.place(path)}: expected {key} once, got it beside data.{key}; remove one of them")
    try:
        with_values(settings, {f"data.{key}": value for key, value in own.items()})
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False)
        key = next((str(part) for part in first["loc"] if part in own), "corruption")
        raise InputError(f"{source.place(path)}: {key}: {_expected(dict(first), ['data', key])}") from None


def _methods(values: Any, audited: bool, source: _Source) -> tuple[MethodChoice, ...]:
    """The methods, and the controls that are not among them: two before, and one after them if audited."""
    path = ["grid", "method"]
    if values != []:
        _list(values, path, source)
    try:
        choices = [MethodChoice.read(value) for value in values]
    except InputError as error:
        raise InputError(f"{source.place(path)}: {error}") from None
    names = {choice.name for choice in choices}
    none, retrain, last = ([MethodChoice.read(name)] if name not in names else [] for name in CONTROLS)
    found = (*none, *retrain, *choices, *(last if audited else []))
    labels = [choice.label for choice in found]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise InputError(f"{source.place(path)}: expected every label once, got {sorted(twice)} twice")
    return found


def _seeds(values: Any, source: _Source) -> tuple[int, ...]:
    path = ["grid", "seed"]
    for value in _list(values, path, source):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(f"{source.place(path)}: expected whole numbers of at least 0, got {value!r}")
    return tuple(values)


def _check_cells(study: StudyConfig, source: _Source) -> None:
    try:
        cells = list(study.cells())
    except ValidationError as error:
        raise InputError("\n".join(_messages(error, source))) from None
    if not study.settings.paired and any(cell.retrained < 2 for cell in cells):
        raise InputError(
            f"{source.place(['retrained'])}: expected retrained of at least 2, so that they have a spread, got fewer; "
            "raise it, or set paired = true to repeat a paper that has one"
        )
    if study.settings.paired and any(cell.retrained < len(study.seeds) for cell in cells):
        raise InputError(
            f"{source.place(['paired'])}: expected a retrained model for every seed, got {study.settings.retrained} "
            f"for {len(study.seeds)} seeds; raise `retrained`"
        )
