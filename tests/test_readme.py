"""What README.md says of the package; its example runs as a doctest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qunlearn import methods

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def _rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:3] == "| `"]


def test_the_table_lists_the_methods_that_there_are() -> None:
    assert sorted(row[0].strip("`") for row in _rows("Methods")) == sorted(methods.available())


@pytest.mark.parametrize("row", _rows("Methods"), ids=lambda row: row[0])
def test_the_sources_are_those_of_the_docstrings(row: list[str]) -> None:
    docstring = methods.available()[row[0].strip("`")].__doc__ or ""
    for number in re.findall(r"\d{4}\.\d{5}", row[2]):
        assert number in docstring


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


def test_the_example_is_short() -> None:
    assert 8 <= len(re.findall(r"^(?:>>>|\.\.\.) ", README, re.MULTILINE)) <= 15
