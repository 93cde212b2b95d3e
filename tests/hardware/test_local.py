"""From a plan to values and logits on this machine: right order, resumed after any step, damage noticed."""

from __future__ import annotations

import shutil
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
from qunlearn.errors import CorruptFileError, InputError, UnsupportedError
from qunlearn.files import write_bytes
from qunlearn.hardware import folder, journal
from qunlearn.hardware.calibration import rebuilt, snapshot
from qunlearn.hardware.cost import Limits
from qunlearn.hardware.counts import pack, unpack
from qunlearn.hardware.folder import Folder, find_folder
from qunlearn.quantum.backends.mitigation import Mitigation
from tests.hardware.small import broken_cell, bundle, exact, line, model, samples

SHOTS = 400


def ideal(device: Any) -> Any:
    """The same topology and gates without errors."""
    kept = snapshot(device)
    for rows in kept["error_and_duration"].values():
        rows.update({places: [0.0, None] for places in rows})
    lasting = {"t1": 1e6, "t2": 1e6, "frequency": 5e9}
    return rebuilt({**kept, "qubit_properties": [lasting] * kept["qubits"]})


def make(root: Path, given: hardware.Bundle | None = None, **options: Any) -> Path:
    chosen = {"backend": line(), "shots": SHOTS, "limits": Limits(executions=4 * SHOTS), **options}
    return hardware.plan(given or bundle(), root, **chosen).folder


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of three jobs, nothing submitted."""
    return make(tmp_path_factory.mktemp("planned") / "p")


@pytest.fixture(scope="module")
def finished(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, run."""
    root = Path(shutil.copytree(planned, tmp_path_factory.mktemp("finished") / "p"))
    hardware.submit(root, device=line())
    return root


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "p"))


@pytest.mark.parametrize("topology", [line, broken_cell])
@pytest.mark.parametrize("readout", [False, True])
def test_values_of_every_model_and_sample_are_its_own(topology: Any, readout: bool, tmp_path: Path) -> None:
    device = ideal(topology())
    models = {"a": model(0), "deep": model(1, depth=2), "b": model(2), "x": model(3, card="sim-05")}
    given = hardware.Bundle(models, {"test": samples(4, seed=1), "forget": samples(3, seed=2)})
    mitigation = Mitigation(readout=readout, zne=(1, 3) if readout else ())
    root = make(tmp_path / "p", given, backend=device, mitigation=mitigation, limits=Limits(executions=100 * SHOTS))
    assert hardware.submit(root, device=device).collected
    found = hardware.collect(root)
    for name, made in models.items():
        for key, data in given.sets.items():
            values, errors = found.values[name][key], found.errors[name][key]
            assert np.all(np.abs(values - exact(made, data).numpy()) < 5 * errors + 5 / SHOTS)
            with torch.no_grad():
                logits = made.head(torch.from_numpy(values).float()).double().numpy()
            assert np.allclose(found.logits[name][key], logits, atol=1e-5)
            assert np.array_equal(found.ids[key], data.ids.numpy())
            assert np.array_equal(found.labels[key], data.y.numpy())
            with torch.no_grad():
                assert np.array_equal(found.features[name][key], made.encoder(data.x.float()).numpy())


def test_noise_of_the_device_is_there(tmp_path: Path) -> None:
    given = bundle(test=6)
    root = make(tmp_path / "p", given, backend="fake_manila", shots=4000, limits=None)
    hardware.submit(root)
    found = hardware.collect(root)
    wanted = exact(given.models["m0"], given.sets["test"]).numpy()  # type: ignore[arg-type]
    distance = np.abs(found.values["m0"]["test"] - wanted)
    assert distance.max() > 5 * found.errors["m0"]["test"].max()
    assert np.abs(found.values["m0"]["test"]).mean() < np.abs(wanted).mean()
    assert 0 <= found.accuracy("m0", "test") <= 1


def test_submitting_and_collecting_again_changes_nothing(copied: Path) -> None:
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    first = hardware.collect(copied)
    hardware.submit(copied, device=line())
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before
    assert first.complete
    assert "3 collected" in str(first.status)


class Stop(BaseException):
    """Stands for a kill."""


