import numpy as np
import pytest
import torch
from torch.func import functional_call

from qunlearn.errors import InputError
from qunlearn.models import ClassicalTwin
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate


def sized(features: int, observables: int, weights: int) -> Circuit:
    """A circuit of given numbers; what its gates do is of no matter to a twin."""
    gates = [Gate("rx", (0,), Angle(factors=(Factor(i),))) for i in range(features)]
    gates += [Gate("ry", (0,), Angle(weight=i)) for i in range(weights)]
    wires = max(1, observables)
    return Circuit(wires, tuple(gates), tuple("I" * i + "Z" + "I" * (wires - i - 1) for i in range(observables)),
                   features, weights)  # fmt: skip


SIZES = sorted(
    {(n, n, per * depth + extra) for n in range(2, 9) for depth in range(1, 7) for per in (n, 2 * n, 3 * n, 3 * n - 1)
     for extra in (0, n)}
    | {(1, 1, 1), (1, 4, 3), (1, 1, 40), (6, 1, 5), (64, 6, 36), (784, 10, 60), (4, 10, 24), (2, 15, 2), (8, 8, 736)}
)  # fmt: skip


def test_weight_count_inputs_and_outputs_are_the_circuits_at_every_size() -> None:
    for features, observables, weights in SIZES:
        twin = ClassicalTwin(sized(features, observables, weights))
        assert sum(p.numel() for p in twin.parameters()) == weights
        out = twin(3 * torch.rand(5, features))
        assert out.shape == (5, observables)
        assert out.abs().max() <= 1
        assert (out.std(0) > 1e-6).all(), (features, observables, weights)


def test_every_weight_and_every_feature_matters() -> None:
    for features, observables, weights in SIZES:
        torch.manual_seed(0)
        twin = ClassicalTwin(sized(features, observables, weights), dtype=torch.float64)
        x = torch.rand(16, features, dtype=torch.float64, requires_grad=True)
        (twin(x) ** 2).sum().backward()
        assert x.grad is not None
        assert twin.weights.grad is not None
        assert (x.grad.abs().amax(0) > 0).all(), (features, observables, weights)
        assert (twin.weights.grad != 0).all(), (features, observables, weights)


def test_a_twin_without_sharing_is_a_plain_network() -> None:
    features, hidden, observables = 4, 4, 3
    weights = hidden * (features + 1) + observables * (hidden + 1)
    twin = ClassicalTwin(sized(features, observables, weights), dtype=torch.float64)
    w = twin.weights.detach().numpy()
    first, second = w[:20].reshape(4, 5), w[20:].reshape(3, 5)
    x = np.random.default_rng(0).normal(size=(7, 4))
    inner = np.tanh((x @ first[:, :4].T + first[:, 4]) / np.sqrt(5))
    expected = np.tanh((inner @ second[:, :4].T + second[:, 4]) / np.sqrt(5))
    np.testing.assert_allclose(twin(torch.as_tensor(x)).detach(), expected, atol=1e-14)


def test_weights_are_shared_evenly_and_the_same_way_every_time() -> None:
    circuit = sized(64, 6, 36)
    one, two = ClassicalTwin(circuit), ClassicalTwin(circuit)
    assert torch.equal(one.index, two.index)
    assert torch.equal(one.sign, two.sign)
    uses = torch.bincount(one.index, minlength=36)
    assert int(uses.max() - uses.min()) <= 1
    assert int(uses.sum()) == one.connections == 6 * 65 + 6 * 7


@pytest.mark.parametrize("weights", [1, 5, 10, 25])
def test_sharing_leaves_the_outputs_independent(weights: int) -> None:
    """No two outputs are the same or opposite functions, and no direction of the features is lost."""
    torch.manual_seed(1)
    twin = ClassicalTwin(sized(4, 4, weights), dtype=torch.float64)
    x = 3 * torch.rand(200, 4, dtype=torch.float64)
    correlation = torch.corrcoef(twin(x).detach().T)
    assert (correlation - torch.eye(4)).abs().max() < 0.999
    if weights > 1:
        row = x[0].requires_grad_()
        jacobian = torch.stack([torch.autograd.grad(out, row, retain_graph=True)[0] for out in twin(row)])
        assert torch.linalg.matrix_rank(jacobian, rtol=1e-6) == 4


def test_it_learns_a_map_that_is_not_linear() -> None:
    torch.manual_seed(0)
    twin = ClassicalTwin(sized(2, 1, 24), dtype=torch.float64)
    x = torch.tensor([[0.0, 0.0], [0.0, 3.0], [3.0, 0.0], [3.0, 3.0]], dtype=torch.float64)
    y = torch.tensor([[-0.8], [0.8], [0.8], [-0.8]], dtype=torch.float64)
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        loss = ((twin(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01


def test_functional_call_reads_the_given_weights() -> None:
    twin = ClassicalTwin(sized(3, 3, 12))
    x = torch.rand(4, 3)
    moved = functional_call(twin, {"weights": torch.zeros(12)}, (x,))
    assert torch.equal(moved, torch.zeros(4, 3))
    assert not torch.equal(twin(x), moved)


def test_refusals() -> None:
    with pytest.raises(InputError, match="got 0 weights and 3 features"):
        ClassicalTwin(sized(3, 2, 0))
    with pytest.raises(InputError, match="got 4 weights and 0 features"):
        ClassicalTwin(sized(0, 2, 4))
    with pytest.raises(InputError, match=r"expected features of shape \(batch, 3\), got \(2, 4\)"):
        ClassicalTwin(sized(3, 2, 4))(torch.zeros(2, 4))
