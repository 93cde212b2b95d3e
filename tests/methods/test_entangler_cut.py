"""Entangler cut: concurrences in closed form, scores by hand, what is cut and that it stays so."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qunlearn.errors import InputError
from qunlearn.methods import EntanglerCut, FineTune
from qunlearn.methods.entangler_cut import couplings, entanglement, lowest
from qunlearn.quantum import Angle, Circuit, Factor, Gate, concurrence, load_circuit, state
from qunlearn.quantum.fisher import quantum_fisher
from tests.methods.cases import hybrid_model, make_task
from tests.methods.learnt import accuracy, clusters, loss
from tests.quantum.cases import dense

WEIGHTS = "quantum.weights"
TASK = dataclasses.replace(make_task(), validation=None)
SIGNALS = ("both", "fisher", "entanglement", "random")
NOTHING = torch.empty(1, 0, dtype=torch.float64)
# Layer 0 turns a wire by a and b and joins it to the other by CX; layer 1 turns by c and joins nothing.
SMALL = Circuit(
    2,
    (
        Gate("ry", (0,), Angle(weight=0), 0),
        Gate("rz", (0,), Angle(weight=1), 0),
        Gate("cx", (0, 1), None, 0),
        Gate("ry", (1,), Angle(weight=2), 1),
        Gate("cz", (0, 1), None, 1),
    ),
    ("ZI",),
    0,
    3,
)


def start_of(model: nn.Module, seed: int = 100, **settings: Any) -> Tensor:
    """The angles from which the repair starts."""
    method, given = EntanglerCut(**settings), copy.deepcopy(model)
    return method.start(given, TASK, torch.Generator().manual_seed(seed)).get_parameter(WEIGHTS).detach()


def pure(amplitudes: Sequence[complex]) -> Tensor:
    psi = torch.tensor(amplitudes, dtype=torch.complex128)
    psi = psi / psi.norm()
    return torch.outer(psi, psi.conj())


def test_concurrence_is_one_on_bell_and_zero_on_product_states() -> None:
    bells = [pure(a) for a in ([1, 0, 0, 1], [1, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0], [1, 0, 0, 1j])]
    assert torch.allclose(concurrence(torch.stack(bells)), torch.ones(5, dtype=torch.float64), atol=1e-12)
    one, two = np.array([0.3, 0.8j]), np.array([1 - 0.5j, 0.2])
    products = [pure([1, 0, 0, 0]), pure(list(np.kron(one, two))), torch.eye(4, dtype=torch.complex128) / 4]
    assert concurrence(torch.stack(products)).max() < 1e-7


def test_concurrence_of_pure_and_werner_states_is_the_closed_form() -> None:
    """2 |ad - bc|, and max(0, (3 p - 1) / 2) for p of a singlet in white noise."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        a, b, c, d = (rng.normal(size=4) + 1j * rng.normal(size=4)).tolist()
        size = sum(abs(z) ** 2 for z in (a, b, c, d))
        found = float(concurrence(pure([a, b, c, d])[None]))
        assert found == pytest.approx(2 * abs(a * d - b * c) / size, abs=1e-7)
    for p in (0.0, 0.2, 1 / 3, 0.5, 0.9, 1.0):
        rho = p * pure([0, 1, -1, 0]) + (1 - p) * torch.eye(4, dtype=torch.complex128) / 4
        assert float(concurrence(rho[None])) == pytest.approx(max(0.0, (3 * p - 1) / 2), abs=1e-7)
    with pytest.raises(InputError, match="two wires"):
        concurrence(torch.eye(2)[None])


