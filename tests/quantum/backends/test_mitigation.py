import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_ibm_runtime")

from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error
from qiskit_ibm_runtime.options_models.sampler import SamplerOptions

from qunlearn.errors import InputError, NumericalError, UnknownNameError, UnsupportedError
from qunlearn.quantum import engines
from qunlearn.quantum.backends.extrapolation import extrapolate
from qunlearn.quantum.backends.mitigation import Confusion, Cost, Mitigation, combine, construct, fold
from qunlearn.quantum.backends.opened import open_circuit
from qunlearn.quantum.backends.runtime import Runtime
from qunlearn.quantum.backends.transpiling import prepare
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.sampling import apply_readout, parities

NOTHING = torch.zeros(0, dtype=torch.float64)


def random_circuit(generator: np.random.Generator, qubits: int = 4, two_qubit_gates: int = 24) -> Circuit:
    """Random rotations before every CX, each on another random pair; observables are all words of one or two Z."""
    gates: list[Gate] = []
    for _ in range(two_qubit_gates):
        first, second = (int(wire) for wire in generator.choice(qubits, 2, replace=False))
        for wire, name in itertools.product((first, second), ("rz", "ry")):
            gates.append(Gate(name, (wire,), Angle(offset=float(generator.uniform(-np.pi, np.pi)))))
        gates.append(Gate("cx", (first, second)))
    words = ["".join("Z" if wire in pair else "I" for wire in range(qubits)) for pair in _pairs(qubits)]
    return Circuit(qubits, tuple(gates), tuple(words), 0, 0)


def _pairs(qubits: int) -> list[tuple[int, ...]]:
    return [(wire,) for wire in range(qubits)] + [*itertools.combinations(range(qubits), 2)]


def simulator(depolarizing: float, readout: Sequence[tuple[float, float]]) -> Any:
    """A simulator with depolarizing noise after every CX, and readout errors."""
    model = NoiseModel()
    if depolarizing:
        model.add_all_qubit_quantum_error(depolarizing_error(depolarizing, 2), ["cx"])
    for wire, (up, down) in enumerate(readout):
        model.add_readout_error(ReadoutError([[1 - up, up], [down, 1 - down]]), [wire])
    return AerSimulator(noise_model=model, method="density_matrix", max_parallel_threads=1)


def errors_of(circuits: int, shots: int, mitigations: Sequence[Mitigation], seed: int = 0) -> np.ndarray[Any, Any]:
    """Absolute errors ``(mitigations, circuits, observables)`` on random circuits and random noise."""
    found = []
    for generator in np.random.default_rng(seed).spawn(circuits):
        circuit = random_circuit(generator)
        readout = [(up, down) for up, down in generator.uniform(0.02, 0.05, (4, 2))]
        device = simulator(float(generator.uniform(0.005, 0.02)), readout)
        exact = engines.expectations(circuit, NOTHING, NOTHING)
        row = []
        for mitigation in mitigations:
            backend = Runtime(device, shots=shots, mitigation=mitigation, seed=int(generator.integers(2**31)))
            work = backend.work(open_circuit(circuit).circuit)
            assert work.prepared.after.two_qubit_gates >= 20
            row.append((backend.expectations(circuit, NOTHING, NOTHING) - exact).abs().numpy())
        found.append(row)
    return np.array(found).swapaxes(0, 1)


def ratio_of_medians(errors: np.ndarray[Any, Any], seed: int = 0) -> tuple[float, float, float]:
    """By what the median error falls, and its 95 % interval from resampled circuits."""
    generator, circuits = np.random.default_rng(seed), errors.shape[1]
    ratios = []
    for _ in range(2000):
        chosen = errors[:, generator.integers(0, circuits, circuits)]
        ratios.append(np.median(chosen[0]) / np.median(chosen[1]))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(np.median(errors[0]) / np.median(errors[1])), float(low), float(high)


EXPONENTIAL = Mitigation(readout=True, zne=(1, 3, 5), extrapolator="exponential")


def test_mitigation_helps() -> None:
    """A few of the circuits of the long test."""
    ratio, _, _ = ratio_of_medians(errors_of(4, 10000, [Mitigation(), EXPONENTIAL], seed=1))
    assert ratio > 2


