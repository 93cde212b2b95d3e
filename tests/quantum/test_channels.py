"""The channel table: every row is a channel, the one that its name says, and refuses what is none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum.channels import CHANNELS, channel
from qunlearn.quantum.gates import PAULI
from tests.quantum.cases import STRENGTHS

ROWS = [(name, strengths, 1) for name in CHANNELS for strengths in STRENGTHS[name]]
ROWS += [("depolarizing", strengths, 2) for strengths in STRENGTHS["depolarizing"]]
every_row = pytest.mark.parametrize(("name", "strengths", "wires"), ROWS)


def strings(wires: int) -> list[Any]:
    paulis = list(PAULI.values())
    return paulis if wires == 1 else [np.kron(a, b) for a in paulis for b in paulis]


@st.composite
def rows(draw: st.DrawFn) -> tuple[str, tuple[float, ...], int]:
    """Any channel at any allowed strength."""
    name = draw(st.sampled_from(list(CHANNELS)))
    share = st.floats(0, 1)
    if name != "thermal-relaxation":
        return name, (draw(share),), draw(st.integers(1, CHANNELS[name].widest))
    t1 = draw(st.floats(1e-3, 1e6))
    return name, (t1, t1 * draw(st.floats(1e-6, 2)), draw(st.floats(0, 1e7)), draw(share)), 1


def check_row(name: str, strengths: tuple[float, ...], wires: int) -> None:
    spec = CHANNELS[name]
    operators, transfer = spec.kraus(strengths, wires), spec.transfer(strengths, wires)
    kept = np.einsum("kji,kjl->il", operators.conj(), operators)
    np.testing.assert_allclose(kept, np.eye(2**wires), atol=1e-12)  # keeps the trace
    assert transfer[0].tolist() == [1.0] + [0.0] * (4**wires - 1)  # to the last bit
    choi = sum(t * np.kron(p, q.T) for row, p in zip(transfer, strings(wires), strict=True)
               for t, q in zip(row, strings(wires), strict=True))  # fmt: skip
    assert np.linalg.eigvalsh(choi).min() > -1e-12 * len(choi)  # completely positive
    mapped = [sum(k @ q @ k.conj().T for k in operators) for q in strings(wires)]
    found = [[np.trace(p @ m).real / 2**wires for m in mapped] for p in strings(wires)]
    np.testing.assert_allclose(transfer, found, atol=1e-12)


@every_row
def test_matrices_and_kraus_operators_are_one_channel(name: str, strengths: tuple[float, ...], wires: int) -> None:
    check_row(name, strengths, wires)


@given(rows())
def test_any_strength_keeps_the_trace_and_is_completely_positive(row: tuple[str, tuple[float, ...], int]) -> None:
    check_row(*row)


@pytest.mark.parametrize("name", CHANNELS)
def test_strength_zero_does_nothing(name: str) -> None:
    strengths = (50.0, 70.0, 0.0) if name == "thermal-relaxation" else (0.0,)
    assert CHANNELS[name].transfer(strengths).tolist() == np.eye(4).tolist()
    assert len(CHANNELS[name].kraus(strengths)) == 1


@pytest.mark.parametrize("name", ["depolarizing", "bit-flip", "phase-flip", "bit-phase-flip"])
def test_pauli_channels_are_multiples_of_pauli_strings(name: str) -> None:
    for wires in range(1, CHANNELS[name].widest + 1):
        for operator in CHANNELS[name].kraus((0.3,), wires):
            size = np.abs(operator).max()
            assert any(np.allclose(operator, size * string) for string in strings(wires))


def test_closed_forms() -> None:
    one = np.array([[0, 0], [0, 1]])
    plus = np.full((2, 2), 0.5)

    def after(name: str, rho: Any, *strengths: float) -> Any:
        return sum(k @ rho @ k.conj().T for k in CHANNELS[name].kraus(strengths))

    np.testing.assert_allclose(after("depolarizing", one, 0.2), [[0.1, 0], [0, 0.9]], atol=1e-15)
    np.testing.assert_allclose(after("amplitude-damping", one, 0.2), [[0.2, 0], [0, 0.8]], atol=1e-15)
    np.testing.assert_allclose(after("phase-damping", plus, 0.36), [[0.5, 0.4], [0.4, 0.5]], atol=1e-15)
    np.testing.assert_allclose(after("bit-flip", one, 0.2), [[0.2, 0], [0, 0.8]], atol=1e-15)
    np.testing.assert_allclose(after("phase-flip", plus, 0.2), [[0.5, 0.3], [0.3, 0.5]], atol=1e-15)
    np.testing.assert_allclose(after("bit-phase-flip", one, 0.2), [[0.2, 0], [0, 0.8]], atol=1e-15)
    t1, t2, time, excited = 50.0, 70.0, 20.0, 0.1
    share = excited + (1 - excited) * math.exp(-time / t1)
    found = after("thermal-relaxation", one, t1, t2, time, excited)
    np.testing.assert_allclose(found, [[1 - share, 0], [0, share]], atol=1e-15)
    coherence = after("thermal-relaxation", plus, t1, t2, time, excited)[0, 1]
    assert coherence == pytest.approx(0.5 * math.exp(-time / t2), abs=1e-15)


def test_two_wires_are_depolarized_together() -> None:
    rho = np.zeros((4, 4))
    rho[0, 0] = 1
    found = sum(k @ rho @ k.conj().T for k in CHANNELS["depolarizing"].kraus((0.2,), 2))
    np.testing.assert_allclose(found, np.diag([0.85, 0.05, 0.05, 0.05]), atol=1e-15)


@pytest.mark.parametrize(
    ("name", "strengths", "wires", "message"),
    [
        ("depolarizing", (1.5,), 1, "depolarizing: expected p from 0 to 1, got 1.5"),
        ("amplitude-damping", (-0.1,), 1, "expected gamma from 0 to 1, got -0.1"),
        ("bit-flip", (math.nan,), 1, "expected p to be a finite number, got nan"),
        ("bit-flip", (True,), 1, "expected p to be a finite number, got True"),
        ("bit-flip", ("0.1",), 1, "expected p to be a finite number, got '0.1'"),
        ("bit-flip", (), 1, r"expected the strengths p, got \[\]"),
        ("bit-flip", (0.1, 0.1), 1, r"expected the strengths p, got \[0.1, 0.1\]"),
        ("bit-flip", (0.1,), 2, "bit-flip: expected 1 wire, got 2"),
        ("depolarizing", (0.1,), 3, "depolarizing: expected 1 to 2 wires, got 3"),
        ("thermal-relaxation", (50, 101, 1), 1, "expected t2 of at most 2 t1, .* got t1=50, t2=101"),
        ("thermal-relaxation", (0, 0, 1), 1, "expected t1 above 0, got 0"),
        ("thermal-relaxation", (50, 70, -1), 1, "expected time of at least 0, .* got -1"),
        ("thermal-relaxation", (50, 70, 1, 2), 1, "expected excited from 0 to 1, got 2"),
        ("thermal-relaxation", (50, 70), 1, "expected the strengths t1, t2, time, excited, got"),
    ],
)
def test_what_is_no_channel_is_refused(name: str, strengths: Any, wires: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CHANNELS[name].check(strengths, wires)


def test_matrices_of_no_channel_are_refused() -> None:
    for make in (CHANNELS["bit-flip"].kraus, CHANNELS["bit-flip"].transfer):
        with pytest.raises(InputError, match="from 0 to 1, got 2"):
            make((2.0,))


def test_an_unknown_channel_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="channel, got 'depolarising'; did you mean 'depolarizing'"):
        channel("depolarising")


def test_matrices_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        CHANNELS["bit-flip"].transfer((0.1,))[0, 0] = 2
    with pytest.raises(ValueError, match="read-only"):
        CHANNELS["bit-flip"].kraus((0.1,))[0, 0, 0] = 2
