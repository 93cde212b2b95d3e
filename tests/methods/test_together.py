"""One contract for every gradient method: models unlearned at once come out as they do alone, in float64."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qunlearn.data import Dataset, ForgetRequest
from qunlearn.errors import InputError, NumericalError
from qunlearn.methods import FineTune, GradientMethod, Method, NoisyFineTune, Task, Unlearned, available, get
from qunlearn.methods.base import fingerprint
from qunlearn.methods.unlearn import unlearn, unlearn_all
from qunlearn.models import HybridClassifier
from qunlearn.models.stream import Stream
from qunlearn.quantum import load_circuit
from qunlearn.training import Recipe
from qunlearn.training.loop import DivergedError
from qunlearn.training.net import Net
from qunlearn.training.phases import Batch, Memo, Phase
from qunlearn.training.replicas import obstacle
from tests.methods.cases import REUPLOADING, blobs, hybrid_model, make_task, original_for, plain_model, task_for
from tests.training.cases import norm_model

SEEDS = (3, 0, 8)
TOLERANCE = 1e-6

SETTINGS: list[dict[str, Any]] = [
    *({"name": name} for name, cls in available().items() if issubclass(cls, GradientMethod)),
    *({"name": name, "variant": "crivoi"} for name in ("neggrad-plus", "cf-k", "eu-k", "scrub", "q-mul")),
    {"name": "scrub", "rewind": True},
    {"name": "lca", "replicate": True},
    {"name": "random-label", "schedule": "alternate"},
    {"name": "random-label", "exclude_true": False, "redraw": False},
    {"name": "adaprob", "start_from": "dirichlet", "weights": "entropy"},
    {"name": "adaprob", "start_from": "confusion"},
    {"name": "npo", "variant": "simnpo"},
    {"name": "boundary-shrink", "retain_weight": 1.0},
    {"name": "boundary-expand", "retain_weight": 1.0},
    {"name": "head-only", "retain": "teacher"},
    {"name": "state-erasure", "objective": "helstrom", "hold_weight": 0.5},
]


def words(settings: dict[str, Any]) -> str:
    return "-".join(str(value) for value in settings.values())


def deep_model(seed: int = 0, *, reupload: bool = False) -> HybridClassifier:
    """Batch norm and dropout behind a small circuit."""
    return hybrid(seed, reupload=reupload, head="deep")


def hybrid(seed: int, *, reupload: bool = False, **settings: Any) -> HybridClassifier:
    qubits = 2 if "encoder" in settings else 4
    circuit = load_circuit("ring-cz", qubits=qubits, depth=2 if reupload else 1, reupload=reupload)
    return HybridClassifier(circuit, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), **settings)


def with_pca(seed: int) -> HybridClassifier:
    """Principal components of each model's own sample of data."""
    return hybrid(seed, encoder="pca", inputs=4).fit(blobs(seed, 30)[0])


def frozen(seed: int) -> HybridClassifier:
    return hybrid(seed, control="frozen")


def twin(seed: int) -> HybridClassifier:
    return hybrid(seed, control="twin")


def quick(settings: dict[str, Any], **extra: Any) -> Method:
    return get({"epochs": 3, "batch_size": 8, "learning_rate": 0.02, **settings, **extra})


def decaying(task: Task) -> Task:
    """The task with weight decay, without which some parameters follow rounding errors alone.

    SCRUB's gradient is zero at the original weights, that of a bias before batch norm everywhere; Adam divides what is
    left by its own size.
    """
    return dataclasses.replace(task, recipe=Recipe(weight_decay=0.1))


def both(
    method: Method, models: Sequence[nn.Module], task: Task, seeds: Sequence[int] = SEEDS
) -> tuple[list[Unlearned | NumericalError], list[Unlearned | NumericalError]]:
    """What comes out together, and one by one."""
    alone: list[Unlearned | NumericalError] = []
    for model, seed in zip(models, seeds, strict=True):
        try:
            alone.append(method(model, task, seed=seed))
        except NumericalError as error:
            alone.append(error)
    return method.together(models, task, seeds=seeds), alone


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=TOLERANCE, rtol=0)


def assert_same(found: Unlearned | NumericalError, wanted: Unlearned | NumericalError) -> None:
    """The same model within 1e-6, and the same record but for time and rounding."""
    assert isinstance(found, Unlearned)
    assert isinstance(wanted, Unlearned)
    for name, value in wanted.model.state_dict().items():
        assert close(found.model.state_dict()[name], value), name
    assert not found.model.training
    a, b = found.record.to_dict(), wanted.record.to_dict()
    for key in ("candidates", "history"):
        for row, other in zip(a.pop(key), b.pop(key), strict=True):
            assert row == pytest.approx(other, abs=TOLERANCE)
    assert a.pop("seconds") > 0
    del b["seconds"]
    assert a == b


