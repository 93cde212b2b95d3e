"""`collect`: fetch the counts of finished jobs, keep them, and turn all that are here into values and logits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from qunlearn.errors import UnsupportedError
from qunlearn.hardware import clock
from qunlearn.hardware.folder import Folder
from qunlearn.hardware.halves import logits_of
from qunlearn.hardware.journal import Journal, Row
from qunlearn.hardware.service import RefusedError, Remote
from qunlearn.hardware.status import ENDED, Status, failure, make_status
from qunlearn.models import load_model

if TYPE_CHECKING:
    from qunlearn.quantum.backends.mitigation import Mitigation
    from qunlearn.quantum.backends.transpiling import Prepared

Say = Callable[[str], None]
Floats = NDArray[np.float64]
#: Seconds between two looks at jobs that are waited for.
POLL = 30.0


@dataclass(frozen=True, eq=False)
class Collected:
    """What the device measured, as far as jobs are collected; NaN where they are not.

    Attributes:
        folder: the plan's folder.
        status: how far its jobs are.
        backend: the device's name.
        shots: of each circuit.
        mitigation: what was done against noise.
        models: by name, in evaluation mode; a model of the user's own code only if it was given.
        roles: of each model "original", "unlearned", "retrained", or "".
        keys: of each model the key of its trial in the study, or "".
        prepared: of each model its transpiled circuit.
        device: with the calibration that it had when the jobs were planned; it runs nothing.
        labels, ids: of each set, ``(samples,)`` int64.
        features: ``[model][set]``, what entered the circuit, ``(samples, features)``.
        values: ``[model][set]``, expectation values ``(samples, observables)``.
        errors: ``[model][set]``, their standard errors.
        logits: ``[model][set]``, ``(samples, classes)``.
    """

    folder: Path
    status: Status
    backend: str
    shots: int
    mitigation: Mitigation
    models: dict[str, nn.Module]
    roles: dict[str, str]
    keys: dict[str, str]
    prepared: dict[str, Prepared]
    device: Any
    labels: dict[str, NDArray[np.int64]]
    ids: dict[str, NDArray[np.int64]]
    features: dict[str, dict[str, NDArray[Any]]]
    values: dict[str, dict[str, Floats]]
    errors: dict[str, dict[str, Floats]]
    logits: dict[str, dict[str, Floats]]

    @property
    def complete(self) -> bool:
        """Whether every job is collected."""
        return self.status.collected

    def accuracy(self, model: str, name: str) -> float:
        """The share of a set's collected samples that a model gets right; NaN where none is collected."""
        logits = self.logits[model][name]
        there = np.isfinite(logits).all(1)
        right = logits[there].argmax(1) == self.labels[name][there]
        return float(right.mean()) if there.any() else float("nan")


def collect(
    folder: str | Path,
    service: Any = None,
    *,
    models: Mapping[str, nn.Module] | None = None,
    wait: bool = False,
    say: Say = lambda line: None,
) -> Collected:
    """Fetch and keep the raw counts of the jobs that are done, and read all that are here.

    Needs the folder and the account alone. May be killed at any point and called again: what was fetched is kept.

    Args:
        folder: the plan's folder.
        service: the runtime service; that of the user's account where one is needed and None.
        models: those of the user's own code, by name, made as they were for the plan; their weights are filled in.
        wait: wait until no job is under way any more.
        say: is given a line on every job that ended.

    Raises:
        InputError: no plan there, no account where one is needed; another command at work in the folder.
        CorruptFileError: for a plan that is damaged; damaged counts are fetched anew.
        ServiceError: where the service cannot be reached for minutes. What was fetched is kept.
    """
    planned = Folder(folder)
    journal = planned.journal()
    with journal.locked():
        rows, damaged = journal.repair()
        for sentence in damaged:
            say(sentence)
        rows = [planned.recover(row, journal) for row in rows]
        under_way = [row for row in rows if row.state in ("submitted", "done")]
        if under_way and not planned.local:
            remote = planned.remote(service)
            while under_way:
                under_way = [row for row in under_way if not _fetch(planned, journal, remote, row, say)]
                if not (under_way and wait):
                    break
                clock.wait(POLL)
    return load(folder, models=models)


def _fetch(planned: Folder, journal: Journal, remote: Remote, row: Row, say: Say) -> bool:
    """Bring one job further; whether it has ended."""
    assert row.job_id is not None
    try:
        job = remote.job(row.job_id)
        word = "DONE" if row.state == "done" else remote.patiently(job.status, f"ask for job {row.job_id}")
        word = str(getattr(word, "name", word))
        if word in ENDED:
            return _failed(journal, row, _reason(remote, job, word), say)
        if word != "DONE":
            return False
        row = journal.move(row, "done")
        # A timeout of zero: an answer that says "queued" after one that said "done" is asked for again.
        counts = remote.patiently(
            lambda: planned.read(row, job.result(timeout=0)), f"fetch the result of job {row.job_id}"
        )
    except RefusedError as refused:
        return _failed(journal, row, f"the service has no result of it ({refused})", say)
    planned.keep_counts(row, counts, {"metrics": _metrics(job)})
    journal.move(row, "collected")
    say(f"job {row.number + 1} of {len(journal.works)}: collected")
    return True


