"""The page's part on comparing methods: ranks over tasks, pairs on common seeds, equal compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qunlearn.study.report.compute import cost_table
from qunlearn.study.report.material import Material
from qunlearn.study.report.paired import Paired, paired
from qunlearn.study.report.ranks import Ranks
from qunlearn.study.report.tabling import Table
from qunlearn.study.report.views import View

FEW = 8  # pairs: with fewer, a bootstrap interval is too narrow


@dataclass(frozen=True)
class Comparisons:
    """What the page shows of it.

    Args:
        ranks: what is said of ranks over tasks; empty where the records hold no oracle distance.
        pairs: one table a view.
        few: a warning where a view has few pairs; empty otherwise.
        costs: one table a view.
    """

    ranks: str
    pairs: tuple[Paired, ...]
    few: str
    costs: tuple[Table, ...]


def comparisons(material: Material, found: Sequence[View], ranking: Ranks | None) -> Comparisons:
    """The comparisons that the records allow."""
    all_pairs = (paired(view, number, material.rankings) for number, view in enumerate(found, start=1))
    pairs = tuple(own for own in all_pairs if own is not None)
    costs = tuple(table for view in found if (table := cost_table(view)) is not None)
    count = material.seeds * material.splits
    few = f"With {count} pairs the intervals are too narrow to lean on; 8 or more are better." if count < FEW else ""
    return Comparisons(ranking.told if ranking else "", pairs, few if pairs else "", costs)
