"""Quantum-kernel classifiers against PennyLane's states, scikit-learn's ridge regression and plain linear algebra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from qiskit.quantum_info import Statevector
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor

from qunlearn import with_backend
from qunlearn.errors import CorruptFileError, InputError, UnknownNameError, UnsupportedError
from qunlearn.models import (
    HybridClassifier,
    QuantumKernelClassifier,
    angle_periods,
    kernel,
    load_model,
    reinitialise,
    save_model,
    stages,
)
from qunlearn.quantum import load_circuit
from qunlearn.quantum.circuit import Circuit

RING = load_circuit("ring-cz", qubits=3, depth=2)


def samples(number: int, features: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 3 * torch.rand(number, features, generator=generator, dtype=torch.float64)
    return x, torch.arange(number) % 3


def made(seed: int = 0, circuit: Circuit = RING, **settings: Any) -> QuantumKernelClassifier:
    return QuantumKernelClassifier(circuit, 3, generator=torch.Generator().manual_seed(seed), **settings)


def pennylane_state(x: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """The ring card, written again: RX RY RZ of the features, then layers of RX RY RZ and a ring of CZ."""

    @qml.qnode(qml.device("default.qubit", wires=3))  # type: ignore[untyped-decorator]
    def node() -> Any:
        for wire in range(3):
            for turn in (qml.RX, qml.RY, qml.RZ):
                turn(x[wire], wires=wire)
        for layer in weights.reshape(2, 3, 3):
            for wire in range(3):
                for turn, angle in zip((qml.RX, qml.RY, qml.RZ), layer[wire], strict=True):
                    turn(angle, wires=wire)
            for wire in range(3):
                qml.CZ(wires=(wire, (wire + 1) % 3))
        return qml.state()

    return np.asarray(node())


def test_the_kernel_is_the_overlap_of_pennylane_s_states() -> None:
    model, (x, _) = made(), samples(5)
    weights = model.quantum.weights.detach().numpy()
    states = np.stack([pennylane_state(row, weights) for row in x.numpy()])
    expected = np.abs(states.conj() @ states.T) ** 2
    np.testing.assert_allclose(model.gram(x).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(model.gram(x[:2], x[1:]).numpy(), expected[:2, 1:], atol=1e-12)


@pytest.mark.parametrize("card", ["sim-02", "sim-06", "sim-14", "ring-cz"])
@pytest.mark.parametrize("encoding", ["zz", "iqp"])
def test_the_kernel_is_the_overlap_of_qiskit_s_states(card: str, encoding: str) -> None:
    circuit = load_circuit(card, qubits=3, depth=1, encoding=encoding)
    model, (x, _) = made(circuit=circuit), samples(3, circuit.features)
    weights, exported = model.quantum.weights.detach().numpy(), circuit.to_qiskit()

    def state(row: NDArray[Any]) -> Statevector:
        values = {p: float((row if p.vector.name == "x" else weights)[p.index]) for p in exported.parameters}
        return Statevector(exported.assign_parameters(values))

    states = [state(row) for row in x.numpy()]
    expected = [[abs(one.inner(other)) ** 2 for other in states] for one in states]
    np.testing.assert_allclose(model.gram(x).numpy(), expected, atol=1e-9)


def test_layers_after_amplitudes_change_no_overlap() -> None:
    """|<x|x'>|^2 of normalised samples, zero-padded, whatever the weights."""
    circuit = load_circuit("ring-cz", qubits=3, depth=2, encoding="amplitude", features=5)
    x, _ = samples(6, 5)
    unit = (x / x.norm(dim=1, keepdim=True)).numpy()
    for seed in range(2):
        np.testing.assert_allclose(made(seed, circuit).gram(x).numpy(), (unit @ unit.T) ** 2, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
def test_blocks_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, y) = made(), samples(7)
    whole, cross, values = model.gram(x), model.gram(x, x[2:]), model.solve(x, y)(x)
    monkeypatch.setattr(kernel, "ROWS", rows)
    torch.testing.assert_close(model.gram(x), whole, atol=1e-14, rtol=0)
    torch.testing.assert_close(model.gram(x, x[2:]), cross, atol=1e-14, rtol=0)
    torch.testing.assert_close(model(x), values, atol=1e-12, rtol=0)
    assert torch.equal(whole, whole.T)


