"""Commands that run a study's models on quantum hardware."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qunlearn.cli.common import AsJson, Folder, Where, kept, numbers, pairs, print_table, say

if TYPE_CHECKING:
    from qunlearn.hardware import Status

PlanFolder = Annotated[Path, typer.Argument(help="The results folder of a study, or a plan's own folder.")]
PlanName = Annotated[
    str | None,
    typer.Option("--name", "--backend", help="The plan, where the study has several: the backend's name, or its own."),
]


def hardware_plan(
    folder: Folder,
    backend: Annotated[
        str, typer.Option(help="A device: fake_torino and the like, or ibm_... of your account.")
    ] = "fake_torino",
    name: Annotated[str | None, typer.Option(help="Of the plan; the backend's where not given.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples in all, evenly from the sets.")] = 100,
    shots: Annotated[int, typer.Option(min=1, help="Shots of each circuit.")] = 1000,
    where: Where = None,
    method: Annotated[list[str] | None, typer.Option(help="Methods to take; all where not given.")] = None,
    retrained: Annotated[int, typer.Option(min=0, help="How many retrained models.")] = 3,
    limit: Annotated[float, typer.Option(min=1, help="Seconds of the machine that the plan may cost.")] = 600,
    readout: Annotated[bool, typer.Option("--readout", help="Measure readout errors, and undo them.")] = False,
    zne: Annotated[str | None, typer.Option(help="Extrapolate to no noise: factors such as 1,3,5.")] = None,
    extrapolator: Annotated[str, typer.Option(help="linear, richardson or exponential.")] = "exponential",
    decoupling: Annotated[str | None, typer.Option(help="Dynamical decoupling: XX, XpXm or XY4.")] = None,
    twirling: Annotated[bool, typer.Option("--twirling", help="Twirl gates and measurements.")] = False,
    optimization_level: Annotated[int, typer.Option(min=0, max=3, help="Of the transpiler.")] = 3,
    seed: Annotated[int, typer.Option(help="Of drawing samples, transpiling and simulated shots.")] = 0,
) -> None:
    """Prepare circuits and jobs, say what they cost, and submit nothing."""
    from qunlearn.hardware import plan
    from qunlearn.quantum.backends.mitigation import Mitigation
    from qunlearn.study.results import load_study

    mitigation = Mitigation(readout, numbers("--zne", zne), extrapolator, decoupling, twirling)  # type: ignore[arg-type]
    study = load_study(folder)
    bundle = study.bundle(
        where=pairs(where or []), methods=method or None, retrained=retrained, samples=samples, seed=seed
    )
    made = plan(
        bundle,
        folder / "hardware" / (name or backend),
        backend=backend,
        shots=shots,
        mitigation=mitigation,
        limit_seconds=limit,
        optimization_level=optimization_level,
        seed=seed,
    )
    typer.echo(str(made))
    typer.echo(f"Submit it with: {_again('submit', made.folder)}")


def hardware_submit(
    folder: PlanFolder,
    name: PlanName = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Send failed jobs again.")] = False,
    listing_delay: Annotated[
        float, typer.Option(min=0, help="Seconds within which the service lists a job that it accepted.")
    ] = 60.0,
) -> None:
    """Submit the jobs of a plan, each once; may be killed and called again."""
    from qunlearn.hardware import find_folder, submit

    place = find_folder(folder, name)
    with kept(_again("submit", place)):
        found = submit(place, retry_failed=retry_failed, listing_delay=listing_delay, say=say)
    _say_jobs(found)


def hardware_status(folder: PlanFolder, name: PlanName = None, as_json: AsJson = False) -> None:
    """Show how far the jobs of a plan are."""
    from qunlearn.hardware import find_folder, status

    place = find_folder(folder, name)
    with kept(_again("status", place)):
        found = status(place)
    if as_json:
        facts = {"name": found.name, "backend": found.backend, "jobs": found.counts}
        typer.echo(json.dumps({**facts, "failed": [vars(row) for row in found.failed]}))
        return
    _say_jobs(found)


def hardware_collect(
    folder: PlanFolder,
    name: PlanName = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until no job is under way.")] = False,
) -> None:
    """Fetch the counts of finished jobs, keep them, and compare the models on the device."""
    from qunlearn.hardware import collect, find_folder
    from qunlearn.study.bundle import own_models
    from qunlearn.study.hardware_report import write_comparison
    from qunlearn.study.results import load_study

    place = find_folder(folder, name)
    study = _study_of(place)
    models = own_models(load_study(study), place) if study is not None else {}
    with kept(_again("collect", place)):
        found = collect(place, models=models, wait=wait, say=say)
    if any(row.state == "collected" for row in found.status.rows):
        sets = list(found.labels)
        rows = [[model, *(f"{found.accuracy(model, key):.3f}" for key in sets)] for model in found.logits]
        print_table(f"accuracy on {found.backend}", ["model", *sets], rows)
        typer.echo(f"Report: {write_comparison(study, place, found)}")
    _say_jobs(found.status)


def _say_jobs(found: Status) -> None:
    """How far jobs are, and as the last line the command that goes on; exit code 1 where some failed."""
    typer.echo(str(found))
    if found.failed:
        typer.echo(f"Send failed jobs again with: {_again('submit', found.folder)} --retry-failed")
        raise typer.Exit(1)
    if found.unsent:
        typer.echo(f"Submit what is left with: {_again('submit', found.folder)}")
    elif found.collected:
        typer.echo(f"All is here; read it again with: {_again('collect', found.folder)}")
    else:
        typer.echo(f"Fetch what is done with: {_again('collect', found.folder)}")


def _again(command: str, folder: Path) -> str:
    return f"qunlearn hardware {command} {shlex.quote(str(folder))}"


def _study_of(place: Path) -> Path | None:
    """The study whose plan lies there, if it came along."""
    root = place.resolve().parent.parent
    return root if place.resolve().parent.name == "hardware" and (root / "study.toml").is_file() else None
