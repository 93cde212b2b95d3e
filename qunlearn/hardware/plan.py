"""`plan`: from models and samples to circuits, jobs and what they cost; submits nothing."""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qunlearn.errors import InputError
from qunlearn.files import sha256, sync_folder, write_bytes
from qunlearn.hardware.bundle import Bundle
from qunlearn.hardware.calibration import snapshot
from qunlearn.hardware.cost import JOB_SECONDS, Limits, Piece, cost_of, piece_of, rep_delay, split
from qunlearn.hardware.files import canonical, json_bytes
from qunlearn.hardware.folder import CALIBRATION, CIRCUITS, FORMAT, KIND, PLAN, Folder
from qunlearn.hardware.journal import Row
from qunlearn.hardware.rows import Files, SampleRows
from qunlearn.quantum.backends.device import find_device, is_local
from qunlearn.versions import versions_of

if TYPE_CHECKING:
    from qunlearn.quantum.backends.mitigation import Mitigation, Work

#: Seconds of the machine that a plan may cost unless its limit says otherwise: what the open plan gives a month.
LIMIT_SECONDS = 600.0
_VERSIONS = ("qunlearn", "qiskit", "qiskit-ibm-runtime", "qiskit-aer", "numpy", "torch", "safetensors")


@dataclass(frozen=True)
class Plan:
    """A plan as it lies in its folder; printed, it says what will run and what it costs.

    Attributes:
        folder: where it lies.
        content: what ``plan.json`` holds.
    """

    folder: Path
    content: Mapping[str, Any]

    @property
    def jobs(self) -> int:
        """How many jobs."""
        return len(self.content["jobs"])

    @property
    def executions(self) -> int:
        """Circuits times shots, of all jobs."""
        return sum(int(job["executions"]) for job in self.content["jobs"])

    @property
    def seconds(self) -> float:
        """Seconds of the machine that all jobs are expected to take."""
        return float(sum(job["seconds"] for job in self.content["jobs"]))

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def plan(
    bundle: Bundle,
    folder: str | Path,
    *,
    backend: Any = "fake_torino",
    shots: int = 1000,
    mitigation: Mitigation | None = None,
    limit_seconds: float = LIMIT_SECONDS,
    optimization_level: int = 3,
    seed: int = 0,
    layout: Sequence[int] | None = None,
    limits: Limits | None = None,
    service: Any = None,
) -> Plan:
    """Prepare everything that is to run on a device, and write it to a folder; submits nothing.

    Encoders run here; every circuit is transpiled once and shared by all models of its structure, whose weights are
    angles of it. Rows go sample by sample, at each sample through all models, so that drift hits all models alike.

    Args:
        bundle: models and samples.
        folder: of the plan; its last part is the plan's name. A plan already there is replaced unless jobs of it
            were submitted; the same plan is left as it is. The same work under the same name is never run twice.
        backend: name of a device, fake or real, or a device object.
        shots: of each circuit.
        mitigation: what is done against noise; nothing if None.
        limit_seconds: of the machine: a plan beyond is refused, and the service stops the jobs at their shares of it.
            A simulated device does not use it up.
        optimization_level: of the transpiler, 0 to 3.
        seed: of the transpiler, and of simulated shots.
        layout: the physical qubit of each wire to start from; chosen by the transpiler if None.
        limits: of one job.
        service: the runtime service that knows the device; that of the user's account if None.

    Raises:
        InputError: a wrong value, no account, a device that is too small, a plan beyond the limit; a folder in use.
    """
    from qunlearn.quantum.backends.mitigation import Mitigation, construct
    from qunlearn.quantum.backends.transpiling import prepare

    root = Path(folder)
    _check(shots, limit_seconds)
    mitigation, limits = mitigation or Mitigation(), limits or Limits()
    rows = SampleRows(bundle)
    device = find_device(backend, service, qubits=max(opened.circuit.qubits for opened in rows.structures))
    prepared = [
        prepare(opened.circuit, device, optimization_level=optimization_level, seed=seed, layout=layout)
        for opened in rows.structures
    ]
    works = [construct(one, mitigation) for one in prepared]
    pieces = [[piece_of(piece.circuit, piece.takes_rows, device) for piece in work.pieces] for work in works]
    content = {
        "format": FORMAT,
        "kind": KIND,
        "name": root.name,
        "backend": device.name,
        "local": is_local(device),
        "qubits": device.num_qubits,
        "rep_delay": rep_delay(device),
        "shots": mitigation.shots_taken(shots),
        "seed": seed,
        "optimization_level": optimization_level,
        "mitigation": mitigation.to_dict(),
        "limit_seconds": float(limit_seconds),
        "limits": asdict(limits),
        "versions": versions_of(_VERSIONS),
        **rows.describe(),
        "structures": _structures(works),
    }
    files = {**rows.files(), CIRCUITS: _qpy(works), CALIBRATION: json_bytes(snapshot(device))}
    content["files"] = {name: sha256(files[name]) for name in sorted(files)}
    content["jobs"] = _jobs(content, len(rows.order), rows.models_of, pieces, limits)
    made = Plan(root, content)
    if made.seconds > limit_seconds and not content["local"]:
        raise InputError(
            f"expected a plan within its limit of {limit_seconds:g} s, got {made.seconds:.0f} s of {device.name}; take "
            f"fewer samples, models or shots, or set a higher limit\n{made}"
        )
    _write(root, files, content)
    return made


