import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")

from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.primitives import BitArray
from qiskit.transpiler import InstructionProperties
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, depolarizing_error

import qunlearn as qu
from qunlearn.errors import InputError, UnsupportedError
from qunlearn.quantum import engines
from qunlearn.quantum.backends.device import cut_device, find_device
from qunlearn.quantum.backends.mitigation import Mitigation, construct
from qunlearn.quantum.backends.opened import open_circuit
from qunlearn.quantum.backends.runtime import Runtime, check_isa, prepare, run_locally
from qunlearn.quantum.backends.transpiling import instructions, outcomes
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate

FEATURES = torch.tensor([[0.3, 1.1], [2.0, -0.7], [1.2, 0.4]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.9, 1.7], dtype=torch.float64)
WORDS = ("ZII", "IZI", "IIZ", "ZIZ", "XYZ", "IXI", "YII")


def asymmetric(observables: tuple[str, ...] = WORDS) -> Circuit:
    """Three wires, no two of them alike."""
    x, w = [Angle(factors=(Factor(k),)) for k in range(2)], [Angle(weight=k) for k in range(2)]
    gates = (
        *(Gate("ry", (0,), x[0]), Gate("rx", (1,), x[1]), Gate("cx", (0, 1)), Gate("ry", (2,), Angle(offset=0.4))),
        *(Gate("crz", (1, 2), w[0]), Gate("t", (0,)), Gate("ry", (2,), w[1]), Gate("cx", (2, 0)), Gate("h", (1,))),
    )
    return Circuit(3, gates, observables, 2, 2)


def quiet(name: str, qubits: list[int], missing: tuple[tuple[int, int], ...] = ()) -> Any:
    """Part of a fake device whose gates never fail: its couplers and gates without its noise."""
    device = cut_device(find_device(name), qubits, missing=missing)
    for gate in device.target.operation_names:
        for on, facts in device.target[gate].items():
            if facts is not None:
                device.target.update_instruction_properties(gate, on, InstructionProperties(error=0.0))
    return device


TOPOLOGIES = {
    "a line": lambda: quiet("fake_manila", [0, 1, 2, 3, 4]),
    "heavy hex with a missing coupler": lambda: quiet(
        "fake_kolkata", [0, 1, 2, 3, 5, 8, 11, 14, 13, 12, 10, 7, 4], ((1, 4),)
    ),
}


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("layout", [None, (2, 0, 3), (4, 1, 3)])
def test_values_are_exact_under_any_layout(name: str, layout: tuple[int, ...] | None) -> None:
    backend = Runtime(TOPOLOGIES[name](), shots=40000, layout=layout, seed=1)
    circuit = asymmetric()
    found = backend.expectations(circuit, FEATURES, WEIGHTS)
    exact = engines.expectations(circuit, FEATURES, WEIGHTS)
    assert float((found - exact).abs().max()) < 4.5 / 200
    assert np.all(np.abs((found - exact).numpy()) < 4.5 * np.maximum(backend.errors, 1e-3))
    work = backend.work(open_circuit(circuit).circuit)
    if layout is not None:
        start = work.prepared.isa[0].layout.initial_index_layout(filter_ancillas=True)
        assert tuple(start) == layout
    assert all(len(set(found)) == 3 for found in work.prepared.layouts)


def test_three_bits_that_no_swap_leaves_right() -> None:
    """Eight outcomes with eight frequencies, each far from the others."""
    gates = (
        Gate("ry", (0,), Angle(offset=2.03)),
        Gate("ry", (1,), Angle(offset=1.85)),
        Gate("ry", (2,), Angle(offset=2.14)),
    )
    circuit = Circuit(3, (*gates, Gate("cx", (0, 2)), Gate("cx", (2, 1))), ("ZII", "IZI", "IIZ"), 0, 0)
    state = np.abs(
        engines.state(circuit, torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)).numpy()
    )
    shares = (state**2).ravel()
    assert min(abs(a - b) for i, a in enumerate(shares) for b in shares[:i]) > 0.015
    for name, layout in (("fake_manila", (3, 1, 2)), ("fake_manila", (0, 4, 2)), ("fake_kolkata", (8, 5, 3))):
        device = quiet(name, [*range(find_device(name).num_qubits or 0)])
        prepared = prepare(open_circuit(circuit).circuit, device, layout=layout)
        work = construct(prepared, Mitigation())
        (counts,) = work.counts(run_locally(device, work.pubs(np.zeros((1, 0))), 40000, [7]), rows=1)
        np.testing.assert_allclose(counts[0] / 40000, shares, atol=0.0075)


