"""The statistics of the comparison against known answers, and the published tables against themselves."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import norm

Array = npt.NDArray[np.float64]
SIZES = {"2 %": (117, 3, 30), "class 0": (80, 40, 30)}
METHODS = [f"method {number}" for number in range(11)]


@pytest.fixture
def world() -> Array:
    """Draws ``(41, requests, methods, sets)`` whose methods differ by more than their seeds do."""
    generator = np.random.default_rng(7)
    centre = generator.uniform(0.3, 0.9, size=(1, 2, 11, 3))
    noise = generator.normal(0, 0.03, size=(41, 2, 11, 3))
    return (centre + noise).clip(0, 1).round(3)


def cells(module: ModuleType, draws: Array, published: Array) -> list[Any]:
    return [
        module.Cell(request, method, figure, float(published[r, m, f]), draws[:, r, m, f])
        for r, request in enumerate(SIZES)
        for m, method in enumerate(METHODS)
        for f, figure in enumerate(module.ACCURACIES)
    ]


def test_a_table_of_our_own_distribution_passes(compare_published: ModuleType, world: Array) -> None:
    passed = [
        compare_published.judge(cells(compare_published, np.delete(world, one, 0), world[one]), SIZES)
        for one in range(10)
    ]
    assert sum(passed) >= 9  # each has a 5 % chance to fall below the 5th percentile


def test_a_table_with_shuffled_methods_fails(
    compare_published: ModuleType, world: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    shuffled = world[0][:, np.random.default_rng(0).permutation(11)]
    assert not compare_published.judge(cells(compare_published, world[1:], shuffled), SIZES)
    printed = capsys.readouterr().out
    assert printed.count("NOT MET") == 2


def test_methods_that_do_not_differ_have_no_order(compare_published: ModuleType) -> None:
    noise = np.random.default_rng(1).normal(0.7, 0.05, size=(41, 2, 11, 3)).round(3)
    score, shuffled = compare_published.order(cells(compare_published, noise[1:], noise[0]), SIZES)
    assert shuffled.shape == (2000,)
    assert abs((shuffled < score).mean() - 0.5) < 0.49
    assert abs(score - shuffled.mean()) < 4 * shuffled.std()


def test_coverage_by_hand(compare_published: ModuleType) -> None:
    draws = (
        np.arange(10) / 10
    )  # the interval of 10 draws is their range; the least and the greatest lie outside the rest
    line = [
        compare_published.Cell("2 %", "a", "accuracy_test", 0.9, draws),
        compare_published.Cell("2 %", "b", "accuracy_test", 0.901, draws),
        compare_published.Cell("2 %", "c", "accuracy_test", 0.5, np.full(10, 0.5)),
        compare_published.Cell("2 %", "d", "accuracy_test", 0.51, np.full(10, 0.5)),
    ]
    share, own = compare_published.coverage(line)
    assert share == 0.5
    assert own.tolist() == [0.5, *[1.0] * 8, 0.5]


def test_density_is_a_kernel_estimate_with_a_floor(compare_published: ModuleType) -> None:
    draws = np.array([0.2, 0.3, 0.3, 0.4, 0.5, 0.8])
    quartiles = np.quantile(draws, [0.25, 0.75])
    width = 0.9 * min(draws.std(ddof=1), (quartiles[1] - quartiles[0]) / 1.34) * 6**-0.2
    expected = np.log((norm.pdf(0.35, draws, width).sum() + 1) / 7)
    found = compare_published.log_density(draws, np.array([0.35, 30.0]), 100)
    assert found == pytest.approx([expected, np.log(1 / 7)], rel=1e-12)
    equal = compare_published.log_density(np.full(6, 0.5), np.array([0.5]), 10)  # half a sample's share is 0.05
    assert equal == pytest.approx(np.log((6 * norm.pdf(0, 0, 0.05) + 1) / 7), rel=1e-12)
    whole = quad(
        lambda v: np.exp(compare_published.log_density(draws, np.array([v]), 100))[0] - 1 / 7, -1, 2, limit=200
    )
    assert whole[0] == pytest.approx(6 / 7, abs=1e-6)


def test_a_line_of_the_table(compare_published: ModuleType) -> None:
    draws = np.array([0.1, 0.2, 0.2, 0.3, 0.4])
    row = compare_published.Cell("2 %", "GA", "kl_test", 0.2, draws).row()
    assert row["inside"] is True
    assert (row["low"], row["high"], row["n"]) == (0.1, 0.4, 5)
    assert (row["below"], row["equal"], row["mean"]) == pytest.approx((0.2, 0.4, 0.24))
    assert compare_published.Cell("2 %", "GA", "kl_test", 0.45, draws).row()["inside"] is False


@pytest.mark.parametrize("key", [("iris", "deep"), ("mnist", "shallow"), ("fashion-mnist", "shallow")])
def test_published_tables_agree_with_themselves(compare_published: ModuleType, key: tuple[str, str]) -> None:
    name, sizes = compare_published.TABLES[key]
    table = compare_published.read_published(compare_published.FOLDER / name)
    assert len(table) == 24
    for request, samples in sizes.items():
        part = table[table["request"] == request].set_index("method")
        assert len(part) == 12
        figures = part.drop(columns="request").apply(pd.to_numeric)
        for figure, size in zip(compare_published.ACCURACIES, samples, strict=True):
            counts = figures[figure] * size
            assert (counts - counts.round()).abs().max() <= 0.0005 * size + 1e-9
        accuracies = figures[list(compare_published.ACCURACIES)]
        drop = accuracies.loc["none"] - accuracies.drop(index="none")
        uqi = drop["accuracy_forget"] - 0.5 * (drop["accuracy_retain"] + drop["accuracy_test"])
        assert (uqi - figures["uqi"].drop("none")).abs().max() < 0.0017  # three roundings to 3 decimals
        assert (figures["epoch_kept"] <= figures["epochs_run"]).drop("none").all()


class FakeStudy:
    """Results whose every figure is the published one plus noise."""

    def __init__(self, published: pd.DataFrame, draws: int, shuffle: bool) -> None:
        generator = np.random.default_rng(3)
        names = [name for name in published.columns if name not in ("request", "method")]
        blocks = []
        for seed in range(draws):
            block = published.replace("", "nan").astype(dict.fromkeys(names, float))
            block[names] += generator.normal(0, 0.02, size=(len(block), len(names)))
            block[["kl_retain", "js_retain"]] = 0.25
            blocks.append(block.assign(split_seed=0, seed=seed, dataset="iris", head="deep"))
        self.rows = pd.concat(blocks)
        if shuffle:
            order = dict(zip(published["method"][1:12], np.roll(published["method"][1:12], 3), strict=True))
            self.rows["method"] = self.rows["method"].map(lambda name: order.get(name, name))

    def table(self) -> pd.DataFrame:
        return self.rows


@pytest.mark.parametrize(("draws", "shuffle", "code"), [(40, False, 0), (40, True, 1)])
def test_the_script_by_its_exit_code(
    compare_published: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draws: int, shuffle: bool, code: int
) -> None:
    published = compare_published.read_published(compare_published.FOLDER / "iris-deep.csv")
    study = FakeStudy(published, draws, shuffle)
    monkeypatch.setattr(compare_published.qu, "load_study", lambda folder: study)
    assert compare_published.main([str(tmp_path)]) == code
    written = pd.read_csv(tmp_path / "compare_published.csv")
    accuracies = written[written["figure"].isin(compare_published.ACCURACIES) & (written["method"] != "none")]
    assert len(accuracies) == 66
    assert set(written["n"]) == {draws}
    line = accuracies[(accuracies["method"] == "LCA") & (accuracies["request"] == "class 0")].set_index("figure")
    assert line.loc["accuracy_forget", "published"] == 0.65
    assert (written[written["figure"] == "kl_retain"]["published"].isna()).all()


def test_results_that_cannot_be_compared(
    compare_published: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_published.main([str(tmp_path)]) == 2
    assert "expected a results folder" in capsys.readouterr().err
    published = compare_published.read_published(compare_published.FOLDER / "iris-deep.csv")
    study = FakeStudy(published, 10, shuffle=False)
    study.rows = study.rows[~((study.rows["method"] == "GA") & (study.rows["seed"] == 4))]
    monkeypatch.setattr(compare_published.qu, "load_study", lambda folder: study)
    with pytest.raises(SystemExit) as caught:  # a draw that lacks a method is left out, and 9 are too few
        compare_published.main([str(tmp_path)])
    assert caught.value.code == 2
    assert "at least 10 complete draws" in capsys.readouterr().err
