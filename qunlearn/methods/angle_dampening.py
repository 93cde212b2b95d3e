"""Angle dampening: synaptic dampening that asks the states, and does not ask how a circuit is written down."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.methods.angles import wrapped
from qunlearn.methods.base import Method
from qunlearn.methods.hyper import hyper
from qunlearn.methods.in_circuit import circuit_in, count_metric, features_into
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.quantum.circuit import Circuit, Gate
from qunlearn.quantum.fisher import quantum_fisher
from qunlearn.quantum.gates import PAULI, Matrix
from qunlearn.quantum.gates import gate as gate_spec
from qunlearn.quantum.layer import weight_periods
from qunlearn.training.net import Net, check_functional

_SYMMETRIC = frozenset({"rxx", "ryy", "rzz", "cp"})  # the same gate with its wires exchanged


@register
@dataclass(frozen=True, kw_only=True)
class AngleDampening(Method):
    r"""Turns angles that move forget states far more than all states towards the nearest Pauli gate; no training.

    .. math:: \varphi_j \leftarrow r_j + \min\Bigl(\lambda \frac{I_j(D)}{I_j(D_f)}, 1\Bigr) (\varphi_j - r_j)
              \quad\text{where}\ I_j(D_f) > \alpha\, I_j(D), \qquad
              I_j(S) = \operatorname{mean}_{x \in S}\, \mathrm{QFI}_{jj}(x)

    phi_j is the total angle of a run of neighbouring equal rotations, r_j the nearest angle at which such a gate is a
    Pauli operator (a multiple of pi for a rotation, of 2 pi for a controlled one), D the forget set with the retain
    set. QFI_jj is how fast the state moves with phi_j, 1 - <P>^2 before the gate for a Pauli rotation: no label enters,
    and no measurement. Encoder and head stay as they are.

    How a circuit is written down does not matter, which the diagonal rule of `ssd` cannot say:

    * An angle a period on is the same gate: only the way from the nearest reference is scaled.
    * An angle that is shared out over neighbouring equal rotations is one gate: they have one total, one importance
      (the derivatives are equal, not halved), and share the change equally. Neighbours are gates of one kind on the
      same wires with nothing but gates of that kind between them on these wires.
    * A Pauli operator that is moved through a segment, from a gate or out of an angle (R_P(phi + pi) is P R_P(phi))
      into another, flips the signs of the angles whose generators anticommute with it and leaves every importance as it
      was: references are symmetric about 0, and pi on from each there is one. Hence not 0 alone, as in `ssd`: a gate
      turned by pi is as classical as one that is not turned.

    A weight that turns several gates is a run of its own, with its own period and the reference 0; so is one that a
    feature multiplies, without a period. With ``alpha`` of n / n_f or more nothing is ever chosen.

    It needs a quantum model for the importances: a classical weight moves no state. The cost is a metric's diagonal:
    for each sample as many circuits as there are weights (two for each of a controlled rotation), and one.

    Source: new here; the rule is that of Foster et al. 2024, arXiv 2308.07707. Su et al., arXiv 2509.06086, dampen by
        importances that are probably quantum Fisher information too, without references or runs.
    """

    name: ClassVar[str] = "angle-dampening"
    strategy = "can erase by re-uploading"
    alpha: float = hyper(1.1, "how many times more they must matter to be chosen", low=0, search=(1.0, 2.0))
    strength: float = hyper(0.7, "lambda: what is left where importances are equal", low=0, search=(0.05, 1.0))

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses models without a trained circuit."""
        circuit_in(model, self.name)

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """Both importances, and one change."""
        name, layer = circuit_in(model, self.name)
        check_functional(model, task.retain.x[:1])
        net, circuit = Net(model, work.counts), layer.circuit.without_noise()
        given = net.parameters[name].detach()
        of_forget, of_retain = (self._information(net, circuit, given, data) for data in (task.forget, task.retain))
        share = len(task.forget) / (len(task.forget) + len(task.retain))
        of_all = share * of_forget + (1 - share) * of_retain
        change, chosen = self.change(circuit, given.double(), of_forget, of_all)
        net.parameters[name] = torch.where(change == 0, given, (given.double() + change).to(given))
        work.details.update(runs=len(runs(circuit)), chosen=chosen)
        advice = "" if chosen else " Lower alpha; one of n / n_f or more never chooses any."
        work.notes.append(f"{chosen} of {len(runs(circuit))} runs of equal rotations dampened.{advice}")
        return net.write_back()

    def change(self, circuit: Circuit, weights: Tensor, of_forget: Tensor, of_all: Tensor) -> tuple[Tensor, int]:
        """What the weights gain, and how many runs were chosen; all tensors ``(weights,)`` float64.

        Args:
            circuit: without noise.
            weights: radians.
            of_forget: information of the forget set, by weight.
            of_all: likewise of all training data.
        """
        change, chosen = torch.zeros_like(weights), 0
        for run in runs(circuit):
            at = torch.tensor(run.weights, device=weights.device)
            scales = torch.tensor(run.scales).to(weights)
            forget, every = ((part[at] / scales.square()).mean() for part in (of_forget, of_all))
            if not forget > self.alpha * every:
                continue
            chosen += 1
            apart = wrapped((scales * weights[at]).sum() + run.offset, weights.new_tensor(run.spacing))
            left = (self.strength * every / forget).clamp(max=1.0)
            change[at] = (left - 1) * apart / (len(at) * scales)
        return change, chosen

    def _information(self, net: Net, circuit: Circuit, weights: Tensor, data: Dataset) -> Tensor:
        count_metric(net.counts, circuit, len(data), "diagonal")
        return quantum_fisher(circuit, features_into(net, data.x), weights, blocks="diagonal").diagonal()


