"""What an audit says: one figure with its interval, beside the same figure of the retrained models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qunlearn.errors import UnknownNameError
from qunlearn.metrics import Bounds

if TYPE_CHECKING:
    import pandas

NAN = float("nan")


@dataclass(frozen=True)
class Figure:
    """One figure of one model.

    Attributes:
        name: unique among all audits, such as ``"membership_loss_auc"``.
        bounds: value and 95 % interval; NaN where there is none.
        n: samples (or models, or runs) that it rests on.
        unit: "share", "score", "nats", "steps", "samples", "epsilon" or "relative".
        reason: why there is no value, or what limits it.
        usual: mean, least and greatest value of retraining, where it is not found by auditing the retrained models.
    """

    name: str
    bounds: Bounds
    n: int
    unit: str = "share"
    reason: str = ""
    usual: Bounds | None = None


@dataclass(frozen=True)
class Finding:
    """A figure of an audited model, and of the retrained models audited alike: only the difference means anything.

    Attributes:
        name: unique among all audits, such as ``"probe_linear_circuit"``.
        value: of the audited model; NaN where there is none.
        low: lower end of its 95 % interval.
        high: upper end.
        retrained: mean of the retrained models' values; NaN without retrained models.
        retrained_low: the least of them.
        retrained_high: the greatest of them.
        n: samples (or models, or runs) that the value rests on.
        unit: "share", "score", "nats", "steps", "samples", "epsilon" or "relative".
        reason: why there is no value, or what limits it; empty otherwise.
    """

    name: str
    value: float
    low: float
    high: float
    retrained: float = NAN
    retrained_low: float = NAN
    retrained_high: float = NAN
    n: int = 0
    unit: str = "share"
    reason: str = ""


@dataclass(frozen=True)
class Audit:
    """All findings about one model, in the order of the families."""

    findings: tuple[Finding, ...]

    def __getitem__(self, name: str) -> Finding:
        """The finding of a name.

        Raises:
            UnknownNameError: names the nearest.
        """
        found = {finding.name: finding for finding in self.findings}
        if name not in found:
            raise UnknownNameError("finding", name, found)
        return found[name]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __contains__(self, name: object) -> bool:
        return any(finding.name == name for finding in self.findings)

    def table(self) -> pandas.DataFrame:
        """A row a finding, with the attributes of `Finding` as columns."""
        import pandas

        return pandas.DataFrame([asdict(finding) for finding in self.findings])

    def to_dict(self) -> dict[str, Any]:
        """The findings as JSON values (NaN where there is no number)."""
        return {"findings": [asdict(finding) for finding in self.findings]}


def absent(name: str, reason: str, unit: str = "share") -> Figure:
    """A figure that has no value, with the reason."""
    return Figure(name, Bounds(NAN, NAN, NAN), 0, unit, reason)
