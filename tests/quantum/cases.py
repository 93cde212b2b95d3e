"""What the tests of the engines share: circuits, draws, and truths that no engine has a part in."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.channels import CHANNELS
from qunlearn.quantum.circuit import Angle, Channel, Circuit, Factor, Gate
from qunlearn.quantum.gates import GATES, PAULI, Matrix

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
#: A few gates, for derivatives of high order: a shared weight, angles of every form, one and two wires.
SMALL = Circuit(
    2,
    (
        Gate("ry", (0,), Angle(0.7, (Factor(0), Factor(1, -1.0, 0.5)), 0, 0.1)),
        Gate("h", (1,)),
        Gate("rx", (1,), Angle(weight=1)),
        Gate("crx", (0, 1), Angle(weight=0)),
        Gate("rzz", (1, 0), Angle(1.3, (Factor(1),))),
        Gate("rx", (0,), Angle(factors=(Factor(0),), weight=1)),
        Gate("cx", (1, 0)),
    ),
    ("ZI", "XY", "IZ"),
    2,
    2,
)
every_circuit = pytest.mark.parametrize("circuit", CIRCUITS.values(), ids=CIRCUITS)
every_engine = pytest.mark.parametrize("engine", ["torch", "fused"])


def draw(circuit: Circuit, batch: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Features ``(batch, features)`` and weights ``(weights,)``, the same at every call."""
    generator = torch.Generator().manual_seed(circuit.weights)
    x = torch.randn(batch, circuit.features, generator=generator, dtype=torch.float64)
    w = torch.rand(circuit.weights, generator=generator, dtype=torch.float64) * 6
    return x.to(dtype), w.to(dtype)


def dense(circuit: Circuit, x: Tensor, w: Tensor) -> Tensor:
    """One sample's final state ``(2, ..., 2)``, gate by gate from the matrices of the gate table."""
    psi = torch.nn.functional.one_hot(torch.tensor(0), 2**circuit.qubits).to(torch.complex128)
    if circuit.amplitude:
        psi = torch.nn.functional.pad(x / x.norm(), (0, 2**circuit.qubits - circuit.features)).to(torch.complex128)
    psi = psi.reshape([2] * circuit.qubits)
    for gate in circuit.gates:
        wires = len(gate.wires)
        matrix = GATES[gate.name].matrix(_angle(gate, x, w)).reshape([2] * (2 * wires))
        psi = torch.tensordot(matrix, psi, dims=(list(range(wires, 2 * wires)), list(gate.wires)))
        psi = torch.movedim(psi, list(range(wires)), list(gate.wires))
    return psi


def _angle(gate: Gate, x: Tensor, w: Tensor) -> Tensor | None:
    """The angle of a gate for one sample."""
    if gate.angle is None:
        return None
    parts = [f.sign * x[f.feature] + f.shift for f in gate.angle.factors]
    parts += [] if gate.angle.weight is None else [w[gate.angle.weight]]
    angle = torch.tensor(gate.angle.offset, dtype=torch.float64)
    return angle + gate.angle.scale * math.prod(parts) if parts else angle


def exact_noisy(circuit: Circuit, x: Tensor, w: Tensor) -> Tensor:
    """Expectation values ``(..., observables)`` from density matrices and Kraus operators; differentiable."""
    samples = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    rows = [torch.zeros(0, len(circuit.observables), dtype=torch.float64)]
    for sample in samples.unbind(0):
        rho = kraus_density(circuit, sample, w)
        values = [torch.einsum("ij,ji", read_matrix(circuit, word), rho).real for word in circuit.observables]
        rows.append(torch.stack(values).unsqueeze(0))
    return torch.cat(rows).reshape(*x.shape[:-1], len(circuit.observables))


def read_matrix(circuit: Circuit, word: str) -> Tensor:
    """The observable that a Pauli string is, if outcomes +1 are read as -1 with one error, -1 as +1 with another."""
    matrix = torch.ones(1, 1, dtype=torch.complex128)
    for letter, (zero, one) in zip(word, circuit.readout or ((0.0, 0.0),) * circuit.qubits, strict=True):
        pauli, identity = torch.as_tensor(PAULI[letter]), torch.eye(2, dtype=torch.complex128)
        up, down = (identity + pauli) / 2, (identity - pauli) / 2
        read = pauli if letter == "I" else (1 - 2 * zero) * up - (1 - 2 * one) * down
        matrix = torch.kron(matrix, read)
    return matrix


def kraus_density(circuit: Circuit, x: Tensor, w: Tensor) -> Tensor:
    """One sample's final density matrix, ``(2**qubits, 2**qubits)``."""
    start = replace(circuit, gates=(), channels=())
    psi = dense(start, x, w).reshape(-1)
    rho = torch.outer(psi, psi.conj())
    for step in circuit.steps:
        if isinstance(step, Channel):
            operators = torch.as_tensor(CHANNELS[step.name].kraus(step.strengths, len(step.wires)).copy()).unbind(0)
        else:
            operators = (GATES[step.name].matrix(_angle(step, x, w)),)
        wide = [_widened(operator, step.wires, circuit.qubits) for operator in operators]
        rho = sum((matrix @ rho @ matrix.mH for matrix in wide), torch.zeros_like(rho))
    return rho


