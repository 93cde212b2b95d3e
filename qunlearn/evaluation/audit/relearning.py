"""How soon does a model know again what it was to forget?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qunlearn.data import Dataset
from qunlearn.evaluation.audit.bench import Bench, Case
from qunlearn.evaluation.audit.drill import Drill, together, train_rows
from qunlearn.evaluation.audit.finding import Figure, absent
from qunlearn.evaluation.audit.intervals import mean_bounds
from qunlearn.evaluation.audit.subject import Subject
from qunlearn.metrics import Bounds
from qunlearn.metrics.folds import deal
from qunlearn.training.seeds import Seeds

Floats = npt.NDArray[np.float64]
SHARE = 0.95  # of the original's forget accuracy
CAP = 150  # steps
BATCH = 32
RATES = {"": 0.01, "_slow": 0.003}  # of Adam
GRID = (0.003, 0.01, 0.03)  # learning rates that the attacker with few samples chooses from
SHOTS = (1, 5, 10)
FEW_STEPS = 20
FEW_BATCH = 10  # forget samples of a batch, and retain samples
ORDERS, ALONE = 5, 3  # runs of each kind; of models that can't be trained together


@dataclass(frozen=True, eq=False)
class Relearned:
    """What relearning found of a model.

    Attributes:
        steps: by rate, of each order ``(orders,)``; infinite where the cap came first.
        few: by number of samples, the balanced accuracy of each draw ``(draws,)``.
    """

    steps: dict[str, Floats]
    few: dict[int, Floats]


def relearning(case: Case) -> Iterator[Figure]:
    """How many steps and samples until the forget accuracy is back, and how far do few forget samples go?

    ``relearn_steps`` counts steps of Adam (rate 0.01; ``_slow``: 0.003) in batches of 32 of the whole training set
    until the accuracy on the forget set is 95 % of the original's, at most 150, averaged over orders that are the same
    for all models; ``relearn_samples`` the training samples seen. ``relearn_few_<k>``: 20 steps on k samples of one
    half of the forget set, each batch with as many retain samples, at the rate of a grid that does best on the rest of
    that half; the mean of the accuracies on the other half and on the test set (retained classes), so that naming one
    class always gains nothing.

    Fooled by: a head that is merely masked or reset, which may relearn slowly although the circuit forgot nothing, and
    targets far from the old answers, which relearn fast: never read it without the probes. A random subset is known
    to retrained models as well (0 steps).

    Source: Chundawat et al. 2023, arXiv 2201.05629 (anamnesis index: the ratio to the retrained models' steps).
    """
    found = _relearned(case.subject, case.bench, case.seeds)
    if isinstance(found, str):
        yield from (absent(f"relearn_{kind}{rate}", found, kind) for rate in RATES for kind in ("steps", "samples"))
        yield from (absent(f"relearn_few_{shots}", found) for shots in SHOTS)
        return
    for rate, steps in found.steps.items():
        yield from _counts(rate, steps)
    for shots in SHOTS:
        name = f"relearn_few_{shots}"
        if shots in found.few:
            draws = found.few[shots]
            yield Figure(name, mean_bounds(draws, 0.0, 1.0), len(draws))
        else:
            yield absent(name, f"half of the forget set holds no {shots} samples beside one to choose the rate by")


def prepare(subjects: Sequence[Subject], bench: Bench, seeds: Seeds) -> None:
    """Lets models relearn at once that have not yet done so with these seeds."""
    waiting = [one for one in subjects if ("relearned", seeds) not in one.found]
    if bench.original is None or not waiting or not all(one.trainable for one in waiting):
        return
    runs = ORDERS if together([bench.original]) else ALONE
    groups = [waiting] if together(waiting) else [[one] for one in waiting]
    for group in groups:
        steps = _steps(group, bench, seeds, runs)
        few = _few(group, bench, seeds, runs)
        for one, own_steps, own_few in zip(group, steps, few, strict=True):
            one.found["relearned", seeds] = Relearned(own_steps, own_few)


def _relearned(subject: Subject, bench: Bench, seeds: Seeds) -> Relearned | str:
    if bench.original is None:
        return "no original model was given, whose accuracy is to be reached again"
    if not subject.trainable:
        return "the model has no parameters that training moves"
    prepare([subject], bench, seeds)
    found: Relearned = subject.found["relearned", seeds]
    return found


def _counts(rate: str, steps: Floats) -> Iterator[Figure]:
    missed = int(np.isinf(steps).sum())
    late = f"; {missed} of {len(steps)} runs did not get there and count as {CAP}" if missed else ""
    reason = f"at most {CAP} steps are tried{late}"
    bounds = mean_bounds(np.minimum(steps, CAP), 0.0, CAP)
    yield Figure(f"relearn_steps{rate}", bounds, len(steps), "steps", reason)
    yield Figure(f"relearn_samples{rate}", Bounds(*(bound * BATCH for bound in bounds)), len(steps), "samples", reason)


def _steps(subjects: Sequence[Subject], bench: Bench, seeds: Seeds, runs: int) -> list[dict[str, Floats]]:
    """By model and rate, the steps of each order until the accuracy is back."""
    data, original = bench.split.train, bench.original
    assert original is not None
    target = SHARE * _accuracy(torch.from_numpy(original.outputs.logits["forget"]), bench.sets["forget"].y)
    orders = [_order(len(data), seeds.generator(f"order {number}")) for number in range(runs)]
    rates = torch.tensor([rate for rate in RATES.values() for _ in range(runs)])
    drill = Drill(data, torch.stack(orders * len(RATES), dim=1), rates)
    found = np.full(len(subjects) * len(rates), np.inf)
    x, y = subjects[0].inputs(bench.sets["forget"].x), bench.sets["forget"].y

    def see(step: int, rows: slice, logits: Callable[[Tensor], Tensor]) -> bool:
        back = _accuracies(logits(x), y) >= target
        found[rows] = np.where(back & np.isinf(found[rows]), step, found[rows])
        return bool(np.isfinite(found[rows]).all())

    train_rows(subjects, drill, see)
    rows = found.reshape(len(subjects), len(RATES), runs)
    return [dict(zip(RATES, own, strict=True)) for own in rows]


def _few(subjects: Sequence[Subject], bench: Bench, seeds: Seeds, draws: int) -> list[dict[int, Floats]]:
    """By model and number of samples, the balanced accuracy that the attacker gets in each draw."""
    taken, away = _halves(bench, seeds)
    shots = [k for k in SHOTS if k < len(taken)]
    if not shots or not len(away):
        return [{} for _ in subjects]
    chosen = [taken[torch.randperm(len(taken), generator=seeds.generator(f"few {draw}"))] for draw in range(draws)]
    runs = [(k, rate, order) for k in shots for rate in GRID for order in chosen]
    drill = Drill(bench.split.train, _few_positions(bench, runs, seeds), torch.tensor([rate for _, rate, _ in runs]))
    scores = np.empty((len(subjects) * len(runs), 2))
    forget, kept, known = bench.split.forget, *_retained(bench)
    x = subjects[0].inputs

    def see(step: int, rows: slice, logits: Callable[[Tensor], Tensor]) -> bool:
        if step == FEW_STEPS:
            on_forget, on_kept, on_known = (logits(x(data.x)) for data in (forget, kept, known))
            for place, row in enumerate(range(rows.start, rows.stop)):
                k, _, order = runs[row % len(runs)]
                rest, other = order[k:], away
                choice = [_accuracy(on_forget[place][rest], forget.y[rest]), _accuracy(on_known[place], known.y)]
                value = [_accuracy(on_forget[place][other], forget.y[other]), _accuracy(on_kept[place], kept.y)]
                scores[row] = np.mean(choice), np.mean(value)
        return step == FEW_STEPS

    train_rows(subjects, drill, see)
    table = scores.reshape(len(subjects), len(shots), len(GRID), draws, 2)
    best = table[..., 0].argmax(axis=2)  # the rate of each draw, by what the attacker sees
    values = np.take_along_axis(table[..., 1], best[:, :, None], axis=2)[:, :, 0]
    return [dict(zip(shots, own, strict=True)) for own in values]


def _few_positions(bench: Bench, runs: list[tuple[int, float, Tensor]], seeds: Seeds) -> Tensor:
    """Positions in the train set of every batch ``(steps, runs, batch)``: a run's few samples again and again."""
    place = {number: row for row, number in enumerate(bench.split.train.ids.tolist())}
    forget, retain = (
        torch.tensor([place[number] for number in data.ids.tolist()])
        for data in (bench.split.forget, bench.split.retain)
    )
    drawn = torch.randint(len(retain), (FEW_STEPS, 1, FEW_BATCH), generator=seeds.generator("few retain"))
    few = torch.stack([forget[order[:k].repeat(FEW_BATCH)[:FEW_BATCH]] for k, _, order in runs])
    return torch.cat([few.expand(FEW_STEPS, -1, -1), retain[drawn].expand(-1, len(runs), -1)], dim=2)


def _halves(bench: Bench, seeds: Seeds) -> tuple[Tensor, Tensor]:
    """Positions in the forget set of the attacker's half, and of the other."""
    random = np.random.default_rng(seeds.integer("halves"))
    fold = torch.from_numpy(deal(bench.split.forget.y.cpu().numpy(), 2, random))
    return (fold == 0).nonzero().flatten(), (fold == 1).nonzero().flatten()


def _retained(bench: Bench) -> tuple[Dataset, Dataset]:
    """Test samples of the retained classes, and as many retain samples, by which the attacker chooses."""
    test, retain = bench.sets["test"], bench.sets["retain"]
    if bench.forget_class is not None:
        test = test.select(test.y != bench.forget_class)
    chosen = np.linspace(0, len(retain) - 1, min(len(retain), max(len(test), 1))).round().astype(np.int64)
    return test, retain.select(torch.from_numpy(chosen))


def _order(length: int, generator: torch.Generator) -> Tensor:
    """Positions of the batches of a training ``(steps, batch)``, epoch after epoch, no short batches."""
    size = min(BATCH, length)
    epochs = -(-CAP // (length // size))
    parts = [torch.randperm(length, generator=generator)[: length // size * size] for _ in range(epochs)]
    return torch.cat(parts).reshape(-1, size)[:CAP]


def _accuracies(logits: Tensor, y: Tensor) -> Floats:
    found: Floats = (logits.argmax(-1) == y.to(logits.device)).double().mean(-1).cpu().numpy()
    return found


def _accuracy(logits: Tensor, y: Tensor) -> float:
    return float(_accuracies(logits, y))
