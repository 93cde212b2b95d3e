"""PennyLane and Qiskit Aer against the reference engine: values, derivatives, shots, noise, the order of bits."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pennylane as qml
import pytest
import torch
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error

from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.quantum.backends import Backend, open_circuit
from qunlearn.quantum.backends.aer import Aer
from qunlearn.quantum.backends.pennylane import PennyLane
from qunlearn.quantum.card import available_cards, load_circuit
from qunlearn.quantum.circuit import Angle, Channel, Circuit, Factor, Gate
from qunlearn.quantum.engines import density, torch_engine
from qunlearn.quantum.gates import GATES
from tests.quantum.backends.cases import ASYMMETRIC, POINT, both, swapped, worst
from tests.quantum.cases import CIRCUITS, draw, every_circuit

# torch's own forward-mode rules are still made with its deprecated compiler.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

PLACES: dict[str, Callable[..., Backend]] = {
    "lightning.qubit": lambda **options: PennyLane("lightning.qubit", **options),
    "default.qubit": lambda **options: PennyLane("default.qubit", **options),
    "default.mixed": lambda **options: PennyLane("default.mixed", **options),
    "aer": Aer,
}
every_place = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
peers = pytest.mark.parametrize("place", [PLACES["lightning.qubit"], PLACES["aer"]], ids=["lightning.qubit", "aer"])


@peers
@pytest.mark.parametrize("card", available_cards())
def test_every_card_is_exact(card: str, place: Callable[..., Backend]) -> None:
    circuit = load_circuit(card, qubits=3, depth=1)
    assert worst(both(circuit, place(), *draw(circuit, 1))) < 1e-9


@pytest.mark.slow
@every_place
@pytest.mark.parametrize("card", available_cards())
def test_every_card_is_exact_at_depth_two(card: str, place: Callable[..., Backend]) -> None:
    circuit = load_circuit(card, qubits=4, depth=2)
    assert worst(both(circuit, place(), *draw(circuit, 2))) < 1e-9


@every_place
@every_circuit
def test_every_kind_of_encoding_and_observable_is_exact(circuit: Circuit, place: Callable[..., Backend]) -> None:
    x, w = draw(circuit, 2)
    if circuit.amplitude:
        x[0, 2:] = 0
    assert worst(both(circuit, place(), x, w)) < 1e-9


@peers
def test_a_whole_table_of_gates_takes_an_angle_a_row(place: Callable[..., Backend]) -> None:
    gates = [Gate("ry", (k,), Angle(offset=0.5 + k)) for k in range(3)]
    for number, (name, spec) in enumerate(GATES.items()):
        wires = (number % 3, (number + 1) % 3)[: spec.wires]
        gates.append(Gate(name, wires, Angle(0.3, (Factor(0),), offset=number) if spec.has_angle else None))
        gates.append(Gate("ry", (number % 3,), Angle(offset=0.7)))
    circuit = Circuit(3, tuple(gates), ("ZII", "IZI", "IIZ", "XYZ"), 1, 0)
    x, w = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None], torch.zeros(0, dtype=torch.float64)
    assert worst(both(circuit, place(), x, w)) < 1e-9


@every_place
@pytest.mark.parametrize("shots", [None, 20000])
def test_wires_are_in_order(place: Callable[..., Backend], shots: int | None) -> None:
    values = torch_engine.expectations(ASYMMETRIC, *POINT)
    found = place(shots=shots).expectations(ASYMMETRIC, *POINT)
    error = 1e-9 if shots is None else 5 / shots**0.5
    assert (found - values).abs().max() < error
    assert min(float((found - other).abs().max()) for other in swapped(values, ASYMMETRIC)) > 0.1


@every_place
def test_shots_have_the_spread_of_counts_and_no_pull(place: Callable[..., Backend]) -> None:
    rows, shots = 400, 50
    x, w = POINT[0].expand(rows, 3), POINT[1]
    found = place(shots=shots).expectations(ASYMMETRIC, x, w)
    exact = torch_engine.expectations(ASYMMETRIC, *POINT)[0]
    variance = (1 - exact.square()) / shots
    assert ((found.mean(0) - exact).abs() < 4 * (variance / rows).sqrt()).all()
    assert ((found.var(0) / variance - 1).abs() < 4 * (2 / rows) ** 0.5).all()
    assert torch.allclose((found * shots / 2).round(), found * shots / 2)  # means of signs: true counts


@every_place
def test_shots_follow_the_seed_and_differ_from_call_to_call(place: Callable[..., Backend]) -> None:
    def calls(seed: int) -> list[torch.Tensor]:
        backend = place(shots=100, seed=seed)
        return [backend.expectations(ASYMMETRIC, *POINT) for _ in range(2)]

    first, second = calls(0), calls(0)
    assert torch.equal(torch.cat(first), torch.cat(second))
    assert not torch.equal(*first)
    assert not torch.equal(first[0], calls(1)[0])


@every_place
def test_gradients_from_shots_are_unbiased(place: Callable[..., Backend]) -> None:
    x, w = POINT[0].expand(200, 3).clone().requires_grad_(), POINT[1]
    (slopes,) = torch.autograd.grad(place(shots=100).expectations(ASYMMETRIC, x, w)[:, :3].sum(), x)
    y = POINT[0].clone().requires_grad_()
    (exact,) = torch.autograd.grad(torch_engine.expectations(ASYMMETRIC, y, w)[:, :3].sum(), y)
    assert ((slopes.mean(0) - exact[0]).abs() < 4 * slopes.std(0) / 200**0.5).all()


@every_place
def test_a_circuit_without_angles_has_a_value_a_row(place: Callable[..., Backend]) -> None:
    circuit = Circuit(2, (Gate("h", (0,)), Gate("cx", (0, 1))), ("ZZ", "ZI"), 0, 0)
    x, w = torch.zeros(300, 0), torch.zeros(0)
    assert torch.allclose(place().expectations(circuit, x, w), torch.tensor([[1.0, 0.0]]).expand(300, 2))
    drawn = place(shots=10).expectations(circuit, x, w)
    assert torch.equal(drawn[:, 0], torch.ones(300))
    assert len(torch.unique(drawn[:, 1])) > 5  # every row has shots of its own


@every_place
def test_noise_of_the_circuit_and_its_readout_errors(place: Callable[..., Backend]) -> None:
    noise = {"depolarizing": 0.1, "amplitude-damping": 0.2, "readout": 0.04, "after": "gate"}
    circuit = ASYMMETRIC.with_noise({k: v for k, v in noise.items() if k != "amplitude-damping"})
    backend = place()
    if isinstance(backend, PennyLane) and backend.name != "default.mixed":
        with pytest.raises(UnsupportedError, match="expected a circuit without noise on"):
            backend.expectations(circuit, *POINT)
        return
    exact = density.expectations(circuit, *POINT)
    assert torch.allclose(backend.expectations(circuit, *POINT), exact, rtol=0, atol=1e-9)
    found = place(shots=40000).expectations(circuit, *POINT)
    assert (found - exact).abs().max() < 5 / 200


@every_place
def test_backends_are_pickled_without_what_lives_in_them(place: Callable[..., Backend]) -> None:
    backend = place(shots=20, seed=1)
    backend.expectations(ASYMMETRIC, *POINT)
    again = pickle.loads(pickle.dumps(backend))
    assert again.expectations(ASYMMETRIC, *POINT).shape == (1, 5)
    assert repr(again) == repr(backend)


# PennyLane alone


def test_a_batch_with_its_shifts_is_one_execution() -> None:
    device = qml.device("default.qubit", wires=3)
    backend, (x, w) = PennyLane(device), draw(CIRCUITS["iqp"])
    with qml.Tracker(device) as tracker:
        backend.expectations(CIRCUITS["iqp"], x.requires_grad_(), w).sum().backward()  # type: ignore[no-untyped-call]
    assert tracker.totals["batches"] == 1
    assert backend.spent.jobs == 1


@pytest.mark.parametrize("device", ["lightning.qubit", "default.qubit", "default.mixed"])
@pytest.mark.parametrize("name", ["reupload", "iqp", "amplitude", "paulis"])
def test_the_devices_own_derivatives(device: str, name: str) -> None:
    backend = PennyLane(device, gradient="device")
    x, w = draw(CIRCUITS[name], 2)
    if CIRCUITS[name].amplitude:
        x[0, 2:] = 0
    assert worst(both(CIRCUITS[name], backend, x, w)) < 1e-9
    assert backend.spent.circuits == (2 + 2 * 2 * 5 if CIRCUITS[name].amplitude else 2)


def test_what_a_device_cannot_do_is_said() -> None:
    with pytest.raises(UnsupportedError, match="expected exact values with gradient='device', got shots"):
        PennyLane("lightning.qubit", gradient="device", shots=10)
    with pytest.raises(UnknownNameError, match=r"got 'lightning.qbit'; did you mean 'lightning.qubit'"):
        PennyLane("lightning.qbit")
    with pytest.raises(InputError, match=r"expected options of PennyLane's 'default.qubit', got {'colour': 1}"):
        PennyLane("default.qubit", colour=1)
    with pytest.raises(InputError, match=r"expected a device with wires 0 to 2, got \[0, 1\]"):
        PennyLane(qml.device("default.qubit", wires=2)).expectations(ASYMMETRIC, *POINT)
    with pytest.raises(UnsupportedError, match="expected first derivatives only with gradient='device'"):
        torch.func.hessian(lambda w: PennyLane(gradient="device").expectations(ASYMMETRIC, POINT[0], w).sum())(POINT[1])


def test_options_reach_the_device() -> None:
    exact = torch_engine.expectations(ASYMMETRIC, *POINT)
    found = PennyLane("lightning.qubit", c_dtype=np.complex64).expectations(ASYMMETRIC, *POINT)
    assert 1e-9 < (found - exact).abs().max() < 1e-6


def test_large_batches_are_several_tapes_of_one_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    from qunlearn.quantum.backends import pennylane

    monkeypatch.setattr(pennylane, "_ENTRIES", 32)
    for gradient in ("parameter-shift", "device"):
        assert (
            worst(both(CIRCUITS["zz"], PennyLane("default.qubit", gradient=gradient), *draw(CIRCUITS["zz"], 7))) < 1e-9
        )


# Aer alone


@pytest.mark.parametrize("shots", [None, 100])
def test_a_batch_with_its_shifts_is_one_job_of_aer(monkeypatch: pytest.MonkeyPatch, shots: int | None) -> None:
    calls: list[tuple[int, int]] = []
    run = AerSimulator.run

    def counted(self: AerSimulator, circuits: Any, parameter_binds: Any = None, **options: Any) -> Any:
        calls.append((len(circuits), len(next(iter(parameter_binds[0].values())))))
        return run(self, circuits, parameter_binds=parameter_binds, **options)

    monkeypatch.setattr(AerSimulator, "run", counted)
    circuit, backend = CIRCUITS["paulis"], Aer(shots=shots)
    x, w = draw(circuit)
    backend.expectations(circuit, x.requires_grad_(), w).sum().backward()  # type: ignore[no-untyped-call]
    rules = open_circuit(circuit)
    rows = 3 * (1 + sum(len(rules.rules[k]) for k in rules.positions(features=True, weights=False)))
    assert calls == [(1 if shots is None else 2, rows)]  # one circuit a basis


def _noise_model() -> NoiseModel:
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.05, 2), ["cz"])
    model.add_all_qubit_readout_error(ReadoutError([[0.97, 0.03], [0.03, 0.97]]))
    return model


def test_a_noise_model_of_aer_strikes() -> None:
    circuit = load_circuit("ring-cz", qubits=3)
    x, w = draw(circuit)
    exact = density.expectations(circuit.with_noise({"depolarizing": 0.05, "readout": 0.03}), x, w)
    assert torch.allclose(Aer(noise_model=_noise_model()).expectations(circuit, x, w), exact, rtol=0, atol=1e-9)
    found = Aer(noise_model=_noise_model(), shots=40000).expectations(circuit, x, w)
    assert (found - exact).abs().max() < 5 / 200
    with pytest.raises(UnsupportedError, match="expected noise in the circuit or in a noise model of Aer, got both"):
        Aer(noise_model=_noise_model()).expectations(circuit.with_noise({"depolarizing": 0.1}), x, w)


@pytest.mark.parametrize("shots", [None, 20000])
def test_a_simulator_with_few_couplings_is_routed_and_read_in_order(shots: int | None) -> None:
    line = AerSimulator(coupling_map=[[3, 1], [1, 3], [1, 2], [2, 1], [2, 0], [0, 2]], basis_gates=["rz", "sx", "cx"])
    circuit = load_circuit("strongly-entangling", qubits=4, depth=3)
    x, w = draw(circuit)
    exact = torch_engine.expectations(circuit, x, w)
    found = Aer(simulator=line, shots=shots).expectations(circuit, x, w)
    assert (found - exact).abs().max() < (1e-9 if shots is None else 5 / shots**0.5)


def test_values_of_noise_are_exact_or_refused() -> None:
    wide = load_circuit("ring-cz", qubits=14).with_noise({"depolarizing": 0.1})
    with pytest.raises(UnsupportedError, match="expected shots, or a density matrix of at most 13 qubits"):
        Aer().expectations(wide, torch.zeros(1, 14), torch.zeros(wide.weights))
    joint = NoiseModel()
    joint.add_readout_error(ReadoutError(np.eye(4) * 0.9 + 0.025), [0, 1])
    with pytest.raises(UnsupportedError, match="expected readout errors of single qubits for exact values"):
        Aer(noise_model=joint).expectations(ASYMMETRIC, *POINT)
    with pytest.raises(UnknownNameError, match="did you mean 'density_matrix'"):
        Aer(method="density-matrix")


def test_gates_that_only_noise_makes_felt_are_shifted() -> None:
    gates = (Gate("ry", (0,), Angle(weight=1)), Gate("rxx", (0, 1), Angle(weight=0)))
    damped = (Channel("amplitude-damping", (0,), (0.3,), 1),)
    circuit = Circuit(2, gates, ("ZZ",), 0, 2, channels=damped)
    nothing, weights = torch.zeros(1, 0, dtype=torch.float64), torch.tensor([0.7, 1.1], dtype=torch.float64)
    exact = torch.func.jacrev(lambda w: density.expectations(circuit, nothing, w).sum())(weights)
    found = torch.func.jacrev(lambda w: Aer().expectations(circuit, nothing, w).sum())(weights)
    assert abs(float(exact[0])) > 0.1
    torch.testing.assert_close(found, exact, atol=1e-9, rtol=0)