def test_resumes_after_every_file_that_is_written(
    planned: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = hardware.load(finished)
    write, left = write_bytes, [0]

    def mortal(path: Path, content: bytes) -> None:
        if left[0] == 0:
            raise Stop
        left[0] -= 1
        write(path, content)

    for module in (journal, folder):
        monkeypatch.setattr(module, "write_bytes", mortal)
    for steps in range(1, 9):  # of three jobs with three files each
        root = Path(shutil.copytree(planned, tmp_path / f"p{steps}"))
        left[0] = steps
        with pytest.raises(Stop):
            hardware.submit(root, device=line())
        left[0] = -1
        hardware.submit(root, device=line())
        found = hardware.load(root)
        assert found.complete
        for name in wanted.values:
            assert all(np.array_equal(found.values[name][key], wanted.values[name][key]) for key in wanted.labels)


def test_what_is_not_collected_is_nan(planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(shutil.copytree(planned, tmp_path / "p"))
    kept = Folder.keep_counts
    done: list[int] = []

    def one(self: Folder, row: Any, *rest: Any) -> None:
        if done:
            raise Stop
        done.append(row.number)
        kept(self, row, *rest)

    monkeypatch.setattr(Folder, "keep_counts", one)
    with pytest.raises(Stop):
        hardware.submit(root, device=line())
    found = hardware.collect(root)
    assert not found.complete
    missing = sum(int(np.isnan(found.values["m0"][key]).all(1).sum()) for key in found.labels)
    assert missing == 4
    assert sum(int(np.isnan(found.logits["m1"][key]).all(1).sum()) for key in found.labels) == 4
    assert found.status.unsent


@pytest.mark.parametrize("name", ["plan.json", "samples.safetensors", "circuits.qpy", "models/001.safetensors"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_damaged_plan_is_named(copied: Path, name: str, how: str) -> None:
    path = copied / name
    content = path.read_bytes()
    place = len(content) // 2
    path.write_bytes(content[:place] if how == "cut" else content[:place] + b"?" + content[place + 1 :])
    if how == "gone":
        path.unlink()
    with pytest.raises((CorruptFileError, InputError), match=path.name if how != "gone" or "/" in name else "expected"):
        hardware.collect(copied)


def test_damaged_counts_are_made_anew(copied: Path, finished: Path) -> None:
    place = Folder(copied).counts_path(1)
    place.write_bytes(place.read_bytes()[:-5])
    with pytest.raises(CorruptFileError, match=r"0001\.safetensors"):
        hardware.load(copied)
    found = hardware.collect(copied)
    assert not found.complete
    assert hardware.submit(copied, device=line()).collected
    assert Folder(copied).counts_path(1).read_bytes() == Folder(finished).counts_path(1).read_bytes()


def test_a_damaged_row_is_repaired(copied: Path) -> None:
    place = copied / "jobs" / "0002.json"
    place.write_text("{")
    said: list[str] = []
    assert hardware.submit(copied, device=line(), say=said.append).collected
    assert "0002.json" in said[0]
    assert (copied / "jobs" / "0002.json.corrupt").exists()
    (copied / "jobs" / "0000.json").unlink()
    assert hardware.collect(copied).complete


class Own(nn.Module):
    """A model of the user's own: the circuit in the middle, something on both sides of it."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.front = nn.Linear(4, 3)
        self.circuit = qu.QuantumLayer(qu.load_circuit("ring-cz", qubits=3, depth=1), generator=generator)
        self.back = nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.back(torch.cat([self.circuit(self.front(x)), x], -1)))


def test_models_of_the_users_own_code(tmp_path: Path) -> None:
    own = Own().eval()
    data = samples(5, features=4)
    root = make(
        tmp_path / "p", hardware.Bundle({"own": own}, {"test": data}), backend=ideal(line()), shots=40_000, limits=None
    )
    hardware.submit(root, device=ideal(line()))
    with pytest.raises(UnsupportedError, match="own code"):
        hardware.collect(root)
    found = hardware.collect(root, models={"own": Own(seed=1)})
    with torch.no_grad():
        assert np.allclose(found.logits["own"]["test"], own(data.x).numpy(), atol=0.05)
        x, values = data.x.float(), torch.from_numpy(found.values["own"]["test"]).float()
        assert np.allclose(found.logits["own"]["test"], own.back(torch.cat([values, x], -1)).numpy(), atol=1e-5)


def test_counts_are_packed_and_unpacked() -> None:
    counts = np.random.default_rng(0).poisson(0.1, (7, 32))
    packed = pack(counts, "0/")
    assert np.array_equal(unpack(packed, "0/"), counts)
    assert sum(array.nbytes for array in packed.values()) < counts.nbytes


def test_folders_are_found(copied: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    with pytest.raises(InputError, match="found none"):
        find_folder(study)
    for name in ("a", "b"):
        shutil.copytree(copied, study / "hardware" / name)
        assert find_folder(study, name).name == name
    with pytest.raises(InputError, match="found a, b; name one with --name"):
        find_folder(study)
    assert find_folder(copied) == find_folder(copied, copied.name) == copied
    with pytest.raises(InputError, match="hardware plan"):
        hardware.status(study)
