"""`submit`: every job of a plan once, whatever happens in between.

The order of things is the whole point. A row says "posting" on the disk before the request leaves; the job carries
the hash of its work as a tag; and whoever finds a row in posting asks the service for that tag until the service must
have listed the job, if it ever accepted it, before the job is sent again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qunlearn.errors import InputError, ServiceError
from qunlearn.hardware import clock
from qunlearn.hardware.folder import Folder
from qunlearn.hardware.journal import HEARTBEAT, Journal, Row
from qunlearn.hardware.service import PAUSES, RefusedError, Remote, denied, meaning
from qunlearn.hardware.status import Status, make_status

#: How often a job is sent whose outcome stays unknown and that the service never lists.
TRIES = 5
Say = Callable[[str], None]


def submit(
    folder: str | Path,
    service: Any = None,
    *,
    device: Any = None,
    listing_delay: float = 60.0,
    retry_failed: bool = False,
    say: Say = lambda line: None,
) -> Status:
    """Submit the jobs of a plan that are not submitted yet; a fake device runs them at once.

    May be killed at any point and called again: no job is sent twice and none is lost, as long as the service lists
    a job within `listing_delay` of accepting it, and accepts none later than a few seconds after the request ended.

    Args:
        folder: the plan's folder.
        service: the runtime service; that of the user's account where one is needed and None.
        device: the device itself, where the plan was made for an object that has no name to find it by.
        listing_delay: within how many seconds the service lists a job that it has accepted.
        retry_failed: send failed and cancelled jobs again.
        say: is given a line on what is going on.

    Returns:
        How far the jobs are.

    Raises:
        InputError: no plan there, no account or one that may not, a device that is gone; another command at work.
        CorruptFileError: for a plan that is damaged.
        ServiceError: where the service cannot be reached for minutes. What was sent is kept.
    """
    if not listing_delay >= 0:
        raise InputError(f"expected a listing delay of at least 0 seconds, got {listing_delay}")
    planned = Folder(folder)
    journal = planned.journal()
    with journal.locked():
        rows, damaged = journal.repair()
        for sentence in damaged:
            say(sentence)
        rows = [planned.recover(row, journal) for row in rows]
        if retry_failed:
            rows = [again(row, journal) for row in rows]
        left = [row for row in rows if row.state in ("planned", "posting")]
        if left and planned.local:
            _run_here(planned, journal, left, device, say)
        elif left:
            _Sending(planned, journal, planned.remote(service, to_post=True), listing_delay, say).send_all(left)
        return make_status(planned, journal.rows())


def again(row: Row, journal: Journal) -> Row:
    """A failed job planned anew, as another attempt with a tag of its own."""
    if row.state != "failed":
        return row
    earlier = (*row.earlier, row.job_id) if row.job_id else row.earlier
    fresh = replace(row, attempt=row.attempt + 1, job_id=None, batch=None, reason=None, earlier=earlier)
    return journal.move(fresh, "planned")


def _run_here(planned: Folder, journal: Journal, rows: list[Row], device: Any, say: Say) -> None:
    """Run jobs on this machine and keep their counts; one that was cut short is run again."""
    device = planned.device(device)
    for row in rows:
        row = replace(row, attempt=max(1, row.attempt))
        row = journal.move(row, "posting", job_id=f"local-{row.work}-{row.attempt}")
        planned.keep_counts(row, planned.run_here(row, device))
        journal.move(row, "collected")
        say(f"job {row.number + 1} of {len(journal.works)}: run on this machine")


class _Sending:
    """One call of `submit` to a service."""

    def __init__(self, planned: Folder, journal: Journal, remote: Remote, listing_delay: float, say: Say) -> None:
        self.planned, self.journal, self.remote = planned, journal, remote
        self.delay, self.say, self.batches = listing_delay, say, 0

    def send_all(self, rows: list[Row]) -> None:
        """Bring every row to submitted or failed; those that may be sent already come last, with the least to wait."""
        self._open_batch()
        try:
            for row in sorted(rows, key=lambda row: row.state == "posting"):
                self._bring(row)
        finally:
            self.remote.close_batch()

    def _open_batch(self) -> None:
        self.batches += 1
        self.remote.open_batch(self.say)

    def _bring(self, row: Row) -> None:
        unknown = busy = 0
        if row.state == "posting":
            row = self._settle(row)
        while row.state == "planned":
            found = self._look(row)
            if found is not None:
                row = self._adopt(row, *found)
                break
            row, error = self._post(row)
            if error is None:
                continue
            said = self.remote.words(error)
            if meaning(error) == "busy":
                if busy == len(PAUSES):
                    raise ServiceError(self._kept(row, f"the service is busy ({said}) for minutes"))
                clock.wait(PAUSES[busy])
                busy += 1
            elif meaning(error) == "unknown":
                unknown += 1
                row = self._settle(row)
                if row.state == "planned" and unknown == TRIES:
                    raise ServiceError(self._kept(row, f"it was sent {TRIES} times and never arrived ({said})"))

    def _post(self, row: Row) -> tuple[Row, Exception | None]:
        """Send a job: the row as it is afterwards, and the error that may have come."""
        row = self.journal.move(row, "posting", batch=self.remote.batch_id)
        try:
            with self.journal.alive(row):
                name = self.remote.post(self.planned.pubs(row.number), self.planned.options(row))
        except Exception as error:
            return self._after(row, error), error
        if self._is_named(row, name):
            return self._submitted(row, name), None
        odd = ServiceError(f"the reply named {name}, which does not carry its tag")
        return self._after(row, odd), odd

    def _is_named(self, row: Row, name: str) -> bool:
        """Whether a job carries the row's tag: a reply may be that to another request."""
        try:
            return row.tag in (self.remote.job(name).tags or [])
        except (RefusedError, InputError):
            return False

    def _after(self, row: Row, error: Exception) -> Row:
        """The row after a request that ended with an error."""
        found, said = meaning(error), self.remote.words(error)
        if found == "refused" and self.batches < TRIES and self.remote.batch_ended():
            self._open_batch()
            return self.journal.move(row, "planned")
        if found == "refused":
            self.say(f"job {row.number + 1} of {self._total}: refused ({said})")
            return self.journal.move(row, "failed", reason=f"refused by the service: {said}")
        if found == "unknown":
            self.say(f"job {row.number + 1} of {self._total}: the outcome is unknown ({said}); looking for it")
            return self.journal.move(row, "posting")
        row = self.journal.move(row, "planned")
        if found == "denied":
            raise InputError(self._kept(row, denied("submit jobs", said)))
        return row

    def _settle(self, row: Row) -> Row:
        """Look for a job that may have been accepted until the service must have listed it; else it is planned."""
        deadline = min(row.at, clock.now()) + self.delay + 2 * HEARTBEAT
        pause = 1.0
        while True:
            last = clock.now() >= deadline  # before asking: an answer from before the deadline says nothing
            found = self._look(row)
            if found is not None:
                return self._adopt(row, *found)
            if last:
                return self.journal.move(replace(row, attempt=max(1, row.attempt)), "planned")
            clock.wait(min(pause, max(0.0, deadline - clock.now()) + 0.01))
            pause = min(2 * pause, 15.0)

    def _look(self, row: Row) -> tuple[int, str] | None:
        """(attempt, id) of a row's job, if the service lists one."""
        found = self.remote.find(row)
        newest = [one for one in found if one[0] == max(attempt for attempt, _ in found)]
        if len(newest) > 1:  # not of this program's making, but never to be hidden
            extra = ", ".join(name for _, name in newest[1:])
            self.say(f"job {row.number + 1}: the service lists it {len(newest)} times; cancel {extra}")
        return newest[0] if newest else None

    def _adopt(self, row: Row, attempt: int, name: str) -> Row:
        return self._submitted(replace(row, attempt=attempt), name, "found, was submitted before")

    def _submitted(self, row: Row, name: str, how: str = "submitted") -> Row:
        row = self.journal.move(row, "submitted", job_id=name)
        self.say(f"job {row.number + 1} of {self._total}: {how} as {name}")
        return row

    @property
    def _total(self) -> int:
        return len(self.journal.works)

    def _kept(self, row: Row, what: str) -> str:
        sent = sum(other.job_id is not None for other in self.journal.rows())
        return f"job {row.number + 1} of {self._total}: {what}. {sent} of {self._total} jobs are submitted and kept"
