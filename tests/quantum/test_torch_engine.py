"""The torch engine: exact, in the precision asked for, differentiable to any order, in few steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.engines import expectations, find_engine, memory, state
from qunlearn.quantum.engines.program import compile_circuit
from qunlearn.quantum.engines.schedule import REWRITE
from qunlearn.quantum.gates import GATES, PAULI, Matrix

# torch's own forward-mode rules are still made with its deprecated compiler.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

# Every kind of step: product states, fixed and turning phases, permutations, changes of basis, amplitudes.
CIRCUITS: dict[str, Circuit] = {
    "ring-cz": load_circuit("ring-cz", qubits=3, depth=2),
    "reupload": load_circuit("reupload", qubits=3, depth=2),
    "zz": load_circuit("sim-06", qubits=3, encoding="zz"),
    "iqp": load_circuit("sim-14", qubits=3, encoding="iqp", reupload=True, depth=2),
    "amplitude": load_circuit("sim-13", qubits=3, encoding="amplitude", features=5),
    "none": load_circuit("sim-19", qubits=3, encoding="none"),
    "paulis": load_circuit("ring-cz", qubits=3, observables=["XYZ", "ZIZ", "IYI"]),
}
every_circuit = pytest.mark.parametrize("circuit", CIRCUITS.values(), ids=CIRCUITS)


def draw(circuit: Circuit, batch: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(circuit.weights)
    x = torch.randn(batch, circuit.features, generator=generator, dtype=torch.float64)
    w = torch.rand(circuit.weights, generator=generator, dtype=torch.float64) * 6
    return x.to(dtype), w.to(dtype)


def dense(circuit: Circuit, x: Tensor, w: Tensor) -> Tensor:
    """One sample's final state ``(2, ..., 2)``, gate by gate from the matrices of the gate table."""
    psi = torch.zeros([2] * circuit.qubits, dtype=torch.complex128)
    psi[(0,) * circuit.qubits] = 1
    for gate in circuit.gates:
        angle = None
        if gate.angle is not None:
            parts = [f.sign * x[f.feature] + f.shift for f in gate.angle.factors]
            parts += [] if gate.angle.weight is None else [w[gate.angle.weight]]
            angle = torch.tensor(gate.angle.offset, dtype=torch.float64)
            angle = angle + gate.angle.scale * math.prod(parts) if parts else angle
        wires = len(gate.wires)
        matrix = GATES[gate.name].matrix(angle).reshape([2] * (2 * wires))
        psi = torch.tensordot(matrix, psi, dims=(list(range(wires, 2 * wires)), list(gate.wires)))
        psi = torch.movedim(psi, list(range(wires)), list(gate.wires))
    return psi


def pauli_matrix(word: str) -> Matrix:
    matrix = PAULI[word[0]]
    for letter in word[1:]:
        matrix = np.kron(matrix, PAULI[letter]).astype(np.complex128)
    return matrix


def random_circuit(seed: int) -> Circuit:
    """A circuit of up to 40 random gates of the whole table, with angles of every form and any observables."""
    rng = np.random.default_rng(seed)
    qubits, gates = int(rng.integers(2, 6)), []
    for _ in range(int(rng.integers(1, 40))):
        spec = GATES[str(rng.choice(list(GATES)))]
        wires = tuple(int(wire) for wire in rng.permutation(qubits)[: spec.wires])
        angle = None
        if spec.has_angle:
            factors = [Factor(int(rng.integers(3)), *(float(v) for v in rng.normal(size=2))) for _ in range(3)]
            weight = int(rng.integers(4)) if rng.random() < 0.6 else None
            angle = Angle(float(rng.normal()), tuple(factors[: rng.integers(3)]), weight, float(rng.normal()))
        gates.append(Gate(spec.name, wires, angle))
    words = tuple("".join(rng.choice(list("IXYZ"), qubits)) for _ in range(3))
    return Circuit(qubits, tuple(gates), words, features=3, weights=4)


