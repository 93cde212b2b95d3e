import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from qunlearn.errors import CorruptFileError, InputError, UnsupportedError
from qunlearn.models import HybridClassifier, load_model, save_model
from qunlearn.quantum.card import load_circuit

CIRCUIT = load_circuit("ring-cz", qubits=3, depth=2)
IMAGES = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class SomeRecipe:
    epochs: int = 3
    learning_rate: float = 0.01

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def some_model(dtype: torch.dtype = torch.float32) -> HybridClassifier:
    return HybridClassifier(CIRCUIT, 3, encoder="pca", head="deep", dtype=dtype).fit(IMAGES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["folder", "there/one.safetensors", "two.json"])
def test_round_trip(tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    model = some_model(dtype)
    model(IMAGES)  # moves the running statistics
    model.eval()
    model.recipe = SomeRecipe()
    written = save_model(model, tmp_path / name)
    rng = torch.get_rng_state()
    again = load_model(tmp_path / name)
    assert torch.equal(rng, torch.get_rng_state())
    assert written.exists()
    assert isinstance(again, HybridClassifier)
    assert again.recipe == {"epochs": 3, "learning_rate": 0.01}
    assert not again.training
    assert torch.equal(again(IMAGES), model(IMAGES))
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
        assert value.dtype == again.state_dict()[key].dtype


def test_what_was_removed_is_remembered(tmp_path: Path) -> None:
    """A later request adds its ids to these, also on a model that comes from a file."""
    model = some_model()
    save_model(model, tmp_path / "before")
    assert not hasattr(load_model(tmp_path / "before"), "removed_ids")
    model.removed_ids = frozenset({7, 3})  # type: ignore[assignment]
    save_model(model, tmp_path / "after")
    assert load_model(tmp_path / "after").removed_ids == frozenset({3, 7})


@pytest.mark.parametrize("control", ["twin", "frozen"])
def test_controls_round_trip_also_after_a_change_of_dtype(tmp_path: Path, control: str) -> None:
    model = HybridClassifier(CIRCUIT, 3, control=control).double()  # type: ignore[arg-type]
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    x = torch.rand(4, 3, dtype=torch.float64)
    assert torch.equal(again(x), model(x))
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]
    assert again.training


def test_an_unfitted_model_stays_unfitted(tmp_path: Path) -> None:
    save_model(HybridClassifier(CIRCUIT, 3, encoder="pca"), tmp_path)
    with pytest.raises(UnsupportedError, match="fit"):
        load_model(tmp_path)(IMAGES)


def test_saving_twice_gives_the_same_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    model = some_model()
    save_model(model, tmp_path / "a")
    save_model(some_model(), tmp_path / "b")
    save_model(model, tmp_path / "b")
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["model.json", "model.safetensors"]


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(some_model(), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        save_model(some_model(), tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    load_model(tmp_path)


@pytest.mark.parametrize("position", [10, 500, -3])
def test_one_changed_byte_of_the_weights_is_named(tmp_path: Path, position: int) -> None:
    save_model(some_model(), tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"model\.safetensors: expected SHA-256"):
        load_model(tmp_path)


def test_a_changed_json_is_named(tmp_path: Path) -> None:
    file = save_model(some_model(), tmp_path)
    text = file.read_text()
    silent = text.replace('"training": true', '"training": false')  # would load, and be another model
    assert silent != text
    for broken in (silent, text.replace('"classes": 3', '"classes": 4'), text[:-20], "[]", "{}", "\x00\xff"):
        file.write_text(broken)
        with pytest.raises(CorruptFileError, match=r"model\.json"):
            load_model(tmp_path)
    file.write_text(text)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CorruptFileError, match=r"model\.safetensors: expected the weights of a model, got no such"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path / "elsewhere")


def test_a_module_of_ones_own_needs_a_factory_and_fills_a_given_one(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    model(torch.rand(5, 3))
    with pytest.raises(UnsupportedError, match="got Sequential, which cannot be rebuilt"):
        save_model(model, tmp_path)
    assert list(tmp_path.iterdir()) == []
    save_model(model, tmp_path, factory="mine:make_model")
    with pytest.raises(UnsupportedError, match="made by mine:make_model; call that"):
        load_model(tmp_path)
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    assert load_model(tmp_path, into=other) is other
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    with pytest.raises(InputError, match="expected a module with the parameters of"):
        load_model(tmp_path, into=nn.Linear(3, 4))


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    save_model(model, tmp_path, factory="mine:tied")
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    load_model(tmp_path, into=other)
    assert torch.equal(other.get_parameter("1.weight"), model.get_parameter("0.weight"))


def test_a_recipe_that_is_no_json_is_refused(tmp_path: Path) -> None:
    model = some_model()
    for recipe in (object(), {"epochs": {1, 2}}, {"learning_rate": float("nan")}):
        model.recipe = recipe
        with pytest.raises(InputError, match=r"model\.recipe to be a dict of JSON values"):
            save_model(model, tmp_path)


def test_a_fresh_process_reads_it(tmp_path: Path) -> None:
    model = some_model().eval()
    save_model(model, tmp_path)
    script = (
        "import sys, torch; from qunlearn.models import load_model; m = load_model(sys.argv[1]);"
        "x = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0)); print(m(x).tolist())"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    torch.testing.assert_close(torch.tensor(json.loads(run.stdout)), model(IMAGES), atol=1e-6, rtol=0)
