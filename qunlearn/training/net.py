"""A functional view of a module: its outputs as a function of parameters held outside it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import grad

from qunlearn.errors import InputError, UnsupportedError
from qunlearn.models.stages import stages
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.counting import INPUTS, Counts, Price

Tensors = dict[str, Tensor]
CHUNK = 4096  # samples a forward pass takes at once where no derivative is needed


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every submodule is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class Net:
    """What a loss sees instead of the module: ``net(x)`` are the logits ``(batch, classes)``.

    Parameters and buffers live in the dictionaries `parameters` and `buffers`; the module itself is
    never written to. Everything that runs samples through the module passes here, and is counted here.
    A loss differentiates only by `gradient` and `input_gradient`, which work inside `torch.vmap` as well.
    """

    def __init__(self, module: nn.Module, counts: Counts | None = None) -> None:
        self.module = module
        self.parameters: Tensors = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.buffers: Tensors = {name: b.detach().clone() for name, b in module.named_buffers()}
        self.counts = counts if counts is not None else Counts()
        self.price = Price(module)
        names = {id(t): name for name, t in (*module.named_parameters(), *module.named_buffers())}
        self._places: list[tuple[dict[str, Any], str, Tensor, str]] = [
            (held, key, tensor, names[id(tensor)])
            for part in module.modules()
            for held in (part._parameters, part._buffers)
            for key, tensor in held.items()
            if tensor is not None
        ]
        self.differentiated: frozenset[str] = frozenset()
        self.mapped = False  # whether it runs inside torch.vmap, where only torch.func differentiates

    def __call__(self, x: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` for samples ``(batch, ...)``."""
        self._count(len(x))
        # What torch.func.functional_call does, at a tenth of its time.
        tensors = {**self.parameters, **self.buffers}
        for held, key, _, name in self._places:
            held[key] = tensors[name]
        try:
            return cast(Tensor, self.module(x))
        finally:
            for held, key, tensor, _ in self._places:
                held[key] = tensor

    def stage(self, name: str, x: Tensor) -> Tensor:
        """The activation that a stage of the module hands on, for samples ``(batch, ...)``."""
        chosen = {stage.name: stage for stage in stages(self.module)}
        if name not in chosen:
            raise InputError(f"expected one of the stages {', '.join(chosen)}, got {name!r}")
        caught: list[Tensor] = []
        hook = self.module.get_submodule(chosen[name].module).register_forward_hook(
            lambda _module, _inputs, output: caught.append(output)
        )
        try:
            self(x)
        finally:
            hook.remove()
        return caught[-1]

    def at(self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor] | None = None) -> Net:
        """The same view with some parameters (or all buffers) replaced; counts go to the same place."""
        other = copy.copy(self)
        other.parameters = {**self.parameters, **parameters}
        other.buffers = dict(buffers) if buffers is not None else self.buffers
        return other

    def gradient(self, loss: Callable[[Net], Tensor]) -> Tensors:
        """The gradient of ``loss(net)`` by every parameter that requires one; running statistics stay as they are."""

        def value(parameters: Tensors) -> Tensor:
            net = self.at(parameters, {name: b.clone() for name, b in self.buffers.items()})
            net.differentiated = frozenset(parameters)
            return loss(net)

        trained = [name for name, parameter in self.module.named_parameters() if parameter.requires_grad]
        given = {name: self.parameters[name].detach() for name in trained}
        if self.mapped:
            return cast(Tensors, grad(value)(given))
        leaves = {name: p.requires_grad_() for name, p in given.items()}
        with torch.enable_grad():
            return dict(zip(trained, _derivatives(value(leaves), list(leaves.values())), strict=True))

    def input_gradient(self, loss: Callable[[Net, Tensor], Tensor], x: Tensor) -> Tensor:
        """The gradient of ``loss(net, x)`` by x, ``(batch, ...)``; running statistics move as in any forward."""

        def value(x: Tensor) -> tuple[Tensor, Tensors]:
            buffers = {name: b.clone() for name, b in self.buffers.items()}
            net = self.at({name: p.detach() for name, p in self.parameters.items()}, buffers)
            net.differentiated = frozenset({INPUTS})
            return loss(net, x), buffers

        if self.mapped:
            gradient, buffers = grad(value, has_aux=True)(x)
        else:
            leaf = x.detach().requires_grad_()
            with torch.enable_grad():
                found, buffers = value(leaf)
                (gradient,) = _derivatives(found, [leaf])
        for name, buffer in buffers.items():
            self.buffers[name].copy_(buffer.detach())
        return cast(Tensor, gradient)

    @torch.no_grad()
    def logits(self, x: Tensor, chunk: int | None = None) -> Tensor:
        """Logits ``(n, classes)`` in evaluation mode, with no derivative, of so many samples at a time."""
        frozen = self.at({})
        frozen.differentiated = frozenset()
        with evaluating(self.module):
            parts = [frozen(part) for part in torch.split(x, chunk or CHUNK)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def state(self) -> Tensors:
        """A copy of parameters and buffers, detached."""
        return {name: t.detach().clone() for name, t in {**self.parameters, **self.buffers}.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Sets parameters and buffers to a state."""
        self.parameters = {name: state[name].clone() for name in self.parameters}
        self.buffers = {name: state[name].clone() for name in self.buffers}

    def write_back(self) -> nn.Module:
        """Puts parameters and buffers into the module, and returns it."""
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(self.parameters[name])
            for name, buffer in self.module.named_buffers():
                buffer.copy_(self.buffers[name])
        return self.module

    def _count(self, samples: int) -> None:
        self.counts.circuit_evaluations += samples * self.price.circuits
        self.counts.hardware_circuits += samples * self.price.circuits
        if self.differentiated:
            self.counts.gradient_evaluations += samples
            self.counts.hardware_circuits += samples * self.price.shifts(self.differentiated)


def _derivatives(value: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """The derivatives of a scalar by leaves of autograd, zero for those that it does not depend on.

    What `torch.func.grad` gives, without torch's compiler, which that imports: a second in every worker.
    """
    if not value.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)


def _exact(module: nn.Module) -> nn.Module:
    """The module itself, or where backends or noise run its circuits, a copy that runs them without."""
    if not any(isinstance(part, QuantumLayer) and (part.backend or part.circuit.noisy) for part in module.modules()):
        return module
    copied = copy.deepcopy(module)
    for part in copied.modules():
        if isinstance(part, QuantumLayer):
            part.circuit, part.backend, part.engine = part.circuit.without_noise(), None, "auto"
    return copied


@torch.no_grad()
def check_functional(module: nn.Module, x: Tensor) -> None:
    """Refuses a module whose outputs do not follow the parameters that `Net` or `torch.func` hands it.

    PennyLane's ``TorchLayer`` is one: it reads a second dictionary of weights, so that functional
    gradients are silently wrong. The outputs at moved parameters must be those of a copy that really
    holds the moved parameters. `x` has shape ``(batch, ...)``; one sample is enough. Circuits run exactly meanwhile:
    two runs with shots differ by themselves, and a backend may charge for them.

    Raises:
        UnsupportedError: says what to do.
    """
    module = _exact(module)
    moved = {name: p.detach() + 0.1 for name, p in module.named_parameters()}
    twin = copy.deepcopy(module).eval()
    for name, parameter in twin.named_parameters():
        parameter.copy_(moved[name])
    with evaluating(module):
        same = torch.allclose(Net(module).at(moved)(x), twin(x), equal_nan=True)
    if not same:
        raise UnsupportedError(
            f"expected a module whose outputs follow torch.func.functional_call, got {type(module).__name__}, which "
            "ignores it (PennyLane's TorchLayer does), so that its gradients would be silently wrong; call the QNode "
            "in the forward of a module of your own with the weights as arguments, or use qunlearn.QuantumLayer"
        )
