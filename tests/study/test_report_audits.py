"""The audits of a report: figures, sides, footnotes, files, and a page that holds together, against NumPy and SciPy."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from qunlearn.study.report import write
from qunlearn.study.report.audit_figures import audit_figures, lines_of
from qunlearn.study.report.audit_tables import audit_part, write_audits
from qunlearn.study.report.audit_wording import audit_families, main_audits
from qunlearn.study.report.audits import Audited, Found, audited
from qunlearn.study.report.controls import control_told
from qunlearn.study.report.judging import side
from qunlearn.study.report.kinds import by_kind, kind_of
from qunlearn.study.report.material import Material
from qunlearn.study.report.something import something
from qunlearn.study.report.story import tell
from qunlearn.study.report.style import drawing
from qunlearn.study.report.tabling import Cell, Table
from qunlearn.study.report.views import Band, views
from tests.study.report_frames import AUDITS, MANY, audits, made
from tests.study.test_report import Reader

SOME = ("u_lira_auc", "u_lira_tpr_1pct", "probe_rbf_circuit", "forgetting_quality")


@pytest.fixture(scope="module")
def study() -> Material:
    return made(methods=("fine-tune", "scrub", "head-only"), requests=("class 0",))


@pytest.fixture(scope="module")
def own(study: Material) -> Audited:
    return audited(study, views(study))[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study with everything in it."""
    one = made(methods=("fine-tune", "sisa"), requests=("class 0",))
    one = dataclasses.replace(one, audits=audits(one.records, SOME))
    return write(one, tmp_path_factory.mktemp("audited")).parent


def rows_of(study: Material, method: str, audit: str) -> pd.DataFrame:
    assert study.audits is not None
    return study.audits[(study.audits["method"] == method) & (study.audits["audit"] == audit)]


def cell(table: Table, method: str, audit: str) -> Cell:
    """The cell of a table by its row's name and its column's key."""
    row = next(row for row in table.groups[0].rows if row.name == method)
    return row.cells[[column.key for column in table.columns].index(audit)]


@pytest.mark.parametrize("audit", ["membership_trained_auc", "probe_linear_states", "relearn_steps"])
@pytest.mark.parametrize("method", ["fine-tune", "scrub", "head-only"])
def test_figures_are_means_and_t_intervals_over_seeds(study: Material, own: Audited, method: str, audit: str) -> None:
    values = rows_of(study, method, audit)["value"].to_numpy()
    found = own.found(method, audit)
    assert found is not None
    assert found.value == pytest.approx(values.mean())
    if np.ptp(values) > 0:
        expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        low, high = (max(expected.low, 0.0), min(expected.high, 1.0)) if audit != "relearn_steps" else expected
        assert (found.low, found.high) == pytest.approx((low, high))
    unit, middle, half, _ = AUDITS[audit]
    assert found.own is not None
    assert (found.own.least, found.own.mean, found.own.most) == pytest.approx((middle - half, middle, middle + half))
    assert own.units[audit] == unit


def test_a_single_model_keeps_the_interval_over_its_samples() -> None:
    one = made(methods=("fine-tune", "scrub"), requests=("class 0",), seeds=1)
    row = rows_of(one, "scrub", "probe_rbf_circuit").iloc[0]
    found = audited(one, views(one))[0].found("scrub", "probe_rbf_circuit")
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((row["value"], row["low"], row["high"]))


def test_over_splits_the_range_reaches_from_the_least_to_the_most(study: Material) -> None:
    assert study.audits is not None
    other = study.audits.assign(split_seed=1, retrained_low=0.3, retrained_high=0.4, retrained=0.35)
    both = dataclasses.replace(study, audits=pd.concat([study.audits, other]))
    found = audited(both, views(both))[0].found("scrub", "membership_trained_auc")
    assert found is not None
    assert found.own is not None
    assert (found.own.least, found.own.most) == pytest.approx((0.3, 0.535))
    assert found.own.mean == pytest.approx((0.35 + 0.51) / 2)


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.50, 0.40, 0.60, "within"),
        (0.55, 0.54, 0.56, "above"),
        (0.55, 0.51, 0.59, "unsettled"),
        (0.40, 0.38, 0.42, "below"),
        (0.40, 0.30, 0.50, "unsettled"),
        (0.55, math.nan, math.nan, "unsettled"),
        (math.nan, math.nan, math.nan, ""),
    ],
    ids=["within", "above", "reaches-from-above", "below", "reaches-from-below", "no-interval", "no-value"],
)
def test_both_sides_of_the_range_count(value: float, low: float, high: float, expected: str) -> None:
    band = Band(0.48, 0.50, 0.52)
    assert side(value, low, high, band) == expected
    assert Found(value, low, high, band, 100, 1, 0, "").side == expected
    assert side(value, low, high, None) == ""


