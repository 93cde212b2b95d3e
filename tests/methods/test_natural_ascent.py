"""Natural ascent: its step from its formula, and that no other step of the same gain costs less retain fidelity."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import NumericalError
from qunlearn.methods import NaturalAscent, Task, natural_ascent
from qunlearn.methods.in_circuit import features_into
from qunlearn.methods.natural_ascent import natural_step
from qunlearn.models import HybridClassifier
from qunlearn.quantum import engines, fidelity, load_circuit
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.fisher import metric_tensor, quantum_fisher
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.net import Net
from tests.methods.by_hand import array, task_slopes, values_of
from tests.methods.cases import hybrid_model, make_task
from tests.methods.learnt import loss
from tests.quantum.cases import dense

TASK = dataclasses.replace(make_task(retain=12, forget=5), validation=None)
WEIGHTS = "quantum.weights"
OTHERS = ("strongly-entangling", "ill-conditioned")


def make(kind: str, seed: int = 0, **settings: object) -> HybridClassifier:
    """Models whose metric is worse and worse conditioned: the third has directions along which no state moves."""
    card, qubits, depth = {
        "reupload": ("reupload", 4, 2),
        "strongly-entangling": ("strongly-entangling", 4, 2),
        "ill-conditioned": ("ring-cz", 4, 4),
        "controlled": ("sim-14", 4, 1),
    }[kind]
    circuit, generator = load_circuit(card, qubits=qubits, depth=depth), torch.Generator().manual_seed(seed)
    return HybridClassifier(circuit, 3, dtype=torch.float64, generator=generator, **settings)  # type: ignore[arg-type]


def moved(model: nn.Module, task: Task = TASK, **settings: object) -> Tensor:
    """The method's change of the weights in one step."""
    result = NaturalAscent(epochs=1, **settings)(model, task)  # type: ignore[arg-type]
    return (result.model.get_parameter(WEIGHTS) - model.get_parameter(WEIGHTS)).detach()


def slope(model: nn.Module, data: Dataset = TASK.forget) -> Tensor:
    """The gradient of the forget loss by the circuit's weights, by autograd on the model itself."""
    value = torch.nn.functional.cross_entropy(model(data.x), data.y)
    (found,) = torch.autograd.grad(value, [model.get_parameter(WEIGHTS)])
    return found


def numpy_states(circuit: Circuit, x: Tensor, weights: Tensor) -> np.ndarray:
    return np.stack([dense(circuit, row, weights).reshape(-1).numpy() for row in x])


def infidelity(model: HybridClassifier, step: Tensor, x: Tensor = TASK.retain.x) -> float:
    """What retained states lose on average, from states that are built gate by gate."""
    start = model.get_parameter(WEIGHTS).detach()
    before, after = (numpy_states(model.circuit, x, w) for w in (start, start + step))
    return float(np.mean(1 - np.abs(np.sum(before.conj() * after, 1)) ** 2))


def engine_infidelities(model: HybridClassifier, steps: Tensor, x: Tensor = TASK.retain.x) -> Tensor:
    """The same of many steps, by the engine, which is faster."""
    start = model.get_parameter(WEIGHTS).detach()
    before = engines.state(model.circuit, x, start)
    return torch.stack([(1 - fidelity(before, engines.state(model.circuit, x, start + step))).mean() for step in steps])


def damped(model: HybridClassifier, damping: float) -> Tensor:
    fisher = quantum_fisher(model.circuit, TASK.retain.x, model.get_parameter(WEIGHTS))
    return fisher + damping * fisher.diagonal().mean() * torch.eye(len(fisher), dtype=torch.float64)


