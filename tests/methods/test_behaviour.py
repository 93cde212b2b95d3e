"""What each method is for, on a model that has memorised: one test a method, none of which `none` passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, softmax

from qunlearn.data import Dataset
from qunlearn.methods import Method, Task, get
from qunlearn.methods.adaprob import AdaProb
from qunlearn.methods.adv_uniform import divergence_from_uniform
from qunlearn.methods.q_mul import QMul, similar_classes, similar_labels
from qunlearn.methods.random_label import RandomLabel
from qunlearn.models import stages
from qunlearn.models.stream import Stream
from qunlearn.training import Recipe, train
from qunlearn.training.net import Net
from qunlearn.training.selection import Candidate, keep_forgotten, keep_matched_error
from tests.methods.cases import blobs, hybrid_model, make_task, plain_model
from tests.methods.learnt import accuracy, loss

Model = Callable[[Tensor], Tensor]


@pytest.fixture(scope="module")
def task() -> Task:
    """Random labels on the forget set: only memory gives them. No validation set, so that the last epoch is kept."""
    plain = make_task(forget=9)
    labels = (plain.forget.y + 1) % 3
    forget = Dataset(plain.forget.x, labels, ids=plain.forget.ids)
    return dataclasses.replace(plain, forget=forget, validation=None)


@pytest.fixture(scope="module")
def memorised(task: Task) -> nn.Module:
    """A wide network that fits the forget labels, though they are wrong."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wide = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3)).double()
    x, y = torch.cat([task.forget.x, task.retain.x]), torch.cat([task.forget.y, task.retain.y])
    model = train(wide, (x, y), epochs=250, learning_rate=0.02, batch_size=39, progress=False)
    assert loss(model, task.forget) < 0.1, "the model has not memorised"
    return model


def unlearned(method: Method, model: nn.Module, task: Task) -> nn.Module:
    return method(model, task, seed=0).model


def method(name: str, **settings: object) -> Method:
    return get({"name": name, "batch_size": 64, **settings})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gradient-ascent", {"epochs": 10, "learning_rate": 0.01}),
        ("fisher-penalty", {"epochs": 10, "learning_rate": 0.01}),
        ("neggrad-plus", {"epochs": 60, "alpha": 0.7, "learning_rate": 0.01}),
        ("neggrad-plus", {"epochs": 15, "variant": "crivoi", "learning_rate": 0.01}),
        ("cf-k", {"epochs": 20, "variant": "crivoi", "learning_rate": 0.01}),
        ("scrub", {"epochs": 10, "learning_rate": 0.01}),
        ("scrub", {"epochs": 20, "variant": "crivoi", "learning_rate": 0.01}),
    ],
)
def test_the_ascent_family_raises_the_forget_loss(
    name: str, settings: dict[str, object], memorised: nn.Module, task: Task
) -> None:
    after = loss(unlearned(method(name, **settings), memorised, task), task.forget)
    assert after > loss(memorised, task.forget) + 1.0


@pytest.mark.parametrize("name", ["neggrad-plus", "scrub"])
def test_the_two_sided_methods_hold_the_retain_set(name: str, memorised: nn.Module, task: Task) -> None:
    result = unlearned(method(name, epochs=40, learning_rate=0.005), memorised, task)
    alone = unlearned(method("gradient-ascent", epochs=40, learning_rate=0.005), memorised, task)
    assert accuracy(result, task.retain) >= 0.9
    assert loss(result, task.retain) < loss(alone, task.retain)


def test_the_fisher_penalty_holds_back_weights_that_matter(memorised: nn.Module, task: Task) -> None:
    def travelled(strength: float) -> float:
        model = unlearned(method("fisher-penalty", epochs=30, strength=strength, learning_rate=0.01), memorised, task)
        net = Net(memorised)
        importance = get({"name": "fisher-penalty"}).prepare(net, task, torch.Generator().manual_seed(0))["importance"]  # type: ignore[attr-defined]
        return float(
            sum(
                (importance[name] * (p - memorised.get_parameter(name)).detach() ** 2).sum()
                for name, p in model.named_parameters()
            )
        )

    assert travelled(1e8) < 0.5 * travelled(0.0)


