"""The one loop: every training and every gradient method runs through it, for one model or for several at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import NumericalError
from qunlearn.models.dropout import dropping
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net, Tensors
from qunlearn.training.phases import Batch, Memo, Phase, Samples, positions
from qunlearn.training.recipe import Recipe
from qunlearn.training.replicas import Stack, joined, mapped, parted, shared
from qunlearn.training.seeds import Seeds
from qunlearn.training.selection import Candidate, Rule, Watch

REVISION = 2  # part of every key: raise it when results of the loop change

Progress = Callable[[int, int, str], None]  # (epochs done, epochs in all, what is known)
Rows = Mapping[str, Tensor]  # of "forget" or "retain" the positions (nets, n), int64, that each net learns from

_ADVICE = "lower learning_rate, or keep fewer epochs"


class DivergedError(NumericalError):
    """A loss or a parameter left the finite numbers; `last_good` is the state of the last epoch that was finite."""

    def __init__(self, message: str, last_good: Tensors) -> None:
        super().__init__(message)
        self.last_good = last_good


@dataclass
class Outcome:
    """What the loop leaves of a model.

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
    nets: Sequence[Net],
    phases: Sequence[Phase],
    *,
    forget: Samples,
    retain: Samples,
    recipe: Recipe,
    seeds: Sequence[Seeds],
    watch: Watch | Sequence[Watch],
    rule: Rule,
    memos: Sequence[Memo] | None = None,
    starts: Sequence[Tensors] | None = None,
    progress: Progress | None = None,
    rows: Rows | None = None,
) -> list[Outcome | DivergedError]:
    """Runs the phases in turn on functional views, all in step, and keeps of each the epoch that the rule chooses.

    The nets are of one architecture; each has its own seeds, memo, start and selection, and comes out as it would
    alone, but for rounding. As it is given, a net is candidate 0; its first epoch begins at its start, or there. One
    optimizer serves neighbouring phases that move the same parameters. The recipe's patience counts candidates since
    the chosen one; whoever has lost it, or has diverged, leaves at the end of the epoch. Dropout draws from the seeds'
    own streams; nothing seeded here outlives the call.

    Nets may learn from samples of their own: `rows` names of the forget set, of the retain set or of both the
    positions ``(nets, n)`` that are each net's, as many for every net; a loss sees positions in its net's own set. A
    watch for each net goes with that.

    Returns:
        For each net what is left of it, or, where a loss or a parameter is no longer finite, the error.
    """
    devices = _accelerators(retain.x)
    with torch.random.fork_rng(devices=devices):
        # For randomness that no stream serves, in one model alone. Not torch.manual_seed: that would also touch the
        # generators of devices that nobody restores.
        for generator in (torch.default_generator, *(torch.cuda.default_generators[i] for i in devices)):
            generator.manual_seed(seeds[0].integer("dropout"))
        watches = [watch] if isinstance(watch, Watch) else list(watch)
        run = _Run(nets, forget, retain, recipe, seeds, watches, rule, memos or [{} for _ in nets], rows or {})
        with dropping(nets[0].module, run.dropout):
            return run(phases, starts, progress)


