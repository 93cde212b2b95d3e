"""The command line: thin, everything it does is done elsewhere.

Exit codes: 0 done; 1 a trial failed (what was finished is kept); 2 the input is wrong (nothing was started);
130 after Ctrl-C.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from qunlearn.errors import InputError, QunlearnError, UnknownNameError

if TYPE_CHECKING:
    from rich.table import Table

    from qunlearn.study.grid import StudyConfig

app = typer.Typer(
    help="Make hybrid quantum-classical models forget, and measure how well they forgot.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
show = typer.Typer(help="Show one thing in detail.", no_args_is_help=True)
app.add_typer(show, name="show")

Folder = Annotated[Path, typer.Argument(help="The results folder of a study, such as runs/quickstart.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="A study file, or the results folder of one, to go on with it.")],
    out: Annotated[Path | None, typer.Option(help="Results folder; runs/NAME where not given.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
    on: Annotated[str, typer.Option(help="Where the workers are; local is this machine.")] = "local",
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show size and time, and do nothing else.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")] = False,
) -> None:
    """Run a study, or what is left of it, and write its report."""
    from qunlearn.study.runner import run_study

    if on != "local":
        raise UnknownNameError("place to run", on, ["local"])
    config, root = _study(study, out, changes or [])
    if plan:
        _show_plan(config, workers)
        return
    resume = f"qunlearn run {shlex.quote(str(root))}"
    try:
        finished = run_study(config, root, workers=workers, retry_failed=retry_failed, say=_say)
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted; what was finished is kept. Go on with: {resume}")
        raise typer.Exit(130) from None
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


@app.command(name="list")
def list_(
    kind: Annotated[str, typer.Argument(help="methods, circuits, datasets, metrics or engines")],
    as_json: AsJson = False,
) -> None:
    """List what there is to use."""
    from qunlearn.study.listing import listing

    rows = listing(kind)
    if as_json:
        typer.echo(json.dumps(rows, default=str))
        return
    columns = [name for name in rows[0] if name not in ("source", "search")] if rows else []
    _print_table(kind, columns, [[_cell(row[name]) for name in columns] for row in rows])


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
    from qunlearn.study.runner import default_workers
    from qunlearn.study.task import units_of

    plan, workers = make_plan(config), workers or default_workers(config)
    cost = estimate(plan)
    rows = []
    kinds = {"original": "original models", "retrained": "retrained models", "tuning": "tuning", "trial": "trials"}
    for kind, title in kinds.items():
        keys = [task.key for task in plan.of(kind)]
        if not keys and kind == "tuning":
            continue
        gradients = sum(cost.gradient_evaluations[key] for key in keys)
        rows.append([title, str(len(keys)), f"{gradients:,.0f}", duration(sum(cost.seconds[key] for key in keys))])
    units = units_of(plan.tasks, {task.key for task in plan.tasks})
    gradients = sum(cost.gradient_evaluations.values())
    last = f"{duration(cost.wall(units, workers))} on {workers} worker{'s' if workers > 1 else ''}"
    rows.append(["in all", str(len(plan.tasks)), f"{gradients:,.0f}", last])
    _print_table(f"{config.name} (nothing was started)", ["", "number", "gradient evaluations", "time"], rows)
    if config.settings.model.factory is not None:
        typer.echo(f"Code of yours that will run: {config.settings.model.factory}")
    for module in config.settings.plugins.modules:
        typer.echo(f"Code of yours that will run: {module}")


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
