import pytest
import torch
from torch import Tensor, nn

from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.models import HybridClassifier, reinitialise, stages
from qunlearn.quantum.card import load_circuit

CIRCUIT = load_circuit("ring-cz", qubits=4, depth=2)


def trained(model: nn.Module) -> nn.Module:
    """The model with every parameter moved and running statistics that are not the first ones."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
            parameter.grad = torch.ones_like(parameter)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer += 0.25
    return model


def hybrids() -> list[HybridClassifier]:
    return [
        HybridClassifier(CIRCUIT, 3, head="deep"),
        HybridClassifier(CIRCUIT, 3, encoder="cnn", inputs=(1, 8, 8)),
        HybridClassifier(CIRCUIT, 3, control="twin"),
        HybridClassifier(CIRCUIT, 3, control="frozen", head="linear"),
    ]


@pytest.mark.parametrize("model", hybrids(), ids=["deep", "cnn", "twin", "frozen"])
def test_every_parameter_changes_and_the_original_does_not(model: HybridClassifier) -> None:
    trained(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    one, two, other = reinitialise(model, 1), reinitialise(model, 1), reinitialise(model, 2)
    assert torch.equal(rng, torch.get_rng_state())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for name, parameter in one.named_parameters():
        assert not (parameter == before[name]).any(), name
        assert parameter.grad is None
        assert parameter.requires_grad == model.get_parameter(name).requires_grad
        assert torch.equal(parameter, two.get_parameter(name))
        if "norm" not in name:  # a norm layer starts at 1 and 0, whatever the seed
            assert not (parameter == other.get_parameter(name)).any(), name
    for name, buffer in one.named_buffers():
        if name.endswith("running_mean"):
            assert (buffer == 0).all()
        if name.endswith("running_var"):
            assert (buffer == 1).all()


def test_it_is_the_initialisation_of_a_new_model() -> None:
    """The default distribution, not merely other numbers: the same bounds as torch's and the circuit's own."""
    fresh = reinitialise(trained(HybridClassifier(CIRCUIT, 3, hidden=500)), 0)
    assert fresh.get_parameter("head.fc1.weight").abs().max() <= 0.5  # 1 / sqrt(4)
    assert fresh.get_parameter("head.fc1.weight").abs().max() > 0.49
    assert fresh.get_parameter("quantum.weights").min() >= 0
    assert fresh.get_parameter("quantum.weights").max() > 3


def test_data_fitted_parts_forget_their_data() -> None:
    x = torch.rand(20, 9)
    model = HybridClassifier(CIRCUIT, 3, encoder="pca").fit(x)
    fresh = reinitialise(model, 0)
    with pytest.raises(UnsupportedError, match="fit"):
        fresh(x)
    assert model(x).shape == (20, 3)
    part = reinitialise(model, 0, only=["circuit"])
    assert part(x).shape == (20, 3)


def test_only_the_named_stages_change() -> None:
    model = trained(HybridClassifier(CIRCUIT, 3, head="deep"))
    fresh = reinitialise(model, 0, only=["fc2", "fc4"])
    chosen = {name for stage in stages(model) if stage.name in ("fc2", "fc4") for name in stage.parameters}
    assert len(chosen) == 6
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, fresh.get_parameter(name)) == (name not in chosen)
    assert torch.equal(fresh.get_buffer("head.norm1.running_mean"), model.get_buffer("head.norm1.running_mean"))
    assert (fresh.get_buffer("head.norm2.running_mean") == 0).all()
    with pytest.raises(UnknownNameError, match="did you mean 'fc4'"):
        reinitialise(model, 0, only=["fc44"])


def test_any_module_that_can_reset_itself() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.MultiheadAttention(4, 2), nn.Linear(4, 2))
    fresh = reinitialise(trained(model), 3)
    for name, parameter in fresh.named_parameters():
        assert not torch.equal(parameter, model.get_parameter(name)), name
    grown = nn.Sequential(*model, nn.Tanh(), nn.Linear(2, 2))
    assert torch.equal(reinitialise(grown, 3).get_parameter("0.weight"), fresh.get_parameter("0.weight"))


def test_equal_layers_draw_different_weights() -> None:
    fresh = reinitialise(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), 0)
    assert not (fresh.get_parameter("0.weight") == fresh.get_parameter("1.weight")).any()


class Stubborn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.inner(x) * self.scale
        return scaled


class Half(Stubborn):
    """Draws one of its two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.scale)


def test_what_cannot_be_drawn_again_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"got none for 1 \(Stubborn\); define reset_parameters"):
        reinitialise(nn.Sequential(nn.Linear(2, 2), Stubborn()), 0)
    with pytest.raises(UnsupportedError, match=r"the model \(Half\)"):
        reinitialise(Half(), 0)
    with pytest.raises(InputError, match="seed of 0 or more, got -1"):
        reinitialise(nn.Linear(2, 2), -1)
