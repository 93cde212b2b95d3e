"""`audit`: attacks on a model and probes of it, beside the retrained models attacked and probed alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from qunlearn.data import Split
from qunlearn.errors import InputError, UnknownNameError
from qunlearn.evaluation.audit.bench import Bench, Case
from qunlearn.evaluation.audit.deletion import class_deletion, confusion
from qunlearn.evaluation.audit.distances import distances
from qunlearn.evaluation.audit.finding import NAN, Audit, Figure, Finding
from qunlearn.evaluation.audit.helstrom import helstrom
from qunlearn.evaluation.audit.information import information
from qunlearn.evaluation.audit.lira import check_pool, lira
from qunlearn.evaluation.audit.membership import membership
from qunlearn.evaluation.audit.probes import probes
from qunlearn.evaluation.audit.quality import quality
from qunlearn.evaluation.audit.relearning import prepare, relearning
from qunlearn.evaluation.audit.streisand import streisand
from qunlearn.evaluation.audit.subject import Subject
from qunlearn.metrics import Bounds
from qunlearn.metrics.forgetting_quality import LEAST_MODELS, Population
from qunlearn.metrics.lira import Shadows
from qunlearn.training.seeds import Seeds
from qunlearn.training.train import check_outputs, matched

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Family:
    """A family of audits.

    Attributes:
        name: by which it is asked for.
        run: gives its figures of one model.
        cost: what it takes.
        needs: what it has no value without: "original", "retrained", "shadows", "population"; figures that need less
            are given without.
    """

    name: str
    run: Callable[[Case], Iterable[Figure]]
    cost: str
    needs: frozenset[str] = frozenset()

    @property
    def doc(self) -> str:
        """What it asks, in a line."""
        return (self.run.__doc__ or "").split("\n", 1)[0]


AUDITS: dict[str, Family] = {
    family.name: family
    for family in (
        Family("membership", membership, "forward passes, one gradient a forget and holdout sample"),
        Family("lira", lira, "none here; shadow models beforehand", frozenset({"shadows"})),
        Family("quality", quality, "none here; many models beforehand", frozenset({"population"})),
        Family("relearning", relearning, "some hundred training steps", frozenset({"original"})),
        Family("probes", probes, "forward passes, sixty small classifiers"),
        Family("confusion", confusion, "forward passes"),
        Family("information", information, "eighty training steps of the later layers, a stage"),
        Family("helstrom", helstrom, "forward passes, six hundred small eigenvalue problems"),
        Family("distances", distances, "forward passes", frozenset({"retrained"})),
        Family("streisand", streisand, "forward passes"),
        Family("class_deletion", class_deletion, "forward passes"),
    )
}


def audit(
    model: nn.Module,
    split: Split,
    *,
    original: nn.Module | None = None,
    retrained: Sequence[nn.Module] = (),
    shadows: Shadows | str | None = None,
    population: Population | str | None = None,
    audits: Sequence[str] | None = None,
    seed: int = 0,
) -> Audit:
    """Attacks a model and probes what it still holds; every figure beside the retrained models', audited alike.

    Non-members come from the holdout set, class-matched. A figure that can't be had stands with NaN and its reason.

    Args:
        model: the unlearned model (or any other to be judged).
        split: what it was trained, told to forget and is judged on.
        original: the model before unlearning; without it relearning and the index of information have no value.
        retrained: models trained without the forget set; one that is the audited model is not compared with itself.
        shadows: scores of shadow models for LiRA, or why there are none.
        population: scores of many unlearned and retrained models for forgetting quality, or why there are none.
        audits: names of families (see `AUDITS`); None for all.
        seed: of folds, orders and draws, the same for all models.

    Returns:
        The findings; ``audit["name"]`` is one, ``audit.table()`` a data frame.

    Raises:
        UnknownNameError: for a family that is not there.
        InputError: for something else than modules, or outputs that are not logits of the split's classes.
        NumericalError: for logits that are not finite.
    """
    auditor = Auditor(split, original=original, retrained=retrained)
    return auditor(model, shadows=shadows, population=population, audits=audits, seed=seed)


class Auditor:
    """`audit` for many models beside the same original and retrained ones, which are audited once a family and seed.

    Args:
        split: what the models were trained, told to forget and are judged on.
        original: the model before unlearning.
        retrained: models trained without the forget set.

    Raises:
        InputError: for something else than modules, or outputs that are not logits of the split's classes.
    """

    def __init__(self, split: Split, *, original: nn.Module | None = None, retrained: Sequence[nn.Module] = ()) -> None:
        if not isinstance(split, Split):
            raise InputError(f"expected a Split, got {type(split).__name__}; make one by data.split(request)")
        if original is not None:
            _check(original, split, "original")
        for other in retrained:
            _check(other, split, "retrained")
        self.bench = Bench(split, original, retrained)
        self._known: dict[tuple[Any, ...], list[dict[str, Figure]]] = {}

    def __call__(
        self,
        model: nn.Module,
        *,
        shadows: Shadows | str | None = None,
        population: Population | str | None = None,
        audits: Sequence[str] | None = None,
        seed: int = 0,
    ) -> Audit:
        """The findings about one model; see `audit`."""
        chosen = [_family(name) for name in (AUDITS if audits is None else audits)]
        given = {
            "shadows": _given(shadows, Shadows, "no shadow models were given"),
            "population": _given(population, Population, "no populations were given"),
        }
        _check(model, self.bench.split, "audited model")
        _check_material(given, self.bench)
        subject, seeds = Subject(model, self.bench.sets), Seeds(seed, "audit")
        subject = next((one for one in self._subjects() if one.same(subject)), subject)
        others = _without(self.bench.retrained, subject)
        if any(family.name == "relearning" for family in chosen):
            prepare([subject, *others], self.bench, seeds)
        found: list[Finding] = []
        for family in chosen:
            figures = list(family.run(Case(subject, others, self.bench, seeds, **given)))
            beside = self._beside(family, seeds, given)
            usual = [values for other, values in zip(self.bench.retrained, beside, strict=True) if other in others]
            found += [finding for figure in figures for finding in _findings(figure, usual)]
        return Audit(tuple(found))

    def _subjects(self) -> list[Subject]:
        original = self.bench.original
        return [*([original] if original is not None else []), *self.bench.retrained]

    def _beside(self, family: Family, seeds: Seeds, given: dict[str, Any]) -> list[dict[str, Figure]]:
        """The figures of every retrained model, by name."""
        # Shadow models and populations belong to the audited model, so that nothing of them can be kept.
        own = bool(family.needs & given.keys())
        key = (family.name, seeds)
        if own or key not in self._known:
            cases = [
                Case(one, [o for o in self.bench.retrained if o is not one], self.bench, seeds, **given, audited=False)
                for one in self.bench.retrained
            ]
            found = [{figure.name: figure for figure in family.run(case)} for case in cases]
            if own:
                return found
            self._known[key] = found
        return self._known[key]


def _without(subjects: Sequence[Subject], one: Subject) -> list[Subject]:
    """All but the first that is the same model: retrained models of an exact method may equal each other."""
    place = next((number for number, other in enumerate(subjects) if other.same(one)), None)
    return [other for number, other in enumerate(subjects) if number != place]


def _findings(figure: Figure, beside: list[dict[str, Figure]]) -> list[Finding]:
    """A figure beside the retrained models', and for attacks on membership its distance from theirs."""
    values = np.array([figures[figure.name].bounds.value for figures in beside if figure.name in figures])
    known = values[~np.isnan(values)]
    usual = figure.usual or _spread(known)
    found = [_finding(figure.name, figure.bounds, usual, figure)]
    if figure.name.startswith("membership_") and len(known):
        found.append(_finding(f"{figure.name}_excess", *_excess(figure.bounds, known), figure))
    return found