def test_bits_of_a_register_become_an_index_of_ours() -> None:
    seen = BitArray.from_counts([{"001": 3, "110": 1}, {"100": 4}])  # Qiskit: bit 0 on the right
    counts = outcomes(type("Result", (), {"data": type("Data", (), {"c": seen})}), 3)
    assert counts.tolist() == [[0, 0, 0, 1, 3, 0, 0, 0], [0, 4, 0, 0, 0, 0, 0, 0]]
    two = BitArray.from_counts({"01": 3}, num_bits=2)
    with pytest.raises(InputError, match="3 measured wires, got 2"):
        outcomes(type("Result", (), {"data": type("Data", (), {"c": two})}), 3)


def test_a_batch_is_one_pub_a_basis_with_all_rows() -> None:
    opened = open_circuit(asymmetric()).circuit
    prepared = prepare(opened, find_device("fake_manila"))
    angles = np.arange(5.0 * opened.features).reshape(5, -1)
    work = construct(prepared, Mitigation()).pubs(angles)
    assert len(work) == len(prepared.bases) == 3
    for circuit, values in work:
        assert values.shape == (5, len(circuit.parameters))
        for column, parameter in enumerate(circuit.parameters):
            np.testing.assert_array_equal(values[:, column], angles[:, parameter.index])


def test_sizes_before_and_after() -> None:
    circuit = open_circuit(qu.load_circuit("strongly-entangling", qubits=4, depth=1)).circuit
    prepared = prepare(circuit, find_device("fake_manila"))
    assert (prepared.before.two_qubit_gates, prepared.before.two_qubit_depth) == (4, 4)
    assert prepared.after.two_qubit_gates == prepared.isa[0].num_nonlocal_gates() > 4
    assert prepared.after.depth > prepared.before.depth
    again = prepare(circuit, find_device("fake_manila"))
    assert [*instructions(again.isa[0])] == [*instructions(prepared.isa[0])]
    assert again.layouts == prepared.layouts


def test_uncoupled_and_unknown_gates_are_refused() -> None:
    line = find_device("fake_manila")
    wrong = QuantumCircuit(QuantumRegister(5), ClassicalRegister(2, "c"))
    wrong.cx(0, 4)
    with pytest.raises(
        UnsupportedError, match=r"instruction 0: expected coupled qubits for cx on fake_manila, got cx on \[0, 4\]"
    ):
        check_isa(wrong, line)
    unknown = QuantumCircuit(5)
    unknown.x(0)
    unknown.h(1)
    with pytest.raises(UnsupportedError, match=r"instruction 1: expected gates from .*got h on \[1\]"):
        check_isa(unknown, line)
    cut = cut_device(find_device("fake_kolkata"), [1, 4, 7], missing=[(4, 1)])
    prepared = prepare(open_circuit(asymmetric(("ZII",))).circuit, find_device("fake_kolkata"), layout=(0, 1, 4))
    with pytest.raises(UnsupportedError, match="expected coupled qubits"):
        check_isa(prepared.isa[0], cut)


def test_what_does_not_fit_a_device_is_refused() -> None:
    with pytest.raises(InputError, match="at least 6 qubits"):
        prepare(open_circuit(qu.load_circuit("ring-cz", qubits=6, depth=1)).circuit, find_device("fake_manila"))
    opened = open_circuit(asymmetric()).circuit
    for layout in ((0, 1), (0, 0, 1), (0, 1, 7)):
        with pytest.raises(InputError, match="3 different qubits of fake_manila"):
            prepare(opened, find_device("fake_manila"), layout=layout)
    with pytest.raises(UnsupportedError, match="without noise"):
        prepare(dataclasses.replace(opened, readout=((0.1, 0.1),) * 3), find_device("fake_manila"))
    with pytest.raises(UnsupportedError, match="open_circuit"):
        prepare(asymmetric(), find_device("fake_manila"))
    with pytest.raises(InputError, match="'job' or 'batch'"):
        Runtime("fake_manila", mode="session")
    with pytest.raises(UnsupportedError, match="durations"):
        Runtime(AerSimulator(), mitigation=Mitigation(dynamical_decoupling="XX"))


def test_seeds_repeat_a_run_and_calls_differ() -> None:
    circuit = asymmetric(("ZII", "IZI"))
    one, same, other = (Runtime("fake_manila", shots=300, seed=seed) for seed in (0, 0, 1))
    first, second = one.expectations(circuit, FEATURES, WEIGHTS), one.expectations(circuit, FEATURES, WEIGHTS)
    assert torch.equal(first, same.expectations(circuit, FEATURES, WEIGHTS))
    assert not torch.equal(first, second)
    assert not torch.equal(first, other.expectations(circuit, FEATURES, WEIGHTS))
    equal = one.expectations(circuit, FEATURES[:1].repeat(4, 1), WEIGHTS)
    assert len(set(equal[:, 0].tolist())) > 1  # every row draws its own shots


