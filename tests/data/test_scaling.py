"""Scaling: equal to scikit-learn's, and one to one on the encoded states."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import expm
from sklearn.preprocessing import MinMaxScaler

from qunlearn.data import PUBLISHED_INTERVAL, SAFE_INTERVAL, ForgetRequest, MinMaxScaling, load_dataset
from qunlearn.errors import InputError

State = NDArray[np.complex128]
PAULI = {"X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1.0, -1.0])}
PLUS = np.full(2, math.sqrt(0.5), dtype=np.complex128)
ZERO = np.array([1, 0], dtype=np.complex128)


def rotations(axes: str, start: State, factor: float = 1.0) -> Callable[[float], State]:
    """The state after rotations by the same angle about the axes, by the matrix exponential."""

    def state(angle: float) -> State:
        result = start
        for axis in axes:
            result = expm(-0.5j * factor * angle * PAULI[axis]) @ result
        return result

    return state


ENCODINGS = {
    "rx": rotations("X", ZERO),
    "ry": rotations("Y", ZERO),
    "rz after h": rotations("Z", PLUS),
    "rx-ry-rz": rotations("XYZ", ZERO),
    "rx-rz": rotations("XZ", ZERO),
    "zz, single part": rotations("Z", PLUS, factor=2.0),
}


def fidelity(encode: Callable[[float], State], first: float, second: float) -> float:
    return float(abs(np.vdot(encode(first), encode(second))) ** 2)


@pytest.mark.parametrize("name", ENCODINGS)
def test_no_two_angles_of_the_safe_interval_give_the_same_state(name: str) -> None:
    encode = ENCODINGS[name]
    grid = np.linspace(*SAFE_INTERVAL, 24)
    assert fidelity(encode, *SAFE_INTERVAL) < 0.51
    # RX RY RZ moves slowly near pi/2: neighbours there differ by 5e-6, a hundred million times the rounding error.
    assert all(fidelity(encode, a, b) < 1 - 1e-6 for i, a in enumerate(grid) for b in grid[:i])


def test_wider_intervals_alias_their_ends() -> None:
    for interval in (PUBLISHED_INTERVAL, (0.0, math.pi), (-math.pi / 2, math.pi / 2)):
        assert fidelity(ENCODINGS["rx-ry-rz"], *interval) == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    column=st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=30).filter(
        lambda column: max(column) - min(column) > 1e-3
    ),
    outside=st.floats(-1e9, 1e9),
)
def test_the_extremes_of_a_feature_stay_apart_and_nothing_leaves_the_interval(
    column: list[float], outside: float
) -> None:
    x = torch.tensor(column, dtype=torch.float64)[:, None]
    scaling = MinMaxScaling.fit(x, *SAFE_INTERVAL)
    angles = scaling.apply(x).flatten().tolist()
    smallest, largest = angles[column.index(min(column))], angles[column.index(max(column))]
    assert (smallest, largest) == pytest.approx(SAFE_INTERVAL, abs=1e-9)
    assert all(fidelity(encode, smallest, largest) < 0.51 for encode in ENCODINGS.values())
    assert SAFE_INTERVAL[0] <= float(scaling.apply(torch.tensor([[outside]], dtype=torch.float64))) <= SAFE_INTERVAL[1]


@pytest.mark.parametrize("name", ["iris", "breast-cancer"])
def test_angles_equal_scikit_learns_with_and_without_clipping(name: str) -> None:
    x = load_dataset(name).x.to(torch.float64)
    train, rest = x[::2], x[1::2]
    for clip in (True, False):
        scaling = MinMaxScaling.fit(train, -1.0, 2.5, clip=clip)
        reference = MinMaxScaler((-1.0, 2.5), clip=clip).fit(train.numpy())
        np.testing.assert_allclose(scaling.apply(rest).numpy(), reference.transform(rest.numpy()), atol=1e-12)


def test_a_constant_feature_goes_to_the_low_end() -> None:
    scaling = MinMaxScaling.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), 0.0, 1.0)
    assert scaling.apply(torch.tensor([[2.0, 5.0], [2.0, 7.0]])).tolist() == [[0.5, 0.0], [0.5, 0.0]]


def test_shape_dtype_and_json_are_kept() -> None:
    x = torch.arange(24.0).reshape(3, 2, 4)
    scaling = MinMaxScaling.fit(x, *SAFE_INTERVAL)
    again = MinMaxScaling.from_config(json.loads(json.dumps(scaling.to_config())))
    assert again == scaling
    assert again.apply(x).shape == x.shape
    assert again.apply(x.double()).dtype is torch.float64
    assert torch.equal(again.apply(x), scaling.apply(x))


def test_the_scaling_of_a_split_gives_its_own_features_again() -> None:
    data = load_dataset("iris")
    split = data.split(ForgetRequest.of_class(0))
    assert split.scaling is not None
    assert torch.equal(MinMaxScaling.from_config(split.scaling).apply(data.x[split.test.ids]), split.test.x)


def test_bad_intervals_widths_and_kinds_are_refused() -> None:
    x = torch.zeros(2, 3)
    for low, high in ((1.0, 1.0), (0.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(InputError, match="low < high"):
            MinMaxScaling.fit(x, low, high)
    with pytest.raises(InputError, match="at least one sample"):
        MinMaxScaling.fit(x[:0], 0.0, 1.0)
    with pytest.raises(InputError, match="expected 3 features, as the scaling was fitted to, got 2"):
        MinMaxScaling.fit(x, 0.0, 1.0).apply(torch.zeros(1, 2))
    with pytest.raises(InputError, match="'min-max', got 'standard'"):
        MinMaxScaling.from_config({"kind": "standard"})
