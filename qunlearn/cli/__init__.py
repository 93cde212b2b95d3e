"""The command line: thin, everything it does is done elsewhere.

Exit codes: 0 done; 1 a trial failed (what was finished is kept); 2 the input is wrong (nothing was started);
130 after Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from qunlearn.cli.hardware import hardware_collect, hardware_plan, hardware_status, hardware_submit
from qunlearn.cli.showing import about, list_, show_circuit
from qunlearn.cli.studies import audit, report, run, status
from qunlearn.errors import QunlearnError

app = typer.Typer(
    help="Make hybrid quantum-classical models forget, and measure how well they forgot.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_show = typer.Typer(help="Show one thing in detail.", no_args_is_help=True)
_hardware = typer.Typer(help="Run a study's models on quantum hardware.", no_args_is_help=True)

for _command in (run, status, report, audit):
    app.command()(_command)
app.command(name="list")(list_)
app.command()(about)
app.add_typer(_show, name="show")
_show.command(name="circuit")(show_circuit)
app.add_typer(_hardware, name="hardware")
_hardware.command(name="plan")(hardware_plan)
_hardware.command(name="submit")(hardware_submit)
_hardware.command(name="status")(hardware_status)
_hardware.command(name="collect")(hardware_collect)


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
