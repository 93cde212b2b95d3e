"""How strongly each sample pulls at the weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from qunlearn.evaluation.audit.subject import Subject
from qunlearn.training.net import Net, Tensors, evaluating
from qunlearn.training.replicas import obstacle

Floats = npt.NDArray[np.float64]
NUMBERS = 2**22  # gradient entries held at once


def gradient_norms(subject: Subject, name: str) -> Floats | str:
    """Euclidean norm of each sample's gradient of the cross-entropy by all parameters, ``(n,)``.

    Args:
        subject: the model, in evaluation mode.
        name: of the set.

    Returns:
        A sentence that says why there are none.
    """
    if not subject.trainable:
        return "the model has no parameters that training moves"
    data = subject.sets[name]
    x, y = subject.inputs(data.x), data.y
    net = Net(subject.model)
    size = sum(net.parameters[name].numel() for name in subject.trainable)
    chunk = max(1, NUMBERS // size) if obstacle(subject.model) is None else 1
    with evaluating(subject.model):
        parts = zip(torch.split(x, chunk), torch.split(y.to(x.device), chunk), strict=True)
        squares = [_squares(net, subject.trainable, *part) for part in parts]
    return torch.cat(squares).sqrt().cpu().numpy()


def _squares(net: Net, names: list[str], x: Tensor, y: Tensor) -> Tensor:
    """Squared norms ``(n,)``: each sample has parameters of its own, so that one backward pass parts the gradients."""
    own = {name: net.parameters[name].expand(len(x), *net.parameters[name].shape).clone() for name in names}
    leaves = {name: part.requires_grad_() for name, part in own.items()}

    def loss(parameters: Tensors, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(net.at(parameters)(x[None]), y[None])

    if len(x) == 1:  # a single sample runs without torch.vmap, which not every model allows
        losses = loss({name: part[0] for name, part in leaves.items()}, x[0], y[0])
    else:
        losses = torch.vmap(loss)(leaves, x, y)
    found = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return torch.stack([part.abs().double().square().flatten(1).sum(1) for part in found]).sum(0)