def test_a_block_holds_few_amplitudes_whatever_the_number_of_qubits(monkeypatch: pytest.MonkeyPatch) -> None:
    largest: list[int] = []
    state = QuantumKernelClassifier._states
    monkeypatch.setattr(kernel, "AMPLITUDES", 32)  # four states of three qubits
    monkeypatch.setattr(QuantumKernelClassifier, "_states", lambda m, b: largest.append(len(b)) or state(m, b))  # type: ignore[func-returns-value]
    x, y = samples(11)
    made().solve(x, y)(x)
    assert max(largest) == 4


@pytest.mark.parametrize("targets", ["signs", "one-hot"])
@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_decision_values_are_those_of_scikit_learn(targets: str, ridge: float) -> None:
    model, (x, y) = made(ridge=ridge, targets=targets), samples(20)
    new = samples(6, seed=1)[0]
    model.solve(x, y)
    hot = np.eye(3)[y.numpy()]
    reference = KernelRidge(alpha=ridge, kernel="precomputed").fit(
        model.gram(x).numpy(), 2 * hot - 1 if targets == "signs" else hot
    )
    np.testing.assert_allclose(model(new).numpy(), reference.predict(model.gram(new, x).numpy()), atol=1e-9)
    np.testing.assert_allclose(model.alpha.numpy(), reference.dual_coef_, atol=1e-9)
    identity = model.inverse @ (model.gram(x) + ridge * torch.eye(20, dtype=torch.float64))
    torch.testing.assert_close(identity, torch.eye(20, dtype=torch.float64), atol=1e-9, rtol=0)


@given(
    seed=st.integers(0, 2**31),
    number=st.integers(2, 24),
    share=st.floats(0, 1),
    ridge=st.floats(1e-4, 10),
    requests=st.integers(1, 3),
)
def test_removing_samples_equals_solving_without_them(
    seed: int, number: int, share: float, ridge: float, requests: int
) -> None:
    """Random angles, labels and sets; within 1e-9 of what NumPy solves on the samples that stay."""
    x, _ = samples(number, seed=seed)
    y = torch.randint(0, 3, (number,), generator=torch.Generator().manual_seed(seed))
    ids = torch.randperm(1000, generator=torch.Generator().manual_seed(seed))[:number]
    model = made(seed % 7, ridge=ridge).solve(x, y, ids)
    order = np.random.default_rng(seed).permutation(number)
    gone = order[: max(1, min(number - 1, round(share * number)))]
    for part in np.array_split(gone, min(requests, len(gone))):
        model.remove(ids[part.copy()])
    stay = np.setdiff1d(np.arange(number), gone)
    gram = model.gram(x).numpy()
    inverse = np.linalg.inv(gram[np.ix_(stay, stay)] + ridge * np.eye(len(stay)))
    alpha = inverse @ (2 * np.eye(3)[y.numpy()[stay]] - 1)
    np.testing.assert_allclose(model.inverse.numpy(), inverse, atol=1e-9)
    np.testing.assert_allclose(model.alpha.numpy(), alpha, atol=1e-9)
    np.testing.assert_allclose(model(x).numpy(), gram[:, stay] @ alpha, atol=1e-9)
    assert model.ids.tolist() == ids[stay.copy()].tolist()
    assert torch.equal(model.support, x[stay.copy()])
    assert torch.equal(model.labels, y[stay.copy()])


