"""Plans: what is written, how rows are mixed, how jobs keep within limits, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("qiskit_ibm_runtime")
pytest.importorskip("qiskit_aer")

import qunlearn as qu
from qunlearn import hardware
from qunlearn.errors import InputError, UnknownNameError
from qunlearn.hardware.bundle import circuit_layer, shares
from qunlearn.hardware.calibration import rebuilt, snapshot
from qunlearn.hardware.cost import Limits, Piece, cost_of, piece_of, split
from qunlearn.hardware.folder import Folder
from qunlearn.hardware.rows import sample_order
from qunlearn.quantum.backends.device import find_device
from qunlearn.quantum.backends.mitigation import Mitigation
from qunlearn.quantum.backends.opened import open_circuit
from tests.hardware.small import broken_cell, bundle, line, model, samples


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def make(root: Path, given: hardware.Bundle | None = None, **options: Any) -> hardware.Plan:
    return hardware.plan(given or bundle(), root, **{"backend": line(), "shots": 100, **options})


def test_a_plan_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    mitigation = Mitigation(readout=True, zne=(1, 3))
    first, *others = (make(tmp_path / place / "p", mitigation=mitigation).folder for place in "abcdefgh")
    assert all(contents(first) == contents(other) for other in others)
    assert {"plan.json", "circuits.qpy", "samples.safetensors", "calibration.json"} < set(contents(first))


def test_rows_mix_sets_and_models(tmp_path: Path) -> None:
    given = bundle(models=3, test=6, forget=2)
    folder = Folder(make(tmp_path / "p", given).folder)
    order = folder.content["order"]
    assert [number for number, _ in order] == [0, 0, 1, 0, 0, 0, 1, 0]
    rows = folder.rows(0, 0)
    for row, (sample, name) in enumerate((place, name) for place in order for name in given.models):
        made, data = given.models[name], given.sets[["test", "forget"][sample[0]]]
        layer = circuit_layer(made)
        with torch.no_grad():
            features = torch.as_tensor(made.get_submodule("encoder")(data.x.float()))
            wanted = open_circuit(layer.circuit).angles(features, layer.weights)[sample[1]]
        assert np.array_equal(rows[row], wanted.numpy())


def test_sets_lie_evenly_in_the_order() -> None:
    order = sample_order({"forget": 10, "retain": 40})
    places = [place for place, (number, _) in enumerate(order) if number == 0]
    assert max(np.diff([-1, *places, len(order)])) <= 6
    assert sorted(order) == [(0, k) for k in range(10)] + [(1, k) for k in range(40)]


def test_samples_are_drawn_evenly() -> None:
    given = bundle(forget=3, retain=30, test=20).sampled(30, seed=1)
    assert {name: len(data) for name, data in given.sets.items()} == {"forget": 3, "retain": 14, "test": 13}
    again = bundle(forget=3, retain=30, test=20).sampled(30, seed=1)
    assert all(torch.equal(given.sets[name].ids, again.sets[name].ids) for name in given.sets)
    assert shares({"a": 2, "b": 1}, 100) == {"a": 2, "b": 1}
    with pytest.raises(InputError, match="at least one sample a set"):
        shares({"a": 5, "b": 5}, 1)


def test_models_of_one_structure_share_a_circuit(tmp_path: Path) -> None:
    models = {"a": model(0), "deep": model(1, depth=2), "b": model(2)}
    made = make(tmp_path / "p", hardware.Bundle(models, {"test": samples(4)}))
    folder = Folder(made.folder)
    assert [one["structure"] for one in folder.content["models"]] == [0, 1, 0]
    assert len(folder.prepared) == 2
    assert made.jobs == 1
    assert made.executions == 3 * 4 * 100


def test_limits_split_jobs(tmp_path: Path) -> None:
    made = make(tmp_path / "p", bundle(models=5, test=400, forget=100), shots=4000, limit_seconds=10_000)
    jobs = made.content["jobs"]
    assert [(job["start"], job["stop"]) for job in jobs] == [(0, 250), (250, 500)]
    assert sum(job["circuits"] for job in jobs) == 2500
    assert all(job["payload"] <= 16e6 for job in jobs)
    assert all(job["executions"] <= 5_000_000 for job in jobs)
    assert all(job["instructions"] <= 20_000_000 for job in jobs)
    assert all(job["pubs"] <= 50 for job in jobs)


@pytest.mark.parametrize("field", ["payload", "executions", "instructions", "pubs", "outcomes", "seconds"])
def test_every_limit_holds(field: str) -> None:
    pieces = [[Piece((60, 70), 40, 12, 3e-4), Piece((50, 50), 2, None, 2e-4)], [Piece((9, 90), 50, 20, 4e-4)]]
    models, shots, count = [3, 2], 100, 40
    whole = cost_of(count, [0, 1], models, pieces, shots)
    used = max(whole.instructions) if field == "instructions" else getattr(whole, field)
    limit = {"pubs": 2}.get(field, used * 0.3 + (2 if field == "seconds" else 0))
    changed: dict[str, Any] = {field: limit if field == "seconds" else int(limit)}
    limits = replace(Limits(), **changed)
    slices = split(count, models, pieces, shots, limits)
    assert len(slices) > 1
    for one in slices:
        cost = cost_of(one.stop - one.start, one.structures, models, pieces, shots)
        assert max(cost.shares(limits).values()) <= 1
    for structure in (0, 1):
        ranges = [(one.start, one.stop) for one in slices if structure in one.structures]
        assert [place for start, stop in ranges for place in range(start, stop)] == list(range(count))


def test_a_sample_beyond_a_limit_is_refused() -> None:
    with pytest.raises(InputError, match=r"5\.0 times the limit of 200 executions"):
        split(3, [1], [[Piece((1,), 1, 1, 0.0)]], 1000, Limits(executions=200))


def test_the_formula_of_seconds(tmp_path: Path) -> None:
    made = make(tmp_path / "p")
    folder, device = Folder(made.folder), line()
    (isa,) = folder.prepared[0].isa
    scheduled = piece_of(isa, True, device).seconds - device.default_rep_delay
    assert made.seconds == pytest.approx(2 + 12 * 100 * (device.default_rep_delay + scheduled))
    assert made.executions == 12 * 100
    # Independent: Qiskit's own scheduling of the same circuit.
    from qiskit.transpiler import generate_preset_pass_manager

    timed = generate_preset_pass_manager(0, target=device.target, scheduling_method="alap").run(isa)
    assert scheduled == pytest.approx(timed.estimate_duration(device.target), rel=0.01)


def test_instructions_by_the_published_table() -> None:
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(5, 1)
    circuit.rz(0.1, 0)
    circuit.sx(0)
    circuit.cx(0, 1)
    circuit.measure(1, 0)
    assert piece_of(circuit, False, line()).instructions == (50 + 1 + 2 + 5, 50 + 5 + 10, 0, 0, 0)


def test_the_printed_plan(tmp_path: Path) -> None:
    made = make(tmp_path / "p", mitigation=Mitigation(readout=True, zne=(1, 3)), shots=1000)
    text = str(made)
    for words in ("2: m0, m1", "6: 4 test, 2 forget", "nothing was submitted", "two-qubit gates", "1,000 a circuit"):
        assert words in text
    assert "2 x the circuits, and 2 that calibrate in each job" in text
    assert "1, 26 circuits, 26,000 executions" in text
    assert "limit       600 s" in text


def test_a_plan_beyond_its_limit_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path / "simulated", limit_seconds=1)
    assert "1 s, which the machine itself would exceed" in str(made)
    monkeypatch.setitem(hardware.plan.__globals__, "is_local", lambda device: False)
    with pytest.raises(InputError, match="within its limit of 1 s"):
        make(tmp_path / "p", limit_seconds=1)
    assert [path.name for path in tmp_path.iterdir()] == ["simulated"]


def test_jobs_are_stopped_within_the_limit(tmp_path: Path) -> None:
    made = make(tmp_path / "p", bundle(models=2, test=40), limit_seconds=100, limits=Limits(executions=1000))
    assert made.jobs > 2
    assert sum(job["stop_after"] for job in made.content["jobs"]) <= 100
    assert all(job["stop_after"] > job["seconds"] for job in made.content["jobs"])


def test_the_same_plan_stays_and_another_replaces_it_until_jobs_are_sent(tmp_path: Path) -> None:
    root = make(tmp_path / "p").folder
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    make(root)
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    make(root, shots=50)
    assert Folder(root).shots == 50
    hardware.submit(root, device=line())
    make(root, shots=50)
    assert hardware.status(root).collected
    with pytest.raises(InputError, match="whose jobs were sent; choose another name"):
        make(root)
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "thesis.tex").touch()
    with pytest.raises(InputError, match="something else"):
        make(tmp_path / "q")


def test_a_model_and_device_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    wide = hardware.Bundle({"m": model(0, qubits=6)}, {"test": samples(2, features=6)})
    with pytest.raises(InputError, match="at least 6 qubits"):
        make(tmp_path / "p", wide)
    with pytest.raises(UnknownNameError, match="fake_manila"):
        make(tmp_path / "p", backend="fake_manil")
    with pytest.raises(InputError, match="exactly one QuantumLayer, got 0"):
        hardware.Bundle({"m": nn.Linear(2, 2)}, {"test": samples(2)})
    with pytest.raises(InputError, match="at least 1 shot"):
        make(tmp_path / "p", shots=0)
    assert not list(tmp_path.iterdir())


class Twice(nn.Module):
    """Runs its circuit twice a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.quantum = qu.QuantumLayer(qu.load_circuit("ring-cz", qubits=3, depth=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.quantum(x) + self.quantum(-x))


def test_a_model_that_runs_its_circuit_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="through the circuit of m once"):
        make(tmp_path / "p", hardware.Bundle({"m": Twice()}, {"test": samples(2)}))


