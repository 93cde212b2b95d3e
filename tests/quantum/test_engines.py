"""What holds for both engines: exact values, and derivatives of all orders, for any circuit and input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.engines import expectations, find_engine
from tests.quantum.cases import (
    CIRCUITS,
    SMALL,
    circuits,
    draw,
    every_circuit,
    every_engine,
    exact,
    gradients,
    random_circuit,
)

# torch's own forward-mode rules are still made with its deprecated compiler.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Run = Callable[[Tensor, Tensor], Tensor]
types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])


def runner(circuit: Circuit, engine: str) -> Run:
    """The engine on a circuit, as a function of features and weights."""
    return lambda features, weights: expectations(circuit, features, weights, engine)


def near(found: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(found.detach().double(), expected.detach().double(), rtol=0, atol=atol)


def check(circuit: Circuit, engine: str, x: Tensor, w: Tensor, atol: float = 1e-11) -> None:
    """Values and gradients are those of the gate matrices, in the type of the inputs."""
    x, w = x.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()
    wide = [value.detach().double().requires_grad_() for value in (x, w)]
    found, expected = expectations(circuit, x, w, engine), exact(circuit, *wide)
    assert (found.dtype, found.shape) == (x.dtype, expected.shape)
    near(found, expected, atol)
    for mine, true in zip(gradients(found, x, w), gradients(expected, *wide), strict=True):
        near(mine, true, 10 * atol)


# Values and first derivatives.


@every_engine
@pytest.mark.parametrize("seed", range(60))
def test_random_circuits_are_what_the_gate_matrices_say(seed: int, engine: str) -> None:
    circuit = random_circuit(seed)
    check(circuit, engine, *draw(circuit, batch=2))


@settings(max_examples=150)
@given(circuits())
def test_both_engines_agree_on_any_circuit(circuit: Circuit) -> None:
    found = []
    for engine in ("torch", "fused"):
        x, w = (value.requires_grad_() for value in draw(circuit, batch=9))
        values = expectations(circuit, x, w, engine)
        found.append((values, *gradients(values, x, w)))
    for one, other in zip(*found, strict=True):
        near(one, other, 1e-10)


@every_engine
@every_circuit
@types
@pytest.mark.parametrize("batch", [0, 1, 7])
def test_batches_of_any_size(circuit: Circuit, batch: int, dtype: torch.dtype, engine: str) -> None:
    check(circuit, engine, *draw(circuit, batch, dtype), atol=1e-5 if dtype == torch.float32 else 1e-11)


@every_engine
@types
@pytest.mark.parametrize("batch", [15, 16, 17, 64])
@pytest.mark.parametrize("name", ["reupload", "amplitude"])
def test_batches_around_whole_vectors(name: str, batch: int, dtype: torch.dtype, engine: str) -> None:
    circuit = CIRCUITS[name]
    check(circuit, engine, *draw(circuit, batch, dtype), atol=2e-5 if dtype == torch.float32 else 1e-11)


@every_engine
@types
@pytest.mark.parametrize("qubits", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("encoding", ["rx-ry-rz", "zz", "amplitude"])
def test_states_shorter_and_longer_than_a_vector(encoding: str, qubits: int, dtype: torch.dtype, engine: str) -> None:
    """A vector holds 8 or 16 numbers, so that up to 3 or 4 wires lie within one."""
    words = ["".join(word) for word in itertools.islice(itertools.product("ZXYI", repeat=qubits), 0, None, qubits**2)]
    circuit = load_circuit("sim-14", qubits=qubits, depth=2, encoding=encoding, observables=words)
    check(circuit, engine, *draw(circuit, 3, dtype), atol=1e-5 if dtype == torch.float32 else 1e-11)


@every_engine
def test_observables_of_all_letters_in_any_order(engine: str) -> None:
    """All 64 words of three letters: those of I and Z take another way, and come back to their places."""
    words = ["".join(word) for word in itertools.product("XIZY", repeat=3)]
    circuit = load_circuit("sim-06", qubits=3, encoding="ry-rz", observables=words)
    check(circuit, engine, *draw(circuit))
    shuffled = [words[k] for k in torch.randperm(64, generator=torch.Generator().manual_seed(3))]
    again = load_circuit("sim-06", qubits=3, encoding="ry-rz", observables=shuffled)
    values = dict(zip(words, expectations(circuit, *draw(circuit), engine).unbind(-1), strict=True))
    near(expectations(again, *draw(again), engine), torch.stack([values[word] for word in shuffled], -1), 1e-14)
    assert expectations(circuit, *draw(circuit), engine)[:, words.index("III")].tolist() == pytest.approx([1, 1, 1])


@every_engine
def test_the_same_observable_twice(engine: str) -> None:
    circuit = load_circuit("sim-06", qubits=2, observables=["ZI", "XY", "ZI", "XY", "II"])
    check(circuit, engine, *draw(circuit))


@every_engine
@every_circuit
def test_samples_may_have_any_leading_axes_and_do_not_see_each_other(circuit: Circuit, engine: str) -> None:
    x, w = draw(circuit, batch=6)
    together = expectations(circuit, x, w, engine)
    near(together, torch.stack([expectations(circuit, one, w, engine) for one in x]), 1e-14)
    near(expectations(circuit, x.reshape(2, 3, -1), w, engine), together.reshape(2, 3, -1), 1e-14)
    assert expectations(circuit, x[:0], w, engine).shape == (0, len(circuit.observables))
    check(circuit, engine, x[0], w)
    check(circuit, engine, x.reshape(3, 1, 2, -1), w)


@every_engine
def test_tensors_of_any_layout(engine: str) -> None:
    circuit = CIRCUITS["reupload"]
    x, w = draw(circuit, batch=4)
    expected = expectations(circuit, x, w, engine)
    near(expectations(circuit, x.T.contiguous().T, w.repeat_interleave(2)[::2], engine), expected, 0)
    near(expectations(circuit, x[:1].expand(5, -1), w, engine), expected[:1].expand(5, -1), 1e-14)
    near(expectations(circuit, torch.complex(x, -x).conj().imag, w, engine), expected, 0)


@every_engine
def test_a_tensor_that_is_negated_on_reading(engine: str) -> None:
    circuit = Circuit(1, (Gate("ry", (0,), Angle(factors=(Factor(0),))),), ("X",), 1, 0)
    lazily = torch.tensor([[1 + 0.3j]], dtype=torch.complex128).conj().imag
    assert lazily.is_neg()
    assert expectations(circuit, lazily, torch.empty(0), engine).item() == pytest.approx(-math.sin(0.3))


# What is missing, or does not matter.

ZERO, ONE = Angle(weight=0), Angle(factors=(Factor(0),))


@every_engine
@pytest.mark.parametrize(
    "circuit",
    [
        Circuit(2, (), ("ZI", "XY"), 0, 0),
        Circuit(2, (), ("ZI", "XY"), 2, 3),
        Circuit(2, (), ("ZI", "XY", "IX"), 3, 0, amplitude=True),
        Circuit(2, (Gate("ry", (1,), ZERO),), ("IZ", "IX"), 0, 1),
        Circuit(2, (Gate("ry", (1,), ONE),), ("IZ", "IX"), 1, 0),
        Circuit(2, (Gate("h", (0,)), Gate("cx", (0, 1))), ("ZZ", "XX", "YY"), 0, 0),
        Circuit(6, (Gate("ry", (5,), ZERO),), ("IIIIIZ", "ZIIIII"), 0, 1),
        Circuit(1, (Gate("ry", (0,), Angle(3.0, offset=0.4)),), ("Z", "X"), 1, 1),  # a constant, whatever the scale
    ],
    ids=["nothing", "no gates", "no gates, amplitudes", "no features", "no weights", "neither", "idle", "constant"],
)
def test_circuits_that_lack_something(circuit: Circuit, engine: str) -> None:
    check(circuit, engine, *draw(circuit))


@every_engine
def test_what_reaches_nothing_has_a_gradient_of_exactly_zero(engine: str) -> None:
    circuit = load_circuit("ring-cz", qubits=4, depth=2)
    x, w = (value.requires_grad_() for value in draw(circuit))
    torch.autograd.backward(expectations(circuit, x, w, engine).sum())
    assert w.grad is not None
    dead = torch.arange(12 + 2, 24, 3)  # the RZ of the last layer
    assert torch.equal(w.grad[dead], torch.zeros(4, dtype=torch.float64))
    assert bool((w.grad[: 12 + 2].abs() > 1e-6).all())

    cone = load_circuit("ring-cz", qubits=4, depth=1, entanglement="none", observables=["IZII"])
    x, w = (value.requires_grad_() for value in draw(cone))
    torch.autograd.backward(expectations(cone, x, w, engine).sum())
    assert x.grad is not None
    assert x.grad[:, [0, 2, 3]].abs().max() == 0
    assert x.grad[:, 1].abs().min() > 1e-6


@every_engine
def test_a_circuit_that_depends_on_nothing_still_has_gradients_and_a_batch(engine: str) -> None:
    gates = (Gate("rz", (0,), Angle(weight=0)), Gate("rz", (1,), Angle(factors=(Factor(0),))))
    x, w = torch.ones(3, 1, requires_grad=True), torch.ones(1, requires_grad=True)
    values = expectations(Circuit(2, gates, ("ZI", "IZ"), 1, 1), x, w, engine)
    assert values.tolist() == [[1, 1]] * 3
    torch.autograd.backward(values.sum())
    assert (x.grad is None or not x.grad.any(), w.grad is None or not w.grad.any()) == (True, True)


@every_engine
def test_a_turn_that_is_nearly_nothing_is_kept(engine: str) -> None:
    circuit = Circuit(1, (Gate("h", (0,)), Gate("p", (0,), Angle(offset=1e-7))), ("Y",), 0, 0)
    values = expectations(circuit, torch.empty(1, 0, dtype=torch.float64), torch.empty(0).double(), engine)
    assert values.item() == pytest.approx(1e-7, rel=1e-6)


@every_engine
@pytest.mark.parametrize(("trained", "fixed"), [(0, 1), (1, 0)], ids=["features", "weights"])
@pytest.mark.parametrize(
    "circuit",
    [*CIRCUITS.values(), SMALL, replace(SMALL, amplitude=True)],
    ids=[*CIRCUITS, "shared", "amplitudes and angles"],
)
def test_one_of_features_and_weights_may_be_all_that_is_differentiated(
    circuit: Circuit, trained: int, fixed: int, engine: str
) -> None:
    leaves = list(draw(circuit))
    leaves[trained].requires_grad_()
    values = expectations(circuit, leaves[0], leaves[1], engine)
    expected = gradients(exact(circuit, leaves[0], leaves[1]), leaves[trained])
    near(gradients(values, leaves[trained])[0], expected[0], 1e-11)
    assert leaves[fixed].grad is None


# Types and modes.


@every_engine
@every_circuit
@types
def test_the_type_of_the_inputs_is_that_of_everything(circuit: Circuit, dtype: torch.dtype, engine: str) -> None:
    x, w = (value.requires_grad_() for value in draw(circuit, dtype=dtype))
    values = expectations(circuit, x, w, engine)
    assert {t.dtype for t in (values, *gradients(values, x, w))} == {dtype}


@every_engine
@pytest.mark.parametrize(
    ("features", "weights", "result"),
    [
        (torch.float32, torch.float64, torch.float64),
        (torch.float64, torch.float32, torch.float64),
        (torch.int64, torch.float32, torch.float32),
        (torch.float16, torch.float32, torch.float32),
        (torch.bfloat16, torch.float16, torch.float32),
    ],
)
def test_the_wider_type_wins(features: torch.dtype, weights: torch.dtype, result: torch.dtype, engine: str) -> None:
    circuit = CIRCUITS["ring-cz"]
    x, w = (value.to(dtype) for value, dtype in zip(draw(circuit), (features, weights), strict=True))
    assert expectations(circuit, x, w, engine).dtype == result
    near(expectations(circuit, x, w, engine), exact(circuit, x.double(), w.double()), 1e-5)
    if features.is_floating_point:
        x, w = x.requires_grad_(), w.requires_grad_()
        found = gradients(expectations(circuit, x, w, engine), x, w)
        assert [g.dtype for g in found] == [features, weights]


@every_engine
def test_no_grad_and_inference_mode(engine: str) -> None:
    circuit = CIRCUITS["iqp"]
    x, w = (value.requires_grad_() for value in draw(circuit))
    expected = expectations(circuit, x, w, engine)
    assert expected.requires_grad
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            values = expectations(circuit, x, w, engine)
        assert not values.requires_grad
        assert torch.equal(values, expected)


@every_engine
def test_constants_made_under_inference_mode_serve_training(engine: str) -> None:
    circuit = load_circuit("sim-06", qubits=2, depth=5)  # a size that no other test compiles
    x, w = draw(circuit, dtype=torch.float32)
    with torch.inference_mode():
        expectations(circuit, x, w, engine)
    w.requires_grad_()
    torch.autograd.backward(expectations(circuit, x, w, engine).sum())
    assert w.grad is not None


@every_engine
@pytest.mark.parametrize("transform", [grad, hessian, jacfwd])
def test_constants_made_inside_a_transform_serve_outside(transform: Callable[..., Any], engine: str) -> None:
    depth = 6 + [grad, hessian, jacfwd].index(transform) + 3 * (engine == "fused")
    circuit = load_circuit("sim-06", qubits=2, depth=depth)  # sizes that no other test compiles
    x, w = draw(circuit)

    def loss(weights: Tensor, sample: Tensor) -> Tensor:
        return expectations(circuit, sample, weights, engine).sum()

    inside = vmap(transform(loss), in_dims=(None, 0))(w, x)
    assert inside.isfinite().all()
    assert torch.autograd.gradcheck(lambda weights: expectations(circuit, x, weights, engine), (w.requires_grad_(),))


# Amplitudes.


@every_engine
@pytest.mark.parametrize("features", [1, 2, 5, 8])
def test_amplitudes_are_padded_normalised_and_differentiated(features: int, engine: str) -> None:
    circuit = load_circuit("sim-13", qubits=3, encoding="amplitude", features=features, observables=["ZII", "XYI"])
    check(circuit, engine, *draw(circuit, batch=5))


@every_engine
@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e30])
def test_amplitude_encoding_neither_overflows_nor_vanishes(factor: float, engine: str) -> None:
    circuit = CIRCUITS["amplitude"]
    x, w = draw(circuit, dtype=torch.float32)
    plain = expectations(circuit, x, w, engine)
    scaled = (x * factor).requires_grad_()
    values = expectations(circuit, scaled, w, engine)
    near(values, plain, 1e-5)
    torch.autograd.backward(values.sum())
    assert scaled.grad is not None
    assert bool(scaled.grad.isfinite().all())


@every_engine
def test_the_zero_vector_is_refused_with_its_sample(engine: str) -> None:
    x, w = draw(CIRCUITS["amplitude"])
    x[2] = 0
    with pytest.raises(InputError, match="got a zero vector as sample 2; remove it"):
        expectations(CIRCUITS["amplitude"], x, w, engine)
    inside = vmap(lambda sample: expectations(CIRCUITS["amplitude"], sample, w, engine))(x)
    assert inside.isnan().any(1).tolist() == [False, False, True]  # values cannot be looked at there


@every_engine
@pytest.mark.parametrize(("qubits", "size"), [(50, r"e\+09"), (2000, r"2\*\*1980")])
def test_more_qubits_than_memory_allows_are_refused_before_anything_is_allocated(
    qubits: int, size: str, engine: str
) -> None:
    circuit = Circuit(qubits, (Gate("ry", (0,), Angle(weight=0)),), ("Z" + "I" * (qubits - 1),), 0, 1)
    message = rf"got {qubits} qubits and a batch of 64: three times 64 \* 2\*\*{qubits} \* 8 bytes .*{size}.* GiB"
    with pytest.raises(InputError, match=message):
        expectations(circuit, torch.empty(64, 0), torch.zeros(1), engine)


# Derivatives of every order, by autograd and by torch.func.


@every_engine
@every_circuit
def test_first_and_second_derivatives_are_those_of_finite_differences(circuit: Circuit, engine: str) -> None:
    x, w = (value.requires_grad_() for value in draw(circuit, batch=2))
    run = runner(circuit, engine)
    # Batched gradients by is_grads_batched are the torch engine's alone.
    assert torch.autograd.gradcheck(run, (x, w), check_forward_ad=True, check_batched_grad=engine == "torch")
    assert torch.autograd.gradgradcheck(run, (x[:1].detach().requires_grad_(), w), atol=1e-4)


def _loss(run: Run) -> Run:
    return lambda x, w: (run(x, w).square().sum() + run(x, w).sum()) * 0.5


def _slope(run: Run, x: Tensor, w: Tensor) -> Tensor:
    """The gradient of the loss by weights, with a graph."""
    return torch.autograd.grad(_loss(run)(x, w), w, create_graph=True)[0]


def _leaf(value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_()


def _double_backward(run: Run, x: Tensor, w: Tensor) -> Tensor:
    a, b = _leaf(x), _leaf(w)
    return torch.cat([g.flatten() for g in torch.autograd.grad(_slope(run, a, b).square().sum(), (a, b))])


def _triple_backward(run: Run, x: Tensor, w: Tensor) -> Tensor:
    a, b = _leaf(x), _leaf(w)
    second = torch.autograd.grad(_slope(run, a, b).square().sum(), b, create_graph=True)[0]
    return torch.cat([g.flatten() for g in torch.autograd.grad(second.square().sum(), (a, b))])


def _autograd_over_vmap(run: Run, x: Tensor, w: Tensor) -> Tensor:
    leaves = _leaf(torch.stack([w, w + 0.3]))
    values = vmap(lambda one: run(x, one))(leaves)
    return torch.autograd.grad(values.square().sum(), leaves)[0]


def _double_backward_over_vmap(run: Run, x: Tensor, w: Tensor) -> Tensor:
    leaves = _leaf(torch.stack([w, w + 0.3]))
    values = vmap(lambda one: run(x, one))(leaves)
    (slopes,) = torch.autograd.grad(values.square().sum(), leaves, create_graph=True)
    return torch.autograd.grad(slopes.square().sum(), leaves)[0]


def _penalty(run: Run, x: Tensor, w: Tensor) -> Tensor:
    """Per sample, the gradient of the squared length of a gradient."""
    loss = grad(_loss(run), argnums=1)
    rows: Tensor = vmap(grad(lambda weights, sample: loss(sample, weights).square().sum()), in_dims=(None, 0))(w, x)
    return rows


#: Each takes a function of features (3, 2) and weights (2,), and gives a tensor.
TRANSFORMS: dict[str, Callable[[Run, Tensor, Tensor], Tensor]] = {
    "grad": lambda run, x, w: grad(_loss(run), argnums=1)(x, w),
    "grad by features": lambda run, x, w: grad(_loss(run))(x, w),
    "vjp": lambda run, x, w: torch.cat([g.flatten() for g in vjp(run, x, w)[1](run(x, w).cos())]),
    "jvp": lambda run, x, w: jvp(run, (x, w), (x.cos(), w.sin()))[1],
    "jvp by features": lambda run, x, w: jvp(lambda a: run(a, w), (x,), (x.cos(),))[1],
    "jacrev": lambda run, x, w: jacrev(run, argnums=1)(x, w),
    "jacrev by features": lambda run, x, w: jacrev(run)(x, w),
    "jacfwd": lambda run, x, w: jacfwd(run, argnums=1)(x, w),
    "jacfwd by features": lambda run, x, w: jacfwd(run)(x, w),
    "vmap over samples": lambda run, x, w: vmap(run, in_dims=(0, None))(x, w),
    "vmap over weights": lambda run, x, w: vmap(run, in_dims=(None, 0))(x, torch.stack([w, w + 1])),
    "vmap over both": lambda run, x, w: vmap(run)(x, torch.stack([w, w + 1, w - 1])),
    "vmap over both with batches": lambda run, x, w: vmap(run)(torch.stack([x, -x]), torch.stack([w, w + 1])),
    "vmap over other axes": lambda run, x, w: vmap(run, in_dims=(1, 1), out_dims=2)(
        torch.stack([x, -x], 1), torch.stack([w, w + 1], 1)
    ),
    "vmap in vmap": lambda run, x, w: vmap(vmap(run, in_dims=(0, None)), in_dims=(None, 0))(x, torch.stack([w, w + 1])),
    "vmap in vmap, both ways": lambda run, x, w: vmap(vmap(run), in_dims=(None, 0))(
        x, torch.stack([torch.stack([w, w + 1, w - 1]), torch.stack([w, -w, 2 * w])])
    ),
    "vmap of grad": lambda run, x, w: vmap(grad(_loss(run), argnums=1), in_dims=(0, None))(x, w),
    "vmap of grad by both": lambda run, x, w: torch.cat(
        vmap(grad(_loss(run), argnums=(0, 1)), in_dims=(0, None))(x, w), 1
    ),
    "vmap of grad over weights": lambda run, x, w: torch.cat(
        [g.flatten() for g in vmap(grad(_loss(run), argnums=(0, 1)), in_dims=(None, 0))(x, torch.stack([w, w + 1]))]
    ),
    "vmap of vmap of grad": lambda run, x, w: vmap(
        vmap(grad(_loss(run), argnums=1), in_dims=(0, None)), in_dims=(None, 0)
    )(x, torch.stack([w, w + 1])),
    "vmap of jvp": lambda run, x, w: vmap(lambda a: jvp(lambda b: run(a, b), (w,), (w.sin(),))[1])(x),
    "vmap of jacrev": lambda run, x, w: vmap(jacrev(run, argnums=1), in_dims=(0, None))(x, w),
    "vmap of jacfwd": lambda run, x, w: vmap(jacfwd(run, argnums=1), in_dims=(0, None))(x, w),
    "grad of vmap": lambda run, x, w: grad(lambda b: vmap(_loss(run), in_dims=(0, None))(x, b).square().sum())(w),
    "jacrev of vmap": lambda run, x, w: jacrev(lambda b: vmap(run, in_dims=(0, None))(x, b))(w),
    "jvp of vmap": lambda run, x, w: jvp(lambda b: vmap(run, in_dims=(0, None))(x, b), (w,), (w.sin(),))[1],
    "jvp of grad": lambda run, x, w: jvp(lambda b: grad(_loss(run), argnums=1)(x, b), (w,), (w.sin(),))[1],
    "hessian": lambda run, x, w: hessian(_loss(run), argnums=1)(x, w),
    "hessian by features": lambda run, x, w: hessian(_loss(run))(x, w),
    "hessian of values": lambda run, x, w: hessian(run, argnums=1)(x, w),
    "vmap of hessian": lambda run, x, w: vmap(hessian(_loss(run), argnums=1), in_dims=(0, None))(x, w),
    "vmap of hessian over weights": lambda run, x, w: vmap(hessian(_loss(run), argnums=1), in_dims=(None, 0))(
        x, torch.stack([w, w + 1])
    ),
    "jacrev of jacrev": lambda run, x, w: jacrev(jacrev(_loss(run), argnums=1), argnums=0)(x, w),
    "jacrev of jacfwd": lambda run, x, w: jacrev(jacfwd(_loss(run), argnums=1), argnums=1)(x, w),
    "third derivative": lambda run, x, w: jacrev(hessian(_loss(run), argnums=1), argnums=1)(x, w),
    "third derivative by jvp": lambda run, x, w: jacfwd(jacrev(jacrev(_loss(run), argnums=1)), argnums=1)(x, w),
    "double backward": _double_backward,
    "triple backward": _triple_backward,
    "autograd over vmap": _autograd_over_vmap,
    "double backward over vmap": _double_backward_over_vmap,
    "penalty": _penalty,
}
small = {"angles": SMALL, "amplitudes": replace(SMALL, amplitude=True)}


@every_engine
@pytest.mark.parametrize("circuit", small.values(), ids=small)
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_are_those_of_the_gate_matrices(
    transform: Callable[[Run, Tensor, Tensor], Tensor], circuit: Circuit, engine: str
) -> None:
    x, w = draw(circuit)
    found, expected = transform(runner(circuit, engine), x, w), transform(lambda a, b: exact(circuit, a, b), x, w)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_engines_are_found_by_name() -> None:
    with pytest.raises(UnknownNameError, match="engine, got 'fsed'; did you mean 'fused'"):
        find_engine("fsed")
    with pytest.raises(UnknownNameError, match="engine, got 'Torch'"):
        find_engine("Torch")
