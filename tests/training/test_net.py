"""The functional view against autograd on a copied module, mode by mode and buffer by buffer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.errors import InputError, UnsupportedError
from qunlearn.quantum import QuantumLayer, load_circuit
from qunlearn.training.net import Net, check_functional, evaluating
from tests.methods.cases import Ignoring, hybrid_model, plain_model
from tests.training.cases import deep_hybrid, entropy_of, norm_model, samples

MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "plain": (plain_model, 4),
    "norm": (norm_model, 4),
    "hybrid": (hybrid_model, 4),
}


def gradients_of(module: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(cross_entropy(module(x), y), list(module.parameters()))
    return dict(zip([name for name, _ in module.named_parameters()], found, strict=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", MODELS)
def test_gradient_equals_autograd_s_and_moves_nothing(kind: str, training: bool) -> None:
    make, features = MODELS[kind]
    module, (x, y) = make().train(training), samples(9, features)
    net = Net(module)
    before = {name: t.clone() for name, t in net.state().items()}
    found = net.gradient(lambda n: entropy_of(n, x, y))
    wanted = gradients_of(copy.deepcopy(module), x, y)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert torch.allclose(found[name], value, atol=1e-12), name
        assert not found[name].requires_grad
    assert all(torch.equal(t, before[name]) for name, t in net.state().items()), "running statistics moved"
    assert all(p.grad is None for p in module.parameters())


def test_gradient_leaves_frozen_parameters_out_and_gives_zero_to_unused_ones() -> None:
    module, (x, y) = plain_model(), samples()
    module[0].weight.requires_grad_(False)
    module.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    net = Net(module)
    found = net.gradient(lambda n: cross_entropy(n(x), y))
    assert set(found) == {"0.bias", "2.weight", "2.bias", "unused"}
    assert torch.equal(found["unused"], torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", MODELS)
def test_input_gradient_equals_autograd_s_and_moves_statistics_as_a_forward_does(kind: str, training: bool) -> None:
    make, features = MODELS[kind]
    module, (x, y) = make().train(training), samples(9, features)
    net, reference = Net(module), copy.deepcopy(module)
    inputs = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(cross_entropy(reference(inputs), y), inputs)
    found = net.input_gradient(lambda n, z: cross_entropy(n(z), y), x)
    assert torch.allclose(found, wanted, atol=1e-12)
    for name, buffer in reference.named_buffers():
        assert torch.allclose(net.buffers[name], buffer, atol=1e-14), name
    if kind == "norm":
        moved = not torch.equal(net.buffers["1.running_mean"], module.get_buffer("1.running_mean"))
        assert moved == training
    assert all(torch.equal(net.parameters[name], p) for name, p in module.named_parameters())


def test_a_forward_in_training_mode_moves_the_view_s_statistics_and_never_the_module_s() -> None:
    module, (x, _) = norm_model().train(), samples()
    before, reference, net = copy.deepcopy(module.state_dict()), copy.deepcopy(module), Net(module)
    assert torch.allclose(net(x), reference(x), atol=1e-14)
    assert torch.equal(net.buffers["1.running_var"], reference.get_buffer("1.running_var"))
    assert int(net.buffers["1.num_batches_tracked"]) == 2
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


def test_a_stage_hands_on_what_a_sequential_computes_by_hand() -> None:
    module, (x, _) = norm_model().eval(), samples()
    net = Net(module)
    with torch.no_grad():
        normed = module[1](module[0](x))
        logits = module[4](torch.relu(normed))
    assert torch.allclose(net.stage("0", x), normed, atol=1e-14), "the norm layer belongs to the linear before it"
    assert torch.allclose(net.stage("4", x), logits, atol=1e-14)
    assert not any(part._forward_hooks for part in module.modules()), "a hook was left behind"
    with pytest.raises(InputError, match="expected one of the stages 0, 4, got 'fc9'"):
        net.stage("fc9", x)


def test_the_stages_of_a_hybrid_model_are_its_parts() -> None:
    model, (x, _) = deep_hybrid().eval(), samples(5, 3)
    net = Net(model)
    with torch.no_grad():
        angles = model.quantum(x)
        head = dict(model.head.named_children())
        first = head["act1"](head["norm1"](head["fc1"](angles)))
    assert torch.allclose(net.stage("circuit", x), angles, atol=1e-12)
    assert torch.allclose(net.stage("fc1", x), first, atol=1e-12)
    assert torch.allclose(net.stage("fc4", x), model(x), atol=1e-12)


def test_stages_are_differentiable() -> None:
    module, (x, _) = plain_model(), samples()
    found = Net(module).gradient(lambda n: n.stage("0", x).square().sum())
    (wanted,) = torch.autograd.grad(module[0](x).square().sum(), [module.get_parameter("0.weight")])
    assert torch.allclose(found["0.weight"], wanted)
    assert torch.equal(found["2.weight"], torch.zeros_like(module.get_parameter("2.weight")))


def test_logits_are_those_of_evaluation_mode_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    module, (x, _) = norm_model(dropout=0.5).train(), samples(11)
    net = Net(module)
    wanted = copy.deepcopy(module).eval()(x).detach()
    monkeypatch.setattr("qunlearn.training.net.CHUNK", 4)
    found = net.logits(x)
    assert torch.allclose(found, wanted, atol=1e-14)
    assert not found.requires_grad
    assert module.training
    assert net.counts.gradient_evaluations == 0


def test_every_submodule_returns_to_its_own_mode_even_after_an_error() -> None:
    module = norm_model().train()
    module[1].eval()
    modes = [part.training for part in module.modules()]

    def fail() -> None:
        with evaluating(module):
            assert not any(part.training for part in module.modules())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert [part.training for part in module.modules()] == modes
    check_functional(module, samples()[0][:1])
    Net(module).logits(samples()[0])
    assert [part.training for part in module.modules()] == modes


def test_the_first_run_of_a_circuit_may_be_inside_a_gradient() -> None:
    layer = QuantumLayer(load_circuit("sim-14", qubits=2, depth=3, encoding="ry"), dtype=torch.float64)
    x = torch.linspace(0.1, 0.9, 2 * layer.circuit.features, dtype=torch.float64).reshape(2, -1)
    found = Net(layer).gradient(lambda n: n(x).sum())["weights"]
    (wanted,) = torch.autograd.grad(layer(x).sum(), [layer.weights])
    assert torch.allclose(found, wanted, atol=1e-12)


def test_state_restore_and_write_back() -> None:
    module, (x, _) = norm_model().train(), samples()
    net = Net(module)
    kept = net.state()
    assert set(kept) == set(module.state_dict())
    net(x)
    net.parameters["0.weight"].add_(1.0)
    changed = net.state()
    assert not torch.equal(changed["0.weight"], kept["0.weight"])
    assert not torch.equal(changed["1.running_mean"], kept["1.running_mean"])
    net.restore(kept)
    assert all(torch.equal(t, kept[name]) for name, t in net.state().items())
    net.restore(changed)
    assert net.write_back() is module
    assert all(torch.equal(t, changed[name]) for name, t in module.state_dict().items())


def test_another_point_shares_counts_and_leaves_this_one() -> None:
    net, (x, _) = Net(plain_model()), samples(5)
    zero = net.at({"2.weight": torch.zeros(3, 16, dtype=torch.float64)})
    assert torch.allclose(zero(x), net.parameters["2.bias"].expand(5, 3))
    assert not torch.allclose(net(x), zero(x))
    assert zero.counts is net.counts


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_module_that_ignores_its_parameters_is_refused(wrapped: bool, training: bool) -> None:
    module: nn.Module = nn.Sequential(Ignoring(), nn.Linear(3, 3, dtype=torch.float64)) if wrapped else Ignoring()
    with pytest.raises(UnsupportedError, match="call the QNode in the forward of a module of your own"):
        check_functional(module.train(training), samples()[0][:1])


class Unused(nn.Module):
    """Has a parameter that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.spare = nn.Linear(4, 3, dtype=torch.float64), nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class Tied(nn.Module):
    """Two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, dtype=torch.float64), nn.Linear(4, 4, dtype=torch.float64)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())  # type: ignore[no-any-return]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [plain_model, lambda: norm_model(dropout=0.9), hybrid_model, Unused, Tied])
def test_good_modules_pass_in_both_modes_and_stay_as_they_are(make: Callable[[], nn.Module], training: bool) -> None:
    module = make().train(training)
    before, state = copy.deepcopy(module.state_dict()), torch.random.get_rng_state()
    check_functional(module, samples()[0][:1])
    assert module.training == training
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
