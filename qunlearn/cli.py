"""The command line: thin, everything it does is done elsewhere.

Exit codes: 0 done; 1 a trial failed (what was finished is kept); 2 the input is wrong (nothing was started);
130 after Ctrl-C.
"""

from __future__ import annotations

import itertools
import json
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast, get_args

import typer

from qunlearn.errors import InputError, QunlearnError, UnknownNameError

if TYPE_CHECKING:
    from rich.table import Table

    from qunlearn.evaluation.audit import Finding
    from qunlearn.hardware import Status
    from qunlearn.study.grid import StudyConfig

app = typer.Typer(
    help="Make hybrid quantum-classical models forget, and measure how well they forgot.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
show = typer.Typer(help="Show one thing in detail.", no_args_is_help=True)
app.add_typer(show, name="show")
hardware = typer.Typer(help="Run a study's models on quantum hardware.", no_args_is_help=True)
app.add_typer(hardware, name="hardware")

Folder = Annotated[Path, typer.Argument(help="The results folder of a study, such as runs/quickstart.")]
PlanFolder = Annotated[Path, typer.Argument(help="The results folder of a study, or a plan's own folder.")]
PlanName = Annotated[
    str | None,
    typer.Option("--name", "--backend", help="The plan, where the study has several: the backend's name, or its own."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
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
    with _kept(resume, "finished"):
        finished = run_study(
            config,
            root,
            workers=workers,
            retry_failed=retry_failed,
            on=cast("Place", on),
            scheduler=dask_scheduler,
            say=_say,
        )
    _say_baselines(root)
    if finished.report is not None:
        typer.echo(f"Report: {finished.report}")
    if finished.failed:
        typer.echo(
            f"{finished.failed} tasks failed, see {root / 'failed'}. Run them again with: {resume} --retry-failed"
        )
        raise typer.Exit(1)


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Show what of a study is done, failed and left, and how long it will take."""
    from qunlearn.study.status import study_status

    found = study_status(folder)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, value in found.items():
        typer.echo(f"{name:<10} {value}")


@app.command()
def report(folder: Folder) -> None:
    """Write the report of a study: tables, figures, and one page that holds them all."""
    from qunlearn.study.report import write_report
    from qunlearn.study.results import load_study

    load_study(folder)  # a folder without a study is refused here
    typer.echo(f"Report: {write_report(folder)}")


@app.command()
def audit(
    model: Annotated[Path, typer.Argument(help="A saved model: the folder of a trial, or what save_model wrote.")],
    study: Annotated[Path, typer.Option(help="The study that it is from: its file, or its results folder.")],
    request: Annotated[str | None, typer.Option(help='What was to be forgotten, as tables name it: "5 %".')] = None,
    where: Annotated[list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Which cell of the study.")] = None,
    families: Annotated[list[str] | None, typer.Option("--audit", help="A family of audits; all if none.")] = None,
    out: Annotated[Path | None, typer.Option(help="Results folder; runs/NAME where not given.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key.")] = None,
    as_json: AsJson = False,
) -> None:
    """Attack a model and probe what it still holds, beside the retrained models attacked and probed alike."""
    from qunlearn.study.audit_model import audit_model

    config, root = _study(study, out, changes or [])
    chosen = _pairs(where or []) | ({"request": request} if request is not None else {})
    found = audit_model(model, config, root, where=chosen, families=families or None, say=_say)
    if as_json:
        from qunlearn.study.task import canonical

        typer.echo(canonical({**found.place, **found.audit.to_dict()}))
        return
    rows = [[one.name, _spread(one.value, one.low, one.high), _retrained(one), str(one.n)] for one in found.audit]
    told = ", ".join(f"{name} {found.place[name]}" for name in ("dataset", "split_seed", "request"))
    _print_table(f"{model} ({told})", ["audit", "value (95 %)", "retrained (least to greatest)", "n"], rows)
    reasons: dict[str, list[str]] = {}
    for one in found.audit:
        reasons.setdefault(one.reason, []).append(one.name)
    for reason, names in reasons.items():
        if reason:
            typer.echo(f"{', '.join(names)}: {reason}")


@app.command(name="list")
def list_(
    kind: Annotated[str, typer.Argument(help="methods, circuits, datasets, metrics, engines, backends or audits")],
    as_json: AsJson = False,
) -> None:
    """List what there is to use."""
    from qunlearn.study.listing import listing

    rows = listing(kind)
    if as_json:
        typer.echo(json.dumps(rows, default=str))
        return
    columns = [name for name in rows[0] if name not in ("source", "search", "quantum strategy")] if rows else []
    for strategy, group in itertools.groupby(rows, lambda row: str(row.get("quantum strategy", ""))):
        title = f"quantum strategies: {strategy}" if strategy else kind
        _print_table(title, columns, [[_cell(row[name]) for name in columns] for row in group])


@show.command(name="circuit")
def show_circuit(
    name: Annotated[str, typer.Argument(help="The name of a circuit card, or a TOML file.")],
    qubits: Annotated[int, typer.Option(min=1)] = 4,
    depth: Annotated[int, typer.Option(min=1)] = 1,
    entanglement: Annotated[str | None, typer.Option(help="Pattern of the two-qubit gates.")] = None,
    encoding: Annotated[str | None, typer.Option(help="How features enter.")] = None,
    reupload: Annotated[bool | None, typer.Option(help="Whether features enter before every layer.")] = None,
) -> None:
    """Draw a circuit, and count its gates, its depth and its weights (and those that reach nothing)."""
    from qunlearn.quantum.card import load_circuit
    from qunlearn.quantum.describe import describe

    circuit = load_circuit(
        name, qubits=qubits, depth=depth, entanglement=entanglement, encoding=encoding, reupload=reupload
    )
    typer.echo(str(circuit))
    found = describe(circuit)
    dead = f" ({len(found.dead_weights)} reach no observable: {_cell(list(found.dead_weights))})"
    typer.echo("")
    typer.echo(f"qubits           {found.qubits}")
    typer.echo(f"features         {found.features}")
    typer.echo(f"weights          {found.weights}{dead if found.dead_weights else ''}")
    typer.echo(f"gates            {', '.join(f'{count} {gate}' for gate, count in found.gates)}")
    typer.echo(f"depth            {found.depth}")
    typer.echo(f"two-qubit gates  {found.two_qubit_gates}")
    typer.echo(f"two-qubit depth  {found.two_qubit_depth}")
    typer.echo(f"shift rule       {found.weight_shifts} circuits a gradient, {found.all_shifts} with the features")


@hardware.command(name="plan")
def hardware_plan(
    folder: Folder,
    backend: Annotated[
        str, typer.Option(help="A device: fake_torino and the like, or ibm_... of your account.")
    ] = "fake_torino",
    name: Annotated[str | None, typer.Option(help="Of the plan; the backend's where not given.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples in all, evenly from the sets.")] = 100,
    shots: Annotated[int, typer.Option(min=1, help="Shots of each circuit.")] = 1000,
    where: Annotated[list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Which cell of the study.")] = None,
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

    mitigation = Mitigation(readout, _numbers("--zne", zne), extrapolator, decoupling, twirling)  # type: ignore[arg-type]
    study = load_study(folder)
    bundle = study.bundle(
        where=_pairs(where or []), methods=method or None, retrained=retrained, samples=samples, seed=seed
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
    typer.echo(f"Submit it with: {_hardware('submit', made.folder)}")


@hardware.command(name="submit")
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
    with _kept(_hardware("submit", place)):
        found = submit(place, retry_failed=retry_failed, listing_delay=listing_delay, say=_say)
    _say_jobs(found)


@hardware.command(name="status")
def hardware_status(folder: PlanFolder, name: PlanName = None, as_json: AsJson = False) -> None:
    """Show how far the jobs of a plan are."""
    from qunlearn.hardware import find_folder, status

    place = find_folder(folder, name)
    with _kept(_hardware("status", place)):
        found = status(place)
    if as_json:
        facts = {"name": found.name, "backend": found.backend, "jobs": found.counts}
        typer.echo(json.dumps({**facts, "failed": [vars(row) for row in found.failed]}))
        return
    _say_jobs(found)


@hardware.command(name="collect")
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
    with _kept(_hardware("collect", place)):
        found = collect(place, models=models, wait=wait, say=_say)
    if any(row.state == "collected" for row in found.status.rows):
        sets = list(found.labels)
        rows = [[model, *(f"{found.accuracy(model, key):.3f}" for key in sets)] for model in found.logits]
        _print_table(f"accuracy on {found.backend}", ["model", *sets], rows)
        typer.echo(f"Report: {write_comparison(study, place, found)}")
    _say_jobs(found.status)


@app.command()
def about(as_json: AsJson = False) -> None:
    """Show versions, devices and threads: what a bug report needs."""
    from qunlearn.study.listing import about as facts

    found = facts()
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, version in found.pop("versions").items():
        typer.echo(f"{name:<20} {version}")
    for name, value in found.items():
        typer.echo(f"{name:<20} {_cell(value)}")


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
    _print_table(f"{config.name} (nothing was started)", ["", "number", "gradient evaluations", "time"], rows)
    if config.settings.model.factory is not None:
        typer.echo(f"Code of yours that will run: {config.settings.model.factory}")
    for module in config.settings.plugins.modules:
        typer.echo(f"Code of yours that will run: {module}")


def _count(gradients: float) -> str:
    """Of a plan; NaN with a method that was not tried, whose part nobody knows."""
    return "not measured" if math.isnan(gradients) else f"{gradients:,.0f}"


def _say_jobs(found: Status) -> None:
    """How far jobs are, and as the last line the command that goes on; exit code 1 where some failed."""
    typer.echo(str(found))
    if found.failed:
        typer.echo(f"Send failed jobs again with: {_hardware('submit', found.folder)} --retry-failed")
        raise typer.Exit(1)
    if found.unsent:
        typer.echo(f"Submit what is left with: {_hardware('submit', found.folder)}")
    elif found.collected:
        typer.echo(f"All is here; read it again with: {_hardware('collect', found.folder)}")
    else:
        typer.echo(f"Fetch what is done with: {_hardware('collect', found.folder)}")


def _hardware(command: str, folder: Path) -> str:
    return f"qunlearn hardware {command} {shlex.quote(str(folder))}"


@contextmanager
def _kept(again: str, what: str = "done") -> Iterator[None]:
    """Say how to go on where the service is away, or Ctrl-C was pressed; what was done is kept."""
    from qunlearn.errors import ServiceError

    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted; what was {what} is kept. Go on with: {again}")
        raise typer.Exit(130) from None
    except ServiceError as error:
        typer.echo(f"Error: {error}", err=True)
        typer.echo(f"Go on with: {again}")
        raise typer.Exit(1) from None


def _study_of(place: Path) -> Path | None:
    """The study whose plan lies there, if it came along."""
    root = place.resolve().parent.parent
    return root if place.resolve().parent.name == "hardware" and (root / "study.toml").is_file() else None


def _pairs(given: Sequence[str]) -> dict[str, str]:
    wrong = [item for item in given if "=" not in item]
    if wrong:
        raise InputError(f"expected --where COLUMN=VALUE, got {wrong[0]!r}")
    return dict(item.split("=", 1) for item in given)


def _spread(value: float, low: float, high: float) -> str:
    """A figure and its interval, in three digits; a dash where there is none."""
    return "-" if value != value else f"{value:.3g} ({low:.3g} to {high:.3g})"


def _retrained(one: Finding) -> str:
    return _spread(one.retrained, one.retrained_low, one.retrained_high)


def _numbers(option: str, given: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(item) for item in (given or "").split(",") if item)
    except ValueError:
        raise InputError(f"expected {option} as whole numbers such as 1,3,5, got {given!r}") from None


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console

    Console().print(_table(title, columns, rows))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _say_baselines(root: Path) -> None:
    from qunlearn.study.status import accuracy_line

    line = accuracy_line(root)
    if line:
        typer.echo(line)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; an error that is the user's to mend is one message without a traceback."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except QunlearnError as error:
        typer.echo(f"Error: {error}", err=True)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except typer.Exit as leave:
        code = leave.exit_code
    except Exception as error:
        code = _usage_error(error)
    sys.exit(code if isinstance(code, int) else 0)


def _usage_error(error: Exception) -> int:
    """Show a wrong command line as typer does; anything else is a defect of ours and keeps its traceback."""
    if isinstance(error, typer.Abort):
        return 130
    show_error, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if show_error is None or code is None:  # click's own class, which some versions of typer bring along
        raise error
    show_error()
    return int(code)
