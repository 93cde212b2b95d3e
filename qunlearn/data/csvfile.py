"""Read a data set from a CSV file; every refusal names the column and the line."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from qunlearn.data.checks import name_labels, some
from qunlearn.data.dataset import Dataset
from qunlearn.errors import InputError, UnknownNameError

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
_Lines = list[tuple[int, list[str]]]


def read_csv(path: str | os.PathLike[str], label: str, ids: str | None = None) -> Dataset:
    """The data set in a CSV file with a header (see `Dataset.from_csv`); features are float32."""
    file = Path(path)
    header, lines = _read(file)
    for column in (label,) if ids is None else (label, ids):
        if column not in header:
            raise UnknownNameError(f"column of {file.name}", column, header)
    _refuse_missing(file, header, lines)
    features = [column for column in header if column not in (label, ids)]
    if not features:
        raise InputError(f"expected at least one feature column in {file.name}, got only {', '.join(header)}")
    x = np.stack([_numbers(file, column, header.index(column), lines) for column in features], axis=1)
    y, classes = name_labels([fields[header.index(label)] for _, fields in lines])
    numbers = None if ids is None else _numbers(file, ids, header.index(ids), lines)
    return Dataset(x.astype(np.float32), y, ids=numbers, classes=classes, name=file.stem)


def _read(file: Path) -> tuple[list[str], _Lines]:
    """The header, and every line that is not blank with its number."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, skipinitialspace=True)
            lines = [(reader.line_num, [field.strip() for field in fields]) for fields in reader if fields]
    except FileNotFoundError:
        raise InputError(f"expected a CSV file at {file}, got nothing there") from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InputError(f"expected a CSV file in UTF-8 at {file}, got {error}") from None
    if len(lines) < 2:
        raise InputError(f"expected a header and at least one line of data in {file.name}, got {len(lines)} lines")
    header = lines[0][1]
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise InputError(f"expected column names of {file.name} that are unique, got {some(repeated)} more than once")
    for number, fields in lines[1:]:
        if len(fields) != len(header):
            raise InputError(f"expected {len(header)} fields in line {number} of {file.name}, got {len(fields)}")
    return header, lines[1:]


def _refuse_missing(file: Path, header: list[str], lines: _Lines) -> None:
    """Refuse missing values, naming where they are."""
    places = [
        f"line {number} ({column})"
        for number, fields in lines
        for column, field in zip(header, fields, strict=True)
        if field.lower() in _MISSING
    ]
    if places:
        raise InputError(
            f"expected a value in every field of {file.name}, got none in {some(places)}; fill or drop them"
        )


def _numbers(file: Path, column: str, index: int, lines: _Lines) -> np.ndarray:
    """A column as float64, finite."""
    values = np.empty(len(lines))
    for row, (number, fields) in enumerate(lines):
        try:
            values[row] = float(fields[index])
        except ValueError:
            raise InputError(
                f"expected numbers in column {column!r} of {file.name}, got {fields[index]!r} in line {number}; "
                "encode or drop the column"
            ) from None
        if not np.isfinite(values[row]):
            raise InputError(
                f"expected finite numbers in column {column!r} of {file.name}, got {fields[index]!r} in line {number}"
            )
    return values
