"""A service on the loopback that the unmodified client of the runtime talks to, as it would to the real one.

Built from the client's side: which addresses it asks, and what it reads in the answers. `StubService.environment` holds
all that steers a client here, so that the command line talks to it too. The device is served from the raw files of a
fake backend, so that the client makes a true `IBMBackend` of it. Jobs are run when their results are first asked for.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlparse

from tests.hardware.faults import Fate, Faults

# Of the length and the letters of a real key, so that nobody refuses it by its looks.
TOKEN = "stub-Key_0123456789abcdefghijklmnopqrstuvwxy"
INSTANCE = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef:01234567-89ab-cdef-0123-456789abcdef::"
FINAL = ("Completed", "Failed", "Cancelled")
# What the answer to a request does to the one who asked: a status and a body, JSON or text.
Answer = tuple[int, Any]
Runner = Callable[[dict[str, Any]], str]
RESULTS: dict[str, str] = {}
REFUSED = {"throttled": 429, "denied": 403, "too_large": 413}


@dataclass
class Device:
    """One machine of the service.

    Args:
        name: As users write it.
        fake: Name of the fake backend whose calibration it has, such as ``"FakeManilaV2"``.
        state: ``"online"``, ``"maintenance"`` or ``"retired"`` (no longer listed, without a configuration).
    """

    name: str = "ibm_stub"
    fake: str = "FakeManilaV2"
    state: str = "online"

    def __post_init__(self) -> None:
        from qiskit_ibm_runtime import fake_provider

        backend = getattr(fake_provider, self.fake)()
        folder = Path(backend.dirname)
        self.configuration = json.loads((folder / backend.conf_filename).read_text())
        self.properties = json.loads((folder / backend.props_filename).read_text())
        self.configuration["backend_name"] = self.properties["backend_name"] = self.name

    def row(self) -> dict[str, Any]:
        """Its row in the list of devices."""
        status = {"name": "online", "reason": "available"}
        if self.state != "online":
            status = {"name": "paused", "reason": self.state}
        qubits = self.configuration["n_qubits"]
        return {"name": self.name, "status": status, "queue_length": 0, "qubits": qubits, "physical_qubits": qubits}

    def status(self) -> dict[str, Any]:
        """What the client asks for before each job."""
        online = self.state == "online"
        message = "active" if online else self.state
        return {"state": online, "status": message, "length_queue": 0, "backend_version": "1.0.0"}


@dataclass
class Job:
    """What the service holds of a job; times in seconds of the service's clock."""

    id: str
    backend: str
    params: dict[str, Any]
    tags: tuple[str, ...]
    session: str | None
    cost: int | None
    accepted: float
    listed: float
    ends: str = "Completed"
    reason: tuple[str, int] | None = None
    starts: float = 0.0
    finishes: float = 0.0

    @property
    def fingerprint(self) -> str:
        """A hash of the angles and shots that are to be run; two encodings of one circuit may differ, these don't."""
        program = self.params["quantum_program"]
        angles = [item.get("circuit_arguments") or item.get("samplex_arguments") for item in program["items"]]
        return hashlib.sha256(json.dumps([angles, program["shots"]], sort_keys=True).encode()).hexdigest()

    def state(self, now: float) -> str:
        """In the service's words."""
        if now < self.starts:
            return "Queued"
        return "Running" if now < self.finishes else self.ends

    def row(self, now: float) -> dict[str, Any]:
        """As it is listed."""
        state: dict[str, Any] = {"status": self.state(now)}
        if state["status"] == self.ends and self.reason:
            state |= {"reason": self.reason[0], "reason_code": self.reason[1]}
        return {
            "id": self.id,
            "backend": self.backend,
            "state": state,
            "status": state["status"],
            "program": {"id": "executor"},
            "created": stamp(self.accepted),
            "tags": list(self.tags),
            "session_id": self.session,
            "cost": self.cost,
            "private": False,
            "estimated_running_time_seconds": 2.0,
        }


