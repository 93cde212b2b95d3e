"""The differentiable advantage against density matrices by NumPy, and its gradient against finite differences."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from qunlearn.errors import InputError
from qunlearn.quantum import load_circuit
from qunlearn.quantum.discrimination import crossfit_advantage
from qunlearn.quantum.engines import torch_engine
from qunlearn.quantum.states import reduced_state


def _states(seed: int, samples: int, qubits: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(samples, 2**qubits, dtype=torch.complex128, generator=generator)
    found: Tensor = (rows / rows.norm(dim=1, keepdim=True)).reshape(samples, *(2,) * qubits)
    return found


def _by_matrices(ours: Tensor, theirs: Tensor, order: list[int], choices: list[tuple[int, ...]]) -> float:
    """The same by density matrices of some wires, of which the plug-in value of the half fitted chooses."""
    half = len(order) // 2
    total = 0.0
    for fitted, scored in ((order[:half], order[half:]), (order[half:], order[:half])):
        best = -1.0
        for wires in choices:
            a, b = (reduced_state(states, wires).numpy() for states in (ours, theirs))
            values, vectors = np.linalg.eigh(a[fitted].mean(0) - b[fitted].mean(0))
            sign = (vectors * np.where(abs(values) > 1e-9, np.sign(values), 0)) @ vectors.conj().T
            if abs(values).sum() > best:
                best = abs(values).sum()
                gain = np.trace(sign @ (a[scored].mean(0) - b[scored].mean(0))).real / 2
        total += gain * len(scored) / len(order)
    return total


@pytest.mark.parametrize("samples", [2, 5, 12])
@pytest.mark.parametrize("wires", [None, 1, 2, (2, 0)])
def test_it_is_that_of_density_matrices(samples: int, wires: int | tuple[int, ...] | None) -> None:
    a, b = _states(1, samples, 3), _states(2, samples, 3)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(7)).tolist()
    choices: list[tuple[int, ...]] = [(0, 1, 2) if wires is None or isinstance(wires, int) else wires]
    if isinstance(wires, int):
        choices = [*combinations(range(3), wires)]
    found = crossfit_advantage(a, b, wires=wires, generator=torch.Generator().manual_seed(7))
    assert float(found) == pytest.approx(_by_matrices(a, b, order, choices), abs=1e-12)
    assert found.dtype == torch.float64


@pytest.mark.parametrize("wires", [None, 1])
def test_the_gradient_holds_the_measurement_fixed(wires: int | None) -> None:
    """By finite differences of the states that are scored, one half after the other, the fitted half held still."""
    a, b = _states(3, 6, 2).requires_grad_(), _states(4, 6, 2)
    value = crossfit_advantage(a, b, wires=wires, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(value, a)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0)).tolist()
    direction, step = _states(5, 6, 2), 1e-5
    moved = 0.0
    for scored in (order[:3], order[3:]):
        shift = torch.zeros_like(direction)
        shift[scored] = direction[scored]
        ends = []
        for sign in (1, -1):
            turned = a.detach() + sign * step * shift
            fitted = [k for k in order if k not in scored]
            # Only what is scored on the moved half counts: the other half is scored by a measurement that moved too.
            choices: list[tuple[int, ...]] = [(0, 1)] if wires is None else [(0,), (1,)]
            ends.append(_one_way(turned, b, fitted, scored, choices))
        moved += (ends[0] - ends[1]) / (2 * step) / 2
    assert float((gradient.conj() * direction).real.sum()) == pytest.approx(moved, abs=1e-6)


def _one_way(a: Tensor, b: Tensor, fitted: list[int], scored: list[int], choices: list[tuple[int, ...]]) -> float:
    best, gain = -1.0, 0.0
    for wires in choices:
        one, other = (reduced_state(states, wires).numpy() for states in (a, b))
        values, vectors = np.linalg.eigh(one[fitted].mean(0) - other[fitted].mean(0))
        if abs(values).sum() > best:
            best = abs(values).sum()
            sign = (vectors * np.where(abs(values) > 1e-9, np.sign(values), 0)) @ vectors.conj().T
            gain = float(np.trace(sign @ (one[scored].mean(0) - other[scored].mean(0))).real / 2)
    return gain


def test_descent_on_an_encoding_brings_two_sets_together() -> None:
    """What it is for: a re-uploading circuit whose angles move until nothing tells two sets apart."""
    circuit = load_circuit("ring-cz", qubits=2, depth=2, reupload=True)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, circuit.features, generator=generator, dtype=torch.float64) * 0.2
    y = x + 0.8
    weights = torch.zeros(circuit.weights, dtype=torch.float64, requires_grad=True)

    def both() -> tuple[Tensor, Tensor]:
        found = torch_engine.state(circuit, torch.cat([x, y]), weights)
        return found[:40], found[40:]

    optimizer = torch.optim.Adam([weights], lr=0.1)
    before = float(crossfit_advantage(*both(), generator=generator).detach())
    for _ in range(60):
        optimizer.zero_grad()
        crossfit_advantage(*both(), generator=generator).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = float(crossfit_advantage(*both(), generator=generator).detach())
    assert before > 0.5
    assert after < before - 0.15


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"two or more pairs of states \(n, 2, ..., 2\), got \(1, 2, 2\)"):
        crossfit_advantage(_states(0, 1, 2), _states(1, 1, 2))
    with pytest.raises(InputError, match="pairs of states"):
        crossfit_advantage(_states(0, 4, 2), _states(1, 3, 2))
    with pytest.raises(InputError, match="different wires from 0 to 1"):
        crossfit_advantage(_states(0, 4, 2), _states(1, 4, 2), wires=(0, 2))
