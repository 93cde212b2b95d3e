"""What can still be read from inside a model: probes on its encoder, its circuit and the circuit's states."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qunlearn.evaluation.audit.bench import Bench, Case
from qunlearn.evaluation.audit.crossfit import Kind, Told, tell_apart
from qunlearn.evaluation.audit.finding import Figure, absent
from qunlearn.evaluation.audit.subject import Subject
from qunlearn.quantum.states import reduced_state
from qunlearn.training.seeds import Seeds

Floats = npt.NDArray[np.float64]
KINDS: tuple[Kind, ...] = ("linear", "rbf")
SPACES = ("encoder", "circuit", "states")
WIRES = 2  # of a reduced state
MOST = 1024  # samples that a probe is trained and tested on


class Question(NamedTuple):
    """What a probe is asked: which of some samples belong to a group.

    Attributes:
        rows: by set, which of its samples.
        target: which of them are looked for ``(n,)``.
        strata: class numbers by which the rest is matched to the group ``(n,)``; zeros where nothing is to match.
    """

    rows: dict[str, npt.NDArray[np.int64]]
    target: npt.NDArray[np.bool_]
    strata: npt.NDArray[np.int64]


def probes(case: Case) -> Iterator[Figure]:
    """Can the forgotten class, or membership, be read from inside the model? Balanced accuracy and AUC.

    For a class request: that class against the rest, on test samples. For others: forget samples against class-matched
    holdout samples. Probes are cross-fitted on what enters the circuit (``encoder``), its expectation values
    (``circuit``) and all reduced states of two wires (``states``: what any measurement of two wires could still read);
    of a model without a circuit, on the last hidden stage (``hidden``). ``linear`` is a logistic regression, ``rbf`` a
    support vector machine, both with balanced sides. ``*_untrained`` is what the same probe reads from a freshly
    initialised model: the aim is the retrained models' value, not a half.

    Fooled by: linear probes alone (a bent feature hides from them and not from ``rbf``), unbalanced ones (they name the
    larger side), and probes of full states (where the weights act after all data, no weights change what those hold).

    Source: Alain and Bengio 2016, arXiv 1610.01644 (linear probes); that outputs hide what stages hold: Jeon et al.
    2024, arXiv 2405.17878.
    """
    asked = question(case.bench)
    if isinstance(asked, str):
        yield absent("probe", asked)
        return
    spaces = ("hidden",) if case.subject.middle is None else SPACES
    for space in spaces:
        for kind in KINDS:
            name = f"probe_{kind}_{space}"
            told = _told(case.subject, asked, space, kind, case.seeds)
            if isinstance(told, str):
                yield from (absent(full, told) for full in (name, f"{name}_auc", f"{name}_untrained"))
                continue
            yield Figure(name, told.balanced, told.n)
            yield Figure(f"{name}_auc", told.auc, told.n)
            yield _untrained(case, asked, space, kind)


def question(bench: Bench) -> Question | str:
    """What probes are asked for this request, or why nothing can be asked."""
    if bench.forget_class is not None:
        y = bench.y("test")
        target = y == bench.forget_class
        kept = _spread(target, MOST)
        return Question({"test": kept}, target[kept], np.zeros(len(kept), dtype=np.int64))
    if bench.unmatched is not None:
        return bench.unmatched
    parts = [np.flatnonzero(weights > 0) for weights in bench.matching]
    parts = [part[_even(len(part), MOST // 2)] for part in parts]
    strata = np.concatenate([own[part] for own, part in zip((bench.members, bench.others), parts, strict=True)])
    member = np.arange(len(strata)) < len(parts[0])
    return Question({"forget": parts[0], "holdout": parts[1]}, member, strata)


def features(subject: Subject, space: str, asked: Question) -> Floats | str:
    """The samples of a question as a model's stage sees them ``(n, width)``; or why there are none."""
    found = [_space(subject, space, name, rows) for name, rows in asked.rows.items()]
    if any(part is None for part in found):
        reason = subject.stateless if space == "states" else None
        return reason or f"the model hands on no {space} features, one row a sample"
    return torch.cat([part.double() for part in found if part is not None]).cpu().numpy()


def marginals(states: Tensor, wires: int = WIRES) -> Tensor:
    """All reduced states of so many wires as real coordinates ``(n, width)`` that keep Hilbert-Schmidt distances.

    Of every choice of wires (all of them, in a smaller circuit): the diagonal of the density matrix, then sqrt(2) times
    the real and the imaginary part of its upper triangle.

    Args:
        states: pure states ``(n, 2, ..., 2)``.
        wires: of a reduced state.
    """
    qubits = states.dim() - 1
    size = min(wires, qubits)
    up = torch.triu_indices(2**size, 2**size, offset=1)
    parts = []
    for chosen in combinations(range(qubits), size):
        rho = reduced_state(states, chosen)
        upper = rho[:, up[0], up[1]] * math.sqrt(2)
        parts += [rho.diagonal(dim1=1, dim2=2).real, upper.real, upper.imag]
    return torch.cat(parts, dim=1)


def _untrained(case: Case, asked: Question, space: str, kind: Kind) -> Figure:
    name = f"probe_{kind}_{space}_untrained"
    fresh = case.bench.untrained(case.subject.model)
    told = fresh if isinstance(fresh, str) else _told(fresh, asked, space, kind, case.seeds)
    return absent(name, told) if isinstance(told, str) else Figure(name, told.balanced, told.n)


def _told(subject: Subject, asked: Question, space: str, kind: Kind, seeds: Seeds) -> Told | str:
    def find() -> Told | str:
        rows = features(subject, space, asked)
        if isinstance(rows, str):
            return rows
        random = np.random.default_rng(seeds.integer("probes"))
        return tell_apart(rows, asked.target, asked.strata, kind, random)

    found: Told | str = subject.once(("probe", seeds, space, kind), find)
    return found


def _space(subject: Subject, space: str, name: str, rows: npt.NDArray[np.int64]) -> Tensor | None:
    chosen = torch.from_numpy(rows)
    if space == "states":
        states = subject.states(name)
        return None if states is None else marginals(states[chosen])
    if space == "hidden":
        known = [stage.name for stage in subject.stages if stage.name in subject.outputs.stages]
        return subject.outputs.stages[known[-2]][name][chosen] if len(known) > 1 else None
    found = subject.outputs.encoded if space == "encoder" else subject.outputs.circuit
    return None if found is None else found[name][chosen]


def _spread(target: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.int64]:
    """Positions of at most so many samples, half of them (or all) of the group looked for, in order."""
    one, other = np.flatnonzero(target), np.flatnonzero(~target)
    one = one[_even(len(one), most // 2)]
    return np.sort(np.concatenate([one, other[_even(len(other), most - len(one))]]))


def _even(length: int, most: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, max(length - 1, 0), min(length, most)).round().astype(np.int64))
