"""What is read at the end of a hardware run: exact, shots, noisy model and hardware side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qunlearn.data import Dataset, Split
from qunlearn.errors import InputError, QunlearnError
from qunlearn.evaluation import Judge, Predictions
from qunlearn.evaluation.comparison import RESAMPLES, Comparison, Role, Setting, Way
from qunlearn.evaluation.predictions import SETS, predict
from qunlearn.hardware.bundle import circuit_layer
from qunlearn.hardware.halves import logits_of
from qunlearn.models.execution import with_backend
from qunlearn.quantum.backends.simulator import Simulator
from qunlearn.quantum.circuit import Circuit

if TYPE_CHECKING:
    from qunlearn.hardware import Collected

Floats = NDArray[np.float64]
REPEATS = 40
EXACT, SHOTS, NOISY, HARDWARE = "exact", "shots", "noisy model", "hardware"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the report of a hardware run is made of.

    Attributes:
        comparison: models, samples, ways to run them, and figures with intervals.
        rows: every figure of `qunlearn.evaluate` of each model in each way, where the study is known.
        facts: (name, value) of what was run.
        notes: sentences on what is missing or has to be known.
    """

    comparison: Comparison
    rows: Sequence[Mapping[str, Any]] = ()
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = field(default_factory=list)


def write_comparison(study_dir: str | Path | None, hardware_folder: str | Path, collected: Collected) -> Path:
    """Write tables, figures and one page that compare a hardware run with the same models run in other ways.

    Args:
        study_dir: the results folder that the models come from; None for models of another origin.
        hardware_folder: the folder of the run; the report goes to ``report/`` in it.
        collected: what came back.

    Returns:
        The path of the page.

    Raises:
        InputError: where nothing has come back yet.
    """
    from qunlearn.study.report.hardware import write

    return write(compare(study_dir, collected), Path(hardware_folder) / "report")


def compare(study_dir: str | Path | None, collected: Collected, *, resamples: int = RESAMPLES) -> Outcome:
    """The comparison of a hardware run; see `write_comparison`."""
    split, notes = _split(study_dir, collected), []
    kept = _arrived(collected)
    if all(not places.any() for places in kept.values()):
        raise InputError("expected values from the hardware, got none yet; collect again when its jobs are done")
    missing = sum(int((~places).sum()) for places in kept.values())
    if missing:
        notes.append(f"{missing} of {sum(map(len, kept.values()))} samples are left out: not all models have them yet.")
    runs = {EXACT: _exact(collected), SHOTS: _sampled(collected), HARDWARE: _measured(collected)}
    try:
        runs = {EXACT: runs[EXACT], SHOTS: runs[SHOTS], NOISY: _noisy(collected), HARDWARE: runs[HARDWARE]}
    except (QunlearnError, ImportError) as error:
        notes.append(f"The noisy model is left out: {error}")
    samples = _samples(split, collected)
    ways = [Way(name, _logits(collected, run, samples, kept)) for name, run in runs.items()]
    labels = {name: np.asarray(collected.labels[name])[places] for name, places in kept.items()}
    roles: dict[str, Role] = {model: _role(collected.roles.get(model)) for model in collected.models}
    setting = Setting(roles, labels, split.forget_class if split is not None else None)
    comparison = Comparison(setting, ways, resamples=resamples)
    ids = {name: np.asarray(collected.ids[name])[places] for name, places in kept.items()}
    return Outcome(comparison, _judged(split, ids, setting, ways, collected), _facts(collected, labels), notes)


@dataclass(frozen=True, eq=False)
class _Run:
    """Expectation values of all models on all sets, and their standard errors; None where nothing was drawn."""

    values: Mapping[str, Mapping[str, Floats]]
    errors: Mapping[str, Mapping[str, Floats]] | None = None


def _arrived(collected: Collected) -> dict[str, NDArray[np.bool_]]:
    """By set, of which samples the values of all models are there."""
    return {
        name: np.all([np.isfinite(values[name]).all(axis=1) for values in collected.values.values()], axis=0)
        for name in collected.ids
    }


