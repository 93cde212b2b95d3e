"""Exact derivatives of a model's losses that methods edit weights by: sample by sample, and of second order.

All are taken in evaluation mode at the net's parameters, by those parameters that require a gradient, and counted
where the net counts. Vectors ``(P,)`` and matrices ``(P, P)`` have the entries of all these parameters one after
another, in the order of ``module.named_parameters()``; `flattened` and `unflattened` go there and back.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, jacrev, vjp
from torch.nn.functional import cross_entropy

from qunlearn.errors import NumericalError
from qunlearn.methods.circuit_hessian import ANGLES, CircuitHessian, splits
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.counting import Counts
from qunlearn.training.net import Net, Tensors, evaluating

SampleLoss = Callable[[Net, Tensor, Tensor], Tensor]  # (net, x (batch, ...), y (batch,)) -> scalar, a mean over them
Product = Callable[[Tensor], Tensor]  # a symmetric matrix times a vector, both (P,)

NUMBERS = 1 << 24  # entries of the derivatives that are held at once
ROWS = 256  # samples whose graph is held for second derivatives
UNITS = 32  # derivatives of a gradient that are taken at once


def task_loss(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """CE(f(x), y), the mean over the batch in nats."""
    return cross_entropy(net(x), y)


def trained(net: Net) -> Tensors:
    """The parameters that require a gradient, detached, by name."""
    names = [name for name, parameter in net.module.named_parameters() if parameter.requires_grad]
    return {name: net.parameters[name].detach() for name in names}


def flattened(tensors: Mapping[str, Tensor]) -> Tensor:
    """All entries one after another, ``(P,)``."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


def unflattened(vector: Tensor, like: Mapping[str, Tensor]) -> Tensors:
    """The entries ``(P,)`` as tensors of the names, shapes and dtypes of others."""
    parts = torch.split(vector, [tensor.numel() for tensor in like.values()])
    return {name: part.reshape(t.shape).to(t) for (name, t), part in zip(like.items(), parts, strict=True)}


def gradient(net: Net, x: Tensor, y: Tensor, loss: SampleLoss = task_loss) -> Tensors:
    """The gradient of the mean loss over samples ``(n, ...)`` with labels ``(n,)``."""
    total: Tensors = {}
    with evaluating(net.module):
        for rows, labels in _parts(x, y, ROWS):
            share = len(rows) / len(x)
            part = net.gradient(lambda n, rows=rows, labels=labels: loss(n, rows, labels))  # type: ignore[misc]
            total = {name: share * g + total.get(name, 0) for name, g in part.items()}
    return total


