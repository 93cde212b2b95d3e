"""The gate table, row by row, against PennyLane, Qiskit and automatic differentiation."""

from __future__ import annotations

import math

import numpy as np
import pennylane as qml
import pytest
import torch
from qiskit.circuit.library import get_standard_gate_name_mapping

from qunlearn.errors import UnknownNameError
from qunlearn.quantum.convert.with_pennylane import NAMES
from qunlearn.quantum.gates import GATES, GateSpec, gate

FIXED = [name for name, spec in GATES.items() if not spec.has_angle]
TURNED = [name for name, spec in GATES.items() if spec.has_angle]
CONTROLLED_ROTATIONS = ["crx", "cry", "crz"]
ANGLES = [-7.3, -1.1, 0.0, 0.4, math.pi, 5.9]


def ours(name: str, angle: float | None) -> np.ndarray:
    value = None if angle is None else torch.tensor(angle, dtype=torch.float64)
    return GATES[name].matrix(value).numpy()


def cases() -> list[tuple[str, float | None]]:
    fixed: list[tuple[str, float | None]] = [(name, None) for name in FIXED]
    return fixed + [(name, angle) for name in TURNED for angle in ANGLES]


@pytest.mark.parametrize(("name", "angle"), cases())
def test_the_matrix_is_pennylanes(name: str, angle: float | None) -> None:
    theirs = NAMES[name]
    wires = list(range(GATES[name].wires))
    arguments = [] if angle is None else [angle]
    if theirs.startswith("Adjoint"):
        operation = qml.adjoint(getattr(qml, theirs[8:-1]))(wires=wires)
    else:
        operation = getattr(qml, theirs)(*arguments, wires=wires)
    np.testing.assert_allclose(ours(name, angle), qml.matrix(operation, wire_order=wires), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("name", "angle"), cases())
def test_the_matrix_is_qiskits_with_the_bits_exchanged(name: str, angle: float | None) -> None:
    template = get_standard_gate_name_mapping()[name]
    theirs = np.asarray(template.base_class(*([] if angle is None else [angle])).to_matrix())
    if GATES[name].wires == 2:
        exchange = np.eye(4)[[0, 2, 1, 3]]
        theirs = exchange @ theirs @ exchange
    np.testing.assert_allclose(ours(name, angle), theirs, rtol=0, atol=1e-14)


def test_the_exchange_of_bits_matters_for_cx() -> None:
    theirs = np.asarray(get_standard_gate_name_mapping()["cx"].to_matrix())
    assert not np.allclose(ours("cx", None), theirs)


def expectation(spec: GateSpec, angle: torch.Tensor, seed: int) -> torch.Tensor:
    """<O> of a random Hermitian O in a random state after the gate, for angles ``(...)``."""
    generator, size = torch.Generator().manual_seed(seed), 2**spec.wires
    state = torch.randn(size, generator=generator, dtype=torch.complex128)
    raw = torch.randn(size, size, generator=generator, dtype=torch.complex128)
    turned = spec.matrix(angle) @ (state / state.norm())
    return torch.einsum("...i,ij,...j->...", turned.conj(), raw + raw.conj().T, turned).real


@pytest.mark.parametrize("name", TURNED)
def test_the_shift_rule_is_the_derivative(name: str) -> None:
    spec = GATES[name]
    for seed in range(5):
        angle = torch.linspace(-7, 7, 9, dtype=torch.float64).requires_grad_()
        (exact,) = torch.autograd.grad(expectation(spec, angle, seed).sum(), angle)
        shifted = sum(
            (c * expectation(spec, angle.detach() + s, seed) for c, s in spec.shift_rule),
            start=torch.zeros(9, dtype=torch.float64),
        )
        assert exact.abs().amax() > 0.1
        torch.testing.assert_close(shifted, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CONTROLLED_ROTATIONS)
def test_two_terms_are_wrong_for_controlled_rotations(name: str) -> None:
    angle = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (exact,) = torch.autograd.grad(expectation(GATES[name], angle, 0), angle)
    two = sum(c * expectation(GATES[name], angle.detach() + s, 0) for c, s in GATES["rx"].shift_rule)
    assert abs(two - exact) > 1e-2


@pytest.mark.parametrize("name", TURNED)
def test_the_period_is_the_smallest_of_all_expectations(name: str) -> None:
    spec = GATES[name]
    assert spec.period is not None
    assert spec.period == pytest.approx((4 if name in CONTROLLED_ROTATIONS else 2) * math.pi)
    angle = torch.linspace(-3, 3, 7, dtype=torch.float64)
    here = expectation(spec, angle, 0)
    torch.testing.assert_close(expectation(spec, angle + spec.period, 0), here, rtol=0, atol=1e-12)
    for part in (2, 3, 4):
        assert (expectation(spec, angle + spec.period / part, 0) - here).abs().amax() > 0.05


@pytest.mark.parametrize("name", FIXED)
def test_fixed_gates_are_unitary_and_know_whether_they_are_diagonal(name: str) -> None:
    matrix = ours(name, None)
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(len(matrix)), atol=1e-14)
    assert GATES[name].diagonal == (name in {"id", "z", "s", "sdg", "t", "tdg", "cz"})


@pytest.mark.parametrize("name", TURNED)
def test_turned_gates_know_whether_they_are_diagonal(name: str) -> None:
    assert GATES[name].diagonal == (name in {"rz", "p", "crz", "cp", "rzz"})


@pytest.mark.parametrize("name", TURNED)
def test_float32_stays_float32_and_float64_is_not_narrowed(name: str) -> None:
    angle = torch.tensor(1.2345678901234567, dtype=torch.float64)
    assert GATES[name].matrix(angle.float(), torch.complex64).dtype == torch.complex64
    exact = torch.matrix_exp(-0.5j * angle * torch.as_tensor(GATES[name].generator))
    torch.testing.assert_close(GATES[name].matrix(angle), exact, rtol=0, atol=1e-14)
    batch = GATES[name].matrix(angle.expand(2, 3))
    assert batch.shape == (2, 3, *exact.shape)


def test_an_unknown_gate_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="got 'cnx'; did you mean 'cx'"):
        gate("cnx")
