"""Under which conditions a cell's circuits run: exactly, with noise, with shots, on a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from qunlearn.study.prepare import circuit_of, engine_of
from qunlearn.study.task import hash_of

if TYPE_CHECKING:
    from qunlearn.quantum.noise import NoiseModel

KEYS = ("shots", "backend")
"""What of ``[run]`` is a condition."""
TIMES = ("t1", "t2", "gate_time")
"""What of ``[noise]`` makes thermal relaxation."""
TRAJECTORIES = "trajectories"  # the engine that runs noisy circuits of any size as quantum trajectories
MOST_TOGETHER = 5  # a density matrix on 5 qubits is as large as a state on 10, above which replicas gain nothing


def conditions(settings: dict[str, Any]) -> dict[str, Any]:
    """What of a cell is not exact: ``noise`` (with ``during``), ``shots``, ``backend``; empty where all is.

    Args:
        settings: as `Settings.settled` gives them.
    """
    if "noise" not in settings:
        return {}
    found = {key: settings["run"][key] for key in KEYS if key in settings["run"]}
    drawn = {"engine": TRAJECTORIES} if settings["run"]["engine"] == TRAJECTORIES else {}
    return {"noise": settings["noise"], **found, **drawn}


def is_condition(name: str) -> bool:
    """Whether the key of that dotted name is one of them."""
    table, _, key = name.partition(".")
    return table == "noise" or (table == "run" and key in KEYS)


def exact(settings: dict[str, Any]) -> dict[str, Any]:
    """The same cell without noise, shots and backend."""
    rest = {key: value for key, value in settings.items() if key != "noise"}
    run = {key: value for key, value in settings["run"].items() if key not in KEYS}
    return {**rest, "run": {**run, "engine": engine_of(settings)}}


def trained(settings: dict[str, Any]) -> dict[str, Any]:
    """The cell in which the models are trained and unlearned: exact unless ``noise.during`` is "all"."""
    return settings if settings.get("noise", {}).get("during") == "all" else exact(settings)


def is_alone(settings: dict[str, Any]) -> bool:
    """Whether models of a cell are computed one by one: what is drawn needs a seed each, large density matrices room.

    Args:
        settings: of a cell in which models are trained.
    """
    found, model = conditions(settings), settings["model"]
    large = model["factory"] is not None or model["qubits"] > MOST_TOGETHER
    return any(key in found for key in (*KEYS, "engine")) or (bool(found) and large)


def under(model: nn.Module, settings: dict[str, Any], seed: int) -> nn.Module:
    """A copy of a model whose circuits run under the conditions of a cell; the model itself where all is exact.

    A classical twin, which stands in for a circuit, is left as it is: there is nothing for noise to strike.

    Args:
        model: one that runs exactly; recipe and state of the copy are its own.
        settings: of the cell.
        seed: of what shots, trajectories and backends draw.

    Raises:
        QunlearnError: for conditions that the circuits cannot run under.
    """
    found = conditions(settings)
    if not found or settings["model"]["control"] == "twin":
        return model
    from qunlearn.models.execution import with_backend
    from qunlearn.quantum.backends import find_backend

    shots, backend = found.get("shots"), found.get("backend")
    if "engine" in found and backend is None:
        backend = find_backend("simulator", shots=shots, seed=seed, engine=TRAJECTORIES)
    return with_backend(model, backend, shots=shots, noise=noise_of(settings), seed=seed)


def noise_of(settings: dict[str, Any]) -> NoiseModel | str | None:
    """The noise of a cell: a model of it, the name of the device whose calibration it is, or None."""
    noise = settings.get("noise", {})
    if "device" in noise:
        return str(noise["device"])
    table = {key: value for key, value in noise.items() if key not in (*TIMES, "during")}
    if "gate_time" in noise:
        table["thermal_relaxation"] = [noise[key] for key in TIMES]
    if not table:
        return None
    from qunlearn.quantum.card import find_card, noise_model
    from qunlearn.quantum.noise import NoiseModel

    model = settings["model"]
    if model["factory"] is not None:
        return NoiseModel.read(table)
    return noise_model(find_card(model["circuit"]), circuit_of(settings), table)


def seed_of(settings: dict[str, Any], *owner: Any) -> int:
    """The seed of what is drawn for one owner, such as the key of a model, under a cell's conditions."""
    return int(hash_of([conditions(settings), *owner])[:8], 16)
