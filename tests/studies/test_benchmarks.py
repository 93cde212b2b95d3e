"""The parts of the benchmarks that compute: fits, predictions, bars, tables, the comparison with ours, the peers."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path

import benchmark_engines
import benchmark_noise
import benchmark_studies
import numpy as np
import pytest

import qunlearn as qu
from benchmarks.bars import BASE, DEEP, Bar, best_peer_bar, import_bars, memory_bar, speed_bar, speed_bars
from benchmarks.crew import Crew, Limits, PeerError, core_count
from benchmarks.growth import axis, fit_base, fit_power, growths, predict, predict_compiling
from benchmarks.jobs import Inputs, Point, circuit_of, inputs_of
from benchmarks.measure import Effort, Measured, Meter, difference
from benchmarks.others import Others, _own, sentences
from benchmarks.peers import PEERS, angle_of
from benchmarks.tables import Sheet, bar_sheet, number


def test_fits_find_the_law_that_made_the_times() -> None:
    sizes = [4, 6, 8, 10]
    assert fit_base(sizes, [3 * 2.1**n for n in sizes]) == pytest.approx(2.1)
    assert fit_power(sizes, [0.5 * n**1.3 for n in sizes]) == pytest.approx(1.3)
    with pytest.raises(ValueError, match="expected at least 2 points to fit, got 1"):
        fit_power([2], [1.0])


def test_growth_takes_points_of_one_axis_and_the_largest_apart() -> None:
    times = {Point(8, 2, batch): 1.0 + batch for batch in (1, 64, 512, 4096)} | {DEEP: 5.0}
    assert axis(times, "batch", BASE) == ([1, 64, 512, 4096], [2.0, 65.0, 513.0, 4097.0])
    found = growths(times, BASE)
    assert found["qubits"] is None  # DEEP differs along two axes
    assert found["depth"] is None
    assert found["batch"] is not None
    whole, last = found["batch"]
    assert whole == pytest.approx(fit_power([1, 64, 512, 4096], [2, 65, 513, 4097]))
    assert whole < last < 1


def test_predictions_scale_from_the_nearest_point() -> None:
    times = {Point(8, 2, 64): 10.0, Point(8, 2, 512): 50.0}
    assert predict(times, Point(8, 2, 4096)) == pytest.approx(400)
    assert predict(times, Point(10, 2, 64)) == pytest.approx(40)
    assert predict(times, Point(8, 8, 32)) == pytest.approx(20)
    assert predict_compiling(times, Point(8, 2, 256)) == pytest.approx(50)
    assert predict_compiling(times, Point(8, 4, 64)) == pytest.approx(10 * 2**2.3)
    assert predict({}, BASE) == predict_compiling({}, BASE) == 0


@pytest.mark.parametrize(
    ("bar", "state"),
    [
        (Bar("a", 70.0, 70.0), "met"),
        (Bar("a", 69.9, 70.0), "not met"),
        (Bar("a", 1.2, 1.2, at_most=True), "met"),
        (Bar("a", 1.21, 1.2, at_most=True), "not met"),
        (Bar("a", None, 70.0), "not measured"),
        (Bar("a", math.nan, 70.0), "not measured"),
        (Bar("a", 3.0), "shown"),
    ],
)
def test_a_bar_is_met_from_its_bound_on(bar: Bar, state: str) -> None:
    assert bar.state == state


def test_speed_bars_compare_medians_of_the_same_point() -> None:
    times = {("fused", BASE): 0.5, ("pennylane", BASE): 40.0, ("fused", DEEP): 10.0, ("lightning", DEEP): 90.0}
    assert speed_bar("a", times, "fused", "pennylane", BASE, 70.0).value == pytest.approx(80)
    missing = speed_bar("a", times, "fused", "tensorcircuit", BASE, 5.0)
    assert (missing.value, missing.state) == (None, "not measured")
    assert "TensorCircuit-NG" in missing.detail
    times["deepquantum", DEEP] = 45.0
    best = best_peer_bar("a", times, DEEP, 3.0)
    assert best.value == pytest.approx(4.5)
    assert best.detail.startswith("DeepQuantum: 45 ms, ours 10 ms; without PennyLane, one by one")
    assert best.state == "not measured"  # TensorCircuit-NG may be quicker still
    best = best_peer_bar("a", times | {("tensorcircuit", DEEP): 31.0}, DEEP, 3.0)
    assert best.value == pytest.approx(3.1)
    assert best.state == "met"
    assert best_peer_bar("a", {("fused", DEEP): 1.0}, DEEP, 3.0).state == "not measured"


def test_the_bars_are_those_that_were_promised() -> None:
    bounds = [(bar.bound, bar.at_most) for bar in speed_bars({})]
    assert bounds == [(70, False), (5, False), (7, False), (7, False), (3, False), (12, False), (None, False)]
    assert memory_bar(10.0, 12.0).state == "met"
    assert memory_bar(10.0, 12.1).state == "not met"
    assert memory_bar(None, 1.0).state == "not measured"
    seconds = {"import torch": 2.0, "import qunlearn": 3.2, "import qunlearn, every name": 5.0}
    assert [bar.state for bar in import_bars(seconds)] == ["not met", "shown"]
    cost = benchmark_studies.Cost(driver=3.0, workers=20.0, wall=25.0)
    together = benchmark_studies.IrisCost(20, cost, start_up=1.0, report=2.0)
    bars = benchmark_studies.iris_bars(together, None)
    assert bars[0].value == pytest.approx(668)
    assert [(bar.bound, bar.state) for bar in bars] == [(500, "met"), (150, "not measured")]
    assert together.row()[:5] == ("20", "20.0", "1.00", "1.00", "0.950")
    assert benchmark_studies.mnist_bar(benchmark_studies.Cost(1, 1, 181.0), "").state == "not met"


def test_tables_mark_what_is_not_met(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = bar_sheet([Bar("a | b", 2.0, 3.0), Bar("c", 4.0, detail="d")])
    sheet.show()
    assert "not met" in capsys.readouterr().out
    assert sheet.markdown().splitlines()[-2:] == [
        "| a / b | 2.00 | at least 3 | not met |  |",
        "| c | 4.00 |  |  | d |",
    ]
    sheet.write_csv(tmp_path / "bars.csv")
    assert (tmp_path / "bars.csv").read_text().splitlines()[1] == "a | b,2.00,at least 3,not met,"
    assert [number(value) for value in (0.1234, 12.345, 1234.5, None, math.nan)] == ["0.123", "12.3", "1234", "-", "-"]
    Sheet("empty", ("a",), []).show()


def test_a_run_beside_other_programs_is_no_closing_figure() -> None:
    assert sentences(0.02) == []
    assert sentences(0.5) == ["Other programs used 50% of the processor meanwhile, so this is no closing figure."]
    others, end = Others(), time.process_time() + 0.5  # of this process, however busy the machine is
    while time.process_time() < end:
        pass
    assert 0 <= others.share() <= 1 + 1e-6
    assert _own() - others._own > 0.2  # our own work does not count


def test_a_difference_is_relative_to_the_largest_entry() -> None:
    ours = {"values": np.array([0.5, 1.0]), "weights": np.array([100.0, 0.0])}
    assert difference(ours, ours) == 0
    assert difference(ours, ours | {"weights": np.array([100.0, 1.0])}) == pytest.approx(0.01)
    assert difference(ours, ours | {"values": np.array([0.5, 1.1])}) == pytest.approx(0.1)
    assert difference(ours, ours | {"values": np.array([0.5])}) == math.inf
    assert difference(ours, ours | {"values": np.array([0.5, math.nan])}) == math.inf


def test_an_angle_is_evaluated_as_the_circuit_defines_it() -> None:
    circuit = qu.load_circuit("ring-cz", qubits=3, depth=1, encoding="zz")
    angle = next(gate.angle for gate in circuit.gates if gate.angle and len(gate.angle.factors) == 2)
    features = [0.3, 0.5, 0.7]
    expected = angle.scale * math.prod(f.sign * features[f.feature] + f.shift for f in angle.factors) + angle.offset
    assert angle_of(angle, features.__getitem__, lambda _: math.nan) == pytest.approx(expected)


def test_circuits_without_angles_for_features_are_refused() -> None:
    assert circuit_of("ring-cz", BASE).qubits == 8
    with pytest.raises(qu.QunlearnError, match="got 'no-such-card'"):
        circuit_of("no-such-card", BASE)


@pytest.mark.parametrize("card", ["ring-cz", "sim-13", "strongly-entangling"])
@pytest.mark.parametrize("key", ["pennylane", "lightning", "pennylane-one"])
def test_peers_give_our_values_and_gradients(card: str, key: str) -> None:
    circuit = circuit_of(card, Point(3, 2, 4))
    inputs = inputs_of(circuit, 4)
    names = ("values", "features", "weights")
    ours, theirs = (dict(zip(names, PEERS[peer].prepare(circuit, inputs)(), strict=True)) for peer in ("torch", key))
    assert difference(ours, theirs) < 1e-5


@pytest.mark.parametrize("key", ["tensorcircuit", "tensorcircuit-z", "deepquantum"])
def test_peers_of_the_extra_give_our_values_and_gradients(key: str) -> None:
    pytest.importorskip({"deepquantum": "deepquantum"}.get(key, "tensorcircuit"))
    circuit = circuit_of("sim-13", Point(3, 1, 4))
    inputs = inputs_of(circuit, 4)
    names = ("values", "features", "weights")
    ours, theirs = (dict(zip(names, PEERS[peer].prepare(circuit, inputs)(), strict=True)) for peer in ("torch", key))
    assert difference(ours, theirs) < 1e-5


@pytest.mark.slow
def test_a_crew_measures_refuses_and_names_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = Point(3, 1, 4)
    with (tmp_path / "log").open("w") as log:
        crew = Crew(["torch", "pennylane"], "ring-cz", 1, log)
        try:
            meter = Meter(crew, Effort(rounds=2, seconds=0.02, step=5, preparing=5), tmp_path)
            meter.measure(point)
            for key in ("torch", "pennylane"):
                assert len(meter.found[key, point].milliseconds) >= 2
            assert meter.memory_once("torch", point) >= 0
            meter.effort = Effort(rounds=2, seconds=0.02, step=0, preparing=0)
            meter.measure(Point(4, 1, 4))
            assert meter.found["torch", Point(4, 1, 4)].note.startswith("left out: a step would take")
            crew.hand("torch").send("memory", card="no-such-card", point=[3, 1, 4])
            with pytest.raises(PeerError, match="no-such-card"):
                crew.hand("torch").receive(Limits(30))
            crew.hand("torch").send("time", seconds=30)
            with pytest.raises(PeerError, match="stopped after 0 s"):
                crew.hand("torch").receive(Limits(0.3))
        finally:
            crew.close()


def test_a_peer_that_differs_is_not_timed(tmp_path: Path) -> None:
    class Hands:
        present = ("torch", "pennylane")

    meter = Meter(Hands(), Effort(1, 1, 1, 1), tmp_path)  # type: ignore[arg-type]
    same = np.ones(2)
    np.savez(tmp_path / "torch.npz", values=same, features=same, weights=same)
    np.savez(tmp_path / "pennylane.npz", values=same, features=same, weights=np.array([1.0, 1.01]))
    rows = {key: Measured(key, BASE) for key in ("torch", "pennylane")}
    assert meter._agreeing(rows) == ["torch"]
    assert rows["pennylane"].note == "REFUSED: its values or gradients differ from ours by 1.0e-02"
    assert math.isnan(rows["pennylane"].median)


def test_the_command_line_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark_engines.parse(["--threads", str(core_count() + 1)])
    assert f"expected 1 to {core_count()} threads" in capsys.readouterr().err
    assert benchmark_engines.parse([]).minutes == 3
    assert benchmark_engines.parse(["--all"]).minutes == math.inf
    assert benchmark_engines.main(["--card", "no-such-card"]) == 2


def test_every_point_of_the_short_version_is_in_the_plan_of_a_longer_one() -> None:
    assert {BASE, DEEP} <= set(benchmark_engines.QUICK_POINTS) & set(benchmark_engines.WHOLE_POINTS)
    assert {4, 18} <= {point.qubits for point in benchmark_engines.WHOLE_POINTS}
    assert {1, 64} <= {point.depth for point in benchmark_engines.WHOLE_POINTS}
    assert {1, 4096} <= {point.batch for point in benchmark_engines.WHOLE_POINTS}


def test_figures_are_written(tmp_path: Path) -> None:
    from benchmarks import figure

    times = {"fused": {Point(8, 2, batch): float(batch) for batch in (1, 64)}, "torch": {BASE: 3.0}}
    figure.draw({"Time of a step (ms)": times}, BASE, tmp_path / "engines")
    assert (tmp_path / "engines.png").stat().st_size > 1000
    assert "PennyLane" not in (tmp_path / "engines.svg").read_text()


@pytest.mark.slow
def test_noisy_circuits_are_timed_beside_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("qiskit_aer")
    assert benchmark_noise.main(["--rounds", "1", "--out", str(tmp_path)]) == 0
    with (tmp_path / "noise.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["qubits"] for row in rows} == {"4", "6"}
    assert {row["ratio"] for row in rows if row["simulator"] == "density (ours)"} == {"1.00"}
    assert all(float(row["ms"]) > 0 for row in rows)


@pytest.mark.slow
def test_a_simulator_that_disagrees_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("qiskit_aer")

    def wrong(circuit: qu.Circuit, inputs: Inputs) -> benchmark_noise.Step:
        step = benchmark_noise.WAYS[0].prepare(circuit, inputs)
        return lambda: (step()[0] + 1e-3, 1e-4)

    ways = (benchmark_noise.WAYS[0], benchmark_noise.Way("somebody's", "forward", 8, wrong))
    monkeypatch.setattr(benchmark_noise, "WAYS", ways)
    assert benchmark_noise.main(["--rounds", "1", "--out", str(tmp_path)]) == 1
    assert "REFUSED" in (tmp_path / "noise.md").read_text(encoding="utf-8")
