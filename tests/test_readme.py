"""What README.md and CONTRIBUTING.md say of the package; the example in README.md runs as a doctest."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import qunlearn as qu
from qunlearn import methods
from qunlearn.quantum.card import read_card
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Phase

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


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


def test_strategies_stand_together_with_what_they_can_do() -> None:
    shown = {row[0].strip("`"): row[3] for row in _rows("Methods") if len(row) > 3}
    assert shown == {name: cls.strategy for name, cls in methods.available().items() if cls.strategy}
    page = (ROOT / "docs" / "quantum_strategies.md").read_text()
    assert sorted(re.findall(r"^\| `([a-z-]+)`", page, re.MULTILINE)) == sorted(shown)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


def test_the_example_is_short() -> None:
    assert 8 <= len(re.findall(r"^(?:>>>|\.\.\.) ", README, re.MULTILINE)) <= 15


def _block(language: str) -> str:
    """The first block of code of a language in CONTRIBUTING.md."""
    return CONTRIBUTING.split(f"```{language}\n")[1].split("```")[0]


def test_the_method_to_start_from_unlearns() -> None:
    names: dict[str, Any] = {
        "Batch": Batch, "ClassVar": ClassVar, "GradientMethod": methods.GradientMethod, "Memo": Memo, "Net": Net,
        "Phase": Phase, "Sequence": Sequence, "Task": methods.Task, "Tensor": Tensor,
        "cross_entropy": nn.functional.cross_entropy, "dataclass": dataclasses.dataclass, "hyper": methods.hyper,
        "nn": nn, "torch": torch, "register": lambda cls: cls,
    }  # fmt: skip
    exec(_block("python"), names)
    split = qu.load_dataset("iris").split(qu.ForgetRequest.of_class(0), seed=0)
    fresh = qu.reinitialise(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), 0)
    model = qu.train(fresh, split.train, epochs=10, progress=False)
    result = qu.unlearn(model, split.forget, split.retain, method=names["Flatten"](epochs=10), seed=0)
    before, after = (one(split.forget.x).softmax(1).amax(1).mean() for one in (model, result.model))
    assert after < before


def test_the_card_to_start_from_is_that_of_ring_cz() -> None:
    shown = read_card(_block("toml"), "CONTRIBUTING.md")
    packaged = read_card((ROOT / "circuits" / "ring-cz.toml").read_text(), "ring-cz.toml")
    assert shown.knobs == packaged.knobs
    assert shown.encoding == packaged.encoding
    assert [(op.gates, op.pattern, op.knob) for op in shown.layer] == [
        (op.gates, op.pattern, op.knob) for op in packaged.layer
    ]
