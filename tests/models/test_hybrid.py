import json
import math

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, vmap

from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.models import ClassicalTwin, HybridClassifier
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.layer import QuantumLayer

CIRCUIT = load_circuit("ring-cz", qubits=4, depth=2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_same_generator_gives_the_same_model_and_moves_no_global_state() -> None:
    before = torch.get_rng_state()
    one, two = (HybridClassifier(CIRCUIT, 3, generator=seeded(5)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    other = HybridClassifier(CIRCUIT, 3, generator=seeded(6))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])
        assert not torch.equal(value, other.state_dict()[name])


def test_without_a_generator_torchs_global_seed_decides() -> None:
    torch.manual_seed(1)
    one = HybridClassifier(CIRCUIT, 3)
    two = HybridClassifier(CIRCUIT, 3)
    torch.manual_seed(1)
    again = HybridClassifier(CIRCUIT, 3)
    assert torch.equal(one.quantum.weights, again.quantum.weights)
    assert not torch.equal(one.quantum.weights, two.quantum.weights)


def test_initial_weights_have_the_stated_ranges() -> None:
    model = HybridClassifier(load_circuit("ring-cz", qubits=6, depth=12), 3, hidden=400, generator=seeded(0))
    angles = model.quantum.weights.detach()
    assert 0 <= angles.min() < 0.3
    assert 2 * math.pi - 0.3 < angles.max() < 2 * math.pi
    bound = 1 / math.sqrt(6)  # torch's default for a linear layer of 6 inputs
    weight = model.head.get_submodule("fc1").get_parameter("weight")
    assert 0.99 * bound < weight.abs().max() <= bound


def test_frozen_control_has_the_trainable_models_weights() -> None:
    free = HybridClassifier(CIRCUIT, 3, generator=seeded(2))
    frozen = HybridClassifier(CIRCUIT, 3, control="frozen", generator=seeded(2))
    assert [n for n, p in frozen.named_parameters() if not p.requires_grad] == ["quantum.weights"]
    for name, value in free.state_dict().items():
        assert torch.equal(value, frozen.state_dict()[name])
    x = torch.rand(5, 4)
    frozen(x).sum().backward()
    assert frozen.quantum.weights.grad is None
    assert torch.equal(free(x), frozen(x))


def test_twin_control_differs_in_the_circuit_alone() -> None:
    hybrid = HybridClassifier(CIRCUIT, 3, head="deep", generator=seeded(2))
    twin = HybridClassifier(CIRCUIT, 3, head="deep", control="twin", generator=seeded(2))
    assert isinstance(hybrid.quantum, QuantumLayer)
    assert isinstance(twin.quantum, ClassicalTwin)
    count = [sum(p.numel() for p in m.parameters()) for m in (hybrid, twin)]
    assert count[0] == count[1]
    for name, value in hybrid.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]) == (name != "quantum.weights")
    assert twin(torch.rand(5, 4)).shape == (5, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("control", [None, "twin"])
def test_logits_have_the_models_dtype_whatever_comes_in(dtype: torch.dtype, control: None) -> None:
    model = HybridClassifier(CIRCUIT, 3, control=control, dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    for x in (torch.rand(2, 4), torch.rand(2, 4, dtype=torch.float64), np.random.default_rng(0).random((2, 4))):
        assert model(x).dtype == dtype


def test_encoders_feed_the_circuit() -> None:
    images = torch.rand(12, 1, 8, 8)
    pca = HybridClassifier(CIRCUIT, 10, encoder="pca")
    with pytest.raises(UnsupportedError, match=r"model\.fit"):
        pca(images)
    assert pca.fit(images)(images).shape == (12, 10)
    assert HybridClassifier(CIRCUIT, 10, encoder="cnn", inputs=(1, 8, 8))(images).shape == (12, 10)
    assert HybridClassifier(CIRCUIT, 10).fit(images).hidden == 16
    assert HybridClassifier(CIRCUIT, 10, encoder="cnn").hidden == 32
    amplitude = load_circuit("ring-cz", qubits=6, depth=1, encoding="amplitude")
    assert HybridClassifier(amplitude, 10, head="linear")(images).shape == (12, 10)


def test_per_sample_gradients_equal_a_loop() -> None:
    model = HybridClassifier(CIRCUIT, 3, encoder="pca", dtype=torch.float64, generator=seeded(0))
    x = torch.rand(6, 9, dtype=torch.float64)
    model.fit(x)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = functional_call(model, values, (sample.unsqueeze(0),))
        return logits.logsumexp(1).sum()

    together = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for row, sample in enumerate(x):
        model.zero_grad()
        model(sample.unsqueeze(0)).logsumexp(1).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(together[name][row], parameter.grad, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoder": "pca", "inputs": (1, 8, 8), "head": "deep"},
        {"encoder": "pca", "inputs": 9, "head": "linear", "control": "frozen"},
        {"encoder": "cnn", "inputs": (2, 12, 8), "control": "twin", "hidden": 5, "engine": "torch"},
    ],
)
def test_config_is_json_and_builds_an_equal_model(options: dict[str, object]) -> None:
    model = HybridClassifier(CIRCUIT, 3, **options, generator=seeded(1))  # type: ignore[arg-type]
    config = json.loads(json.dumps(model.config()))
    again = HybridClassifier.from_config(config, generator=seeded(1))
    assert again.config() == model.config()
    assert again.circuit == CIRCUIT
    assert list(again.state_dict()) == list(model.state_dict())
    assert str(again) == str(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_refusals_say_what_was_expected() -> None:
    with pytest.raises(InputError, match="classes to be a whole number of at least 2, got 1"):
        HybridClassifier(CIRCUIT, 1)
    with pytest.raises(UnknownNameError, match="did you mean 'cnn'"):
        HybridClassifier(CIRCUIT, 3, encoder="cmn")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="did you mean 'shallow'"):
        HybridClassifier(CIRCUIT, 3, head="shalow")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="did you mean 'twin'"):
        HybridClassifier(CIRCUIT, 3, control="twins")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected samples of shape \(batch, 4\), got \(2, 5\)"):
        HybridClassifier(CIRCUIT, 3)(torch.zeros(2, 5))
    with pytest.raises(InputError, match="expected samples of 4 scalars"):
        HybridClassifier(CIRCUIT, 3, inputs=5)
    with pytest.raises(InputError, match="hidden with head 'shallow' only"):
        HybridClassifier(CIRCUIT, 3, head="deep", hidden=8)
    with pytest.raises(InputError, match="hidden to be a whole number"):
        HybridClassifier(CIRCUIT, 3, hidden=0)
    with pytest.raises(InputError, match="shape of one sample"):
        HybridClassifier(CIRCUIT, 3, encoder="cnn", inputs=(1, 0, 8))
