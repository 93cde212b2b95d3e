"""The page: one file, opened without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qunlearn.study.report.audit_tables import audit_part
from qunlearn.study.report.audits import Audited
from qunlearn.study.report.certificates import certificates
from qunlearn.study.report.comparisons import comparisons
from qunlearn.study.report.controls import control_told
from qunlearn.study.report.curves import training_table, trainings, verdict
from qunlearn.study.report.drawings import figure_of
from qunlearn.study.report.figures import Plate
from qunlearn.study.report.lacking import left_out
from qunlearn.study.report.landscape import landscape
from qunlearn.study.report.material import Material
from qunlearn.study.report.one_thing import one_thing
from qunlearn.study.report.ranks import Ranks
from qunlearn.study.report.something import something
from qunlearn.study.report.story import counted, tell
from qunlearn.study.report.sweep import Sweep
from qunlearn.study.report.tables import summarise
from qunlearn.study.report.tabling import Group, Plain, Row, Table, row_of, table_of
from qunlearn.study.report.verdicts import verdicts
from qunlearn.study.report.views import View, slug
from qunlearn.study.report.wording import MAIN, Measure, axis_name, families, setting_name

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_ROWS = 600  # of the table of all settings of one request; the files hold the rest


@dataclass(frozen=True)
class Section:
    """All that is shown of one request."""

    title: str
    anchor: str
    main: Table
    others: tuple[Table, ...]
    settings: Table | None
    left_out: int


def render(
    material: Material,
    found: Sequence[View],
    plates: Sequence[Plate],
    audits: Sequence[Audited] = (),
    ranking: Ranks | None = None,
    sweep: Sweep | None = None,
) -> str:
    """The page as HTML text.

    Args:
        material: the records.
        found: their views.
        plates: the figures, in the page's order.
        audits: the audits of the views that have any.
        ranking: the ranks over tasks; None where the records hold no oracle distance.
        sweep: over depth and entanglement; None where neither is swept.
    """
    basis = counted(material)
    trained = trainings(material)
    by_view = {own.view.title: own for own in audits}
    return _environment().get_template("template.html.j2").render(
        material=material,
        stories=[tell(view, by_view.get(view.title)) for view in found],
        something=something(found, audits),
        sections=[_section(material, request, found) for request in material.requests],
        figures=[figure_of(number, plate, basis) for number, plate in enumerate(plates, start=1)],
        audits=[audit_part(own, number) for number, own in enumerate(audits, start=1)],
        controls=[told for own in audits if (told := control_told(own))],
        comparisons=comparisons(material, found, ranking),
        landscape=landscape(sweep),
        one_thing=one_thing(sweep) if sweep is not None else None,
        verdicts=verdicts(material),
        certificates=certificates(material),
        training=training_table(trained) if trained else None,
        training_told=verdict(trained) if trained else "",
        counted=basis,
        facts=_facts(material),
        baselines=_baselines(material),
        tunings=_tunings(material),
        left_out=left_out(material),
    )  # fmt: skip


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("qunlearn.study.report", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _facts(material: Material) -> list[tuple[str, str]]:
    """What the study was about: each axis with its values."""
    facts = []
    for axis in material.axes:
        values = [str(value) for value in material.records[axis].dropna().drop_duplicates()]
        if values and axis not in ("request", "method"):
            facts.append((axis_name(axis), ", ".join(values)))
    return [*facts, ("trials", str(len(material.records)))]


def _section(material: Material, request: str, found: Sequence[View]) -> Section:
    own = [view for view in found if view.request == request]
    columns = [column for column in MAIN if column.key in own[0].measures]
    main = table_of(f"Forget {request}: means, and below each its interval", columns, own, places=True)
    rest = [key for key in own[0].measures if key not in [column.key for column in MAIN]]
    tables = [table_of(title, some, own) for title, some in families(rest)]
    others = tuple(table for table in tables if table.columns)
    settings, left_out = _all_settings(material, request, columns) if own[0].averaged > 1 else (None, 0)
    return Section(request, slug(request), main, others, settings, left_out)


def _all_settings(material: Material, request: str, columns: Sequence[Measure]) -> tuple[Table, int]:
    """Every setting of a request with every method, up to `MOST_ROWS` rows, and how many are left out."""
    rows = material.records[material.records["request"] == request]
    joined = rows.merge(material.times[["trial", "seconds"]], on="trial", how="left")
    means = summarise(joined, [*material.swept, "method"], [column.key for column in columns])
    groups: dict[str, list[Row]] = {}
    for number in range(min(len(means), MOST_ROWS)):
        one = means.iloc[[number]]
        heading = setting_name({axis: one[axis].iloc[0] for axis in material.swept})
        groups.setdefault(heading, []).append(row_of(str(one["method"].iloc[0]), one, columns, ""))
    table = Table(
        f"Forget {request}: every setting",
        tuple(columns),
        tuple(Group(name, tuple(own)) for name, own in groups.items()),
    )
    return table, max(len(means) - MOST_ROWS, 0)


def _tunings(material: Material) -> Plain:
    """The settings that tuning chose."""
    axes = [
        axis
        for axis in (*material.axes, "split_seed")
        if axis not in ("request", "method") and len({str(one["row"].get(axis)) for one in material.tunings}) > 1
    ]
    rows = []
    for one in material.tunings:
        chosen = ", ".join(f"{name} = {_setting(one['hyperparameters'][name])}" for name in one["searched"])
        where = [str(one["row"].get(axis)) for axis in axes]
        place = f"{one['chosen'] + 1} of {len(one['settings'])}"
        rows.append((one["row"]["method"], *where, one["row"]["request"], chosen, place))
    heads = [axis_name(axis) for axis in axes]
    return Plain("Settings that tuning chose", ("method", *heads, "tuned on", "chosen", "setting"), tuple(rows))


def _setting(value: object) -> str:
    """A hyper-parameter as printed."""
    return "by default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _baselines(material: Material) -> Plain:
    """The classical baselines."""
    names = list(dict.fromkeys(name for row in material.baselines for name in row))
    rows = tuple(tuple(_printed(name, row.get(name, "")) for name in names) for row in material.baselines)
    heads = tuple(name.replace("_", " ") + (" (%)" if name.startswith("accuracy") else "") for name in names)
    return Plain("Classical baseline", heads, rows)


def _printed(name: str, value: object) -> str:
    return f"{100 * value:.1f}" if name.startswith("accuracy") and isinstance(value, float) else str(value)
