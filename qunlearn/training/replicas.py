"""Replicas: several models of one architecture, run and moved at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qunlearn.errors import InputError
from qunlearn.models import ClassicalTwin, DirectEncoder, HybridClassifier, PCAEncoder, PiTanh
from qunlearn.models.dropout import Dropout
from qunlearn.models.stream import Stream
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.counting import Counts
from qunlearn.training.net import CHUNK, Net, Tensors
from qunlearn.training.optimizers import Optimizer
from qunlearn.training.phases import Memo

# How many times faster 20 at once are than 20 one by one: CPU time of a forward and a backward pass of 32 samples at
# the sizes of the Iris models, torch engine. Wide linear layers (784 to 64) gain and lose nothing. Not here, and so
# trained one by one: convolutions (0.3; the image encoder 0.5, since every replica has weights of its own), and
# whatever is unknown, which may hide anything, randomness included.
TOGETHER: dict[type[nn.Module], float] = {
    QuantumLayer: 7.2, ClassicalTwin: 6.5, PCAEncoder: 4.4, PiTanh: 3.3, HybridClassifier: 7.3,
    nn.Linear: 4.3, nn.BatchNorm1d: 3.6, nn.LayerNorm: 3.6, Dropout: 2.6,
    nn.ReLU: 5.3, nn.ELU: 4.9, nn.GELU: 5.1, nn.LeakyReLU: 4.6, nn.SiLU: 4.2, nn.Sigmoid: 4.4, nn.Softplus: 4.0,
    nn.Tanh: 4.2,
}  # fmt: skip
NO_ARITHMETIC: frozenset[type[nn.Module]] = frozenset({nn.Sequential, nn.Flatten, nn.Identity, DirectEncoder})
MOST_QUBITS = 10  # 64 samples on 8 qubits gain 1.5, on 10 with the torch engine 0.8 and with the fused one 1.2


def obstacle(model: nn.Module) -> str | None:
    """Why models like this are trained one by one, as part of a sentence; None where they are trained together."""
    reasons = (_reason(part, f"in {path}" if path else "as the model") for path, part in model.named_modules())
    return next((reason for reason in reasons if reason is not None), None)


def _reason(part: nn.Module, where: str) -> str | None:
    if isinstance(part, nn.modules.dropout._DropoutNd):
        return f"nn.{type(part).__name__} {where} draws from torch's global generator"
    if type(part) not in TOGETHER and type(part) not in NO_ARITHMETIC:
        return f"{type(part).__name__} {where} is not known to be faster for several models at once"
    if isinstance(part, nn.BatchNorm1d) and part.momentum is None:
        return f"BatchNorm1d {where} has no momentum"
    return _reason_of_circuit(part, where) if isinstance(part, QuantumLayer) else None


def _reason_of_circuit(part: QuantumLayer, where: str) -> str | None:
    if part.backend is not None:
        return f"the circuit {where} runs on {part.backend.name!r}, where what is drawn belongs to one model"
    most = MOST_QUBITS // 2 if part.circuit.noisy else MOST_QUBITS  # a density matrix is a state of twice the qubits
    if part.circuit.qubits > most:
        return f"the circuit {where} has {part.circuit.qubits} qubits, and above {most} nothing is gained"
    return None


def check_alike(models: Sequence[nn.Module], seeds: Sequence[int]) -> None:
    """Refuses models of different architectures, and a number of seeds that is not theirs."""
    if len(models) != len(seeds) or not models:
        raise InputError(f"expected at least one model and a seed for each, got {len(models)} and {len(seeds)} seeds")
    first = _architecture(models[0])
    for number, model in enumerate(models[1:], start=1):
        if _architecture(model) != first:
            raise InputError(
                f"expected models of one architecture, got another in place {number}; take each kind alone"
            )


def _architecture(model: nn.Module) -> list[tuple[Any, ...]]:
    parts = [(path, type(m), m.extra_repr(), getattr(m, "circuit", None)) for path, m in model.named_modules()]
    tensors = [(name, p.shape, p.dtype, p.requires_grad) for name, p in model.named_parameters()]
    return [*parts, *tensors]


class Stack:
    """The parameters, buffers and optimizer of several models of one architecture.

    Every tensor of a stack has one row a replica, ``(replicas, ...)``. A stack of one is the model itself: its tensors
    have no such axis, and it runs without `torch.vmap`.

    Attributes:
        size: number of replicas.
        net: holds the stacked tensors; its counts are those of one replica.
        moving: the parameters that the optimizer moves, leaves of autograd.
    """

    def __init__(self, nets: Sequence[Net], streams: Sequence[Stream]) -> None:
        self.size, self.net, self.streams = len(nets), copy.copy(nets[0]), streams
        self.net.counts = Counts()
        self.net.parameters = joined([net.parameters for net in nets])
        self.net.buffers = joined([net.buffers for net in nets])
        self.moving: Tensors = {}
        self.rate = 1.0
        self.optimizer: Optimizer | None = None

    def __call__(self, function: Callable[..., Any], *rows: Any) -> Any:
        """``function(net, *rows)`` for every replica; arguments and result are tensors, or dictionaries of them."""
        if self.size == 1:
            return function(self.net, *rows)

        def one(index: Tensor, parameters: Tensors, buffers: Tensors, *rows: Any) -> Any:
            for stream in self.streams:
                stream.index = index
            net = self.net.at(parameters, buffers)
            net.mapped = True
            return function(net, *rows)

        try:
            index = torch.arange(self.size)
            return torch.vmap(one)(index, self.net.parameters, self.net.buffers, *rows)
        finally:
            for stream in self.streams:
                stream.index = None

    def logits(self, x: Tensor, each: bool = False) -> Tensor:
        """Every replica's logits ``(replicas, n, classes)`` in evaluation mode, for samples ``(n, ...)``.

        Or with `each` for samples of its own, ``(replicas, n, ...)``, stacked as `joined` does it.
        """
        chunk = max(1, CHUNK // self.size)
        with torch.no_grad():
            if each:
                found: Tensor = self(lambda net, own: net.logits(own, chunk), x)
            else:
                found = self(lambda net: net.logits(x, chunk))
        return found[None] if self.size == 1 else found

    def gradients(self, losses: Tensor) -> Tensors:
        """The gradients of every replica's loss by its moving parameters, zero for those that it does not use."""
        # The sum, since gradients given for the outputs would have torch import sympy, for half a second.
        found = torch.autograd.grad(losses.sum(), list(self.moving.values()), allow_unused=True)
        return {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(self.moving.items(), found, strict=True)
        }

    def move(self, names: Sequence[str], optimizer: Callable[[Iterable[Tensor]], Optimizer], rate: float = 1.0) -> None:
        """Lets a fresh optimizer move the named parameters, and no others; nothing changes if it already does.

        It takes so many times its usual learning rate.
        """
        if list(self.moving) == names and self.rate == rate:
            return
        self.rate = rate
        parameters = {name: p.detach() for name, p in self.net.parameters.items()}
        self.moving = {name: parameters[name].clone(memory_format=torch.contiguous_format) for name in names}
        for parameter in self.moving.values():
            parameter.requires_grad_()
        self.net.parameters = {**parameters, **self.moving}
        self.net.differentiated = frozenset(names)
        self.optimizer = optimizer(self.moving.values()) if names else None
        if self.optimizer is not None:
            self.optimizer.learning_rate *= rate

    def step(self, gradients: Tensors) -> None:
        """One step of the optimizer, which works entry by entry, and so on each replica as if it were alone."""
        assert self.optimizer is not None
        self.optimizer.step([gradients[name] for name in self.moving])

    def finite(self) -> Tensor:
        """Whether a replica's moving parameters are all finite numbers, ``(replicas,)``."""
        checks = [p.detach().isfinite().reshape(self.size, -1).all(1).cpu() for p in self.moving.values()]
        return torch.stack(checks).all(0) if checks else torch.ones(self.size, dtype=torch.bool)

    def state(self) -> Tensors:
        """Parameters and buffers as they are now, stacked; later steps leave them alone."""
        return {
            **{name: p.detach().clone() if name in self.moving else p for name, p in self.net.parameters.items()},
            **{name: b.clone() for name, b in self.net.buffers.items()},
        }

    def restore(self, state: Tensors) -> None:
        """Sets parameters and buffers to a stacked state, before anything moves."""
        self.net.parameters = {name: state[name].clone() for name in self.net.parameters}
        self.net.buffers = {name: state[name].clone() for name in self.net.buffers}

    def row(self, state: Tensors, number: int) -> Tensors:
        """One replica's part of a stacked state."""
        return state if self.size == 1 else {name: t[number].clone() for name, t in state.items()}

    def keep(self, rows: Sequence[int]) -> Callable[[Any], Any]:
        """Lets the other replicas go; returns what takes the same rows of anything stacked alike."""

        def taken(tensor: Tensor) -> Tensor:
            return tensor.detach()[rows[0]].clone() if len(rows) == 1 else tensor.detach()[list(rows)]

        parameters = mapped(taken, self.net.parameters)
        self.net.buffers = mapped(taken, self.net.buffers)
        self.moving = {name: parameters[name].requires_grad_() for name in self.moving}
        self.net.parameters, self.size = parameters, len(rows)
        for stream in self.streams:
            stream.generators = tuple(stream.generators[i] for i in rows)
        if self.optimizer is not None:
            self.optimizer = self.optimizer.taken(self.moving.values(), taken)
        return lambda tree: mapped(taken, tree)