def test_the_main_table_prints_figures_ranges_and_reasons(study: Material, own: Audited) -> None:
    table = audit_part(own, 1).main
    probe = cell(table, "head-only", "probe_linear_circuit")
    assert (probe.text, probe.place) == ("89.0", "above")
    yardstick = cell(table, "retrained models", "probe_linear_circuit")
    assert (yardstick.text, yardstick.interval) == ("75.0", "71.0 \u2013 79.0")
    missing = cell(table, "scrub", "u_lira_tpr_1pct")
    assert (missing.text, missing.place) == ("\u2013", "")
    assert table.notes[missing.note - 1] == "640 non-member scores, at least 1,000 are needed"
    assert [row.name for row in table.groups[0].rows][:2] == ["retrained models", "original"]


def test_a_value_for_some_of_the_models_says_for_how_many(study: Material) -> None:
    assert study.audits is not None
    frame = study.audits.copy()
    chosen = (frame["method"] == "scrub") & (frame["audit"] == "streisand_auc") & (frame["seed"] == 0)
    frame.loc[chosen, ["value", "low", "high"]] = np.nan
    frame.loc[chosen, "reason"] = "too few samples"
    changed = dataclasses.replace(study, audits=frame)
    table = audit_part(audited(changed, views(changed))[0], 1).main
    found = cell(table, "scrub", "streisand_auc")
    rest = rows_of(changed, "scrub", "streisand_auc")["value"].dropna()
    assert float(found.value) == pytest.approx(rest.mean())
    assert table.notes[found.note - 1] == "No value for 1 of 3 models: too few samples"


def test_a_family_that_is_absent_as_a_whole_gives_its_reason_to_each_figure(study: Material) -> None:
    assert study.audits is not None
    frame = study.audits.copy()
    chosen = (frame["method"] == "scrub") & (frame["audit"] == "probe_rbf_circuit")
    frame.loc[chosen, ["value", "low", "high"]] = np.nan
    frame.loc[chosen, ["audit", "reason"]] = ["probe", "the model has no circuit"]
    changed = dataclasses.replace(study, audits=frame)
    found = audited(changed, views(changed))[0]
    assert "probe" not in found.names
    one = found.found("scrub", "probe_rbf_circuit")
    assert one is not None
    assert (one.absent, one.reason) == (3, "the model has no circuit")


def test_main_audits_stand_in_a_fixed_order_and_all_audits_in_families() -> None:
    names = ["probe_rbf_circuit", "streisand_auc", "membership_trained_auc", "my_audit", "relearn_few_10"]
    main = main_audits(names, {"streisand_auc": "share"})
    assert [measure.key for measure, _ in main] == [
        "membership_trained_auc", "relearn_few_10", "probe_rbf_circuit", "streisand_auc",
    ]  # fmt: skip
    assert [key for _, key in main] == [True, False, True, False]
    families = dict(audit_families(names, {"my_audit": "nats"}))
    assert [measure.key for measure in families["Other audits"]] == ["my_audit"]
    assert sum(len(measures) for measures in families.values()) == len(names)


def test_forgetting_quality_prints_its_n_and_cap(own: Audited) -> None:
    with drawing():
        _, figure, alt, title = next(audit_figures([own]))
        titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert f"Forgetting quality\nN = 64, cap {math.log(63):.2f}" in titles
    assert title == "class 0"
    assert "scrub" in alt
    assert "no value" not in alt


def test_the_control_is_shown_as_what_it_is(own: Audited) -> None:
    told = control_told(own)
    assert told.startswith("Forget class 0: the outputs of head-only ")
    assert "circuit probe (linear)" in told
    assert "The untouched original gives the same figure in circuit probe (linear)" in told
    assert control_told(audited(plain := made(methods=("scrub",)), views(plain))[0]) == ""


def test_many_methods_are_grouped_by_family() -> None:
    lines = lines_of(["none", *by_kind(MANY)])
    assert [name for name, is_method in lines if is_method] == ["none", *by_kind(MANY)]
    heads = [name for name, is_method in lines if not is_method]
    assert heads[:2] == ["Descent on the retain set", "Ascent on the forget set"]
    assert heads[-1] == "Other"
    assert sorted(by_kind(MANY)) == sorted(MANY)
    assert kind_of("fine-tune, long") == kind_of("fine-tune")
    assert kind_of("scrub+r") == kind_of("scrub(rewind=True)") == kind_of("scrub") != "Other"
    assert kind_of("fine-tuned-otherwise") == kind_of("fine-tune-longer") == "Other"
    assert lines_of(["scrub"]) == [("scrub", True)]


