"""Measurements of two ensembles of states against NumPy eigenvalues, closed forms, sampled measurements and chance."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from qunlearn import metrics as qm
from qunlearn.errors import InputError

Complexes = npt.NDArray[np.complex128]


def _pure(random: np.random.Generator, samples: int, qubits: int) -> Complexes:
    rows = random.normal(size=(samples, 2**qubits)) + 1j * random.normal(size=(samples, 2**qubits))
    found: Complexes = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def _mixed(rows: Complexes) -> Complexes:
    found: Complexes = np.einsum("ni,nj->ij", rows, rows.conj()) / len(rows)
    return found


def _tilted(random: np.random.Generator, samples: int, angle: float, noise: float = 0.3) -> Complexes:
    """One qubit's states cos |0> + sin |1> scattered around an angle, beside a qubit of noise."""
    angles = angle + noise * random.normal(size=samples)
    first = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.complex128)
    found: Complexes = np.einsum("ni,nj->nij", _pure(random, samples, 1), first).reshape(samples, 4)
    return found


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5))
def test_the_advantage_is_half_the_sum_of_singular_values(seed: int, qubits: int, samples: int) -> None:
    random = np.random.default_rng(seed)
    rho, sigma = (_mixed(_pure(random, samples, qubits)) for _ in range(2))
    truth = np.linalg.svd(rho - sigma, compute_uv=False).sum() / 2
    assert qm.trace_distance(rho, sigma) == pytest.approx(truth, abs=1e-12)
    assert qm.helstrom_advantage(torch.from_numpy(sigma), rho) == pytest.approx(truth, abs=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_of_pure_states_it_is_the_closed_form(seed: int, qubits: int) -> None:
    one, other = _pure(np.random.default_rng(seed), 2, qubits)
    fidelity = abs(np.vdot(one, other)) ** 2
    found = qm.helstrom_advantage(np.outer(one, one.conj()), np.outer(other, other.conj()))
    assert found == pytest.approx(np.sqrt(1 - fidelity), abs=1e-7)
    assert qm.helstrom_plugin([one], [other]) == pytest.approx(np.sqrt(1 - fidelity), abs=1e-7)


@pytest.mark.parametrize("qubits", [1, 2, 3])
def test_no_sampled_measurement_is_better_and_the_projector_is_as_good(qubits: int) -> None:
    random = np.random.default_rng(qubits)
    rho, sigma = (_mixed(_pure(random, 3, qubits)) for _ in range(2))
    bound, best = qm.helstrom_advantage(rho, sigma), 0.0
    for number in range(1000):
        size = 2**qubits
        root = random.normal(size=(size, size)) + 1j * random.normal(size=(size, size))
        vectors = np.linalg.qr(root)[0]
        # Effects 0 <= E <= 1: half of them projectors, half with any eigenvalues.
        values = random.integers(2, size=size) if number % 2 else random.random(size)
        effect = (vectors * values) @ vectors.conj().T
        best = max(best, abs(np.trace(effect @ (rho - sigma)).real))
    assert 0.3 * bound < best <= bound + 1e-12
    values, vectors = np.linalg.eigh(rho - sigma)
    projector = (vectors * (values > 0)) @ vectors.conj().T
    assert np.trace(projector @ (rho - sigma)).real == pytest.approx(bound, abs=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 12), st.integers(1, 12))
def test_the_plugin_value_of_few_samples_is_that_of_their_density_matrices(
    seed: int, qubits: int, ours: int, theirs: int
) -> None:
    random = np.random.default_rng(seed)
    a, b = _pure(random, ours, qubits), _pure(random, theirs, qubits)
    truth = np.abs(np.linalg.eigvalsh(_mixed(a) - _mixed(b))).sum() / 2
    assert qm.helstrom_plugin(a, b) == pytest.approx(truth, abs=1e-7)
    assert qm.helstrom_plugin(a, b, wires=range(qubits)) == pytest.approx(truth, abs=1e-7)