class _Run:
    """The state of one run of the loop; row i of everything stacked belongs to the outcome ``running[i]``."""

    def __init__(
        self,
        nets: Sequence[Net],
        forget: Samples,
        retain: Samples,
        recipe: Recipe,
        seeds: Sequence[Seeds],
        watches: Sequence[Watch],
        rule: Rule,
        memos: Sequence[Memo],
        rows: Rows,
    ) -> None:
        self.sets, self.own = {"forget": forget, "retain": retain}, rows
        self.recipe, self.watches, self.rule = recipe, watches, rule
        self.orders = [each.generator("order") for each in seeds]
        self.noise = Stream(*(each.generator("loss") for each in seeds))
        self.dropout = Stream(*(each.generator("dropout") for each in seeds))
        self.stack = Stack(nets, (self.noise, self.dropout))
        self.alone = not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in nets[0].module.modules())
        parts = [parted(memo) for memo in memos]
        self.memo, self.rest = joined([tensors for tensors, _ in parts]), shared([rest for _, rest in parts])
        self.outcomes: list[Outcome | DivergedError] = [Outcome(net, []) for net in nets]
        self.running = list(range(len(nets)))
        self.best = self.last_good = self.stack.state()

    def __call__(
        self, phases: Sequence[Phase], starts: Sequence[Tensors] | None, progress: Progress | None
    ) -> list[Outcome | DivergedError]:
        for out, candidate in zip(self._active(), self._measure(0), strict=True):
            out.candidates.append(candidate)
        if starts is not None:
            self.stack.restore(joined(starts))
        total, done = sum(phase.epochs for phase in phases), 0
        for phase in phases:
            self._enter(phase)
            for _ in range(phase.epochs):
                losses = self._epoch(phase)
                done += 1
                self._judge(phase, done, losses)
                if not self.running:
                    return self.outcomes
                if progress is not None:
                    progress(done, total, f"loss {sum(losses) / len(losses):.4f}")
        self._leave([])
        return self.outcomes

    def _active(self) -> list[Outcome]:
        return [out for out in (self.outcomes[i] for i in self.running) if isinstance(out, Outcome)]

    def _measure(self, epoch: int) -> list[Candidate]:
        if len(self.watches) == 1:
            (watch,) = self.watches
            x = watch.inputs
            return watch.measure(None if x is None else self.stack.logits(x), self.stack.size, epoch)
        watches = [self.watches[number] for number in self.running]
        inputs = [watch.inputs for watch in watches if watch.inputs is not None]
        logits = self.stack.logits(joined(inputs), each=True)
        return [watch.measure(row[None], 1, epoch)[0] for watch, row in zip(watches, logits, strict=True)]

    def _enter(self, phase: Phase) -> None:
        module = self.stack.net.module
        names = [
            name
            for name, parameter in module.named_parameters()
            if parameter.requires_grad and (phase.parameters is None or name in phase.parameters)
        ]
        self.stack.move(names, self.recipe.make_optimizer, phase.rate)
        self._hold_statistics()
        forget, retain = self.sets["forget"].copies(phase.forget_copies), self.sets["retain"]
        self.samples = {"forget": forget, "retain": retain, "mixed": forget}
        if phase.data == "mixed":
            self.samples["mixed"] = Samples(*(torch.cat(pair) for pair in zip(forget, retain, strict=True)))
        self.rows = _of_phase(phase, self.own, {name: len(part.y) for name, part in self.sets.items()})
        self.empty = Batch(**{name: no_samples(part) for name, part in self.samples.items()})

    def _hold_statistics(self) -> None:
        """Norm layers whose parameters all stand still keep their running statistics, too: frozen is frozen."""
        self.stack.net.module.train()
        for path, part in self.stack.net.module.named_modules():
            own = [f"{path}.{name}".lstrip(".") for name, _ in part.named_parameters(recurse=False)]
            if isinstance(part, nn.modules.batchnorm._NormBase) and own and not self.stack.moving.keys() & set(own):
                part.eval()

    def _epoch(self, phase: Phase) -> list[float]:
        """One pass over the phase's data; the mean loss of every replica."""
        if phase.refresh is not None:
            self._refresh(phase)
        forget, retain = (
            self.rows[name].shape[1] if name in self.rows else len(self.samples[name].y)
            for name in ("forget", "retain")
        )
        size, share = self.recipe.batch_size, phase.retain_share
        orders = [positions(phase.data, forget, retain, size, self.orders[i], self.alone, share) for i in self.running]
        losses = [self._step(phase, joined(batch)) for batch in zip(*orders, strict=True)]
        self.stack.net.counts.epochs += 1
        means: list[float] = torch.stack(losses).mean(0).reshape(-1).tolist() if losses else [math.nan] * len(orders)
        return means

    def _refresh(self, phase: Phase) -> None:
        rest: Memo = {}

        def renewed(net: Net, memo: Memo) -> Memo:
            assert phase.refresh is not None
            tensors, others = parted(phase.refresh(net, {**self.rest, **memo}, self.noise))
            rest.update(others)
            return tensors

        with torch.no_grad():
            self.memo, self.rest = self.stack(renewed, self.memo), rest

    def _step(self, phase: Phase, orders: Tensors) -> Tensor:
        """One step of every replica on its own batch; the losses."""

        def loss(net: Net, parts: dict[str, Samples], memo: Memo) -> Tensor:
            return phase.loss(net, self.empty._replace(**parts), {**self.rest, **memo}, self.noise)

        parts = {name: self._taken(name, order) for name, order in orders.items()}
        losses: Tensor = self.stack(loss, parts, self.memo)
        if self.stack.moving:
            gradients = self.stack.gradients(losses)
            if phase.transform is not None:
                gradients = self._transformed(phase, gradients)
            self.stack.step(gradients)
            if phase.project is not None:
                self._project(phase)
        return losses.detach()

    def _taken(self, name: str, order: Tensor) -> Samples:
        """The samples at positions of the set, or of every replica's own part of it."""
        if name not in self.rows:
            return self.samples[name].take(order)
        own = self.rows[name][self.running]
        places = own.gather(1, order) if order.dim() > 1 else own[0][order]
        return self.samples[name].take(places)._replace(position=order.to(self.samples[name].y.device))

    def _transformed(self, phase: Phase, gradients: Tensors) -> Tensors:
        def changed(net: Net, gradients: Tensors, memo: Memo) -> Tensors:
            assert phase.transform is not None
            return phase.transform(gradients, {**self.rest, **memo}, self.noise)

        found: Tensors = self.stack(changed, gradients, self.memo)
        return found

    def _project(self, phase: Phase) -> None:
        """Puts every replica's moving parameters where the phase wants them after a step."""

        def projected(net: Net, parameters: Tensors, memo: Memo) -> Tensors:
            assert phase.project is not None
            return phase.project(parameters, {**self.rest, **memo}, self.noise)

        with torch.no_grad():
            moved = {name: parameter.detach() for name, parameter in self.stack.moving.items()}
            for name, parameter in self.stack(projected, moved, self.memo).items():
                self.stack.moving[name].copy_(parameter)

    def _judge(self, phase: Phase, epoch: int, losses: Sequence[float]) -> None:
        """Notes the epoch of every replica, lets those go that diverged, and selects among the others."""
        finite = []
        for row, (good, loss) in enumerate(zip(self.stack.finite().tolist(), losses, strict=True)):
            out = self.outcomes[self.running[row]]
            if isinstance(out, Outcome) and good and math.isfinite(loss):
                out.history.append({"epoch": epoch, "loss": loss})
                finite.append(row)
            else:
                message = f"expected finite numbers, got a loss of {loss} in epoch {epoch}; {_ADVICE}"
                self.outcomes[self.running[row]] = DivergedError(message, self.stack.row(self.last_good, row))
        self._leave(finite)
        if not self.running:
            return
        self.last_good = self.stack.state()
        if phase.candidate:
            self._leave(self._select(epoch))

    def _select(self, epoch: int) -> list[int]:
        """Measures every replica, keeps the epoch if the rule says so; the rows whose patience has not run out."""
        active, patient = self._active(), []
        for row, (out, candidate) in enumerate(zip(active, self._measure(epoch), strict=True)):
            out.candidates.append(candidate)
            out.chosen = self.rule(out.candidates)
            if self.recipe.patience is None or len(out.candidates) - 1 - out.chosen < self.recipe.patience:
                patient.append(row)
        chosen = [out.chosen == len(out.candidates) - 1 for out in active]
        if all(chosen):
            self.best = self.last_good
        elif any(chosen):
            self.best = mapped(_where(chosen), self.last_good, self.best)
        return patient

    def _leave(self, staying: Sequence[int]) -> None:
        """Finishes all replicas but those in the given rows."""
        if len(staying) == len(self.running):
            return
        for row, number in enumerate(self.running):
            out = self.outcomes[number]
            if row not in staying and isinstance(out, Outcome):
                out.net.restore(self.stack.row(self.best, row))
                out.net.counts.add(self.stack.net.counts)
                out.net.differentiated = frozenset()
                out.net.module.eval()
        self.running = [self.running[row] for row in staying]
        if self.running:
            taken = self.stack.keep(staying)
            self.best, self.last_good, self.memo = taken(self.best), taken(self.last_good), taken(self.memo)


