"""The report: its tables, its figures and its page, on records made here with the numbers of a real study's size."""

from __future__ import annotations

import dataclasses
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from qunlearn.errors import InputError
from qunlearn.study.report import write, write_report
from qunlearn.study.report.intervals import interval
from qunlearn.study.report.judging import place, side
from qunlearn.study.report.material import Material
from qunlearn.study.report.page import render
from qunlearn.study.report.panels import _root_ticks, _together
from qunlearn.study.report.placing import nearest, overlaps, place_labels
from qunlearn.study.report.story import tell
from qunlearn.study.report.style import marks
from qunlearn.study.report.tables import summarise
from qunlearn.study.report.views import Band, views

# accuracy on forget, retain, test; JS on forget, test; membership AUC; gradient evaluations, seconds
PROFILES: dict[str, dict[str, tuple[float, ...]]] = {
    "class 0": {
        "none": (0.973, 0.948, 0.931, 0.452, 0.046, 0.551, 0, 0.0),
        "retrain": (0.0, 0.951, 0.934, 0.062, 0.041, 0.502, 58000, 4.1),
        "fine-tune": (0.412, 0.953, 0.935, 0.214, 0.043, 0.528, 9700, 0.71),
        "gradient-ascent": (0.0, 0.612, 0.604, 0.371, 0.298, 0.431, 1080, 0.09),
        "neggrad-plus": (0.0, 0.941, 0.922, 0.118, 0.049, 0.487, 10780, 0.83),
        "random-label": (0.041, 0.937, 0.919, 0.097, 0.052, 0.462, 10780, 0.81),
        "scrub": (0.009, 0.946, 0.928, 0.081, 0.042, 0.495, 12100, 1.12),
        "eu-k": (0.0, 0.944, 0.927, 0.071, 0.044, 0.499, 21300, 1.43),
        "adaprob": (0.012, 0.939, 0.925, 0.058, 0.040, 0.480, 10780, 0.95),
    },
    "5 %": {
        "none": (0.958, 0.951, 0.934, 0.038, 0.036, 0.512, 0, 0.0),
        "retrain": (0.936, 0.953, 0.935, 0.037, 0.035, 0.504, 61000, 4.4),
        "fine-tune": (0.955, 0.957, 0.936, 0.036, 0.035, 0.511, 10200, 0.74),
        "gradient-ascent": (0.711, 0.842, 0.829, 0.139, 0.110, 0.421, 540, 0.05),
        "neggrad-plus": (0.931, 0.950, 0.931, 0.040, 0.038, 0.497, 10750, 0.84),
        "random-label": (0.874, 0.933, 0.915, 0.079, 0.049, 0.441, 10750, 0.82),
        "scrub": (0.949, 0.952, 0.934, 0.037, 0.036, 0.506, 12000, 1.1),
        "eu-k": (0.934, 0.948, 0.931, 0.039, 0.038, 0.502, 21900, 1.5),
        "adaprob": (0.866, 0.937, 0.922, 0.071, 0.047, 0.429, 10750, 0.93),
    },
}  # fmt: skip


def row(
    request: str, method: str, split: int, seed: int, generator: np.random.Generator, **axes: object
) -> dict[str, Any]:
    """One record with the documented columns."""
    forget, retain, test, js_forget, js_test, auc, gradients, _ = PROFILES[request][method]
    own = PROFILES[request]["retrain"]
    shares = np.clip(np.array([forget, retain, test, retain - 0.01]) + generator.normal(0, 0.006, 4), 0, 1)
    identity: dict[str, Any] = {
        "study": "digits", "trial": f"{request}-{method}-{split}-{seed}-{'-'.join(map(str, axes.values()))}",
        "protocol": "sound", "dataset": "digits", "split_seed": split, "circuit": "ring-cz", "qubits": 6, "depth": 2,
        "entanglement": "ring", "encoder": "pca", "head": "shallow", "request": request, "method": method, "seed": seed,
    }  # fmt: skip
    names = ("forget", "retain", "test", "validation")
    measures: dict[str, Any] = dict(zip((f"accuracy_{name}" for name in names), shares, strict=True))
    measures |= {f"retrained_accuracy_{name}": value for name, value in zip(names[:3], own[:3], strict=True)}
    for name, value, floor in (("forget", js_forget, own[3]), ("test", js_test, own[4])):
        measures[f"js_{name}"] = abs(value + generator.normal(0, 0.15 * value))
        measures[f"js_{name}_floor"] = floor
        measures[f"kl_{name}"], measures[f"kl_{name}_floor"] = 4.1 * measures[f"js_{name}"], 4.1 * floor
    for number, name in enumerate(names[:3]):
        measures[f"gap_{name}"], measures[f"gap_{name}_floor"] = abs(shares[number] - own[number]), 0.007
    measures["tow"] = float(np.prod([1 - measures[f"gap_{name}"] for name in names[:3]]))
    measures |= {"tow_floor": 0.98, "membership_auc": auc + generator.normal(0, 0.01), "membership_auc_floor": own[5]}
    counts = {"gradient_evaluations": int(gradients), "circuit_evaluations": int(2.4 * gradients), "verdict": "ok"}
    return identity | axes | measures | counts


