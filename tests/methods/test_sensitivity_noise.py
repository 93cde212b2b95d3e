"""Sensitivity-guided noise: its sensitivities and widths by hand, the noise as it is drawn, the repair."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from qunlearn.errors import InputError
from qunlearn.methods import FineTune, SensitivityNoise
from qunlearn.methods.sensitivity_noise import scaled, width_of
from qunlearn.models import HybridClassifier
from qunlearn.quantum import load_circuit
from qunlearn.training.net import Net
from tests.methods.cases import hybrid_model, make_task, plain_model
from tests.methods.learnt import clusters, loss

STILL = 1e-15  # a learning rate at which nothing moves
TASK = dataclasses.replace(make_task(), validation=None)


def angles(model: nn.Module) -> torch.Tensor:
    return model.get_parameter("quantum.weights").detach()


def test_sensitivities_are_the_norms_of_each_sample_s_gradient_by_the_angles() -> None:
    model = hybrid_model()
    found = SensitivityNoise().sensitivities(Net(model), TASK)
    weights = model.get_parameter("quantum.weights")
    for value, x, y in zip(found, TASK.forget.x, TASK.forget.y, strict=True):
        (slope,) = torch.autograd.grad(cross_entropy(model(x[None]), y[None]), [weights])
        assert float(value) == pytest.approx(float(slope.norm()), rel=1e-10)


def test_widths_of_a_hand_computed_example() -> None:
    """s = 0, 0.25, 0.5, 1 of sum 1.75, budget 7: shares 0, 1, 2, 4, factors 0.2, 0.2, 0.35, 0.5."""
    s = scaled(torch.tensor([2.0, 3.0, 4.0, 6.0], dtype=torch.float64))
    assert s.tolist() == [0.0, 0.25, 0.5, 1.0]
    assert width_of(s, 7.0) == pytest.approx(np.sqrt(0.2**2 + 0.7**2 + 2.0**2))
    assert width_of(s, 7.0, equal=True) == pytest.approx(1.75 * np.sqrt(0.2**2 + 0.2**2 + 0.35**2 + 0.5**2))
    edges = torch.tensor([0.3, 0.7, 1.0], dtype=torch.float64)
    assert width_of(edges, 2.0) == pytest.approx(np.sqrt((0.3 * 0.2) ** 2 + (0.7 * 0.35) ** 2 + 0.5**2))


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0, 2.0]])
def test_equal_sensitivities_share_the_budget_equally(values: list[float]) -> None:
    s = scaled(torch.tensor(values, dtype=torch.float64))
    assert s.tolist() == [0.0] * len(values)
    assert width_of(s, 1.0) == pytest.approx(0.2 / np.sqrt(len(values)))


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({"noise": "once"}, 0.3),
        ({"noise": "once", "deviation": 0.05}, 0.05),
        ({"noise": "sensitivity", "budget": 2.0}, None),
        ({"noise": "uniform", "budget": 2.0}, None),
        ({"noise": "none"}, 0.0),
    ],
    ids=["once", "once-narrow", "sensitivity", "uniform", "none"],
)
def test_angles_alone_are_disturbed_by_noise_of_the_stated_width(
    settings: dict[str, object], width: float | None
) -> None:
    """24 angles and 40 seeds are 960 draws: the relative standard error of their deviation is 2.3 %."""
    model = hybrid_model()
    method = SensitivityNoise(epochs=1, learning_rate=STILL, **settings)  # type: ignore[arg-type]
    if width is None:
        s = scaled(method.sensitivities(Net(model), TASK))
        width = width_of(s, 2.0, equal=settings["noise"] == "uniform")
        assert width > 0.1
    results = method.together([model] * 40, TASK, seeds=range(40))
    moves = [angles(r.model) - angles(model) for r in results if not isinstance(r, Exception)]
    drawn = torch.stack(moves)
    assert len(drawn) == 40
    assert float(drawn.std()) == pytest.approx(width, rel=0.1, abs=1e-12)
    assert float(drawn.mean()) == pytest.approx(0, abs=4 * width / np.sqrt(960) + 1e-12)
    for one in results:
        assert not isinstance(one, Exception)
        for name, p in one.model.named_parameters():
            assert name == "quantum.weights" or torch.allclose(p, model.get_parameter(name), atol=1e-12)


def test_without_noise_it_is_fine_tuning() -> None:
    model = hybrid_model()
    ours = SensitivityNoise(noise="none", epochs=4, batch_size=64, learning_rate=0.01)(model, TASK)
    theirs = FineTune(epochs=4, batch_size=64, learning_rate=0.01)(model, TASK)
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-9)
    assert ours.record.counts.gradient_evaluations == 4 * 30


@pytest.mark.parametrize("noise", ["sensitivity", "once"])
def test_the_repair_undoes_what_noise_does_to_the_retain_set(noise: str) -> None:
    task, model = clusters(0, hybrid_model)
    settings = {"noise": noise, "budget": 8.0, "deviation": 0.8}
    spoilt = SensitivityNoise(epochs=1, learning_rate=STILL, **settings)(model, task)  # type: ignore[arg-type]
    mended = SensitivityNoise(epochs=20, learning_rate=0.02, **settings)(model, task)  # type: ignore[arg-type]
    assert loss(spoilt.model, task.retain) > 2 * loss(model, task.retain)
    assert loss(mended.model, task.retain) < 0.5 * loss(spoilt.model, task.retain)


@pytest.mark.parametrize("make", [plain_model, lambda: frozen(), lambda: twin()], ids=["sequential", "frozen", "twin"])
def test_models_without_trained_angles_are_refused_before_any_work(make: type[nn.Module]) -> None:
    with pytest.raises(InputError, match=r"with (one circuit|trained weights) for sensitivity-noise"):
        SensitivityNoise()(make(), TASK)
    with pytest.raises(InputError, match=r"with (one circuit|trained weights)"):
        SensitivityNoise().check_model(make(), TASK.retain)


def frozen() -> nn.Module:
    return HybridClassifier(load_circuit("ring-cz", qubits=4, depth=1), 3, control="frozen", dtype=torch.float64)


def twin() -> nn.Module:
    return HybridClassifier(load_circuit("ring-cz", qubits=4, depth=1), 3, control="twin", dtype=torch.float64)
