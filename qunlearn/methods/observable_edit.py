"""Observable edit: a closed-form change of what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods.base import Method
from qunlearn.methods.hyper import hyper
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.models import stages
from qunlearn.training.net import Net

LEAST_REFERENCES = 8  # retained rows of highest entropy that stand for "does not know", or 5 % where that is more


@register
@dataclass(frozen=True, kw_only=True)
class ObservableEdit(Method):
    r"""Changes the observables that the head measures, in closed form, so that forget samples give other values.

    .. math:: o_c(x) = \operatorname{Tr}(\rho(x) H_c), \qquad H_c = \sum_k W_{ck} P_k + b_c I, \qquad
              \Delta = \arg\min_\Delta \operatorname{mean}_{r} \|\Delta z_r\|^2 +
                       w \operatorname{mean}_{f} \|\Delta z_f - d_f\|^2 + \lambda \|\Delta\|^2

    P are the circuit's observables, z their expectation values and a 1, ``(observables + 1,)``; W, b are the first
    linear map after the circuit, so that each of its outputs is the expectation value of one observable H. A change of
    W and b is a change of H: no state moves, and a probe of the states finds all that it found before. What it does is
    suppress. There is no gradient step, and no circuit beyond one forward pass over the forget set and a buffer of the
    retain set. It needs the circuit because only there "a linear map of expectation values" is a measurement; on a
    classical twin the same algebra runs, as a control.

    ``site="logits"`` edits the last linear map instead. With a linear head that is the same map; with a deeper one its
    inputs are activations of a hidden layer, and no observables are edited in the sense above.

    The values d that forget rows are to gain, by `target`: ``"uniform"``, each row's mean logit for every class; where
    the edited map does not give logits (a deeper head), the mean values of the retained rows whose outputs have most
    entropy (8 of them, or 5 %). ``"shift"``, alpha times the mean of those reference rows minus the forget rows'
    mean, the same for all. ``"nearest"``, the values of the retained row with the nearest expectation values.

    ``mode="constrained"`` demands the forget rows' values exactly and changes retained rows as little as least squares
    can; nothing on retained rows changes where a null space allows it. Where forget rows contradict each other (more
    of them than ``observables + 1``, as a rule), no map meets them all, and the ridge form is taken: a note says so.

    How exact it can be is a matter of dimensions: retained rows keep every value only under changes in the null space
    of their matrix [Z_r, 1], of dimension ``observables + 1 - rank``, which is 0 as soon as the buffer holds that many
    independent rows. The record's ``details`` hold it, the relative residuals on forget and retained rows, and what
    could be reached at best: ``forget_residual_least`` (whatever retained rows do) and
    ``forget_residual_in_null_space`` (no retained row of the buffer moving). More observables (all strings of one and
    two Z) would widen the map and its null space; a model has the tensors that it has, so that this takes a model whose
    circuit measures them.

    Source: Rachapudi et al. 2026, arXiv 2604.12820 (STAMP: steered activations, one regularised least-squares
        solution), as second-hand notes have it. Ours: the reading as observables, the ridge on the change and not on
        the weights (theirs shrinks what it should keep), equal total weight of both sets, the nearest target and
        the constrained mode.
    """

    name: ClassVar[str] = "observable-edit"
    strategy = "suppresses"
    site: Literal["observables", "logits"] = hyper(
        "observables", "the first linear map after the circuit, or the last", choices=("observables", "logits")
    )
    mode: Literal["ridge", "constrained"] = hyper(
        "ridge", "least squares over both sets, or forget rows exactly", choices=("ridge", "constrained")
    )
    target: Literal["uniform", "shift", "nearest"] = hyper(
        "nearest",
        "what forget rows are to give",
        choices=("uniform", "shift", "nearest"),
        search=["nearest", "uniform", "shift"],
    )
    weight: float = hyper(1.0, "w: total weight of forget rows, that of retained rows being 1", low=0, search=(0.1, 10))
    ridge: float = hyper(1e-6, "lambda, on the squared change", low=0)
    alpha: float = hyper(1.0, "shift: how far towards the reference, 1 for all the way", low=0)
    buffer: float = hyper(1.0, "share of the retain set that is looked at", low=0, high=1)

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses models without a circuit, or without a linear map after it."""
        self.edited(model)

    def edited(self, model: nn.Module) -> str:
        """The path of the linear map to edit.

        Raises:
            InputError: where there is none.
        """
        parts = stages(model)
        circuits = [number for number, stage in enumerate(parts) if stage.kind == "circuit"]
        if not circuits:
            raise InputError(
                f"expected a model with a circuit for {self.name}, which edits what is measured, got "
                f"{type(model).__name__} without one; take a HybridClassifier, or methods.HeadOnly for any network"
            )
        paths = [path for stage in parts[circuits[-1] + 1 :] for path in stage.modules]
        linear = [path for path in paths if isinstance(model.get_submodule(path), nn.Linear)]
        if not linear:
            raise InputError(
                f"expected a linear map after the circuit for {self.name}, got none in {type(model).__name__}; give "
                "the model a head"
            )
        return linear[0] if self.site == "observables" else linear[-1]

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """One forward pass, and one linear system."""
        path = self.edited(model)
        net, layer = Net(model, work.counts), model.get_submodule(path)
        assert isinstance(layer, nn.Linear)  # as `edited` checks
        retain = self._buffered(task.retain, work.seeds.generator("buffer"))
        rows = _rows(net, layer, torch.cat([task.forget.x, retain.x]))
        forget, kept = rows.split(len(task.forget))
        gain = self.gain(forget, kept)
        change = self.change(forget, kept, gain)
        if change is None:
            work.notes.append(
                f"No linear map gives all {len(task.forget)} forget rows their values; the ridge form was taken."
            )
            change = ridged(forget.inputs, kept.inputs, gain, self.weight, self.ridge)
        work.details.update(_figures(forget, kept, gain, change), edited=path)
        work.notes.append(_IN_WORDS.format(**work.details))
        _add(net, path, change)
        return net.write_back()

    def gain(self, forget: Rows, retain: Rows) -> Tensor:
        """d: what the edited map's values on forget rows are to gain, ``(forget rows, outputs)``."""
        if self.target == "nearest":
            nearest = torch.cdist(forget.inputs, retain.inputs).argmin(1)
            return retain.values[nearest] - forget.values
        if self.target == "uniform" and forget.gives_logits:
            return forget.values.mean(1, keepdim=True) - forget.values
        reference = retain.values[_unsure(retain.logits)].mean(0)
        if self.target == "uniform":
            return reference - forget.values
        return self.alpha * (reference - forget.values.mean(0)).expand_as(forget.values)

    def change(self, forget: Rows, retain: Rows, gain: Tensor) -> Tensor | None:
        """The change of the map ``(inputs, outputs)``; None where the mode has none."""
        if self.mode == "constrained":
            return constrained(forget.inputs, retain.inputs, gain, forget.tolerance)
        return ridged(forget.inputs, retain.inputs, gain, self.weight, self.ridge)

    def _buffered(self, retain: Dataset, generator: torch.Generator) -> Dataset:
        """A random share of the retain set; all of it where the share is 1."""
        number = max(1, round(self.buffer * len(retain)))
        if number == len(retain):
            return retain
        return retain.select(torch.randperm(len(retain), generator=generator)[:number].sort().values)