class Run(NamedTuple):
    """Neighbouring equal rotations, together one of the angle ``sum(scales * weights) + offset``.

    Attributes:
        weights: their indices.
        scales: what the circuit multiplies each by.
        offset: radians.
        spacing: how far apart the angles lie at which the gate is a Pauli operator; infinite where nothing repeats.
    """

    weights: tuple[int, ...]
    scales: tuple[float, ...]
    offset: float
    spacing: float


@functools.lru_cache(maxsize=64)
def runs(circuit: Circuit) -> tuple[Run, ...]:
    """The runs of a circuit, which hold every weight that turns something once."""
    times = [gate.angle.weight for gate in circuit.gates if gate.angle is not None]
    periods = weight_periods(circuit).tolist()
    found: list[Run] = []
    latest: dict[tuple[str, tuple[int, ...]], int] = {}  # places of runs that the next gate of their kind continues
    alone: set[int] = set()
    for gate in circuit.gates:
        kind = gate.name, tuple(sorted(gate.wires)) if gate.name in _SYMMETRIC else gate.wires
        latest = {key: place for key, place in latest.items() if key == kind or not {*key[1]} & {*gate.wires}}
        angle = gate.angle
        if angle is None or angle.weight is None or not angle.scale:
            continue
        if angle.factors or times.count(angle.weight) > 1:
            if angle.weight not in alone:
                alone.add(angle.weight)
                found.append(Run((angle.weight,), (1.0,), 0.0, periods[angle.weight]))
        elif kind in latest:
            old = found[latest[kind]]
            found[latest[kind]] = Run(
                (*old.weights, angle.weight), (*old.scales, angle.scale), old.offset + angle.offset, old.spacing
            )
        else:
            latest[kind] = len(found)
            found.append(Run((angle.weight,), (angle.scale,), angle.offset, _spacing(gate)))
    return tuple(found)


def _spacing(gate: Gate) -> float:
    """Half the gate's period where half a period is a Pauli operator, else the period."""
    spec = gate_spec(gate.name)
    assert spec.period is not None
    matrix = spec.matrix(torch.tensor(spec.period / 2, dtype=torch.float64)).numpy()
    return spec.period / 2 if _is_pauli(matrix) else spec.period


def _is_pauli(matrix: Matrix) -> bool:
    """Whether a matrix is a product of Pauli operators, up to a phase: it then has one overlap of absolute value 1."""
    words = [PAULI[letter] for letter in "IXYZ"]
    for _ in range(round(math.log2(len(matrix))) - 1):
        words = [np.kron(word, PAULI[letter]).astype(np.complex128) for word in words for letter in "IXYZ"]
    overlaps = [abs(np.vdot(word, matrix)) / len(matrix) for word in words]
    return math.isclose(max(overlaps), 1.0, abs_tol=1e-9)