def _check(shots: int, limit_seconds: float) -> None:
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise InputError(f"expected at least 1 shot, got {shots!r}")
    if not 1 <= limit_seconds < float("inf"):
        raise InputError(f"expected a limit of at least 1 second, got {limit_seconds}")


def _structures(works: Sequence[Work]) -> list[dict[str, Any]]:
    found, done = [], 0
    for work in works:
        prepared = work.prepared
        found.append(
            {
                "circuit": prepared.circuit.to_json(),
                "bases": [[basis.letters, list(basis.observables)] for basis in prepared.bases],
                "before": asdict(prepared.before),
                "after": asdict(prepared.after),
                "layouts": [list(layout) for layout in prepared.layouts],
                "circuits": [done, done + len(prepared.isa)],
                "pieces": [[piece.kind, piece.factor] for piece in work.pieces],
            }
        )
        done += len(prepared.isa)
    return found


def _jobs(
    content: Mapping[str, Any],
    samples: int,
    models_of: Sequence[int],
    pieces: Sequence[Sequence[Piece]],
    limits: Limits,
) -> list[dict[str, Any]]:
    shots, limit = content["shots"], content["limit_seconds"]
    slices = split(samples, models_of, pieces, shots, limits)
    costs = [cost_of(one.stop - one.start, one.structures, models_of, pieces, shots) for one in slices]
    seconds = [JOB_SECONDS + cost.seconds for cost in costs]
    identity = sha256(canonical(content).encode())
    return [
        {
            "start": one.start,
            "stop": one.stop,
            "structures": list(one.structures),
            "pubs": cost.pubs,
            "circuits": cost.circuits,
            "executions": cost.executions,
            "instructions": max(cost.instructions, default=0),
            "payload": cost.payload,
            "seconds": expected,
            "stop_after": max(1, min(10_800, int(limit * expected / sum(seconds)))),
            "work": sha256(canonical([identity, number, one.start, one.stop, *one.structures]).encode())[:24],
        }
        for number, (one, cost, expected) in enumerate(zip(slices, costs, seconds, strict=True))
    ]


def _qpy(works: Sequence[Work]) -> bytes:
    """The transpiled circuits; the same bytes for the same circuits.

    Parameters get identities at random, and Qiskit writes its own layout's registers in any order: the first are
    numbered, the other is left out, as the plan holds the layout.
    """
    from qiskit import qpy

    buffer = io.BytesIO()
    circuits = [circuit.copy(name="rows") for work in works for circuit in work.prepared.isa]
    for circuit in circuits:
        circuit._layout = None
    qpy.dump(circuits, buffer)
    content = buffer.getvalue()
    for number, circuit in enumerate(circuits):
        for parameter in circuit.parameters:
            fixed = uuid.UUID(int=((number + 1) << 64) + parameter.index)
            content = content.replace(parameter.uuid.bytes, fixed.bytes)
    return content


