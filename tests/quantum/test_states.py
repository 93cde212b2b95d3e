"""What is read from states, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from qunlearn.errors import InputError
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Gate
from qunlearn.quantum.engines import state
from qunlearn.quantum.states import fidelity, meyer_wallach, purity, reduced_state


def ghz(qubits: int) -> torch.Tensor:
    flat = torch.zeros(1, 2**qubits, dtype=torch.complex128)
    flat[:, 0] = flat[:, -1] = 1 / math.sqrt(2)
    return flat.reshape(1, *[2] * qubits)


def w_state(qubits: int) -> torch.Tensor:
    flat = torch.zeros(1, 2**qubits, dtype=torch.complex128)
    for wire in range(qubits):
        flat[:, 2**wire] = 1 / math.sqrt(qubits)
    return flat.reshape(1, *[2] * qubits)


def random_states(count: int, qubits: int) -> torch.Tensor:
    flat = torch.randn(count, 2**qubits, dtype=torch.complex128, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.normalize(flat, dim=1).reshape(count, *[2] * qubits)


def test_fidelity_of_turned_wires_is_the_closed_form() -> None:
    angles = torch.tensor([0.3, 2.9], dtype=torch.float64)
    circuit = Circuit(1, (Gate("ry", (0,), Angle(weight=0)),), ("Z",), 0, 1)
    nothing = torch.empty(1, 0, dtype=torch.float64)
    a, b = (state(circuit, nothing, angle[None]) for angle in angles)
    expected = math.cos((0.3 - 2.9) / 2) ** 2
    assert fidelity(a, b).item() == pytest.approx(expected, abs=1e-14)


def test_fidelity_ignores_the_phase_and_knows_orthogonal_states() -> None:
    states = random_states(4, 3)
    assert torch.allclose(fidelity(states, states * 1j), torch.ones(4, dtype=torch.float64))
    zero, one = torch.tensor([[1.0, 0]]), torch.tensor([[0, 1.0]])
    assert fidelity(zero, one).tolist() == [0.0]


def test_states_of_different_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"states of one shape, got \(1, 2, 2\) and \(1, 2, 2, 2\)"):
        fidelity(ghz(2), ghz(3))


def test_reduced_states_of_ghz_are_classical_mixtures() -> None:
    rho = reduced_state(ghz(3), (2, 0))[0]
    assert torch.allclose(rho, torch.diag(torch.tensor([0.5, 0, 0, 0.5], dtype=torch.complex128)))


def test_reduced_states_keep_the_order_of_the_wires() -> None:
    product = torch.zeros(1, 2, 2, 2, dtype=torch.complex128)
    product[0, 1, 0, 0] = 1  # |100>
    assert reduced_state(product, (0, 1))[0].diagonal().real.tolist() == [0, 0, 1, 0]
    assert reduced_state(product, (1, 0))[0].diagonal().real.tolist() == [0, 1, 0, 0]


def test_both_sides_of_a_pure_state_are_equally_mixed() -> None:
    states = random_states(5, 4)
    a, b = purity(reduced_state(states, (0, 2))), purity(reduced_state(states, (1, 3)))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("wires", [(0, 0), (3,), (-1,)])
def test_wires_that_are_not_there_are_refused(wires: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="different wires from 0 to 2"):
        reduced_state(ghz(3), wires)


@pytest.mark.parametrize("qubits", [2, 3, 5])
def test_meyer_wallach_of_ghz_w_and_product_states(qubits: int) -> None:
    assert meyer_wallach(ghz(qubits)).item() == pytest.approx(1, abs=1e-14)
    # One wire of W has purity 1 - 2 (n - 1) / n^2.
    assert meyer_wallach(w_state(qubits)).item() == pytest.approx(4 * (qubits - 1) / qubits**2, abs=1e-14)
    product = torch.zeros(1, *[2] * qubits, dtype=torch.complex64)
    product[(0,) * (qubits + 1)] = 1
    assert meyer_wallach(product).item() == 0


@pytest.mark.parametrize(("number", "expected"), [(1, 0.0), (9, 1.0)])
def test_circuits_1_and_9_of_sim_are_exactly_known(number: int, expected: float) -> None:
    circuit = load_circuit(f"sim-{number:02d}", qubits=4, encoding="none")
    weights = torch.rand(circuit.weights, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 6
    found = meyer_wallach(state(circuit, torch.empty(1, 0, dtype=torch.float64), weights))
    assert found.item() == pytest.approx(expected, abs=1e-12)
