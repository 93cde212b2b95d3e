"""What turns `run` into a differentiable function: shifts, SPSA, transforms, counts."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

from qunlearn.errors import InputError, NumericalError, QunlearnError, UnknownNameError, UnsupportedError
from qunlearn.quantum.backends import open_circuit
from qunlearn.quantum.backends.opened import Floats
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.engines import torch_engine
from qunlearn.quantum.gates import GATES
from tests.quantum.backends.cases import Exact, both, worst
from tests.quantum.cases import CIRCUITS, SMALL, circuits, draw, every_circuit

# torch's own forward-mode rules are still made with its deprecated compiler.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Function = Callable[[Tensor, Tensor], Tensor]


@every_circuit
def test_values_and_gradients_are_exact_in_one_job(circuit: Circuit) -> None:
    backend, opened = Exact(), open_circuit(circuit)
    assert worst(both(circuit, backend, *draw(circuit))) < 1e-10
    shifts = sum(len(opened.shifted[k]) for k in opened.positions(features=True, weights=True))
    assert backend.rows == [3 * (1 + shifts)]


@given(circuits())
@settings(max_examples=25)
def test_any_circuit_is_differentiated_exactly(circuit: Circuit) -> None:
    if circuit.amplitude and any(gate.angle and gate.angle.factors for gate in circuit.gates):
        return  # refused, see the tests of opening
    assert worst(both(circuit, Exact(), *draw(circuit, 2))) < 1e-8


@pytest.mark.parametrize("name", [name for name, spec in GATES.items() if spec.has_angle])
def test_the_shift_rule_holds_for_every_occurrence_of_every_gate(name: str) -> None:
    wires = (0, 1)[: GATES[name].wires]
    angles = (
        Angle(weight=0),
        Angle(0.7, (Factor(0), Factor(1, -1.0, math.pi)), 0, 0.1),  # scaled, a product, the same weight again
        Angle(-1.3, (Factor(0),)),
        Angle(2.0, (Factor(1), Factor(1)), 1),
    )
    gates = [Gate("ry", (0,), Angle(offset=0.4)), Gate("ry", (1,), Angle(offset=1.9)), Gate("cx", (1, 0))]
    for number, angle in enumerate(angles):
        gates += [Gate(name, wires[::-1] if number % 2 else wires, angle), Gate("h", (number % 2,)), Gate("cx", (0, 1))]
    circuit = Circuit(2, tuple(gates), ("XY", "ZI", "IZ"), 2, 2)
    backend = Exact()
    assert worst(both(circuit, backend, *draw(circuit))) < 1e-10
    live = sum(map(bool, open_circuit(circuit).rules))
    assert backend.rows == [3 * (1 + live * len(GATES[name].shift_rule))]


@pytest.mark.parametrize("zeros", [[1, 2, 3], [2, 3, 4], [0, 1, 2, 3], [0, 1, 2, 3, 4][1:], []])
def test_amplitudes_that_are_zero_have_their_derivatives(zeros: list[int]) -> None:
    circuit = CIRCUITS["amplitude"]
    x, w = draw(circuit)
    x[:, zeros] = 0
    assert worst(both(circuit, Exact(), x, w)) < 1e-10


def test_a_sample_of_zeros_is_refused() -> None:
    x, w = draw(CIRCUITS["amplitude"])
    with pytest.raises(InputError, match="got a zero vector as sample 1"):
        Exact().expectations(CIRCUITS["amplitude"], x * torch.tensor([[1.0], [0.0], [1.0]]), w)


def test_only_what_is_wanted_is_shifted() -> None:
    circuit, opened = CIRCUITS["zz"], open_circuit(CIRCUITS["zz"])
    for features, weights in ((True, False), (False, True)):
        backend, (x, w) = Exact(), draw(circuit)
        backend.expectations(circuit, x.requires_grad_(features), w.requires_grad_(weights)).sum().backward()  # type: ignore[no-untyped-call]
        positions = opened.positions(features=features, weights=weights)
        assert backend.rows == [3 * (1 + sum(len(opened.rules[k]) for k in positions))]


def test_nothing_is_shifted_where_no_gradient_is_wanted() -> None:
    backend, (x, w) = Exact(), draw(SMALL)
    backend.expectations(SMALL, x, w)
    with torch.no_grad():
        backend.expectations(SMALL, x, w.clone().requires_grad_())
    with torch.inference_mode():
        backend.expectations(SMALL, x, w)
    vmap(lambda one: backend.expectations(SMALL, one, w))(x)
    assert backend.rows == [3] * 4


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 3), (0,), (2, 0)])
def test_any_leading_axes(shape: tuple[int, ...]) -> None:
    backend, w = Exact(), draw(SMALL)[1]
    x = torch.linspace(-1, 1, math.prod(shape) * 2, dtype=torch.float64).reshape(*shape, 2)
    assert worst(both(SMALL, backend, x, w)) < 1e-10
    assert len(backend.rows) == (math.prod(shape) > 0)
    assert backend.spent.jobs == len(backend.rows)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_types_are_kept_and_the_wider_wins(kind: torch.dtype) -> None:
    x, w = draw(SMALL)
    found = Exact().expectations(SMALL, x.to(kind), w.to(torch.float32))
    assert found.dtype == kind
    assert torch.allclose(found.double(), torch_engine.expectations(SMALL, x, w), atol=1e-5)


TRANSFORMS: dict[str, tuple[int, Callable[[Function, Tensor, Tensor], Any]]] = {
    "vmap(grad)": (1, lambda f, x, w: vmap(grad(lambda a, b: f(a, b).sin().sum(), (0, 1)), (0, None))(x, w)),
    "grad(vmap)": (1, lambda f, x, w: grad(lambda b: vmap(lambda a: f(a, b))(x).square().sum())(w)),
    "vmap over weights": (1, lambda f, x, w: vmap(grad(lambda b: f(x, b).square().sum()))(torch.stack([w, w + 1]))),
    "vmap over both": (1, lambda f, x, w: vmap(f)(x, torch.stack([w, w + 1, w - 1]))),
    "vmap(vmap)": (1, lambda f, x, w: vmap(lambda b: vmap(lambda a: f(a, b))(x))(torch.stack([w, 2 * w]))),
    "jacrev": (1, lambda f, x, w: jacrev(f, (0, 1))(x, w)),
    "jacfwd": (1, lambda f, x, w: jacfwd(f, (0, 1))(x, w)),
    "jvp": (1, lambda f, x, w: jvp(f, (x, w), (torch.ones_like(x), torch.ones_like(w)))),
    "hessian": (2, lambda f, x, w: hessian(lambda b: f(x, b))(w)),
    "jacrev(jacrev)": (2, lambda f, x, w: jacrev(jacrev(f, 0), 1)(x, w)),
    "jacrev(jacfwd)": (2, lambda f, x, w: jacrev(jacfwd(lambda b: f(x, b)))(w)),
    "vmap(hessian)": (2, lambda f, x, w: vmap(hessian(lambda a: f(a, w)))(x)),
    "third": (3, lambda f, x, w: jacrev(jacrev(jacrev(lambda b: f(x, b).sum())))(w)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_gives_what_the_reference_gives(name: str) -> None:
    jobs, transform = TRANSFORMS[name]
    backend, (x, w) = Exact(), draw(SMALL)
    found = transform(lambda a, b: backend.expectations(SMALL, a, b), x, w)
    exact = transform(lambda a, b: torch_engine.expectations(SMALL, a, b), x, w)
    pairs = zip(found, exact, strict=True) if isinstance(found, tuple) else [(found, exact)]
    assert all(torch.allclose(mine, theirs, rtol=0, atol=1e-9) for mine, theirs in pairs)
    assert len(backend.rows) == jobs  # one more for every order above the first


def test_double_backward() -> None:
    results = []
    for run in (Exact().expectations, torch_engine.expectations):
        x, w = (value.requires_grad_() for value in draw(SMALL))
        slopes = torch.autograd.grad(run(SMALL, x, w).square().sum(), (x, w), create_graph=True)
        results.append(torch.autograd.grad(sum(s.square().sum() for s in slopes), (x, w)))  # type: ignore[arg-type]
    assert worst((list(results[0]), list(results[1]))) < 1e-9


def test_autograd_checks_checkpoints_and_batched_gradients() -> None:
    backend, (x, w) = Exact(), (value.requires_grad_() for value in draw(SMALL, 2))

    def run(features: Tensor, weights: Tensor) -> Tensor:
        return backend.expectations(SMALL, features, weights)

    assert torch.autograd.gradcheck(run, (x, w), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, (x, w))
    plain, again = (
        torch.autograd.grad(found.sum(), w) for found in (run(x, w), checkpoint(run, x, w, use_reentrant=False))
    )
    assert torch.equal(plain[0], again[0])


def test_no_grad_outside_a_transform_leaves_it_alone() -> None:
    x, w = draw(SMALL)
    with torch.no_grad():
        found = grad(lambda b: Exact().expectations(SMALL, x, b).sin().sum())(w)
        exact = grad(lambda b: torch_engine.expectations(SMALL, x, b).sin().sum())(w)
    assert torch.allclose(found, exact, rtol=0, atol=1e-10)


def test_amplitudes_have_second_derivatives_too() -> None:
    circuit = CIRCUITS["amplitude"]
    x, w = draw(circuit, 1)
    x[0, 1:3] = 0
    found = hessian(lambda a: Exact().expectations(circuit, a, w).sum())(x)
    exact = hessian(lambda a: torch_engine.expectations(circuit, a, w).sum())(x)
    assert torch.allclose(found, exact, rtol=0, atol=1e-9)


def test_forward_mode_inside_forward_mode_is_refused() -> None:
    x, w = draw(SMALL)
    with pytest.raises(UnsupportedError, match=r"expected at most one forward-mode derivative.*backend 'exact'"):
        jacfwd(jacfwd(lambda b: Exact().expectations(SMALL, x, b)))(w)


def _spsa(circuit: Circuit, **options: Any) -> tuple[Exact, Tensor]:
    """A backend, and its derivatives of the sum of all values by the features of many equal samples."""
    backend, (x, w) = Exact(gradient="spsa", **options), draw(circuit, 1)
    many = x.expand(4000, -1).clone().requires_grad_()
    (slopes,) = torch.autograd.grad(backend.expectations(circuit, many, w).sum(), many)
    return backend, slopes


def test_spsa_is_unbiased() -> None:
    backend, slopes = _spsa(SMALL, step=0.02)
    x, w = draw(SMALL, 1)
    (exact,) = torch.autograd.grad(torch_engine.expectations(SMALL, x.requires_grad_(), w).sum(), x)
    errors = slopes.std(0) / len(slopes) ** 0.5
    assert ((slopes.mean(0) - exact[0]).abs() < 4 * errors).all()
    assert backend.rows == [4000 * 3]  # one job: each sample, ahead and behind
    assert len(torch.unique(slopes.round(decimals=6), dim=0)) > 2  # every sample draws its own perturbation


def test_repetitions_of_spsa_divide_the_variance() -> None:
    (one, few), (nine, many) = _spsa(SMALL), _spsa(SMALL, repetitions=9)
    ratio = few.var(0) / many.var(0)
    assert nine.rows == [4000 * 19]
    assert one.spent.circuits == 4000 * 3
    assert ((ratio > 7.5) & (ratio < 10.8)).all()  # a variance of 4000 has a relative error of some 2 %


def test_spsa_draws_anew_at_every_call_and_is_repeated_by_its_seed() -> None:
    def slopes(backend: Exact) -> Tensor:
        x, w = draw(SMALL)
        found: Tensor = grad(lambda b: backend.expectations(SMALL, x, b).sum())(w)
        return found

    first, second = Exact(gradient="spsa", seed=3), Exact(gradient="spsa", seed=3)
    runs = [slopes(first), slopes(first)]
    assert not torch.equal(*runs)
    assert torch.equal(runs[0], slopes(second))
    assert not torch.equal(runs[0], slopes(Exact(gradient="spsa", seed=4)))


def test_spsa_has_no_second_derivatives() -> None:
    x, w = draw(SMALL)
    with pytest.raises(UnsupportedError, match="expected first derivatives only with gradient='spsa'"):
        hessian(lambda b: Exact(gradient="spsa").expectations(SMALL, x, b).sum())(w)


def test_every_job_has_a_seed_of_its_own() -> None:
    backend = Exact(seed=5)
    seeds = [backend.child_seed() for _ in range(200)]
    assert len(set(seeds)) == 200
    assert [Exact(seed=5).child_seed(), Exact(seed=6).child_seed() == seeds[0]] == [seeds[0], False]
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_copies_share_the_backend_and_pickles_do_not() -> None:
    backend = Exact(shots=7, seed=2)
    assert copy.deepcopy({"a": backend})["a"] is backend
    again = pickle.loads(pickle.dumps(backend))
    assert (again.shots, again.seed, repr(again)) == (7, 2, "Exact('exact', shots=7)")


def test_what_is_spent_is_counted() -> None:
    backend, (x, w) = Exact(shots=10), draw(CIRCUITS["paulis"])
    backend.expectations(CIRCUITS["paulis"], x, w)
    # XYZ, ZIZ and IYI are measured in two bases.
    assert (backend.spent.jobs, backend.spent.circuits, backend.spent.executions) == (1, 6, 60)
    assert Exact().circuits_per_row(CIRCUITS["paulis"]) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shots": 0}, InputError, "expected at least 1 shot, or None for exact values, got 0"),
        ({"shots": 1.5}, InputError, "expected at least 1 shot"),
        ({"shots": True}, InputError, "expected at least 1 shot"),
        ({"gradient": "parameter-shif"}, UnknownNameError, "did you mean 'parameter-shift'"),
        ({"gradient": "device"}, UnsupportedError, "expected gradient 'parameter-shift' or 'spsa' on 'exact'"),
        ({"repetitions": 0}, InputError, "expected repetitions of at least 1"),
        ({"step": 0.0}, InputError, "a step above 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Exact(**options)


def test_angles_that_are_not_finite_are_named_before_they_are_sent() -> None:
    x, w = draw(SMALL)
    x[1, 0] = torch.nan
    backend = Exact()
    with pytest.raises(NumericalError, match="expected finite angles for 'exact', got one that is not in row 1"):
        backend.expectations(SMALL, x, w)
    assert backend.spent.jobs == 0


def test_values_of_another_shape_are_refused() -> None:
    class Wrong(Exact):
        def run(self, circuit: Circuit, angles: Floats) -> Floats:
            return np.zeros((len(angles), 1))

    with pytest.raises(QunlearnError, match=r"expected values of shape \(3, 3\) from backend 'exact', got \(3, 1\)"):
        Wrong().expectations(SMALL, *draw(SMALL))