def compare(settings: dict[str, Any], make: Callable[[int], nn.Module], task: Task, **extra: Any) -> None:
    method = quick(settings, **extra)
    originals = [original_for(method, make(seed), task) for seed in SEEDS]
    models, task = [model for model, _ in originals], originals[0][1]
    assert obstacle(models[0]) is None
    before = [fingerprint(model) for model in models]
    together, alone = both(method, models, task)
    assert [fingerprint(model) for model in models] == before
    for found, wanted in zip(together, alone, strict=True):
        assert_same(found, wanted)


@pytest.mark.parametrize("make", [hybrid_model, deep_model], ids=["shallow", "deep"])
@pytest.mark.parametrize("settings", SETTINGS, ids=words)
def test_every_gradient_method_gives_the_same_together_and_alone(
    settings: dict[str, Any], make: Callable[..., nn.Module]
) -> None:
    task = task_for(settings["name"])
    task = task if "rewind" in settings else dataclasses.replace(task, validation=None)
    if settings["name"] in REUPLOADING:
        make = functools.partial(make, reupload=True)
    compare(settings, make, decaying(task))


@pytest.mark.parametrize("make", [with_pca, frozen, twin, plain_model], ids=["pca", "frozen", "twin", "sequential"])
@pytest.mark.parametrize("name", ["scrub", "eu-k", "q-mul", "adv-uniform"])
def test_encoders_and_controls(name: str, make: Callable[[int], nn.Module]) -> None:
    compare({"name": name}, make, make_task())


@pytest.mark.parametrize("forget_class", [None, 0])
@pytest.mark.parametrize("patience", [1, 2])
@pytest.mark.parametrize("name", ["gradient-ascent", "fine-tune", "scrub", "random-label"])
def test_each_model_keeps_its_own_epoch_and_loses_patience_by_itself(
    name: str, patience: int, forget_class: int | None
) -> None:
    models = [hybrid_model(seed) for seed in range(6)]
    method = quick({"name": name, "epochs": 7, "patience": patience})
    together, alone = both(method, models, decaying(make_task(forget_class=forget_class)), range(6))
    for found, wanted in zip(together, alone, strict=True):
        assert_same(found, wanted)
    if name == "fine-tune" and forget_class is None and patience == 2:
        lengths = {len(one.record.history) for one in together if isinstance(one, Unlearned)}
        assert len(lengths) > 2, "the case must have models that stop at different epochs"


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_optimizers_keep_their_state_when_a_model_leaves(optimizer: str, weight_decay: float) -> None:
    recipe = Recipe(optimizer=optimizer, weight_decay=weight_decay)
    task = dataclasses.replace(make_task(), recipe=recipe)
    models = [hybrid_model(seed) for seed in range(5)]
    for found, wanted in zip(
        *both(quick({"name": "fine-tune", "epochs": 8, "patience": 1}), models, task, range(5)), strict=True
    ):
        assert_same(found, wanted)


def test_a_forget_set_of_one_sample_and_a_batch_of_one() -> None:
    task = make_task(forget=1, retain=17)  # batches of 8: the last retain sample stands alone
    for name in ("neggrad-plus", "random-label", "scrub"):
        compare({"name": name}, hybrid_model, task)


def test_batch_norm_refuses_a_forget_set_of_one_sample_for_all() -> None:
    with pytest.raises(InputError, match="batches of at least 2 samples"):
        quick({"name": "scrub"}).together([deep_model(0), deep_model(1)], make_task(forget=1), seeds=(0, 1))


@pytest.mark.parametrize("name", ["fine-tune", "scrub", "q-mul", "noisy-fine-tune"])
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_one_that_diverges_harms_no_other(name: str, bad: int) -> None:
    """One model's logits are so large that its first gradients leave the range of the numbers."""
    models: list[nn.Module] = [plain_model(seed) for seed in range(3)]
    with torch.no_grad():
        models[bad].get_parameter("2.weight").fill_(1e308)
    together, alone = both(quick({"name": name}), models, dataclasses.replace(make_task(), validation=None))
    for number, (found, wanted) in enumerate(zip(together, alone, strict=True)):
        if number == bad:
            assert isinstance(found, DivergedError)
            assert isinstance(wanted, DivergedError)
            assert str(found) == str(wanted)
            assert all(torch.equal(found.last_good[n], t) for n, t in wanted.last_good.items())
        else:
            assert_same(found, wanted)


def test_all_may_diverge() -> None:
    models = [plain_model(seed) for seed in SEEDS]
    found = quick({"name": "fine-tune"}, learning_rate=1e308).together(models, make_task(), seeds=SEEDS)
    assert all(isinstance(one, DivergedError) for one in found)