def test_marginals_are_partial_traces() -> None:
    random = np.random.default_rng(3)
    a, b = _pure(random, 6, 3), _pure(random, 5, 3)
    whole = (_mixed(a) - _mixed(b)).reshape((2,) * 6)
    parts = {(0,): "abcdbc->ad", (1,): "abcaec->be", (2,): "abcabf->cf", (0, 2): "abcdbf->acdf"}
    truth = {
        wires: np.abs(np.linalg.eigvalsh(np.einsum(rule, whole).reshape(2 ** len(wires), -1))).sum() / 2
        for wires, rule in parts.items()
    }
    for wires, value in truth.items():
        assert qm.helstrom_plugin(a, b, wires=wires) == pytest.approx(value, abs=1e-12)
    best = max(truth[wires] for wires in ((0,), (1,), (2,)))
    assert qm.helstrom_plugin(a.reshape(6, 2, 2, 2), b, wires=1) == pytest.approx(best, abs=1e-12)


def test_the_cross_fitted_value_by_hand() -> None:
    """Pairs that a measurement of the first qubit tells apart, fitted and scored by plain density matrices."""
    random = np.random.default_rng(0)
    a, b = _tilted(random, 2, 0.0), _tilted(random, 2, 0.9)
    expected = set()
    # Two pairs: either way of pairing, each fitted on one and scored on the other.
    for order in ((0, 1), (1, 0)):
        pairs = [(a[0], b[order[0]]), (a[1], b[order[1]])]
        total = 0.0
        for (x, y), (u, v) in (pairs, pairs[::-1]):
            values, vectors = np.linalg.eigh(np.outer(x, x.conj()) - np.outer(y, y.conj()))
            sign = (vectors * np.where(abs(values) > 1e-9, np.sign(values), 0)) @ vectors.conj().T
            total += (np.vdot(u, sign @ u) - np.vdot(v, sign @ v)).real / 4
        expected.add(round(total, 9))
    found = {round(qm.helstrom_crossfit(a, b, seed=seed, halvings=1), 9) for seed in range(20)}
    assert found == expected


def test_cross_fitting_rises_to_the_true_advantage_and_stays_below() -> None:
    random = np.random.default_rng(1)
    # The true means: of the noisy qubit 1/2, of the other cos and sin of twice the angle shrunk by exp(-2 noise^2).
    truth = np.exp(-2 * 0.3**2) * abs(np.sin(0.6))
    found = {}
    for samples in (6, 400):
        runs = [
            qm.helstrom_crossfit(_tilted(random, samples, 0.0), _tilted(random, samples, 0.6), seed=seed)
            for seed in range(30)
        ]
        found[samples] = np.mean(runs)
    assert found[6] < truth
    assert found[400] == pytest.approx(truth, abs=0.02)
    assert found[6] < found[400]
    plugin = qm.helstrom_plugin(_tilted(random, 6, 0.0), _tilted(random, 6, 0.0))
    assert plugin > 0.15  # of two samples of one ensemble


@pytest.mark.parametrize("wires", [None, 1, 2, (1,)])
def test_the_interval_covers_nothing_where_there_is_nothing(wires: int | tuple[int, ...] | None) -> None:
    random = np.random.default_rng(2)
    runs = [
        qm.helstrom_scores(_pure(random, 20, 3), _pure(random, 31, 3), wires=wires, seed=seed) for seed in range(200)
    ]
    values = np.array([run.bounds.value for run in runs])
    assert {run.pairs for run in runs} == {20}
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))
    covered = np.mean([run.bounds.low <= 0 <= run.bounds.high for run in runs])
    assert covered >= 0.93


def _p_values(classes: bool) -> npt.NDArray[np.float64]:
    """p-values of two samples of one ensemble, broken ties included; with classes that differ in state and number."""
    random = np.random.default_rng(4)
    found = []
    for seed in range(300):
        strata = random.integers(2, size=12), random.integers(2, size=18)
        a, b = (_tilted(random, len(y), 0.2) for y in strata)
        if classes:
            a, b = (
                np.where(y[:, None] == 0, _tilted(random, len(y), 0.0), _tilted(random, len(y), 1.2)) for y in strata
            )
        null = qm.helstrom_null(a, b, strata=strata if classes else None, seed=seed, halvings=2, permutations=19)
        found.append(null.p_value - random.random() / 20)
    return np.array(found)


@pytest.mark.parametrize("classes", [False, True])
def test_the_permutation_null_is_uniform(classes: bool) -> None:
    assert kstest(_p_values(classes), "uniform").pvalue > 0.01


