"""Several models of one architecture that answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qunlearn.errors import InputError, UnknownNameError

VOTES = ("mean", "majority")


class Ensemble(nn.Module):
    r"""Logits of an ensemble: the logarithm of the members' mean probability.

    .. math:: f(x) = \log \frac{1}{\sum_s w_s} \sum_s w_s\, \mathrm{softmax}(f_s(x))

    With ``vote="majority"`` a member's probabilities are 1 for the class that it finds likeliest, and every class gets
    an equal share of one more vote, so that no logit is infinite; such an ensemble has no gradient.

    Args:
        members: at least one, of one architecture: maps of samples ``(batch, ...)`` to logits ``(batch, classes)``.
        vote: ``"mean"`` or ``"majority"``.

    Attributes:
        weight: w, ``(members,)``; a member of weight 0 is not asked (it may have learnt nothing).

    Raises:
        InputError: for no members, or members of different shapes.

    Source: Bourtoule et al. 2021, arXiv 1912.03817, section IV-D (votes and mean vectors).
    """

    weight: Tensor
    recipe: Any = None

    def __init__(self, members: Sequence[nn.Module], *, vote: Literal["mean", "majority"] = "mean") -> None:
        super().__init__()
        if vote not in VOTES:
            raise UnknownNameError("way to vote", vote, VOTES)
        kinds = {(type(member), str([(n, p.shape) for n, p in member.named_parameters()])) for member in members}
        if len(kinds) != 1:
            raise InputError(f"expected members of one architecture, got {len(kinds)} kinds among {len(members)}")
        self.members, self.vote = nn.ModuleList(members), vote
        first = next(members[0].parameters(), torch.empty(0))
        self.register_buffer("weight", torch.ones(len(members), dtype=first.dtype, device=first.device))

    def forward(self, x: Tensor) -> Tensor:
        """Samples ``(batch, ...)`` to logits ``(batch, classes)``."""
        asked = [(w, member) for w, member in zip(self.weight, self.members, strict=True) if float(w) > 0]
        if not asked:
            raise InputError("expected a member of weight above 0, got none; this ensemble has not learnt anything")
        if self.vote == "mean":
            logs = [torch.log_softmax(member(x), 1) + w.log() for w, member in asked]
            return torch.logsumexp(torch.stack(logs), 0) - self.weight.sum().log()
        outputs = [(w, member(x)) for w, member in asked]
        votes = sum(w * nn.functional.one_hot(out.argmax(1), out.shape[1]).to(out) for w, out in outputs)
        assert isinstance(votes, Tensor)
        return ((votes + 1 / votes.shape[1]) / (self.weight.sum() + 1)).log()

    def extra_repr(self) -> str:
        """How it votes, for printing."""
        return f"vote={self.vote!r}"
