"""The verdict: whether a model erased the forget set from its states, or only stopped saying so."""

from __future__ import annotations

import math

import numpy as np

from qunlearn.metrics.arrays import Values, column

LEAST = 3  # retrained models, below which they have no range
VERDICTS = ("erases", "suppresses", "undecided", "neither")
SLACK = 1e-9  # of figures in [-1, 1]: what rounding may add where all the retrained models are the same


def usual_range(values: Values, level: float = 0.95) -> tuple[float, float]:
    """The prediction interval for one further retrained model: mean -+ t_(n-1) s sqrt(1 + 1/n) of its likes.

    Args:
        values: of the retrained models ``(n,)``, three or more; taken as normal.
        level: probability with which a further one falls inside, in (0, 1).

    Returns:
        Its ends; NaN for fewer than three values, or one that is NaN.

    Source: Hahn and Meeker 1991, Statistical Intervals, section 4.7.
    """
    from scipy.stats import t

    sample = column(values, "values")
    if sample.size < LEAST or np.isnan(sample).any():
        return float("nan"), float("nan")
    half = t.ppf((1 + level) / 2, sample.size - 1) * sample.std(ddof=1) * np.sqrt(1 + 1 / sample.size)
    return float(sample.mean() - half), float(sample.mean() + half)


def verdict(unlearned: float, original: float, retrained: Values, output: float, outputs: Values) -> str:
    """What became of the forget set, by its states and by the model's answers; "" where one of them is not known.

    - ``"undecided"``: the original's states lay in the range of the retrained models' already (`usual_range`), so that
      these samples cannot tell erasure from none. That goes before the others: where nothing was to be seen, nothing
      can have been suppressed;
    - ``"erases"``: the model's states lie in that range, and the original's did not;
    - ``"suppresses"``: its states lie outside, but its outputs are no farther from the retrained models' than one more
      of them would be;
    - ``"neither"``: both are farther off.

    Args:
        unlearned: Helstrom advantage of the forget set (`helstrom_forget`) of the model that is judged.
        original: the original's.
        retrained: the retrained models', ``(n,)``, three or more.
        output: mean Jensen-Shannon divergence of its outputs on the forget set from the retrained models'.
        outputs: the same of each retrained model from the others ``(n,)``; only its upper end counts, since to be
            nearer to them than they are to each other is no deviation.
    """
    ends = usual_range(retrained), usual_range(outputs)
    if any(math.isnan(value) for value in (unlearned, original, output, *ends[0], *ends[1])):
        return ""
    if _inside(original, *ends[0]):
        return "undecided"
    if _inside(unlearned, *ends[0]):
        return "erases"
    return "suppresses" if _inside(output, -math.inf, ends[1][1]) else "neither"


def _inside(value: float, low: float, high: float) -> bool:
    return low - SLACK <= value <= high + SLACK