def test_the_null_finds_what_differs_and_not_the_classes() -> None:
    random = np.random.default_rng(5)
    a, b = _tilted(random, 30, 0.0), _tilted(random, 40, 0.7)
    null = qm.helstrom_null(a, b, seed=1)
    assert null.p_value == 1 / 50
    assert abs(null.values.mean()) < 0.1
    assert null.values.max() < qm.helstrom_crossfit(a, b, seed=1)
    # The same classes in other shares: told apart unless they are matched.
    y = np.array([0] * 25 + [1] * 5), np.array([0] * 5 + [1] * 25)
    mixed = [np.where(own[:, None] == 0, _tilted(random, 30, 0.0), _tilted(random, 30, 1.2)) for own in y]
    assert qm.helstrom_crossfit(*mixed) > 0.4
    assert qm.helstrom_scores(*mixed, strata=y).pairs == 10
    assert abs(qm.helstrom_crossfit(*mixed, strata=y)) < 0.3
    assert qm.helstrom_plugin(*mixed, strata=y) < qm.helstrom_plugin(*mixed)


def test_figures_are_the_same_in_every_basis_and_change_sides() -> None:
    random = np.random.default_rng(6)
    a, b = _tilted(random, 14, 0.0), _tilted(random, 10, 0.8)
    turn = np.linalg.qr(_pure(random, 4, 2))[0]
    value = qm.helstrom_crossfit(a, b, seed=3)
    assert qm.helstrom_crossfit(a @ turn.T, b @ turn.T, seed=3) == pytest.approx(value, abs=1e-9)
    wide = [np.pad(rows, ((0, 0), (0, 60))) for rows in (a, b)]  # 6 qubits: in the span of the samples
    assert qm.helstrom_crossfit(*wide, seed=3) == pytest.approx(value, abs=1e-6)
    single = [rows.astype(np.complex64) for rows in (a, b)]
    assert qm.helstrom_crossfit(*single, seed=3) == pytest.approx(value, abs=1e-4)
    assert qm.helstrom_crossfit(a, b, seed=3) == value
    assert qm.helstrom_crossfit(a, b, seed=4) != value


def test_the_wires_that_tell_most_are_found() -> None:
    random = np.random.default_rng(7)
    a, b = _tilted(random, 60, 0.0), _tilted(random, 60, 0.9)  # all in the second wire
    best = qm.helstrom_crossfit(a, b, wires=1)
    assert best == pytest.approx(qm.helstrom_crossfit(a, b, wires=(1,)), abs=1e-9)
    assert best > 0.5
    assert abs(qm.helstrom_crossfit(a, b, wires=[0])) < 0.25
    whole = qm.helstrom_crossfit(a, b, wires=(0, 1))
    assert whole == pytest.approx(qm.helstrom_crossfit(a, b), abs=1e-6)
    assert qm.helstrom_crossfit(a, b, wires=2) == pytest.approx(whole, abs=1e-9)


def test_the_pretty_good_measurement_of_known_ensembles() -> None:
    random = np.random.default_rng(8)
    basis = [np.repeat(np.eye(4, dtype=np.complex128)[[number]], 6, axis=0) for number in range(3)]
    assert qm.pretty_good_measurement(basis) == pytest.approx(1.0, abs=1e-9)
    same = [_pure(random, 40, 2) for _ in range(4)]
    assert qm.pretty_good_measurement(same) == pytest.approx(0.25, abs=0.03)
    # Of the trine, equally likely, the best measurement and the pretty good one are right two times of three.
    turns = np.arange(3) * np.pi / 3
    trine = [np.repeat([[np.cos(t), np.sin(t)]], 4, axis=0).astype(np.complex128) for t in turns]
    assert qm.pretty_good_measurement(trine) == pytest.approx(2 / 3, abs=1e-9)
    # Of two pure states it is the best: 1/2 (1 + sqrt(1 - F)).
    pair = [np.repeat([[1, 0]], 3, axis=0), np.repeat([[np.cos(0.4), np.sin(0.4)]], 3, axis=0)]
    assert qm.pretty_good_measurement(pair) == pytest.approx((1 + np.sin(0.4)) / 2, abs=1e-9)


