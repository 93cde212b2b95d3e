"""The report's part on depth and entanglement, on trials whose effects are known."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from qunlearn.evaluation.measures import COMPARED
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.engines import state
from qunlearn.study.report import write
from qunlearn.study.report.landscape import beside, depth_effect, landscape, pattern_effect, pooled, shared
from qunlearn.study.report.landscape_figures import centred, landscape_figures
from qunlearn.study.report.material import Material
from qunlearn.study.report.one_thing import one_thing
from qunlearn.study.report.pictures import bloch_vectors, class_overlaps
from qunlearn.study.report.sweep import CIRCUIT, EQUAL, Sweep, sweep_of
from tests.study.report_frames import made

PATTERNS = ("none", "linear", "ring", "all")


def material(by_depth: float = 1.2, by_pattern: float = 1.5, twin: float = 0.5) -> Material:
    """Distances that grow by `by_depth` a doubling and by `by_pattern` with entanglement; no slope for the twin."""
    plain = [
        {"depth": d, "entanglement": p, "model.reupload": u, "model.hidden": 16}
        for d, p, u in itertools.product((1, 2, 4), PATTERNS, (False, True))
    ]
    equal = [{**one, "model.hidden": 30 - 4 * one["depth"]} for one in plain if one["depth"] < 4]  # type: ignore[operator]
    twins = [
        {"depth": d, "entanglement": "ring", "model.reupload": False, "model.hidden": 16,
         "circuit": "ring-cz (classical twin)"} for d in (1, 2, 4)
    ]  # fmt: skip
    base = made(("fine-tune", "scrub"), ("class 0",), (*plain, *equal, *twins), seeds=4, audited=False)
    rows, random = base.records, np.random.default_rng(0)
    circuit = ~rows["circuit"].eq("ring-cz (classical twin)") if "circuit" in rows else True
    entangled = circuit & rows["entanglement"].ne("none")
    level = np.where(circuit, by_depth ** np.log2(rows["depth"]), twin) * np.where(entangled, by_pattern, 1.0)
    fine = rows["method"].isin(["fine-tune", "scrub"])
    noise = np.exp(random.normal(0, 0.01, len(rows)))
    rows = rows.assign(
        oracle_distance=np.where(fine, 2.0 * level * noise, rows["oracle_distance"]),
        **{f"js_{part}": 0.2 * np.where(entangled, 3.0, 1.0) for part in COMPARED},
        **{f"js_{part}_floor": 0.1 * np.where(entangled, 2.0, 1.0) for part in COMPARED},
        original_accuracy_forget=1.0, retrained_accuracy_forget=0.5, retrained_accuracy_test=0.9, verdict="suppresses",
    )  # fmt: skip
    axes = (*base.axes, "model.reupload", "model.hidden")
    return dataclasses.replace(base, records=rows, axes=axes, histories=None)


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    found = sweep_of(material())
    assert found is not None
    return found


def test_arms_are_told_by_control_and_head(sweep: Sweep) -> None:
    assert sweep.arms == ["circuit", "classical twin", "equal weights"]
    assert set(sweep.arm(CIRCUIT)["model.hidden"]) == {16}
    equal = sweep.arm(EQUAL)
    assert set(equal.groupby("depth")["model.hidden"].unique().map(tuple).items()) == {
        (1, (26,)),
        (2, (22,)),
        (4, (16,)),
    }
    assert set(sweep.rows["block"]) == {"encoding once", "re-uploading"}


def test_effects_are_those_that_were_put_in(sweep: Sweep) -> None:
    main = sweep.arm(CIRCUIT)
    own = pooled(main, shared(main))
    assert math.exp(depth_effect(own).value) == pytest.approx(1.2, rel=0.01)
    assert math.exp(pattern_effect(own).value) == pytest.approx(1.5, rel=0.01)
    assert math.exp(pattern_effect(own, "ring").value) == pytest.approx(1.5, rel=0.02)


def test_the_circuit_stands_beside_its_twin_at_every_depth(sweep: Sweep) -> None:
    one, two = (pooled(sweep.arm(name), ["scrub"]) for name in (CIRCUIT, "classical twin"))
    # mean over depths 1.2^0, 1.2^1, 1.2^2, and over three entangled patterns of four, in logarithms
    assert math.exp(beside(one, two).value) == pytest.approx(1.2 * 1.5**0.75 / 0.5, rel=0.01)
    assert math.exp(beside(one, two, slope=True).value) == pytest.approx(1.2, rel=0.01)


def test_answers_say_which_way() -> None:
    for factor, words in ((1.2, "away from"), (1 / 1.2, "nearer to"), (1.0, "Not to be told")):
        page = material(by_depth=factor)
        found = landscape(sweep_of(page))
        assert found is not None
        answers = {question: told[0][1] for question, told in found.answers}
        assert words in answers["Does depth matter for unlearning?"]
        assert "oracle distance by 1.5" in answers["Does entanglement?"]
        assert "The yardstick holds" in answers["Does depth matter for unlearning?"]
        assert re.search(r"moves, too: .* multiplied by 2\.00 .* by 3\.00", answers["Does entanglement?"])


def test_circuits_that_differ_in_one_thing_stand_beside_each_other() -> None:
    cells = [{"circuit": card, "depth": d, "model.reupload": u}
             for card in ("sim-03", "sim-04", "sim-16") for d in (1, 2) for u in (False, True)]  # fmt: skip
    base = made(("fine-tune", "scrub"), ("class 0",), cells, seeds=4, audited=False)
    rows = base.records
    second, fine = rows["circuit"].eq("sim-04"), rows["method"].isin(["fine-tune", "scrub"])
    rows = rows.assign(
        oracle_distance=np.where(fine & second, 3.0, 2.0) * rows["depth"],
        **{f"js_{part}": np.where(second, 0.3, 0.1) for part in COMPARED},
        **{f"js_{part}_floor": np.where(second, 0.2, 0.1) for part in COMPARED},
        original_accuracy_forget=1.0, retrained_accuracy_forget=0.5, retrained_accuracy_test=0.9, entanglement=None,
    )  # fmt: skip
    axes = (*base.axes, *(name for name in ("circuit", "model.reupload") if name not in base.axes))
    sweep = sweep_of(dataclasses.replace(base, records=rows, axes=axes, histories=None))
    assert sweep is not None
    assert [stem for stem, *_ in landscape_figures(sweep)] == ["landscape-tradeoff-class-0"]  # no pattern, no map
    own = pooled(sweep.arm(CIRCUIT), ["scrub"])
    assert math.exp(depth_effect(own).value) == pytest.approx(2.0)
    table = one_thing(sweep)
    assert table is not None
    ((request, pair, what, methods, *found),) = table.rows
    assert (request, pair, what, methods) == ("class 0", "sim-04 beside sim-03", "CRX for CRZ", "2")
    assert found == ["1.50 (1.50 to 1.50)", "2.00 (2.00 to 2.00)", "3.00 (3.00 to 3.00)"]


def test_a_study_that_sweeps_neither_has_no_landscape() -> None:
    assert sweep_of(made()) is None


def test_colour_is_nothing_within_the_range_and_a_ratio_outside() -> None:
    values = np.array([0.5, 0.9, 1.0, 1.1, 2.2])
    found = centred(values, np.full(5, 0.9), np.full(5, 1.1))
    assert found[1:4].tolist() == [0.0, 0.0, 0.0]
    assert found[[0, 4]] == pytest.approx([math.log(0.5 / 0.9), math.log(2.0)])


def test_the_page_shows_it_and_the_files_are_there(tmp_path: Path) -> None:
    page = material()
    keys = ["depth", "entanglement", "request", "circuit", "model.reupload", "model.hidden"]
    cells = page.records.drop_duplicates(keys)[keys].reset_index(drop=True)
    figures = ("weights", "circuit_weights", "expressibility", "entangling_capability", "fisher_rank", "fisher_trace",
               "gradient_variance", "generalisation_gap", "membership_advantage", "memorised")  # fmt: skip
    cells = cells.assign(**dict.fromkeys(figures, 0.25))
    text = write(dataclasses.replace(page, cells=cells), tmp_path).read_text(encoding="utf-8")
    assert 'id="landscape"' in text
    assert "Does the circuit or the classical part do it?" in text
    stems = {path.stem for path in (tmp_path / "figures").glob("landscape-*.svg")}
    assert stems == {
        "landscape-distance-class-0-encoding-once", "landscape-distance-class-0-re-uploading",
        "landscape-verdicts-class-0-encoding-once", "landscape-verdicts-class-0-re-uploading",
        "landscape-tradeoff-class-0",
    }  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "cells.csv"), cells, check_dtype=False)


def test_bloch_vectors_of_known_states() -> None:
    root = 1 / math.sqrt(2)
    plus_zero = torch.tensor([root, 0, root, 0], dtype=torch.complex128).reshape(2, 2)
    bell = torch.tensor([root, 0, 0, root], dtype=torch.complex128).reshape(2, 2)
    turned = torch.tensor([root, 0, root * 1j, 0], dtype=torch.complex128).reshape(2, 2)
    found = bloch_vectors(torch.stack([plus_zero, bell, turned]))
    assert found[0] == pytest.approx(np.array([[1, 0, 0], [0, 0, 1]]), abs=1e-12)
    assert found[1] == pytest.approx(np.zeros((2, 3)), abs=1e-12)
    assert found[2] == pytest.approx(np.array([[0, 1, 0], [0, 0, 1]]), abs=1e-12)


def test_likeness_of_classes_is_that_of_their_density_matrices() -> None:
    circuit = load_circuit("ring-cz", qubits=3, depth=2)
    x = torch.rand(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    states = state(circuit, x, torch.linspace(0, 5, circuit.weights, dtype=torch.float64))
    labels = torch.arange(20) % 2
    found = class_overlaps(states, labels, 3)
    vectors = states.flatten(1).numpy()
    one, two = (np.mean([np.outer(v, v.conj()) for v in vectors[label::2]], axis=0) for label in (0, 1))
    expected = np.trace(one @ two).real / math.sqrt(np.trace(one @ one).real * np.trace(two @ two).real)
    assert found[0, 1] == pytest.approx(expected, rel=1e-12)
    assert found[0, 0] == pytest.approx(1.0)
    assert np.isnan(found[2]).all()