def _excess(bounds: Bounds, known: Floats) -> tuple[Bounds, Bounds]:
    """How far a figure is from the retrained models' mean; and each of those from the mean of the others."""
    centre = float(known.mean())
    moved = Bounds(bounds.value - centre, bounds.low - centre, bounds.high - centre)
    own = known - (known.sum() - known) / (len(known) - 1) if len(known) > 1 else np.array([])
    return moved, _spread(own)


def _spread(values: Floats) -> Bounds:
    """Mean, least and greatest; NaN for none."""
    if not len(values):
        return Bounds(NAN, NAN, NAN)
    low, high = float(values.min()), float(values.max())
    return Bounds(min(high, max(low, float(values.mean()))), low, high)  # the mean of equal values may round past them


def _finding(name: str, bounds: Bounds, usual: Bounds, like: Figure) -> Finding:
    mine = {"value": bounds.value, "low": bounds.low, "high": bounds.high}
    theirs = {"retrained": usual.value, "retrained_low": usual.low, "retrained_high": usual.high}
    return Finding(name, **mine, **theirs, n=like.n, unit=like.unit, reason=like.reason)


def _family(name: str) -> Family:
    if name not in AUDITS:
        raise UnknownNameError("family of audits", name, AUDITS)
    return AUDITS[name]


def _given(value: Any, kind: type, otherwise: str) -> Any:
    """The material, or why there is none."""
    if value is None:
        return otherwise
    if not isinstance(value, (kind, str)):
        raise InputError(f"expected {kind.__name__}, or why there is none as a sentence, got {type(value).__name__}")
    return value


def _check_material(given: dict[str, Any], bench: Bench) -> None:
    """Refuses scores of another split, and too few models, before anything is run."""
    shadows, population = given["shadows"], given["population"]
    if isinstance(shadows, Shadows):
        check_pool(shadows, bench)
    if isinstance(population, Population):
        models, samples = population.unlearned.shape
        if models < LEAST_MODELS or samples != len(bench.split.forget):
            raise InputError(
                f"expected a population of at least {LEAST_MODELS} models on the split's {len(bench.split.forget)} "
                f"forget samples, got {models} on {samples}; train more models, for this split"
            )


def _check(model: Any, split: Split, role: str) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{role}: expected a torch module, got {type(model).__name__}; for the result of unlearn give its .model"
        )
    check_outputs(model, matched(split.train, model))