def joined(rows: Sequence[Any]) -> Any:
    """Tensors, or dictionaries of tensors, stacked as one; a single one as it is."""
    return rows[0] if len(rows) == 1 else mapped(lambda *tensors: torch.stack(tensors), *rows)


def mapped(function: Callable[..., Tensor], *trees: Any) -> Any:
    """The function of tensors, or of those that stand in the same places of dictionaries."""
    if isinstance(trees[0], dict):
        return {key: mapped(function, *(tree[key] for tree in trees)) for key in trees[0]}
    return function(*trees)


def parted(memo: Memo) -> tuple[Memo, Memo]:
    """The tensors of a memo (and dictionaries of tensors), and everything else."""
    tensors = {key: value for key, value in memo.items() if _holds_tensors(value)}
    return tensors, {key: value for key, value in memo.items() if key not in tensors}


def shared(parts: Sequence[Memo]) -> Memo:
    """What is no tensor in the memos of several replicas, if it is the same in all.

    Raises:
        InputError: names an entry that differs.
    """
    for other in parts[1:]:
        for key, value in parts[0].items():
            if not (other[key] is value or (isinstance(value, (bool, int, float, str)) and other[key] == value)):
                raise InputError(
                    f"expected the memo's entry {key!r} to be the same for all models, or tensors, or a dictionary of "
                    f"tensors, got {type(value).__name__}s that differ"
                )
    return parts[0]


def joinable(memos: Sequence[Memo]) -> bool:
    """Whether the memos of several replicas can be stacked: tensors of equal shapes, and all else the same."""
    parts = [parted(memo) for memo in memos]
    try:
        shared([rest for _, rest in parts])
        return all(_shapes(tensors) == _shapes(parts[0][0]) for tensors, _ in parts)
    except (InputError, KeyError):
        return False


def _shapes(tree: Any) -> Any:
    return {key: _shapes(value) for key, value in tree.items()} if isinstance(tree, dict) else (tree.shape, tree.dtype)


def _holds_tensors(value: object) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, dict) and all(map(_holds_tensors, value.values())))
