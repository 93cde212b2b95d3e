"""Ways to break a method: the tests of its behaviour must notice each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from qunlearn.methods import FineTune, GradientMethod, Method, Task, available
from qunlearn.training.phases import Loss, Phase

KINDS = ("none", "fine-tune", "sign")


def pairs() -> list[tuple[str, str]]:
    """Every (method, kind) that changes something."""
    same = {("none", "none"), ("fine-tune", "fine-tune")}
    closed = {name for name, cls in available().items() if not issubclass(cls, GradientMethod)}  # no loss of their own
    signless = {(name, "sign") for name in closed}
    return [(name, kind) for name in available() for kind in KINDS if (name, kind) not in same | signless]


def mutate(name: str, kind: str) -> None:
    """Replaces a method's class behaviour in this process."""
    cls: Any = available()[name]
    if kind == "none":
        cls.run = _unchanged
    elif kind == "fine-tune":
        if issubclass(cls, GradientMethod):
            cls.phases, cls.prepare, cls.start = _fine_tuning, GradientMethod.prepare, GradientMethod.start
        else:
            cls.run = lambda self, model, task, work: FineTune().run(model, task, work)
    else:
        original = cls.phases
        cls.phases = lambda self, model, task: [_opposite(phase) for phase in original(self, model, task)]


def _unchanged(self: Method, model: nn.Module, task: Task, work: Any) -> nn.Module:
    return model


def _fine_tuning(self: GradientMethod, model: nn.Module, task: Task) -> Sequence[Phase]:
    return FineTune(epochs=self.epochs).phases(model, task)


def _opposite(phase: Phase) -> Phase:
    loss: Loss = phase.loss

    def negative(*args: Any) -> Tensor:
        return -loss(*args)

    return dataclasses.replace(phase, loss=negative)
