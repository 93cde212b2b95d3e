"""From a study's results folder to what its report is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qunlearn.errors import InputError
from qunlearn.study.cells import measure_cells
from qunlearn.study.grid import column_of, sweepable
from qunlearn.study.machines import mixture
from qunlearn.study.report.material import KEYS, ORIGINAL, REPEATS, Material
from qunlearn.study.report.pictures import states_of
from qunlearn.study.results import load_study
from qunlearn.versions import versions_of

if TYPE_CHECKING:
    from pandas import DataFrame

_NAMED = ("model.control",)  # the circuit's name says which control stands in its place
_SHOWN = ("qunlearn", "torch", "numpy", "scipy", "pennylane", "qiskit", "scikit-learn")


def gather(study_dir: str | Path) -> Material:
    """The material of a study's report.

    Raises:
        InputError: for a folder that is no study, or holds no finished trial.
        CorruptFileError: for a damaged record.
    """
    study = load_study(study_dir)
    done = len(study.done())
    if not done:
        raise InputError(f"expected at least one finished trial in {str(study_dir)!r}, got none; run the study first")
    records, cells, states = study.table(), None, None
    if (records[["depth", "entanglement"]].nunique() > 1).any() and (records["method"] == ORIGINAL).any():
        cells, states = measure_cells(study, records), states_of(study)
    return Material(
        name=study.name,
        records=records,
        times=study.timing(),
        axes=axes_of(records),
        file=study.text,
        failed=study.failed,
        baselines=study.baselines,
        versions=versions_of(_SHOWN),
        missing=len(study.trials) - done - len(study.failed),
        budget=int(study.config["tuning"]["budget"]),
        tunings=study.tunings(),
        audits=study.audits(),
        histories=study.histories(),
        rankings=study.rankings(),
        left_out=study.left_out(),
        machines=mixture(study.root),
        cells=cells,
        states=states,
    )


def axes_of(records: DataFrame) -> tuple[str, ...]:
    """The columns that tell groups of trials apart: those of `KEYS`, then those of other keys in the grid."""
    columns = [column_of(name) for name in sweepable()]
    swept = [name for name in columns if name in records and name not in (*KEYS, *_NAMED)]
    fixed = [key for key in KEYS if key not in REPEATS and key in records]
    return (*fixed, *swept)