def _of_phase(phase: Phase, rows: Rows, lengths: dict[str, int]) -> dict[str, Tensor]:
    """Which positions of the phase's sets, copies counted, are each net's; nothing where all nets share a set."""
    if not rows:
        return {}
    nets = len(next(iter(rows.values())))
    whole = {name: torch.arange(length).expand(nets, -1) for name, length in lengths.items()}
    forget, retain, copies = (
        rows.get("forget", whole["forget"]),
        rows.get("retain", whole["retain"]),
        phase.forget_copies,
    )
    if copies > 1:
        forget = (forget[..., None] * copies + torch.arange(copies)).flatten(1)
    return {"forget": forget, "retain": retain, "mixed": torch.cat([forget, lengths["forget"] * copies + retain], 1)}


def samples_of(data: Dataset) -> Samples:
    """A data set as the loop takes it."""
    return Samples(data.x, data.y, torch.arange(len(data.y), device=data.y.device))


def no_samples(like: Samples) -> Samples:
    """An empty set of the same shape."""
    return like.take(torch.empty(0, dtype=torch.int64, device=like.y.device))


def _where(chosen: Sequence[bool]) -> Callable[[Tensor, Tensor], Tensor]:
    """Takes the chosen rows of one tensor, and the other rows of another."""
    mask = torch.tensor(chosen)

    def merged(now: Tensor, before: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (now.dim() - 1)).to(now.device), now, before)

    return merged


def _accelerators(x: Tensor) -> list[int]:
    return [x.device.index or 0] if x.device.type == "cuda" else []
