"""The runtime service as jobs need it: a job is posted once, found by its tags, and every error has a meaning."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from qunlearn.errors import InputError, ServiceError
from qunlearn.hardware import clock
from qunlearn.hardware.journal import Row
from qunlearn.quantum.backends.device import never_repeat_posts, scrub

#: What an error says of the request that met it: refused (it will never pass), denied (the account may not),
#: busy (not accepted, later perhaps), unknown (it may have been accepted).
Meaning = Literal["refused", "denied", "busy", "unknown"]
#: Seconds between tries while the service cannot be reached, or has too much to do.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0)
_Found = TypeVar("_Found")
_MAYBE = {408, 425}  # codes of the client's errors after which the outcome is open all the same


class Remote:
    """An account's service and one of its devices.

    Args:
        service: a ``QiskitRuntimeService``.
        device: the backend, as that service gave it; only posting needs it.
    """

    def __init__(self, service: Any, device: Any = None) -> None:
        self.service, self.device = service, device
        self.batch: Any = None
        never_repeat_posts(service)

    def open_batch(self, say: Callable[[str], None]) -> None:
        """Open a batch for the jobs to come; where the service refuses one, they are sent one by one."""
        from qiskit_ibm_runtime import Batch

        try:
            self.batch = self.patiently(lambda: Batch(backend=self.device), "open a batch")
        except (RefusedError, InputError) as error:
            self.batch = None
            say(f"The service opens no batch ({error}); the jobs are sent one by one.")

    def batch_ended(self) -> bool:
        """Whether the batch takes no more jobs: the service closes one that had nothing to do for a while."""
        details: Any = None
        with contextlib.suppress(Exception):
            details = None if self.batch is None else self.batch.details()
        return bool(details) and details.get("accepting_jobs") is False

    def close_batch(self) -> None:
        """Let the batch end when its jobs have; it ends by itself, only later, where this fails."""
        if self.batch is not None:
            with contextlib.suppress(Exception):
                self.batch.close()

    @property
    def batch_id(self) -> str | None:
        """The service's name of the open batch."""
        return getattr(self.batch, "session_id", None)

    def post(self, pubs: Sequence[Any], options: dict[str, Any]) -> str:
        """Submit one job; its id. Whatever is raised may mean that the job was accepted: see `meaning`."""
        from qiskit_ibm_runtime.executor_sampler import Sampler

        with quiet():
            job = Sampler(mode=self.batch or self.device, options=options).run(list(pubs))
        return str(job.job_id())

    def find(self, row: Row) -> list[tuple[int, str]]:
        """(attempt, id) of the jobs that carry a row's tag, each once, the oldest first; all attempts if it is 0."""
        tag = row.tag if row.attempt else row.family
        instance = getattr(self.device, "_instance", None)
        jobs = self.patiently(
            lambda: self.service.jobs(limit=100, job_tags=[tag], instance=instance, descending=False),
            "list the jobs",
        )
        found = {(attempt_of(row, job), str(job.job_id())): None for job in jobs if tag in (job.tags or [])}
        return [(attempt, name) for attempt, name in found if attempt]

    def job(self, name: str) -> Any:
        """A job by its id. Raises `RefusedError` where the service knows no such job."""
        return self.patiently(lambda: self.service.job(name), f"ask for job {name}")

    def patiently(self, call: Callable[[], _Found], doing: str) -> _Found:
        """Try again where the service cannot be reached; only for what does no harm when done twice.

        Raises:
            ServiceError: where it cannot be reached for minutes.
            InputError: where the account may not.
        """
        text = ""
        for pause in (0.0, *PAUSES):
            if pause:
                clock.wait(pause)
            try:
                with quiet():
                    return call()
            except Exception as error:
                found, text = meaning(error), self.words(error)
            if found == "denied":
                raise InputError(denied(doing, text))
            if found == "refused":
                raise RefusedError(text)
        raise ServiceError(f"expected to {doing}, got no answer for minutes ({text}); run the same command again later")

    def words(self, error: BaseException) -> str:
        """What an error says, on one line and without the account's token."""
        token = None
        with contextlib.suppress(Exception):
            token = self.service.active_account().get("token")
        return scrub(f"{error}" or type(error).__name__, token if isinstance(token, str) else None)


class RefusedError(ServiceError):
    """The service's definite no to a request."""


def meaning(error: BaseException) -> Meaning:
    """What an error says of the request that met it."""
    code = status_code(error)
    if code is None:
        names = {type(one).__name__ for one in _chain(error)}
        if "IBMNotAuthorizedError" in names:
            return "denied"
        # Raised by the client before it sends anything.
        return "refused" if names & {"IBMInputValueError", "RuntimeJobNotFound", "ValidationError"} else "unknown"
    if code in (401, 403):
        return "denied"
    if code == 429:
        return "busy"
    return "refused" if 400 <= code < 500 and code not in _MAYBE else "unknown"


def status_code(error: BaseException) -> int | None:
    """The HTTP status behind an error, or None where none was received."""
    for one in _chain(error):
        code = getattr(one, "status_code", None)
        if isinstance(code, int) and code > 0:
            return code
        answer = getattr(one, "response", None)
        if answer is not None and isinstance(getattr(answer, "status_code", None), int):
            return int(answer.status_code)
    return None


def denied(doing: str, text: str) -> str:
    """What to tell a user whose account the service turns away."""
    return (
        f"expected an account that may {doing}, got a refusal ({text}); check the key, the instance and what is left "
        "of its time at https://quantum.cloud.ibm.com, then run the same command again"
    )


def attempt_of(row: Row, job: Any) -> int:
    """Which attempt at a row's work a job is, by its tags; 0 if none of them says."""
    pattern = re.compile(re.escape(row.family) + r"-(\d+)")
    numbers = [int(match[1]) for tag in job.tags or [] if (match := pattern.fullmatch(tag))]
    return max(numbers, default=0)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it came from, also where the client hides them."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the client's warnings, which may quote a token."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
