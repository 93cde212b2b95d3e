"""Channel forgetting: noise where the forget set's states differ, and what it hides of inputs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods.base import Method
from qunlearn.methods.fine_tune import FineTune
from qunlearn.methods.hyper import hyper
from qunlearn.methods.in_circuit import count_states, features_into
from qunlearn.methods.registry import register
from qunlearn.methods.state_erasure import TINY
from qunlearn.methods.task import Task, Work
from qunlearn.models import HybridClassifier
from qunlearn.quantum import engines
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.layer import MOST_NOISY, QuantumLayer
from qunlearn.quantum.noise import Strike
from qunlearn.quantum.privacy import input_epsilon, measured_wires, reduced_densities
from qunlearn.training.net import Net
from qunlearn.training.selection import Candidate

STRENGTHS = (0.05, 0.2, 0.5)


@register
@dataclass(frozen=True, kw_only=True)
class ChannelForgetting(Method):
    r"""Puts a noise channel on the wires that tell the forget set apart, and repairs the head under that noise.

    .. math:: \rho^{(w)} \mapsto \mathcal E_p(\rho^{(w)}) \quad \text{on the } m \text{ wires } w \text{ of largest }
              \tfrac12 \|\bar\rho^{(w)}_f - \bar\rho^{(w)}_r\|_1

    Wires are ranked by the advantage of the best one-wire measurement between the mean states of the forget set and of
    the retain set, weighted to the forget set's classes where it holds them; cross-fitted: the measurement is fitted on
    every other sample and scored on the rest. How many wires are struck and how strongly is chosen from a grid by the
    protocol's rule, the same that chooses epochs of other methods, the untouched model being a candidate; without a
    validation set the strongest is taken. Behind every candidate the head is tuned to the retain set under its noise.

    Only a quantum model has it: a channel lowers what *any* reading can tell (data processing), which no edit of the
    head or of the last angles does. It does so for good where readers have finite shots. Exact expectation values are
    another matter: noise of one strength on all wires behind the last gate only scales them, and a head scales them
    back. It strikes what retained classes live on as well: expect a small part of what other methods forget.

    Strengths are chosen, not trained: they are constants of a compiled circuit. The noise adds to any that the circuit
    has, and the unlearned model runs on the density engine, with at most 8 qubits.

    The record's ``details`` hold the exact epsilon of quantum differential privacy of the noisy circuit
    (`qunlearn.quantum.privacy.input_epsilon`), for the reading of each wire alone and of all in one shot; null is
    infinity: some reading is possible for one state and not for another. It is of inputs at a trace distance behind the
    last encoding gate, and **does not cover training data**: of what the weights learnt it says nothing. The mean
    advantage over all pairs of wires stands there before and after.

    Cost: a forward of all samples a candidate, and three of forget and retain set for the advantages (3 settings each
    on hardware for single wires, and 3 + 6 ceil(log2 n) for pairs, by overlapping tomography: Cotler and Wilczek 2020,
    arXiv 1908.02754). The head's tuning runs no circuit.

    Source: new here; the epsilon is that of Guan, Fang, Huang and Ying 2023, arXiv 2309.04819.
    """

    name: ClassVar[str] = "channel-forgetting"
    revision: ClassVar[int] = 2  # 1 had no `helstrom_forget` and no verdict
    strategy = "aims to erase"
    channel: Literal["depolarizing", "amplitude-damping", "phase-damping"] = hyper(
        "depolarizing", "the noise", choices=("depolarizing", "amplitude-damping", "phase-damping")
    )
    strength: float | None = hyper(None, "p; none tries 0.05, 0.2 and 0.5", low=0, high=1)
    wires: int | None = hyper(None, "m, how many wires are struck; none tries 1, half and all", low=1)
    after: Literal["layer", "encoding", "end"] = hyper(
        "layer", "where the noise strikes", choices=("layer", "encoding", "end"), search=["layer", "encoding", "end"]
    )
    epochs: int = hyper(10, "passes over the retain set that repair the head", low=1)
    distance: float = hyper(1.0, "d, trace distance of the inputs of which epsilon speaks", low=1e-9, high=1)

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses models without a circuit that this machine can run with noise."""
        _check(model)

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """The model with the noisy circuit and the repaired head."""
        hybrid, layer = _check(model)
        circuit, bench = layer.circuit, _Bench(hybrid, layer, task, work)
        single = bench.advantages(circuit, 1)
        order = sorted(range(circuit.qubits), key=lambda wire: -single[wire])
        found = [_Found(circuit, hybrid.head, bench.measure(hybrid.head, circuit))]
        for size, p in self._grid(circuit.qubits):
            strike = Strike(self.channel, (p,), self.after, tuple(sorted(order[:size])))
            noisy = struck(circuit, strike)
            head, measured = self._repaired(hybrid.head, bench, noisy)
            found.append(_Found(noisy, head, measured, {"wires": order[:size], "strength": p}))
        work.chosen = FineTune().rule(task)([one.candidate for one in found])  # every gradient method's rule
        chosen = found[work.chosen]
        work.candidates = [{**one.candidate.to_dict(), "epoch": n, **one.settings} for n, one in enumerate(found)]
        before, after = (bench.advantages(one, min(2, one.qubits)) for one in (circuit, chosen.circuit))
        work.details = {
            **chosen.settings,
            "wire_advantages": single,
            "pair_advantage_before": sum(before) / len(before),
            "pair_advantage": sum(after) / len(after),
            **self._privacy(chosen.circuit, layer),
        }
        work.notes.append(
            "Epsilon covers inputs, not training data: it bounds how well one reading tells neighbouring input states "
            "apart, and says nothing of what the weights learnt from the forget set."
        )
        return _rebuilt(hybrid, chosen)

    def _grid(self, qubits: int) -> Iterator[tuple[int, float]]:
        """How many wires are struck, and how strongly; the strongest last."""
        sizes = [min(self.wires, qubits)] if self.wires else sorted({1, math.ceil(qubits / 2), qubits})
        for size in sizes:
            yield from ((size, p) for p in (STRENGTHS if self.strength is None else (self.strength,)))

    def _repaired(self, head: nn.Sequential, bench: _Bench, circuit: Circuit) -> tuple[nn.Sequential, Candidate]:
        """The head, tuned to what the circuit now gives, and what is measured of it."""
        task = bench.behind(circuit)
        tuned = FineTune(epochs=self.epochs)(head, task, seed=bench.work.seeds.seed)
        bench.work.counts.gradient_evaluations += tuned.record.counts.gradient_evaluations
        bench.work.counts.epochs += tuned.record.counts.epochs
        return cast(nn.Sequential, tuned.model), bench.measure(tuned.model, circuit)

    def _privacy(self, circuit: Circuit, layer: QuantumLayer) -> dict[str, Any]:
        """The exact epsilons; null for infinity."""
        read = measured_wires(circuit)
        weights = layer.weights.detach()
        each = [input_epsilon(circuit, weights, self.distance, wires=(wire,)) for wire in read]
        whole = input_epsilon(circuit, weights, self.distance, wires=read)
        return {
            "distance": self.distance,
            "epsilon_by_wire": {str(wire): _finite(value) for wire, value in zip(read, each, strict=True)},
            "epsilon_one_shot": _finite(whole),
        }


