"""The page: one file, opened without a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qunlearn.study.report.figures import Picture, Plate
from qunlearn.study.report.judging import judge
from qunlearn.study.report.material import ORIGINAL, RETRAINED, Material
from qunlearn.study.report.story import counted, tell
from qunlearn.study.report.style import BAND, INK, MUTED, PAPER, RULE
from qunlearn.study.report.tables import summarise
from qunlearn.study.report.views import View, slug
from qunlearn.study.report.wording import MAIN, Measure, axis_name, families, method_name, setting_name

if TYPE_CHECKING:
    from markupsafe import Markup
    from pandas import DataFrame

MOST_ROWS = 600  # of the table of all settings of one request; the files hold the rest

_TITLES = {
    "forgetting-vs-retained": "Forgetting against retained accuracy",
    "distance-to-retraining": "Distance to retraining",
    "cost-vs-distance": "Cost against distance",
    "noise": "What noise and shots change",
    "heatmap-gap-forget": "Depth and entanglement: gap on the forget set",
    "heatmap-js-test": "Depth and entanglement: divergence on the test set",
}
_CAPTIONS = {
    "forgetting-vs-retained": "Each mark is the mean of a method. The star is the untouched original, open diamonds "
    "are the retrained models, one each; grey bands span their range in both directions. The aim is where the bands "
    "cross, not zero. Bars that leave a detail are cut.",
    "distance-to-retraining": "Jensen\u2013Shannon divergence between the predictions of each model and of the "
    "retrained models (0 is the same, ln 2 = 0.693 the most). The band is the range of the same value for each "
    "retrained model against the others, the broken line its mean. A method inside the band is no further from "
    "retraining than retraining is from itself.",
    "cost-vs-distance": "How many samples a method differentiated, against how far it stays from the retrained "
    "models on the forget set; band and broken line as above.",
    "noise": "One line a method, averaged over what else the study sweeps; the star is the untouched original, the "
    "grey band the retrained models\u2019 range under the same noise. Where lines leave their order, noise decides "
    "what a comparison of methods finds.",
    "heatmap": "One map a method, over depth and entanglement pattern; colours on a root scale. The first map is the "
    "yardstick: the same value for each retrained model against the others. Numbers in brackets are no larger than it.",
}


@dataclass(frozen=True)
class Cell:
    """One number of a table: as printed, its interval, and in full for sorting."""

    text: str
    interval: str
    value: float


@dataclass(frozen=True)
class Row:
    """One model in a table; reference rows (original, retrained) stand on top however the table is sorted."""

    name: str
    kind: str
    place: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Group:
    """Rows under one heading; the heading is empty where there is one group."""

    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """One table of the page."""

    caption: str
    columns: tuple[Measure, ...]
    groups: tuple[Group, ...]
    places: bool = False


@dataclass(frozen=True)
class Section:
    """All that is shown of one request."""

    title: str
    anchor: str
    main: Table
    others: tuple[Table, ...]
    settings: Table | None
    left_out: int


def render(material: Material, found: Sequence[View], plates: Sequence[Plate]) -> str:
    """The page as HTML text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("qunlearn.study.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.get_template("template.html.j2")
    return template.render(
        material=material,
        stories=[tell(view) for view in found],
        sections=[_section(material, request, found) for request in material.requests],
        figures=[_figure(number, plate) for number, plate in enumerate(plates, start=1)],
        counted=counted(material),
        facts=_facts(material),
        baselines=_baselines(material),
        tunings=_tunings(material),
    )


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
    main = _table(f"Forget {request}: means, and below each its interval", columns, own, places=True)
    rest = [key for key in own[0].measures if key not in [column.key for column in MAIN]]
    tables = [_table(title, some, own) for title, some in families(rest)]
    others = tuple(table for table in tables if table.columns)
    settings, left_out = _all_settings(material, request, columns) if own[0].averaged > 1 else (None, 0)
    return Section(request, slug(request), main, others, settings, left_out)


def _table(caption: str, columns: Sequence[Measure], found: Sequence[View], places: bool = False) -> Table:
    """A table with a group of rows for each view, and the columns that hold a number in any of them."""
    columns = [column for column in columns if any(view.means[column.key].notna().any() for view in found)]
    groups = []
    for view in found:
        judged = {verdict.method: verdict.place for verdict in judge(view)} if places else {}
        order = [name for name in (ORIGINAL, RETRAINED) if name in view.means.index] + view.methods
        rows = tuple(_row(name, view.means.loc[[name]], columns, judged.get(name, "")) for name in order)
        groups.append(Group(view.title if len(found) > 1 else "", rows))
    return Table(caption, tuple(columns), tuple(groups), places)


def _row(name: str, means: DataFrame, columns: Sequence[Measure], place: str) -> Row:
    kind = {ORIGINAL: "original", RETRAINED: "retrained"}.get(name, "method")
    cells = []
    for column in columns:
        value, low, high = (float(means[f"{column.key}{end}"].iloc[0]) for end in ("", "_ci_low", "_ci_high"))
        cells.append(Cell(column.show(value), column.show_interval(low, high), value))
    return Row(method_name(name), kind, place, tuple(cells))


def _all_settings(material: Material, request: str, columns: Sequence[Measure]) -> tuple[Table, int]:
    """Every setting of a request with every method, up to `MOST_ROWS` rows, and how many are left out."""
    rows = material.records[material.records["request"] == request]
    joined = rows.merge(material.times[["trial", "seconds"]], on="trial", how="left")
    means = summarise(joined, [*material.swept, "method"], [column.key for column in columns])
    groups: dict[str, list[Row]] = {}
    for number in range(min(len(means), MOST_ROWS)):
        one = means.iloc[[number]]
        heading = setting_name({axis: one[axis].iloc[0] for axis in material.swept})
        groups.setdefault(heading, []).append(_row(str(one["method"].iloc[0]), one, columns, ""))
    table = Table(
        f"Forget {request}: every setting",
        tuple(columns),
        tuple(Group(name, tuple(own)) for name, own in groups.items()),
    )
    return table, max(len(means) - MOST_ROWS, 0)


@dataclass(frozen=True)
class Drawing:
    """One drawing, ready for the page."""

    svg: Markup
    request: str


@dataclass(frozen=True)
class Figure:
    """One numbered figure of the page."""

    number: int
    title: str
    caption: str
    file: str
    wide: bool
    folded: bool
    drawings: tuple[Drawing, ...]


def _figure(number: int, plate: Plate) -> Figure:
    title = next(text for stem, text in _TITLES.items() if plate.stem.startswith(stem))
    if plate.wide:
        title = f"{title}, forget {plate.pictures[0].request}"
    caption = next(text for stem, text in _CAPTIONS.items() if plate.stem.startswith(stem))
    drawings = tuple(
        Drawing(inline(picture, f"f{number}-{letter}-"), picture.request)
        for letter, picture in enumerate(plate.pictures, start=1)
    )
    return Figure(number, title, caption, plate.stem, plate.wide, plate.stem == "cost-vs-distance", drawings)


def inline(picture: Picture, prefix: str) -> Markup:
    """The SVG element alone: ids made unique by a prefix, colours taken from the page, the text as its label."""
    from markupsafe import Markup, escape

    svg = picture.svg[picture.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace("url(#", f"url(#{prefix}").replace('href="#', f'href="#{prefix}')
    for colour, name in ((INK, "ink"), (MUTED, "muted"), (RULE, "grid"), (BAND, "band"), (PAPER, "halo")):
        svg = svg.replace(colour, f"var(--{name})")
    head = f'<svg role="img" aria-label="{escape(picture.alt)}"'
    return Markup(re.sub(r'^<svg width="[^"]*" height="[^"]*"', lambda _: head, svg.strip(), count=1))


def _tunings(material: Material) -> tuple[list[str], list[list[str]]]:
    """Column names and printed rows of the settings that tuning chose."""
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
        rows.append([one["row"]["method"], *where, one["row"]["request"], chosen, place])
    heads = [axis_name(axis) for axis in axes]
    return ["method", *heads, "tuned on", "chosen", "setting"], rows


def _setting(value: object) -> str:
    """A hyper-parameter as printed."""
    return "by default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _baselines(material: Material) -> tuple[list[str], list[list[str]]]:
    """Column names and printed rows of the classical baselines."""
    names = list(dict.fromkeys(name for row in material.baselines for name in row))
    rows = [[_printed(name, row.get(name, "")) for name in names] for row in material.baselines]
    return [name.replace("_", " ") + (" (%)" if name.startswith("accuracy") else "") for name in names], rows


def _printed(name: str, value: object) -> str:
    return f"{100 * value:.1f}" if name.startswith("accuracy") and isinstance(value, float) else str(value)