def _widened(matrix: Tensor, wires: tuple[int, ...], qubits: int) -> Tensor:
    """The matrix on all wires, ``(2**qubits, 2**qubits)``, of one that acts on some."""
    k = len(wires)
    identity = torch.eye(2**qubits, dtype=torch.complex128).reshape([2] * qubits + [2**qubits])
    moved = torch.tensordot(matrix.reshape([2] * (2 * k)), identity, dims=(list(range(k, 2 * k)), list(wires)))
    return torch.movedim(moved, list(range(k)), list(wires)).reshape(2**qubits, 2**qubits)


def exact(circuit: Circuit, x: Tensor, w: Tensor) -> Tensor:
    """Expectation values ``(..., observables)`` from `dense` states and matrices of Pauli strings; differentiable."""
    samples = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    paulis = torch.as_tensor(np.stack([pauli_matrix(word) for word in circuit.observables]))
    rows = [torch.zeros(0, len(paulis), dtype=torch.float64)]
    for sample in samples.unbind(0):
        psi = dense(circuit, sample, w).reshape(-1)
        rows.append(torch.einsum("i,kij,j->k", psi.conj(), paulis, psi).real.unsqueeze(0))
    return torch.cat(rows).reshape(*x.shape[:-1], len(paulis))


def pauli_matrix(word: str) -> Matrix:
    """The matrix of a Pauli string."""
    matrix = PAULI[word[0]]
    for letter in word[1:]:
        matrix = np.kron(matrix, PAULI[letter]).astype(np.complex128)
    return matrix


def gradients(outputs: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Gradients of a fixed random combination of all outputs, zeros where nothing depends on an input."""
    mix = torch.rand(outputs.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    if not outputs.requires_grad:
        return [torch.zeros_like(value) for value in inputs]
    found = torch.autograd.grad((outputs * mix.to(outputs)).sum(), inputs, allow_unused=True)
    return [torch.zeros_like(v) if g is None else g for v, g in zip(inputs, found, strict=True)]


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


#: Strengths of every channel: weak, usual, and at the ends of what is allowed.
STRENGTHS: dict[str, tuple[tuple[float, ...], ...]] = {
    **dict.fromkeys(CHANNELS, ((1e-4,), (0.02,), (0.3,), (1.0,))),
    "thermal-relaxation": ((50, 70, 0.5), (50, 30, 20.0), (50, 100, 20.0, 0.2), (50, 60, 1e3, 0.1), (50, 70, 0.0, 1.0)),
}


def with_channels(circuit: Circuit, seed: int, most: int = 10, readout: bool = True) -> Circuit:
    """The circuit with random channels of any strength at random places, and different readout errors a wire."""
    rng, channels = np.random.default_rng(seed), []
    for _ in range(int(rng.integers(1, most))):
        name = str(rng.choice(list(CHANNELS)))
        several = CHANNELS[name].widest > 1 and circuit.qubits > 1 and rng.random() < 0.6
        wires = tuple(int(wire) for wire in rng.permutation(circuit.qubits)[: 1 + several])
        strengths = STRENGTHS[name][rng.integers(len(STRENGTHS[name]))]
        channels.append(Channel(name, wires, strengths, int(rng.integers(-1, len(circuit.gates)))))
    errors = rng.uniform(0, 0.2, (circuit.qubits, 2)).tolist() if readout else []
    return replace(circuit, channels=tuple(channels), readout=tuple((zero, one) for zero, one in errors))


@st.composite
def circuits(draw: st.DrawFn, amplitude: bool = True) -> Circuit:
    """Any gates of the table in any order, shared weights, angles of every form, from |0...0> or from amplitudes."""
    qubits = draw(st.integers(1, 6))
    features = min(3, 2**qubits)
    names = [name for name, spec in GATES.items() if spec.wires <= qubits]
    number = st.sampled_from([0.0, 1.0, -0.5, math.pi / 2, math.pi])
    factor = st.builds(Factor, st.integers(0, features - 1), st.sampled_from([1.0, -1.0]), number)
    factors = st.lists(factor, max_size=2).map(tuple)
    scale = st.sampled_from([1.0, -0.7, 2.0])
    angle = st.builds(Angle, scale, factors, st.none() | st.integers(0, 4), number)
    gates = []
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=25)):
        wires = draw(st.permutations(range(qubits)))[: GATES[name].wires]
        gates.append(Gate(name, tuple(wires), draw(angle) if GATES[name].has_angle else None))
    words = draw(st.lists(st.text("IXYZ", min_size=qubits, max_size=qubits), min_size=1, max_size=3))
    return Circuit(qubits, tuple(gates), tuple(words), features, 5, amplitude and draw(st.booleans()))
