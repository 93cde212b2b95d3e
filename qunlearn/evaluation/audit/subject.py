"""One model as the audits see it: what it says, and what its inner stages hand on, found once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError, NumericalError
from qunlearn.models import ClassicalTwin, Ensemble, Stage, reinitialise, stages
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.net import evaluating

Floats = npt.NDArray[np.float64]
BATCH = 1024
STATE_QUBITS = 12  # a state is 2**qubits numbers a sample
MIDDLE = "the circuit"


@dataclass(frozen=True, eq=False)
class Outputs:
    """What one run over the sets gave.

    Attributes:
        logits: by set ``(n, classes)``, float64.
        stages: by stage, by set, what the stage hands on, flat ``(n, width)``, float32 or float64.
        shapes: by stage, the shape of what it hands on of one sample (of its real and imaginary parts).
        encoded: by set what enters the circuit ``(n, features)``; None where there is no one circuit.
        circuit: by set what leaves it ``(n, observables)``; None likewise.
    """

    logits: dict[str, Floats]
    stages: dict[str, dict[str, Tensor]]
    shapes: dict[str, torch.Size]
    encoded: dict[str, Tensor] | None
    circuit: dict[str, Tensor] | None


class Subject:
    """A model on the sets of a bench; it runs in evaluation mode, and is left as it was.

    Args:
        model: maps samples ``(batch, ...)`` to logits ``(batch, classes)``.
        sets: the data by name.
    """

    def __init__(self, model: nn.Module, sets: Mapping[str, Dataset]) -> None:
        self.model, self.sets = model, dict(sets)
        self.found: dict[Any, Any] = {}  # what families keep of this model, by a key of their own

    def once(self, key: Any, find: Callable[[], Any]) -> Any:
        """What `find` gives, found when first asked for."""
        if key not in self.found:
            self.found[key] = find()
        return self.found[key]

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The model's stages in running order; none of an ensemble, whose members run side by side."""
        return () if isinstance(self.model, Ensemble) else stages(self.model)

    @cached_property
    def middle(self) -> nn.Module | None:
        """The one circuit of the model, or the classical twin in its place; None where there is none or several."""
        parts = [part for part in self.model.modules() if isinstance(part, (QuantumLayer, ClassicalTwin))]
        return parts[0] if len(parts) == 1 else None

    @cached_property
    def trainable(self) -> list[str]:
        """Names of the parameters that training moves."""
        return [name for name, p in self.model.named_parameters() if p.requires_grad and p.numel()]

    @cached_property
    def outputs(self) -> Outputs:
        """What the model and its stages say about every sample of every set."""
        total = sum(len(data) for data in self.sets.values())
        places = {stage.name: self.model.get_submodule(stage.module) for stage in self.stages}
        watched = {**places} if self.middle is None else {**places, MIDDLE: self.middle}
        with torch.no_grad(), evaluating(self.model), _caught(watched, self.middle) as (caught, entered):
            logits = torch.cat([self.model(part) for part in self._batches()]).double().cpu()
        if logits.ndim != 2 or len(logits) != total:
            raise InputError(f"expected logits (samples, classes) for {total} samples, got {tuple(logits.shape)}")
        if not bool(torch.isfinite(logits).all()):
            raise NumericalError("expected finite logits, got others; the model has diverged")
        handed = {name: _rows(parts, total) for name, parts in caught.items()}
        entry, leaving = _rows(entered, total), handed.pop(MIDDLE, None)
        return Outputs(
            {name: part.numpy() for name, part in self._apart(logits).items()},
            {name: self._apart(rows) for name, rows in handed.items() if rows is not None},
            {name: caught[name][0].shape[1:] for name, rows in handed.items() if rows is not None},
            None if entry is None else self._apart(entry),
            None if leaving is None else self._apart(leaving),
        )

    def states(self, name: str) -> Tensor | None:
        """The circuit's final states ``(n, 2, ..., 2)`` on a set; None where there are no pure states to look at."""

        def find() -> Tensor | None:
            layer = self.middle
            if not isinstance(layer, QuantumLayer) or self.outputs.encoded is None or self.stateless is not None:
                return None
            with torch.no_grad():
                return layer.state(self.outputs.encoded[name]).to(torch.complex128).cpu()

        found: Tensor | None = self.once(("states", name), find)
        return found

    @cached_property
    def stateless(self) -> str | None:
        """Why there are no states to look at, as a sentence's end; None where there are."""
        layer = self.middle
        if not isinstance(layer, QuantumLayer) or self.outputs.encoded is None:
            return "the model has no one circuit"
        if layer.backend is not None or layer.circuit.noisy:
            return "the circuit is noisy or runs on a backend, so that it has no pure states to look at"
        if layer.circuit.qubits > STATE_QUBITS:
            return f"the circuit has more than {STATE_QUBITS} qubits"
        return None

    def same(self, other: Subject) -> bool:
        """Whether the other is the same model: the same weights and outputs, bit by bit."""
        if self.model is other.model:
            return True
        mine, theirs = (dict(one.model.named_parameters()) for one in (self, other))
        alike = mine.keys() == theirs.keys() and all(torch.equal(p, theirs[name]) for name, p in mine.items())
        return alike and all(
            np.array_equal(rows, other.outputs.logits[name]) for name, rows in self.outputs.logits.items()
        )

    def inputs(self, x: Tensor) -> Tensor:
        """Samples on the model's device and, where they are real numbers, in its dtype."""
        first = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        if first is None:
            return x
        return x.to(first.device, first.dtype if x.is_floating_point() else x.dtype)

    def _batches(self) -> tuple[Tensor, ...]:
        return torch.split(torch.cat([self.inputs(data.x) for data in self.sets.values()]), BATCH)

    def _apart(self, rows: Tensor) -> dict[str, Tensor]:
        lengths = [len(data) for data in self.sets.values()]
        return dict(zip(self.sets, torch.split(rows, lengths), strict=True))


