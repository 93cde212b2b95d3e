import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

import qunlearn as qu
from qunlearn.errors import UnsupportedError
from qunlearn.quantum.backends.calibration import _depolarizing, device_noise, prepared_noise, quiet_qubits
from qunlearn.quantum.backends.device import cut_device, find_device
from qunlearn.quantum.backends.opened import open_circuit
from qunlearn.quantum.backends.transpiling import Floats, Prepared, active_qubits, prepare
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.engines import density
from qunlearn.quantum.sampling import apply_readout

NOTHING = torch.zeros(0, dtype=torch.float64)


def asymmetric(observables: tuple[str, ...]) -> Circuit:
    """Three wires, no two of them alike."""
    x = [Angle(factors=(Factor(k),)) for k in range(4)]
    gates = (
        *(Gate("ry", (0,), x[0]), Gate("rx", (1,), x[1]), Gate("cx", (0, 1)), Gate("ry", (2,), Angle(offset=0.4))),
        *(Gate("crz", (1, 2), x[2]), Gate("t", (0,)), Gate("ry", (2,), x[3]), Gate("cx", (2, 0)), Gate("h", (1,))),
    )
    return Circuit(3, gates, observables, 4, 0)


def of_aer(prepared: Prepared, device: Any, angles: Floats, basis: int = 0) -> Floats:
    """The final density matrix's diagonal of the transpiled circuit, our wires first, by Aer's own noise model."""
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel

    from qunlearn.quantum.backends.runtime import _on

    isa = prepared.isa[basis]
    used = active_qubits(isa)
    small = _on(isa, used)
    small.remove_final_measurements()
    small = small.assign_parameters({p: angles[p.index] for p in small.parameters})
    small.save_density_matrix()
    model = NoiseModel.from_backend(cut_device(device, used))
    state = AerSimulator(noise_model=model, method="density_matrix").run(small).result().data()["density_matrix"]
    order = [*prepared.layouts[basis], *(q for q in used if q not in prepared.layouts[basis])]
    axes = [len(used) - 1 - used.index(qubit) for qubit in order]
    shares: Floats = np.real(np.diag(np.asarray(state))).reshape((2,) * len(used)).transpose(axes).ravel()
    return shares


DEVICES = {
    "a line of cx": lambda: find_device("fake_manila"),
    "a heavy-hex cut-out of cx": lambda: cut_device(
        find_device("fake_kolkata"), [0, 1, 2, 3, 4, 5, 8], missing=[(1, 4)]
    ),
    "cz": lambda: cut_device(find_device("fake_torino"), [80, 81, 82, 92, 99]),
    "ecr": lambda: cut_device(find_device("fake_sherbrooke"), [33, 39, 40, 41, 42, 53]),
}


@pytest.mark.parametrize("name", DEVICES)
def test_the_noisy_circuit_is_what_aer_makes_of_the_calibration(name: str) -> None:
    device, rng = DEVICES[name](), np.random.default_rng(3)
    circuits = [asymmetric(("ZII", "IZI", "IIZ", "ZZZ"))]
    if device.num_qubits >= 5:
        circuits.append(qu.load_circuit("ring-cz", qubits=4, depth=1))
    for circuit in circuits:
        opened = open_circuit(circuit).circuit
        prepared = prepare(opened, device, seed=5)
        noisy = dataclasses.replace(prepared_noise(prepared, device), readout=())
        for angles in rng.uniform(-3, 3, (2, opened.features)):
            mine = density.probabilities(noisy, torch.from_numpy(angles), NOTHING).numpy()
            np.testing.assert_allclose(mine, of_aer(prepared, device, angles), atol=1e-9)


