"""Our dropout against torch's, and streams against generators one by one."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from qunlearn.errors import InputError
from qunlearn.models.dropout import Dropout, dropping
from qunlearn.models.stream import Stream

X = torch.linspace(0.5, 2.0, 600, dtype=torch.float64).reshape(3, 20, 10)


def generators(number: int = 3) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(number)]


def torch_dropout(p: float, x: Tensor, seed: int) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found: Tensor = nn.Dropout(p)(x)
    return found


def in_vmap(function: object, stream: Stream, *rows: Tensor) -> Tensor:
    """The function of each row, with the stream told which one."""

    def one(index: Tensor, *row: Tensor) -> Tensor:
        stream.index = index
        return function(*row)  # type: ignore[operator, no-any-return]

    try:
        return vmap(one)(torch.arange(len(stream.generators)), *rows)
    finally:
        stream.index = None


@pytest.mark.parametrize("p", [0.0, 0.2, 0.7, 1.0])
def test_it_is_torch_s_dropout_outside_a_stream_and_in_one(p: float) -> None:
    ours, wanted = Dropout(p), torch_dropout(p, X[0], 1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert torch.equal(ours(X[0]), wanted)
    before = torch.random.get_rng_state()
    with dropping(ours, Stream(torch.Generator().manual_seed(1))):
        assert torch.equal(ours(X[0]), wanted)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(ours.eval()(X[0]), X[0])


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_every_replica_draws_its_own_masks_inside_vmap(p: float) -> None:
    """Also where it is differentiated inside, and twice in a row."""
    ours, stream = Dropout(p), Stream(*generators())

    def twice(x: Tensor) -> Tensor:
        return torch.stack([ours(x), grad(lambda z: (ours(z) * z).sum() / 2)(x)])

    with dropping(ours, stream):
        found = in_vmap(twice, stream, X)
    for row in range(3):
        with torch.random.fork_rng():
            torch.manual_seed(row)
            wanted = torch.stack([nn.Dropout(p)(X[row]), nn.Dropout(p)(X[row])])
        assert torch.allclose(found[row], wanted, atol=1e-12)


def test_masks_are_constants_of_the_gradient() -> None:
    x = X[0].clone().requires_grad_()
    ours = Dropout(0.5)
    with dropping(ours, Stream(torch.Generator().manual_seed(0))):
        out = ours(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.allclose(gradient * x.detach(), out.detach())


def test_a_stream_draws_what_its_generator_would() -> None:
    like, labels = torch.empty(4, 5, dtype=torch.float32), torch.empty(6, dtype=torch.int64)
    stream, (own, *_) = Stream(generators()[0]), generators()
    assert torch.equal(stream.normal(like), torch.randn(4, 5, generator=own))
    assert torch.equal(stream.integers(1, 4, labels), torch.randint(1, 4, (6,), generator=own))
    drawn = stream.bernoulli(0.25, torch.empty(40_000))
    assert bool(((drawn == 0) | (drawn == 1)).all())
    assert float(drawn.mean()) == pytest.approx(0.25, abs=0.011), "5 standard errors"


def test_inside_vmap_a_row_is_what_its_generator_gives_alone() -> None:
    stream = Stream(*generators())
    rows = torch.zeros(3, 4, dtype=torch.float64)
    found = in_vmap(lambda row: stream.normal(row), stream, rows)
    assert torch.equal(found, torch.stack([torch.randn(4, generator=g, dtype=torch.float64) for g in generators()]))
    stream = Stream(*generators())
    labels = in_vmap(lambda row: stream.integers(0, 9, row), stream, torch.zeros(3, 50, dtype=torch.int64))
    assert torch.equal(labels, torch.stack([torch.randint(9, (50,), generator=g) for g in generators()]))


def test_the_stream_is_gone_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Dropout(0.5))
    with pytest.raises(RuntimeError, match="stop"), dropping(model, Stream(*generators())):
        raise RuntimeError("stop")
    assert copy.deepcopy(model)[1].stream is None
    assert pickle.loads(pickle.dumps(model))[1].p == 0.5


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_shares_outside_0_to_1_are_refused(p: float) -> None:
    with pytest.raises(InputError, match="expected p from 0 to 1"):
        Dropout(p)
    assert "p=0.2" in repr(Dropout(0.2))
