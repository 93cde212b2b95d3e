"""The tables of the audits: each figure with its interval and, drawn beside it, the retrained models' range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qunlearn.study.report.audit_wording import audit_families, main_audits
from qunlearn.study.report.audits import Audited, Found
from qunlearn.study.report.material import ORIGINAL, RETRAINED, Material
from qunlearn.study.report.tabling import Cell, Group, Row, Table
from qunlearn.study.report.views import Band, slug
from qunlearn.study.report.wording import DASH, Measure, method_name

if TYPE_CHECKING:
    from markupsafe import Markup

_WIDE = 100.0  # of the small drawings, in their own units
_WORDS = {"": "", "within": "inside", "unsettled": "not settled", "above": "beyond, above", "below": "beyond, below"}


@dataclass(frozen=True)
class AuditPart:
    """What the page shows of the audits of one view."""

    title: str
    anchor: str
    main: Table
    others: tuple[Table, ...]


def audit_part(own: Audited, number: int) -> AuditPart:
    """The main table of a view's audits and the tables of all of them, by family."""
    anchor = f"audits-{number}-{slug(own.view.title)}"
    main = [measure for measure, _ in main_audits(own.names, own.units)]
    tables = [_table(own, title, measures) for title, measures in audit_families(own.names, own.units)]
    if not main:  # audits that nobody here knows: the first of them stand for all
        main = [measure for _, measures in audit_families(own.names, own.units) for measure in measures][:8]
    return AuditPart(own.view.title, anchor, _table(own, f"{own.view.title}: main audits", main), tuple(tables))


def _table(own: Audited, caption: str, columns: Sequence[Measure]) -> Table:
    notes: list[str] = []
    spans = [_span(own, column.key) for column in columns]
    rows = [_yardstick(own, columns, spans)]
    for method in own.methods:
        found = [own.found(method, column.key) for column in columns]
        cells = tuple(_cell(*one, notes) for one in zip(found, columns, spans, strict=True))
        rows.append(Row(method_name(method), "original" if method == ORIGINAL else "method", "", cells))
    return Table(caption, tuple(columns), (Group("", tuple(rows)),), notes=tuple(notes))


def _yardstick(own: Audited, columns: Sequence[Measure], spans: Sequence[tuple[float, float]]) -> Row:
    """The retrained models: their mean and, in place of an interval, their range."""
    cells = []
    for column, span in zip(columns, spans, strict=True):
        band = own.band(column.key)
        if band is None:
            cells.append(Cell(DASH, "", math.nan))
            continue
        bar = _bar(None, band, span)
        cells.append(Cell(column.show(band.mean), column.show_interval(band.least, band.most), band.mean, "", bar))
    return Row(method_name(RETRAINED), "retrained", "", tuple(cells))


def _cell(found: Found | None, column: Measure, span: tuple[float, float], notes: list[str]) -> Cell:
    if found is None:
        return Cell("", "", math.nan)
    note = _note(found, notes)
    if not math.isfinite(found.value):
        return Cell(DASH, "", math.nan, note=note)
    interval = column.show_interval(found.low, found.high)
    return Cell(column.show(found.value), interval, found.value, found.side, _bar(found, found.own, span), note)


def _note(found: Found, notes: list[str]) -> int:
    """The number of the footnote that gives the reason, written if it is new; 0 for none."""
    if not found.reason and not found.absent:
        return 0
    reason = found.reason or "no reason is recorded"
    some = 0 < found.absent < found.trials
    text = f"No value for {found.absent} of {found.trials} models: {reason}" if some else reason
    if text not in notes:
        notes.append(text)
    return notes.index(text) + 1


def _span(own: Audited, audit: str) -> tuple[float, float]:
    """From where to where the small drawings of one audit reach: all means and the retrained models' range."""
    values = [found.value for _, found in own.each(audit) if math.isfinite(found.value)]
    if band := own.band(audit):
        values += [band.least, band.most]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    edge = 0.08 * (high - low) or 0.5
    return low - edge, high + edge


def _bar(found: Found | None, band: Band | None, span: tuple[float, float]) -> Markup | str:
    """Range, interval and value on one line; a picture of what the cell says in numbers, so it is not read out."""
    from markupsafe import Markup

    def at(value: float) -> str:
        part = (value - span[0]) / (span[1] - span[0])
        return f"{min(max(_WIDE * part, 0.0), _WIDE):.1f}"

    parts = []
    if band is not None:
        left, right = float(at(band.least)), float(at(band.most))
        parts.append(f'<rect x="{left:.1f}" width="{max(right - left, 1.0):.1f}" height="12"/>')
    if found is not None:
        if math.isfinite(found.low) and found.high > found.low:
            parts.append(f'<path d="M{at(found.low)} 6H{at(found.high)}"/>')
        parts.append(f'<circle cx="{at(found.value)}" cy="6" r="3.6"/>')
    if not parts:
        return ""
    return Markup(f'<svg class="mini" viewBox="-4 0 108 12" aria-hidden="true">{"".join(parts)}</svg>')


def side_words(side: str) -> str:
    """Where a figure lies, in words for who cannot see its colour."""
    return _WORDS[side]


def write_audits(material: Material, folder: Path) -> list[Path]:
    """Write the audits' long table as ``audits.csv`` and ``audits.parquet``; nothing where there are none."""
    if material.audits is None or material.audits.empty:
        return []
    paths = [folder / "audits.csv", folder / "audits.parquet"]
    material.audits.to_csv(paths[0], index=False, lineterminator="\n")
    material.audits.to_parquet(paths[1], index=False, compression="zstd")
    return paths