def test_readout_errors_stand_on_the_qubits_that_are_measured() -> None:
    device, angles = find_device("fake_manila"), np.array([0.3, 1.2, -0.7, 2.0])
    opened = open_circuit(asymmetric(("ZII", "IZI", "IIZ"))).circuit
    prepared = prepare(opened, device, layout=(3, 1, 2))
    noisy = prepared_noise(prepared, device)
    measure = device.target["measure"]
    qubits = [*prepared.layout, *(q for q in active_qubits(prepared.isa[0]) if q not in prepared.layout)]
    assert noisy.readout == tuple((measure[(q,)].error,) * 2 for q in qubits)
    read = apply_readout(of_aer(prepared, device, angles), noisy.readout)
    np.testing.assert_allclose(density.probabilities(noisy, torch.from_numpy(angles), NOTHING).numpy(), read, atol=1e-9)


def test_a_sum_of_angles_becomes_gates_that_add_up() -> None:
    opened = open_circuit(
        Circuit(1, tuple(Gate("ry", (0,), Angle(factors=(Factor(k),))) for k in range(3)), ("Z",), 3, 0)
    ).circuit
    device, x = find_device("fake_manila"), ParameterVector("x", 3)
    summed = QuantumCircuit(5, 1)
    summed.sx(2)
    summed.rz(x[0] - 2 * x[1] + 0.5 * x[2] + 0.4, 2)
    summed.sx(2)
    summed.measure(2, 0)
    prepared = dataclasses.replace(prepare(opened, device), isa=(summed,), layouts=((2,),))
    noisy, angles = prepared_noise(prepared, device), np.array([0.3, -1.1, 2.2])
    assert [gate.name for gate in noisy.gates] == ["sx", "rz", "rz", "rz", "sx"]
    mine = density.probabilities(dataclasses.replace(noisy, readout=()), torch.from_numpy(angles), NOTHING).numpy()
    np.testing.assert_allclose(mine, of_aer(prepared, device, angles), atol=1e-9)


def test_a_product_of_angles_is_refused() -> None:
    device, x = find_device("fake_manila"), ParameterVector("x", 2)
    product = QuantumCircuit(5, 1)
    product.rz(x[0] * x[1], 0)
    product.measure(0, 0)
    opened = open_circuit(Circuit(1, (Gate("rx", (0,), Angle(factors=(Factor(0),))),), ("Z",), 1, 0)).circuit
    prepared = dataclasses.replace(prepare(opened, device), isa=(product,), layouts=((0,),))
    with pytest.raises(UnsupportedError, match="sum of multiples of angles"):
        prepared_noise(prepared, device)


def test_observables_of_several_bases_keep_their_letters() -> None:
    circuit, rng = asymmetric(("XYZ", "ZII", "IYI", "IIX")), np.random.default_rng(0)
    device = find_device("fake_manila")
    opened = open_circuit(circuit).circuit
    noisy = device_noise(opened, device)
    assert [word[:3] for word in noisy.observables] == list(circuit.observables)
    perfect = dataclasses.replace(noisy, channels=(), readout=())
    angles = torch.from_numpy(rng.uniform(-3, 3, (3, 4)))
    exact = density.expectations(opened, angles, NOTHING)
    torch.testing.assert_close(density.expectations(perfect, angles, NOTHING), exact, atol=1e-9, rtol=0)
    assert not torch.allclose(density.expectations(noisy, angles, NOTHING), exact, atol=1e-3)


def test_wide_circuits_stay_within_the_density_engine() -> None:
    circuit = open_circuit(qu.load_circuit("ring-cz", qubits=8, depth=1)).circuit
    for name in ("fake_kolkata", "fake_torino"):
        device = find_device(name)
        assert device_noise(circuit, device).qubits == 8
        assert len(set(quiet_qubits(device, 8))) == 8


def test_gates_that_have_no_calibration_or_a_broken_one() -> None:
    assert _depolarizing(0.0, [4.0]) == 0
    assert _depolarizing(0.01, [4.0]) == pytest.approx(0.02)
    assert _depolarizing(1.0, [4.0, 4.0]) == pytest.approx(1.0)
    with pytest.raises(UnsupportedError, match="5 connected qubits"):
        quiet_qubits(cut_device(find_device("fake_manila"), [0, 1, 3, 4]), 5)
