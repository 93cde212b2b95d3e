"""The audits of one point of a study: what is audited, and the blocks of models that some audits need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qunlearn.errors import InputError
from qunlearn.methods.certificate import EXACT
from qunlearn.methods.shadows import pool_of
from qunlearn.study.grid import CONTROLS, MethodChoice
from qunlearn.study.task import Kind, Task, hash_of
from qunlearn.training.loop import REVISION as LOOP_REVISION

if TYPE_CHECKING:
    from qunlearn.study.point import Point

REVISION = 1  # of shadow models, populations and rankings: raise it when they come out differently
FOR_A_CLASS = "a class is forgotten whole: whoever is not a member of it is to be forgotten, too"

BY_CHANCE = "two sets of retrained models differ by chance alone; that score stands beside every other method's"
FOR_AN_EXACT_METHOD = "the method is exact: what it leaves is what training without the samples gives"
FOR_A_CONTROL = "not made for controls (audit.controls)"


def audit_tasks(point: Point, trials: Sequence[Task]) -> list[Task]:
    """The tasks that audit a point's trials: blocks of models, a ranking of the methods, the audits."""
    return list(_Audits(point, trials).tasks()) if point.study.settings.audit.families else []


def families(asked: Sequence[str]) -> list[str]:
    """The audits that a study asks for, in the order of the registry."""
    from qunlearn.evaluation.audit import AUDITS

    return list(AUDITS) if "all" in asked else [name for name in AUDITS if name in asked]


def _is_exact(choice: MethodChoice) -> bool:
    """Whether a method, other than retraining itself, is exact: shadow models could only confirm it, at great cost."""
    return choice.name not in CONTROLS and choice.method.certifies == EXACT