def material(
    splits: int = 1,
    depths: tuple[int, ...] = (2,),
    patterns: tuple[str, ...] = ("ring",),
    requests: tuple[str, ...] = ("class 0", "5 %"),
    most: int = 9,
) -> Material:
    """For each request the original, five retrained models, and the first methods of the profile; three seeds."""
    generator = np.random.default_rng(0)
    rows = [
        row(request, method, split, seed, generator, depth=depth, entanglement=pattern)
        for depth in depths
        for pattern in patterns
        for split in range(splits)
        for request in requests
        for method in list(PROFILES[request])[:most]
        for seed in (range(1000, 1005) if method == "retrain" else range(3))
    ]
    records = pd.DataFrame(rows)
    seconds = [PROFILES[one["request"]][one["method"]][-1] * generator.uniform(0.9, 1.1) for one in rows]
    return Material(
        name="digits",
        records=records,
        times=pd.DataFrame({"trial": records["trial"], "seconds": seconds}),
        file='name = "digits"\n[grid]\nseed = [0, 1, 2]\n',
        failed=({"trial": "0f3a", "title": "scrub, seed 7", "error": "NumericalError: the loss is <nan>"},),
        baselines=({"split_seed": 0, "model": "logistic regression", "accuracy_test": 0.957},),
        versions={"qunlearn": "0.1.0", "torch": "2.13.0"},
    )


@pytest.fixture(scope="module")
def plain() -> Material:
    return material()


