"""Relative gradient ascent: up on the forget set, down on the retain set, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.hyper import hyper
from qunlearn.methods.losses import ascent_loss, retain_loss
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task
from qunlearn.training.phases import Phase


@register
@dataclass(frozen=True, kw_only=True)
class RelativeAscent(GradientMethod):
    r"""Climbs the loss of the forget set for some passes, descends that of the retain set for some, and so on.

    .. math:: \text{ascent: } -\mathrm{CE}(f(x_f), y_f), \qquad \text{descent: } \mathrm{CE}(f(x_r), y_r)

    The reading taken: the source's code releases plain ascent alone, but has flags for ascent on U (unlearned) and
    descent on R (retained) and files named U8R1 and UR5. A round here is `ascent` passes over the forget set and then
    `descent` passes over the retain set, so that U8R1 is ``ascent=8, descent=1`` and UR5 ``ascent=1, descent=5``; what
    these numbers count there could not be verified. Ascent takes `ascent_rate` times the learning rate. Where that is
    not 1, each change of direction begins with a fresh optimizer, so that the momentum of one does not drive the other.
    Only the ends of rounds are candidates.

    Nothing in it needs a circuit, and any model may take it; with expectation values as logits the ascent is bounded,
    as it is not once a linear head follows. A round costs ``ascent`` times the forget set and ``descent`` times the
    retain set in gradient evaluations.

    Source: Su et al. 2025, arXiv 2509.06086 (relative gradient ascent), in the reading above.
    """

    name: ClassVar[str] = "relative-ascent"
    strategy = "can erase by re-uploading or encoder"
    epochs: int = hyper(10, "rounds of ascent and descent", low=1)
    ascent: int = hyper(1, "passes over the forget set in a round", low=1)
    descent: int = hyper(1, "passes over the retain set in a round", low=1)
    ascent_rate: float = hyper(0.5, "learning rate of ascent, times that of descent", low=0, search=(0.05, 2.0))

    def phases(self, model: nn.Module, task: Task) -> Sequence[Phase]:
        """Ascent and descent in turn."""
        up = Phase("forget", ascent_loss, self.ascent, candidate=False, rate=self.ascent_rate)
        down = [Phase("retain", retain_loss, candidate=last) for last in (*[False] * (self.descent - 1), True)]
        return [up, *down] * self.epochs