@dataclass(eq=False)
class _Found:
    """A circuit with its head, what the rule saw of both, and how they came about."""

    circuit: Circuit
    head: nn.Sequential
    candidate: Candidate
    settings: dict[str, Any] = field(default_factory=dict)


class _Bench:
    """A model's samples as they enter its circuit, and what circuits with these weights make of them."""

    def __init__(self, model: HybridClassifier, layer: QuantumLayer, task: Task, work: Work) -> None:
        self.task, self.work, self.weights = task, work, layer.weights.detach()
        sets = {"forget": task.forget, "retain": task.retain, "validation": task.validation, "unseen": task.unseen}
        self.labels = {name: data for name, data in sets.items() if data is not None}
        net = Net(model)
        self.features = {name: features_into(net, data.x) for name, data in self.labels.items()}
        generator = work.seeds.generator("halves")  # sets may be sorted by class, or deal classes in turn
        self.orders = {name: torch.randperm(len(x), generator=generator) for name, x in self.features.items()}
        self._known: tuple[Circuit, Task] | None = None

    def behind(self, circuit: Circuit) -> Task:
        """The task of the head alone: expectation values instead of samples."""
        if self._known is not None and self._known[0] == circuit:
            return self._known[1]
        sets: dict[str, Dataset] = {}
        with torch.no_grad():
            for name, features in self.features.items():
                count_states(self.work.counts, len(features))
                values = engines.expectations(circuit, features, self.weights, "density")
                sets[name] = Dataset(values, self.labels[name].y, ids=self.labels[name].ids)
        self._known = circuit, replace(self.task, **sets, trace=None)  # type: ignore[arg-type]
        return self._known[1]

    def measure(self, head: nn.Module, circuit: Circuit) -> Candidate:
        """What the rule looks at, of the head behind the circuit."""
        return self.behind(circuit).watch(Net(head), 0)

    @torch.no_grad()
    def advantages(self, circuit: Circuit, size: int) -> list[float]:
        """Of every group of so many wires, the cross-fitted advantage between forget and retain samples."""
        groups = list(combinations(range(circuit.qubits), size))
        settings = 3 if size == 1 else 3 + 6 * math.ceil(math.log2(circuit.qubits))
        sides, weights = [], class_weights(self.task)
        for name in ("forget", "retain"):
            features, order = self.features[name], self.orders[name]
            count_states(self.work.counts, len(features), settings)
            sides.append(reduced_densities(circuit, features[order], self.weights, groups))
        return crossfit(sides[0], sides[1], weights[self.orders["retain"]])


