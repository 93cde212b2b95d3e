"""Commands that show what there is."""

from __future__ import annotations

import itertools
import json
from typing import Annotated

import typer

from qunlearn.cli.common import AsJson, cell, print_table


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
        print_table(title, columns, [[cell(row[name]) for name in columns] for row in group])


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
    dead = f" ({len(found.dead_weights)} reach no observable: {cell(list(found.dead_weights))})"
    typer.echo("")
    typer.echo(f"qubits           {found.qubits}")
    typer.echo(f"features         {found.features}")
    typer.echo(f"weights          {found.weights}{dead if found.dead_weights else ''}")
    typer.echo(f"gates            {', '.join(f'{count} {gate}' for gate, count in found.gates)}")
    typer.echo(f"depth            {found.depth}")
    typer.echo(f"two-qubit gates  {found.two_qubit_gates}")
    typer.echo(f"two-qubit depth  {found.two_qubit_depth}")
    typer.echo(f"shift rule       {found.weight_shifts} circuits a gradient, {found.all_shifts} with the features")


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
        typer.echo(f"{name:<20} {cell(value)}")
