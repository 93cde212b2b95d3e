"""The one loop: every training and every gradient method runs through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import NumericalError
from qunlearn.training.net import Net, Tensors
from qunlearn.training.phases import Batch, Memo, Phase, Samples, batches
from qunlearn.training.recipe import Recipe
from qunlearn.training.seeds import Seeds
from qunlearn.training.selection import Candidate, Rule, Watch

REVISION = 1  # part of every key: raise it when results of the loop change

Progress = Callable[[int, int, str], None]  # (epochs done, epochs in all, what is known)


class DivergedError(NumericalError):
    """A loss or a parameter left the finite numbers; `last_good` is the state of the last epoch that was finite."""

    def __init__(self, message: str, last_good: Tensors) -> None:
        super().__init__(message)
        self.last_good = last_good


@dataclass
class Outcome:
    """What the loop leaves.

    Attributes:
        net: at the epoch that was kept.
        candidates: one a kept-eligible epoch, the model before the first epoch foremost.
        chosen: position of the kept one among the candidates.
        history: mean loss of each epoch.
    """

    net: Net
    candidates: list[Candidate]
    chosen: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def run_phases(
    net: Net,
    phases: Sequence[Phase],
    *,
    forget: Samples,
    retain: Samples,
    recipe: Recipe,
    seeds: Seeds,
    watch: Watch,
    rule: Rule,
    memo: Memo | None = None,
    start: Tensors | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Runs the phases in turn on the functional view and keeps the epoch that the rule chooses.

    The net as it is given is candidate 0; the first epoch begins at the state `start`, or there. One optimizer
    serves neighbouring phases that move the same parameters. The recipe's patience counts candidates since the
    chosen one. Dropout draws from the seed's own stream; nothing seeded here outlives the call.

    Raises:
        DivergedError: where a loss or a parameter is no longer finite; it holds the last good state.
    """
    devices = _accelerators(retain.x)
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: that would also touch the generators of devices that nobody restores.
        for generator in (torch.default_generator, *(torch.cuda.default_generators[i] for i in devices)):
            generator.manual_seed(seeds.integer("dropout"))
        run = _Run(net, forget, retain, recipe, seeds, watch, rule, memo or {}, progress)
        if start is not None:
            net.restore(start)
        return run(phases)


class _Run:
    """The state of one run of the loop."""

    def __init__(
        self,
        net: Net,
        forget: Samples,
        retain: Samples,
        recipe: Recipe,
        seeds: Seeds,
        watch: Watch,
        rule: Rule,
        memo: Memo,
        progress: Progress | None,
    ) -> None:
        self.net, self.forget, self.retain = net, forget, retain
        self.recipe, self.watch, self.rule, self.memo, self.progress = recipe, watch, rule, memo, progress
        self.order, self.noise = seeds.generator("order"), seeds.generator("loss")
        self.alone = not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.module.modules())
        self.out = Outcome(net, [watch(net, 0)])
        self.best = self.last_good = net.state()
        self.moving: dict[str, Tensor] = {}
        self.optimizer: torch.optim.Optimizer | None = None

    def __call__(self, phases: Sequence[Phase]) -> Outcome:
        total, done = sum(phase.epochs for phase in phases), 0
        for phase in phases:
            self._choose_parameters(phase)
            self._hold_statistics()
            for _ in range(phase.epochs):
                self._epoch(phase, done + 1)
                done += 1
                if phase.candidate and self._select(done):
                    return self._finish()
                if self.progress is not None:
                    self.progress(done, total, f"loss {self.out.history[-1]['loss']:.4f}")
        return self._finish()

    def _choose_parameters(self, phase: Phase) -> None:
        names = [
            name
            for name, parameter in self.net.module.named_parameters()
            if parameter.requires_grad and (phase.parameters is None or name in phase.parameters)
        ]
        if list(self.moving) == names:
            return
        self.net.parameters = {name: p.detach() for name, p in self.net.parameters.items()}
        self.moving = {name: self.net.parameters[name].clone().requires_grad_() for name in names}
        self.net.parameters.update(self.moving)
        self.net.differentiated = frozenset(names)
        self.optimizer = self.recipe.make_optimizer(self.moving.values()) if names else None

    def _hold_statistics(self) -> None:
        """Norm layers whose parameters all stand still keep their running statistics, too: frozen is frozen."""
        self.net.module.train()
        for path, part in self.net.module.named_modules():
            own = [f"{path}.{name}".lstrip(".") for name, _ in part.named_parameters(recurse=False)]
            if isinstance(part, nn.modules.batchnorm._NormBase) and own and not self.moving.keys() & set(own):
                part.eval()

    def _epoch(self, phase: Phase, number: int) -> None:
        if phase.refresh is not None:
            with torch.no_grad():
                self.memo = phase.refresh(self.net, self.memo, self.noise)
        forget = self.forget.copies(phase.forget_copies) if phase.forget_copies > 1 else self.forget
        losses = []
        for batch in batches(phase.data, forget, self.retain, self.recipe.batch_size, self.order, self.alone):
            losses.append(self._step(phase, batch))
        loss = float(torch.stack(losses).mean()) if losses else math.nan
        self.net.counts.epochs += 1
        if not math.isfinite(loss) or not all(bool(p.isfinite().all()) for p in self.moving.values()):
            raise DivergedError(
                f"expected finite numbers, got a loss of {loss} in epoch {number}; lower learning_rate, "
                "or keep fewer epochs",
                self.last_good,
            )
        self.last_good = self.net.state()
        self.out.history.append({"epoch": number, "loss": loss})

    def _step(self, phase: Phase, batch: Batch) -> Tensor:
        loss = phase.loss(self.net, batch, self.memo, self.noise)
        if self.optimizer is None:
            return loss.detach()
        found = torch.autograd.grad(loss, list(self.moving.values()), allow_unused=True)
        gradients = {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(self.moving.items(), found, strict=True)
        }
        if phase.transform is not None:
            gradients = phase.transform(gradients, self.memo, self.noise)
        for name, parameter in self.moving.items():
            parameter.grad = gradients[name]
        self.optimizer.step()
        return loss.detach()

    def _select(self, epoch: int) -> bool:
        """Measures the epoch, keeps it if the rule says so; whether patience has run out."""
        self.out.candidates.append(self.watch(self.net, epoch))
        chosen = self.rule(self.out.candidates)
        if chosen == len(self.out.candidates) - 1:
            self.best = self.last_good
        self.out.chosen = chosen
        waited = len(self.out.candidates) - 1 - chosen
        return self.recipe.patience is not None and waited >= self.recipe.patience

    def _finish(self) -> Outcome:
        self.net.restore(self.best)
        self.net.differentiated = frozenset()
        self.net.module.eval()
        return self.out


def samples_of(data: Dataset) -> Samples:
    """A data set as the loop takes it."""
    return Samples(data.x, data.y, torch.arange(len(data.y), device=data.y.device))


def no_samples(like: Samples) -> Samples:
    """An empty set of the same shape."""
    return like.take(torch.empty(0, dtype=torch.int64, device=like.y.device))


def _accelerators(x: Tensor) -> list[int]:
    return [x.device.index or 0] if x.device.type == "cuda" else []