def _write(root: Path, files: Files, content: Mapping[str, Any]) -> None:
    """Write the folder whole or not at all; what was there stays if it is the same, or if jobs of it were sent."""
    files = {**files, PLAN: json_bytes(content)}
    if root.exists() and not _replaceable(root, files[PLAN]):
        return
    draft = root.with_name(f".{root.name}-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    for name, data in files.items():
        write_bytes(draft / name, data)
    for number, job in enumerate(content["jobs"]):
        write_bytes(draft / "jobs" / f"{number:04d}.json", json_bytes(asdict(Row(number, job["work"]))))
    if root.exists():
        shutil.rmtree(root)
    draft.rename(root)
    sync_folder(root.parent)


def _replaceable(root: Path, text: bytes) -> bool:
    """Whether another plan may take the folder's place; not if it is the same one. Raises `InputError` if in use."""
    if not root.is_dir() or (any(root.iterdir()) and not (root / PLAN).is_file()):
        raise InputError(f"expected {root} to be free, or to hold a plan, got something else; choose another name")
    if not any(root.iterdir()):
        return True
    if (root / PLAN).read_bytes() == text:
        return False
    there = Folder(root)
    with there.journal().locked():
        if any(row.state != "planned" for row in there.journal().rows()):
            raise InputError(f"expected {root} to be free, got another plan whose jobs were sent; choose another name")
    return True


def _lines(made: Plan) -> list[str]:
    content, jobs = made.content, made.content["jobs"]
    total = {name: sum(job[name] for job in jobs) for name in ("circuits", "executions")}
    where = "runs on this machine" if content["local"] else "through your account"
    sets = ", ".join(f"{size} {name}" for name, size in content["sets"])
    stops = sorted({job["stop_after"] for job in jobs})
    stop = f"{stops[0]}" if len(stops) == 1 else f"{stops[0]} to {stops[-1]}"
    rows = [
        ("models", f"{len(content['models'])}: " + ", ".join(model["name"] for model in content["models"])),
        ("samples", f"{len(content['order'])}: {sets}"),
        *(("circuit", _about(row)) for row in content["structures"]),
        ("mitigation", _mitigation(content)),
        ("shots", f"{content['shots']:,} a circuit"),
        (
            "jobs",
            f"{len(jobs)}, {total['circuits']:,} circuits, {total['executions']:,} executions, "
            f"at most {max(job['payload'] for job in jobs) / 1e6:.1f} MB a job",
        ),
        (
            "time",
            f"about {made.seconds:.0f} s of the machine: {JOB_SECONDS:g} s a job + executions x "
            f"({content['rep_delay'] * 1e6:.0f} us between them + {_mean_circuit(made) * 1e6:.1f} us a circuit)",
        ),
        ("limit", _limit(made, stop)),
    ]
    head = f"{content['name']} on {content['backend']} ({content['qubits']} qubits, {where}); nothing was submitted"
    return [head, *(f"{name:<11} {text}" for name, text in rows)]


def _limit(made: Plan, stop: str) -> str:
    text = f"{made.content['limit_seconds']:g} s"
    if not made.content["local"]:
        return f"{text}; each job is stopped at {stop} s"
    beyond = made.seconds > made.content["limit_seconds"]
    return f"{text}, which the machine itself would exceed" if beyond else text


def _about(row: Mapping[str, Any]) -> str:
    before, after, bases = row["before"], row["after"], len(row["bases"])
    return (
        f"measured in {bases} {'basis' if bases == 1 else 'bases'}; before transpiling depth {before['depth']} and "
        f"{before['two_qubit_gates']} two-qubit gates, after it {after['depth']} and {after['two_qubit_gates']}; "
        f"qubits {', '.join(map(str, row['layouts'][0]))}"
    )


def _mitigation(content: Mapping[str, Any]) -> str:
    used = {name: value for name, value in content["mitigation"].items() if value}
    used.pop("extrapolator", None) if not used.get("zne") else None
    pieces = [piece for row in content["structures"] for piece in row["pieces"]]
    main = sum(kind == "main" for kind, _ in pieces)
    folded, calibration = (sum(kind == name for kind, _ in pieces) for name in ("folded", "calibration"))
    if not used:
        return "none"
    words = ", ".join(name if value is True else f"{name} {value}" for name, value in used.items())
    return f"{words}: {(main + folded) / main:g} x the circuits, and {calibration} that calibrate in each job"


def _mean_circuit(made: Plan) -> float:
    """Seconds of a circuit, averaged over executions."""
    return (made.seconds - JOB_SECONDS * made.jobs) / made.executions - float(made.content["rep_delay"])