@pytest.fixture(scope="module")
def folder(plain: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the plain study."""
    return write(plain, tmp_path_factory.mktemp("report")).parent


class Reader(HTMLParser):
    """Collects what the tests ask of the page, with the parser of the standard library."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: dict[tuple[str, str, str], tuple[str, str, str]] = {}
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.label = self.table = self.model = ""
        self.cell: tuple[str, str] | None = None
        self.path: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.attributes.append((tag, found))
        self.path.append(tag)
        if tag == "caption":
            self.table = found["id"]
        if tag == "th" and found.get("scope") == "row":
            self.model = ""
        if tag == "td" and "data-measure" in found:
            self.cell = (found["data-measure"], found["data-value"])
            self.numbers[self.table, self.model, found["data-measure"]] = ("", found["data-value"], "")

    def handle_endtag(self, tag: str) -> None:
        while self.path and self.path.pop() != tag:
            pass
        if tag == "td":
            self.cell = None

    def handle_data(self, data: str) -> None:
        if self.path and self.path[-1] == "th":
            self.model = data.strip()
        elif self.cell is not None:
            shown, value, limits = self.numbers[self.table, self.model, self.cell[0]]
            small = self.path[-1] == "small"
            self.numbers[self.table, self.model, self.cell[0]] = (
                (shown, value, data) if small else (data.strip(), value, limits)
            )

    def values(self, *names: str) -> list[str]:
        """Every value of attributes with these names."""
        return [value for _, found in self.attributes for name, value in found.items() if name in names]


@pytest.fixture(scope="module")
def page(folder: Path) -> Reader:
    return Reader((folder / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("request_", "method", "measure", "factor", "digits"),
    [
        ("class 0", "scrub", "accuracy_forget", 100, 1),
        ("class 0", "adaprob", "accuracy_retain", 100, 1),
        ("class 0", "none", "accuracy_test", 100, 1),
        ("class 0", "retrain", "js_forget", 1, 3),
        ("class 0", "gradient-ascent", "js_test", 1, 3),
        ("5 %", "fine-tune", "membership_auc", 1, 3),
        ("5 %", "random-label", "tow", 1, 3),
        ("5 %", "eu-k", "accuracy_forget", 100, 1),
        ("5 %", "retrain", "accuracy_retain", 100, 1),
        ("5 %", "none", "js_forget", 1, 3),
        ("5 %", "neggrad-plus", "gradient_evaluations", 1, 0),
    ],
)
def test_the_page_prints_the_numbers_of_the_parquet_file(
    folder: Path, page: Reader, request_: str, method: str, measure: str, factor: int, digits: int
) -> None:
    table = pd.read_parquet(folder / "summary.parquet")
    row_ = table[(table["request"] == request_) & (table["method"] == method)].iloc[0]
    name = {"none": "original", "retrain": "retrained models"}.get(method, method)
    anchor = {"class 0": "class-0-main", "5 %": "5-percent-main"}[request_]
    shown, value, limits = page.numbers[anchor, name, measure]
    assert float(value) == row_[measure]
    assert shown.replace("\u202f", "") == f"{factor * row_[measure]:.{digits}f}"
    ends = [f"{factor * row_[f'{measure}_ci_{end}']:.{digits}f}" for end in ("low", "high")]
    assert limits == ("" if measure == "gradient_evaluations" else " \u2013 ".join(ends))


def test_times_stand_apart_and_on_the_page(folder: Path, page: Reader, plain: Material) -> None:
    assert "seconds" not in pd.read_parquet(folder / "summary.parquet")
    own = plain.records[(plain.records["request"] == "class 0") & (plain.records["method"] == "scrub")]
    expected = plain.times.set_index("trial").loc[own["trial"], "seconds"].mean()
    assert float(page.numbers["class-0-main", "scrub", "seconds"][1]) == pytest.approx(expected)


def test_csv_and_parquet_hold_the_same(folder: Path, plain: Material) -> None:
    for name in ("records", "summary", "times"):
        pd.testing.assert_frame_equal(
            pd.read_csv(folder / f"{name}.csv"), pd.read_parquet(folder / f"{name}.parquet"), rtol=1e-15
        )
    assert list(pd.read_parquet(folder / "records.parquet")["trial"]) == list(plain.records["trial"])


def test_nothing_is_loaded_from_elsewhere(folder: Path, page: Reader) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 5_000_000
    assert "://" not in text
    assert set(page.values("src", "srcset", "data", "poster", "action")) == set()
    links = set(page.values("href", "xlink:href"))
    assert {link for link in links if not link.startswith("#")} == {"data:,", "summary.csv", "records.csv", "times.csv"}
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text


def test_ids_are_unique_and_every_link_on_the_page_has_its_target(page: Reader) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = {link[1:] for link in page.values("href") if link.startswith("#")}
    targets |= set(page.values("aria-labelledby"))
    assert targets <= set(ids)


def test_every_figure_has_a_text_and_every_caption_the_seeds(folder: Path, page: Reader) -> None:
    drawings = [found for tag, found in page.attributes if tag == "svg"]
    assert len(drawings) >= 8
    assert all(len(found["aria-label"]) > 40 and found["role"] == "img" for found in drawings)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", (folder / "report.html").read_text(encoding="utf-8"))
    assert len(captions) == 3
    assert all("3 seeds, 5 retrained models; 95 % Student t interval" in caption for caption in captions)


def test_headers_sort_and_can_be_reached(page: Reader) -> None:
    tables = [found for tag, found in page.attributes if tag == "table"]
    buttons = [found for tag, found in page.attributes if tag == "button"]
    assert {"class": "sortable"} in tables
    assert all(found["type"] == "button" for found in buttons)
    assert all(found.get("tabindex") == "0" for _, found in page.attributes if found.get("class") == "scroll")


def test_user_text_is_escaped(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "the loss is &lt;nan&gt;" in text
    assert "<nan>" not in text


def test_figures_have_axis_labels_with_units_and_no_date(folder: Path) -> None:
    figures = folder / "figures"
    names = ("forgetting-vs-retained", "distance-to-retraining", "cost-vs-distance")
    assert sorted(path.name for path in figures.iterdir()) == sorted(
        f"{n}.{end}" for n in names for end in ("png", "svg")
    )
    labels = ("Accuracy on the forget set (%)", "divergence (nats)", "Gradient evaluations (samples)")
    for name, words in zip(names, labels, strict=True):
        text = (figures / f"{name}.svg").read_text(encoding="utf-8")
        assert words in text
        assert "dc:date" not in text


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    earlier = tmp_path / "two" / "figures" / "training-curves-9.svg"  # of a report that had more figures
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    folder, again = (write(material(requests=("5 %",), most=4), tmp_path / name).parent for name in ("one", "two"))
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert [name for name in files if (folder / name).read_bytes() != (again / name).read_bytes()] == []


def test_one_split_gives_the_interval_of_scipy() -> None:
    values = np.array([0.91, 0.94, 0.97, np.nan])
    mean, low, high, _ = interval(values, [0, 0, 0, 0])
    expected = scipy.stats.ttest_1samp(values[:3], 0.0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((0.94, expected.low, expected.high))


def test_several_splits_weigh_alike_and_widen_the_interval() -> None:
    values, splits = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9]), [0, 0, 0, 0, 1, 1]
    mean, low, high, _ = interval(values, splits)
    assert mean == pytest.approx(0.5)
    # Two splits, each drawn twice: a quarter of the resamples holds the one alone, a quarter the other.
    assert (low, high) == pytest.approx((0.1, 0.9))
    assert interval(values, splits) == interval(values, splits)


def test_summary_averages_what_differs_in_split_and_seed_alone() -> None:
    records = material(splits=2).records
    table = summarise(records, ["request", "method"], ["js_test", "accuracy_forget"])
    assert list(table["method"][:3]) == ["none", "retrain", "fine-tune"]
    one = table[(table["request"] == "5 %") & (table["method"] == "scrub")].iloc[0]
    own = records[(records["request"] == "5 %") & (records["method"] == "scrub")]
    assert one["js_test"] == pytest.approx(own["js_test"].mean())
    assert (one["splits"], one["seeds"], one["trials"]) == (2, 3, 6)
    assert one["js_test_ci_low"] < one["js_test"] < one["js_test_ci_high"]


def test_limits_stay_in_the_range_of_the_measure() -> None:
    records = material().records
    table = summarise(records, ["request", "method"], ["accuracy_forget", "js_test", "gradient_evaluations"])
    zero = table[(table["request"] == "class 0") & (table["method"] == "gradient-ascent")].iloc[0]
    assert zero["accuracy_forget_ci_low"] == 0.0
    assert table["accuracy_forget_ci_high"].max() <= 1.0


def test_verdicts_follow_the_retrained_models_range() -> None:
    band = Band(0.01, 0.02, 0.03)
    assert place(np.array([0.02, 0.03, 0.025]), [0, 0, 0], band) == "within"
    assert place(np.array([0.031, 0.05, 0.06]), [0, 0, 0], band) == "unsettled"
    assert place(np.array([0.10, 0.11, 0.12]), [0, 0, 0], band) == "beyond"
    assert place(np.array([0.5]), [0], band) == "unsettled"  # one trial has no interval


def test_rounding_takes_nobody_out_of_a_range_of_one_value() -> None:
    band = Band(0.2, 0.2, 0.2)  # of retrained models that are all equal
    after = np.array([0.1 + 0.1 + 2.0**-40] * 3)
    assert after[0] > band.most
    assert place(after, [0, 0, 0], band) == "within"
    assert place(after + 1e-6, [0, 0, 0], band) == "beyond"
    for off, expected in ((2.0**-40, "within"), (-(2.0**-40), "within"), (1e-6, "above"), (-1e-6, "below")):
        assert side(0.2 + off, 0.2 + off, 0.2 + off, band) == expected


def test_the_story_says_when_there_is_nothing_to_unlearn(plain: Material) -> None:
    told = {view.request: tell(view) for view in views(plain)}
    assert told["class 0"].headline == "There is something to unlearn"
    assert "forget-set accuracy 97.3 % against" in told["class 0"].text
    assert "gradient-ascent" in dict(told["class 0"].groups)["Beyond the range"].split(", ")
    same = plain.records.copy()
    originals, twins = (same["method"] == "none") & (same["request"] == "5 %"), same["method"] == "retrain"
    for measure in ("gap_forget", "js_forget", "js_test"):
        same.loc[originals, measure] = same.loc[twins & (same["request"] == "5 %"), measure].min()
    told = {view.request: tell(view) for view in views(dataclasses.replace(plain, records=same))}
    assert told["5 %"].headline == "Nothing to unlearn here"


def test_failed_training_is_no_yardstick(plain: Material) -> None:
    broken = plain.records.copy()
    first = broken.index[(broken["method"] == "retrain") & (broken["request"] == "5 %")][0]
    broken.loc[first, "accuracy_retain"] = 0.1
    told = {view.request: tell(view) for view in views(dataclasses.replace(plain, records=broken))}
    assert told["5 %"].headline == "Some models did not train"
    assert told["5 %"].text.startswith("1 of 5 retrained models stayed below")
    assert told["5 %"].groups == ()
    assert told["class 0"].headline == "There is something to unlearn"


def test_labels_cover_neither_points_nor_each_other() -> None:
    generator = np.random.default_rng(1)
    points = np.vstack([generator.normal(120, 14, (9, 2)), [[30.0, 30.0]]])
    sizes = np.column_stack([generator.uniform(25, 70, 10), np.full(10, 8.0)])
    frame = np.array([0.0, 0.0, 240.0, 220.0])
    boxes = place_labels(points, sizes, frame, np.empty((0, 4)), marker=3.0)
    among = overlaps(boxes, boxes)
    np.fill_diagonal(among, 0.0)
    assert among.max() == 0.0
    assert overlaps(boxes, np.hstack([points - 3.0, points + 3.0])).max() == 0.0
    assert (boxes[:, :2] >= frame[:2]).all()
    assert (boxes[:, 2:] <= frame[2:]).all()
    assert np.hypot(*(nearest(boxes[-1:], points[-1])[0] - points[-1])) < 11.0  # alone: right beside its point


def test_points_on_each_other_share_a_label() -> None:
    spots = np.array([[10.0, 10.0], [50.0, 10.0], [11.0, 10.5], [50.0, 12.9], [10.0, 14.0]])
    assert _together(spots) == [[0, 2], [1, 3], [4]]


@pytest.mark.parametrize("most", [0.004, 0.05, 0.31, 0.693, 12.0])
def test_ticks_of_a_root_scale_stand_apart(most: float) -> None:
    ticks = np.array(_root_ticks(most))
    assert ticks[0] == 0.0
    assert 0.3 * most < ticks[-1] <= most
    assert len(ticks) >= 4
    assert np.diff(np.sqrt(ticks / most)).min() > 0.1


def test_columns_without_a_number_are_left_out(plain: Material, tmp_path: Path) -> None:
    records = plain.records[plain.records["request"] == "5 %"].assign(accuracy_test_forgotten=np.nan)
    one = dataclasses.replace(plain, records=records)
    text = render(one, views(one), ())
    assert "accuracy_test_forgotten" not in text
    assert 'data-measure="accuracy_validation"' in text


def test_neighbouring_marks_differ_in_colour_and_shape() -> None:
    found = list(marks([f"m{number}" for number in range(15)]).values())
    assert len(set(found)) == 15
    assert all(one.colour != other.colour and one.marker != other.marker for one, other in itertools.pairwise(found))


def test_a_sweep_gives_heat_maps_and_a_table_of_all_settings(tmp_path: Path) -> None:
    swept = material(splits=2, depths=(1, 2, 4), patterns=("none", "ring"), requests=("class 0",), most=4)
    folder = write(swept, tmp_path).parent
    stems = {path.stem for path in (folder / "figures").glob("heatmap-*.svg")}
    assert stems == {"heatmap-gap-forget-class-0", "heatmap-js-test-class-0"}
    svg = (folder / "figures" / "heatmap-gap-forget-class-0.svg").read_text(encoding="utf-8")
    assert "Depth (layers)" in svg
    assert "Entanglement pattern" in svg
    assert "percentage points" in svg
    page = Reader((folder / "report.html").read_text(encoding="utf-8"))
    means = swept.records.query("request == 'class 0' and method == 'fine-tune'")["accuracy_forget"].mean()
    assert float(page.numbers["class-0-main", "fine-tune", "accuracy_forget"][1]) == pytest.approx(means)
    assert ("class-0-settings", "fine-tune", "accuracy_forget") in page.numbers
    assert "3 seeds on each of 2 splits" in (folder / "report.html").read_text(encoding="utf-8")


def test_few_settings_get_a_panel_and_a_group_each() -> None:
    found = views(material(depths=(1, 2)))
    assert [view.title for view in found] == [
        "Forget class 0, depth 1", "Forget class 0, depth 2", "Forget 5 %, depth 1", "Forget 5 %, depth 2",
    ]  # fmt: skip
    assert {len(view.records) for view in found} == {29}


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="results folder"):
        write_report(tmp_path)