def test_the_calibration_makes_a_device_again(tmp_path: Path) -> None:
    device = broken_cell()
    kept = json.loads(json.dumps(snapshot(device)))
    again = rebuilt(kept)
    figures = {name: rows for name, rows in kept["error_and_duration"].items() if rows}
    assert snapshot(again)["error_and_duration"] == figures
    edges = [sorted(one.target.build_coupling_map().get_edges()) for one in (again, device)]
    assert edges[0] == edges[1]
    assert again.target.dt == device.target.dt
    assert again.target.qubit_properties[3].t1 == device.target.qubit_properties[3].t1


def test_what_a_plan_keeps_of_a_device(tmp_path: Path) -> None:
    kept = json.loads((make(tmp_path / "p").folder / "calibration.json").read_text())
    assert kept["device"] == "fake_manila"
    assert kept["error_and_duration"]["cx"]["0 1"][0] == line().target["cx"][(0, 1)].error
    assert Folder(tmp_path / "p").content["versions"]["qiskit"]


def test_eight_wires_on_27_qubits_are_planned(tmp_path: Path) -> None:
    models = {f"m{k}": model(k, qubits=8, depth=2) for k in range(5)}
    made = make(
        tmp_path / "p",
        hardware.Bundle(models, {"test": samples(100, 8)}),
        backend=find_device("fake_hanoi"),
        mitigation=Mitigation(readout=True, zne=(1, 3, 5)),
        limit_seconds=10_000,
    )
    assert (made.jobs, made.content["qubits"]) == (1, 27)
    (structure,) = made.content["structures"]
    assert structure["after"]["two_qubit_gates"] >= structure["before"]["two_qubit_gates"]
    assert made.content["jobs"][0]["circuits"] == 3 * 500 + 2
