"""A plan's folder, read: everything that submitting and collecting need, on any machine.

``plan.json`` (what is to be run, and the hashes of the files), ``circuits.qpy`` (transpiled), ``samples.safetensors``
(angles, features, labels, ids), ``models/`` (for the classical part behind the circuits), ``calibration.json``,
``jobs/`` (the journal), ``counts/`` (raw counts, one file a job).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qunlearn.errors import CorruptFileError, InputError, QunlearnError, ServiceError, UnsupportedError
from qunlearn.files import sha256, write_bytes
from qunlearn.hardware import clock
from qunlearn.hardware.calibration import rebuilt
from qunlearn.hardware.counts import pack, unpack
from qunlearn.hardware.files import read_json, read_tensors, tensor_bytes
from qunlearn.hardware.journal import Journal, Row
from qunlearn.hardware.service import Remote, quiet
from qunlearn.quantum.backends.device import account_service, check_size, find_device
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.sampling import Basis

if TYPE_CHECKING:
    from qunlearn.quantum.backends.mitigation import Mitigation, Work
    from qunlearn.quantum.backends.transpiling import Prepared

FORMAT = 1
KIND = "qunlearn hardware plan"
PLAN, CIRCUITS, SAMPLES, CALIBRATION = "plan.json", "circuits.qpy", "samples.safetensors", "calibration.json"
#: Seconds between tries to get hold of a device.
CONNECTING = (1.0, 2.0, 4.0, 8.0)
REDO = "plan again under another name, or copy the folder again"


class Folder:
    """The folder of a plan.

    Raises:
        InputError: where there is none.
        CorruptFileError: where ``plan.json`` is damaged; the other files are checked when they are read.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not (self.root / PLAN).is_file():
            raise InputError(f"expected a folder made by `qunlearn hardware plan`, got {str(root)!r}")
        self.content = read_json(self.root / PLAN, REDO)
        if self.content.get("kind") != KIND:
            raise InputError(f"expected a folder made by `qunlearn hardware plan`, got another one, {str(root)!r}")
        if self.content["format"] != FORMAT:
            raise UnsupportedError(f"{self.root / PLAN}: expected format {FORMAT}, got {self.content['format']}")

    name = property(lambda self: str(self.content["name"]), doc="The plan's name.")
    backend = property(lambda self: str(self.content["backend"]), doc="The device's name.")
    local = property(lambda self: bool(self.content["local"]), doc="Whether jobs run on this machine.")
    shots = property(lambda self: int(self.content["shots"]), doc="Shots of each circuit.")

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """What each job runs: start, stop (samples of the order), structures, work, and what it costs."""
        return list(self.content["jobs"])

    def journal(self) -> Journal:
        """The journal of the jobs."""
        return Journal(self.root, [str(job["work"]) for job in self.jobs])

    def path(self, name: str) -> Path:
        """A file of the plan, compared with the hash that the plan holds. Raises `CorruptFileError`."""
        path = self.root / name
        try:
            content = path.read_bytes()
        except OSError:
            raise CorruptFileError(f"expected {path} as it was written, got no such file; {REDO}") from None
        if sha256(content) != self.content["files"][name]:
            raise CorruptFileError(f"expected {path} as it was written, got other content; {REDO}")
        return path

    @cached_property
    def samples(self) -> dict[str, NDArray[Any]]:
        """The arrays of ``samples.safetensors``."""
        return read_tensors(self.path(SAMPLES), REDO)[0]

    @cached_property
    def mitigation(self) -> Mitigation:
        """What is done against noise."""
        from qunlearn.quantum.backends.mitigation import Mitigation

        return Mitigation(**self.content["mitigation"])

    @cached_property
    def prepared(self) -> list[Prepared]:
        """The transpiled circuits, by structure."""
        from qiskit import qpy

        from qunlearn.quantum.backends.transpiling import Prepared, Size

        with open(self.path(CIRCUITS), "rb") as file:
            circuits = qpy.load(file)
        found = []
        for row in self.content["structures"]:
            first, last = row["circuits"]
            found.append(
                Prepared(
                    circuit=Circuit.from_json(row["circuit"]),
                    bases=tuple(Basis(letters, tuple(numbers)) for letters, numbers in row["bases"]),
                    isa=tuple(circuits[first:last]),
                    before=Size(**row["before"]),
                    after=Size(**row["after"]),
                    layouts=tuple(tuple(layout) for layout in row["layouts"]),
                    device=self.backend,
                )
            )
        return found

    @cached_property
    def works(self) -> list[Work]:
        """What is run of each structure: circuits with rows, and those that calibrate."""
        from qunlearn.quantum.backends.mitigation import construct

        return [construct(prepared, self.mitigation) for prepared in self.prepared]

    def rows(self, number: int, structure: int) -> NDArray[np.float64]:
        """The angles ``(rows, K)`` of a job, models of one structure interleaved sample by sample."""
        job = self.jobs[number]
        angles = self.samples[f"angles/{structure}"][job["start"] : job["stop"]]
        return np.ascontiguousarray(angles.reshape(-1, angles.shape[-1]))

    def pubs(self, number: int) -> list[Any]:
        """The PUBs of a job: of each structure in turn, one for each of its circuits."""
        return [pub for s in self.jobs[number]["structures"] for pub in self.works[s].pubs(self.rows(number, s))]

    def options(self, row: Row) -> dict[str, Any]:
        """The Sampler's options for a job."""
        return {
            **self.mitigation.sampler_options(),
            "default_shots": self.shots,
            "environment": {"job_tags": ["qunlearn", row.family, row.tag]},
            "max_execution_time": self.jobs[row.number]["stop_after"],
        }

    def device(self, given: Any = None) -> Any:
        """The device that the plan was made for, found by its name unless it is given. Raises `InputError`."""
        device = given if given is not None else find_device(self.backend)
        self.check_device(device)
        return device

    def check_device(self, device: Any) -> None:
        """Raises `InputError` for a device on which the plan's circuits cannot run any more."""
        from qunlearn.quantum.backends.transpiling import check_isa

        for prepared in self.prepared:
            check_size(device, prepared.isa[0].num_qubits)
            try:
                for circuit in prepared.isa:
                    check_isa(circuit, device)
            except UnsupportedError as error:
                raise InputError(f"{error}. It was there when {self.name} was planned: plan again") from None

    @cached_property
    def snapshot(self) -> Any:
        """The device with the calibration that it had when the plan was made; it runs nothing."""
        return rebuilt(read_json(self.path(CALIBRATION), REDO))

    def remote(self, service: Any = None, *, to_post: bool = False) -> Remote:
        """The service and, where jobs are to be posted, the device.

        Raises:
            InputError: no account, or the device is gone or has changed.
        """
        if not to_post:  # what was sent may be collected after the device was retired
            return Remote(account_service() if service is None else service)
        given = service
        problem: QunlearnError | None = None
        for pause in (0.0, *CONNECTING):
            clock.wait(pause)
            service = account_service() if given is None else given
            try:
                with quiet():
                    device = find_device(self.backend, service)
                    loaded = device.target is not None  # asks the service for the calibration
            except QunlearnError as error:  # also the client's answer where the service did not answer it
                problem = error
            except Exception as error:
                problem = ServiceError(f"expected to reach {self.backend}, got {Remote(service).words(error)}")
            else:
                assert loaded
                self.check_device(device)
                return Remote(service, device)
        assert problem is not None
        raise problem

    def run_here(self, row: Row, device: Any) -> list[list[NDArray[np.int64]]]:
        """Run a job on this machine: the counts of each structure's circuits."""
        from qunlearn.quantum.backends.runtime import run_locally

        pubs = self.pubs(row.number)
        root = np.random.SeedSequence([self.content["seed"], row.number, row.attempt])
        seeds = [int(seed) for seed in root.generate_state(len(pubs)) >> 1]
        return self.read(row, run_locally(device, pubs, self.shots, seeds, self.mitigation.sampler_options()))

    def read(self, row: Row, result: Any) -> list[list[NDArray[np.int64]]]:
        """The counts of each structure's circuits in a job's result.

        Raises:
            CorruptFileError: for a result that is not this job's.
        """
        results, found = list(result), []
        for structure in self.jobs[row.number]["structures"]:
            work, rows = self.works[structure], len(self.rows(row.number, structure))
            own, results = results[: len(work.pieces)], results[len(work.pieces) :]
            try:
                counts = work.counts(own, rows)
            except (InputError, ValueError, AttributeError) as error:  # too few PUBs, other registers, other rows
                raise CorruptFileError(f"expected the result of job {row.job_id}, got another one ({error})") from error
            if any(set(array.sum(1)) != {self.shots} for array in counts):
                raise CorruptFileError(f"expected {self.shots} shots of every circuit of job {row.job_id}, got others")
            found.append(counts)
        if results:
            raise CorruptFileError(
                f"expected the results of job {row.job_id}, got {len(results)} PUBs more than it has"
            )
        return found

    def counts_path(self, number: int) -> Path:
        """Where the raw counts of a job lie, or will lie."""
        return self.root / "counts" / f"{number:04d}.safetensors"

    def keep_counts(
        self, row: Row, counts: list[list[NDArray[np.int64]]], facts: Mapping[str, Any] | None = None
    ) -> None:
        """Keep the raw counts of a job, on the disk when this returns."""
        arrays: dict[str, NDArray[Any]] = {}
        for structure, pieces in zip(self.jobs[row.number]["structures"], counts, strict=True):
            for number, array in enumerate(pieces):
                arrays |= pack(array, f"{structure}/{number}/")
        note = {"work": row.work, "job": row.job_id, "shots": self.shots, **(facts or {})}
        write_bytes(self.counts_path(row.number), tensor_bytes(arrays, note))

    def counts(self, number: int) -> list[list[NDArray[np.int64]]]:
        """The raw counts of a job: of each structure in turn, of each of its circuits ``(rows, 2**qubits)``.

        Raises:
            CorruptFileError: where they are not here, damaged, or those of another job.
        """
        path, job = self.counts_path(number), self.jobs[number]
        arrays, note = read_tensors(path, "collect again: they are fetched anew")
        if note["work"] != job["work"]:
            raise CorruptFileError(f"expected the counts of job {number} in {path}, got others; collect again")
        found = []
        for structure in job["structures"]:
            pieces = sum(name.startswith(f"{structure}/") for name in arrays) // 4
            found.append([unpack(arrays, f"{structure}/{piece}/") for piece in range(pieces)])
        return found

    def recover(self, row: Row, journal: Journal) -> Row:
        """The row, made true: collected where its counts are here, not where they are lost."""
        try:
            self.counts(row.number)
            here = True
        except CorruptFileError:
            here = False
        if here and row.state in ("posting", "submitted", "done"):
            return journal.move(row, "collected")
        if not here and row.state in ("collected", "done"):
            sent = row.job_id is not None and not self.local
            return journal.move(row, "submitted" if sent else "planned")
        return row


def find_folder(place: str | Path, name: str | None = None) -> Path:
    """The plan's folder that a place means: itself, or the one in ``PLACE/hardware/`` of that name.

    Raises:
        InputError: where there is none, or several and no name.
    """
    root = Path(place)
    if name in (None, root.name) and is_plan(root):
        return root
    found = {path.name: path for path in sorted((root / "hardware").glob("*")) if is_plan(path)}
    if name is not None and name in found:
        return found[name]
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    there = f"found {', '.join(found)}" if found else "found none"
    wanted = f"a plan named {name!r}" if name else "one plan"
    advice = "name one with --name" if found else "make one with `qunlearn hardware plan`"
    raise InputError(f"expected {wanted} in {root / 'hardware'}, {there}; {advice}")


def is_plan(root: Path) -> bool:
    """Whether a folder is that of a plan; a study's folder has a ``plan.json`` of its own."""
    return (root / PLAN).is_file() and (root / "jobs").is_dir() and (root / CALIBRATION).exists()
