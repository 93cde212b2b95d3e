"""The journal of a plan's jobs: one file a job, written before anything is sent, and on the disk when it is.

A job goes planned -> posting -> submitted -> done -> collected, or to failed. ``posting`` stands in the journal
while the request that submits the job is under way, with a time that is refreshed: whoever finds it later knows
when the service can have accepted the job at the latest.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from qunlearn.errors import CorruptFileError
from qunlearn.files import lock, write_bytes
from qunlearn.hardware import clock
from qunlearn.hardware.files import json_bytes, read_json

State = Literal["planned", "posting", "submitted", "done", "collected", "failed"]

#: Seconds between two refreshed times of a row whose request is under way.
HEARTBEAT = 5.0


@dataclass(frozen=True)
class Row:
    """What is known of one job.

    Attributes:
        number: position of the job in the plan, from 0.
        work: hash of all that the job computes.
        state: how far it is.
        at: when the state was last known to hold, seconds since 1970; 0 for a planned job.
        attempt: 1, and one more whenever a failed job is planned again; 0 where the journal was damaged.
        job_id: the service's name of the job, once it is submitted.
        batch: the service's name of the batch it was sent in, if any.
        reason: why it failed, in the service's words.
        earlier: ids of the attempts that failed.
    """

    number: int
    work: str
    state: State = "planned"
    at: float = 0.0
    attempt: int = 1
    job_id: str | None = None
    batch: str | None = None
    reason: str | None = None
    earlier: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The tag that all attempts at this work carry."""
        return f"qunlearn-{self.work}"

    @property
    def tag(self) -> str:
        """The tag of this attempt alone."""
        return f"{self.family}-{self.attempt}"


class Journal:
    """The rows of a plan's folder.

    Args:
        folder: the plan's folder; the rows lie in ``jobs/``.
        works: the hash of each job's work, in order.
    """

    def __init__(self, folder: Path, works: Sequence[str]) -> None:
        self.folder, self.works = folder, tuple(works)

    def path(self, number: int) -> Path:
        """Where the row of a job lies."""
        return self.folder / "jobs" / f"{number:04d}.json"

    def write(self, row: Row) -> Row:
        """Keep a row; it is on the disk when this returns."""
        write_bytes(self.path(row.number), json_bytes(asdict(row)))
        return row

    def move(self, row: Row, state: State, **changes: Any) -> Row:
        """Keep a row in another state, as of now."""
        return self.write(replace(row, state=state, at=clock.now(), **changes))

    def rows(self) -> list[Row]:
        """All rows. One that is lost or damaged stands as posting since now: whether it was sent must be asked."""
        return [self._read(number) for number in range(len(self.works))]

    def repair(self) -> tuple[list[Row], list[str]]:
        """All rows, those that were damaged set aside and written anew; and a sentence on each of them."""
        said = []
        for number in range(len(self.works)):
            try:
                self._load(number)
            except CorruptFileError as error:
                path = self.path(number)
                if path.exists():
                    path.replace(path.with_suffix(".json.corrupt"))
                self.write(self._lost(number))
                said.append(f"{error}. The service is asked for the job by its tag.")
        return self.rows(), said

    @contextmanager
    def alive(self, row: Row) -> Iterator[None]:
        """Refresh the time of a row while the block runs."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(HEARTBEAT):
                with contextlib.suppress(OSError):  # a full disk: the next beat may succeed
                    self.write(replace(row, at=clock.now()))

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one command; ends with the process, however that ends.

        Raises:
            InputError: where another command is at work there.
        """
        with open(self.folder / ".lock", "a", encoding="utf-8") as handle:
            lock(handle, f"expected {self.folder} to be free, got another command at work there; wait for it")
            yield

    def _read(self, number: int) -> Row:
        try:
            return self._load(number)
        except CorruptFileError:
            return self._lost(number)

    def _load(self, number: int) -> Row:
        path = self.path(number)
        data = read_json(path, "submit again: it is then asked for by its tag")
        try:
            row = Row(**{**data, "earlier": tuple(data["earlier"])})
        except (KeyError, TypeError) as error:
            raise CorruptFileError(f"expected the row of a job in {path}, got something else") from error
        if (row.number, row.work) != (number, self.works[number]):
            raise CorruptFileError(f"expected job {number} of this plan in {path}, got another")
        return row

    def _lost(self, number: int) -> Row:
        return Row(number, self.works[number], "posting", clock.now(), attempt=0)