@pytest.mark.slow
@pytest.mark.parametrize("extrapolator", ["linear", "richardson", "exponential"])
def test_mitigation_halves_the_median_error_at_least(extrapolator: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """30 random circuits of 24 CX, depolarizing noise of 0.5 to 2 %, readout errors of 2 to 5 %."""
    mitigation = Mitigation(readout=True, zne=(1, 3, 5), extrapolator=extrapolator)
    errors = errors_of(30, 20000, [Mitigation(), mitigation])
    ratio, low, high = ratio_of_medians(errors)
    before, after = np.median(errors, axis=(1, 2))
    with capsys.disabled():
        print(f"\n{extrapolator}: median error {before:.4f} -> {after:.4f}, {ratio:.2f} x [{low:.2f}, {high:.2f}]")
    assert ratio >= 2
    assert low > 1.8


def test_folding_leaves_the_circuit_what_it_is() -> None:
    circuit = QuantumCircuit(3)
    circuit.sx(0)
    circuit.cx(0, 1)
    circuit.barrier()
    circuit.ecr(1, 2)
    circuit.rz(0.3, 1)
    circuit.cz(0, 2)
    for factor in (1, 3, 5):
        folded = fold(circuit, factor)
        assert folded.num_nonlocal_gates() == 3 * factor
        assert folded.count_ops()["sx"] == 1
        assert Operator(folded) == Operator(circuit)
    for factor in (0, 2, -1):
        with pytest.raises(InputError, match="odd factor"):
            fold(circuit, factor)
    circuit.rzz(0.2, 0, 1)
    with pytest.raises(UnsupportedError, match=r"own inverse for folding, got rzz"):
        fold(circuit, 3)


def test_extrapolators_find_their_own_laws() -> None:
    factors, errors = (1, 3, 5), np.full((3, 2), 0.01)
    x = np.array(factors, dtype=float)[:, None]
    laws: dict[str, tuple[Any, list[float]]] = {
        "linear": (np.hstack([0.9 - 0.1 * x, -0.5 + 0.02 * x]), [0.9, -0.5]),
        "richardson": (np.hstack([0.9 - 0.1 * x + 0.01 * x**2, 0.3 + 0.0 * x]), [0.9, 0.3]),
        "exponential": (np.hstack([0.9 * np.exp(-0.3 * x), -0.7 * np.exp(-0.1 * x)]), [0.9, -0.7]),
    }
    for name, (values, truth) in laws.items():
        found, slopes = extrapolate(factors, values, errors, name)
        np.testing.assert_allclose(found, truth, atol=1e-12)
        moved = [extrapolate(factors, values + 1e-6 * (np.arange(3) == k)[:, None], errors, name)[0] for k in range(3)]
        # The weights of the exponential fit move with the values too, which counts only where it fits badly.
        np.testing.assert_allclose((np.array(moved) - found) / 1e-6, slopes, atol=1e-4)
    with pytest.raises(UnknownNameError, match="linear"):
        extrapolate(factors, errors, errors, "linaer")


def test_an_exponential_without_a_decay_is_a_line() -> None:
    values = np.array([[0.02, 0.3, 0.9], [-0.01, -0.2, 0.4], [0.015, 0.1, 0.05]])  # noise; signs change; steep
    found, _ = extrapolate((1, 3, 5), values, np.full((3, 3), 0.01), "exponential")
    line, _ = extrapolate((1, 3, 5), values, np.full((3, 3), 0.01), "linear")
    np.testing.assert_allclose(found[:2], line[:2])
    assert found[2] == 1.0  # held to what an expectation value can be


def measured(probabilities: np.ndarray[Any, Any], shots: int, generator: Any) -> np.ndarray[Any, Any]:
    return np.asarray(generator.multinomial(shots, probabilities), dtype=np.int64)


READOUT = ((0.03, 0.08), (0.05, 0.02), (0.1, 0.04))
WORDS = ("ZII", "IZI", "ZIZ", "ZZZ", "III")


def three(observables: tuple[str, ...]) -> Circuit:
    x = [Angle(factors=(Factor(k),)) for k in range(3)]
    return Circuit(3, (*(Gate("ry", (k,), x[k]) for k in range(3)), Gate("cx", (0, 1))), observables, 3, 0)


def test_readout_errors_are_inverted_exactly() -> None:
    generator, shots = np.random.default_rng(0), 10**12
    truth = generator.dirichlet(np.ones(8), size=4)
    work = construct(prepare(open_circuit(three(WORDS)).circuit, AerSimulator()), Mitigation(readout=True))
    assert [(piece.kind, piece.state) for piece in work.pieces] == [
        ("main", None),
        ("calibration", 0),
        ("calibration", 1),
    ]
    pure = [truth, np.eye(8)[:1], np.eye(8)[7:]]
    counts = [(apply_readout(p, READOUT) * shots).round().astype(np.int64) for p in pure]
    values, errors = combine(work, counts)
    np.testing.assert_allclose(values, truth @ parities(WORDS, 3), atol=1e-9)
    assert np.all(errors[:, :4] > 0)
    assert np.all(errors[:, 4] == 0)


@pytest.mark.parametrize("mitigation", [Mitigation(), Mitigation(readout=True), EXPONENTIAL])
def test_standard_errors_are_those_of_repeated_runs(mitigation: Mitigation) -> None:
    """Shots and calibration drawn many times over: the spread of the values is what `combine` says."""
    generator, shots, factors = np.random.default_rng(5), 2000, mitigation.factors
    state = generator.dirichlet(np.ones(8))
    fading = {f: 0.93**f * state + (1 - 0.93**f) / 8 for f in factors}
    work = construct(prepare(open_circuit(three(WORDS[:4])).circuit, AerSimulator()), mitigation)
    found = []
    for _ in range(600):
        counts = []
        for piece in work.pieces:
            pure = fading[piece.factor] if piece.state is None else np.eye(8)[7 * piece.state]
            counts.append(measured(apply_readout(pure, READOUT), shots, generator)[None])
        found.append(combine(work, counts))
    values, errors = (np.array(part)[:, 0] for part in zip(*found, strict=True))
    clear = np.abs(parities(WORDS[:4], 3).T @ state) > 0.2  # the delta method wants values clear of zero
    spread, said = values.std(0)[clear], np.sqrt((errors**2).mean(0))[clear]
    assert clear.sum() >= 2
    np.testing.assert_allclose(said, spread, rtol=0.15)


def test_every_basis_is_read_from_its_own_circuit() -> None:
    circuit = three(("XII", "IZZ", "YIY", "ZII", "III"))
    features = torch.tensor([[0.3, 1.2, -0.8], [2.1, 0.4, 1.0]], dtype=torch.float64)
    readout = [(0.05, 0.1), (0.02, 0.03), (0.08, 0.04)]
    backend = Runtime(simulator(0, readout), shots=20000, mitigation=Mitigation(readout=True))
    found = backend.expectations(circuit, features, NOTHING)
    exact = engines.expectations(circuit, features, NOTHING)
    assert np.all(np.abs((found - exact).numpy()) <= 4.5 * backend.errors + 1e-12)
    assert backend.errors.max() < 0.02


def test_a_readout_that_tells_nothing_is_refused() -> None:
    even = np.full((1, 2), 500)
    with pytest.raises(NumericalError, match=r"on wire 0; take another layout"):
        Confusion.measured(even[0], even[0])


def test_costs() -> None:
    assert Mitigation().cost() == Cost(1, 0, 1, 1.0)
    cost = Mitigation(readout=True, zne=(1, 3, 5)).cost()
    assert (cost.circuits, cost.calibration, cost.two_qubit_gates) == (3, 2, 9)
    assert cost.errors == pytest.approx(np.sqrt(sum(w**2 for w in (1 / 3 + 3 / 4, 1 / 3, 1 / 3 - 3 / 4))))
    richardson = Mitigation(zne=(1, 3, 5), extrapolator="richardson").cost()
    assert richardson.errors == pytest.approx(np.sqrt((15 / 8) ** 2 + (10 / 8) ** 2 + (3 / 8) ** 2))
    assert cost.total(rows=100, bases=2) == 602
    for mitigation in (Mitigation(readout=True, zne=(1, 3)), Mitigation(zne=(1, 3, 5)), Mitigation()):
        work = construct(prepare(open_circuit(three(("ZII", "XII"))).circuit, AerSimulator()), mitigation)
        assert work.circuits(7) == mitigation.cost().total(7, bases=2)
        gates = sum(piece.circuit.num_nonlocal_gates() for piece in work.pieces)
        assert gates == 2 * mitigation.cost().two_qubit_gates * work.prepared.after.two_qubit_gates


@pytest.mark.parametrize(("asked", "taken"), [(500, 512), (64, 64), (65, 128), (4096, 4096), (5000, 5024)])
def test_twirling_rounds_the_shots_up_as_the_sampler_does(asked: int, taken: int) -> None:
    from qiskit_ibm_runtime.executor.calculate_twirling_shots import calculate_twirling_shots

    assert Mitigation(twirling=True).shots_taken(asked) == taken
    assert int(np.prod(calculate_twirling_shots(asked, "auto", "auto"))) == taken
    assert Mitigation().shots_taken(asked) == asked


def test_options_reach_the_sampler() -> None:
    assert Mitigation(readout=True, zne=(1, 3)).sampler_options() == {}
    sequences: tuple[Literal["XX", "XpXm", "XY4"], ...] = ("XX", "XpXm", "XY4")
    for sequence in sequences:
        options = SamplerOptions(**Mitigation(dynamical_decoupling=sequence, twirling=True).sampler_options())
        assert options.dynamical_decoupling.enable
        assert options.dynamical_decoupling.sequence_type == sequence
        assert options.twirling.enable_gates
        assert options.twirling.enable_measure


def test_decoupled_and_twirled_circuits_keep_their_values() -> None:
    circuit = three(("ZII", "IZI", "IIZ"))
    features = torch.tensor([[0.3, 1.2, -0.8]], dtype=torch.float64)
    exact = engines.expectations(circuit, features, NOTHING)
    for options in ({"twirling": True}, {"dynamical_decoupling": "XY4"}):
        backend = Runtime("fake_manila", shots=4000, mitigation=Mitigation(readout=True, **options))
        assert float((backend.expectations(circuit, features, NOTHING) - exact).abs().max()) < 0.1


def test_options_out_of_range() -> None:
    for zne in ((1,), (3, 5), (1, 2), (1, 5, 3), (1, 1, 3), (1.0, 3.0)):
        with pytest.raises(InputError, match="rising odd factors"):
            Mitigation(zne=zne)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="exponential"):
        Mitigation(extrapolator="exponental")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="XY4"):
        Mitigation(dynamical_decoupling="XY5")
    assert Mitigation(**Mitigation(zne=(1, 3)).to_dict()) == Mitigation(zne=(1, 3))
