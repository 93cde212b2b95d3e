"""Tables: on the terminal, as CSV, and as Markdown for a page."""

from __future__ import annotations

import csv
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.bars import Bar


@dataclass(frozen=True)
class Sheet:
    """A table: numbers stay to the right, the other columns to the left.

    Rows that agree in the first `grouped` columns stand together.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    grouped: int = 0

    def show(self) -> None:
        """Print it; a cell that says "not met" or "REFUSED" is red on a terminal."""
        table = Table(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            numbers = all(_numeric(row[number]) for row in self.rows)
            table.add_column(column, justify="right" if numbers else "left", overflow="fold")
        for place, row in enumerate(self.rows):
            after = self.rows[place + 1] if place + 1 < len(self.rows) else row
            ends = row[: self.grouped] != after[: self.grouped]
            table.add_row(*(_coloured(cell) for cell in row), end_section=ends)
        Console(width=None if sys.stdout.isatty() else 150).print(table)

    def write_csv(self, path: Path) -> None:
        """Write it as CSV."""
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([self.columns, *self.rows])

    def markdown(self) -> str:
        """It as a Markdown table under its title."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        text = "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
        return f"{self.title}\n\n{text}\n"


def _numeric(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell == "-"


def _coloured(cell: str) -> str:
    red = cell.startswith(("not met", "REFUSED"))
    return f"[bold red]{escape(cell)}[/]" if red else escape(cell)


def number(value: float | None, digits: int = 3) -> str:
    """A value to so many figures without an exponent; "-" for None and NaN."""
    if value is None or value != value:
        return "-"
    if value in (float("inf"), float("-inf")):
        return str(value)
    decimals = max(0, digits - len(str(int(abs(value))))) if abs(value) >= 1 else digits
    return f"{value:.{decimals}f}"


def say(sentences: Sequence[str]) -> None:
    """Print sentences; those that say that this is no closing figure are red on a terminal."""
    for sentence in sentences:
        style = "bold red" if "no closing figure" in sentence else ""
        Console(soft_wrap=True).print(escape(sentence), style=style, highlight=False)


def bar_sheet(bars: Sequence[Bar]) -> Sheet:
    """The bars with their states."""
    rows = [
        (bar.title, number(bar.value), _bound(bar), {"shown": ""}.get(bar.state, bar.state), bar.detail) for bar in bars
    ]
    return Sheet("Bars", ("what", "ratio", "bar", "state", "figures"), rows)


def _bound(bar: Bar) -> str:
    return "" if bar.bound is None else f"{'at most' if bar.at_most else 'at least'} {bar.bound:g}"


def machine(threads: int, versions: Mapping[str, str]) -> list[str]:
    """Sentences that say what a run ran on."""
    found = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    system = f"{platform.system()}, Python {platform.python_version()}"
    return [f"{_processor()}, {os.cpu_count()} cores, {threads} used by each; {system}; {found}."]


def _processor() -> str:
    """The processor's name, or its kind where the system does not tell."""
    path = Path("/proc/cpuinfo")
    names = [line for line in path.read_text().splitlines() if line.startswith("model name")] if path.is_file() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
