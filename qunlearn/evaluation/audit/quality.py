"""Forgetting quality: can many unlearned models be told from many retrained ones, sample by sample?"""

from __future__ import annotations

from collections.abc import Iterator

from qunlearn.evaluation.audit.bench import Case
from qunlearn.evaluation.audit.finding import Figure, absent
from qunlearn.metrics import Bounds, share_interval
from qunlearn.metrics.forgetting_quality import Population, forgetting_quality, null_quality

NAMES = ("forgetting_quality", "forgetting_told_apart")
DRAWS = 10  # of models dealt out anew


def quality(case: Case) -> Iterator[Figure]:
    """Can many unlearned models be told from as many retrained ones by what they say about a forget sample?

    ``forgetting_quality`` is the score of the NeurIPS 2023 challenge, beside it what models that differ by chance alone
    score; ``forgetting_told_apart`` the share of forget samples of which it is certain (each at 95 %, so that up to 5 %
    come up by chance) that the two kinds of models differ. Scores of other numbers of models mean something else.

    Fooled by: noise in the outputs, which widens both distributions; constant answers get nothing.

    Source: Triantafillou et al. 2024, arXiv 2406.09073.
    """
    population = case.population
    if not isinstance(population, Population):
        yield from (absent(name, str(population), "score") for name in NAMES)
        return
    if not case.audited:  # the score belongs to a method, not to one retrained model
        return
    found = forgetting_quality(population, seed=case.seeds.integer("quality"))
    usual = null_quality(population, draws=DRAWS, seed=case.seeds.integer("null quality"))
    note = f"{found.n} models a side, which show an epsilon of at most ln(N - 1) = {found.cap:.2f}"
    yield Figure(NAMES[0], Bounds(found.score, found.low, found.high), found.n, "score", note, usual)
    samples = len(found.lower_bounds)
    yield Figure(NAMES[1], share_interval(int((found.lower_bounds > 0).sum()), samples), samples, reason=note)