def test_the_step_is_the_formula_in_numpy() -> None:
    """Gradient by shifts, metric by finite differences of states, the linear system by NumPy."""
    model, radius, damping, h = hybrid_model(), 1e-6, 0.05, 1e-5
    start, x = model.get_parameter(WEIGHTS).detach(), TASK.retain.x
    states = numpy_states(model.circuit, x, start)
    units = h * torch.eye(len(start), dtype=torch.float64)
    slopes = np.stack(
        [
            (numpy_states(model.circuit, x, start + u) - numpy_states(model.circuit, x, start - u)) / (2 * h)
            for u in units
        ],
        1,
    )
    along = np.einsum("nkd,nd->nk", slopes, states.conj())
    gram = np.einsum("nid,njd->ij", slopes.conj(), slopes) - np.einsum("ni,nj->ij", along.conj(), along)
    fisher = 4 * gram.real / len(x)
    fisher += damping * np.diag(fisher).mean() * np.eye(len(fisher))
    g = task_slopes(values_of(model), array(TASK.forget.x), TASK.forget.y.numpy())[WEIGHTS].mean(0)
    way = np.linalg.solve(fisher, g)
    wanted = way * np.sqrt(4 * radius / (g @ way))
    assert np.abs(array(moved(model, radius=radius, damping=damping)) - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("damping", [1e-3, 1e-6])
@pytest.mark.parametrize("kind", ["reupload", "controlled", *OTHERS])
def test_at_equal_gain_it_costs_what_the_formula_says_of_plain_ascent(kind: str, damping: float) -> None:
    """(g.g)^2 / ((g.F^-1 g)(g.F g)) of plain ascent's infidelity, within 5 %."""
    model = make(kind)
    g, f, step = slope(model), damped(model, damping), moved(model, radius=1e-6, damping=damping)
    plain = g * (g @ step) / (g @ g)
    assert float(g @ plain) == pytest.approx(float(g @ step))
    wanted = float((g @ g) ** 2 / ((g @ torch.linalg.solve(f, g)) * (g @ f @ g)))
    ratio = infidelity(model, step) / infidelity(model, plain)
    assert ratio == pytest.approx(wanted, rel=0.05)
    assert ratio < 0.9


def test_on_an_ill_conditioned_circuit_it_costs_less_than_half() -> None:
    model = make("ill-conditioned")
    values = torch.linalg.eigvalsh(quantum_fisher(model.circuit, TASK.retain.x, model.get_parameter(WEIGHTS)))
    assert values[0] < 1e-9 * values[-1], "the case must be ill-conditioned"
    g, step = slope(model), moved(model, radius=1e-6)
    assert infidelity(model, step) < 0.5 * infidelity(model, g * (g @ step) / (g @ g))


@pytest.mark.parametrize("kind", ["reupload", *OTHERS])
def test_no_random_direction_does_better_at_equal_gain(kind: str) -> None:
    """1,000 directions from anywhere, and 200 that lie a tenth beside the step."""
    model, generator = make(kind), torch.Generator().manual_seed(11)
    g, step = slope(model), moved(model, radius=1e-6, damping=1e-9)
    others = torch.randn(1200, len(g), dtype=torch.float64, generator=generator)
    others[1000:] = step + 0.1 * step.norm() * torch.nn.functional.normalize(others[1000:], dim=1)
    others *= ((g @ step) / (others @ g))[:, None]
    costs = engine_infidelities(model, torch.cat([step[None], others]))
    assert float(costs[0]) == pytest.approx(infidelity(model, step), rel=1e-4)
    assert bool((costs[1:1001] > costs[0]).all())
    assert bool((costs[1001:] > 0.999 * costs[0]).all())


@pytest.mark.parametrize("radius", [1e-3, 0.05, 0.4])
def test_the_trust_region_holds_truly(radius: float) -> None:
    """Where the formula promises too much, the step is shortened."""
    model = make("ill-conditioned", 1)
    step = moved(model, radius=radius)
    assert 0.6 * radius < infidelity(model, step) <= radius * (1 + 1e-9)
    g, f = slope(model), damped(model, 1e-3)
    promised = float(step @ f @ step) / 4
    assert promised <= radius * (1 + 1e-9)
    assert radius != 0.05 or promised < 0.99 * radius, "one of the cases must be shortened"
    cosine = (step @ torch.linalg.solve(f, g)) / (step.norm() * torch.linalg.solve(f, g).norm())
    assert float(cosine) == pytest.approx(1)


def test_every_step_stays_in_the_region_and_the_record_says_what_it_cost() -> None:
    result = NaturalAscent(epochs=4, radius=0.02)(hybrid_model(), TASK)
    costs = result.record.details["infidelities"]
    assert len(costs) == 4
    assert all(0 < cost <= 0.02 for cost in costs)
    assert result.record.details["metric"] == "full"
    assert [entry["epoch"] for entry in result.record.history] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["reupload", "ill-conditioned"])
def test_it_climbs_the_forget_loss_and_moves_nothing_but_angles(kind: str) -> None:
    model = make(kind)
    after = NaturalAscent(epochs=5)(model, TASK).model
    assert loss(after, TASK.forget) > loss(model, TASK.forget) + 0.05
    for name, p in model.named_parameters():
        assert torch.equal(after.get_parameter(name), p) == (name != WEIGHTS)
        assert after.get_parameter(name).requires_grad


def test_an_encoder_stays_and_its_features_are_the_circuit_s() -> None:
    task = dataclasses.replace(make_task(), validation=None)
    model = HybridClassifier(load_circuit("ring-cz", qubits=2), 3, "pca", inputs=4, dtype=torch.float64).fit(
        task.retain.x
    )
    assert torch.equal(features_into(Net(model), task.retain.x), model.get_submodule("encoder")(task.retain.x))
    after = NaturalAscent(epochs=1)(model, task).model
    before = model.state_dict()
    assert all(torch.equal(tensor, before[name]) == (name != WEIGHTS) for name, tensor in after.state_dict().items())


