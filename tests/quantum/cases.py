"""What the tests of the engines share: circuits, draws, and truths that no engine has a part in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
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