def test_fine_tuning_lowers_the_retain_loss_and_never_sees_the_forget_set(memorised: nn.Module, task: Task) -> None:
    fine = method("fine-tune", epochs=30, learning_rate=0.01)
    result = unlearned(fine, memorised, task)
    assert loss(result, task.retain) < loss(memorised, task.retain)
    poisoned = Dataset(task.forget.x * 0 + 1, task.forget.y, ids=task.forget.ids)
    other = unlearned(fine, memorised, dataclasses.replace(task, forget=poisoned))
    assert all(torch.equal(a, b) for a, b in zip(result.parameters(), other.parameters(), strict=True))
    assert loss(result, task.forget) > loss(memorised, task.forget)


def test_retraining_moves_every_parameter_and_forgets_what_only_memory_gave(task: Task) -> None:
    model = hybrid_model(4)
    result = unlearned(get("retrain"), model, task)
    assert all(not torch.equal(a, b) for a, b in zip(result.parameters(), model.parameters(), strict=True))
    assert loss(result, task.retain) < loss(model, task.retain)
    assert accuracy(result, task.forget) < 0.5, "the wrong labels cannot be guessed"
    elsewhere = unlearned(get("retrain"), hybrid_model(9), task)
    assert all(torch.equal(a, b) for a, b in zip(result.parameters(), elsewhere.parameters(), strict=True)), (
        "what the original had learnt plays no part"
    )


def test_random_labels_are_learned_and_never_the_true_one(memorised: nn.Module, task: Task) -> None:
    fixed = RandomLabel(redraw=False, epochs=150, learning_rate=0.01, batch_size=64)
    memo = fixed.prepare(Net(memorised), task, torch.Generator().manual_seed(3))
    assert not (memo["labels"] == task.forget.y).any()
    drawn = {
        tuple(fixed.draw(Net(memorised), memo, Stream(torch.Generator().manual_seed(s)))["labels"].tolist())
        for s in range(9)
    }
    assert len(drawn) > 1
    result = unlearned(fixed, memorised, task)
    assert accuracy(result, task.forget) < 0.2
    assert accuracy(result, task.retain) > 0.9


def test_random_labels_in_turn_alternate_forget_and_retain_epochs(task: Task) -> None:
    phases = RandomLabel(schedule="alternate", epochs=3).phases(plain_model(), task)
    assert [phase.data for phase in phases] == ["forget", "retain"] * 3
    assert [phase.candidate for phase in phases] == [False, True] * 3


@pytest.mark.parametrize(
    ("name", "variant", "moving"),
    [("cf-k", "goel", "last"), ("eu-k", "goel", "last"), ("cf-k", "crivoi", "beyond first")],
)
def test_frozen_parameters_are_bit_identical(name: str, variant: str, moving: str, task: Task) -> None:
    model = hybrid_model(2)
    result = unlearned(method(name, variant=variant, epochs=5, learning_rate=0.05), model, task)
    parts = stages(model)
    chosen = parts[-1:] if moving == "last" else parts[1:]
    names = {parameter for stage in chosen for parameter in stage.parameters}
    changed = {n for n, p in result.named_parameters() if not torch.equal(p, model.get_parameter(n))}
    assert changed == names


@pytest.mark.parametrize("name", ["cf-k", "eu-k"])
def test_norm_layers_of_frozen_stages_keep_their_running_statistics(name: str, task: Task) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        parts = [nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ELU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ELU()]
        model = nn.Sequential(*parts, nn.Linear(8, 3)).double()
    for k, moving in ((1, ()), (2, ("4.running_mean", "4.running_var", "4.num_batches_tracked"))):
        result = unlearned(method(name, k=k, epochs=3), model, task)
        changed = {key for key, value in result.named_buffers() if not torch.equal(value, model.get_buffer(key))}
        assert changed == set(moving)
    whole = unlearned(method("fine-tune", epochs=3), model, task)
    assert all(not torch.equal(value, model.get_buffer(key)) for key, value in whole.named_buffers())