def test_the_scores_of_three_angles_by_hand() -> None:
    """RY(a) on |0> has information 1, RZ(b) sin(a)^2, and CX leaves a concurrence of |sin a|.

    The other wire is then diag(cos^2, sin^2) of a / 2, of which <Y> is 0: RY(c) has information 1. Behind the second
    entangler stands cos(a/2) |0>|u> + sin(a/2) |1> Z|v>, u = (cos, sin) and v = (-sin, cos) of c / 2: a concurrence of
    sin a |det(u, Zv)| = sin a cos c. The scores are sin a, sin^3 a, sin a cos c: 0.565, 0.180, 0.393.
    """
    a, b, c = 0.6, 1.3, 0.8
    weights = torch.tensor([a, b, c], dtype=torch.float64)
    first, second = math.sin(a), math.sin(a) * math.cos(c)
    assert torch.allclose(
        entanglement(SMALL, NOTHING, weights), torch.tensor([first, first, second], dtype=torch.float64)
    )
    scores, ties = EntanglerCut().scores(SMALL, NOTHING, weights, torch.Generator())
    wanted = [first, first * math.sin(a) ** 2, second]
    assert scores.tolist() == pytest.approx(wanted, abs=1e-7)
    assert scores.tolist() == pytest.approx([0.565, 0.180, 0.393], abs=1e-3)
    assert ties.tolist() == pytest.approx([1, math.sin(a) ** 2, 1])
    assert scores.argsort().tolist() == [1, 2, 0]
    fisher, _ = EntanglerCut(signal="fisher").scores(SMALL, NOTHING, weights, torch.Generator())
    assert fisher.tolist() == pytest.approx([1, math.sin(a) ** 2, 1])
    alone, ties = EntanglerCut(signal="entanglement").scores(SMALL, NOTHING, weights, torch.Generator())
    assert alone.tolist() == pytest.approx([first, first, second])
    assert ties.tolist() == [1, 1, 1]


def test_the_fisher_diagonal_equals_finite_differences() -> None:
    model = hybrid_model()
    weights, h = model.get_parameter(WEIGHTS).detach(), 1e-5
    wanted = np.zeros(24)
    for x in TASK.forget.x:
        here = dense(model.circuit, x, weights).reshape(-1)
        for k, unit in enumerate(h * torch.eye(24, dtype=torch.float64)):
            slope = (dense(model.circuit, x, weights + unit) - dense(model.circuit, x, weights - unit)).reshape(-1) / (
                2 * h
            )
            wanted[k] += 4 * float(slope.abs().square().sum() - (here.conj() @ slope).abs() ** 2) / len(TASK.forget)
    scores, _ = EntanglerCut(signal="fisher").scores(model.circuit, TASK.forget.x, weights, torch.Generator())
    assert np.abs(scores.numpy() - wanted).max() < 1e-8


def test_layers_take_the_pairs_that_they_couple_and_those_outside_the_nearest() -> None:
    ring = load_circuit("ring-cz", qubits=4, depth=2)
    assert [pairs for _, pairs in couplings(ring).values()] == [((0, 1), (1, 2), (2, 3), (0, 3))] * 2
    assert [ring.gates[length - 1].name for length, _ in couplings(ring).values()] == ["cz", "cz"]
    circuit = load_circuit("sim-10", qubits=3, depth=2)
    x, w = torch.rand(4, circuit.features, dtype=torch.float64), torch.rand(9, dtype=torch.float64)
    found = entanglement(circuit, x, w)
    assert torch.equal(found[:3], found[3:6]), "before the first layer: the first layer's"
    assert found[3] != found[6]
    assert found[3] > 0.01
    length, pairs = couplings(circuit)["0"]
    psi = state(dataclasses.replace(circuit, gates=circuit.gates[:length]), x, w).reshape(4, 2, 2, 2)
    rest = {(0, 1): "nabc,ndec->nabde", (1, 2): "nabc,nade->nbcde", (0, 2): "nabc,ndbe->nacde"}
    rhos = [torch.einsum(rest[pair], psi, psi.conj()).reshape(4, 4, 4).mean(0) for pair in pairs]
    assert float(found[3]) == pytest.approx(float(concurrence(torch.stack(rhos)).mean()))
    encoded = Circuit(
        2, (Gate("rzz", (0, 1), Angle(1.0, (Factor(0),)), 0), Gate("rx", (0,), Angle(weight=0), 0)), ("ZI",), 1, 1
    )
    assert couplings(encoded) == {}
    assert entanglement(encoded, x[:, :1], w[:1]).tolist() == [0]


