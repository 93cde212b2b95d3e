"""Removal in closed form against solving anew, through the public call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import qunlearn as qu
from qunlearn.data import Dataset, ForgetRequest, Split
from qunlearn.errors import InputError
from qunlearn.methods import get
from qunlearn.models import HybridClassifier, QuantumKernelClassifier
from qunlearn.quantum import load_circuit
from tests.methods.cases import blobs, hybrid_model, plain_model


def split_of(seed: int, request: ForgetRequest, number: int = 90) -> Split:
    return Dataset(*blobs(seed, number)).split(request, seed=seed)


def solved_anew(kernel: QuantumKernelClassifier, data: Dataset, x: torch.Tensor, ridge: float) -> np.ndarray:
    """Decision values for x by NumPy's solver on the data alone."""
    gram = kernel.gram(data.x).numpy() + ridge * np.eye(len(data))
    targets = 2 * np.eye(3)[data.y.numpy()] - 1
    return kernel.gram(x, data.x).numpy() @ np.linalg.solve(gram, targets)


def test_a_class_goes_and_then_samples_go() -> None:
    split = split_of(0, ForgetRequest.of_class(1))
    method = get("kernel-downdate")
    once = qu.unlearn(method.train(hybrid_model(), split.original), split, method=method, progress=False)
    later = split.retain
    gone, stay = later.select(range(0, len(later), 7)), later.select([i for i in range(len(later)) if i % 7])
    twice: Any = qu.unlearn(once.model, gone, stay, method=method, progress=False)
    expected = solved_anew(twice.model, stay, split.test.x, 0.01)
    np.testing.assert_allclose(twice.model(split.test.x).numpy(), expected, atol=1e-9)
    assert (twice.model(split.test.x).argmax(1) == split.test.y)[split.test.y != 1].double().mean() > 0.7
    assert (twice.model(split.test.x).argmax(1) != 1).all()
    assert once.record.guarantee is not None
    assert (once.record.guarantee["kind"], once.record.guarantee["epsilon"]) == ("exact", 0.0)
    assert once.record.guarantee["details"]["residual"] < 1e-9
    n = len(later)
    assert (once.record.counts.circuit_evaluations, once.record.counts.hardware_circuits) == (n, n * (n - 1) // 2)


@settings(max_examples=20, phases=[Phase.generate])
@given(seed=st.integers(0, 10**6), ridge=st.sampled_from([1e-3, 0.01, 0.5]), share=st.floats(0.02, 0.9))
def test_the_unlearned_model_is_the_one_solved_on_the_retain_set(seed: int, ridge: float, share: float) -> None:
    split = split_of(seed, ForgetRequest.of_fraction(share))
    method = get({"name": "kernel-downdate", "ridge": ridge})
    original: Any = method.train(hybrid_model(seed % 5), split.original)
    found: Any = qu.unlearn(original, split, method=method, progress=False)
    again: Any = method.train(hybrid_model(seed % 5), split.retain)
    for name in ("support", "labels", "ids", "inverse", "alpha"):
        mine, theirs = (getattr(m, name)[m.ids.argsort()] for m in (found.model, again))
        if name == "inverse":
            mine, theirs = mine[:, found.model.ids.argsort()], theirs[:, again.ids.argsort()]
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=0)
    expected = solved_anew(again, split.retain, split.test.x, ridge)
    np.testing.assert_allclose(found.model(split.test.x).numpy(), expected, atol=1e-9)
    assert np.abs(original(split.test.x).numpy() - expected).max() > 1e-9, "the case must have something to forget"


def test_nothing_in_it_is_trained_and_training_costs_a_kernel() -> None:
    split = split_of(0, ForgetRequest.of_fraction(0.1))
    hybrid = hybrid_model()
    original: Any = get("kernel-downdate").train(hybrid, split.original)
    assert torch.equal(original.quantum.weights, hybrid.quantum.weights)
    n = len(split.original)
    counts = original.training_counts
    assert (counts.gradient_evaluations, counts.circuit_evaluations) == (0, n)
    assert counts.hardware_circuits == n * (n - 1) // 2, "every overlap is a circuit on a machine"
    again: Any = get("kernel-downdate").train(original, split.original, seed=5)
    assert torch.equal(again.alpha, original.alpha)


def with_pca() -> HybridClassifier:
    circuit = load_circuit("ring-cz", qubits=2, depth=1)
    return HybridClassifier(circuit, 3, encoder="pca", dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_an_encoder_that_is_fitted_to_the_training_set_is_refused_with_a_way_out() -> None:
    split = split_of(0, ForgetRequest.of_fraction(0.1))
    for call in (get("kernel-downdate").check_model, get("kernel-downdate").train):
        with pytest.raises(InputError, match=r"embedding='validation'.*embedding='amplitude'"):
            call(with_pca(), split.original)
    method = get({"name": "kernel-downdate", "embedding": "validation"})
    method.check_model(with_pca(), split.original)
    original: Any = method.train(with_pca(), split.original, validation=split.validation)
    again: Any = method.train(with_pca(), split.retain, validation=split.validation)
    found = qu.unlearn(original, split, method=method, progress=False)
    torch.testing.assert_close(found.model(split.test.x), again(split.test.x), atol=1e-9, rtol=0)
    for validation, message in ((None, "got none"), (split.original, "ids in both")):
        with pytest.raises(InputError, match=message):
            method.train(with_pca(), split.original, validation=validation)


def test_samples_as_amplitudes_need_no_encoder() -> None:
    split = split_of(0, ForgetRequest.of_fraction(0.1))
    method = get({"name": "kernel-downdate", "embedding": "amplitude"})
    original: Any = method.train(with_pca(), split.original)
    unit = torch.nn.functional.normalize(split.original.x)
    torch.testing.assert_close(original.gram(split.original.x), (unit @ unit.T) ** 2, atol=1e-12, rtol=0)
    found = qu.unlearn(original, split, method=method, progress=False)
    again: Any = method.train(with_pca(), split.retain)
    torch.testing.assert_close(found.model(split.test.x), again(split.test.x), atol=1e-9, rtol=0)


def test_what_it_cannot_serve_is_refused() -> None:
    split = split_of(0, ForgetRequest.of_fraction(0.1))
    method = get("kernel-downdate")
    with pytest.raises(InputError, match="expected a HybridClassifier"):
        method.check_model(plain_model(), split.original)
    with pytest.raises(InputError, match="expected a kernel classifier"):
        qu.unlearn(hybrid_model(), split, method=method, progress=False)
    original = method.train(hybrid_model(), split.original)
    with pytest.raises(InputError, match="samples that the model was trained on"):
        qu.unlearn(original, split.forget, split.retain.select(range(9)), method=method, progress=False)
