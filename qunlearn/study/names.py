"""The names in a study: those of data sets, circuits, engines and methods are checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from qunlearn import methods
from qunlearn.data import available_datasets
from qunlearn.errors import InputError, QunlearnError, UnknownNameError
from qunlearn.quantum.card import find_card
from qunlearn.quantum.engines import ENGINES
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.study.conditions import TRAJECTORIES, conditions, under
from qunlearn.study.config import Settings
from qunlearn.study.grid import StudyConfig
from qunlearn.study.prepare import DTYPES, circuit_of, engine_of
from qunlearn.study.task import canonical

_KNOBS = {"encoding": "circuit_encoding", "entanglement": "entanglement", "reupload": "reupload", "depth": "depth"}


def check_names(study: StudyConfig) -> None:
    """Look every name up. Raises `InputError` with the place in the file and the nearest known name."""
    for value in _values(study, "data.dataset"):
        _check(study, "data.dataset", lambda name: _known("data set", name, available_datasets()), value)
    for value in _values(study, "model.circuit"):
        _check(study, "model.circuit", find_card, value)
    for value in _values(study, "run.engine"):
        _check(study, "run.engine", lambda name: _known("engine", name, ["auto", *ENGINES, TRAJECTORIES]), value)
    for choice in study.methods:
        _check(study, "method", methods.get, choice.to_config())
    if study.settings.audit.families:
        from qunlearn.evaluation.audit import AUDITS

        for name in study.settings.audit.families:
            _check(study, "audit.families", lambda name: _known("family of audits", name, ["all", *AUDITS]), name)
    tried: set[str] = set()
    for cell in study.cells():
        _check_circuit(study, cell)
        _check_conditions(study, cell, tried)
        if cell.run.engine == "fused" and cell.run.device != "cpu":
            raise InputError(
                f"{study.where('run.engine')}: expected engine 'auto' or 'torch' on device {cell.run.device!r}, got "
                "'fused', which runs on the CPU alone"
            )


def _values(study: StudyConfig, key: str) -> Iterator[Any]:
    section, _, name = key.partition(".")
    seen = []
    for cell in study.cells():
        value = getattr(getattr(cell, section), name)
        if value is not None and value not in seen:
            seen.append(value)
            yield value


def _known(kind: str, name: str, names: Any) -> None:
    if name not in names:
        raise UnknownNameError(kind, name, names)


def _check(study: StudyConfig, key: str, look_up: Callable[[Any], object], value: Any) -> None:
    try:
        look_up(value)
    except QunlearnError as error:
        raise InputError(f"{study.where(key)}: {error}") from error


def _check_circuit(study: StudyConfig, cell: Settings) -> None:
    if cell.model.factory is not None:
        return
    try:
        circuit_of(cell.to_dict())
    except QunlearnError as error:
        refused = [key for knob, key in _KNOBS.items() if f"take {knob}=" in str(error)]
        raise InputError(f"{study.where('model.' + (refused or ['circuit'])[0])}: {error}") from error


def _check_conditions(study: StudyConfig, cell: Settings, tried: set[str]) -> None:
    """Refuse noise, shots and backends that the cell's circuit cannot run under; each pair of them is tried once."""
    settings = cell.settled()
    if not conditions(settings):
        return
    backend, device = cell.run.backend, cell.noise.device
    if backend is not None and backend.startswith("ibm_"):
        raise InputError(
            f"{study.where('run.backend')}: expected a backend on this machine, got {backend!r}; run the study "
            f"without it, then `qunlearn hardware plan runs/{study.name} --backend {backend}`"
        )
    if device is not None and not device.startswith("fake_"):
        raise InputError(
            f"{study.where('noise.device')}: expected a fake backend, such as 'fake_manila', got {device!r}; to take "
            "the noise of a machine itself, run the study, then `qunlearn hardware plan`"
        )
    if cell.noise.strikes and backend is None and cell.run.engine in ("torch", "fused"):
        raise InputError(
            f"{study.where('run.engine')}: expected engine 'auto' with noise, got {cell.run.engine!r}, which knows "
            "pure states alone"
        )
    key = canonical([settings["model"], conditions(settings), settings["run"]])
    if cell.model.factory is None and key not in tried:
        tried.add(key)
        _try_conditions(study, cell, settings)


def _try_conditions(study: StudyConfig, cell: Settings, settings: dict[str, Any]) -> None:
    key = "run.backend" if cell.run.backend else "noise.device" if cell.noise.device else ""
    key = key or ("noise.after" if cell.noise.strikes else "run.shots")
    layer = QuantumLayer(circuit_of(settings), engine_of(settings), dtype=DTYPES[cell.run.dtype])
    try:
        under(layer, settings, 0)
    except QunlearnError as error:
        raise InputError(f"{study.where(key)}: {error}") from error
