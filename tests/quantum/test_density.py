"""The density engine against PennyLane's default.mixed, Aer's density matrices, and Kraus operators."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qunlearn.errors import InputError, UnsupportedError
from qunlearn.quantum.card import available_cards, load_circuit
from qunlearn.quantum.channels import CHANNELS
from qunlearn.quantum.circuit import Angle, Channel, Circuit, Factor, Gate
from qunlearn.quantum.convert import qiskit_observables, qiskit_readout, tree_angles
from qunlearn.quantum.engines import density, expectations, state
from qunlearn.quantum.gates import GATES
from qunlearn.quantum.liveness import dead_weights
from tests.quantum.cases import (
    SMALL,
    STRENGTHS,
    circuits,
    draw,
    exact_noisy,
    gradients,
    kraus_density,
    random_circuit,
    with_channels,
)
from tests.quantum.test_engines import TRANSFORMS

# torch's own forward-mode rules are still made with its deprecated compiler.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

WORDS = ["ZIII", "IZII", "IIZI", "IIIZ", "XYIZ", "IYXX", "IIII"]


def near(found: Tensor, expected: Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(found.detach().double(), expected.detach().double(), rtol=0, atol=atol)


def pennylane(circuit: Circuit, x: Tensor, w: Tensor) -> Tensor:
    """Expectation values by default.mixed; with NumPy, since with PyTorch it takes some gates in single precision."""
    node = qml.QNode(circuit.to_pennylane(), qml.device("default.mixed", wires=circuit.qubits), diff_method=None)
    columns = node(x.detach().numpy(), w.detach().numpy())
    return torch.stack([torch.as_tensor(np.broadcast_to(np.real(column), len(x)).copy()) for column in columns], 1)


def aer_matrices(circuit: Circuit, x: Tensor, w: Tensor) -> list[Any]:
    """Final density matrices by Aer, which has no readout errors in them."""
    aer = pytest.importorskip("qiskit_aer")
    from qiskit import transpile

    simulator = aer.AerSimulator(method="density_matrix")
    made = circuit.to_qiskit()
    made.save_density_matrix()
    made = transpile(made, simulator, optimization_level=0)
    rows = tree_angles(circuit, x) if circuit.amplitude else x
    bound = []
    for row in rows:
        values = {"x": row, "w": w}
        bound.append(made.assign_parameters({p: float(values[p.vector.name][p.index]) for p in made.parameters}))
    result = simulator.run(bound).result()
    return [result.data(k)["density_matrix"] for k in range(len(bound))]


def aer(circuit: Circuit, x: Tensor, w: Tensor) -> Tensor:
    """Expectation values by Aer, without readout errors."""
    operators = qiskit_observables(circuit)
    rows = [[rho.expectation_value(o).real for o in operators] for rho in aer_matrices(circuit, x, w)]
    return torch.tensor(rows, dtype=torch.float64)


def check(circuit: Circuit, batch: int = 2) -> None:
    """PennyLane and Aer give the same values."""
    x, w = draw(circuit, batch)
    # At the ends of what is allowed PennyLane adds the machine epsilon below square roots.
    near(density.expectations(circuit, x, w), pennylane(circuit, x, w), 1e-7 if _is_extreme(circuit) else 1e-9)
    without = replace(circuit, readout=())
    near(density.expectations(without, x, w), aer(without, x, w))


def _is_extreme(circuit: Circuit) -> bool:
    return any(max(c.strengths) in (1.0, 1e3) for c in circuit.channels)


def check_kraus(circuit: Circuit, batch: int = 2) -> None:
    """Kraus operators give the same values and gradients."""
    x, w = (value.requires_grad_() for value in draw(circuit, batch))
    found, expected = density.expectations(circuit, x, w), exact_noisy(circuit, x, w)
    near(found, expected, 1e-11)
    for mine, true in zip(gradients(found, x, w), gradients(expected, x, w), strict=True):
        near(mine, true, 1e-10)


# Values.


def struck(channel: Channel) -> Circuit:
    """Three wires in an entangled state, one channel, and gates after it that show what it did."""
    before = (
        Gate("ry", (0,), Angle(factors=(Factor(0),))), Gate("rx", (1,), Angle(weight=0)), Gate("cx", (0, 1)),
        Gate("crx", (1, 2), Angle(weight=1)), Gate("t", (0,)),
    )  # fmt: skip
    after = (
        Gate("ryy", (0, 2), Angle(weight=2)),
        Gate("h", (1,)),
        Gate("cz", (1, 2)),
        Gate("rx", (2,), Angle(weight=3)),
    )
    words = ("ZII", "IZI", "IIZ", "XYZ", "YXI", "IXX")
    return Circuit(3, before + after, words, 1, 4, channels=(channel,))


@pytest.mark.parametrize("after", [-1, 4, 8])
@pytest.mark.parametrize(("name", "strengths"), [(name, s) for name in CHANNELS for s in STRENGTHS[name]])
def test_every_channel_is_what_pennylane_and_aer_say(name: str, strengths: tuple[float, ...], after: int) -> None:
    check(struck(Channel(name, (1,), strengths, after)))


@pytest.mark.parametrize("strengths", STRENGTHS["depolarizing"])
@pytest.mark.parametrize("wires", [(0, 1), (2, 0)])
def test_depolarizing_two_wires_is_what_pennylane_and_aer_say(
    wires: tuple[int, ...], strengths: tuple[float, ...]
) -> None:
    check(struck(Channel("depolarizing", wires, strengths, 4)))


@pytest.mark.parametrize("name", GATES)
def test_every_gate_of_the_table_in_noise(name: str) -> None:
    spec = GATES[name]
    angle = Angle(1.3, (Factor(0, 0.7, 0.2),), 0, 0.4) if spec.has_angle else None
    for wires in itertools.permutations(range(3), spec.wires):
        circuit = struck(Channel("amplitude-damping", (0,), (0.2,), 4))
        gates = (*circuit.gates[:5], Gate(name, wires, angle), *circuit.gates[5:])
        more = tuple(Channel("depolarizing", (wire,), (0.1,), 5) for wire in wires)
        check_kraus(replace(circuit, gates=gates, channels=circuit.channels + more), batch=1)


@pytest.mark.parametrize("card", ["ring-cz", "sim-06", "sim-14", "sim-05", "strongly-entangling", "reupload"])
def test_noisy_cards_are_what_pennylane_and_aer_say(card: str) -> None:
    noise = {"depolarizing": 0.02, "amplitude_damping": 0.03, "phase_flip": 0.01, "readout": [0.02, 0.05]}
    words = WORDS if "observables" in available_cards()[card].knobs else None
    check(load_circuit(card, qubits=4, depth=2, observables=words, noise=noise))


@pytest.mark.parametrize("encoding", ["rx-ry-rz", "zz", "iqp", "amplitude", "none"])
def test_noisy_encodings_are_what_pennylane_and_aer_say(encoding: str) -> None:
    noise = {"thermal_relaxation": [50, 70, 2], "bit_phase_flip": 0.02, "after": "gate"}
    check(load_circuit("ring-cz", qubits=4, depth=2, encoding=encoding, observables=WORDS, noise=noise))


@pytest.mark.parametrize("card", sorted(available_cards()))
def test_without_noise_it_is_the_reference_engine(card: str) -> None:
    circuit = load_circuit(card, qubits=4, depth=2)
    x, w = (value.requires_grad_() for value in draw(circuit))
    found, expected = (expectations(circuit, x, w, engine) for engine in ("density", "torch"))
    near(found, expected, 1e-12)
    for mine, true in zip(gradients(found, x, w), gradients(expected, x, w), strict=True):
        near(mine, true, 1e-12)
    near(density.probabilities(circuit, x, w), state(circuit, x, w).flatten(1).abs().square(), 1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_random_noisy_circuits_are_what_kraus_operators_say(seed: int) -> None:
    circuit = with_channels(random_circuit(seed), seed)
    check_kraus(circuit if seed % 3 else replace(circuit, amplitude=True))


@settings(max_examples=25)
@given(circuits(), st.integers(0, 2**31))
def test_any_noisy_circuit_is_what_kraus_operators_say(circuit: Circuit, seed: int) -> None:
    check_kraus(with_channels(circuit, seed), batch=1)


@pytest.mark.slow
@settings(max_examples=400)
@given(circuits(), st.integers(0, 2**31))
def test_many_noisy_circuits_are_what_everybody_says(circuit: Circuit, seed: int) -> None:
    made = with_channels(circuit, seed)
    check_kraus(made)
    check(replace(made, amplitude=False))


def test_more_observables_than_samples_go_another_way() -> None:
    words = ["".join(word) for word in itertools.product("IXYZ", repeat=3)]
    circuit = replace(with_channels(random_circuit(6), 6), observables=tuple(words))
    assert circuit.qubits == 3
    x, w = draw(circuit, batch=100)
    few = density.expectations(circuit, x[:2], w)
    near(few, density.expectations(circuit, x, w)[:2], 1e-13)
    near(few, exact_noisy(circuit, x[:2], w), 1e-12)


# Readings.


def test_probabilities_are_those_of_aer() -> None:
    for seed in range(8):
        circuit = with_channels(random_circuit(seed), seed)
        x, w = draw(circuit, 2)
        found = density.probabilities(circuit, x, w)
        order = [int(np.binary_repr(k, circuit.qubits)[::-1], 2) for k in range(2**circuit.qubits)]
        for row, rho in zip(found, aer_matrices(circuit, x, w), strict=True):
            table = torch.as_tensor(np.real(np.diag(rho.data))[order]).reshape([2] * circuit.qubits)
            for wire, (zero, one) in enumerate(circuit.readout):
                read = torch.tensor([[1 - zero, one], [zero, 1 - one]], dtype=torch.float64)
                table = torch.movedim(torch.tensordot(read, table, ([1], [wire])), 0, wire)
            near(row, table.reshape(-1), 1e-12)
        near(found.sum(-1), torch.ones(2), 1e-12)


def test_readout_errors_are_those_of_aer() -> None:
    aer = pytest.importorskip("qiskit_aer")
    circuit = Circuit(2, (Gate("x", (0,)),), ("ZI", "IZ", "ZZ"), 0, 0, readout=((0.1, 0.2), (0.05, 0.4)))
    made = circuit.to_qiskit()
    made.measure_all()
    shots = 200_000
    counts = aer.AerSimulator(noise_model=qiskit_readout(circuit), seed_simulator=1).run(made, shots=shots).result()
    shares = {word[::-1]: count / shots for word, count in counts.get_counts().items()}
    found = density.probabilities(circuit, torch.zeros(1, 0), torch.zeros(0))[0]
    expected = torch.tensor([shares[word] for word in ("00", "01", "10", "11")])
    near(found, expected, 5e-3)
    near(found, torch.tensor([0.19, 0.01, 0.76, 0.04]), 1e-6)
    values = density.expectations(circuit, torch.zeros(1, 0), torch.zeros(0))[0]
    near(values, torch.tensor([-0.6, 0.9, -0.54]), 1e-6)


def test_qiskit_has_no_noise_model_without_readout_errors() -> None:
    assert qiskit_readout(SMALL) is None


@settings(max_examples=25)
@given(circuits(), st.integers(0, 2**31))
def test_readings_and_values_belong_together(circuit: Circuit, seed: int) -> None:
    words = tuple("I" * k + "Z" + "I" * (circuit.qubits - k - 1) for k in range(circuit.qubits))
    made = with_channels(replace(circuit, observables=words), seed)
    x, w = draw(made, 2)
    table = density.probabilities(made, x, w)
    assert float(table.min()) > -1e-12
    near(table.sum(-1), torch.ones(2), 1e-12)
    bits = (torch.arange(2**made.qubits)[:, None] >> torch.arange(made.qubits).flip(0)) & 1
    near(density.expectations(made, x, w), table @ (1.0 - 2 * bits).double(), 1e-12)


# Derivatives.


#: A channel of every kind, weak enough for something to be left.
STRUCK = (
    Channel("amplitude-damping", (0,), (0.1,), -1),
    Channel("phase-damping", (0,), (0.1,), 0),
    Channel("bit-flip", (1,), (0.05,), 2),
    Channel("depolarizing", (0, 1), (0.1,), 3),
    Channel("thermal-relaxation", (1,), (50.0, 70.0, 5.0, 0.1), 4),
    Channel("depolarizing", (0,), (0.05,), 4),
    Channel("bit-phase-flip", (0,), (0.05,), 5),
    Channel("phase-flip", (1,), (0.05,), 6),
)
noisy_small = {
    "angles": replace(SMALL, channels=STRUCK, readout=((0.02, 0.1), (0.05, 0.0))),
    "amplitudes": replace(SMALL, channels=STRUCK, amplitude=True),
}


@pytest.mark.parametrize("circuit", noisy_small.values(), ids=noisy_small)
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_are_those_of_kraus_operators(transform: Callable[..., Tensor], circuit: Circuit) -> None:
    x, w = draw(circuit)
    found = transform(lambda a, b: density.expectations(circuit, a, b), x, w)
    expected = transform(lambda a, b: exact_noisy(circuit, a, b), x, w)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_forward_mode_in_forward_mode() -> None:
    circuit = noisy_small["angles"]
    x, w = draw(circuit)
    found = torch.func.jacfwd(torch.func.jacfwd(lambda b: density.expectations(circuit, x, b)))(w)
    torch.testing.assert_close(found, torch.func.hessian(lambda b: exact_noisy(circuit, x, b))(w))


@pytest.mark.parametrize("card", ["ring-cz", "sim-14"])
def test_gradients_are_those_of_the_shift_rule_on_default_mixed(card: str) -> None:
    circuit = load_circuit(card, qubits=3, noise={"depolarizing": 0.05, "amplitude_damping": 0.1, "readout": 0.03})
    x, w = draw(circuit, 1)
    found = torch.func.jacrev(lambda b: density.expectations(circuit, x, b)[0])(w)
    rules = {g.angle.weight: GATES[g.name].shift_rule for g in circuit.gates if g.angle and g.angle.weight is not None}
    for weight, rule in rules.items():
        step = torch.nn.functional.one_hot(torch.tensor(weight), len(w)).double()
        column = sum(share * pennylane(circuit, x, w + shift * step)[0] for share, shift in rule)
        near(found[:, weight], torch.as_tensor(column))


def test_what_reaches_nothing_has_no_slope_at_all() -> None:
    circuit = load_circuit("ring-cz", qubits=4, depth=2, noise={"depolarizing": 0.05, "after": "gate"})
    x, w = draw(circuit)
    w.requires_grad_()
    (slopes,) = gradients(density.expectations(circuit, x, w), w)
    dead = dead_weights(circuit)
    assert dead
    assert not slopes[list(dead)].any()
    assert (slopes != 0).sum() == len(w) - len(dead)


def test_gates_that_are_dead_alone_live_in_noise() -> None:
    """A flip before RZ and CRX on |0>, a pull before a diagonal tail, and a readout error that is not symmetric."""
    rz, ry = Gate("rz", (0,), Angle(weight=0)), Gate("ry", (0,), Angle(weight=1))
    crx, rxx = Gate("crx", (0, 1), Angle(weight=0)), Gate("rxx", (0, 1), Angle(weight=0))
    flip = (Channel("bit-flip", (0,), (0.3,), -1),)
    cases = [
        Circuit(2, (crx, ry), ("IZ",), 0, 2, channels=flip),
        Circuit(2, (ry, rxx), ("ZZ",), 0, 2, readout=((0.1, 0.2), (0.0, 0.3))),
        Circuit(2, (ry, rxx), ("ZZ",), 0, 2, channels=(Channel("amplitude-damping", (0,), (0.3,), 1),)),
    ]
    for circuit in cases:
        assert 0 in dead_weights(circuit.without_noise())
        assert 0 not in dead_weights(circuit)
        check_kraus(circuit)
    still = Circuit(1, (rz, ry), ("Z",), 0, 2, channels=(Channel("amplitude-damping", (0,), (0.3,), -1),))
    assert dead_weights(still) == (0,)


# Sizes and types.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 3)])
def test_batches_of_any_shape(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for encoding in ("rx-ry-rz", "amplitude", "none"):
        circuit = load_circuit("ring-cz", qubits=3, encoding=encoding, noise={"amplitude_damping": 0.1})
        rows, w = draw(circuit, int(np.prod(shape)))
        x = rows.reshape(*shape, circuit.features)
        found = density.expectations(circuit, x.to(dtype), w.to(dtype))
        assert found.dtype == dtype
        near(found, exact_noisy(circuit, x, w), 1e-6 if dtype == torch.float32 else 1e-12)
        assert density.probabilities(circuit, x.to(dtype), w.to(dtype)).shape == (*shape, 8)


@pytest.mark.parametrize("qubits", [1, 2, 5, 6])
def test_other_widths(qubits: int) -> None:
    noise = {"depolarizing": 0.1, "phase_damping": 0.2, "after": "gate", "readout": 0.1}
    check_kraus(load_circuit("sim-14", qubits=qubits, encoding="ry-rz", reupload=True, depth=2, noise=noise), batch=1)


def test_auto_takes_it_for_noisy_circuits() -> None:
    circuit = load_circuit("ring-cz", qubits=3, noise={"depolarizing": 0.1})
    x, w = draw(circuit)
    assert expectations(circuit, x, w).equal(density.expectations(circuit, x, w))
    large = load_circuit("ring-cz", qubits=9, noise={"depolarizing": 0.1})
    with pytest.raises(UnsupportedError, match=r"at most 8 qubits for a noisy circuit, got 9.*trajectories"):
        expectations(large, *draw(large))


@pytest.mark.parametrize("engine", ["torch", "fused"])
def test_engines_of_pure_states_refuse_noise(engine: str) -> None:
    circuit = load_circuit("ring-cz", qubits=3, noise={"readout": 0.1})
    with pytest.raises(UnsupportedError, match=f"without noise for engine '{engine}', got 0 channels and readout"):
        expectations(circuit, *draw(circuit), engine)
    with pytest.raises(UnsupportedError, match=r"pure final state; use circuit.without_noise\(\)"):
        state(circuit, *draw(circuit))


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "available_bytes", lambda device: 2**30)
    circuit = load_circuit("ring-cz", qubits=12, noise={"depolarizing": 0.1})
    for run in (density.expectations, density.probabilities):
        with pytest.raises(InputError, match=r"fit into 1\.0 GiB of memory, got 12 qubits and a batch of 32"):
            run(circuit, *draw(circuit, 32))


def test_zero_samples_cannot_be_amplitudes() -> None:
    circuit = load_circuit("ring-cz", qubits=2, encoding="amplitude", noise={"depolarizing": 0.1})
    with pytest.raises(InputError, match="zero vector as sample 1"):
        density.expectations(circuit, torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]), torch.zeros(circuit.weights))


@given(circuits(), st.integers(0, 1000))
@settings(max_examples=25)
def test_density_matrices_are_those_of_kraus_operators(circuit: Circuit, seed: int) -> None:
    noisy = with_channels(circuit, seed)
    x, w = draw(noisy, 2)
    x[:, 0] += 1.0  # amplitudes must not all be 0
    truth = torch.stack([kraus_density(noisy, sample, w).reshape(2**noisy.qubits, -1) for sample in x])
    torch.testing.assert_close(density.density_matrices(noisy, x, w), truth, rtol=0, atol=1e-9)
    one = density.density_matrices(noisy, x[0], w)
    torch.testing.assert_close(one, truth[0], rtol=0, atol=1e-9)


def test_density_matrices_are_differentiable() -> None:
    circuit = with_channels(random_circuit(5), 5)
    x, w = draw(circuit, 2)

    def purity(found: Tensor) -> Tensor:
        return found.abs().square().sum()

    w.requires_grad_()
    (ours,) = torch.autograd.grad(purity(density.density_matrices(circuit, x, w)), w)
    (theirs,) = torch.autograd.grad(purity(torch.stack([kraus_density(circuit, row, w) for row in x])), w)
    near(ours, theirs)
