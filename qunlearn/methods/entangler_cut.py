"""Entangler cut: entanglement-weighted pruning of a circuit's angles, with a repair for all its controls."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.in_circuit import circuit_in, count_metric, count_states, features_into
from qunlearn.methods.losses import retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.models.stream import Stream
from qunlearn.quantum import engines
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.fisher import quantum_fisher
from qunlearn.quantum.layer import weights_by_depth
from qunlearn.quantum.states import concurrence, reduced_state
from qunlearn.training.net import Net, Tensors
from qunlearn.training.phases import Memo, Phase

BASES = 9  # pairs of X, Y, Z that two wires are measured in to know their state


@register
@dataclass(frozen=True, kw_only=True)
class EntanglerCut(GradientMethod):
    r"""Sets the angles of lowest entanglement-weighted Fisher information to 0, then repairs on the retain set (DEW-P).

    .. math:: s_k = w(k)\, F_{kk}, \qquad
              F_{kk} = \operatorname{mean}_{x \in D_f} \mathrm{QFI}_{kk}(x), \qquad
              \theta_k \leftarrow 0 \ \text{for the lowest 20 \%}, \qquad L = \mathrm{CE}(f(x_r), y_r)

    w is the mean Wootters concurrence over the pairs of wires that the angle's layer couples, of their states right
    after its last two-qubit gate, density matrices averaged over the forget set (which as published mixes samples, so
    that different states lose concurrence in the mean, in deeper layers often all of it). For a Pauli rotation F_kk is
    1 - <P>^2 before the gate, the published ``1 - |<psi|psi(theta + pi e_k)>|^2``; for other gates it is the exact
    information in its place. What was cut stays at 0 in the repair, where all else moves, encoder and head included:
    the published model has nothing but its angles.

    Published, the repair is given to this method alone. Here its controls of a single signal get the same:
    ``signal="fisher"`` (w = 1), ``"entanglement"`` (F = 1), ``"random"``. Note that the angles that matter least to
    the forget set are cut, which does not aim at its influence; the signals are to be compared with ``fine-tune``.

    Readings: couplings are two-qubit gates that no feature turns; angles before the first layer take the first layer's
    w, those after the last the last's; a layer without couplings has 0. Of equal scores, as all within a layer are with
    ``"entanglement"``, the lower F goes first with ``"both"``, else the first in the circuit. The number is
    rounded down, at least one.

    It needs a circuit: entanglement is in nothing else. Before the repair it takes for each forget sample as many
    circuits as there are weights (two for each of a controlled rotation), one, and one for each layer.

    Source: Kumar and Chongder, arXiv 2608.17069, and the authors' code; the equal repair of the controls is ours.
    """

    name: ClassVar[str] = "entangler-cut"
    strategy = "can erase by re-uploading or encoder"
    share: float = hyper(0.2, "of the angles that are cut", low=0, high=1, search=[0.2, 0.1, 0.3, 0.4, 0.5])
    signal: Literal["both", "fisher", "entanglement", "random"] = hyper(
        "both", "what scores the angles", choices=("both", "fisher", "entanglement", "random")
    )

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses models without a trained circuit."""
        circuit_in(model, self.name)

    def prepare(self, net: Net, task: Task, generator: torch.Generator) -> Memo:
        """Counts what the scores cost; `start`, which takes them, has no place to count."""
        circuit = circuit_in(net.module, self.name)[1].circuit.without_noise()
        if self.signal in ("both", "fisher"):
            count_metric(net.counts, circuit, len(task.forget), "diagonal")
        if self.signal in ("both", "entanglement"):
            for _, pairs in couplings(circuit).values():
                count_states(net.counts, len(task.forget))
                net.counts.hardware_circuits += len(task.forget) * (BASES * len(pairs) - 1)
        return {}

    def start(self, model: nn.Module, task: Task, generator: torch.Generator) -> nn.Module:
        """The model with its lowest angles at 0."""
        name, layer = circuit_in(model, self.name)
        circuit, features = layer.circuit.without_noise(), features_into(Net(model), task.forget.x)
        scores, ties = self.scores(circuit, features, layer.weights.detach(), generator)
        with torch.no_grad():
            model.get_parameter(name)[lowest(scores, ties, self.share)] = 0.0
        return model

    def scores(
        self, circuit: Circuit, features: Tensor, weights: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The score of every weight, and what decides among equal ones; ``(weights,)`` float64."""
        even = torch.ones_like(weights, dtype=torch.float64)
        if self.signal == "random":
            return torch.rand(len(weights), generator=generator, dtype=torch.float64).to(weights.device), even
        fisher = even
        if self.signal in ("both", "fisher"):
            fisher = quantum_fisher(circuit, features, weights, blocks="diagonal").diagonal()
        if self.signal == "fisher":
            return fisher, even
        return entanglement(circuit, features, weights) * fisher, fisher

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Descent on the retain set, with what was cut held at 0."""
        name, _ = circuit_in(model, self.name)
        found, hold = functools.partial(self.found, name), functools.partial(self.hold, name)
        return [Phase("retain", retain_loss, self.epochs, refresh=found, project=hold)]

    def found(self, name: str, net: Net, memo: Memo, stream: Stream) -> Memo:
        """The memo with which angles are cut: those at 0 to the last bit, where one that stood there stays as well."""
        return {**memo, "cut": net.parameters[name] == 0}

    def hold(self, name: str, parameters: Tensors, memo: Memo, stream: Stream) -> Tensors:
        """The parameters with 0 wherever an angle was cut."""
        return {**parameters, name: parameters[name].masked_fill(memo["cut"], 0.0)}


def lowest(scores: Tensor, ties: Tensor, share: float) -> Tensor:
    """True for that share of the scores (rounded down, at least one) that are lowest, ``(weights,)``.

    Of equal scores the lower tie goes first, of equal ties the first.
    """
    order = ties.argsort(stable=True)
    order = order[scores[order].argsort(stable=True)][: max(1, int(share * len(scores)))]
    return torch.zeros_like(scores, dtype=torch.bool).index_fill(0, order, True)


def couplings(circuit: Circuit) -> dict[str, tuple[int, tuple[tuple[int, int], ...]]]:
    """By layer with couplings how many gates run up to its last one, and the pairs of wires that it couples."""
    found: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {}
    for number, gate in enumerate(circuit.gates):
        if len(gate.wires) != 2 or (gate.angle is not None and gate.angle.factors):
            continue
        layer = "start" if gate.layer is None else str(gate.layer)
        pair = cast(tuple[int, int], tuple(sorted(gate.wires)))
        _, pairs = found.get(layer, (0, ()))
        found[layer] = (number + 1, pairs if pair in pairs else (*pairs, pair))
    return found


def entanglement(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """The w of every weight, ``(weights,)`` float64: its layer's mean concurrence; see `EntanglerCut`."""
    features, weights = features.detach().double(), weights.detach().double()
    of_layer: dict[str, float] = {}
    for layer, (length, pairs) in couplings(circuit).items():
        states = engines.state(replace(circuit, gates=circuit.gates[:length]), features, weights)
        mean = torch.stack([reduced_state(states, pair).mean(0) for pair in pairs])
        of_layer[layer] = float(concurrence(mean).mean())
    parts, found = weights_by_depth(circuit), torch.zeros_like(weights)
    layers = sorted((name for name in {*parts, *of_layer} if name.isdigit()), key=int)
    nearest = {"start": layers[0], "end": layers[-1]} if layers else {}
    for part, indices in parts.items():
        found[indices] = of_layer.get(part, of_layer.get(nearest.get(part, ""), 0.0))
    return found