def class_weights(task: Task) -> Tensor:
    """Weights ``(retain samples,)`` that give the retain set the forget set's classes, float64; equal for others."""
    y, gone = task.retain.y, task.forget.y
    size = int(max(int(y.max()), int(gone.max()))) + 1
    present, wanted = (torch.bincount(labels, minlength=size).double() for labels in (y, gone))
    share = torch.where(present > 0, wanted / present.clamp(min=1), 0.0)
    return share[y] if bool((share[y] > 0).any()) else torch.ones_like(y, dtype=torch.float64)


def crossfit(ours: Tensor, theirs: Tensor, weights: Tensor) -> list[float]:
    """The advantage of the best measurement between mean states, of every group, fitted and scored on other rows.

    Args:
        ours: density matrices ``(n, groups, d, d)``.
        theirs: ``(m, groups, d, d)``.
        weights: of theirs, ``(m,)``.

    Returns:
        One number a group, in [-1, 1]; of a single row on either side, fitted and scored on the same.
    """
    alone = min(len(ours), len(theirs)) < 2
    starts = (slice(None),) * 2 if alone else (slice(0, None, 2), slice(1, None, 2))
    shares = weights.to(theirs)[:, None, None, None]
    apart = [
        ours[rows].mean(0) - (theirs[rows] * shares[rows]).sum(0) / shares[rows].sum().real.clamp(min=1e-12)
        for rows in starts
    ]
    total = torch.zeros(ours.shape[1], dtype=torch.float64, device=ours.device)
    for fitted, scored in (apart, apart[::-1]):
        values, vectors = torch.linalg.eigh(fitted)
        seen = (vectors.conj() * (scored @ vectors)).sum(-2).real
        total += ((values > TINY * values.abs().amax(-1, keepdim=True)) * seen).sum(-1)
    return [float(value) for value in total / 2]


def struck(circuit: Circuit, strike: Strike) -> Circuit:
    """The circuit with a strike beside the noise that it has."""
    channels = sorted([*circuit.channels, *strike.channels(circuit)], key=lambda made: made.after)
    return replace(circuit, channels=tuple(channels))


def _check(model: nn.Module) -> tuple[HybridClassifier, QuantumLayer]:
    if not isinstance(model, HybridClassifier) or not isinstance(model.quantum, QuantumLayer):
        got = type(getattr(model, "quantum", model)).__name__
        raise InputError(f"expected a HybridClassifier with a circuit for channel-forgetting, got {got}")
    if model.quantum.backend is not None:
        raise InputError(
            f"expected a circuit that runs exactly on this machine, got one on {model.quantum.backend!r}; "
            "call model.quantum.run_on() first"
        )
    circuit = model.quantum.circuit
    if circuit.qubits > MOST_NOISY:
        raise InputError(
            f"expected at most {MOST_NOISY} qubits for channel-forgetting, which needs density matrices, got "
            f"{circuit.qubits}; take state-erasure, or a smaller circuit"
        )
    measured_wires(circuit)
    return model, model.quantum


def _rebuilt(model: HybridClassifier, chosen: _Found) -> nn.Module:
    """The model with another circuit and head; `config` and model files tell of both."""
    config = {**model.config(), "circuit": json.loads(chosen.circuit.to_json())}
    if config["engine"] in ("fused", "torch"):  # which know no noise
        config["engine"] = "auto"
    weight = next(model.head.parameters())
    made = HybridClassifier.from_config(config, dtype=weight.dtype).to(weight.device)
    made.load_state_dict(model.state_dict())
    made.head.load_state_dict(chosen.head.state_dict())
    made.recipe = model.recipe
    return made


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
