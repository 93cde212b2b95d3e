"""The optimizers of the loop: one fused step over a few leaf tensors, entry by entry.

Those of `torch.optim` import torch's compiler when the first is made, a second of processor time in every worker.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor


class Optimizer(ABC):
    """Moves leaf tensors by their gradients.

    Args:
        parameters: what it moves, in place.
        learning_rate: the step size.
        weight_decay: L2 coefficient, added to the gradient.
    """

    def __init__(self, parameters: Iterable[Tensor], *, learning_rate: float, weight_decay: float) -> None:
        self.parameters = [_real(p.detach()) for p in parameters]
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.state = self.start()

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """One step; a gradient for each parameter, of its shape."""
        if self.parameters:
            self.move([_real(gradient).contiguous() for gradient in gradients])

    def taken(self, parameters: Iterable[Tensor], rows: Callable[[Tensor], Tensor]) -> Self:
        """This optimizer as far as it has come, for some rows of its parameters; `rows` takes them of a tensor."""
        other = type(self)(parameters, learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        for name, tensors in self.state.items():
            other.state[name] = [rows(tensor) if tensor.dim() else tensor.clone() for tensor in tensors]
        return other

    @abstractmethod
    def start(self) -> dict[str, list[Tensor]]:
        """What it remembers before the first step, a tensor a parameter under each name; a count has no dimension."""

    @abstractmethod
    def move(self, gradients: list[Tensor]) -> None:
        """One step by gradients that are real and contiguous."""


class Adam(Optimizer):
    """Adam with betas 0.9 and 0.999, the same as ``torch.optim.Adam(fused=True)`` to the last bit.

    m <- 0.9 m + 0.1 g, v <- 0.999 v + 0.001 g^2, p <- p - rate (m / (1 - 0.9^t)) / (sqrt(v / (1 - 0.999^t)) + 1e-8).

    Source: Kingma and Ba 2015, arXiv 1412.6980.
    """

    def start(self) -> dict[str, list[Tensor]]:
        """Means and mean squares of the gradients, and the count of steps."""
        return {
            "means": [torch.zeros_like(p) for p in self.parameters],
            "squares": [torch.zeros_like(p) for p in self.parameters],
            "steps": [torch.zeros((), device=p.device) for p in self.parameters],
        }

    def move(self, gradients: list[Tensor]) -> None:
        """One step."""
        means, squares, steps = self.state.values()
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            self.parameters, gradients, means, squares, [], steps, lr=self.learning_rate, beta1=0.9, beta2=0.999,
            weight_decay=self.weight_decay, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip


class SGD(Optimizer):
    """Gradient descent with momentum 0.9, the same as ``torch.optim.SGD(momentum=0.9, fused=True)`` to the last bit.

    v <- 0.9 v + g, p <- p - rate v.
    """

    def start(self) -> dict[str, list[Tensor]]:
        """The momenta."""
        return {"momenta": [torch.zeros_like(p) for p in self.parameters]}

    def move(self, gradients: list[Tensor]) -> None:
        """One step."""
        torch._fused_sgd_(
            self.parameters, gradients, self.state["momenta"], lr=self.learning_rate, momentum=0.9,
            weight_decay=self.weight_decay, dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
        )  # fmt: skip


def _real(tensor: Tensor) -> Tensor:
    """A view of complex numbers as pairs of real ones, which move alike."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
