"""State erasure: the circuit's states of forget samples become those of what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.in_circuit import entering, one_circuit
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.quantum import engines
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.net import CHUNK, Net, Tensors, evaluating
from qunlearn.training.phases import Batch, Memo, Phase

TINY = 1e-6  # of the largest eigenvalue: what is below is rounding, and has no sign


@register
@dataclass(frozen=True, kw_only=True)
class StateErasure(GradientMethod):
    r"""Moves the encoder and the re-uploading angles until forget samples enter the states of retained neighbours.

    .. math:: L = \mathrm{CE}(f(x_r), y_r) + \lambda\, \operatorname{mean}_f\bigl(1 -
              |\langle \psi_\theta(x_{n(f)}) | \psi_\theta(x_f) \rangle|^2\bigr) + \eta\,
              \operatorname{mean}_r\bigl(1 - |\langle \psi_{\theta_0}(x_r) | \psi_\theta(x_r) \rangle|^2\bigr)

    n(f) is drawn at every step from the k retain samples whose states are nearest to that of f under the original, by
    fidelity: in the mean the target is the mixture of their states, which is what a model that never saw f would hold
    of it, and the aim is therefore the distance that retrained models leave rather than none. Targets move with the
    model, so that both sides come together. Of a class that only the forget set holds, neighbours are of all other
    classes; of any other forget sample, of the class that its label names (where labels were spoilt,
    ``nearest="inputs"`` takes the nearest samples of any class instead).

    Afterwards a repair descends the retain loss, by the head and the angles behind the last encoding gate alone. These
    are one unitary and one reading for all inputs, and cannot undo what was erased: no fidelity changes with them. For
    the same reason they cannot erase either, and a model with nothing else to train is refused. It is the epochs of the
    repair that are candidates.

    It takes a circuit, because in it "what any reading could still tell" is a number: the fidelity of whole registers,
    which bounds that of all reduced states. With ``objective="helstrom"`` the forgetting term is the advantage of the
    best measurement between both sides, fitted on one half of the batch, scored on the other, held while it is
    differentiated. States of circuits with noise, shots or a backend are those that they would have without.

    Cost: an erasing epoch differentiates three samples for each of the retain set (its loss, and the states of a forget
    sample and of a neighbour; four with eta), all counted as forwards of the model; a repairing one as fine-tuning. On
    hardware each overlap is a circuit that runs one sample's gates and then the other's backwards.

    Source: new here. That angles behind the encoding keep all fidelities is elementary; the cross-fitted advantage is
        Helstrom's 1969, estimated as in `qunlearn.metrics`.
    """

    name: ClassVar[str] = "state-erasure"
    strategy = "aims to erase"
    epochs: int = hyper(30, "passes over the retain set that erase", low=1)
    repair: int = hyper(10, "passes over the retain set that repair the head afterwards", low=1)
    rate: float = hyper(3.0, "learning rate while erasing, in multiples of that of the repair", low=0)
    erase_weight: float = hyper(2.0, "lambda, weight of the forgetting term", low=0, search=[2.0, 0.5, 1.0, 5.0, 10.0])
    hold_weight: float = hyper(0.0, "eta, weight of holding the retain samples' states", low=0, search=[0.0, 0.1, 1.0])
    neighbours: int = hyper(5, "k, retain samples whose states a forget sample's is drawn to", low=1)
    nearest: Literal["states", "inputs"] = hyper(
        "states", "by fidelity and within the class, or by distance of inputs", choices=("states", "inputs")
    )
    objective: Literal["targets", "helstrom"] = hyper(
        "targets", "infidelity with targets, or the advantage of measurements", choices=("targets", "helstrom")
    )

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses a model without a circuit, and one in which no parameter acts before the last encoding gate."""
        check_erasable(model)

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """The neighbours ``(forget samples, k)``, their inputs, the original's states, and which angles may repair."""
        name, layer = check_erasable(net.module)
        retain, forget = states_now(net, task.retain.x), states_now(net, task.forget.x)
        if self.nearest == "states":
            distance = 1 - (forget.conj() @ retain.T).abs().square()
            kept = torch.isin(task.forget.y, task.retain.y)
            other = kept[:, None] & (task.forget.y[:, None] != task.retain.y)
            distance = distance.masked_fill(other, torch.inf)
        else:
            distance = torch.cdist(task.forget.x.flatten(1).double(), task.retain.x.flatten(1).double())
        count = min(self.neighbours, int(distance.isfinite().sum(1).min()))
        before = torch.zeros(layer.circuit.weights, dtype=torch.bool, device=retain.device)
        before[list(erasing_weights(layer.circuit))] = True
        return {
            "near": distance.argsort(dim=1, stable=True)[:, :count],
            "inputs": task.retain.x,
            "states": retain if self.hold_weight else retain[:0],
            "name": name,
            "before": before,
        }

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Erasing by all parameters, then the repair by those that cannot bring anything back."""
        name, _ = check_erasable(model)
        order = [n for n, _ in model.named_parameters()]
        behind = frozenset(n for n in order[order.index(name) :] if model.get_parameter(n).requires_grad)
        return [
            Phase("cycled", self.loss, self.epochs, candidate=False, rate=self.rate),
            Phase("retain", retain_loss, self.repair, behind, refresh=self.freeze, project=self.hold),
        ]

    def loss(self, net: Net, batch: Batch, memo: Memo, stream: Stream) -> Tensor:
        """The retain loss, the forgetting term, and where it has a weight the hold."""
        near = memo["near"]
        drawn = stream.integers(0, near.shape[1], batch.forget.y)
        chosen = near[batch.forget.position].gather(1, drawn[:, None])[:, 0]
        sets = [batch.forget.x, memo["inputs"][chosen], *([batch.retain.x] if self.hold_weight else [])]
        forget, target, *held = torch.split(states_of(net, torch.cat(sets)), [len(part) for part in sets])
        apart = advantage(forget, target) if self.objective == "helstrom" else infidelity(forget, target)
        total = retain_loss(net, batch, memo, stream) + self.erase_weight * apart
        for states in held:
            total = total + self.hold_weight * infidelity(states, memo["states"][batch.retain.position])
        return total

    def freeze(self, net: Net, memo: Memo, stream: Stream) -> Memo:
        """The circuit's angles, those before the last encoding gate to be put back after every step."""
        return {**memo, "angles": net.parameters[memo["name"]].detach().clone()}

    def hold(self, parameters: Tensors, memo: Memo, stream: Stream) -> Tensors:
        """The parameters with the angles before the last encoding gate as they were."""
        name = memo["name"]
        if name not in parameters:
            return parameters
        return {**parameters, name: torch.where(memo["before"], memo["angles"], parameters[name])}