def test_what_earlier_removals_left_of_rounding_is_mended() -> None:
    model, (x, y) = made(ridge=0.1), samples(30)
    model.solve(x, y)
    model.inverse += 1e-6 * torch.randn(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert model.remove(torch.arange(5)) < 1e-11
    torch.testing.assert_close(model.alpha, made(ridge=0.1).solve(x[5:], y[5:]).alpha, atol=1e-9, rtol=0)


@pytest.mark.parametrize("ids", [[77], [0, 77], list(range(9))])
def test_samples_that_are_not_there_and_all_of_them_cannot_be_removed(ids: list[int]) -> None:
    x, y = samples(9)
    with pytest.raises(InputError, match="expected ids of support samples"):
        made().solve(x, y).remove(torch.tensor(ids))


def test_it_has_the_embedding_of_a_hybrid_model() -> None:
    images = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    hybrid = HybridClassifier(RING, 3, "cnn", inputs=(1, 8, 8), dtype=torch.float64)
    before = torch.get_rng_state()
    model = QuantumKernelClassifier.embedding_of(hybrid, ridge=0.5)
    assert torch.equal(torch.get_rng_state(), before)
    states = hybrid.quantum.state(hybrid.encoder(images)).flatten(1)  # type: ignore[operator]
    torch.testing.assert_close(model.gram(images), (states @ states.mH).abs() ** 2, atol=1e-12, rtol=0)
    assert not any(p.requires_grad for p in model.parameters())
    assert [stage.name for stage in stages(model)] == ["cnn", "to_angles", "circuit"]
    assert list(angle_periods(model)) == ["quantum.weights"]
    with pytest.raises(InputError, match="classical twin"):
        QuantumKernelClassifier.embedding_of(HybridClassifier(RING, 3, control="twin"))


def test_an_encoder_that_takes_from_data_does_so_when_told_alone() -> None:
    x, y = samples(9, 5)
    model = made(encoder="pca")
    assert model.data_fitted
    assert not made().data_fitted
    with pytest.raises(UnsupportedError, match="fitted PCA"):
        model.solve(x, y)
    assert model.fit_encoder(x).solve(x, y)(x).shape == (9, 3)
    fresh = reinitialise(model, 3)
    assert not fresh.encoder.fitted  # type: ignore[union-attr]
    assert len(fresh.ids) == 0  # type: ignore[arg-type]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="ridge above 0, got 0"):
        made(ridge=0)
    with pytest.raises(UnknownNameError, match="kind of targets"):
        made(targets="sign")
    with pytest.raises(InputError, match="classes"):
        QuantumKernelClassifier(RING, 1)
    with pytest.raises(InputError, match="without noise"):
        made(circuit=RING.with_noise({"depolarizing": 0.01}))
    x, y = samples(9)
    with pytest.raises(UnsupportedError, match="call solve"):
        made()(x)
    for labels in (y[:8], y + 1, y - 1):
        with pytest.raises(InputError, match="as many labels from 0 to 2"):
            made().solve(x, labels)
    with pytest.raises(UnsupportedError, match="without with_backend"):
        with_backend(made().solve(x, y), "lightning.qubit")(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_files_hold_the_samples_also_when_some_have_been_removed(tmp_path: Path, dtype: torch.dtype) -> None:
    x, y = samples(9, 4)
    model = made(encoder="pca", ridge=0.1, dtype=dtype).fit_encoder(x).solve(x, y, torch.arange(20, 29)).eval()
    for number in (9, 7):
        save_model(model, tmp_path / str(number))
        again = load_model(tmp_path / str(number))
        assert isinstance(again, QuantumKernelClassifier)
        assert {name: t.dtype for name, t in again.state_dict().items()} == {
            name: t.dtype for name, t in model.state_dict().items()
        }
        assert torch.equal(again(x), model(x))
        assert len(again.ids) == number
        assert not again.training
        if number == 9:
            model.remove(torch.tensor([21, 25]))
    (tmp_path / "9" / "model.safetensors").write_bytes((tmp_path / "7" / "model.safetensors").read_bytes())
    with pytest.raises(CorruptFileError, match="SHA-256"):
        load_model(tmp_path / "9")


def test_decision_values_have_derivatives_by_the_samples() -> None:
    x, y = samples(9)
    model = made().solve(x, y)
    assert torch.autograd.gradcheck(model, (x[:2].requires_grad_(),))