def _failed(journal: Journal, row: Row, reason: str, say: Say) -> bool:
    say(failure(journal.move(row, "failed", reason=reason)))
    return True


def _reason(remote: Remote, job: Any, word: str) -> str:
    """Why a job ended without a result, in the service's words."""
    if word == "CANCELLED":
        return "it was cancelled"
    text = None
    with contextlib.suppress(Exception):
        text = remote.patiently(job.error_message, "ask why a job failed")
    return remote.words(Exception(text)) if text else "the service gives no reason"


def _metrics(job: Any) -> dict[str, Any]:
    """When the job ran, and what was charged for it; nothing where the service doesn't say."""
    try:
        found = job.metrics()
        times, usage = found.get("timestamps") or {}, found.get("usage") or {}
        kept = {**{name: times.get(name) for name in ("created", "running", "finished")}}
        return {**kept, "seconds": usage.get("quantum_seconds", usage.get("qpu_charge_time_seconds"))}
    except Exception:
        return {}


def load(folder: str | Path, *, models: Mapping[str, nn.Module] | None = None) -> Collected:
    """What is collected in a plan's folder, without asking anybody.

    Args:
        folder: the plan's folder.
        models: those of the user's own code, by name; a model that is not given has no logits.

    Raises:
        InputError: for a folder without a plan.
        CorruptFileError: for files of the plan that are damaged.
    """
    planned = Folder(folder)
    content, names = planned.content, [model["name"] for model in planned.content["models"]]
    values, errors = _measured(planned)
    found, given = _models(planned, models or {}), planned.samples
    logits = {name: logits_of(found[name], values[name], _tensor(given.get("x"))) for name in names if name in found}
    sets = _positions(content)

    def apart(arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
        return {name: {key: array[places] for key, places in sets.items()} for name, array in arrays.items()}

    return Collected(
        folder=planned.root,
        status=make_status(planned, planned.journal().rows()),
        backend=planned.backend,
        shots=planned.shots,
        mitigation=planned.mitigation,
        models=found,
        roles={model["name"]: model["role"] for model in content["models"]},
        keys={model["name"]: model["key"] for model in content["models"]},
        prepared={model["name"]: planned.prepared[model["structure"]] for model in content["models"]},
        device=planned.snapshot,
        labels={key: given["labels"][places] for key, places in sets.items()},
        ids={key: given["ids"][places] for key, places in sets.items()},
        features=apart({name: given[f"features/{number}"] for number, name in enumerate(names)}),
        values=apart(values),
        errors=apart(errors),
        logits=apart(logits),
    )


def _positions(content: Mapping[str, Any]) -> dict[str, NDArray[np.int64]]:
    """Of each set, where its samples stand in the plan's order."""
    order = np.array(content["order"], dtype=np.int64)
    found = {}
    for number, (name, size) in enumerate(content["sets"]):
        places = np.flatnonzero(order[:, 0] == number)
        found[name] = places[np.argsort(order[places, 1])]
        assert len(places) == size
    return found


def _measured(planned: Folder) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Values and standard errors ``(samples, observables)`` of each model, in the plan's order; NaN where missing."""
    from qunlearn.quantum.backends.mitigation import combine

    models = planned.content["models"]
    shapes = [(len(planned.content["order"]), len(one.circuit.observables)) for one in planned.prepared]
    values, errors = (
        {model["name"]: np.full(shapes[model["structure"]], np.nan) for model in models} for _ in range(2)
    )
    states = {row.number: row.state for row in planned.journal().rows()}
    for number, job in enumerate(planned.jobs):
        if states[number] != "collected":
            continue
        for structure, counts in zip(job["structures"], planned.counts(number), strict=True):
            sharing = [model["name"] for model in models if model["structure"] == structure]
            for target, rows in zip((values, errors), combine(planned.works[structure], counts), strict=True):
                parts = rows.reshape(job["stop"] - job["start"], len(sharing), -1)
                for place, name in enumerate(sharing):
                    target[name][job["start"] : job["stop"]] = parts[:, place]
    return values, errors


def _models(planned: Folder, given: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    found = {}
    for model in planned.content["models"]:
        for ending in ("json", "safetensors"):
            planned.path(f"{model['file']}.{ending}")
        place, name = planned.root / f"{model['file']}.json", model["name"]
        if model["own_code"] and name not in given:
            continue
        found[name] = load_model(place, into=given[name] if model["own_code"] else None).eval()
    if not found:
        names = ", ".join(model["name"] for model in planned.content["models"])
        raise UnsupportedError(f"expected the models of your own code ({names}), got none; give them as models=")
    return found


def _tensor(array: NDArray[Any] | None) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(array)
