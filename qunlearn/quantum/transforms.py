"""What PyTorch's transforms ask of a function that does its own derivatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack, get_unwrapped, is_functorch_wrapped_tensor
from torch.autograd import forward_ad

from qunlearn.errors import UnsupportedError


def is_tracked(tensor: Tensor) -> bool:
    """Whether a derivative by this tensor may be asked for: by autograd, or by a transform of ``torch.func``."""
    backwards, forwards = torch.is_grad_enabled(), torch._C._is_fwd_grad_enabled()
    while True:
        if backwards and tensor.requires_grad:
            return True
        if forwards and _has_tangent(tensor):
            return True
        if not is_functorch_wrapped_tensor(tensor):
            return False
        tensor = get_unwrapped(tensor)


def _has_tangent(tensor: Tensor) -> bool:
    if forward_ad._current_level < 0:
        return False
    tangent: Tensor | None = forward_ad.unpack_dual(tensor).tangent  # type: ignore[no-untyped-call]
    return tangent is not None


def check_one_forward_mode(where: str, instead: str) -> None:
    """Refuses a forward-mode derivative inside another, whose tangents PyTorch would silently lose.

    PyTorch runs the rule of a custom function without the tangents of an outer forward mode.

    Raises:
        UnsupportedError: names `where` it was asked for, and what to do `instead`.
    """
    if sum(level.key() == TransformType.Jvp for level in get_interpreter_stack() or []) > 1:
        raise UnsupportedError(
            "expected at most one forward-mode derivative, got one inside another, which PyTorch does not support for "
            f"{where}; use torch.func.hessian, or jacrev inside{instead}"
        )