def test_files_hold_the_frame(study: Material, tmp_path: Path) -> None:
    paths = write_audits(study, tmp_path)
    assert [path.name for path in paths] == ["audits.csv", "audits.parquet"]
    assert study.audits is not None
    pd.testing.assert_frame_equal(pd.read_parquet(paths[1]), study.audits, check_dtype=False)
    read = pd.read_csv(paths[0], keep_default_na=True)
    np.testing.assert_array_equal(read["value"], study.audits["value"])
    assert write_audits(dataclasses.replace(study, audits=None), tmp_path) == []


def test_the_page_holds_together(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Reader(text)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = {link[1:] for link in page.values("href") if link.startswith("#")}
    assert targets | set(page.values("aria-labelledby")) <= set(ids)
    assert {link for link in page.values("href") if not link.startswith("#")} == {
        "data:,", "summary.csv", "records.csv", "times.csv", "audits.csv",
    }  # fmt: skip
    assert "://" not in text
    assert {"audits", "comparisons", "certificates", "training", "something", "reading"} <= set(ids)
    drawn = [found for tag, found in page.attributes if tag == "svg" and "aria-hidden" not in found]
    assert all(len(found["aria-label"]) > 40 for found in drawn)


def test_the_page_prints_the_audits_of_the_parquet_file(folder: Path) -> None:
    page = Reader((folder / "report.html").read_text(encoding="utf-8"))
    frame = pd.read_parquet(folder / "audits.parquet")
    values = frame[(frame["method"] == "fine-tune") & (frame["audit"] == "probe_rbf_circuit")]["value"]
    shown, value, _ = page.numbers["audits-1-forget-class-0-main", "fine-tune", "probe_rbf_circuit"]
    assert float(value) == pytest.approx(values.mean())
    assert shown == f"{100 * values.mean():.1f}"


def test_two_runs_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    one = made(methods=("fine-tune", "sisa"), requests=("class 0",))
    again = write(dataclasses.replace(one, audits=audits(one.records, SOME)), tmp_path).parent
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert [name for name in files if (folder / name).read_bytes() != (again / name).read_bytes()] == []
    stems = {path.stem for path in (folder / "figures").iterdir()}
    assert {"audits-class-0", "cost-vs-distance", "training-curves"} <= stems


def test_audits_have_the_last_word_on_whether_there_is_something_to_forget() -> None:
    study = made(methods=("scrub",), requests=("5 %",))
    view = views(study)[0]
    found = audited(study, [view])[0]
    assert tell(view).headline == "Nothing to unlearn here"
    told = tell(view, found)
    assert told.headline == "Nothing to unlearn in the outputs"
    values = {name: rows_of(study, "none", name)["value"].mean() for name in AUDITS}
    beyond = [name for name, v in values.items() if v == v and abs(v - AUDITS[name][1]) > AUDITS[name][2]]
    judged = [name for name, value in values.items() if value == value]
    assert f"of {len(judged)} main audits {len(beyond)} put it beyond" in told.text
    parts = something([view], [found])
    assert parts is not None
    assert parts.told[0][1]
    assert "A ranking of methods by outputs means nothing here." in parts.told[0][2]


def test_without_audits_there_is_no_section() -> None:
    from qunlearn.study.report.page import render

    plain: Any = made(methods=("fine-tune",), requests=("class 0",), audited=False)
    text = render(plain, views(plain), ())
    assert 'id="audits"' not in text
    assert "audits.csv" not in text


def test_intervals_of_steps_begin_at_zero(study: Material) -> None:
    assert study.audits is not None
    frame = study.audits.copy()
    chosen = (frame["method"] == "scrub") & (frame["audit"] == "relearn_steps")
    frame.loc[chosen, "value"] = [0.0, 1.0, 9.0]
    changed = dataclasses.replace(study, audits=frame)
    found = audited(changed, views(changed))[0].found("scrub", "relearn_steps")
    assert found is not None
    assert scipy.stats.ttest_1samp([0.0, 1.0, 9.0], 0.0).confidence_interval(0.95).low < 0
    assert found.low == 0.0
    assert found.high > 9.0