def test_cf_k_descends_on_the_retain_set(memorised: nn.Module, task: Task) -> None:
    result = unlearned(method("cf-k", epochs=40, learning_rate=0.01), memorised, task)
    assert loss(result, task.retain) < loss(memorised, task.retain)


def test_eu_k_starts_the_last_stage_anew_and_learns_the_retain_set_again(memorised: nn.Module, task: Task) -> None:
    short = method("eu-k", epochs=1, learning_rate=1e-9)
    drawn = unlearned(short, memorised, task)
    assert float((drawn[-1].weight - memorised[-1].weight).abs().max().detach()) > 0.1  # type: ignore[index]
    long = unlearned(method("eu-k", epochs=200, learning_rate=0.02), memorised, task)
    assert loss(long, task.retain) < 0.2 < loss(drawn, task.retain)


def test_scrub_follows_the_teacher_where_it_should(memorised: nn.Module, task: Task) -> None:
    result = unlearned(
        method("scrub", epochs=60, max_epochs=2, gamma=0.0, alpha=1.0, learning_rate=0.003), memorised, task
    )
    with torch.no_grad():
        teacher, student = softmax(memorised(task.retain.x), 1), log_softmax(result(task.retain.x), 1)
    assert float((torch.xlogy(teacher, teacher) - teacher * student).sum(1).mean()) < 0.05


def test_the_rewind_returns_the_epoch_that_matches_the_validation_error() -> None:
    """Twenty epochs that only leave the teacher: the best match is an early one, and its state comes back."""
    base = make_task(forget=12)
    model = train(plain_model(1), base.retain, epochs=60, learning_rate=0.02, batch_size=64, progress=False)
    scrub = method("scrub", rewind=True, epochs=12, max_epochs=12, alpha=0.0, gamma=0.0, learning_rate=0.1)
    result = scrub(model, base, seed=0)
    distances = [abs(c["forget_accuracy"] - c["matched_accuracy"]) for c in result.record.candidates]
    assert distances[result.record.chosen] == pytest.approx(min(distances), abs=1e-9)
    assert result.record.chosen < len(distances) - 1, "the case must not end with its best epoch"
    measured = accuracy(result.model, base.forget)
    assert measured == pytest.approx(result.record.candidates[result.record.chosen]["forget_accuracy"])
    last = scrub.__class__(**{**scrub.hyperparameters(), "rewind": False})(
        model, dataclasses.replace(base, validation=None)
    )
    assert loss(last.model, base.forget) > loss(result.model, base.forget)


def test_keep_matched_error_considers_the_untouched_model() -> None:
    candidates = [
        Candidate(0, forget_accuracy=0.5, matched_accuracy=0.5),
        Candidate(1, forget_accuracy=0.2, matched_accuracy=0.5),
    ]
    assert keep_matched_error(candidates) == 0


def test_noisy_fine_tuning_learns_through_its_noise(memorised: nn.Module, task: Task) -> None:
    quiet = unlearned(method("noisy-fine-tune", epochs=20, sigma=0.0, learning_rate=0.01), memorised, task)
    noisy = unlearned(method("noisy-fine-tune", epochs=20, sigma=0.05, learning_rate=0.01), memorised, task)
    assert loss(quiet, task.retain) < loss(memorised, task.retain)
    assert any(not torch.equal(a, b) for a, b in zip(quiet.parameters(), noisy.parameters(), strict=True))
    start = plain_model(3)
    assert loss(
        unlearned(method("noisy-fine-tune", epochs=60, learning_rate=0.05), start, task), task.retain
    ) < 0.5 * loss(start, task.retain)