@pytest.mark.parametrize("seed", range(60))
def test_random_circuits_are_what_the_gate_matrices_say(seed: int) -> None:
    circuit = random_circuit(seed)
    x, w = draw(circuit, batch=2)
    states, values = state(circuit, x, w), expectations(circuit, x, w)
    for sample in range(2):
        psi = dense(circuit, x[sample], w)
        torch.testing.assert_close(states[sample], psi, rtol=0, atol=1e-12)
        flat = psi.reshape(-1)
        for word, value in zip(circuit.observables, values[sample], strict=True):
            pauli = torch.as_tensor(pauli_matrix(word))
            assert value.item() == pytest.approx((flat.conj() @ pauli @ flat).real.item(), abs=1e-12)


@pytest.mark.parametrize("name", REWRITE)
def test_a_rewritten_gate_is_its_monomial_gate_in_another_basis(name: str) -> None:
    monomial, (first, second) = REWRITE[name]
    basis = torch.as_tensor(np.kron(first, second))
    angle = torch.tensor(0.7, dtype=torch.float64) if GATES[name].has_angle else None
    found = basis @ GATES[monomial].matrix(angle) @ basis.mH
    torch.testing.assert_close(found, GATES[name].matrix(angle), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", [name for name, spec in GATES.items() if spec.wires == 2])
def test_every_two_wire_gate_is_monomial_or_rewritten(name: str) -> None:
    generic = torch.tensor(0.7, dtype=torch.float64)
    matrix = GATES[REWRITE[name][0] if name in REWRITE else name].matrix(generic)
    assert torch.equal((matrix.abs() > 1e-12).sum(1), torch.ones(4, dtype=torch.int64))


class _Types(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the types of all floating and complex tensors that any operation makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
                self.seen.add(value.dtype)
        return out


@every_circuit
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_computed_in_another_precision(circuit: Circuit, dtype: torch.dtype) -> None:
    x, w = (value.requires_grad_() for value in draw(circuit, dtype=dtype))
    expectations(circuit, x, w)  # compiled before, in float64 or integers
    with _Types() as types:
        values = expectations(circuit, x, w)
        torch.autograd.backward(values.sum())
    assert values.dtype == dtype
    assert types.seen <= {dtype, dtype.to_complex()}


@every_circuit
def test_everything_stays_on_the_device_of_the_inputs(circuit: Circuit) -> None:
    x, w = (value.to("meta") for value in draw(circuit))  # a tensor of another device beside these raises
    assert expectations(circuit, x, w).device.type == "meta"
    assert state(circuit, x, w).device.type == "meta"


@pytest.mark.parametrize(
    ("features", "weights", "result"),
    [
        (torch.float32, torch.float64, torch.float64),
        (torch.float64, torch.float32, torch.float64),
        (torch.int64, torch.float32, torch.float32),
        (torch.float16, torch.float32, torch.float32),
    ],
)
def test_the_wider_type_wins(features: torch.dtype, weights: torch.dtype, result: torch.dtype) -> None:
    circuit = CIRCUITS["ring-cz"]
    x, w = draw(circuit)
    x, w = x.to(features), w.to(weights)
    assert expectations(circuit, x, w).dtype == result
    expected = expectations(circuit, x.double(), w.double())
    torch.testing.assert_close(expectations(circuit, x, w).double(), expected, rtol=0, atol=1e-5)


@every_circuit
def test_first_and_second_derivatives_are_those_of_finite_differences(circuit: Circuit) -> None:
    x, w = (value.requires_grad_() for value in draw(circuit, batch=2))

    def run(features: Tensor, weights: Tensor) -> Tensor:
        return expectations(circuit, features, weights)

    assert torch.autograd.gradcheck(run, (x, w), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, (x[:1].detach().requires_grad_(), w), atol=1e-4)


@every_circuit
def test_transforms_agree_with_loops(circuit: Circuit) -> None:
    x, w = draw(circuit, batch=3)

    def loss(weights: Tensor, sample: Tensor) -> Tensor:
        return expectations(circuit, sample, weights).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(w, x)
    leaf = w.clone().requires_grad_()
    looped = torch.stack([torch.autograd.grad(loss(leaf, sample), leaf)[0] for sample in x])
    torch.testing.assert_close(per_sample, looped, rtol=0, atol=1e-12)

    replicas = torch.stack([w, w + 0.3])
    both = torch.func.vmap(lambda weights: expectations(circuit, x, weights))(replicas)
    torch.testing.assert_close(both[1], expectations(circuit, x, w + 0.3), rtol=0, atol=1e-12)

    hessian = torch.func.hessian(loss)(w, x[0])
    rows = torch.stack([torch.autograd.grad(g, leaf, retain_graph=True)[0] for g in _gradient(loss, leaf, x[0])])
    torch.testing.assert_close(hessian, rows, rtol=0, atol=1e-11)
    tangent = torch.func.jvp(lambda weights: loss(weights, x[0]), (w,), (torch.ones_like(w),))[1]
    assert tangent.item() == pytest.approx(looped[0].sum().item(), abs=1e-12)


def _gradient(loss: Callable[[Tensor, Tensor], Tensor], weights: Tensor, sample: Tensor) -> Tensor:
    return torch.autograd.grad(loss(weights, sample), weights, create_graph=True)[0]


@every_circuit
def test_samples_do_not_see_each_other(circuit: Circuit) -> None:
    x, w = draw(circuit, batch=4)
    together = expectations(circuit, x, w)
    torch.testing.assert_close(together, torch.stack([expectations(circuit, one, w) for one in x]), rtol=0, atol=1e-14)
    assert expectations(circuit, x[:0], w).shape == (0, len(circuit.observables))
    assert expectations(circuit, x.reshape(2, 2, -1), w).shape == (2, 2, len(circuit.observables))


@every_circuit
def test_states_are_normalised_and_have_one_axis_a_wire(circuit: Circuit) -> None:
    x, w = draw(circuit, batch=4)
    states = state(circuit, x, w)
    assert states.shape == (4, 2, 2, 2)
    torch.testing.assert_close(states.abs().square().sum((1, 2, 3)), torch.ones(4, dtype=torch.float64))


def test_weights_that_reach_nothing_have_a_gradient_of_exactly_zero() -> None:
    circuit = load_circuit("ring-cz", qubits=4, depth=2)
    x, w = (value.requires_grad_() for value in draw(circuit))
    torch.autograd.backward(expectations(circuit, x, w).sum())
    assert w.grad is not None
    dead = torch.arange(12 + 2, 24, 3)  # the RZ of the last layer
    assert torch.equal(w.grad[dead], torch.zeros(4, dtype=torch.float64))
    assert bool((w.grad[: 12 + 2].abs() > 1e-6).all())


def test_a_circuit_that_depends_on_nothing_still_has_gradients_and_a_batch() -> None:
    gates = (Gate("rz", (0,), Angle(weight=0)), Gate("rz", (1,), Angle(factors=(Factor(0),))))
    x, w = torch.ones(3, 1, requires_grad=True), torch.ones(1, requires_grad=True)
    values = expectations(Circuit(2, gates, ("ZI", "IZ"), 1, 1), x, w)
    assert values.tolist() == [[1, 1]] * 3
    torch.autograd.backward(values.sum())
    assert (x.grad is None or not x.grad.any(), w.grad is None or not w.grad.any()) == (True, True)


def test_constants_made_under_inference_mode_serve_training() -> None:
    circuit = load_circuit("sim-06", qubits=2, depth=5)  # a size that no other test compiles
    x, w = draw(circuit, dtype=torch.float32)
    with torch.inference_mode():
        expectations(circuit, x, w)
    w.requires_grad_()
    torch.autograd.backward(expectations(circuit, x, w).sum())
    assert w.grad is not None


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.hessian, torch.func.jacfwd])
def test_constants_made_inside_a_transform_serve_outside(transform: Callable[..., Any]) -> None:
    depth = 6 + [torch.func.grad, torch.func.hessian, torch.func.jacfwd].index(transform)
    circuit = load_circuit("sim-06", qubits=2, depth=depth)  # sizes that no other test compiles
    x, w = draw(circuit)

    def loss(weights: Tensor, sample: Tensor) -> Tensor:
        return expectations(circuit, sample, weights).sum()

    inside = torch.func.vmap(transform(loss), in_dims=(None, 0))(w, x)
    assert inside.isfinite().all()
    assert torch.autograd.gradcheck(lambda weights: expectations(circuit, x, weights), (w.requires_grad_(),))


