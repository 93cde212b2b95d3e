import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import Tensor

from qunlearn.errors import InputError, UnsupportedError
from qunlearn.models import DirectEncoder, ImageEncoder, PCAEncoder


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return torch.as_tensor(load_digits().images[:300] / 16).unsqueeze(1)


def test_pca_spans_what_scikit_learn_finds(digits: Tensor) -> None:
    encoder = PCAEncoder(6).double().fit(digits)
    reference = PCA(6, svd_solver="full").fit(digits.flatten(1).numpy())
    ours, theirs = encoder.axes.numpy(), reference.components_
    np.testing.assert_allclose(np.abs((ours * theirs).sum(1)), 1, atol=1e-10)
    assert (ours[np.arange(6), np.abs(ours).argmax(1)] > 0).all()
    scores = reference.transform(digits.flatten(1).numpy()) * np.sign((ours * theirs).sum(1))
    low, high = scores.min(0), scores.max(0)
    np.testing.assert_allclose(encoder(digits), math.pi / 2 * (scores - low) / (high - low), atol=1e-9)


def test_pca_angles_stay_in_the_quarter_turn_for_unseen_data(digits: Tensor) -> None:
    encoder = PCAEncoder(4, inputs=64).fit(digits[:100])
    seen, unseen = encoder(digits[:100].float()), encoder(5 * digits[100:].float())
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.amin(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.amax(0), torch.full((4,), math.pi / 2), atol=1e-5, rtol=0)
    assert (unseen >= 0).all()
    assert (unseen <= math.pi / 2 + 1e-6).all()
    assert ((unseen - math.pi / 2).abs() < 1e-6).any()


def test_pca_gives_finite_angles_where_the_data_do_not_vary() -> None:
    x = torch.tensor([[0.0, 1.0, 7.0], [2.0, 1.0, 7.0], [3.0, 1.0, 7.0], [5.0, 1.0, 7.0]])
    angles = PCAEncoder(2).fit(x)(x)
    torch.testing.assert_close(angles[:, 0], math.pi / 2 * x[:, 0] / 5)
    assert angles[:, 1].abs().max() < 1e-5


@pytest.mark.parametrize("inputs", [None, 64])
def test_pca_state_loads_into_an_unfitted_encoder(digits: Tensor, inputs: int | None) -> None:
    fitted, empty = PCAEncoder(5, inputs).double().fit(digits), PCAEncoder(5, inputs).double()
    assert not empty.fitted
    empty.load_state_dict(fitted.state_dict())
    assert empty.fitted
    assert torch.equal(empty(digits), fitted(digits))
    fitted.load_state_dict(PCAEncoder(5, inputs).double().state_dict())
    assert not fitted.fitted


def test_pca_of_another_size_does_not_load(digits: Tensor) -> None:
    state = PCAEncoder(5).fit(digits).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch"):
        PCAEncoder(4).load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch"):
        PCAEncoder(5, inputs=10).load_state_dict(state)


def test_pca_refuses_what_it_cannot_do(digits: Tensor) -> None:
    with pytest.raises(UnsupportedError, match=r"call model\.fit\(x\) first"):
        PCAEncoder(3)(digits)
    with pytest.raises(InputError, match=r"expected samples of 64 scalars, got shape \(2, 10\)"):
        PCAEncoder(3).double().fit(digits)(torch.zeros(2, 10))
    with pytest.raises(InputError, match="expected samples of 10 scalars"):
        PCAEncoder(3, inputs=10).fit(digits)
    with pytest.raises(InputError, match="at least 9 samples"):
        PCAEncoder(9).fit(digits[:8])
    with pytest.raises(InputError, match="finite"):
        PCAEncoder(2).fit(torch.tensor([[0.0, math.nan], [1.0, 2.0]]))
    with pytest.raises(InputError, match="at least 5 inputs"):
        PCAEncoder(5, inputs=4)


def test_image_encoder_sizes() -> None:
    small = ImageEncoder(4, (1, 8, 8))
    assert small.to_angles.in_features == 32 * 2 * 2
    angles = small(torch.rand(3, 1, 8, 8))
    assert angles.shape == (3, 4)
    assert angles.abs().max() < math.pi
    assert ImageEncoder(8).to_angles.in_features == 1568
    with pytest.raises(InputError, match=r"expected images of shape \(batch, 1, 8, 8\), got \(3, 1, 28, 28\)"):
        small(torch.rand(3, 1, 28, 28))
    with pytest.raises(InputError, match="height >= 4"):
        ImageEncoder(4, (1, 3, 8))


def test_direct_encoder_flattens_only_when_asked() -> None:
    images = torch.rand(5, 1, 2, 2)
    assert torch.equal(DirectEncoder(4, flatten=True)(images), images.reshape(5, 4))
    with pytest.raises(InputError, match=r"expected samples of shape \(batch, 4\), got \(5, 1, 2, 2\); use encoder="):
        DirectEncoder(4)(images)
    with pytest.raises(InputError, match=r"got \(4,\)"):
        DirectEncoder(4)(torch.zeros(4))
    with pytest.raises(InputError, match=r"got \(2, 3\)"):
        DirectEncoder(4, flatten=True)(torch.zeros(2, 3))
