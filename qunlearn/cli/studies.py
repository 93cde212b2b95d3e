"""Commands that run a study, and read what it found."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from qunlearn.cli.common import AsJson, Folder, Where, kept, pairs, print_table, say
from qunlearn.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from qunlearn.evaluation.audit import Finding
    from qunlearn.study.grid import StudyConfig


def run(
    study: Annotated[Path, typer.Argument(help="A study file, or the results folder of one, to go on with it.")],
    out: Annotated[Path | None, typer.Option(help="Results folder; runs/NAME where not given.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
    on: Annotated[str, typer.Option(help="Where the workers are: local (this machine) or dask (a cluster).")] = "local",
    dask_scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler that runs; [cluster] starts one if none.")
    ] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show size and time, and do nothing else.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")] = False,
) -> None:
    """Run a study, or what is left of it, and write its report."""
    from qunlearn.study.runner import Place, run_study

    if on not in get_args(Place):
        raise UnknownNameError("place to run", on, get_args(Place))
    config, root = _study(study, out, changes or [])
    if plan:
        _show_plan(config, workers)
        return
    resume = f"qunlearn run {shlex.quote(str(root))}"
    if on == "dask":
        resume += " --on dask" + (f" --dask-scheduler {shlex.quote(dask_scheduler)}" if dask_scheduler else "")
    with kept(resume, "finished"):
        finished = run_study(
            config,
            root,
            workers=workers,
            retry_failed=retry_failed,
            on=cast("Place", on),
            scheduler=dask_scheduler,
            say=say,
        )
    _say_baselines(root)
    if finished.report is not None:
        typer.echo(f"Report: {finished.report}")
    if finished.failed:
        typer.echo(
            f"{finished.failed} tasks failed, see {root / 'failed'}. Run them again with: {resume} --retry-failed"
        )
        raise typer.Exit(1)


def status(folder: Folder, as_json: AsJson = False) -> None:
    """Show what of a study is done, failed and left, and how long it will take."""
    from qunlearn.study.status import study_status

    found = study_status(folder)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, value in found.items():
        typer.echo(f"{name:<10} {value}")


def report(folder: Folder) -> None:
    """Write the report of a study: tables, figures, and one page that holds them all."""
    from qunlearn.study.report import write_report
    from qunlearn.study.results import load_study

    load_study(folder)  # a folder without a study is refused here
    typer.echo(f"Report: {write_report(folder)}")


def audit(
    model: Annotated[Path, typer.Argument(help="A saved model: the folder of a trial, or what save_model wrote.")],
    study: Annotated[Path, typer.Option(help="The study that it is from: its file, or its results folder.")],
    request: Annotated[str | None, typer.Option(help='What was to be forgotten, as tables name it: "5 %".')] = None,
    where: Where = None,
    families: Annotated[list[str] | None, typer.Option("--audit", help="A family of audits; all if none.")] = None,
    out: Annotated[Path | None, typer.Option(help="Results folder; runs/NAME where not given.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key.")] = None,
    as_json: AsJson = False,
) -> None:
    """Attack a model and probe what it still holds, beside the retrained models attacked and probed alike."""
    from qunlearn.study.audit_model import audit_model

    config, root = _study(study, out, changes or [])
    chosen = pairs(where or []) | ({"request": request} if request is not None else {})
    found = audit_model(model, config, root, where=chosen, families=families or None, say=say)
    if as_json:
        from qunlearn.study.task import canonical

        typer.echo(canonical({**found.place, **found.audit.to_dict()}))
        return
    rows = [[one.name, _spread(one.value, one.low, one.high), _retrained(one), str(one.n)] for one in found.audit]
    told = ", ".join(f"{name} {found.place[name]}" for name in ("dataset", "split_seed", "request"))
    print_table(f"{model} ({told})", ["audit", "value (95 %)", "retrained (least to greatest)", "n"], rows)
    reasons: dict[str, list[str]] = {}
    for one in found.audit:
        reasons.setdefault(one.reason, []).append(one.name)
    for reason, names in reasons.items():
        if reason:
            typer.echo(f"{', '.join(names)}: {reason}")


def _study(given: Path, out: Path | None, changes: list[str]) -> tuple[StudyConfig, Path]:
    """The study of a file, or of a results folder that holds one, and the folder for its results."""
    from qunlearn.study.reading import read_study

    if not given.is_dir():
        config = read_study(given, changes)
        return config, out or Path("runs") / config.name
    if not (given / "study.toml").is_file():
        raise InputError(f"expected a study file or a results folder, got {str(given)!r}, which has no study.toml")
    return read_study(given / "study.toml", changes, folder=_home(given)), out or given


def _home(root: Path) -> Path | None:
    """The folder of the study file from which a results folder was made."""
    from qunlearn.study.store import read_json

    plan = root / "plan.json"
    return Path(read_json(plan)["folder"]) if plan.is_file() else None


def _show_plan(config: StudyConfig, workers: int | None) -> None:
    from qunlearn.study.estimate import estimate
    from qunlearn.study.plan import make_plan
    from qunlearn.study.progress import duration
    from qunlearn.study.runner import default_workers, left_out
    from qunlearn.study.task import units_of

    plan, workers = make_plan(config), workers or default_workers(config)
    cost = estimate(plan)
    rows = []
    kinds = {
        "original": "original models", "retrained": "retrained models", "tuning": "tuning", "trial": "trials",
        "shadow": "blocks of shadow models", "population": "blocks of populations", "ranking": "rankings",
        "audit": "audits",
    }  # fmt: skip
    for kind, title in kinds.items():
        keys = [task.key for task in plan.of(kind)]
        if not keys and kind not in ("original", "retrained", "trial"):
            continue
        gradients = sum(cost.gradient_evaluations[key] for key in keys)
        rows.append([title, str(len(keys)), _count(gradients), duration(sum(cost.seconds[key] for key in keys))])
    units = units_of(plan.tasks, {task.key for task in plan.tasks})
    gradients = sum(cost.gradient_evaluations.values())
    last = f"{duration(cost.wall(units, workers))} on {workers} worker{'s' if workers > 1 else ''}"
    rows.append(["in all", str(len(plan.tasks)), _count(gradients), last])
    for sentence in left_out(plan):
        typer.echo(sentence)
    print_table(f"{config.name} (nothing was started)", ["", "number", "gradient evaluations", "time"], rows)
    if config.settings.model.factory is not None:
        typer.echo(f"Code of yours that will run: {config.settings.model.factory}")
    for module in config.settings.plugins.modules:
        typer.echo(f"Code of yours that will run: {module}")


def _count(gradients: float) -> str:
    """Of a plan; NaN with a method that was not tried, whose part nobody knows."""
    return "not measured" if math.isnan(gradients) else f"{gradients:,.0f}"


def _say_baselines(root: Path) -> None:
    from qunlearn.study.status import accuracy_line

    line = accuracy_line(root)
    if line:
        typer.echo(line)


def _spread(value: float, low: float, high: float) -> str:
    """A figure and its interval, in three digits; a dash where there is none."""
    return "-" if value != value else f"{value:.3g} ({low:.3g} to {high:.3g})"


def _retrained(one: Finding) -> str:
    return _spread(one.retrained, one.retrained_low, one.retrained_high)
