"""Angle dampening: its formula in NumPy, and that it does not ask how a circuit is written down."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from qunlearn.methods import AngleDampening
from qunlearn.methods.angle_dampening import Run, runs
from qunlearn.models import HybridClassifier
from qunlearn.quantum import Angle, Circuit, Factor, Gate, QuantumLayer, fidelity, state
from qunlearn.quantum.fisher import quantum_fisher
from qunlearn.quantum.gates import GATES
from tests.methods.cases import hybrid_model, make_task
from tests.quantum.cases import dense

WEIGHTS = "quantum.weights"
TASK = make_task(forget_class=1, retain=12, forget=6)
METHOD = AngleDampening(alpha=1.02, strength=0.6)
WIRES = 4
Program = list[tuple[str, tuple[int, ...]]]  # (gate, wires) behind an encoding; a weight for each rotation, in order


def model_of(circuit: Circuit, weights: Sequence[float] | Tensor) -> HybridClassifier:
    """The same head behind every circuit of as many observables."""
    model = HybridClassifier(circuit, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert isinstance(model.quantum, QuantumLayer)
    with torch.no_grad():
        model.quantum.weights.copy_(torch.as_tensor(weights, dtype=torch.float64))
    return model


def built(program: Program) -> Circuit:
    gates = [Gate(name, (k,), Angle(1.0, (Factor(k),))) for name in ("ry", "rz") for k in range(WIRES)]
    weights = 0
    for name, wires in program:
        angle = None
        if GATES[name].has_angle:
            angle, weights = Angle(weight=weights), weights + 1
        gates.append(Gate(name, wires, angle))
    return Circuit(WIRES, tuple(gates), ("ZIII", "IZXI", "IIXY", "YIIZ"), WIRES, weights)


def unlearned(circuit: Circuit, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is left: logits and states of all retained samples, and the angles."""
    after = METHOD(model_of(circuit, weights), TASK).model
    angles = after.get_parameter(WEIGHTS).detach()
    with torch.no_grad():
        return after(TASK.retain.x), state(circuit, TASK.retain.x, angles), angles


def clear(circuit: Circuit, weights: Tensor) -> bool:
    """Whether every choice and every nearest reference is clear of rounding."""
    of_forget, of_retain = (quantum_fisher(circuit, data.x, weights).diagonal() for data in (TASK.forget, TASK.retain))
    share = len(TASK.forget) / (len(TASK.forget) + len(TASK.retain))
    of_all = share * of_forget + (1 - share) * of_retain
    totals = torch.stack(
        [
            sum((s * weights[w] for w, s in zip(r.weights, r.scales, strict=True)), torch.tensor(0.0))
            for r in runs(circuit)
        ]
    )
    half = torch.remainder(totals, math.pi) / math.pi - 0.5  # 0 where two references are equally near
    return bool(((of_forget - METHOD.alpha * of_all).abs() > 1e-9).all() and (half.abs() > 1e-6).all())


def same(one: tuple[Tensor, Tensor, Tensor], other: tuple[Tensor, Tensor, Tensor]) -> None:
    """The same function of the samples, and the same states but for phases."""
    assert torch.allclose(one[0], other[0], atol=1e-9, rtol=0)
    assert (1 - fidelity(one[1], other[1])).abs().max() < 1e-9


