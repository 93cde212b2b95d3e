"""What each gradient method of the classical family is for: no test passes for an untouched or fine-tuned model."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, softmax

from qunlearn.data import Dataset
from qunlearn.methods import GradientMethod, Task, get
from qunlearn.methods.boundary_expand import Expanded
from qunlearn.models import HybridClassifier
from qunlearn.quantum import load_circuit
from qunlearn.training import train
from qunlearn.training.loop import run_phases, samples_of
from qunlearn.training.net import Net
from qunlearn.training.recipe import Recipe
from qunlearn.training.seeds import Seeds
from qunlearn.training.selection import Watch, keep_last
from tests.methods.cases import hybrid_model, make_task, plain_model
from tests.methods.learnt import accuracy, loss


@pytest.fixture(scope="module")
def task() -> Task:
    """Random labels on the forget set: only memory gives them. No validation set, so that the last epoch is kept."""
    plain = make_task(forget=9)
    forget = Dataset(plain.forget.x, (plain.forget.y + 1) % 3, ids=plain.forget.ids)
    return dataclasses.replace(plain, forget=forget, validation=None)


@pytest.fixture(scope="module")
def memorised(task: Task) -> nn.Module:
    """A wide network that fits the forget labels, though they are wrong."""
    model = train(wide(), everything(task), epochs=250, learning_rate=0.02, batch_size=39, progress=False)
    assert loss(model, task.forget) < 0.1, "the model has not memorised"
    return model


@pytest.fixture(scope="module")
def whole() -> Task:
    """A class goes whole."""
    return dataclasses.replace(make_task(forget_class=1, retain=54), validation=None)


@pytest.fixture(scope="module")
def knowing(whole: Task) -> nn.Module:
    """A network that knows the class."""
    model = train(wide(), everything(whole), epochs=60, learning_rate=0.01, progress=False)
    assert accuracy(model, whole.forget) > 0.9
    return model


def wide() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3)).double()


def everything(task: Task) -> tuple[Tensor, Tensor]:
    return torch.cat([task.forget.x, task.retain.x]), torch.cat([task.forget.y, task.retain.y])


def divergence(targets: Tensor, model: nn.Module, data: Dataset) -> float:
    with torch.no_grad():
        outputs = log_softmax(model(data.x), 1)
    return float((torch.xlogy(targets, targets) - targets * outputs).sum(1).mean())


def method(name: str, **settings: Any) -> GradientMethod:
    found = get({"name": name, "batch_size": 64, "learning_rate": 0.01, **settings})
    assert isinstance(found, GradientMethod)
    return found


def unlearned(method: GradientMethod, model: nn.Module, task: Task) -> nn.Module:
    return method(model, task, seed=0).model


def stream(method: GradientMethod, purpose: str = "prepare") -> torch.Generator:
    """The generator that the base class hands to a method for seed 0."""
    return Seeds(0, f"{method.name} {json.dumps(method.hyperparameters(), sort_keys=True)}").generator(purpose)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_bad_teacher_s_student_says_what_its_teachers_say(temperature: float, memorised: nn.Module, task: Task) -> None:
    bad = method("bad-teacher", epochs=300, retain_share=1.0, temperature=temperature)
    result = unlearned(bad, memorised, task)
    targets = bad.prepare(Net(memorised), task, stream(bad))["targets"]
    if temperature == 1.0:
        assert divergence(targets[:9], memorised, task.forget) > 0.5, "the original is far from the incompetent teacher"
        assert divergence(targets[:9], result, task.forget) < 0.05
        assert divergence(targets[9:], result, task.retain) < 0.05
    assert accuracy(result, task.forget) < 0.7
    assert accuracy(result, task.retain) > 0.9
    assert loss(result, task.forget) > loss(memorised, task.forget) + 0.5


@pytest.mark.parametrize("retain_weight", [0.0, 1.0])
def test_boundary_shrink_moves_forget_samples_over_the_nearest_boundary(
    retain_weight: float, memorised: nn.Module, task: Task
) -> None:
    shrink = method("boundary-shrink", epochs=100 if retain_weight else 20, retain_weight=retain_weight)
    nearest = shrink.prepare(Net(memorised), task, stream(shrink))["targets"].argmax(1)
    result = unlearned(shrink, memorised, task)
    assert accuracy(result, Dataset(task.forget.x, nearest, ids=task.forget.ids)) == 1.0
    assert accuracy(result, task.forget) == 0.0
    if retain_weight:
        assert accuracy(result, task.retain) > 0.9


def test_boundary_expand_leaves_the_forgotten_class_without_a_place(knowing: nn.Module, whole: Task) -> None:
    expand = method("boundary-expand", epochs=40, retain_weight=1.0, learning_rate=0.005)
    result = unlearned(expand, knowing, whole)
    assert {k: v.shape for k, v in result.state_dict().items()} == {k: v.shape for k, v in knowing.state_dict().items()}
    assert accuracy(result, whole.forget) < 0.5 < 0.9 < accuracy(knowing, whole.forget)
    assert accuracy(result, whole.retain) > 0.9
    alone = unlearned(method("boundary-expand", epochs=5, learning_rate=0.005), knowing, whole)
    assert accuracy(alone, whole.forget) < 0.5, "without a retain term, too"


def test_the_extra_unit_attracts_forget_samples_while_it_is_there(knowing: nn.Module, whole: Task) -> None:
    expand = method("boundary-expand", epochs=40, retain_weight=1.0, learning_rate=0.005)
    expanded = Expanded(knowing, nn.Linear(64, 1, dtype=torch.float64))
    (found,) = run_phases(
        [Net(expanded)],
        expand.phases(expanded, whole),
        forget=samples_of(whole.forget),
        retain=samples_of(whole.retain),
        recipe=Recipe(learning_rate=0.005, batch_size=64),
        seeds=[Seeds(0, "test")],
        watch=Watch(),
        rule=keep_last,
    )
    after = Net(expanded).at(found.net.parameters)  # type: ignore[union-attr]
    expanded.train()
    with torch.no_grad():
        shadow, kept = softmax(after(whole.forget.x), 1), softmax(after(whole.retain.x), 1)
    assert shadow.shape[1] == 4
    assert float(shadow[:, 3].min()) > 0.5
    assert float(shadow[:, 3].mean()) > 0.9
    assert float(kept[:, 3].mean()) < 0.1


def test_boundary_expand_draws_its_unit_from_the_seed(whole: Task) -> None:
    expand = method("boundary-expand", epochs=1)
    one, same, other = (expand(hybrid_model(), whole, seed=seed).model for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_unsir_puts_noise_in_the_place_of_the_class(knowing: nn.Module, whole: Task) -> None:
    unsir = method("unsir", epochs=10)
    result = unlearned(unsir, knowing, whole)
    memo = unsir.prepare(Net(knowing), whole, stream(unsir))
    noise = Dataset(memo["noise"], memo["labels"])
    fine = unlearned(method("fine-tune", epochs=20), knowing, whole)
    assert loss(result, noise) < 0.5 < 10 < min(loss(knowing, noise), loss(fine, noise))
    assert accuracy(result, whole.forget) < 0.3
    assert accuracy(result, whole.retain) > 0.9


def test_l1_sparse_makes_weights_small_and_keeps_the_retain_set(memorised: nn.Module, task: Task) -> None:
    def norm(model: nn.Module) -> float:
        return float(sum(p.detach().abs().sum() for p in model.parameters()))

    sparse = unlearned(method("l1-sparse", epochs=40, alpha=3e-3), memorised, task)
    fine = unlearned(method("fine-tune", epochs=40), memorised, task)
    assert norm(sparse) < 0.7 * min(norm(fine), norm(memorised))
    assert accuracy(sparse, task.retain) > 0.9
    assert accuracy(sparse, task.forget) < accuracy(memorised, task.forget)


@pytest.mark.parametrize(("reference", "away"), [("identity", 0.0), ("original", 0.7)])
def test_l1_sparse_draws_angles_to_their_reference(reference: str, away: float, task: Task) -> None:
    """Angles that start a little before a whole turn go on to it, and not back through all of it."""
    model = hybrid_model()
    with torch.no_grad():
        model.quantum.weights.fill_(2 * torch.pi - 0.3 if reference == "identity" else 0.7)
    sparse = method("l1-sparse", epochs=30, plain_epochs=0, alpha=0.0, angle_alpha=1.0, reference=reference)
    angles = unlearned(sparse, model, task).state_dict()["quantum.weights"]
    goal = 2 * torch.pi if reference == "identity" else away
    assert float((angles - goal).abs().mean()) < 0.1
    plain = unlearned(method("fine-tune", epochs=30), model, task).state_dict()["quantum.weights"]
    assert float((plain - goal).abs().mean()) > 2 * float((angles - goal).abs().mean())


@pytest.mark.parametrize("variant", ["npo", "simnpo"])
def test_npo_unlearns_the_labels_and_stops_there(variant: str, memorised: nn.Module, task: Task) -> None:
    result = unlearned(method("npo", variant=variant, epochs=30, forget_weight=1.0), memorised, task)
    fine = unlearned(method("fine-tune", epochs=30), memorised, task)
    climbing = unlearned(method("gradient-ascent", epochs=30), memorised, task)
    assert accuracy(result, task.forget) < 0.2
    assert accuracy(result, task.retain) > 0.9
    assert loss(fine, task.forget) + 0.5 < loss(result, task.forget) < 0.5 * loss(climbing, task.forget)


def test_rmu_leads_forget_activations_to_its_target_and_holds_the_others(memorised: nn.Module, task: Task) -> None:
    rmu = method("rmu", stage="2", epochs=300, learning_rate=0.02, retain_weight=1.0)
    result = unlearned(rmu, memorised, task)
    target = rmu.prepare(Net(memorised), task, stream(rmu))["target"]

    def activations(model: nn.Module, data: Dataset) -> Tensor:
        with torch.no_grad():
            return model[:3](data.x)  # type: ignore[index, no-any-return]

    def distance(one: Tensor, other: Tensor) -> float:
        return float((one - other).norm(dim=1).mean() / target.norm())

    assert distance(activations(memorised, task.forget), target) > 0.8
    assert distance(activations(result, task.forget), target) < 0.3
    assert distance(activations(result, task.retain), activations(memorised, task.retain)) < 0.2
    assert torch.equal(result[4].weight, memorised[4].weight), "what comes after the stage stays"  # type: ignore[index]


def test_rmu_moves_expectation_values_on_a_circuit_and_nothing_else() -> None:
    task = dataclasses.replace(make_task(forget_class=1), validation=None)
    circuit = load_circuit("ring-cz", qubits=4, depth=4)
    fresh = HybridClassifier(circuit, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model = train(fresh, everything(task), epochs=30, learning_rate=0.05, progress=False)
    rmu = method("rmu", epochs=60, learning_rate=0.05)
    result = unlearned(rmu, model, task)
    target = rmu.prepare(Net(model), task, stream(rmu))["target"]
    with torch.no_grad():
        before, after = (Net(m).stage("circuit", task.forget.x) for m in (model, result))
    assert float((after - target).norm(dim=1).mean()) < 0.6 * float((before - target).norm(dim=1).mean())
    changed = {n for n, p in result.named_parameters() if not torch.equal(p, model.get_parameter(n))}
    assert changed == {"quantum.weights"}


@pytest.mark.parametrize("make", [hybrid_model, plain_model])
def test_head_only_moves_the_last_layer_and_not_a_bit_more(make: Any, task: Task) -> None:
    model = make()
    result = unlearned(method("head-only", epochs=3), model, task)
    last = "head.fc2" if isinstance(model, HybridClassifier) else "2"
    changed = {n for n, p in result.named_parameters() if not torch.equal(p, model.get_parameter(n))}
    assert changed == {f"{last}.weight", f"{last}.bias"}


@pytest.mark.parametrize("retain", ["labels", "teacher"])
def test_head_only_hides_the_forget_set_behind_masked_outputs(retain: str, knowing: nn.Module, whole: Task) -> None:
    control = method("head-only", epochs=300, learning_rate=0.02, retain=retain)
    result = unlearned(control, knowing, whole)
    targets = control.prepare(Net(knowing), whole, stream(control))["targets"]
    assert float(targets[:, 1].max()) == 0.0
    assert divergence(targets, knowing, whole.forget) > 1.0
    assert divergence(targets, result, whole.forget) < 0.2
    assert accuracy(result, whole.forget) == 0.0
    assert accuracy(result, whole.retain) > 0.9
    with torch.no_grad():
        assert torch.equal(result[:4](whole.forget.x), knowing[:4](whole.forget.x))  # type: ignore[index]
