"""A study's results, read back: tables, models, what failed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.study.store import Store, read_json
from qunlearn.study.task import Task, circuit_name, corruption_of

if TYPE_CHECKING:
    from pandas import DataFrame, Series
    from torch import nn

    from qunlearn.hardware import Bundle, Collected


_FINDING = ["value", "low", "high", "retrained", "retrained_low", "retrained_high", "n", "unit", "reason"]
_MODEL = [
    "dataset", "split_seed", "circuit", "qubits", "depth", "entanglement", "control", "corruption", "method",
    "request", "kind", "seed",
]  # fmt: skip


class Study:
    """The results folder of a study, finished or not.

    Attributes:
        root: the folder.
        config: the study as JSON data: tables with defaults filled in, and the grid.
        tasks: all units of work, models first, trials in the order of the tables.
    """

    def __init__(self, root: str | Path) -> None:
        self.root, self.store = Path(root), Store(root)
        if not (self.root / "plan.json").is_file():
            raise InputError(f"expected a results folder of `qunlearn run`, got {str(root)!r}, which has no plan.json")
        plan = read_json(self.root / "plan.json")
        self.config: dict[str, Any] = plan["study"]
        self.folder: str = plan["folder"]
        self.tasks = [Task.from_dict(task) for task in plan["tasks"]]
        self._left_out: list[dict[str, Any]] = plan.get("left_out", [])
        self._by_key = {task.key: task for task in self.tasks}

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.config["name"])

    @property
    def text(self) -> str:
        """The study file."""
        return (self.root / "study.toml").read_text(encoding="utf-8")

    @property
    def trials(self) -> list[Task]:
        """The trials in the order of the tables."""
        return [task for task in self.tasks if task.kind == "trial"]

    @property
    def failed(self) -> list[dict[str, str]]:
        """What failed: the columns trial, title and error."""
        reports = self.store.failures()
        return [
            {"trial": task.key, "title": task.title, "error": str(reports[task.key]["message"])}
            for task in self.tasks
            if task.key in reports
        ]

    @property
    def baselines(self) -> list[dict[str, Any]]:
        """Classical baselines on the same data, one row a split."""
        path = self.root / "baselines.json"
        return list(read_json(path)["rows"]) if path.is_file() else []

    def is_done(self, task: Task) -> bool:
        """Whether the task's record is there."""
        return self.store.has(task.kind, task.key)

    def done(self) -> list[Task]:
        """The finished trials in the order of the tables."""
        return [task for task in self.trials if self.is_done(task)]

    def tunings(self) -> list[dict[str, Any]]:
        """The records of the finished tunings, each with its ``row``: what was tried, and what was chosen."""
        tasks = [task for task in self.tasks if task.kind == "tuning" and self.is_done(task)]
        found = [self.store.result("tuning", task.key) for task in tasks]
        return [{"key": one["key"], "row": one["row"], **one["record"]} for one in found]

    def rankings(self) -> list[dict[str, Any]]:
        """The records of the finished rankings, each with its ``row``: methods by validation, best first (`order`)."""
        tasks = [task for task in self.tasks if task.kind == "ranking" and self.is_done(task)]
        found = [self.store.result("ranking", task.key) for task in tasks]
        return [{"key": one["key"], "row": one["row"], **one["record"]} for one in found]

    def left_out(self) -> DataFrame:
        """The methods that cannot work with a model, or cannot meet a request: where, and the ``reason``."""
        import pandas as pd

        return pd.DataFrame(self._left_out)

    def audits(self) -> DataFrame:
        """One row a finding of a finished audit: the columns that identify the trial, then those of a `Finding`.

        These are audit (its name), value, low, high, retrained, retrained_low, retrained_high, n, unit and reason;
        values are NaN where there is a reason instead.
        """
        import pandas as pd

        tasks = [task for task in self.tasks if task.kind == "audit"]
        found = [self.store.result("audit", task.key) for task in tasks if self.is_done(task)]
        rows = [
            {**one["row"], "audit": finding["name"], **{key: finding[key] for key in _FINDING}}
            for one in found
            for finding in one["record"]["findings"]
        ]
        identifying = list(dict.fromkeys(key for task in tasks for key in task.row))
        table = pd.DataFrame(rows, columns=[*identifying, "audit", *_FINDING])
        return table.astype(dict.fromkeys(_FINDING[:6], "float64"))

    def histories(self) -> DataFrame:
        """One row an epoch of every original and retrained model: what training and validation said of it.

        Columns: dataset, split_seed, circuit, qubits, depth, entanglement, control, corruption (of the training set),
        method (of models that a method
        trained its own way, else None), request (None for originals), kind, seed, epoch, loss, validation_loss,
        validation_accuracy, and kept: whether this epoch is the model.
        """
        import pandas as pd

        rows = [
            {**self._model_row(task), **one, "kept": one["epoch"] == record["kept"]}
            for task in self.tasks
            if task.kind in ("original", "retrained") and self.is_done(task)
            for record in [self.store.result(task.kind, task.key)["record"]]
            for one in record.get("history", ())
        ]
        figures = ["loss", "validation_loss", "validation_accuracy"]
        table = pd.DataFrame(rows, columns=[*_MODEL, "epoch", *figures, "kept"])
        return table.astype(dict.fromkeys(figures, "float64"))

    def _model_row(self, task: Task) -> dict[str, Any]:
        data, model = task.settings["data"], task.settings["model"]
        hybrid = model["factory"] is None
        knobs = ("qubits", "depth", "entanglement", "control")
        return {
            "dataset": data["dataset"] or data["file"],
            "split_seed": data["split_seed"],
            "circuit": circuit_name(model) if hybrid else model["factory"],
            **{key: model[key] if hybrid else None for key in knobs},
            "entanglement": self._rows.get(task.key, {}).get("entanglement", model["entanglement"]),
            "corruption": corruption_of(task.settings),
            "method": task.method["name"] if task.method else None,
            "request": self._rows.get(task.key, {}).get("request") if task.kind == "retrained" else None,
            "kind": task.kind,
            "seed": task.seed,
        }

    @cached_property
    def _rows(self) -> dict[str, dict[str, Any]]:
        """By key of a model the row of a trial that needs it, or of a tuning."""
        tunings = (task for task in self.tasks if task.kind == "tuning")
        return {key: task.row for task in (*tunings, *self.trials) for key in task.needs}

    def table(self) -> DataFrame:
        """One row a finished trial in the order of the plan: what identifies it, figures, counts.

        Raises:
            CorruptFileError: names a record that is damaged; running the study again repairs it.
        """
        import pandas as pd

        from qunlearn.training.counting import Counts

        rows = [self.store.part("trial", task.key, "row") for task in self.done()]
        counts = {*Counts.__dataclass_fields__, "tuning_gradient_evaluations"}
        alike = dict.fromkeys(map(tuple, rows))  # requests differ in what can be measured
        names = dict.fromkeys(name for some in alike for name in some)
        table = pd.DataFrame(rows, columns=sorted(names, key=lambda name: name in counts))
        empty = [name for name in table.columns if table[name].isna().all()]
        figures = set(empty) - set(self.trials[0].row)
        return table.astype(dict.fromkeys(figures, "float64"))

    def timing(self) -> DataFrame:
        """Seconds of every finished trial: the columns trial and seconds."""
        import pandas as pd

        rows = [(task.key, self.store.seconds("trial", task.key)) for task in self.done()]
        return pd.DataFrame(rows, columns=["trial", "seconds"])

    def task(self, trial: str | Mapping[str, Any] | Series[Any]) -> Task:
        """A trial by its key, by the beginning of its key, or by its row of the table."""
        key = trial if isinstance(trial, str) else str(trial["trial"])
        found = [task for task in self.trials if task.key.startswith(key)]
        if len(found) != 1 or not key:
            raise UnknownNameError("trial", key, self._by_key)
        return found[0]

    def model(self, trial: str | Mapping[str, Any] | Series[Any]) -> nn.Module:
        """The model that a trial left: the unlearned, the untouched original, or a retrained one.

        Raises:
            UnknownNameError: for a trial that the study does not have.
            InputError: for a trial that is not done.
        """
        from qunlearn.study.plugins import import_plugins
        from qunlearn.study.prepare import split_of
        from qunlearn.study.trial import kept_as, restore

        task = self.task(trial)
        kind, key = kept_as(task)
        import_plugins(self.folder, task.settings["plugins"]["modules"])
        split = split_of(task.settings, task.request, self.folder)
        return restore(task.settings, kind, key, split, self.store)

    def bundle(self, **choice: Any) -> Bundle:
        """The original, unlearned and retrained models of one cell, and samples, for `qunlearn.hardware.plan`.

        Takes the keywords ``where``, ``methods``, ``retrained``, ``samples`` and ``seed``: see
        `qunlearn.study.bundle.bundle_of`.
        """
        from qunlearn.study.bundle import bundle_of

        return bundle_of(self, **choice)

    def compare(self, collected: Collected) -> Path:
        """Write the page that sets a hardware run beside the same models run in other ways; where it lies.

        Args:
            collected: what `qunlearn.hardware.collect` gave for a bundle of this study.

        Raises:
            InputError: where nothing has come back yet.
        """
        from qunlearn.study.hardware_report import write_comparison

        return write_comparison(self.root, collected.folder, collected)


def load_study(path: str | Path) -> Study:
    """The results of a study from its folder, such as ``runs/quickstart``."""
    return Study(path)