def started(program: Program, seed: int) -> tuple[Circuit, Tensor]:
    circuit = built(program)
    angles = 8 * torch.rand(circuit.weights, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 4
    assume(clear(circuit, angles))
    return circuit, angles


@pytest.mark.parametrize(("alpha", "strength"), [(1.02, 1.0), (1.1, 0.3)])
def test_dampened_angles_equal_numpy_s(alpha: float, strength: float) -> None:
    """Importances by shifts by pi of states that are built gate by gate; ring-cz has no equal neighbours."""
    model = hybrid_model()
    angles = model.get_parameter(WEIGHTS).detach()

    def information(x: Tensor) -> np.ndarray:
        rows = []
        for sample in x:
            here = dense(model.circuit, sample, angles).reshape(-1)
            units = math.pi * torch.eye(24, dtype=torch.float64)
            there = [dense(model.circuit, sample, angles + unit).reshape(-1) for unit in units]
            rows.append([1 - abs(complex(here.conj() @ other)) ** 2 for other in there])
        return np.asarray(np.mean(rows, 0))

    of_forget, of_all = information(TASK.forget.x), information(torch.cat([TASK.forget.x, TASK.retain.x]))
    where = of_forget > alpha * of_all
    given_, half = angles.numpy(), math.pi / 2
    apart = half - (half - given_) % math.pi
    factor = np.minimum(strength * of_all / np.maximum(of_forget, 1e-300), 1)
    wanted = np.where(where, given_ - (1 - factor) * apart, given_)
    result = AngleDampening(alpha=alpha, strength=strength)(model, TASK)
    found = result.model.get_parameter(WEIGHTS).detach().numpy()
    assert np.abs(found - wanted).max() < 1e-9
    assert 0 < where.sum() < 24
    assert np.array_equal(found[~where], given_[~where]), "what is not chosen keeps its bits"
    assert result.record.details == {"runs": 24, "chosen": int(where.sum())}
    assert f"{where.sum()} of 24 runs" in result.record.notes[0]
    for name, p in model.named_parameters():
        assert name == WEIGHTS or torch.equal(result.model.get_parameter(name), p)


one_wire = st.tuples(st.sampled_from(["rx", "ry", "rz"]), st.integers(0, WIRES - 1)).map(lambda g: (g[0], (g[1],)))
two_wires = st.tuples(st.sampled_from(["cz", "cx", "rxx", "rzz"]), st.permutations(range(WIRES))).map(
    lambda g: (g[0], tuple(g[1][:2]))
)
programs: st.SearchStrategy[Program] = st.lists(one_wire | one_wire | two_wires, min_size=3, max_size=10).filter(
    lambda program: any(GATES[name].has_angle for name, _ in program)
)
# Failures are not made smaller: that takes minutes, and the seed and the gates say enough.
often = settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))


@often
@given(programs, st.integers(0, 99), st.lists(st.integers(-3, 3), min_size=10, max_size=10))
def test_angles_a_few_periods_on_end_as_the_same_model(program: Program, seed: int, turns: list[int]) -> None:
    circuit, angles = started(program, seed)
    further = angles + 2 * math.pi * torch.tensor(turns[: circuit.weights], dtype=torch.float64)
    one, other = unlearned(circuit, angles), unlearned(circuit, further)
    same(one, other)
    assert torch.allclose(other[2] - one[2], further - angles, atol=1e-9, rtol=0)


@often
@given(programs, st.integers(0, 99), st.data())
def test_an_angle_shared_out_over_two_gates_ends_as_the_same_model(
    program: Program, seed: int, data: st.DataObject
) -> None:
    """Any share in each, with gates on other wires between them or not."""
    circuit, angles = started(program, seed)
    places = [n for n, (name, _) in enumerate(program) if GATES[name].has_angle]
    place = data.draw(st.sampled_from(places))
    name, wires = program[place]
    at = place + 1
    while at < len(program) and not {*wires} & {*program[at][1]} and data.draw(st.booleans()):
        at += 1
    index = sum(GATES[gate].has_angle for gate, _ in program[:place])
    behind = sum(GATES[gate].has_angle for gate, _ in program[:at])
    part = data.draw(st.floats(-5, 5))
    values = angles.tolist()
    values[index] -= part
    values.insert(behind, part)
    shared = built([*program[:at], (name, wires), *program[at:]])
    with torch.no_grad():
        assert torch.allclose(model_of(shared, values)(TASK.retain.x), model_of(circuit, angles)(TASK.retain.x))
    assume(clear(shared, torch.tensor(values, dtype=torch.float64)))
    one, other = unlearned(circuit, angles), unlearned(shared, torch.tensor(values, dtype=torch.float64))
    same(one, other)


def carried(program: Program, angles: Tensor, paulis: dict[int, str]) -> tuple[Tensor, dict[int, str]]:
    """A Pauli operator (a letter for each wire, I where none) from before the gates to behind them.

    The angles with the signs that it flips on its way, and what it has become; by the matrices of the gates.
    """
    signs, index = angles.clone(), 0
    for name, wires in program:
        spec = GATES[name]
        operator = kron([paulis.get(wire, "I") for wire in wires])
        if spec.has_angle:
            assert spec.generator is not None
            if not np.allclose(operator @ spec.generator, spec.generator @ operator):
                signs[index] *= -1
            index += 1
            continue
        assert spec.unitary is not None
        turned = spec.unitary @ operator @ spec.unitary.conj().T
        words = [a + b for a in "IXYZ" for b in "IXYZ"] if len(wires) == 2 else list("IXYZ")
        (word,) = [w for w in words if abs(np.trace(kron(list(w)).conj().T @ turned)) > len(turned) - 1e-9]
        paulis = {**paulis, **dict(zip(wires, word, strict=True))}
    return signs, paulis