@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e30])
def test_amplitude_encoding_neither_overflows_nor_vanishes(factor: float) -> None:
    circuit = CIRCUITS["amplitude"]
    x, w = draw(circuit, dtype=torch.float32)
    plain = expectations(circuit, x, w)
    scaled = (x * factor).requires_grad_()
    values = expectations(circuit, scaled, w)
    torch.testing.assert_close(values, plain, rtol=0, atol=1e-5)
    torch.autograd.backward(values.sum())
    assert scaled.grad is not None
    assert bool(scaled.grad.isfinite().all())


def test_the_zero_vector_is_refused_with_its_sample() -> None:
    x, w = draw(CIRCUITS["amplitude"])
    x[2] = 0
    with pytest.raises(InputError, match="got a zero vector as sample 2; remove it"):
        expectations(CIRCUITS["amplitude"], x, w)


@pytest.mark.parametrize(("qubits", "size"), [(50, r"e\+09"), (2000, r"2\*\*1980")])
def test_more_qubits_than_memory_allows_are_refused_before_anything_is_allocated(qubits: int, size: str) -> None:
    circuit = Circuit(qubits, (Gate("ry", (0,), Angle(weight=0)),), ("Z" + "I" * (qubits - 1),), 0, 1)
    message = rf"got {qubits} qubits and a batch of 64: three times 64 \* 2\*\*{qubits} \* 8 bytes .*{size}.* GiB"
    with pytest.raises(InputError, match=message):
        expectations(circuit, torch.empty(64, 0), torch.zeros(1))