@dataclass(frozen=True, eq=False)
class Rows:
    """What samples give at a linear map, float64.

    Attributes:
        inputs: of the map, ``(n, inputs)``, with a column of ones where it has a bias.
        values: its outputs, ``(n, outputs)``.
        logits: of the whole model, ``(n, classes)``.
        precision: relative rounding error of what was computed.
    """

    inputs: Tensor
    values: Tensor
    logits: Tensor
    precision: float

    @property
    def gives_logits(self) -> bool:
        """Whether the map's outputs are the model's."""
        return self.values.shape == self.logits.shape and bool(torch.equal(self.values, self.logits))

    @property
    def tolerance(self) -> float:
        """The singular values below this share of the largest are rounding errors."""
        return max(self.inputs.shape) * self.precision

    def split(self, first: int) -> tuple[Rows, Rows]:
        """The first rows, and the others."""
        return (
            Rows(self.inputs[:first], self.values[:first], self.logits[:first], self.precision),
            Rows(self.inputs[first:], self.values[first:], self.logits[first:], self.precision),
        )


def ridged(forget: Tensor, retain: Tensor, gain: Tensor, weight: float, ridge: float) -> Tensor:
    """The change ``(inputs, outputs)`` of least weighted squares, see `ObservableEdit`; of these the shortest.

    Args:
        forget: inputs of forget rows ``(n_f, inputs)``.
        retain: inputs of retained rows ``(n_r, inputs)``.
        gain: what forget rows are to gain ``(n_f, outputs)``; retained rows are to gain 0.
        weight: w, of the mean over forget rows.
        ridge: lambda, 0 or more.
    """
    of_forget = weight / len(forget) * forget.T
    gram = retain.T @ retain / len(retain) + of_forget @ forget
    gram.diagonal().add_(ridge)
    found: Tensor = torch.linalg.pinv(gram, hermitian=True) @ (of_forget @ gain)
    return found