def kron(word: list[str]) -> np.ndarray:
    matrices = {"I": np.eye(2), "X": GATES["x"].unitary, "Y": GATES["y"].unitary, "Z": GATES["z"].unitary}
    found = np.eye(1)
    for letter in word:
        found = np.kron(found, np.asarray(matrices[letter]))
    return found


@often
@given(programs, programs, programs, st.integers(0, WIRES - 1), st.integers(0, 99))
def test_a_fixed_x_moved_through_a_segment_ends_as_the_same_model(
    before: Program, segment: Program, after: Program, wire: int, seed: int
) -> None:
    """A gate X before the segment, and what it becomes behind it, with the signs that it flips."""
    first = [*before, ("x", (wire,)), *segment, *after]
    circuit, angles = started(first, seed)
    skipped = sum(GATES[name].has_angle for name, _ in before)
    inside = sum(GATES[name].has_angle for name, _ in segment)
    flipped, paulis = carried(segment, angles[skipped : skipped + inside], {wire: "X"})
    moved = [(letter.lower(), (at,)) for at, letter in paulis.items() if letter != "I"]
    second = built([*before, *segment, *moved, *after])
    values = torch.cat([angles[:skipped], flipped, angles[skipped + inside :]])
    with torch.no_grad():
        assert torch.allclose(model_of(circuit, angles)(TASK.retain.x), model_of(second, values)(TASK.retain.x))
    assume(clear(second, values))
    same(unlearned(circuit, angles), unlearned(second, values))


@often
@given(programs, programs, st.integers(0, WIRES - 1), st.integers(0, 99))
def test_an_x_moved_from_one_angle_into_others_ends_as_the_same_model(
    segment: Program, after: Program, wire: int, seed: int
) -> None:
    """RX(a) = X RX(a - pi): the X leaves the angle, goes through the segment, and enters rotations behind it."""
    closing: Program = [(name, (at,)) for at in range(WIRES) for name in ("rx", "rz")]
    program: Program = [("rx", (wire,)), *segment, *closing, *after]
    circuit, angles = started(program, seed)
    inside = sum(GATES[name].has_angle for name, _ in segment)
    flipped, paulis = carried(segment, angles[1 : 1 + inside], {wire: "X"})
    values = angles.clone()
    values[0] -= math.pi
    values[1 : 1 + inside] = flipped
    for at, letter in paulis.items():
        x, z = 1 + inside + 2 * at, 2 + inside + 2 * at
        if letter in "YZ":  # Z is before RX, whose sign it flips on its way into RZ
            values[x] *= -1
            values[z] += math.pi
        if letter in "XY":
            values[x] += math.pi
    with torch.no_grad():
        assert torch.allclose(model_of(circuit, angles)(TASK.retain.x), model_of(circuit, values)(TASK.retain.x))
    assume(clear(circuit, values))
    same(unlearned(circuit, angles), unlearned(circuit, values))


def test_the_cases_are_dampened() -> None:
    """What is invariant must not be so since nothing happens."""
    circuit = built(
        [("rx", (0,)), ("cz", (0, 1)), ("ry", (1,)), ("rzz", (1, 2)), ("rx", (2,)), ("rz", (3,)), ("rx", (3,))]
    )
    angles = torch.tensor([0.9, 1.1, -0.7, 2.0, 0.4, 2.9], dtype=torch.float64)
    after = unlearned(circuit, angles)
    assert (after[2] - angles).abs().max() > 0.1
    with torch.no_grad():
        assert (after[0] - model_of(circuit, angles)(TASK.retain.x)).abs().max() > 0.01