def test_the_limit_of_a_control_group_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "limit").write_text("1000000\n")
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", tmp_path / "limit")
    assert memory.available_bytes(torch.device("cpu")) == 1000000
    circuit = load_circuit("ring-cz", qubits=13)
    with pytest.raises(InputError, match="got 13 qubits and a batch of 100"):
        expectations(circuit, torch.zeros(100, 13), torch.zeros(39))


@pytest.mark.parametrize(
    ("circuit", "stages"),
    [
        (load_circuit("ring-cz", qubits=6, depth=3), 3),  # the last ring of CZ reaches nothing
        (load_circuit("reupload", qubits=6, depth=3), 3),
        (load_circuit("sim-05", qubits=5), 2),  # all CRZ in one step
        (load_circuit("ring-cz", qubits=6, encoding="zz"), 2),
    ],
)
def test_circuits_become_few_stages(circuit: Circuit, stages: int) -> None:
    assert len(compile_circuit(circuit, True).stages) == stages


def test_controlled_rotations_onto_one_target_share_a_change_of_basis() -> None:
    gates = tuple(Gate("crx", (wire, 3), Angle(weight=wire)) for wire in range(3))
    assert len(compile_circuit(Circuit(4, gates, ("IIIY",), 0, 3), False).stages) == 2


def test_a_turn_that_is_nearly_nothing_is_kept() -> None:
    circuit = Circuit(1, (Gate("h", (0,)), Gate("p", (0,), Angle(offset=1e-7))), ("Y",), 0, 0)
    value = expectations(circuit, torch.empty(1, 0, dtype=torch.float64), torch.empty(0, dtype=torch.float64))
    assert value.item() == pytest.approx(1e-7, rel=1e-6)


def test_engines_are_found_by_name() -> None:
    assert find_engine("auto") is find_engine("torch")
    with pytest.raises(UnknownNameError, match="engine, got 'fused'"):
        find_engine("fused")
