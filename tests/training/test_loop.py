"""The one loop against training loops written out by hand, in float64."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.data import Dataset
from qunlearn.models.stream import Stream
from qunlearn.training import Recipe
from qunlearn.training.loop import DivergedError, Outcome, no_samples, run_phases, samples_of
from qunlearn.training.net import Net, Tensors
from qunlearn.training.phases import Batch, Memo, Phase, positions
from qunlearn.training.seeds import Seeds
from qunlearn.training.selection import Candidate, Rule, Watch, keep_last, keep_loss
from qunlearn.training.train import supervised
from tests.methods.cases import blobs, plain_model
from tests.training.cases import norm_model

DATA = Dataset(*blobs(0, 33))
VALIDATION = Dataset(*blobs(1, 12), ids=torch.arange(100, 112))
SEEDS = Seeds(3, "test")


def run(model: nn.Module, phases: Sequence[Phase], recipe: Recipe, **settings: Any) -> Outcome:
    retain = samples_of(DATA)
    settings = {"forget": no_samples(retain), "watch": Watch(), "rule": keep_last, **settings}
    (found,) = run_phases([Net(model)], phases, retain=retain, recipe=recipe, seeds=[SEEDS], **settings)
    if isinstance(found, DivergedError):
        raise found
    return found


def by_hand(model: nn.Module, recipe: Recipe, epochs: int) -> tuple[nn.Module, list[float], list[dict[str, Tensor]]]:
    """Plain torch: an optimizer, zero_grad, backward, step. Batches of 16 of 33 samples: the last joins the second."""
    model, order = copy.deepcopy(model).train(), SEEDS.generator("order")
    adam = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    sgd = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, momentum=0.9, weight_decay=recipe.weight_decay)
    optimizer = adam if recipe.optimizer == "adam" else sgd
    means, states = [], []
    with torch.random.fork_rng():
        torch.manual_seed(SEEDS.integer("dropout"))
        for _ in range(epochs):
            shuffled, losses = torch.randperm(33, generator=order), []
            for part in (shuffled[:16], shuffled[16:]):
                optimizer.zero_grad()
                loss = cross_entropy(model(DATA.x[part]), DATA.y[part])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(float(loss.detach()))
            means.append(sum(losses) / len(losses))
            states.append(copy.deepcopy(model.state_dict()))
    return model, means, states


RECIPE = Recipe(learning_rate=0.02, batch_size=16)
# The bias before batch norm has no gradient but rounding errors, and Adam divides these by 1e-8.
CLOSE = 1e-10


@pytest.mark.parametrize(
    "changes",
    [{}, {"weight_decay": 0.1}, {"optimizer": "sgd"}, {"optimizer": "sgd", "weight_decay": 0.1}],
    ids=["adam", "adam-decay", "sgd", "sgd-decay"],
)
def test_the_loop_equals_a_loop_by_hand_with_batch_norm_and_dropout(changes: dict[str, Any]) -> None:
    model, recipe = norm_model(dropout=0.4), dataclasses.replace(RECIPE, **changes)
    out = run(model, [Phase("retain", supervised, 4)], recipe)
    wanted, means, _ = by_hand(model, recipe, 4)
    for name, value in wanted.state_dict().items():
        assert torch.allclose(out.net.state()[name], value, atol=CLOSE, rtol=0), name
    assert [row["loss"] for row in out.history] == pytest.approx(means, abs=1e-12)
    assert [row["epoch"] for row in out.history] == [1, 2, 3, 4]
    assert out.net.counts.epochs == 4
    assert out.net.counts.gradient_evaluations == 4 * 33


def chosen_by(number: int) -> Rule:
    """Keeps one epoch, whatever was measured."""
    return lambda candidates: min(number, len(candidates) - 1)


@pytest.mark.parametrize("number", [0, 1, 3, 4])
def test_what_comes_back_is_the_chosen_epoch_running_statistics_included(number: int) -> None:
    model = norm_model(dropout=0.4)
    out = run(model, [Phase("retain", supervised, 4)], RECIPE, rule=chosen_by(number), watch=Watch(None, VALIDATION))
    states = [model.state_dict(), *by_hand(model, RECIPE, 4)[2]]
    assert out.chosen == number
    assert [c.epoch for c in out.candidates] == [0, 1, 2, 3, 4]
    for name, value in states[number].items():
        assert torch.allclose(out.net.state()[name], value, atol=CLOSE, rtol=0), name
    with torch.no_grad():
        measured = float(cross_entropy(out.net.logits(VALIDATION.x), VALIDATION.y))
    assert out.candidates[number].validation_loss == pytest.approx(measured, abs=1e-12)
    assert not any(p.requires_grad for p in out.net.parameters.values())
    assert not out.net.module.training


@pytest.mark.parametrize(("patience", "wanted"), [(None, 8), (1, 3), (2, 4), (3, 8)])
def test_patience_counts_epochs_since_the_kept_one(patience: int | None, wanted: int) -> None:
    """Validation losses are dictated: best so far at epochs 1, 2 and, after two worse ones, 5 to 8."""
    dictated = [0.0, 5.0, 4.0, 6.0, 6.0, 3.0, 2.0, 1.0, 0.5]

    class Dictated(Watch):
        def measure(self, logits: Tensor | None, models: int, epoch: int) -> list[Candidate]:
            return [Candidate(epoch, validation_loss=dictated[epoch])]

    recipe = dataclasses.replace(RECIPE, patience=patience)
    out = run(plain_model(), [Phase("retain", supervised, 8)], recipe, watch=Dictated(), rule=keep_loss)
    assert len(out.history) == wanted
    assert out.chosen == (2 if wanted < 8 else 8)


def frozen(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_phases_in_turn_share_an_optimizer_only_where_they_move_the_same() -> None:
    """Two neighbouring phases of one epoch are as one of two; a phase of other parameters starts Adam afresh."""
    model = plain_model()
    joined = run(model, [Phase("retain", supervised, 2)], RECIPE).net.state()
    halves = run(model, [Phase("retain", supervised), Phase("retain", supervised)], RECIPE).net.state()
    assert all(torch.equal(joined[name], halves[name]) for name in joined)

    last, first = frozen("2.weight", "2.bias"), frozen("0.weight")
    phases = [Phase("retain", supervised, 1, names) for names in (last, first, last)]
    found = run(model, phases, RECIPE).net.state()
    wanted, order = copy.deepcopy(model), SEEDS.generator("order")
    for names in (last, first, last):
        optimizer = torch.optim.Adam([wanted.get_parameter(n) for n in sorted(names)], lr=0.02)
        for part in torch.split(torch.randperm(33, generator=order), 16):
            optimizer.zero_grad()
            cross_entropy(wanted(DATA.x[part]), DATA.y[part]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    for name, value in wanted.state_dict().items():
        assert torch.allclose(found[name], value, atol=CLOSE, rtol=0), name
    assert torch.equal(found["0.bias"], model.get_parameter("0.bias"))


def test_a_phase_of_another_rate_starts_a_fresh_optimizer_at_that_rate() -> None:
    model = plain_model()
    found = run(model, [Phase("retain", supervised), Phase("retain", supervised, rate=0.25)], RECIPE).net.state()
    wanted, order = copy.deepcopy(model), SEEDS.generator("order")
    for rate in (0.02, 0.005):
        optimizer = torch.optim.Adam(wanted.parameters(), lr=rate)
        for part in torch.split(torch.randperm(33, generator=order), 16):
            optimizer.zero_grad()
            cross_entropy(wanted(DATA.x[part]), DATA.y[part]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    for name, value in wanted.state_dict().items():
        assert torch.allclose(found[name], value, atol=CLOSE, rtol=0), name


def test_parameters_that_require_no_gradient_never_move() -> None:
    model = plain_model()
    model[0].requires_grad_(False)
    out = run(model, [Phase("retain", supervised, 2, weight) for weight in (None, frozen("0.weight"))], RECIPE)
    state = out.net.state()
    assert torch.equal(state["0.weight"], model.get_parameter("0.weight"))
    assert torch.equal(state["0.bias"], model.get_parameter("0.bias"))
    assert not torch.equal(state["2.bias"], model.get_parameter("2.bias"))


def test_a_transform_changes_the_gradients_and_a_refresh_renews_the_memo() -> None:
    seen: list[int] = []

    def count(net: Net, memo: Memo, stream: Stream) -> Memo:
        assert not torch.is_grad_enabled()
        return {**memo, "number": memo["number"] + 1}

    def loss(net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        seen.append(memo["number"])
        return supervised(net, batch, memo, stream)

    def only_bias(gradients: Tensors, memo: Memo, stream: Stream) -> Tensors:
        return {name: torch.ones_like(g) if name == "2.bias" else torch.zeros_like(g) for name, g in gradients.items()}

    recipe, memo = Recipe(optimizer="sgd", learning_rate=0.5, batch_size=33), {"number": 10}
    out = run(plain_model(), [Phase("retain", loss, 1, transform=only_bias, refresh=count)] * 2, recipe, memos=[memo])
    moved = plain_model().get_parameter("2.bias").detach() - out.net.state()["2.bias"]
    assert torch.allclose(moved, torch.full((3,), 0.5 + 0.5 * 1.9, dtype=torch.float64)), "two steps, momentum 0.9"
    assert torch.equal(out.net.state()["0.weight"], plain_model().get_parameter("0.weight"))
    assert seen == [11, 12]
    assert memo == {"number": 10}, "the caller's memo stays as it is"


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("replicas", [1, 3])
def test_a_projection_has_the_last_word_on_every_step(optimizer: str, replicas: int) -> None:
    """Every other entry held, all others kept within a bound: a loop by hand does the same, momentum and all."""
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, weight_decay=0.1)
    models = [plain_model(seed) for seed in range(replicas)]

    def project(parameters: Tensors, memo: Memo, stream: Stream) -> Tensors:
        assert not torch.is_grad_enabled()
        return {
            name: torch.where(memo["held"][name], memo["origin"][name], p.clamp(-0.3, 0.3))
            for name, p in parameters.items()
        }

    def memo_of(model: nn.Module) -> Memo:
        origin = {name: p.detach().clone() for name, p in model.named_parameters()}
        held = {name: (torch.arange(p.numel()) % 2 == 0).reshape(p.shape) for name, p in origin.items()}
        return {"held": held, "origin": origin}

    retain = samples_of(DATA)
    found = run_phases(
        [Net(model) for model in models], [Phase("retain", supervised, 3, project=project)], retain=retain,
        forget=no_samples(retain), watch=Watch(), rule=keep_last, recipe=recipe, seeds=[SEEDS] * replicas,
        memos=[memo_of(model) for model in models],
    )  # fmt: skip
    for model, out in zip(models, found, strict=True):
        wanted, order = copy.deepcopy(model), SEEDS.generator("order")
        memo, leaves = memo_of(model), dict(wanted.named_parameters())
        kind = torch.optim.Adam if optimizer == "adam" else lambda p, **kw: torch.optim.SGD(p, momentum=0.9, **kw)
        stepper = kind(wanted.parameters(), lr=0.02, weight_decay=0.1)
        for part in [p for _ in range(3) for p in torch.split(torch.randperm(33, generator=order), 16)]:
            stepper.zero_grad()
            cross_entropy(wanted(DATA.x[part]), DATA.y[part]).backward()  # type: ignore[no-untyped-call]
            stepper.step()
            with torch.no_grad():
                for name, p in leaves.items():
                    p.copy_(torch.where(memo["held"][name], memo["origin"][name], p.clamp(-0.3, 0.3)))
        assert isinstance(out, Outcome)
        for name, value in out.net.state().items():
            assert torch.allclose(value, leaves[name], atol=CLOSE, rtol=0), name
            assert torch.equal(value[memo["held"][name]], memo["origin"][name][memo["held"][name]])
            assert not torch.equal(value, memo["origin"][name])


def test_epochs_that_are_no_candidates_are_run_and_not_measured() -> None:
    phases = [Phase("retain", supervised, candidate=False), Phase("retain", supervised)] * 2
    out = run(plain_model(), phases, RECIPE)
    assert [c.epoch for c in out.candidates] == [0, 2, 4]
    assert len(out.history) == 4


def test_the_untouched_net_is_candidate_0_and_the_first_epoch_begins_at_start() -> None:
    model, other = plain_model(0), plain_model(5)
    watch = Watch(None, VALIDATION)
    out = run(model, [Phase("retain", supervised, 2)], RECIPE, starts=[Net(other).state()], watch=watch)
    alone = run(other, [Phase("retain", supervised, 2)], RECIPE, watch=watch)
    assert all(torch.equal(t, alone.net.state()[name]) for name, t in out.net.state().items())
    assert out.candidates[1:] == alone.candidates[1:]
    with torch.no_grad():
        assert out.candidates[0].validation_loss == pytest.approx(
            float(cross_entropy(model(VALIDATION.x), VALIDATION.y))
        )
    back = run(model, [Phase("retain", supervised, 2)], RECIPE, starts=[Net(other).state()], rule=chosen_by(0))
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in back.net.state().items())


@pytest.mark.parametrize("rule", [keep_last, chosen_by(1)])
def test_divergence_holds_the_state_of_the_last_finite_epoch(rule: Rule) -> None:
    def breaks(net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        return supervised(net, batch, memo, stream) * torch.nan

    model = norm_model(dropout=0.4)
    with pytest.raises(DivergedError, match="got a loss of nan in epoch 4; lower learning_rate") as caught:
        run(model, [Phase("retain", supervised, 3), Phase("retain", breaks)], RECIPE, rule=rule)
    wanted = by_hand(model, RECIPE, 3)[2][-1]
    assert set(caught.value.last_good) == set(wanted)
    for name, value in wanted.items():
        assert torch.allclose(caught.value.last_good[name], value, atol=CLOSE, rtol=0), name


def test_infinite_parameters_are_a_divergence_even_where_the_loss_is_finite() -> None:
    def burst(gradients: Tensors, memo: Memo, stream: Stream) -> Tensors:
        return {name: torch.full_like(g, torch.inf) for name, g in gradients.items()}

    model = plain_model()
    with pytest.raises(DivergedError) as caught:
        run(model, [Phase("retain", supervised, transform=burst)], dataclasses.replace(RECIPE, batch_size=64))
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in caught.value.last_good.items())


def test_copies_of_forget_samples_reach_the_loss() -> None:
    seen: list[int] = []

    def loss(net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        seen.extend(batch.forget.position.tolist())
        return cross_entropy(net(batch.forget.x), batch.forget.y)

    forget = samples_of(Dataset(*blobs(2, 5)))
    run(plain_model(), [Phase("forget", loss, forget_copies=3)], RECIPE, forget=forget)
    assert sorted(seen) == list(range(15))


def test_the_loop_takes_the_batches_that_the_order_stream_gives() -> None:
    seen: list[list[int]] = []

    def loss(net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        seen.append(batch.retain.position.tolist())
        return supervised(net, batch, memo, stream)

    run(plain_model(), [Phase("retain", loss, 2)], RECIPE)
    order = SEEDS.generator("order")
    wanted = [batch["retain"].tolist() for _ in range(2) for batch in positions("retain", 0, 33, 16, order)]
    assert seen == wanted
    assert [len(part) for part in seen] == [16, 16, 1] * 2, "without batch norm a single sample may stand alone"


def test_global_random_state_and_progress() -> None:
    before, reports = torch.random.get_rng_state(), []
    run(
        norm_model(dropout=0.5),
        [Phase("retain", supervised, 3)],
        RECIPE,
        progress=lambda done, total, known: reports.append((done, total, known[:4])),
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert reports == [(1, 3, "loss"), (2, 3, "loss"), (3, 3, "loss")]