def _exact(collected: Collected) -> _Run:
    from qunlearn.quantum.engines import expectations

    values: dict[str, dict[str, Floats]] = {}
    with torch.no_grad():
        for model, module in collected.models.items():
            layer = circuit_layer(module, model)
            weights = layer.weights.detach().double().cpu()
            values[model] = {
                name: expectations(layer.circuit, torch.as_tensor(x).double(), weights).numpy()
                for name, x in collected.features[model].items()
            }
    return _Run(values)


def _sampled(collected: Collected) -> _Run:
    """The circuits without noise, with as many shots as the hardware took."""
    return _drawn(collected, lambda model, place, x: with_backend(_circuit_alone(model), place)(torch.as_tensor(x)))


def _noisy(collected: Collected) -> _Run:
    """The transpiled circuits with the calibrated noise of the device, with as many shots as the hardware took."""
    from qunlearn.quantum.backends.calibration import prepared_noise
    from qunlearn.quantum.backends.device import find_device
    from qunlearn.quantum.backends.opened import open_circuit

    device, known = find_device(device_of(collected)), dict[int, list[Circuit]]()
    prepared = {id(module): collected.prepared[model] for model, module in collected.models.items()}

    def values(model: nn.Module, place: Simulator, x: Floats) -> Tensor:
        own, layer = prepared[id(model)], circuit_layer(model)
        if id(own) not in known:
            known[id(own)] = [prepared_noise(own, device, basis) for basis in range(len(own.bases))]
        angles = open_circuit(layer.circuit).angles(torch.as_tensor(x).double(), layer.weights.double())
        found = angles.new_zeros(len(angles), len(layer.circuit.observables))
        for basis, circuit in zip(own.bases, known[id(own)], strict=True):
            found[:, list(basis.observables)] = place.expectations(circuit, angles, angles.new_zeros(0))
        return found

    return _drawn(collected, values)


def device_of(collected: Collected) -> Any:
    """The device of a run with the calibration to take its noise from: the run's own record of it, or the fake's."""
    kept = getattr(collected, "device", None)
    if kept is not None:
        return kept
    if not collected.backend.startswith("fake_"):
        raise InputError(f"expected a record of the calibration of {collected.backend}, got none")
    return collected.backend


def _circuit_alone(model: nn.Module) -> nn.Module:
    return nn.Sequential(circuit_layer(model))


def _drawn(collected: Collected, run: Callable[[nn.Module, Simulator, Floats], Tensor]) -> _Run:
    """Values of all models with the shots of the hardware, each with a seed of its own, and their errors."""
    values: dict[str, dict[str, Floats]] = {}
    errors: dict[str, dict[str, Floats]] = {}
    for number, (model, module) in enumerate(collected.models.items()):
        place = Simulator(shots=collected.shots, seed=number)
        with torch.no_grad():
            found = {name: run(module, place, x) for name, x in collected.features[model].items()}
        values[model] = {name: part.double().cpu().numpy() for name, part in found.items()}
        errors[model] = {
            name: np.sqrt(np.clip(1 - part**2, 0, None) / collected.shots) for name, part in values[model].items()
        }
    return _Run(values, errors)


def _measured(collected: Collected) -> _Run:
    return _Run(collected.values, collected.errors)


def _logits(
    collected: Collected, run: _Run, samples: Mapping[str, Tensor], kept: Mapping[str, NDArray[np.bool_]]
) -> dict[str, dict[str, Floats]]:
    """By model and set the logits of the run, then of repeats with other shots: ``(1 + repeats, samples, classes)``."""
    generator = np.random.default_rng(np.random.SeedSequence(0))
    found: dict[str, dict[str, Floats]] = {}
    for model, module in collected.models.items():
        found[model] = {}
        for name, places in kept.items():
            values, x = run.values[model][name][places], samples.get(name)
            rows = [values]
            if run.errors is not None:
                errors = run.errors[model][name][places]
                rows += [values + errors * generator.normal(size=values.shape) for _ in range(REPEATS)]
            x = None if x is None else x[torch.from_numpy(places)].repeat(len(rows), *[1] * (x.dim() - 1))
            logits = logits_of(module, np.concatenate(rows), x)
            found[model][name] = logits.reshape(len(rows), len(values), -1)
    return found