def sample_gradients(net: Net, x: Tensor, y: Tensor, loss: SampleLoss = task_loss) -> Iterator[Tensors]:
    """The gradient of every sample's own loss, ``(some samples, ...)`` for each parameter, in order."""
    parameters = trained(net)
    for rows, labels in _parts(x, y, max(1, NUMBERS // _size(parameters))):
        yield _mapped(net, lambda n, row, label: loss(n, row[None], label[None]), grad, rows, labels)


def logit_jacobians(net: Net, x: Tensor) -> Iterator[tuple[Tensors, Tensor]]:
    """The derivatives of every sample's logits, ``(some samples, classes, ...)``, and its logits, in order."""
    logits = net.logits(x)
    classes = logits.shape[1]
    size = max(1, NUMBERS // (_size(trained(net)) * classes))
    for rows, outputs in _parts(x, logits, size):
        jacobians = _mapped(net, lambda n, row, _: n(row[None])[0], jacrev, rows, outputs)
        # A derivative an output; the shift rule gives those of all outputs from the same circuits.
        net.counts.gradient_evaluations += len(rows) * (classes - 1)
        yield jacobians, outputs


def empirical_fisher(net: Net, x: Tensor, y: Tensor, loss: SampleLoss = task_loss) -> Tensors:
    r"""The mean of squared gradients sample by sample, ``mean_i (d_j loss_i)^2``, under the labels given."""
    squares = ({name: g.square() for name, g in part.items()} for part in sample_gradients(net, x, y, loss))
    return mean_over(squares)


def true_fisher(net: Net, x: Tensor) -> Tensors:
    r"""The Fisher information's diagonal, labels drawn by the model: exact, no label is sampled.

    .. math:: F_j = \operatorname{mean}_i \sum_k p_k(x_i)\, (\partial_j \ln p_k(x_i))^2
    """
    return mean_over({name: s.square().sum(1) for name, s in part.items()} for part in _scores(net, x))


def mean_over(parts: Iterable[Tensors]) -> Tensors:
    """The mean over samples of what comes as ``(some samples, ...)``, part after part."""
    total: Tensors = {}
    samples = 0
    for part in parts:
        samples += len(next(iter(part.values())))
        total = {name: values.sum(0) + total.get(name, 0) for name, values in part.items()}
    return {name: values / samples for name, values in total.items()}


def gauss_newton(net: Net, x: Tensor) -> Tensor:
    r"""The generalised Gauss-Newton matrix ``(P, P)`` of the mean cross entropy: the whole Fisher matrix.

    .. math:: G = \operatorname{mean}_i J_i^T (\operatorname{diag} p_i - p_i p_i^T) J_i
    """
    total: Tensor | float = 0.0
    for scores in _scores(net, x):
        rows = torch.cat([s.flatten(2).flatten(0, 1) for s in scores.values()], 1)
        total = total + rows.T @ rows
    return cast(Tensor, total) / len(x)


def gauss_newton_product(net: Net, x: Tensor) -> Product:
    """`gauss_newton` times a vector, without the matrix."""
    view = _reference(net)

    def product(vector: Tensor) -> Tensor:
        def part(net: Net, leaves: Tensors, rows: Tensor, _: Tensor) -> Tensor:
            logits = net(rows)
            net.counts.gradient_evaluations += len(rows)  # one derivative along the vector, one back
            tangent = _tangent(logits, leaves, vector)
            shares = torch.softmax(logits, 1).detach()
            weighted = shares * (tangent - (shares * tangent).sum(1, keepdim=True))
            return _derivatives((logits * weighted).sum() / len(rows), leaves)

        return _averaged(view, x, x, part)

    return product


def hessian(net: Net, x: Tensor, y: Tensor, loss: SampleLoss = task_loss) -> Tensor:
    """The matrix ``(P, P)`` of second derivatives of the mean loss over samples ``(n, ...)`` with labels ``(n,)``.

    By the derivatives of the gradient along every parameter; for the cross entropy of a hybrid model that
    `circuit_hessian.splits`, by first derivatives of its circuit, which is the same and faster. Made symmetric to the
    last bit, and counted alike.
    """
    apart = loss is task_loss and splits(net)
    view, total = net if apart else _reference(net), torch.zeros(())
    with evaluating(view.module):
        for rows, labels in _parts(x, y, ROWS):
            found = _by_blocks(view, rows, labels) if apart else _by_pullback(view, rows, labels, loss)
            total = total.to(found) + found
    return (total + total.T) / (2 * len(x))


def hessian_product(net: Net, x: Tensor, y: Tensor, loss: SampleLoss = task_loss) -> Product:
    """`hessian` times a vector, without the matrix."""
    view = _reference(net)

    def product(vector: Tensor) -> Tensor:
        def part(net: Net, leaves: Tensors, rows: Tensor, labels: Tensor) -> Tensor:
            slopes = _derivatives(loss(net, rows, labels), leaves, again=True)
            _count_second(net, len(rows), 1)
            return _derivatives((slopes * vector.to(slopes)).sum(), leaves)

        return _averaged(view, x, y, part)

    return product


class NegativeCurvatureError(NumericalError):
    """Conjugate gradients met a direction in which the matrix is not positive."""


@dataclass(frozen=True, eq=False)
class Solution:
    """What `conjugate_gradients` found.

    Attributes:
        vector: ``(P,)``, float64.
        steps: products with the matrix.
        residual: norm of what is left of the target, relative to the target's.
    """

    vector: Tensor
    steps: int
    residual: float


def conjugate_gradients(
    product: Product, target: Tensor, *, damping: float = 0.0, tolerance: float = 1e-6, steps: int = 1000
) -> Solution:
    """Solves ``(A + damping) v = target`` for a symmetric A that is known by its products, by SciPy.

    Args:
        product: A times a vector ``(P,)``.
        target: ``(P,)``.
        damping: added to A's diagonal.
        tolerance: of the residual's norm, relative to the target's.
        steps: products at most; what is reached by then is returned, with its residual.

    Raises:
        NegativeCurvatureError: where A with the damping is not positive along a direction that was met.
    """
    from scipy.sparse.linalg import LinearOperator, cg

    wanted, done = target.detach().double().cpu().numpy(), 0

    def damped(vector: np.ndarray) -> np.ndarray:
        nonlocal done
        done += 1
        given = torch.from_numpy(vector.reshape(-1)).to(target.device)
        found = product(given).double().cpu().numpy() + damping * vector.reshape(-1)
        if float(vector.reshape(-1) @ found) <= 0 < float(np.abs(vector).max()):
            raise NegativeCurvatureError("expected a positive matrix, got a direction of none; raise the damping")
        return cast(np.ndarray, found)

    size = len(wanted)
    operator = LinearOperator((size, size), matvec=damped, dtype=np.float64)
    vector, _ = cg(operator, wanted, rtol=tolerance, atol=0.0, maxiter=steps)
    taken, norm = done, float(np.linalg.norm(wanted))
    residual = float(np.linalg.norm(wanted - damped(vector))) / norm if norm else 0.0
    return Solution(torch.from_numpy(vector).to(target.device), taken, residual)


def _mapped(
    net: Net,
    function: Callable[[Net, Tensor, Tensor], Tensor],
    derivative: Callable[[Callable[..., Tensor]], Callable[..., Tensors]],
    x: Tensor,
    rows: Tensor,
) -> Tensors:
    """A derivative of ``function(net, x_i, row_i)`` by the trained parameters for every sample; one counted each."""
    parameters, counts = trained(net), Counts()

    def of_parameters(parameters: Tensors, x: Tensor, row: Tensor) -> Tensor:
        view = net.at(parameters)
        view.mapped, view.differentiated, view.counts = True, frozenset(parameters), counts
        return function(view, x, row)

    with evaluating(net.module):
        found: Tensors = torch.vmap(derivative(of_parameters), (None, 0, 0))(parameters, x, rows)
    for name, value in vars(counts).items():  # mapped over, a sample is seen once for all
        setattr(net.counts, name, getattr(net.counts, name) + value * len(x))
    return {name: tensor.detach() for name, tensor in found.items()}


def _scores(net: Net, x: Tensor) -> Iterator[Tensors]:
    """``sqrt(p_k) d ln p_k`` of every sample and class k, ``(some samples, classes, ...)``."""
    for jacobians, logits in logit_jacobians(net, x):
        shares = torch.softmax(logits, 1)
        scores: Tensors = {}
        for name, jacobian in jacobians.items():
            p = shares.reshape(*shares.shape, *[1] * (jacobian.dim() - 2))
            scores[name] = p.sqrt() * (jacobian - (p * jacobian).sum(1, keepdim=True))
        yield scores


def _averaged(net: Net, x: Tensor, y: Tensor, part: Callable[[Net, Tensors, Tensor, Tensor], Tensor]) -> Tensor:
    """The mean over samples of what ``part(net, leaves, rows, labels)`` gives of some, from leaves of autograd."""
    total: Tensor | float = 0.0
    with evaluating(net.module), torch.enable_grad():
        for rows, labels in _parts(x, y, ROWS):
            leaves = {name: p.clone().requires_grad_() for name, p in trained(net).items()}
            view = net.at(leaves)
            view.differentiated = frozenset(leaves)
            total = total + part(view, leaves, rows, labels).detach() * (len(rows) / len(x))
    return cast(Tensor, total)


def _reference(net: Net) -> Net:
    """The same view with circuits run by the reference engine, which higher derivatives come from anyway.

    Asked directly, it keeps one graph for all of them. Circuits with noise or on a backend stay where they are.
    """
    module = copy.deepcopy(net.module)
    for part in module.modules():
        if isinstance(part, QuantumLayer) and part.engine in ("auto", "fused") and not part.circuit.noisy:
            part.engine = "torch"
    view = Net(module, net.counts)
    view.parameters, view.buffers = dict(net.parameters), dict(net.buffers)
    return view


def _by_pullback(net: Net, x: Tensor, y: Tensor, loss: SampleLoss) -> Tensor:
    """The sum over samples of second derivatives, ``(P, P)``."""
    parameters = trained(net)

    def value(vector: Tensor) -> Tensor:
        view = net.at(unflattened(vector, parameters))
        view.mapped, view.differentiated = True, frozenset(parameters)
        return loss(view, x, y) * len(x)

    start = flattened(parameters)
    _, pull, *_ = vjp(grad(value), start)
    _count_second(net, len(x), len(start))
    return cast(Tensor, torch.vmap(lambda unit: pull(unit)[0], chunk_size=UNITS)(torch.eye(len(start)).to(start)))


def _by_blocks(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """The same for a model that comes apart behind its circuit."""
    parameters, parts = trained(net), CircuitHessian(net)
    features, z = parts.values(x)
    of_circuit = torch.cat([torch.full((t.numel(),), n == ANGLES) for n, t in parameters.items()]).to(x.device)
    angles, others = of_circuit.nonzero().flatten(), (~of_circuit).nonzero().flatten()
    matrix = torch.zeros(len(of_circuit), len(of_circuit)).to(z)
    if len(others):
        matrix[others[:, None], others] = _by_pullback(parts.head, z, y, task_loss)
    if len(angles):
        matrix[angles[:, None], angles], across = parts.blocks(features, z, y, trained(parts.head))
        matrix[angles[:, None], others], matrix[others[:, None], angles] = across, across.T
    net.counts.circuit_evaluations += len(x) * net.price.circuits
    net.counts.hardware_circuits += len(x) * (net.price.circuits + net.price.shifts(frozenset(parameters)))
    _count_second(net, len(x), 1 + len(of_circuit))
    return matrix


def _derivatives(value: Tensor, leaves: Tensors, *, again: bool = False, keep: bool = False) -> Tensor:
    """The derivatives ``(P,)`` of a scalar by leaves, zero where it does not depend on them."""
    if not value.requires_grad:
        return torch.cat([torch.zeros_like(leaf).reshape(-1) for leaf in leaves.values()])
    found = torch.autograd.grad(
        value, list(leaves.values()), create_graph=again, retain_graph=again or keep, materialize_grads=True
    )
    return torch.cat([slope.reshape(-1) for slope in found])


def _tangent(outputs: Tensor, leaves: Tensors, vector: Tensor) -> Tensor:
    """How outputs ``(n, classes)`` change along a vector ``(P,)``: the pullback is linear, and its pullback is that."""
    weights = torch.zeros_like(outputs, requires_grad=True)
    pulled = _derivatives((outputs * weights).sum(), leaves, again=True)
    return _derivatives((pulled * vector.to(pulled)).sum(), {"weights": weights}, keep=True).reshape(outputs.shape)


def _count_second(net: Net, samples: int, times: int) -> None:
    """Counts so many further derivatives of a gradient; shifts of shifts give all of them at once."""
    net.counts.gradient_evaluations += samples * times
    net.counts.hardware_circuits += samples * net.price.shifts(frozenset(trained(net))) ** 2


def _parts(x: Tensor, y: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(x, size), torch.split(y, size), strict=True)


def _size(tensors: Tensors) -> int:
    return sum(tensor.numel() for tensor in tensors.values())