def test_circuits_without_angles_and_empty_batches() -> None:
    fixed = Circuit(2, (Gate("x", (1,)),), ("ZI", "IZ"), 1, 0)
    backend = Runtime(AerSimulator(), shots=50)
    values = backend.expectations(fixed, torch.zeros(3, 1), torch.zeros(0))
    assert values.tolist() == [[1, -1]] * 3
    assert backend.expectations(fixed, torch.zeros(0, 1), torch.zeros(0)).shape == (0, 2)
    assert backend.spent.jobs == 1


def test_spent_counts_bases_copies_and_calibration() -> None:
    backend = Runtime("fake_manila", shots=100, mitigation=Mitigation(readout=True, zne=(1, 3)))
    backend.expectations(asymmetric(("ZII", "XII")), FEATURES, WEIGHTS)
    assert (backend.spent.jobs, backend.spent.circuits) == (1, 3 * 2 * 2 + 2)
    assert backend.spent.executions == 1400
    twirled = Runtime("fake_manila", shots=100, mitigation=Mitigation(twirling=True, readout=True))
    twirled.expectations(asymmetric(("ZII",)), FEATURES, WEIGHTS)
    assert twirled.spent.executions == (3 + 2) * 128


def test_noise_of_a_simulator_strikes_the_gates_of_a_device() -> None:
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(1.0, 2), ["cx"])
    backend = Runtime(AerSimulator(noise_model=model), shots=4000)
    gates = (Gate("cz", (0, 1)), Gate("x", (0,)))
    values = backend.expectations(Circuit(2, gates, ("ZI",), 1, 0), torch.zeros(1, 1), torch.zeros(0))
    assert abs(float(values)) < 0.1


def test_noise_that_would_not_strike_is_refused() -> None:
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.1, 2), ["crx"])
    backend = Runtime(AerSimulator(noise_model=model), shots=10)
    with pytest.raises(UnsupportedError, match="got noise on crx"):
        backend.expectations(asymmetric(("ZII",)), FEATURES, WEIGHTS)


def test_a_simulator_of_a_device_keeps_its_couplers() -> None:
    backend = Runtime(AerSimulator.from_backend(find_device("fake_manila")), shots=2000)
    found = backend.expectations(asymmetric(("ZII", "IIZ")), FEATURES, WEIGHTS)
    exact = engines.expectations(asymmetric(("ZII", "IIZ")), FEATURES, WEIGHTS)
    assert float((found - exact).abs().max()) < 0.25
    assert backend.work(open_circuit(asymmetric(("ZII", "IIZ"))).circuit).prepared.isa[0].num_qubits == 5


def test_gradients_come_in_the_same_job() -> None:
    backend = Runtime(AerSimulator(), shots=100_000, seed=2)
    circuit, weights = asymmetric(("ZII", "IIZ")), WEIGHTS.clone().requires_grad_()
    backend.expectations(circuit, FEATURES, weights).sum().backward()  # type: ignore[no-untyped-call]
    reference = WEIGHTS.clone().requires_grad_()
    engines.expectations(circuit, FEATURES, reference).sum().backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    assert reference.grad is not None
    torch.testing.assert_close(weights.grad, reference.grad, atol=0.05, rtol=0)  # 5 standard errors, at most
    assert float(reference.grad.abs().min()) > 0.1
    assert backend.spent.jobs == 1


def test_a_backend_survives_pickling_and_is_not_copied() -> None:
    backend = Runtime(quiet("fake_manila", [0, 1, 2]), shots=100)
    assert copy.deepcopy(backend) is backend
    simulator = Runtime("fake_manila", shots=100, seed=3)
    simulator.expectations(asymmetric(("ZII",)), FEATURES, WEIGHTS)
    again = pickle.loads(pickle.dumps(simulator))
    assert again.expectations(asymmetric(("ZII",)), FEATURES, WEIGHTS).shape == (3, 1)


def test_a_wide_device_is_prepared_fast() -> None:
    """Eight wires on 27 qubits; the seconds themselves are measured elsewhere, here it only must not hang."""
    circuit = open_circuit(qu.load_circuit("ring-cz", qubits=8, depth=2)).circuit
    prepared = prepare(circuit, find_device("fake_kolkata"))
    assert prepared.isa[0].num_qubits == 27
    assert prepared.after.two_qubit_gates < 60