def _split(study_dir: str | Path | None, collected: Collected) -> Split | None:
    """The split of the study's cell from which the models come, as far as their keys tell."""
    if study_dir is None:
        return None
    from qunlearn.study.plugins import import_plugins
    from qunlearn.study.prepare import split_of
    from qunlearn.study.results import load_study

    study = load_study(study_dir)
    key = next((key for key in collected.keys.values() if key), None)
    if key is None:
        return None
    task = study.task(key)
    import_plugins(study.folder, task.settings["plugins"]["modules"])
    return split_of(task.settings, task.request, study.folder)


def _samples(split: Split | None, collected: Collected) -> dict[str, Tensor]:
    """By set the samples themselves, which a model of one's own needs."""
    if split is None:
        return {}
    return {name: _of_ids(getattr(split, name), ids).x for name, ids in collected.ids.items() if name in SETS}


def _of_ids(data: Dataset, ids: NDArray[np.int64]) -> Dataset:
    """The samples of a set with these ids, in their order."""
    places = {int(number): place for place, number in enumerate(data.ids.tolist())}
    return data.select(np.array([places[int(number)] for number in ids], dtype=np.int64))


def _judged(
    split: Split | None,
    ids: Mapping[str, NDArray[np.int64]],
    setting: Setting,
    ways: Sequence[Way],
    collected: Collected,
) -> list[dict[str, Any]]:
    """Every figure of every model in every way, on the samples that were run; nothing where the split is not known."""
    if split is None or not all(len(ids.get(name, ())) for name in ("forget", "retain")):
        return []
    part = _subset(split, ids)
    exact = {model: predict(module, part) for model, module in collected.models.items()}
    rows = []
    for way in ways:
        said = {model: _said(exact[model], way.logits[model]) for model in setting.roles}
        original = next(iter(setting.of("original")), None)
        judge = Judge(
            part,
            original=said[original] if original is not None else None,
            retrained=[said[model] for model in setting.of("retrained")],
        )
        rows += [
            {"model": model, "role": role, "way": way.name, **judge(said[model])}
            for model, role in setting.roles.items()
        ]
    return rows


def _subset(split: Split, ids: Mapping[str, NDArray[np.int64]]) -> Split:
    """The split with the samples that were run alone; a set that was not run is empty."""
    sets: Any = {name: _of_ids(getattr(split, name), ids.get(name, np.empty(0, np.int64))) for name in SETS}
    train = split.train.select(torch.isin(split.train.ids, torch.cat([sets["forget"].ids, sets["retain"].ids])))
    return dataclasses.replace(split, train=train, original=train, **sets)


def _said(exact: Predictions, logits: Mapping[str, Floats]) -> Predictions:
    """A model's predictions with the logits of another way to run it; its weights are what they were."""
    own = {name: logits[name][0] if name in logits else rows for name, rows in exact.logits.items()}
    return dataclasses.replace(exact, logits=own, states={})


def _facts(collected: Collected, labels: Mapping[str, NDArray[np.int64]]) -> list[tuple[str, str]]:
    circuit = circuit_layer(next(iter(collected.models.values()))).circuit
    return [
        ("backend", collected.backend),
        ("shots", f"{collected.shots:,}".replace(",", "\u202f")),
        ("mitigation", _mitigation(collected.mitigation)),
        ("circuit", f"{circuit.card or 'of your own'}, {circuit.qubits} qubits, depth {circuit.depth}"),
        ("models", str(len(collected.models))),
        ("samples", ", ".join(f"{name} {len(y)}" for name, y in labels.items())),
    ]


def _mitigation(mitigation: Any) -> str:
    """The options that are on, in words."""
    fields = dataclasses.asdict(mitigation) if dataclasses.is_dataclass(mitigation) else {}  # type: ignore[arg-type]
    shown = [
        name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {value}"
        for name, value in fields.items()
        if value and name != "extrapolator"
    ]
    return ", ".join(shown) or "none"


def _role(name: str | None) -> Role:
    return "original" if name == "original" else "retrained" if name == "retrained" else "unlearned"
