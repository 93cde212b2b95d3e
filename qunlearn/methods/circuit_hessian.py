"""The exact Hessian of a hybrid model, by first derivatives of its circuit alone.

With z the circuit's expectation values, theta its angles, w the head's weights and l the loss of a sample:

    H_ww = l_ww,    H_theta,w = J^T l_zw,    H_theta,theta = J^T l_zz J + d/dtheta (J^T l_z) at l_z held still,

all means over the samples. J is one derivative for each observable; the last term follows from each gate's own shift
rule, exact as well, from twice as many first derivatives as there are angles (four times for controlled rotations).
What is left of second order belongs to the head, and is cheap.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.func import functional_call, grad, jacrev
from torch.nn.functional import cross_entropy

from qunlearn.models import HybridClassifier
from qunlearn.quantum.gates import gate
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.net import Net, Tensors

ANGLES = "quantum.weights"
AT_ONCE = 64  # shifted circuits whose derivatives are taken together


def splits(net: Net) -> bool:
    """Whether a model's Hessian comes apart like this.

    It must be a `HybridClassifier` whose circuit runs exactly, with every angle in one gate only and multiplied by no
    feature, and with nothing before the circuit that requires a gradient.
    """
    model = net.module
    if type(model) is not HybridClassifier or not isinstance(model.quantum, QuantumLayer):
        return False
    layer = model.quantum
    if layer.backend is not None or layer.circuit.noisy or layer.engine not in ("auto", "fused", "torch"):
        return False
    used = [item.angle for item in layer.circuit.gates if item.angle is not None and item.angle.weight is not None]
    alone = len({angle.weight for angle in used}) == len(used) and not any(angle.factors for angle in used)
    return alone and not any(parameter.requires_grad for parameter in model.encoder.parameters())


class CircuitHessian:
    """The second derivatives of the mean cross entropy of a model that `splits`; nothing is counted here.

    Args:
        net: of the model, in evaluation mode.
    """

    def __init__(self, net: Net) -> None:
        self.model = cast(HybridClassifier, net.module)
        self.angles = net.parameters[ANGLES].detach()
        self.encoder = _below(net, "encoder")
        self.head = Net(self.model.head)
        self.head.parameters = {name: net.parameters[f"head.{name}"] for name in self.head.parameters}
        self.head.buffers = {name: net.buffers[f"head.{name}"] for name in self.head.buffers}

    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The circuit's features ``(n, features)`` and expectation values ``(n, observables)``."""
        with torch.no_grad():
            features = functional_call(self.model.encoder, self.encoder, (x.to(self.angles.dtype),))
            return features, self._circuit(self.angles, features)

    def blocks(self, features: Tensor, z: Tensor, y: Tensor, weights: Tensors) -> tuple[Tensor, Tensor]:
        """Sums over samples: ``(angles, angles)``, and ``(angles, weights of the head)``."""

        def value(z: Tensor, weights: Tensors, y: Tensor) -> Tensor:
            return cross_entropy(self.head.at(weights)(z[None]), y[None])

        mapped = (0, None, 0)
        slopes = torch.vmap(grad(value), mapped)(z, weights, y)
        bends = torch.vmap(jacrev(grad(value)), mapped)(z, weights, y)
        jacobian = torch.vmap(jacrev(self._circuit), (None, 0))(self.angles, features)
        turned = torch.einsum("nop,noq,nqr->pr", jacobian, bends, jacobian) + self._turned(features, slopes)
        if not weights:
            return turned.detach(), turned[:, :0].detach()
        mixed = torch.vmap(jacrev(grad(value), 1), mapped)(z, weights, y)
        across = [torch.einsum("nop,no...->p...", jacobian, part).flatten(1) for part in mixed.values()]
        return turned.detach(), torch.cat(across, 1).detach()

    def _turned(self, features: Tensor, slopes: Tensor) -> Tensor:
        """``(angles, angles)``: how the gradient of ``sum(slopes * z)`` changes with each angle, by shifts."""
        places, factors, shifts = [], [], []
        for item in cast(QuantumLayer, self.model.quantum).circuit.gates:
            if item.angle is not None and item.angle.weight is not None:
                for coefficient, shift in gate(item.name).shift_rule:
                    places.append(item.angle.weight)
                    factors.append(item.angle.scale * coefficient)
                    shifts.append(shift / item.angle.scale if item.angle.scale else 0.0)
        found = torch.zeros(len(self.angles), len(self.angles)).to(self.angles)
        if not places:
            return found
        at = torch.tensor(places, device=found.device)
        steps = torch.zeros(len(places), len(self.angles)).to(found)
        steps[torch.arange(len(places)), at] = torch.tensor(shifts, dtype=torch.float64).to(found)

        def projected(angles: Tensor) -> Tensor:
            return (slopes * self._circuit(angles, features)).sum()

        gradients = torch.vmap(grad(projected), chunk_size=AT_ONCE)(self.angles + steps)
        return found.index_add(0, at, torch.tensor(factors, dtype=torch.float64).to(found)[:, None] * gradients)

    def _circuit(self, angles: Tensor, features: Tensor) -> Tensor:
        return cast(Tensor, functional_call(self.model.quantum, {"weights": angles}, (features,)))


def _below(net: Net, path: str) -> Tensors:
    """Parameters and buffers of a submodule, under its own names."""
    tensors, start = {**net.parameters, **net.buffers}, f"{path}."
    return {name.removeprefix(start): t.detach() for name, t in tensors.items() if name.startswith(start)}