def test_the_lowest_are_cut_and_ties_are_broken() -> None:
    def cut(scores: list[float], ties: list[float], share: float) -> list[int]:
        found = lowest(torch.tensor(scores), torch.tensor(ties), share)
        return found.nonzero().flatten().tolist()

    assert cut([3, 1, 2, 5, 4], [1] * 5, 0.4) == [1, 2]
    assert cut([3, 1, 2, 5, 4], [1] * 5, 0.39) == [1], "rounded down"
    assert cut([3, 1, 2], [1] * 3, 0.0) == [1], "at least one"
    assert cut([0, 0, 0, 1], [3, 1, 2, 0], 0.5) == [1, 2]
    assert cut([0, 0, 0, 1], [1, 1, 1, 1], 0.5) == [0, 1]


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_fifth_of_the_angles_is_cut_by_the_signal(signal: str) -> None:
    model = hybrid_model()
    given, start = model.get_parameter(WEIGHTS).detach(), start_of(model, signal=signal)
    gone = (start == 0).nonzero().flatten().tolist()
    assert len(gone) == 4, "a fifth of 24, rounded down"
    assert torch.equal(start[start != 0], given[start != 0])
    fisher = quantum_fisher(model.circuit, TASK.forget.x, given).diagonal()
    weight = entanglement(model.circuit, TASK.forget.x, given)
    if signal == "random":
        assert any(
            gone != (start_of(model, seed, signal=signal) == 0).nonzero().flatten().tolist() for seed in range(3)
        )
        return
    score = {"both": weight * fisher, "fisher": fisher, "entanglement": weight}[signal].numpy()
    # Behind the second entangler the mean states of pairs are not entangled at all: the information decides.
    order = np.lexsort((fisher.numpy(), score)) if signal == "both" else score.argsort(stable=True)
    assert gone == sorted(order[:4].tolist())


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("signal", SIGNALS)
def test_what_was_cut_stays_so_and_all_else_is_repaired(signal: str, weight_decay: float) -> None:
    assert TASK.recipe is not None
    task = dataclasses.replace(TASK, recipe=dataclasses.replace(TASK.recipe, weight_decay=weight_decay))
    model = hybrid_model()
    after = EntanglerCut(epochs=3, signal=signal)(model, task).model  # type: ignore[arg-type]
    angles = after.get_parameter(WEIGHTS).detach()
    assert int((angles == 0).sum()) == 4
    kept = angles != 0
    assert bool((angles[kept] != model.get_parameter(WEIGHTS).detach()[kept]).any())
    if signal != "random":
        assert torch.equal(kept, start_of(model, signal=signal) != 0)
    assert all(not torch.equal(after.get_parameter(name), p) for name, p in model.named_parameters() if name != WEIGHTS)


def test_the_repair_learns_what_is_left() -> None:
    task, model = clusters(1, hybrid_model)
    start = copy.deepcopy(model)
    with torch.no_grad():
        start.get_parameter(WEIGHTS).copy_(
            EntanglerCut(share=0.4).start(copy.deepcopy(model), task, torch.Generator()).get_parameter(WEIGHTS)
        )
    after = EntanglerCut(epochs=30, share=0.4)(model, task).model
    assert loss(start, task.retain) > 2 * loss(model, task.retain), "the cut must hurt"
    assert loss(after, task.retain) < 0.5 * loss(start, task.retain)
    assert accuracy(after, task.retain) > 0.95
    assert accuracy(after, task.forget) < accuracy(model, task.forget)


@pytest.mark.parametrize(
    ("signal", "gradients", "circuits", "hardware"),
    [
        # 6 forget samples and 24 weights; two layers of four pairs, nine bases each.
        ("both", 6, 6 * 25 + 2 * 6, 6 * 24 + 2 * 6 * 36),
        ("fisher", 6, 6 * 25, 6 * 24),
        ("entanglement", 0, 2 * 6, 2 * 6 * 36),
        ("random", 0, 0, 0),
    ],
)
def test_counts_are_those_of_fine_tuning_and_a_hand_count(
    signal: str, gradients: int, circuits: int, hardware: int
) -> None:
    counts = EntanglerCut(epochs=1, signal=signal)(hybrid_model(), TASK).record.counts  # type: ignore[arg-type]
    tuned = FineTune(epochs=1)(hybrid_model(), TASK).record.counts
    assert counts.gradient_evaluations == tuned.gradient_evaluations + gradients
    assert counts.circuit_evaluations == tuned.circuit_evaluations + circuits
    assert counts.hardware_circuits == tuned.hardware_circuits + hardware


def test_single_precision_cuts_the_same_angles() -> None:
    after = EntanglerCut(epochs=1)(hybrid_model().float(), TASK).model.get_parameter(WEIGHTS)
    assert after.dtype == torch.float32
    assert torch.equal(after == 0, start_of(hybrid_model()) == 0)
