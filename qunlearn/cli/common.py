"""What commands share: options, and how they print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qunlearn.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

Folder = Annotated[Path, typer.Argument(help="The results folder of a study, such as runs/quickstart.")]
Where = Annotated[list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Which cell of the study.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@contextmanager
def kept(again: str, what: str = "done") -> Iterator[None]:
    """Say how to go on where the service is away, or Ctrl-C was pressed; what was done is kept."""
    from qunlearn.errors import ServiceError

    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted; what was {what} is kept. Go on with: {again}")
        raise typer.Exit(130) from None
    except ServiceError as error:
        typer.echo(f"Error: {error}", err=True)
        typer.echo(f"Go on with: {again}")
        raise typer.Exit(1) from None


def pairs(given: Sequence[str]) -> dict[str, str]:
    """By column what ``--where`` asks for.

    Raises:
        InputError: for one without a ``=``.
    """
    wrong = [item for item in given if "=" not in item]
    if wrong:
        raise InputError(f"expected --where COLUMN=VALUE, got {wrong[0]!r}")
    return dict(item.split("=", 1) for item in given)


def numbers(option: str, given: str | None) -> tuple[int, ...]:
    """The whole numbers of an option, none where it was not given.

    Raises:
        InputError: for anything else.
    """
    try:
        return tuple(int(item) for item in (given or "").split(",") if item)
    except ValueError:
        raise InputError(f"expected {option} as whole numbers such as 1,3,5, got {given!r}") from None


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on the terminal."""
    from rich.console import Console

    Console().print(_table(title, columns, rows))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def cell(value: Any) -> str:
    """A value as it stands in a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def say(line: str) -> None:
    """A line on the way, apart from what a command answers."""
    typer.echo(line, err=True)