@pytest.mark.parametrize("name", ["scrub", "noisy-fine-tune", "random-label"])
def test_the_same_group_gives_the_same_bytes(name: str) -> None:
    models = [deep_model(seed) for seed in range(4)]
    groups = [quick({"name": name}).together(models, make_task(), seeds=range(4)) for _ in range(2)]
    first, second = ([fingerprint(one.model) for one in group if isinstance(one, Unlearned)] for group in groups)
    assert len(first) == 4
    assert first == second


def test_what_is_not_known_to_be_faster_goes_one_by_one_and_the_record_says_so() -> None:
    models = [norm_model(dropout=0.5, seed=seed) for seed in SEEDS]
    together, alone = both(quick({"name": "fine-tune"}), models, make_task())
    for found, wanted in zip(together, alone, strict=True):
        assert isinstance(found, Unlearned)
        assert isinstance(wanted, Unlearned)
        assert fingerprint(found.model) == fingerprint(wanted.model)
        (note,) = found.record.notes
        assert "one by one: nn.Dropout in 3 draws from torch's global generator" in note


@pytest.mark.parametrize("name", ["none", "retrain"])
def test_methods_without_gradients_go_one_by_one(name: str) -> None:
    models = [hybrid_model(seed) for seed in SEEDS]
    for found, wanted in zip(*both(get(name), models, make_task()), strict=True):
        assert isinstance(found, Unlearned)
        assert isinstance(wanted, Unlearned)
        assert fingerprint(found.model) == fingerprint(wanted.model)


def line(seed: int) -> HybridClassifier:
    """As many weights of the same shapes as `hybrid_model`, and another circuit."""
    circuit = load_circuit("ring-cz", qubits=4, depth=2, entanglement="linear")
    return HybridClassifier(circuit, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("other", [plain_model, frozen, twin, line, deep_model])
def test_models_of_two_architectures_are_refused(other: Callable[[int], nn.Module]) -> None:
    with pytest.raises(InputError, match="expected models of one architecture, got another in place 1"):
        FineTune().together([hybrid_model(), other(0)], make_task(), seeds=(0, 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jitter(GradientMethod):
    """Draws in its loss, and hands models different numbers that are no tensors."""

    name: ClassVar[str] = "jitter"
    plain: bool = dataclasses.field(
        default=False,
        metadata={
            "doc": "",
            "low": None,
            "high": None,
            "choices": (),
            "optional": False,
            "search": (),
            "of_recipe": False,
        },
    )

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        size = net.parameters["0.weight"].abs().sum()
        return {"size": float(size) if self.plain else size}

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        return [Phase("retain", self.loss, self.epochs)]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        logits = net(batch.retain.x)
        return cross_entropy(logits + stream.normal(logits) / memo["size"], batch.retain.y)


def test_a_loss_draws_from_each_model_s_own_stream() -> None:
    models = [plain_model(seed) for seed in SEEDS]
    for found, wanted in zip(*both(Jitter(epochs=2), models, make_task()), strict=True):
        assert_same(found, wanted)


def test_prepared_numbers_that_differ_are_refused() -> None:
    with pytest.raises(InputError, match="expected the memo's entry 'size' to be the same for all models"):
        Jitter(epochs=2, plain=True).together([plain_model(0), plain_model(1)], make_task(), seeds=(0, 1))


def test_noise_is_each_model_s_own() -> None:
    """The same model twice under two seeds: only noise and order tell them apart."""
    task = dataclasses.replace(make_task(), validation=None)
    method = NoisyFineTune(epochs=1, batch_size=64, sigma=0.5)
    one, other = method.together([plain_model(), plain_model()], task, seeds=(0, 1))
    assert isinstance(one, Unlearned)
    assert isinstance(other, Unlearned)
    assert fingerprint(one.model) != fingerprint(other.model)


def test_unlearn_all_is_unlearn_for_every_model() -> None:
    split = Dataset(*blobs(0, 90)).split(ForgetRequest.of_fraction(0.1), seed=0)
    models = [plain_model(seed) for seed in SEEDS]
    for model in models:
        model.recipe = Recipe(batch_size=16)  # type: ignore[assignment]
    method = {"name": "scrub", "epochs": 2}
    for model, seed, found in zip(models, SEEDS, unlearn_all(models, split, method=method, seeds=SEEDS), strict=True):
        assert_same(found, unlearn(model, split, method=method, seed=seed, progress=False))
    with pytest.raises(InputError, match="expected at least one model and a seed for each, got 3 and 1 seeds"):
        unlearn_all(models, split, method=method, seeds=(0,))
    with pytest.raises(InputError, match="got 0 and 0 seeds"):
        FineTune().together([], make_task(), seeds=())
