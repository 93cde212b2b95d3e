"""Amnesiac unlearning: takes back the steps of the batches that held forget samples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from qunlearn.data import Dataset
from qunlearn.errors import InputError, NumericalError
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.models.stream import Stream
from qunlearn.training.loop import Progress
from qunlearn.training.net import Net, Tensors
from qunlearn.training.phases import Batch, Memo, Phase
from qunlearn.training.recipe import Recipe, recipe_of
from qunlearn.training.trace import Trace, trace_of
from qunlearn.training.train import fit_all, supervised


@register
@dataclass(frozen=True, kw_only=True)
class Amnesiac(GradientMethod):
    r"""Subtracts what the parameters moved in every batch that held a forget sample, and repairs on the retain set.

    .. math:: \theta_u = \theta_0 - \sum_{b\,:\, b \cap D_f \neq \emptyset} \Delta\theta_b

    `train` records how far every step of the recipe's training moved the parameters, up to the epoch that is kept. The
    source logs the batches that hold sensitive data; which those are is not known beforehand here, so all are logged.
    The steps of other samples in these batches go too, and later steps stay as they were, though they were taken from
    where the subtracted ones had led: forget samples spread over many batches leave a model that knows little, which is
    why a repair follows. The model after the subtraction is a candidate like any repaired epoch. Repairs are not
    recorded: a later request takes back steps of the training alone.

    Source: Graves, Nagisetty and Ganesh 2021, arXiv 2010.10981.
    """

    name: ClassVar[str] = "amnesiac"
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "trace"})
    trains: ClassVar[bool] = True
    epochs: int = hyper(5, "repair: passes over the retain set after the subtraction; 0 for none", low=0)
    memory: float = hyper(1.0, "the largest record, in GiB; training refuses to write a larger one", low=0)

    def train(
        self,
        model: nn.Module,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> nn.Module:
        """A copy of the model, trained as by `qunlearn.train`, with the record of its steps.

        Raises:
            InputError: for a training whose record would be larger than `memory`.
        """
        recipe = recipe or recipe_of(model) or Recipe()
        self._check_memory(model, len(data), recipe)
        record = _Record()
        phase = Phase("retain", record.loss, recipe.epochs, project=record.step)
        (found,) = fit_all([model], data, validation, recipe, seeds=[seed], progress=progress, phase=phase)
        if isinstance(found, NumericalError):
            raise found
        trained = found.model
        trained.trace = Trace(  # type: ignore[assignment]
            self.name, self.hyperparameters(), record.tensors(data.ids, found.kept), {"seed": seed, "epoch": found.kept}
        )
        trained.training_counts, trained.training_history = found.counts, found.history  # type: ignore[assignment]
        return trained

    def _check_memory(self, model: nn.Module, samples: int, recipe: Recipe) -> None:
        steps, size = recipe.epochs * math.ceil(samples / recipe.batch_size), sum(p.numel() for p in _moving(model))
        gigabytes = (steps * size * 4 + recipe.epochs * samples * 8) / 2**30
        if gigabytes > self.memory:
            raise InputError(
                f"expected a record of at most {self.memory} GiB for {self.name}, got {gigabytes:.2f} GiB for {steps} "
                f"steps of {size} parameters; take fewer epochs, larger batches or a smaller model, or raise memory"
            )

    def start(self, model: nn.Module, task: Task, generator: torch.Generator) -> nn.Module:
        """The model without the steps of the batches that held forget samples."""
        trace = trace_of(model, task.trace, self.name)
        known = torch.isin(task.forget.ids.cpu(), trace.tensors["ids"])
        if not bool(known.all()):
            raise InputError(
                f"expected forget samples that were trained on, got {int((~known).sum())} under other ids; pass them "
                "with the ids that they had in training"
            )
        parameters = _moving(model)
        moved = trace.tensors["deltas"][_touched(trace, task.forget)].double().sum(0)
        with torch.no_grad():
            for parameter, part in zip(parameters, torch.split(moved, [p.numel() for p in parameters]), strict=True):
                parameter.sub_(part.view_as(parameter).to(parameter))
        return model

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """A look at the model as it is, for which no parameter moves; then the repair."""
        two = min(1.0, 2 / len(task.retain))  # samples are enough for a phase that is there to be a candidate
        look = Phase("retain", retain_loss, parameters=frozenset(), retain_share=two)
        return [look, Phase("retain", retain_loss, self.epochs)]

    def _in_step(
        self, models: Sequence[nn.Module], tasks: Sequence[Task], works: Sequence[Work]
    ) -> list[nn.Module | NumericalError]:
        results = super()._in_step(models, tasks, works)
        for result, task, work in zip(results, tasks, works, strict=True):
            if isinstance(result, nn.Module):
                trace = trace_of(result, task.trace, self.name)
                result.trace = _without(trace, task.forget) if work.chosen else trace  # type: ignore[assignment]
        return results


class _Record:
    """Steps of one training: the positions of each one's samples, and how far it moved the parameters."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []
        self.deltas: list[Tensor] = []
        self.before: Tensor = torch.empty(0)

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """The loss of every training; notes the batch and where the parameters are."""
        self.batches.append(batch.retain.position.cpu())
        self.before = _vector([net.parameters[n] for n, p in net.module.named_parameters() if p.requires_grad])
        return supervised(net, batch, memo, stream)

    def step(self, parameters: Tensors, memo: Memo, stream: Stream) -> Tensors:
        """Changes nothing; notes how far the parameters have come."""
        self.deltas.append((_vector(list(parameters.values())) - self.before).float().cpu())
        return parameters

    def tensors(self, ids: Tensor, epochs: int) -> Tensors:
        """The steps of the first so many epochs.

        ``deltas`` ``(steps, parameters)``; ``batches``, the ids of one batch after another; ``lengths`` ``(steps,)``,
        how many are whose; ``ids``, all that were trained on.
        """
        ids = ids.cpu()
        of_epoch = len(self.deltas) * len(ids) // max(1, sum(map(len, self.batches)))
        kept = slice(0, epochs * of_epoch)
        empty = torch.empty(0, self.before.numel())
        return {
            "deltas": torch.stack(self.deltas[kept]) if epochs else empty,
            "batches": ids[torch.cat(self.batches[kept])] if epochs else ids[:0],
            "lengths": torch.tensor([len(batch) for batch in self.batches[kept]], dtype=torch.int64),
            "ids": ids,
        }


def _moving(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _vector(tensors: list[Tensor]) -> Tensor:
    return parameters_to_vector([tensor.detach() for tensor in tensors])


def _touched(trace: Trace, forget: Dataset) -> Tensor:
    """Which steps saw a forget sample, ``(steps,)`` bool."""
    lengths = trace.tensors["lengths"]
    step = torch.arange(len(lengths)).repeat_interleave(lengths)
    touched = torch.zeros(len(lengths), dtype=torch.bool)
    touched[step[torch.isin(trace.tensors["batches"], forget.ids.cpu())]] = True
    return touched


def _without(trace: Trace, forget: Dataset) -> Trace:
    """The trace when the steps that saw forget samples have been taken back."""
    stays, old = ~_touched(trace, forget), trace.tensors
    each = stays.repeat_interleave(old["lengths"])
    left = {"deltas": old["deltas"][stays], "batches": old["batches"][each], "lengths": old["lengths"][stays]}
    ids = old["ids"][~torch.isin(old["ids"], forget.ids.cpu())]
    return dataclasses.replace(trace, tensors={**left, "ids": ids})
