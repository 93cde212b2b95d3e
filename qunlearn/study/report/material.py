"""What a report is made of: the records of a study and what is said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

    from qunlearn.study.report.pictures import States

ORIGINAL, RETRAINED = "none", "retrain"  # the methods whose rows are the original and the retrained models

KEYS = (
    "study", "trial", "protocol", "dataset", "split_seed", "circuit", "qubits", "depth", "entanglement", "encoder",
    "head", "request", "method", "seed",
)  # fmt: skip
CERTIFIED = ("epsilon", "delta", "epsilon_estimated", "delta_estimated")  # no average of them guarantees anything
REPEATS = ("study", "trial", "split_seed", "seed")  # what tells apart trials of one group


@dataclass(frozen=True, eq=False)
class Material:
    """The records of one study, in the plan's order, with what the page says beside them.

    Args:
        name: the study's name.
        records: one row a trial, with the columns of `KEYS`, then measures and counts.
        times: the columns ``trial`` and ``seconds``.
        axes: the columns that tell apart groups of trials, beyond `KEYS` those of other keys in the grid.
        file: the text of the study file.
        failed: one mapping a failed trial, with ``trial``, ``title`` and ``error``.
        baselines: rows such as ``{"model": "logistic regression", "accuracy_test": 0.95}``.
        versions: name to version, of what ran the study.
        missing: how many planned trials are not there yet.
        budget: how many settings were tried per method; 0 and 1 are no search.
        tunings: the records of the tunings, with the columns that identify each as ``row``.
        audits: one row a trial and audit: the columns that identify the trial, then ``audit``, ``value``, ``low``,
            ``high``, ``retrained``, ``retrained_low``, ``retrained_high``, ``n``, ``unit``, ``reason``; None for none.
        histories: one row an original or retrained model and epoch; None where none are kept.
        rankings: the records of the rankings by validation, with the columns that identify each as ``row``.
        left_out: one row a method and place where it cannot work: the columns that name both, and ``reason``.
        cells: what was measured beside each cell (`qunlearn.study.cells`); None where nothing is swept.
        states: of one cell before and after forgetting, and retrained; None where none are kept.
        machines: a sentence where machines of several types computed the study.
    """

    name: str
    records: DataFrame
    times: DataFrame
    axes: tuple[str, ...] = tuple(key for key in KEYS if key not in REPEATS)
    file: str = ""
    failed: Sequence[Mapping[str, Any]] = ()
    baselines: Sequence[Mapping[str, Any]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: int = 0
    budget: int = 0
    tunings: Sequence[Mapping[str, Any]] = ()
    audits: DataFrame | None = None
    histories: DataFrame | None = None
    rankings: Sequence[Mapping[str, Any]] = ()
    left_out: DataFrame | None = None
    machines: str = ""
    cells: DataFrame | None = None
    states: States | None = None

    @property
    def measures(self) -> list[str]:
        """The columns that hold a number to average: every numeric column that identifies nothing."""
        numeric = self.records.select_dtypes(include=["number", "bool"]).columns
        return [name for name in numeric if name not in (*KEYS, *self.axes, *CERTIFIED)]

    @property
    def swept(self) -> list[str]:
        """The axes beside request and method that take more than one value."""
        return [
            axis
            for axis in self.axes
            if axis not in ("request", "method") and self.records[axis].nunique(dropna=False) > 1
        ]

    @property
    def conditions(self) -> list[str]:
        """The swept axes that say under what noise, with how many shots, or on which backend predictions are made."""
        return [axis for axis in self.swept if axis.startswith("noise_") or axis in ("shots", "backend")]

    @property
    def requests(self) -> list[str]:
        """The forget requests, in the plan's order."""
        return list(dict.fromkeys(self.records["request"]))

    @property
    def methods(self) -> list[str]:
        """The methods in the plan's order, without the original and the retrained models."""
        return [name for name in dict.fromkeys(self.records["method"]) if name not in (ORIGINAL, RETRAINED)]

    @property
    def splits(self) -> int:
        """How many splits the study has."""
        return int(self.records["split_seed"].nunique())

    @property
    def seeds(self) -> int:
        """How many seeds the methods ran with, on each split."""
        rows = self.records[self.records["method"] != RETRAINED]
        return int(rows["seed"].nunique())
