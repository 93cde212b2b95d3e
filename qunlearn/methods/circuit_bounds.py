r"""Constants of a circuit that hold for every data set and every angle.

A gate is ``exp(-i angle G / 2)``. A derivative by the angle puts ``(i / 2) [G, .]`` around the observable, whose norm
is at most half the spread of G's eigenvalues times that of the observable; what stands between gates, channels
included, lengthens nothing. So with ``s_j`` the sum over the gates of weight j of |scale| times half that spread (1 for
rotations and controlled rotations), expectation values f of Pauli strings have

.. math:: |D^k f(\theta)[v, \dots, v]| \le \Big( \sum_j s_j |v_j| \Big)^k \le (S \|v\|_2)^k, \qquad S = \|s\|_2
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.gates import spectrum
from qunlearn.quantum.layer import QuantumLayer, weight_periods


def weight_slopes(circuit: Circuit) -> Tensor:
    """The bounds s ``(weights,)`` float64 on the derivative of any expectation value; inf where features multiply."""
    slopes = torch.zeros(circuit.weights, dtype=torch.float64)
    for gate in circuit.gates:
        if gate.angle is not None and gate.angle.weight is not None:
            values, _ = spectrum(gate.name)
            spread = float(values.max() - values.min()) / 2
            slopes[gate.angle.weight] += math.inf if gate.angle.factors else abs(gate.angle.scale) * spread
    return slopes


def hessian_lipschitz(circuit: Circuit) -> float:
    r"""M, the Lipschitz constant of the Hessian of the mean cross entropy whose logits are the expectation values.

    Along a unit direction the logits z have derivatives of at most S, S^2 and S^3, and

    .. math:: \ell''' = D\ell[z'''] + 3\, D^2\ell[z', z''] + D^3\ell[z', z', z']
              \le 2 S^3 + 3 S^3 + \frac{4 \sqrt 3}{9} S^3

    since ``D l[u] = E_p u - u_y``, ``D^2 l[u, w] = Cov_p(u, w)``, and ``D^3 l[u, u, u]`` is the third central moment
    of u, for values in [-a, a] at most ``(2 a)^3 sqrt(3) / 18``. The largest third derivative along directions is the
    norm of the whole tensor, which is symmetric.
    """
    return (5 + 4 * math.sqrt(3) / 9) * float(torch.linalg.vector_norm(weight_slopes(circuit))) ** 3


def diameter(circuit: Circuit) -> float:
    """The largest distance in radians between two sets of angles, each taken to its nearest period."""
    return float(torch.linalg.vector_norm(weight_periods(circuit))) / 2


def bare_circuit(model: nn.Module) -> QuantumLayer | None:
    """The circuit of a model that is nothing else: its expectation values are the logits, its angles all there is.

    The layer itself, or a ``Sequential`` that ends with it and holds no other parameter and no buffer; None for
    anything else, and for a circuit in which features multiply weights, so that no period exists.
    """
    last = model[-1] if isinstance(model, nn.Sequential) and len(model) else model
    if not isinstance(last, QuantumLayer) or any(True for _ in model.buffers()):
        return None
    alone = all(parameter is last.weights for parameter in model.parameters()) and last.weights.requires_grad
    return last if alone and math.isfinite(diameter(last.circuit)) else None
