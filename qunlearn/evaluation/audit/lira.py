"""The strongest attack on membership: likelihood ratios sample by sample, from shadow models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.evaluation.audit.bench import Bench, Case
from qunlearn.evaluation.audit.finding import Figure, absent
from qunlearn.evaluation.audit.subject import Subject
from qunlearn.metrics import Bounds
from qunlearn.metrics.curve import Curve, attack_curve
from qunlearn.metrics.lira import Shadows, lira_attack, lira_scores, phi
from qunlearn.training.net import Net

Floats = npt.NDArray[np.float64]
FPRS = {0.01: "tpr_1pct", 0.001: "tpr_01pct"}
KINDS = ("auc", "balanced", *FPRS.values())
OF_A_CLASS = "a class request has no member and non-member of one class that the method could treat alike"


def lira(case: Case) -> Iterator[Figure]:
    """Is a forget sample told from an unseen one, sample by sample, by an attacker with shadow models?

    ``u_lira_*`` attacks the shadow models after the method unlearned, each by an attacker who has all the others;
    ``lira_*`` the same before, which is what there was to remove; ``u_lira_model_*`` the audited model itself, on whose
    few samples the intervals are wide. Beside the first two stand attacks on the retrained models. AUC, balanced
    accuracy of deciding by likelihood (0.5: nothing is told), and the share of members found at 1 % and 0.1 % false
    alarms, where there are scores enough.

    Fooled by: shadow models of another method or setting than the audited model's.

    Source: Carlini et al. 2022, arXiv 2112.03570; Hayes et al. 2024, arXiv 2403.01218 (U-LiRA).
    """
    shadows = OF_A_CLASS if case.bench.forget_class is not None else case.shadows
    if not isinstance(shadows, Shadows):
        yield from (absent(f"{attack}_{kind}", str(shadows)) for attack in ("u_lira", "lira") for kind in KINDS)
        return
    own = pool_scores(case.subject, case.bench, shadows)[None]
    seed = case.seeds.integer("lira")
    for attack, outputs in (("u_lira", shadows.scores), ("lira", shadows.trained)):
        alone = attack_curve(lira_attack(outputs, shadows.inside, own), shadows.member, seed=seed)
        if case.audited:
            pooled = attack_curve(lira_scores(outputs, shadows.inside), shadows.inside, seed=seed)
            yield from _figures(attack, pooled, len(outputs))
        else:
            yield from _figures(attack, alone, 1)
        if attack == "u_lira":
            yield from _figures("u_lira_model", alone, 1)


def pool_scores(subject: Subject, bench: Bench, shadows: Shadows) -> Floats:
    """The model's phi on the samples of the pool, ``(samples,)``."""
    place = check_pool(shadows, bench)
    x = torch.stack([data.x[row] for data, row in (place[number] for number in shadows.ids.tolist())])
    return phi(Net(subject.model).logits(subject.inputs(x)), shadows.labels)


def check_pool(shadows: Shadows, bench: Bench) -> dict[int, tuple[Dataset, int]]:
    """Where each sample of the pool lies, by id: the data set and the row.

    Raises:
        InputError: for a pool of another split.
    """
    sets = (bench.split.test, bench.split.holdout, bench.split.forget)
    place = {number: (data, row) for data in sets for row, number in enumerate(data.ids.tolist())}
    if missing := [number for number in shadows.ids.tolist() if number not in place]:
        raise InputError(
            f"expected shadow models of this split, got {len(missing)} samples that are neither in its forget nor in "
            f"its holdout set, such as id {missing[0]}; train the shadow models for this split"
        )
    return place


def _figures(attack: str, curve: Curve, models: int) -> Iterator[Figure]:
    n = curve.positives + curve.negatives
    note = f"{models} shadow models" if models > 1 else ""
    yield Figure(f"{attack}_auc", curve.auc, n, reason=note)
    yield Figure(f"{attack}_balanced", curve.balanced_accuracy, n, reason=note)
    for fpr, name in FPRS.items():
        rate = curve.tpr[fpr]
        yield Figure(f"{attack}_{name}", Bounds(rate.value, rate.low, rate.high), n, reason=rate.reason or note)
