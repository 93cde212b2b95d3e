import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset, ForgetRequest, Split
from qunlearn.errors import CorruptFileError, InputError, NumericalError
from qunlearn.evaluation import Predictions, evaluate, predict, predictions
from qunlearn.evaluation.predictions import SETS, state_positions
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.layer import QuantumLayer

Splits = Callable[..., Split]


@pytest.fixture
def split() -> Split:
    generator = torch.Generator().manual_seed(0)
    data = Dataset(torch.randn(200, 2, generator=generator), torch.arange(200) % 2)
    return data.split(ForgetRequest.of_fraction(0.1))


def _hybrid(seed: int, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layer = QuantumLayer(load_circuit("ring-cz", qubits=2, depth=1), dtype=dtype, generator=generator)
    head = nn.Linear(2, 2, dtype=dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return nn.Sequential(layer, head)


def _plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2))


def test_logits_are_the_models_in_evaluation_mode(split: Split) -> None:
    model = _plain().train()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = predict(model, split)
    assert [module.training for module in model] == [True, False, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for name, data in ((name, getattr(split, name)) for name in SETS):
        assert found.logits[name].dtype == np.float64
        assert found.logits[name] == pytest.approx(model.eval()(data.x).detach().numpy(), abs=1e-6)
        assert (found.labels[name] == data.y.numpy()).all()
        assert (found.ids[name] == data.ids.numpy()).all()
    assert found.parameters.size == sum(p.numel() for p in model.parameters())
    assert np.isinf(found.periods).all()
    assert found.states == {}


def test_large_sets_are_run_in_batches_with_the_same_outputs(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _hybrid(0)
    whole = predict(model, split)
    monkeypatch.setattr(predictions, "BATCH", 16)
    parts = predict(model, split)
    for name, logits in whole.logits.items():
        np.testing.assert_allclose(parts.logits[name], logits, atol=1e-5)
    for name, states in whole.states.items():
        np.testing.assert_allclose(parts.states[name], states, atol=1e-5)


def test_a_float64_model_is_run_in_float64(split: Split) -> None:
    model = _plain().double().eval()
    exact = model(split.test.x.double()).detach().numpy()
    assert predict(model, split).logits["test"] == pytest.approx(exact, rel=1e-14, abs=1e-14)


def test_sets_with_the_same_samples_are_run_once(splits: Splits) -> None:
    calls: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return x.repeat(1, 3)

    split = splits(protocol="published")
    found = predict(Counting(), split)
    assert calls == [len(split.forget) + len(split.retain) + len(split.test)]  # small sets in one batch
    assert (found.logits["validation"] == found.logits["test"]).all()


def test_wrong_outputs_are_refused(split: Split) -> None:
    class Bad(nn.Module):
        def __init__(self, value: float, columns: int) -> None:
            super().__init__()
            self.value, self.columns = value, columns

        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), self.columns)[: 2 if self.columns else 1], self.value)

    with pytest.raises(NumericalError, match="the model has diverged"):
        predict(Bad(math.nan, 2), split)
    with pytest.raises(InputError, match=r"logits \(samples, classes\) for \d+ forget \+ .*, got \(\d+,\)"):
        predict(Bad(0.0, 0), split)


def test_saving_gives_back_the_same_and_the_same_bytes(split: Split, tmp_path: Path) -> None:
    found = predict(_hybrid(0), split)
    found.save(tmp_path / "a.safetensors")
    found.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]
    back = Predictions.load(tmp_path / "a.safetensors")
    for kind in ("logits", "labels", "ids", "states"):
        one, other = getattr(found, kind), getattr(back, kind)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)
    assert np.array_equal(found.parameters, back.parameters)
    assert np.array_equal(found.periods, back.periods)


def test_damaged_files_are_never_used(split: Split, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    predict(_plain(), split).save(path)
    whole = path.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:100], b"", b"\x80\x04K\x01."):
        path.write_bytes(damaged)
        with pytest.raises(CorruptFileError, match=r"p\.safetensors; predict again"):
            Predictions.load(path)
    with pytest.raises(FileNotFoundError):
        Predictions.load(tmp_path / "none")


def test_states_are_those_of_the_circuit_on_what_enters_it(split: Split) -> None:
    model = nn.Sequential(nn.Linear(2, 2), *_hybrid(0))
    found = predict(model, split)
    assert found.states.keys() == {"forget", "retain", "test", "outside"}
    layer = model[1]
    assert isinstance(layer, QuantumLayer)
    states = layer.state(model[0](split.test.x)).reshape(len(split.test), 4).detach().numpy()
    assert found.states["test"] == pytest.approx(states, abs=1e-6)
    assert found.states["test"].dtype == np.complex64


def test_fidelity_is_that_of_the_states(split: Split) -> None:
    model, retrained = _hybrid(0), [_hybrid(1), _hybrid(2)]
    row = evaluate(model, split, retrained=retrained)
    a, b, c = (m[0].state(split.test.x).reshape(-1, 4).detach() for m in (model, *retrained))  # type: ignore[operator]
    expected = [((one.conj() * other).sum(1).abs() ** 2).mean() for one, other in ((a, b), (a, c), (b, c))]
    assert row["state_fidelity_test"] == pytest.approx(float((expected[0] + expected[1]) / 2), abs=1e-6)
    assert row["state_fidelity_test_floor"] == pytest.approx(float(expected[2]), abs=1e-6)
    assert "state_fidelity_test" not in evaluate(_plain(), split, retrained=[_plain()])


def test_whole_turns_of_angles_change_no_figure(split: Split) -> None:
    model, retrained = _hybrid(0, torch.float64), [_hybrid(1), _hybrid(2)]
    turned = _hybrid(0, torch.float64)
    with torch.no_grad():
        turned[0].weights.add_(2 * math.pi * torch.tensor([1, -2, 0, 3, 1, -1]))  # type: ignore[operator]
    one, other = (evaluate(m, split, retrained=retrained) for m in (model, turned))
    assert one == pytest.approx(other, abs=1e-5, nan_ok=True)
    assert evaluate(model, split, retrained=[turned])["weight_distance"] == pytest.approx(0, abs=1e-6)


def test_states_of_large_sets_are_taken_at_even_places() -> None:
    assert state_positions(3).tolist() == [0, 1, 2]
    many = state_positions(5000)
    assert len(many) == 256
    assert (many[0], many[-1]) == (0, 4999)
    assert set(np.diff(many)) <= {19, 20}
    assert state_positions(0).tolist() == []


def test_class_request_leaves_the_forgotten_class_out_of_the_fidelity() -> None:
    generator = torch.Generator().manual_seed(1)
    data = Dataset(torch.randn(90, 2, generator=generator), torch.arange(90) % 3)
    split = data.split(ForgetRequest.of_class(2))
    model, other = _hybrid(0), _hybrid(1)
    kept = split.test.x[split.test.y != 2]
    a, b = (m[0].state(kept).reshape(-1, 4).detach() for m in (model, other))  # type: ignore[operator]
    expected = float(((a.conj() * b).sum(1).abs() ** 2).mean())
    row = evaluate(model, split, retrained=[other])
    assert row["state_fidelity_test"] == pytest.approx(expected, abs=1e-6)
