"""How far the jobs of a plan are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qunlearn.hardware.folder import Folder
from qunlearn.hardware.journal import Row
from qunlearn.hardware.service import RefusedError, Remote

#: What the service says of a job that will not give a result any more.
ENDED = ("ERROR", "CANCELLED")


@dataclass(frozen=True)
class Status:
    """How far the jobs of a plan are.

    Attributes:
        folder: the plan's folder.
        name: the plan's name.
        backend: the device's name.
        rows: the journal's rows, in order.
        service: what the service says of each job, such as "QUEUED"; None where it was not asked.
    """

    folder: Path
    name: str
    backend: str
    rows: tuple[Row, ...]
    service: tuple[str | None, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs are in each state, in the words of the service where it was asked."""
        said = self.service or (None,) * len(self.rows)
        found = Counter(
            word.lower() if word and row.state == "submitted" else row.state
            for row, word in zip(self.rows, said, strict=True)
        )
        return dict(sorted(found.items()))

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows of jobs that failed."""
        return tuple(row for row in self.rows if row.state == "failed")

    @property
    def unsent(self) -> bool:
        """Whether there is something left to submit."""
        return any(row.state in ("planned", "posting") for row in self.rows)

    @property
    def collected(self) -> bool:
        """Whether the counts of every job are here."""
        return all(row.state == "collected" for row in self.rows)

    def __str__(self) -> str:
        lines = [f"{self.name} on {self.backend}: " + ", ".join(f"{n} {state}" for state, n in self.counts.items())]
        lines += [failure(row) for row in self.failed]
        return "\n".join(lines)


def failure(row: Row) -> str:
    """A sentence on a failed job: which, why, and what can be done."""
    name = f" ({row.job_id})" if row.job_id else ""
    advice = "send it again with submit --retry-failed"
    if re.search(r"1305|max(imum)? execution time", row.reason or "", re.IGNORECASE):
        advice = "it ran into its time limit: plan again under another name, with a higher limit or fewer samples"
    return f"job {row.number + 1}{name} failed: {row.reason or 'no reason was given'}; {advice}"


def status(folder: str | Path, service: Any = None, *, ask: bool = True) -> Status:
    """How far the jobs of a plan are; changes nothing.

    Args:
        folder: the plan's folder.
        service: the runtime service to ask; the user's account where one is needed and None.
        ask: whether to ask the service at all.

    Raises:
        InputError: for a folder without a plan, and where there is no account though jobs are under way.
        CorruptFileError: for a plan that is damaged.
    """
    planned = Folder(folder)
    rows = planned.journal().rows()
    under_way = [row for row in rows if row.state == "submitted"]
    words: list[str | None] = [None] * len(rows)
    if ask and under_way and not planned.local:
        remote = planned.remote(service)
        for row in under_way:
            words[row.number] = word_of(remote, row)
    return make_status(planned, rows, words)


def make_status(planned: Folder, rows: Sequence[Row], words: Sequence[str | None] = ()) -> Status:
    """The status of these rows."""
    return Status(planned.root, planned.name, planned.backend, tuple(rows), tuple(words))


def word_of(remote: Remote, row: Row) -> str:
    """The service's word for the state of a job: QUEUED, RUNNING, DONE, CANCELLED, ERROR; or UNKNOWN."""
    assert row.job_id is not None
    try:
        job = remote.job(row.job_id)
        found = remote.patiently(job.status, f"ask for job {row.job_id}")
    except RefusedError:
        return "UNKNOWN"
    return str(getattr(found, "name", found))
