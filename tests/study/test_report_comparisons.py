"""Ranks, pairs, equal compute, training curves, certificates and what there is to forget, against NumPy."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qunlearn.study.report.certificates import certificates
from qunlearn.study.report.comparisons import comparisons
from qunlearn.study.report.compute import cost_table, frontier, shares
from qunlearn.study.report.curves import still_falling, trainings, verdict
from qunlearn.study.report.gather import axes_of
from qunlearn.study.report.judging import judge, original_places
from qunlearn.study.report.lacking import left_out
from qunlearn.study.report.material import Material
from qunlearn.study.report.page import render
from qunlearn.study.report.paired import best_by_validation, differences, paired
from qunlearn.study.report.panels import true_labels
from qunlearn.study.report.ranks import rank_alt, rank_figure, ranks, task_table
from qunlearn.study.report.something import something
from qunlearn.study.report.story import tell
from qunlearn.study.report.style import drawing, marks
from qunlearn.study.report.verdicts import verdicts
from qunlearn.study.report.views import views
from qunlearn.study.report.wording import setting_name
from tests.study.report_frames import MANY, made

DEPTHS = tuple({"depth": depth} for depth in (1, 2, 3))


@pytest.fixture(scope="module")
def study() -> Material:
    return made(methods=("fine-tune", "scrub", "sisa", "certified-removal", "certified-newton"), splits=2)


@pytest.fixture(scope="module")
def swept() -> Material:
    return made(methods=("fine-tune", "scrub", "head-only"), settings=DEPTHS)


def test_tasks_are_requests_times_settings_and_hold_means_over_splits(study: Material, swept: Material) -> None:
    table = task_table(swept)
    assert table.shape == (6, 4)  # two requests, three depths; the original and three methods
    records = swept.records
    chosen = (records["request"] == "5 %") & (records["depth"] == 2) & (records["method"] == "scrub")
    assert table.loc[("5 %", 2), "scrub"] == pytest.approx(records.loc[chosen, "oracle_distance"].mean())
    assert "retrain" not in table.columns
    lacking = records.copy()
    lacking.loc[chosen, "oracle_distance"] = np.nan
    assert "scrub" not in task_table(dataclasses.replace(swept, records=lacking)).columns


def test_ranks_are_drawn_where_tasks_suffice(swept: Material, study: Material) -> None:
    found = ranks(swept)
    assert found is not None
    assert found.ranking is not None
    table = task_table(swept).to_numpy()
    expected = (table.argsort(axis=1).argsort(axis=1) + 1).mean(axis=0)  # no ties here
    assert list(found.ranking.ranks) == pytest.approx(list(expected))
    assert f"{found.ranking.critical_difference:.2f}" in found.told
    with drawing():
        figure = rank_figure(found.ranking)
        assert figure is not None
        texts = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "scrub" in texts
    assert "critical difference" in texts
    assert "original" in rank_alt(found.ranking)
    few = ranks(study)
    assert few is not None
    assert few.ranking is None
    assert "this study has 2 and 6" in few.told


def test_a_critical_difference_beyond_all_ranks_gives_no_diagram() -> None:
    found = ranks(made(methods=MANY[:12], settings=DEPTHS[:3], requests=("class 0", "5 %")))
    assert found is not None
    assert found.ranking is not None
    wide = dataclasses.replace(found.ranking, critical_difference=99.0)
    assert rank_figure(wide) is None


def test_without_the_oracle_distance_no_ranks(study: Material) -> None:
    assert ranks(dataclasses.replace(study, records=study.records.drop(columns="oracle_distance"))) is None


def test_pairs_are_taken_on_common_splits_and_seeds(study: Material) -> None:
    view = views(study)[0]
    cells = view.cells[
        ~((view.cells["method"] == "scrub") & (view.cells["seed"] == 1) & (view.cells["split_seed"] == 0))
    ]
    one, other = differences(cells, "scrub", "fine-tune", "js_forget")
    assert [len(values) for values in one] == [2, 3]

    def of(method: str, split: int, seed: int) -> float:
        own = study.records
        chosen = (own["request"] == view.request) & (own["method"] == method)
        return float(own.loc[chosen & (own["split_seed"] == split) & (own["seed"] == seed), "js_forget"].iloc[0])

    for split, seeds in ((0, (0, 2)), (1, (0, 1, 2))):
        assert list(one[split]) == pytest.approx([of("scrub", split, seed) for seed in seeds])
        assert list(other[split]) == pytest.approx([of("fine-tune", split, seed) for seed in seeds])


def test_the_table_of_pairs_holds_their_mean(study: Material) -> None:
    view = views(study)[0]
    found = paired(view, 1)
    assert found is not None
    assert "fine-tune is the simplest method" in found.told
    row = next(row for row in found.table.groups[0].rows if row.name == "scrub")
    records = study.records[study.records["request"] == view.request].set_index(["method", "split_seed", "seed"])
    expected = (records.loc["scrub"]["oracle_distance"] - records.loc["fine-tune"]["oracle_distance"]).mean()
    assert found.table.columns[0].key == "oracle_distance"
    assert row.cells[0].value == pytest.approx(expected)
    assert row.cells[0].place in ("nearer", "further", "even")
    assert "fine-tune" not in [row.name for row in found.table.groups[0].rows]


def test_the_reference_is_what_validation_ranks_first_but_no_control(swept: Material) -> None:
    view = views(swept)[0]
    place = {"request": view.request} | view.setting
    orders = (
        ["head-only", "scrub", "fine-tune"],
        ["head-only", "fine-tune", "scrub"],
        ["scrub", "head-only", "fine-tune"],
    )
    rankings = [{"row": place | {"split_seed": number}, "order": order} for number, order in enumerate(orders)]
    assert best_by_validation(view, rankings) == "scrub"
    assert best_by_validation(view, [{"row": {"request": "another"}, "order": ["scrub"]}]) is None
    found = paired(view, 1, rankings)
    assert found is not None
    assert found.told.startswith("scrub is the method that the validation set ranks first")


def test_few_pairs_are_called_few(swept: Material, study: Material) -> None:
    assert comparisons(swept, views(swept), None).few.startswith("With 3 pairs")
    assert comparisons(made(methods=("fine-tune", "scrub"), seeds=8), (), None).few == ""


def test_cost_is_given_as_a_share_of_retraining(study: Material) -> None:
    view = views(study)[0]
    records = study.records[study.records["request"] == view.request]
    spent = records.groupby("method")["gradient_evaluations"].mean()
    found = shares(view, "gradient_evaluations")
    assert found == pytest.approx({name: spent[name] / spent["retrain"] for name in view.methods})
    table = cost_table(view)
    assert table is not None
    row = next(row for row in table.groups[0].rows if row.name == "scrub")
    keys = [column.key for column in table.columns]
    assert row.cells[keys.index("share_gradient_evaluations")].text == f"{100 * found['scrub']:.1f}"


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=12))
def test_the_frontier_holds_what_none_is_both_cheaper_and_nearer_than(pairs: list[tuple[int, int]]) -> None:
    points = {str(number): (float(x), float(y)) for number, (x, y) in enumerate(pairs)}
    best = frontier(points)
    chosen = {points[name] for name in best}
    for point in points.values():
        dominated = any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points.values())
        assert (point in chosen) != dominated
    assert len(chosen) == len(best)


def test_marks_of_many_methods_stay_apart_and_families_share_a_colour() -> None:
    found = marks(MANY)
    assert len(set(found.values())) == len(MANY) == 36
    assert list(found) == list(MANY)
    assert found["ssd"].colour == found["jit"].colour == found["influence"].colour
    assert found["ssd"].colour != found["fine-tune"].colour


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.0, 1.0, 0.5, 0.4, 0.39, 0.39, 0.39, 0.39, 0.39, 0.39, 0.39], False),
        ([2.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], True),
        ([2.0, 1.0, 0.5, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1], False),
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.985], False),
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.975], True),
    ],
    ids=["flat", "falling", "rising", "by-less-than-2-percent", "by-more-than-2-percent"],
)
def test_training_that_was_stopped_too_early_is_seen(losses: list[float], expected: bool) -> None:
    assert still_falling(np.array(losses)) is expected


def test_the_training_table_counts_models(swept: Material) -> None:
    found = trainings(swept)
    assert [one.title for one in found[:2]] == ["depth 1, original models", "depth 1, retrained models"]
    assert [one.count for one in found] == [3, 4] * 3
    assert swept.histories is not None
    own = swept.histories[(swept.histories["depth"] == 1) & swept.histories["request"].isna()]
    near = 0
    for _, rows in own.groupby("seed"):
        losses = rows.sort_values("epoch")["validation_loss"].to_numpy()
        near += losses[-1] <= 1.02 * losses.min()
    assert found[0].near == near
    assert found[0].kept == 39.0  # of 40, 39 and 38
    short = dataclasses.replace(found[0], near=3, falling=0)
    assert verdict([short]).endswith("they were long enough.")
    assert "In 2 the loss still fell" in verdict([dataclasses.replace(short, falling=2)]).replace("But in", "In")


def test_a_control_is_named_once_as_the_circuit() -> None:
    names = {None: "ring-cz", "twin": "ring-cz (classical twin)", "frozen": "ring-cz (frozen)"}
    settings = [{"circuit": name, "model.control": control} for control, name in names.items()]
    material = made(methods=("fine-tune", "scrub"), requests=("class 0",), settings=settings)
    assert material.histories is not None
    kept = material.histories.rename(columns={"model.control": "control"})
    material = dataclasses.replace(material, axes=axes_of(material.records), histories=kept)
    assert [view.title for view in views(material)] == [f"Forget class 0, {name}" for name in names.values()]
    expected = [f"{name}, {kind} models" for name in names.values() for kind in ("original", "retrained")]
    assert [one.title for one in trainings(material)] == expected
    nowhere = pd.DataFrame([settings[1] | {"method": "scrub", "reason": "no angles"}])
    lacking = left_out(dataclasses.replace(material, left_out=nowhere))
    assert lacking is not None
    assert lacking.rows == (("scrub", f"circuit {names['twin']}", "no angles"),)
    page = render(material, views(material), ())
    assert "nan" not in page.replace('data-value="nan"', "")


@pytest.mark.parametrize("unset", [None, math.nan], ids=["none", "nan"])
def test_what_is_not_set_is_said_in_words(unset: float | None) -> None:
    assert setting_name({"shots": unset, "noise_device": unset}) == "exact values, no device"
    assert setting_name({"model.hidden": unset, "depth": 2}) == "no hidden, depth 2"
    assert setting_name({"depth": 0, "shots": 0}) == "depth 0, exact values"
    assert [setting_name({"corruption": of}) for of in ("", "label_flips 0.1")] == ["not corrupted", "label flips 0.1"]


def test_guarantees_and_estimates_share_no_table(study: Material) -> None:
    found = certificates(study)
    assert found is not None
    assert found.guarantees is not None
    assert found.estimates is not None
    guaranteed = {row[0]: row for row in found.guarantees.rows}
    assert set(guaranteed) == {"sisa", "certified-removal"}
    assert guaranteed["sisa"][2:5] == ("exact", "0", "0")
    assert guaranteed["certified-removal"][2:5] == ("certified", "0.7", "1e-05")
    assert {row[0] for row in found.estimates.rows} == {"certified-newton"}
    assert all("31.4" not in value for row in found.guarantees.rows for value in row)
    assert not set(found.guarantees.heads[2:5]) & set(found.estimates.heads[2:4])
    text = render(study, views(study), ())
    assert "Estimated: not a guarantee" in text
    assert 'data-measure="epsilon' not in text
    assert 'data-measure="delta' not in text


def test_an_epsilon_of_an_estimate_never_reaches_the_guarantees(study: Material) -> None:
    records = study.records.copy()
    records.loc[records["method"] == "certified-newton", "epsilon"] = 0.01  # what must not happen
    found = certificates(dataclasses.replace(study, records=records))
    assert found is not None
    assert found.guarantees is not None
    assert "certified-newton" not in {row[0] for row in found.guarantees.rows}
    plain = dataclasses.replace(study, records=study.records.assign(certificate=None))
    assert certificates(plain) is None


def test_verdicts_are_counted_by_method_and_request(study: Material) -> None:
    assert verdicts(study) is None
    assert 'id="verdicts"' not in render(study, views(study), ())
    records = study.records.assign(verdict="")
    assert verdicts(dataclasses.replace(study, records=records)) is None
    rows = records.index[(records["method"] == "scrub") & (records["request"] == "5 %")]
    records.loc[rows, "verdict"] = "suppresses"
    records.loc[rows[:2], "verdict"] = "erases"
    records.loc[records["method"] == "none", "verdict"] = "neither"
    judged = dataclasses.replace(study, records=records)
    found = verdicts(judged)
    assert found is not None
    assert found.heads == ("method", "forget", "erases", "suppresses", "undecided", "neither")
    table = {row[:2]: row[2:] for row in found.rows}
    assert table["scrub", "5 %"] == ("2", str(len(rows) - 2), "0", "0")
    untouched = records[(records["method"] == "none") & (records["request"] == "5 %")]
    assert {row[1] for row in found.rows} == set(study.requests)
    assert ("0", "0", "0", str(len(untouched))) in table.values()
    assert len(table) == 1 + len(study.requests)
    page = render(judged, views(judged), ())
    assert 'href="#verdicts"' in page
    assert "Models by verdict" in page


def test_epsilons_that_differ_are_given_as_a_range(study: Material) -> None:
    records = study.records.copy()
    chosen = records.index[(records["method"] == "certified-removal") & (records["request"] == "5 %")]
    records.loc[chosen[0], "epsilon"] = 1.25
    found = certificates(dataclasses.replace(study, records=records))
    assert found is not None
    assert found.guarantees is not None
    row = next(row for row in found.guarantees.rows if row[:2] == ("certified-removal", "5 %"))
    assert row[3] == "0.7 to 1.25"


def test_where_there_is_nothing_to_forget_the_page_says_so(swept: Material) -> None:
    records = swept.records.copy()
    records.loc[(records["request"] == "5 %") & (records["method"] == "none"), ["gap_forget", "js_test"]] = [0.0, 0.04]
    records.loc[(records["request"] == "5 %") & (records["method"] == "none"), ["js_forget", "membership_auc"]] = [
        0.06, 0.5,
    ]  # fmt: skip
    changed = dataclasses.replace(swept, records=records)
    found = something(views(changed))
    assert found is not None
    told = {title: (nothing, sentence) for title, nothing, sentence in found.told}
    assert told["Forget 5 %, depth 1"][0]
    assert "a ranking of methods means nothing" in told["Forget 5 %, depth 1"][1]
    assert not told["Forget class 0, depth 1"][0]
    assert told["Forget class 0, depth 1"][1].startswith("Something to forget: ")
    row = next(row for row in found.table.groups[0].rows if row.name == "Forget class 0, depth 1")
    chosen = (records["request"] == "class 0") & (records["method"] == "none") & (records["depth"] == 1)
    assert row.cells[0].value == pytest.approx(records.loc[chosen, "js_forget"].mean())
    assert row.cells[0].place == "beyond"


def test_a_membership_attack_alone_can_tell_the_original_apart(swept: Material) -> None:
    records = swept.records.copy()
    chosen = (records["request"] == "5 %") & (records["method"] == "none")
    records.loc[chosen, ["gap_forget", "js_test", "js_forget"]] = [0.0, 0.04, 0.06]
    records.loc[chosen, "membership_auc"] = 0.40 + 0.001 * np.arange(chosen.sum())  # below 0.5: a leak as well
    changed = dataclasses.replace(swept, records=records)
    view = next(view for view in views(changed) if view.request == "5 %")
    assert original_places(view)["membership_auc"] == "below"
    assert tell(view).headline == "Only membership tells"
    found = something([view])
    assert found is not None
    assert found.told[0][2].endswith("range in the membership attack.")


def test_accuracy_under_the_true_labels_has_a_panel_and_a_column() -> None:
    study = made(methods=("fine-tune", "scrub"), requests=("corrupted samples", "5 %"), seeds=2)
    spoilt, other = views(study)
    assert len(true_labels(spoilt, study.methods)) == 1
    assert true_labels(other, study.methods) == []
    text = render(study, views(study), ())
    assert text.count('data-measure="accuracy_forget_true"') == 4  # original, retrained models, two methods


def test_methods_left_out_are_listed_once_a_reason(swept: Material) -> None:
    rows = [
        {"method": "unsir", "request": "5 %", "depth": depth, "reason": "serves whole classes"} for depth in (1, 2, 3)
    ] + [
        {"method": "kernel-downdate", "request": name, "depth": 1, "reason": "no kernel"} for name in ("class 0", "5 %")
    ]
    found = left_out(dataclasses.replace(swept, left_out=pd.DataFrame(rows)))
    assert found is not None
    assert found.rows == (
        ("unsir", "request 5 %", "serves whole classes"), ("kernel-downdate", "depth 1", "no kernel"),
    )  # fmt: skip
    assert left_out(swept) is None


def test_few_views_have_a_finite_interval_of_pairs(study: Material) -> None:
    found = paired(views(study)[0], 1)
    assert found is not None
    values = [cell for row in found.table.groups[0].rows for cell in row.cells]
    assert all(math.isfinite(cell.value) for cell in values)
    assert all(cell.interval for cell in values)


def test_a_method_that_trains_its_own_way_is_judged_by_its_own_retrained_models(study: Material) -> None:
    records = study.records.copy()
    wide = {f"{name}_floor_high": 9.0 for name in ("js_forget", "js_test", "gap_forget")}
    records.loc[records["method"] == "sisa", list(wide)] = list(wide.values())
    view = views(dataclasses.replace(study, records=records))[0]
    before = {verdict.method: verdict.place for verdict in judge(views(study)[0])}
    after = {verdict.method: verdict.place for verdict in judge(view)}
    assert before["sisa"] != "within"
    assert after == before | {"sisa": "within"}
