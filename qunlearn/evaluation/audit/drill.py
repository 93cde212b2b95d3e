"""Short trainings of many copies of models at once: same data, other orders and learning rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.evaluation.audit.subject import Subject
from qunlearn.training.net import Net, evaluating
from qunlearn.training.optimizers import Adam
from qunlearn.training.replicas import Stack, check_alike, obstacle


@dataclass(frozen=True, eq=False)
class Drill:
    """Trainings that every model goes through.

    Attributes:
        data: what the batches are taken from.
        positions: of the samples of each batch, ``(steps, runs, batch)``.
        rates: learning rate of each run, ``(runs,)``.
    """

    data: Dataset
    positions: Tensor
    rates: Tensor


class RowAdam(Adam):
    """Adam with a learning rate for each row of its parameters.

    Args:
        parameters: with one row a replica; without, where there is one replica.
        rates: ``(replicas,)``.
    """

    def __init__(self, parameters: Iterable[Tensor], rates: Tensor) -> None:
        super().__init__(parameters, learning_rate=1.0, weight_decay=0.0)
        self.rates = rates

    def move(self, gradients: list[Tensor]) -> None:
        """One step: Adam's own at rate 1, of which each row goes its part of the way."""
        before = [p.clone() for p in self.parameters]
        super().move(gradients)
        for parameter, start in zip(self.parameters, before, strict=True):
            one = len(self.rates) == 1
            rate = self.rates[0] if one else self.rates.view(-1, *[1] * (parameter.dim() - 1))
            parameter.copy_(start + rate.to(parameter) * (parameter - start))


See = Callable[[int, slice, Callable[[Tensor], Tensor]], bool]
"""Told the steps done, which rows are running, and what gives their logits ``(rows, n, classes)``; true to stop."""


def together(subjects: Sequence[Subject]) -> bool:
    """Whether models are trained at once: where they are alike, and that is faster."""
    try:
        check_alike([one.model for one in subjects], [0] * len(subjects))
    except InputError:
        return False
    return obstacle(subjects[0].model) is None


def train_rows(subjects: Sequence[Subject], drill: Drill, see: See) -> None:
    """Every model goes through every run, row = model * runs + run, all at once where they are alike.

    Models run in evaluation mode: running statistics stay, dropout is off. None of them is changed.
    """
    runs = len(drill.rates)
    rows = range(len(subjects) * runs)
    if together(subjects):
        _train(
            [subjects[row // runs] for row in rows], drill, list(range(runs)) * len(subjects), slice(0, len(rows)), see
        )
        return
    for row in rows:
        _train([subjects[row // runs]], drill, [row % runs], slice(row, row + 1), see)


def _train(subjects: list[Subject], drill: Drill, runs: list[int], rows: slice, see: See) -> None:
    nets = {id(one): Net(one.model) for one in subjects}
    stack = Stack([nets[id(one)] for one in subjects], ())
    stack.move(subjects[0].trainable, lambda moving: RowAdam(moving, drill.rates[runs]))
    with evaluating(stack.net.module):
        if see(0, rows, stack.logits):
            return
        for step, (x, y) in enumerate(_batches(subjects[0], drill, runs), start=1):
            losses: Tensor = stack(lambda net, x, y: cross_entropy(net(x), y), x, y)
            stack.step(stack.gradients(losses))
            if see(step, rows, stack.logits):
                return


def _batches(subject: Subject, drill: Drill, runs: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    data_x, data_y = subject.inputs(drill.data.x), drill.data.y
    for positions in drill.positions[:, runs]:
        chosen = positions[0] if len(runs) == 1 else positions
        yield data_x[chosen.to(data_x.device)], data_y[chosen.to(data_y.device)].to(data_x.device)
