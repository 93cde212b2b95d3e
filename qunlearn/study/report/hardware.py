"""The report of a hardware run: tables, figures, and one page that needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qunlearn.evaluation.comparison import Comparison, Entry, Order
from qunlearn.study.report.drawings import inline
from qunlearn.study.report.hardware_figures import Drawn, write_figures
from qunlearn.study.report.hardware_material import MEASURES, WAYS, Sides
from qunlearn.study.report.hardware_story import stories
from qunlearn.study.report.tabling import Cell, Group, Row, Table
from qunlearn.study.report.wording import Measure

if TYPE_CHECKING:
    from qunlearn.study.hardware_report import Outcome

_FAMILIES = (
    ("Accuracy", "accuracy_"),
    ("Distance to the retrained models", "js_"),
    ("Membership attack", "membership_"),
)


def write(outcome: Outcome, folder: Path) -> Path:
    """Write ``comparison``, ``order`` and ``metrics`` (CSV, Parquet), the figures and ``report.html`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_tables(outcome, folder)
    pictures = write_figures(outcome.comparison, folder / "figures")
    page = folder / "report.html"
    page.write_text(_render(outcome, pictures), encoding="utf-8", newline="\n")
    return page


def _write_tables(outcome: Outcome, folder: Path) -> None:
    import pandas as pd

    tables: dict[str, list[dict[str, Any]]] = {
        "comparison": [_row_of(entry, model=entry.model, role=entry.role) for entry in outcome.comparison.entries],
        "order": [_row_of(order, models=order.models) for order in outcome.comparison.orders],
        "metrics": [dict(row) for row in outcome.rows],
    }
    for name, rows in tables.items():
        if rows:
            table = pd.DataFrame(rows)
            table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
            table.to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")


def _row_of(found: Entry | Order, **own: Any) -> dict[str, Any]:
    """One row of a table; the value of an order is Kendall's tau."""
    return {"measure": found.measure, "way": found.way, **own, **found.bounds._asdict()}


def _render(outcome: Outcome, pictures: Sequence[Drawn]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("qunlearn.study.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    sides = Sides.of(outcome.comparison)
    drawn = [
        (number, one.title, one.caption, inline(one.picture, f"f{number}-"))
        for number, one in enumerate(pictures, start=1)
    ]
    facts = dict(outcome.facts)
    return environment.get_template("hardware.html.j2").render(
        title=f"On {facts.get('backend', 'hardware')}",
        facts=outcome.facts,
        notes=outcome.notes,
        stories=stories(sides),
        ways=[(name, meaning) for name, meaning in WAYS.items() if name in sides.ways],
        figures=drawn,
        tables=_tables(sides),
        order=_order_table(outcome.comparison),
        metrics=bool(outcome.rows),
    )


def _tables(sides: Sides) -> list[Table]:
    tables = []
    for title, start in _FAMILIES:
        shown = sides.shown([measure.key for measure in MEASURES if measure.key.startswith(start)])
        groups = tuple(Group(_heading(measure), _rows(sides, measure)) for measure in shown)
        if groups:
            tables.append(
                Table(title, tuple(Measure(way, way.capitalize(), "", WAYS[way]) for way in sides.ways), groups)
            )
    return tables


def _heading(measure: Measure) -> str:
    return f"{measure.head} ({measure.unit})" if measure.unit else measure.head


def _rows(sides: Sides, measure: Measure) -> tuple[Row, ...]:
    rows = []
    for model, role in sides.comparison.setting.roles.items():
        found = [sides.entries[model, way, measure.key] for way in sides.ways]
        cells = tuple(Cell(measure.show(b.value), measure.show_interval(b.low, b.high), b.value) for b in found)
        rows.append(Row(model, "method" if role == "unlearned" else role, "", cells))
    return tuple(rows)


def _order_table(comparison: Comparison) -> Table | None:
    heads, orders = {measure.key: _heading(measure) for measure in MEASURES}, comparison.orders
    ways = [way.name for way in comparison.ways[1:]]
    columns = tuple(Measure(way, way.capitalize(), "", WAYS[way], digits=2) for way in ways)
    rows = []
    for key in comparison.measures:
        found = [next(o.bounds for o in orders if (o.measure, o.way) == (key, way)) for way in ways]
        if found and any(math.isfinite(bounds.value) for bounds in found):
            show = columns[0]
            cells = tuple(Cell(show.show(b.value), show.show_interval(b.low, b.high), b.value) for b in found)
            rows.append(Row(heads.get(key, key), "method", "", cells))
    return Table("Kendall\u2019s tau to the exact order", columns, (Group("", tuple(rows)),)) if rows else None