@dataclass
class StubService:
    """The service, running from construction to `close`.

    Args:
        devices: Its machines.
        faults: What goes wrong, how often; only keys are exchanged without any fault.
        now: Its clock, in seconds since the epoch.
        wait: Waits on that clock, for delayed answers.
        queue: Seconds from accepting a job to running it.
        run: Seconds from there to the result.
        runner: Makes the text of a result from the parameters of a job; `simulated` where not given.
        token: The one key it knows.
        batches: Whether it opens batches.
    """

    devices: Sequence[Device] = field(default_factory=lambda: [Device()])
    faults: Faults = field(default_factory=Faults)
    now: Callable[[], float] = time.time
    wait: Callable[[float], None] = time.sleep
    queue: float = 0.0
    run: float = 0.0
    runner: Runner | None = None
    token: str = TOKEN
    batches: bool = True

    def __post_init__(self) -> None:
        self.fate = Fate(self.faults)
        self.jobs: dict[str, Job] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.requests: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        # Called with the method, the path and "before" or "after"; may raise `LostError`, or kill the one who asks.
        self.watch: Callable[[str, str, str], None] = lambda *_: None
        # The answer to the last submission.
        self.former: Answer | None = None
        self._answers: dict[str, tuple[float, Answer]] = {}
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        service = self

        class Bound(_Handler):
            stub = service

        self._server = _Server(("127.0.0.1", 0), Bound)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens. The client takes an address with "experimental" in it as it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/experimental"

    @property
    def environment(self) -> dict[str, str]:
        """All that a client must find in its environment in order to come here, and to go nowhere else."""
        return {
            "QISKIT_IBM_TOKEN": self.token,
            "QISKIT_IBM_INSTANCE": INSTANCE,
            "QISKIT_IBM_URL": self.url,
            "IAM_URL": self.url,
            "QISKIT_FUNCTIONS_EXPERIMENTAL": "1",  # or the client searches a catalogue of instances elsewhere
            "USAGE_DATA_OPT_OUT": "True",  # or it walks the stack at each request
            "NO_PROXY": "127.0.0.1",
        }

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # What is asked, and the answer

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Answer:
        """The answer to one request, without any fault."""
        parts = path.strip("/").split("/")
        with self._lock:
            match (method, *parts):
                case ("POST", "identity", "token"):
                    return self._identity(body)
                case ("GET", "instances", "usage"):
                    return 200, {"usage_limit_seconds": 600, "usage_consumed_seconds": 0}
                case ("GET", "backends"):
                    return 200, {"devices": [device.row() for device in self.devices if device.state != "retired"]}
                case ("GET", "backends", name, what):
                    return self._device(name, what)
                case ("POST", "sessions"):
                    return self._open_session(body)
                case (_, "sessions", key, *rest):
                    return self._session(method, key, rest, body)
                case ("POST", "jobs"):
                    return self._accept(body)
                case ("GET", "jobs"):
                    return self._list(query)
                case (_, "jobs", key, *rest) if key in self.jobs:
                    return self._job(method, self.jobs[key], rest, body)
        return problem(404, 1291, f"not found: {method} {path}")

    def _identity(self, body: Any) -> Answer:
        import jwt  # comes with the client

        if body.get("apikey") != [self.token]:
            return 400, {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."}
        issued = int(time.time())  # of the client's clock, which judges it
        access = jwt.encode({"iat": issued, "exp": issued + 3600}, "a secret of the stub, long enough for it")
        return 200, {"access_token": access, "refresh_token": "", "token_type": "Bearer", "expires_in": 3600}

    def _device(self, name: str, what: str) -> Answer:
        found = [device for device in self.devices if device.name == name and device.state != "retired"]
        if not found:
            return problem(404, 1217, f"backend {name} not found")
        answers = {"configuration": found[0].configuration, "properties": found[0].properties}
        return 200, answers.get(what) or found[0].status()

    def _open_session(self, body: Any) -> Answer:
        if not self.batches:
            return problem(400, 1352, "this plan allows no batches")
        key = f"session-{next(self._numbers):04d}"
        self.sessions[key] = {"id": key, "state": "open", "accepting_jobs": True, "backend_name": body.get("backend")}
        self.sessions[key]["mode"] = body.get("mode")
        return 200, self.sessions[key]

    def _session(self, method: str, key: str, rest: list[str], body: Any) -> Answer:
        if key not in self.sessions:
            return problem(404, 1254, f"session {key} not found")
        if method == "PATCH":
            self.sessions[key] |= body
        if method == "DELETE" and rest == ["close"]:
            self.sessions[key] |= {"accepting_jobs": False, "state": "closed"}
        return (200, self.sessions[key]) if method == "GET" else (204, None)

    def _accept(self, body: Any) -> Answer:
        session = body.get("session_id")
        if session and not self.sessions.get(session, {}).get("accepting_jobs"):
            return problem(400, 1237, f"session {session} has been closed")
        if body["backend"] not in {device.name for device in self.devices if device.state != "retired"}:
            return problem(404, 1217, f"backend {body['backend']} not found")
        accepted = self.now()
        job = Job(
            id=f"job-{next(self._numbers):04d}",
            backend=body["backend"],
            params=body["params"],
            tags=tuple(body.get("tags", ())),
            session=session,
            cost=body.get("cost"),
            accepted=accepted,
            listed=accepted + self.fate.until_listed(),
            starts=accepted + self.queue,
            finishes=accepted + self.queue + self.run,
        )
        if self.fate.happens(self.faults.failed):
            job.ends, job.reason = "Failed", ("Error in the control electronics", 9999)
        elif self.fate.happens(self.faults.cancelled):
            job.ends = "Cancelled"
        self.jobs[job.id] = job
        return 200, {"id": job.id, "backend": job.backend, "private": False}

    def _list(self, query: dict[str, list[str]]) -> Answer:
        now = self.now()
        wanted = set(query.get("tags", ()))
        found = [job for job in self.jobs.values() if job.listed <= now and wanted <= set(job.tags)]
        found.sort(key=lambda job: job.accepted, reverse=query.get("sort") != ["ASC"])
        if "session_id" in query:
            found = [job for job in found if job.session == query["session_id"][0]]
        if "pending" in query:
            pending = query["pending"][0] == "true"
            found = [job for job in found if (job.state(now) not in FINAL) == pending]
        if self.fate.happens(self.faults.repeated):
            found = [job for job in found for _ in range(2)]
        first, many = int(query.get("offset", ["0"])[0]), int(query.get("limit", ["200"])[0])
        rows = [job.row(now) for job in found[first : first + many]]
        return 200, {"jobs": rows, "count": len(found), "limit": many, "offset": first}

    def _job(self, method: str, job: Job, rest: list[str], body: Any) -> Answer:
        now = self.now()
        state = job.state(now)
        match (method, *rest):
            case ("GET",):
                return 200, job.row(now)
            case ("DELETE",):
                del self.jobs[job.id]
                return 204, None
            case ("POST", "cancel"):
                if state in FINAL:
                    return problem(409, 1233, f"job {job.id} is in the final state {state}")
                job.ends, job.starts, job.finishes = "Cancelled", now, now
                return 204, None
            case ("PUT", "tags"):
                job.tags = tuple(body["tags"])
                return 204, None
            case ("GET", "metrics"):
                return 200, self._metrics(job, now)
            case ("GET", "logs"):
                return 200, ""
            case ("GET", "results"):
                return 200, self._result(job) if state == "Completed" else ""
        return problem(404, 1291, f"not found: {method} {rest}")

    def _metrics(self, job: Job, now: float) -> dict[str, Any]:
        times = {"created": job.accepted, "running": job.starts, "finished": job.finishes}
        stamps = {name: stamp(moment) if moment <= now else None for name, moment in times.items()}
        done = job.state(now) in FINAL
        usage = {"status": "complete" if done else "pending", "qpu_charge_time_seconds": 2.0 if done else 0.0}
        return {"timestamps": stamps, "usage": usage, "bss": {"seconds": 2.0 if done else 0.0}}

    def _result(self, job: Job) -> str:
        """The same for the same work: simulating it once is enough for many services."""
        key = f"{job.fingerprint} {sorted(tag for tag in job.tags if tag.count('-') < 2)}"
        if key not in RESULTS:
            RESULTS[key] = (self.runner or simulated)(job.params)
        return RESULTS[key]

    # What a user of the stub asks

    def finish(self, *, ends: str = "Completed", reason: tuple[str, int] | None = None) -> None:
        """End all jobs that have not ended, in the given way."""
        with self._lock:
            for job in self.jobs.values():
                if job.state(self.now()) not in FINAL:
                    job.ends, job.reason, job.starts, job.finishes = ends, reason, self.now(), self.now()

    def by_tag(self, tag: str) -> list[Job]:
        """The jobs that carry a tag, listed or not."""
        return [job for job in self.jobs.values() if tag in job.tags]

    def stale(self, method: str, path: str, answer: Answer) -> Answer:
        """The former answer to the same question, at times, where it is young enough; listings are not kept."""
        if method != "GET" or not re.search(r"/jobs/[^/]+$", path):
            return answer
        with self._lock:
            asked, former = self._answers.get(path, (0.0, answer))
            young = self.now() - asked < self.faults.stale
            if young and self.fate.happens(self.faults.repeated):
                self.struck["repeated"] += 1
                return former
            self._answers[path] = (self.now(), answer)
        return answer


class LostError(Exception):
    """The connection is to end without an answer."""


class _Server(ThreadingHTTPServer):
    """Says nothing of clients that were killed in the middle of a request."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    stub: ClassVar[StubService]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        url = urlparse(self.path)
        path = url.path.removeprefix("/experimental")
        form = "x-www-form-urlencoded" in (self.headers.get("Content-Type") or "")
        body = parse_qs(raw.decode()) if form else json.loads(raw or "null")
        try:
            self._send(*self._struck(path, parse_qs(url.query), body))
        except (LostError, ConnectionError):
            self._hang_up()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

    def _struck(self, path: str, query: dict[str, list[str]], body: Any) -> Answer:
        """The answer, or what a fault makes of it."""
        stub, method = self.stub, self.command
        stub.requests[f"{method} {re.sub('(job|session)-[0-9]+', 'N', path)}"] += 1
        if path == "/identity/token":  # the client makes a pause of a minute of real time after a fault there
            return stub.answer(method, path, query, body)
        if not self._known():
            return problem(401, 1200, "not authorized")
        submission = (method, path) == ("POST", "/jobs")
        strike = stub.fate.strike(submission=submission)
        stub.struck[strike] += bool(strike)
        stub.watch(method, path, "before")
        if strike == "lost_before":
            raise LostError
        if strike in REFUSED or strike == "error_before":
            return problem(REFUSED.get(strike) or stub.fate.status(), 1500, "in trouble")
        former = stub.former if submission else None
        if strike == "echo_before" and former:
            return former
        answer = stub.stale(method, path, stub.answer(method, path, query, body))
        stub.former = answer if submission else stub.former
        stub.watch(method, path, "after")
        return self._spoilt(strike, answer, former)

    def _spoilt(self, strike: str, answer: Answer, former: Answer | None) -> Answer:
        """The answer to what has been done, or what a fault makes of it."""
        if strike == "lost_after":
            raise LostError
        if strike == "delayed":
            self.stub.wait(self.stub.faults.delay)
        if strike == "echo_after" and former:
            return former
        if strike == "garbled_after":
            return 200, "<html>Welcome to the guest network</html>"
        return problem(self.stub.fate.status(), 1500, "in trouble") if strike == "error_after" else answer

    def _known(self) -> bool:
        return (self.headers.get("Authorization") or "").startswith("Bearer ")

    def _send(self, status: int, body: Any) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        content = b"" if status == 204 else text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        # The client may have gone first.
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def problem(status: int, code: int, message: str) -> Answer:
    """An error as the service words it."""
    return status, {"error": {"code": code, "message": message}, "errors": [{"code": code, "message": message}]}


def stamp(seconds: float) -> str:
    """A moment as the service writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def simulated(params: dict[str, Any], seed: int = 7) -> str:
    """Run a job on an ideal simulator, as the local mode of the runtime would."""
    from qiskit_aer import AerSimulator
    from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import run_quantum_program
    from qiskit_ibm_runtime.options_models.simulator import SimulatorOptions
    from qiskit_ibm_runtime.quantum_program import SamplexItem
    from qiskit_ibm_runtime.quantum_program.params_converters import QUANTUM_PROGRAM_PARAMS_CONVERTERS

    converter = QUANTUM_PROGRAM_PARAMS_CONVERTERS[params["schema_version"]]
    program, _ = converter.decoder(converter.model.model_validate(params))
    for item in program.items:
        if isinstance(item, SamplexItem):
            item.samplex.finalize()
    result = run_quantum_program(AerSimulator(), program, SimulatorOptions(seed_simulator=seed))
    return encoded(params, [dict(item) for item in result])


def encoded(params: dict[str, Any], items: list[dict[str, Any]]) -> str:
    """The text of a result: arrays by name for each item of the program."""
    from ibm_quantum_schemas.common.tensor import CompressedTensorModel

    rows = []
    for item in items:
        tensors = {
            name: CompressedTensorModel.from_numpy(array).model_dump(mode="json") for name, array in item.items()
        }
        rows.append({"results": tensors, "metadata": {}})
    program = params["quantum_program"]
    return json.dumps(
        {
            "schema_version": params["schema_version"],
            "data": rows,
            "metadata": {"chunk_timing": []},
            "passthrough_data": program.get("passthrough_data"),
            "semantic_role": program.get("semantic_role"),
        }
    )