def erasing_weights(circuit: Circuit) -> tuple[int, ...]:
    """Weights that can change a fidelity between two inputs, in order: a gate with features acts after one of theirs.

    After it on wires that theirs reaches; a weight that multiplies a feature counts. All others are one unitary for
    all inputs.
    """
    reached: set[int] = set()  # wires on which an encoding gate is still to come
    found: set[int] = set()
    for gate in reversed(circuit.gates):
        encodes = gate.angle is not None and bool(gate.angle.factors)
        if encodes or reached & set(gate.wires):
            reached |= set(gate.wires)
            if gate.angle is not None and gate.angle.weight is not None:
                found.add(gate.angle.weight)
    return tuple(sorted(found))


def check_erasable(model: nn.Module) -> tuple[str, QuantumLayer]:
    """The parameter that holds the circuit's angles, and the circuit's layer.

    Raises:
        InputError: for a model without one circuit, and where nothing that is trained acts before its last encoding
            gate, so that no training can bring two states nearer.
    """
    name, layer = one_circuit(model, "state-erasure")
    order = dict(model.named_parameters())
    before = list(order)[: list(order).index(name)]
    angles = layer.weights.requires_grad and erasing_weights(layer.circuit)
    if not angles and not any(order[other].requires_grad for other in before):
        raise InputError(
            "expected a trained encoder or angles before the last encoding gate for state-erasure, got neither: angles "
            "behind the encoding are one unitary for all inputs and change no distance between their states, so that "
            "nothing could be erased; load the circuit with reupload=true, take encoder='cnn', or channel-forgetting"
        )
    return name, layer


def states_of(net: Net, x: Tensor) -> Tensor:
    """Final states ``(batch, 2**qubits)`` of the circuit for samples ``(batch, ...)``, noise left out.

    Differentiable by the net's parameters, and counted as a forward of the net; nothing behind the circuit runs.
    """
    name, layer = one_circuit(net.module, "state-erasure")
    return engines.state(layer.circuit.without_noise(), entering(net, x), net.parameters[name]).flatten(1)


@torch.no_grad()
def states_now(net: Net, x: Tensor) -> Tensor:
    """`states_of`, in evaluation mode and without a derivative, for any number of samples."""
    frozen = net.at({})
    frozen.differentiated = frozenset()
    with evaluating(net.module):
        return torch.cat([states_of(frozen, part) for part in torch.split(x, CHUNK)])


def infidelity(states_a: Tensor, states_b: Tensor) -> Tensor:
    """1 - |<a|b>|^2, the mean over rows of pure states ``(batch, d)``."""
    return 1 - (states_a.conj() * states_b).sum(1).abs().square().mean()


def advantage(states_a: Tensor, states_b: Tensor) -> Tensor:
    """The advantage of the best measurement between two sets of pure states ``(batch, d)``, cross-fitted.

    The projector on the positive part of the difference of mean states is fitted on every other row and scored on the
    rest, both ways, and held while it is differentiated. Unlike `qunlearn.quantum.discrimination.crossfit_advantage`
    it runs under ``torch.vmap``. Of a single row there is nothing to fit on: 1 - |<a|b>|^2.
    """
    if len(states_a) < 2:
        return infidelity(states_a, states_b)
    halves = [(states_a[start::2], states_b[start::2]) for start in (0, 1)]
    scores = []
    for fitted, scored in (halves, halves[::-1]):
        values, vectors = torch.linalg.eigh((_mean(fitted[0]) - _mean(fitted[1])).detach())
        seen = [(states.conj() @ vectors).abs().square().mean(0) for states in scored]
        scores.append(((values > TINY * values.abs().amax()) * (seen[0] - seen[1])).sum())
    return torch.stack(scores).mean()


def _mean(states: Tensor) -> Tensor:
    """The mean density matrix ``(d, d)`` of pure states ``(batch, d)``."""
    return states.T @ states.conj() / len(states)