def test_runs_by_hand() -> None:
    gates = (
        Gate("rx", (0,), Angle(2.0, (), 0, 0.5)),
        Gate("rz", (1,), Angle(weight=1)),
        Gate("rx", (0,), Angle(factors=(Factor(0),))),  # of the same kind: the run goes on
        Gate("rx", (0,), Angle(-1.0, (), 2)),
        Gate("rzz", (0, 1), Angle(weight=3)),
        Gate("rzz", (1, 0), Angle(weight=4)),  # the same gate
        Gate("rx", (0,), Angle(weight=5)),  # behind a gate that does not commute
        Gate("crz", (0, 1), Angle(weight=6)),
        Gate("crz", (1, 0), Angle(weight=7)),
        Gate("cp", (0, 1), Angle(weight=8)),
        Gate("p", (0,), Angle(weight=9)),
        Gate("ry", (0,), Angle(0.5, (), 10)),
        Gate("rx", (1,), Angle(0.5, (), 10)),  # a weight of two gates
        Gate("ry", (1,), Angle(1.0, (Factor(1),), 11)),
        Gate("ry", (1,), Angle(0.0, (), 12)),
    )
    pi = math.pi
    assert runs(Circuit(2, gates, ("ZI",), 2, 14)) == (
        Run((0, 2), (2.0, -1.0), 0.5, pi),
        Run((1,), (1.0,), 0.0, pi),
        Run((3, 4), (1.0, 1.0), 0.0, pi),
        Run((5,), (1.0,), 0.0, pi),
        Run((6,), (1.0,), 0.0, 2 * pi),
        Run((7,), (1.0,), 0.0, 2 * pi),
        Run((8,), (1.0,), 0.0, 2 * pi),
        Run((9,), (1.0,), 0.0, pi),
        Run((10,), (1.0,), 0.0, 4 * pi),
        Run((11,), (1.0,), 0.0, math.inf),
    )


def test_angles_are_led_to_the_nearest_pauli_gate() -> None:
    """With a strength of 0 they arrive; where half a period is no Pauli gate, only whole periods are references."""
    gates = (
        Gate("rx", (0,), Angle(2.0, (), 0, 0.5)),
        Gate("crx", (0, 1), Angle(weight=1)),
        Gate("cp", (0, 1), Angle(weight=2)),
    )
    circuit = Circuit(2, gates, ("ZI",), 0, 4)
    weights = torch.tensor([1.1, 2 * math.pi + 0.4, math.pi + 0.1, 0.3], dtype=torch.float64)
    one, two = torch.ones(4, dtype=torch.float64), 2 * torch.ones(4, dtype=torch.float64)
    change, chosen = AngleDampening(strength=0.0).change(circuit, weights, two, one)
    assert chosen == 3
    wanted = torch.tensor([(math.pi - 0.5) / 2, 2 * math.pi, 2 * math.pi, 0.3], dtype=torch.float64)
    assert torch.allclose(weights + change, wanted)
    half, _ = AngleDampening(strength=1.0).change(circuit, weights, two, one)
    assert torch.allclose(half, change / 2), "I(D) / I(D_f) is 1 / 2"
    none, chosen = AngleDampening(alpha=2.0).change(circuit, weights, two, one)
    assert (float(none.abs().max()), chosen) == (0, 0)


def test_an_alpha_of_the_ratio_of_samples_chooses_nothing() -> None:
    data = make_task(forget_class=1, retain=12, forget=6)
    ratio = (len(data.forget) + len(data.retain)) / len(data.forget)
    result = AngleDampening(alpha=ratio)(hybrid_model(), data)
    assert result.record.notes[0].startswith("0 of 24")
    assert "n / n_f" in result.record.notes[0]
    assert torch.equal(result.model.get_parameter(WEIGHTS), hybrid_model().get_parameter(WEIGHTS))


def test_counts_are_those_of_a_hand_count() -> None:
    """18 samples in all, 24 weights."""
    counts = METHOD(hybrid_model(), TASK).record.counts
    assert counts.gradient_evaluations == 18
    assert counts.circuit_evaluations == 18 * 25
    assert counts.hardware_circuits == 18 * 24


def test_single_precision_ends_near_double() -> None:
    model = hybrid_model().float()
    found = METHOD(model, TASK).model.get_parameter(WEIGHTS)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), METHOD(hybrid_model(), TASK).model.get_parameter(WEIGHTS), atol=1e-4)