def test_the_pretty_good_measurement_is_matrices_of_the_fitted_half() -> None:
    """Against density matrices, inverse square roots and traces; where nothing was fitted it guesses."""
    random = np.random.default_rng(9)
    states = [_pure(random, 2, 3), _pure(random, 2, 3)]
    totals = set()
    for first in (0, 1):
        for second in (0, 1):
            shares = []
            for fitted in ((first, second), (1 - first, 1 - second)):
                rhos = [np.outer(own[k], own[k].conj()) for own, k in zip(states, fitted, strict=True)]
                values, vectors = np.linalg.eigh(sum(rhos) / 2)
                root = (vectors * np.where(values > 1e-9, 1 / np.sqrt(abs(values)), 0)) @ vectors.conj().T
                rest = np.eye(8) - (vectors * (values > 1e-9)) @ vectors.conj().T
                for own, k, rho in zip(states, fitted, rhos, strict=True):
                    effect = root @ rho @ root / 2 + rest / 2
                    shares.append(np.vdot(own[1 - k], effect @ own[1 - k]).real)
            totals.add(round(float(np.mean(shares)), 8))
    found = {round(qm.pretty_good_measurement(states, seed=seed, halvings=1), 8) for seed in range(30)}
    assert found == totals


def test_too_few_samples_have_no_value_and_wrong_ones_are_refused() -> None:
    random = np.random.default_rng(10)
    one, two = _pure(random, 1, 2), _pure(random, 5, 2)
    assert np.isnan(qm.helstrom_crossfit(one, two))
    assert np.isnan(qm.helstrom_null(one, two).p_value)
    apart = (np.zeros(5, dtype=int), np.ones(5, dtype=int))
    assert np.isnan(qm.helstrom_crossfit(two, two, strata=apart))
    assert np.isnan(qm.helstrom_plugin(two, two, strata=apart))
    with pytest.raises(InputError, match=r"one width, got \(4,\) and \(8,\)"):
        qm.helstrom_crossfit(two, _pure(random, 5, 3))
    with pytest.raises(InputError, match=r"different wires from 0 to 1, got \[0, 0\]"):
        qm.helstrom_crossfit(two, two, wires=[0, 0])
    with pytest.raises(InputError, match="at least 1, got 0"):
        qm.helstrom_crossfit(two, two, wires=0)
    with pytest.raises(InputError, match=r"two density matrices \(d, d\)"):
        qm.trace_distance(two, two)
    with pytest.raises(InputError, match="two or more of each"):
        qm.pretty_good_measurement([two, one])
    with pytest.raises(InputError, match="permutations: expected at least 1"):
        qm.helstrom_null(two, two, permutations=0)


def _outer(rows: Complexes) -> Complexes:
    found: Complexes = np.einsum("ni,nj->nij", rows, rows.conj())
    return found


@pytest.mark.parametrize("wires", [None, 1, 2, (2, 0)])
def test_density_matrices_give_what_pure_states_give(wires: int | tuple[int, ...] | None) -> None:
    random = np.random.default_rng(4)
    one, other = _pure(random, 12, 3), _pure(random, 17, 3) + np.eye(8)[0]
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    strata = np.arange(12) % 2, np.arange(17) % 2
    for figure in (qm.helstrom_crossfit, qm.helstrom_plugin):
        pure = figure(one, other, wires=wires, strata=strata)
        assert figure(_outer(one), _outer(other), wires=wires, strata=strata) == pytest.approx(pure, abs=1e-9)
        # Beside pure ones, and where noise keeps a share of a state and makes the rest even.
        assert pure != pytest.approx(0.0, abs=1e-3)
    kept = 0.4 * _outer(one) + 0.6 * np.eye(8) / 8, 0.4 * _outer(other) + 0.6 * np.eye(8) / 8
    assert qm.helstrom_plugin(*kept, wires=wires, strata=strata) == pytest.approx(0.4 * pure, abs=1e-9)


def test_states_of_another_kind_are_refused() -> None:
    random = np.random.default_rng(5)
    with pytest.raises(InputError, match="one kind"):
        qm.helstrom_crossfit(_pure(random, 4, 2), _outer(_pure(random, 4, 2)))
    with pytest.raises(InputError, match="different wires"):
        qm.helstrom_crossfit(*(_outer(_pure(random, 4, 2)) for _ in range(2)), wires=(0, 3))