class _Audits:
    """The audits of one point."""

    def __init__(self, point: Point, trials: Sequence[Task]) -> None:
        self.point, self.asked = point, point.study.settings.audit
        self.trials: dict[str, list[Task]] = {}
        for task in trials:
            self.trials.setdefault(str(task.row["method"]), []).append(task)
        self.shadows = self.asked.shadows if self.no_shadows is None else 0
        self.quality = self.asked.quality if self.no_population is None else 0
        self.blocks: dict[str, list[Task]] = {}

    @cached_property
    def no_shadows(self) -> str | None:
        """Why there are no shadow models; None where there are."""
        if not self.asked.shadows:
            return "the study asks for no shadow models (audit.shadows = 0)"
        if self._is_control:
            return FOR_A_CONTROL
        if self.point.split.forget_class is not None:
            return FOR_A_CLASS
        try:
            pool_of(self.point.split)
        except InputError as error:
            return str(error)
        return None

    @property
    def no_population(self) -> str | None:
        """Why there are no populations; None where there are."""
        if not self.asked.quality:
            return "the study asks for no populations (audit.quality = 0)"
        return FOR_A_CONTROL if self._is_control else None

    @property
    def _is_control(self) -> bool:
        return not self.asked.controls and self.point.settings["model"]["control"] is not None

    def tasks(self) -> Iterator[Task]:
        """All of them, each after what it needs."""
        ranking = self._ranking() if self.shadows or self.quality else None
        audits = [audit for choice in self.point.choices for audit in self._of(choice, ranking)]
        for blocks in self.blocks.values():
            yield from blocks
        if ranking is not None:
            yield ranking
        yield from _units(audits)

    def _of(self, choice: MethodChoice, ranking: Task | None) -> Iterator[Task]:
        """The audits of a method's trials, the blocks that they need taken down."""
        own = self.trials.get(choice.label, [])
        chosen = own[: self.asked.seeds] if self.asked.seeds else own
        ranked = None if choice.name in CONTROLS or ranking is None or _is_exact(choice) else ranking.key
        tuning = self.point.tunings.get(choice.label)
        uses: dict[str, Any] = {}
        for what in () if _is_exact(choice) else ("shadows", "population"):
            uses |= self._used(what, choice, ranked, tuning.key if tuning else None)
        yield from (self._audit(task, choice, uses, ranked) for task in chosen)

    def _audit(self, trial: Task, choice: MethodChoice, uses: dict[str, Any], ranked: str | None) -> Task:
        from qunlearn.evaluation.audit import REVISION as AUDIT_REVISION

        extra: dict[str, Any] = {"families": families(self.asked.families), "best": self.asked.best, **uses}
        chance = BY_CHANCE if choice.name == "retrain" else None
        exact = FOR_AN_EXACT_METHOD if _is_exact(choice) else None
        why = {"shadows": self.no_shadows or exact, "population": self.no_population or exact or chance}
        extra |= {f"no_{name}": reason for name, reason in why.items() if reason is not None}
        rules = {"audits": AUDIT_REVISION, "own": REVISION}
        key = hash_of({"kind": "audit", "trial": trial.key, "extra": extra, "ranking": ranked, "rules": rules})
        used = tuple(dict.fromkeys(key for keys in uses.values() if isinstance(keys, list) for key in keys))
        return Task(
            key, "audit", self.point.trained, trial.request, trial.seed, trial.original, trial.retrained,
            choice.to_config(), trial.row, trial=trial.key, ranking=ranked, uses=used, extra=extra,
        )  # fmt: skip

    def _ranking(self) -> Task:
        """What ranks the methods that are neither controls nor exact, by their trials, done or failed."""
        point = self.point
        judged = {one.label for one in point.choices if one.name not in CONTROLS and not _is_exact(one)}
        ranked = {label: [task.key for task in trials] for label, trials in self.trials.items() if label in judged}
        originals = tuple(task.key for task in point.originals)
        rules = {"own": REVISION, "loop": LOOP_REVISION}
        key = hash_of({"kind": "ranking", "trials": ranked, "originals": originals, "rules": rules})
        trials = tuple(key for keys in ranked.values() for key in keys)
        extra = {"trials": ranked, "best": self.asked.best}
        row = {"study": point.study.name, **point.place()}
        return Task(key, "ranking", point.trained, point.request, 0, row=row, uses=originals, after=trials, extra=extra)

    def _used(self, what: str, choice: MethodChoice, ranked: str | None, tuning: str | None) -> dict[str, Any]:
        """The blocks of shadow models, or of a population, for a method: by name their keys, and which of their models.

        WHAT are the method's own, WHAT_bases those that they were made of, WHAT_retrained those beside them, and
        WHAT_number how many of each count.
        """
        number = self.shadows if what == "shadows" else self.quality
        again = choice.name == "retrain"
        if not number or (again and what == "population"):
            return {}
        kind: Kind = "shadow" if what == "shadows" else "population"
        own = choice if choice.method.trains else None
        bases = [] if own else self._blocks(kind, "trained", number)
        beside = self._blocks("population", "retrained", number, own, ranked if own else None)
        found = beside if again else self._blocks(kind, "unlearned", number, choice, ranked, tuning, bases)
        keys = {what: found, f"{what}_bases": bases, f"{what}_retrained": beside}
        return {name: [task.key for task in tasks] for name, tasks in keys.items()} | {f"{what}_number": number}

    def _blocks(
        self,
        kind: Kind,
        part: str,
        number: int,
        choice: MethodChoice | None = None,
        ranked: str | None = None,
        tuning: str | None = None,
        bases: Sequence[Task] = (),
    ) -> list[Task]:
        """The blocks that hold so many models; one that is asked for twice is one."""
        size = self.point.study.settings.run.together
        found = []
        for place, start in enumerate(range(0, number, size)):
            own = [one for one in range(start, start + size) if one in self._all(kind, part)]
            base = bases[place].key if bases else None
            found.append(self._block(kind, part, own, choice, ranked, tuning, base))
        for task in found:
            self.blocks.setdefault(task.key, [task])
        return found

    def _all(self, kind: Kind, part: str) -> range:
        """The numbers of all models of a part; those retrained serve shadow models and populations alike."""
        if kind == "shadow":
            return range(self.shadows)
        return range(max(self.shadows, self.quality) if part == "retrained" else self.quality)

    def _block(
        self,
        kind: Kind,
        part: str,
        numbers: Sequence[int],
        choice: MethodChoice | None,
        ranked: str | None,
        tuning: str | None,
        base: str | None,
    ) -> Task:
        point = self.point
        config = choice.to_config() if choice else None
        rules = {"protocol": point.split.protocol, "loop": LOOP_REVISION, "own": REVISION}
        determined = {
            "kind": kind, "part": part, "numbers": numbers, "identity": point.identity, "sets": self._sets(kind, part),
            "split": point.settings["data"]["split_seed"], "rules": rules, "base": base, "ranking": ranked,
            "tuning": tuning, "method": choice.identity if choice else None,
            "pool": part != "trained" and bool(self.shadows),
        }  # fmt: skip
        row = point.row(choice, numbers[0]) if choice else {}
        extra = {"part": part, "numbers": list(numbers), "best": self.asked.best, "pool": bool(self.shadows)}
        uses = (base,) if base else ()
        key = hash_of(determined)
        return Task(
            key, kind, point.trained, point.request, numbers[0], method=config, row=row, tuning=tuning,
            ranking=ranked, uses=uses, extra=extra,
        )  # fmt: skip

    def _sets(self, kind: Kind, part: str) -> dict[str, str]:
        """What the models of a block are trained on and asked about."""
        if (kind, part) == ("population", "trained"):  # an original serves every request
            return {"train": self.point.identities["original"], "valid": self.point.identities["validation"]}
        return {name: identity for name, identity in self.point.sets.items() if name != "train"}


def _units(audits: Sequence[Task]) -> Iterator[Task]:
    """The audits, those beside the same original and retrained models in one unit, whose figures are found once."""
    homes: dict[tuple[str | None, frozenset[str]], str] = {}
    for task in audits:
        yield replace(task, unit=homes.setdefault((task.original, frozenset(task.retrained)), task.key))