def constrained(forget: Tensor, retain: Tensor, gain: Tensor, tolerance: float) -> Tensor | None:
    """The change ``(inputs, outputs)`` that gives forget rows their gain and retained rows least; None without any.

    It is exact on retained rows too where that can be. Arguments as for `ridged`; singular values up to `tolerance`
    times the largest count as 0.
    """
    found: Tensor = torch.linalg.pinv(forget, rtol=tolerance) @ gain
    if _relative(forget @ found - gain, gain) > 1e-6 + 10 * tolerance:
        return None
    free = null_space(forget, tolerance)
    correction: Tensor = free @ (torch.linalg.pinv(retain @ free, rtol=tolerance) @ (retain @ found))
    return found - correction


def null_space(rows: Tensor, tolerance: float) -> Tensor:
    """An orthonormal basis ``(inputs, dimension)`` of what rows ``(n, inputs)`` map to 0.

    Singular values up to `tolerance` times the largest count as 0.
    """
    _, sizes, directions = torch.linalg.svd(rows, full_matrices=True)
    basis: Tensor = directions[int((sizes > tolerance * sizes.max()).sum()) :].T
    return basis


def _rows(net: Net, layer: nn.Linear, x: Tensor) -> Rows:
    """One forward pass over samples ``(n, ...)``."""
    caught: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _module, inputs, output: caught.append((inputs[0], output)))
    try:
        logits = net.logits(x)
    finally:
        hook.remove()
    inputs, values = (torch.cat(parts).detach() for parts in zip(*caught, strict=True))
    precision = torch.finfo(values.dtype).eps
    inputs, values, logits = inputs.double(), values.double(), logits.double()
    if layer.bias is not None:
        inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
    return Rows(inputs, values, logits, precision)


def _unsure(logits: Tensor) -> Tensor:
    """Positions of the rows ``(n, classes)`` whose softmax has most entropy: 8, or 5 % where that is more."""
    log_outputs = torch.log_softmax(logits, 1)
    entropy = -(log_outputs.exp() * log_outputs).sum(1)
    return entropy.topk(min(len(logits), max(LEAST_REFERENCES, len(logits) // 20))).indices


def _figures(forget: Rows, retain: Rows, gain: Tensor, change: Tensor) -> dict[str, Any]:
    """What the record tells, see `ObservableEdit`."""
    free = null_space(retain.inputs, retain.tolerance)
    inside = forget.inputs @ free
    at_best = inside @ (torch.linalg.pinv(inside, rtol=forget.tolerance) @ gain)
    alone = forget.inputs @ (torch.linalg.pinv(forget.inputs, rtol=forget.tolerance) @ gain)
    return {
        "inputs": forget.inputs.shape[1],
        "forget_rows": len(forget.inputs),
        "retain_rows": len(retain.inputs),
        "rank_retain": forget.inputs.shape[1] - free.shape[1],
        "null_space": free.shape[1],
        "forget_residual": _relative(forget.inputs @ change - gain, gain),
        "forget_residual_least": _relative(alone - gain, gain),
        "forget_residual_in_null_space": _relative(at_best - gain, gain),
        "retain_residual": _relative(retain.inputs @ change, retain.values),
    }


_IN_WORDS = (
    "Edited {edited}: of the demanded change {forget_residual:.3g} is missing on {forget_rows} forget rows (at best "
    "{forget_residual_least:.3g}), {retain_rows} retained rows moved by {retain_residual:.3g} of their values; the "
    "null space that would keep them has dimension {null_space} of {inputs}."
)


def _relative(error: Tensor, of: Tensor) -> float:
    size = float(of.norm())
    return float(error.norm()) / size if size else 0.0


def _add(net: Net, path: str, change: Tensor) -> None:
    """Adds a change ``(inputs, outputs)`` to the linear map of a path."""
    weight, bias = f"{path}.weight", f"{path}.bias"
    inputs = net.parameters[weight].shape[1]
    net.parameters[weight] = net.parameters[weight] + change[:inputs].T.to(net.parameters[weight])
    if bias in net.parameters:
        net.parameters[bias] = net.parameters[bias] + change[inputs].to(net.parameters[bias])