@contextmanager
def _caught(
    watched: Mapping[str, nn.Module], middle: nn.Module | None
) -> Iterator[tuple[dict[str, list[Tensor]], list[Tensor]]]:
    """What the modules hand on, and what enters the one in the middle, of every run inside."""
    caught: dict[str, list[Tensor]] = {name: [] for name in watched}
    entered: list[Tensor] = []

    def keeper(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: caught[name].append(output)

    hooks = [part.register_forward_hook(keeper(name)) for name, part in watched.items()]
    if middle is not None:
        hooks.append(middle.register_forward_pre_hook(lambda _module, inputs: entered.append(inputs[0])))
    try:
        yield caught, entered
    finally:
        for hook in hooks:
            hook.remove()


def fresh_model(model: nn.Module, seed: int, x: Tensor) -> nn.Module:
    """A freshly initialised copy of a model (or of an ensemble's members), its data-fitted parts fitted on samples.

    Raises:
        UnsupportedError: where there is no such thing as this model without training.
    """
    fresh = reinitialise(model, seed)
    for part in fresh.members if isinstance(fresh, Ensemble) else [fresh]:
        if callable(fit := getattr(part, "fit", None)):
            first = next(part.parameters(), x)
            fit(x.to(first.device, first.dtype))
    return fresh


def cannot_start_afresh(model: nn.Module) -> str:
    """Why a model has no untrained like."""
    return f"a {type(model).__name__} cannot be initialised afresh, or does nothing until it is trained"


def _rows(parts: list[Tensor], total: int) -> Tensor | None:
    """One row a sample, flat; None of what is no tensor, or was not run once a sample."""
    if not parts or not all(isinstance(part, Tensor) and part.ndim for part in parts):
        return None
    if sum(len(part) for part in parts) != total:
        return None
    rows = torch.cat([part.detach() for part in parts]).cpu()
    return (torch.view_as_real(rows) if rows.is_complex() else rows).reshape(total, -1)