def test_noisy_steps_are_the_clipped_gradient_plus_noise_of_the_stated_variance(
    memorised: nn.Module, task: Task
) -> None:
    """One step of SGD: the weights move by minus the learning rate times what was made of the gradient."""
    plain_descent = dataclasses.replace(task, recipe=Recipe(optimizer="sgd"))
    start = torch.nn.utils.parameters_to_vector(memorised.parameters()).detach()
    retain_loss = cross_entropy(memorised(task.retain.x), task.retain.y)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(retain_loss, list(memorised.parameters()))])
    clip = 0.5 * float(gradient.norm())

    def step(sigma: float) -> Tensor:
        noisy = method("noisy-fine-tune", epochs=1, sigma=sigma, clip=clip, learning_rate=0.1)
        moved = torch.nn.utils.parameters_to_vector(unlearned(noisy, memorised, plain_descent).parameters())
        return ((start - moved) / 0.1).detach()

    assert torch.allclose(step(0.0), 0.5 * gradient, rtol=1e-3, atol=1e-9)
    residual = step(0.05) - 0.5 * gradient
    # 4,675 draws: the relative standard error of a variance is sqrt(2 / n) = 2 %.
    assert float(residual.var()) == pytest.approx(0.05**2, rel=0.1)


def test_similar_labels_are_the_nearest_other_probability() -> None:
    probabilities = torch.tensor([[0.5, 0.4, 0.1], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    assert similar_labels(probabilities, torch.tensor([0, 2, 2])).tolist() == [1, 1, 0]


def test_similar_classes_tie_to_the_lowest_where_a_class_has_no_samples() -> None:
    logits = torch.tensor([[0.0, 5.0, 1.0, 0.9], [0.0, 1.0, 5.0, 0.8], [0.0, 1.0, 1.2, 5.0]])
    assert similar_classes(logits, torch.tensor([1, 2, 3]))[0] == 1


def test_q_mul_descends_towards_the_similar_label(memorised: nn.Module, task: Task) -> None:
    with torch.no_grad():
        similar = similar_labels(softmax(memorised(task.forget.x), 1), task.forget.y)
    assert not (similar == task.forget.y).any()
    towards = Dataset(task.forget.x, similar, ids=task.forget.ids)
    result = unlearned(method("q-mul", epochs=2, learning_rate=0.005), memorised, task)
    assert loss(result, towards) < loss(memorised, towards) - 0.1
    away = unlearned(method("q-mul", variant="crivoi", epochs=2, learning_rate=0.005), memorised, task)
    with torch.no_grad():
        of_class = similar_classes(memorised(task.retain.x), task.retain.y)[task.forget.y]
    opposed = Dataset(task.forget.x, of_class, ids=task.forget.ids)
    assert loss(away, opposed) > loss(memorised, opposed)


def test_q_mul_weights_each_set_by_the_other_s_gradients(memorised: nn.Module, task: Task) -> None:
    tong = QMul(batch_size=64)
    memo = tong.relabel(Net(memorised), tong.prepare(Net(memorised), task, torch.Generator()), Stream())

    def norm(x: Tensor, y: Tensor) -> float:
        gradients = torch.autograd.grad(cross_entropy(memorised(x), y), list(memorised.parameters()))
        return sum(float(g.norm()) for g in gradients)

    of_forget, of_retain = norm(task.forget.x, memo["labels"]), norm(task.retain.x, task.retain.y)
    assert float(memo["forget_weight"]) == pytest.approx(of_retain / (of_forget + of_retain))
    assert float(memo["retain_weight"]) == pytest.approx(of_forget / (of_forget + of_retain))


def test_lca_spreads_forget_samples_over_the_wrong_labels(memorised: nn.Module, task: Task) -> None:
    result = unlearned(method("lca", epochs=200, learning_rate=0.01), memorised, task)
    with torch.no_grad():
        outputs = softmax(result(task.forget.x), 1)
    wrong = torch.full_like(outputs, 0.5).scatter(1, task.forget.y[:, None], 0.0)
    assert float((outputs - wrong).abs().max()) < 0.1
    assert accuracy(result, task.retain) > 0.9


def test_adv_uniform_flattens_outputs_around_forget_samples(memorised: nn.Module, task: Task) -> None:
    result = unlearned(method("adv-uniform", epochs=200, learning_rate=0.01), memorised, task)
    with torch.no_grad():
        before, after = (float(divergence_from_uniform(m(task.forget.x))) for m in (memorised, result))
    assert after < 0.2 * before
    assert accuracy(result, task.retain) > 0.9


@pytest.mark.parametrize("start", ["uniform", "dirichlet", "masked"])
def test_adaprob_outputs_meet_their_targets(start: str, memorised: nn.Module, task: Task) -> None:
    adaprob = AdaProb(start_from=start, epochs=200, learning_rate=0.02, batch_size=64)  # type: ignore[arg-type]
    result = adaprob(memorised, task, seed=0)
    from qunlearn.training.seeds import Seeds

    targets = adaprob.prepare(Net(memorised), task, _stream(adaprob, Seeds))["targets"]
    with torch.no_grad():
        outputs = log_softmax(result.model(task.forget.x), 1)
    distance = (torch.xlogy(targets, targets) - targets * outputs).sum(1)
    assert float(distance.mean()) < 0.05, "nats"
    assert accuracy(result.model, task.retain) > 0.9


def _stream(adaprob: AdaProb, seeds: type) -> torch.Generator:
    """The generator that the base class hands to `prepare` for seed 0."""
    import json

    scope = f"adaprob {json.dumps(adaprob.hyperparameters(), sort_keys=True)}"
    return seeds(0, scope).generator("prepare")  # type: ignore[no-any-return]


def test_adaprob_gives_a_deleted_class_nothing() -> None:
    task = make_task(forget_class=1)
    memo = AdaProb(start_from="dirichlet").prepare(Net(plain_model()), task, torch.Generator().manual_seed(0))
    assert float(memo["targets"][:, 1].abs().max()) == 0.0
    assert torch.allclose(memo["targets"].sum(1), torch.ones(len(task.forget), dtype=torch.float64))


def test_the_sound_rule_keeps_accuracy_and_then_matches_the_loss() -> None:
    """The untouched model is always eligible; an epoch that costs more than 2 points never is."""

    def of(epoch: int, forget: float, matched: float, kept: float) -> Candidate:
        return Candidate(epoch, forget_loss=forget, matched_loss=matched, validation_accuracy_retained=kept)

    assert keep_forgotten([of(0, 0.1, 0.5, 0.9), of(1, 0.4, 0.5, 0.89), of(2, 0.5, 0.5, 0.85)]) == 1
    assert keep_forgotten([of(0, 0.1, 0.5, 0.9), of(1, 0.5, 0.5, 0.5)]) == 0

    def gone(epoch: int, forgotten: float, kept: float) -> Candidate:
        return Candidate(epoch, validation_accuracy_forgotten=forgotten, validation_accuracy_retained=kept)

    assert keep_forgotten([gone(0, 0.9, 0.9), gone(1, 0.0, 0.885), gone(2, 0.0, 0.9), gone(3, 0.0, 0.7)]) == 2


def test_none_returns_the_same_outputs(memorised: nn.Module, task: Task) -> None:
    result = unlearned(get("none"), memorised, task)
    assert torch.equal(result(task.forget.x), memorised(task.forget.x))


def test_blobs_are_learnable() -> None:
    x, y = blobs(0, 60)
    model = train(plain_model(), (x, y), epochs=100, learning_rate=0.05, progress=False)
    assert accuracy(model, Dataset(*blobs(9, 60))) > 0.6