def test_the_kept_step_is_the_one_that_the_protocol_s_rule_keeps() -> None:
    task = make_task(retain=12, forget=5)
    result = NaturalAscent(epochs=6, radius=0.05)(hybrid_model(), task)
    record = result.record
    assert [row["epoch"] for row in record.candidates] == list(range(7))
    gaps = [abs(row["forget_loss"] - row["matched_loss"]) for row in record.candidates]
    floor = record.candidates[0]["validation_accuracy_retained"] - 0.02 - 1e-9
    eligible = [i for i, row in enumerate(record.candidates) if row["validation_accuracy_retained"] >= floor]
    assert record.chosen == min(eligible, key=gaps.__getitem__)
    assert loss(result.model, task.forget) == pytest.approx(record.candidates[record.chosen]["forget_loss"])
    last = NaturalAscent(epochs=6, radius=0.05)(hybrid_model(), dataclasses.replace(task, validation=None))
    assert last.record.chosen == 6


def test_large_circuits_take_the_metric_of_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("ill-conditioned")
    g, w = slope(model), model.get_parameter(WEIGHTS)
    fisher = 4 * metric_tensor(model.circuit, TASK.retain.x, w, blocks="layer")
    wanted = natural_step(g, fisher, 1e-3, 1e-6)

    def alike(one: Tensor, other: Tensor) -> float:
        return float(one @ other / (one.norm() * other.norm()))

    # Pairs between layers are part of the true cost, for which the step is shortened; its way stays.
    assert alike(moved(model, radius=1e-6, metric="layer"), wanted) == pytest.approx(1, abs=1e-9)
    assert alike(moved(model, radius=1e-6), wanted) < 0.9
    monkeypatch.setattr(natural_ascent, "SMALL", 47)
    found = NaturalAscent(epochs=1, radius=1e-6)(model, TASK)
    assert found.record.details["metric"] == "layer"
    assert alike(moved(model, radius=1e-6), wanted) == pytest.approx(1, abs=1e-9)
    assert alike(moved(model, radius=1e-6, metric="full"), wanted) < 0.9


def test_a_step_without_a_way_up_is_no_step() -> None:
    zero, eye = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    assert torch.equal(natural_step(zero, eye, 0.1, 0.01), zero)
    assert torch.equal(natural_step(eye[0], 0 * eye, 0.1, 0.01), zero), "states that do not move cannot tell the way"
    step = natural_step(eye[0] + eye[1], torch.diag(torch.tensor([1.0, 0, 1], dtype=torch.float64)), 0.0, 0.25)
    assert torch.allclose(step, eye[0]), "without damping, what no state feels is left out"


def test_counts_are_those_of_a_hand_count() -> None:
    """12 retained and 5 forget samples, 24 weights, one step that is not shortened."""
    record = NaturalAscent(epochs=1, radius=1e-6)(hybrid_model(), TASK).record
    watched = 2 * 5  # before and after
    assert record.counts.gradient_evaluations == 5 + 12
    assert record.counts.circuit_evaluations == watched + 5 + 12 * (1 + 24) + 12
    assert record.counts.hardware_circuits == watched + 5 * (1 + 48) + 12 * (24 + 2 * 24 * 23) + 12
    assert record.counts.epochs == 1
    few = NaturalAscent(epochs=1, radius=1e-6, samples=4)(hybrid_model(), TASK).record
    assert few.counts.circuit_evaluations == watched + 5 + 4 * (1 + 24) + 4


def test_drawn_samples_are_the_seed_s() -> None:
    one, again, other = (
        NaturalAscent(epochs=1, samples=4)(hybrid_model(), TASK, seed=seed).model.get_parameter(WEIGHTS)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_of_a_noisy_circuit_it_takes_the_metric_without_noise() -> None:
    noisy = make("reupload")
    assert isinstance(noisy.quantum, QuantumLayer)
    noisy.quantum.run_on(noise={"depolarizing": 0.01})
    task = dataclasses.replace(TASK, retain=TASK.retain.select(range(4)), forget=TASK.forget.select(range(2)))
    step = moved(noisy, task, radius=1e-6)
    exact = quantum_fisher(make("reupload").circuit, task.retain.x, noisy.get_parameter(WEIGHTS))
    wanted = natural_step(slope(noisy, task.forget), exact, 1e-3, 1e-6)
    assert torch.allclose(step, wanted, atol=1e-4 * float(wanted.abs().max()))


def test_a_gradient_that_is_not_finite_is_an_error() -> None:
    model = hybrid_model()
    with torch.no_grad():
        model.get_parameter("head.fc2.weight").fill_(1e308)
    with pytest.raises(NumericalError):
        NaturalAscent()(model, TASK)
