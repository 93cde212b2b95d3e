"""`plan`: from models and samples to circuits, jobs and what they cost; submits nothing."""

from __future__ import annotations

import io
import os
import platform
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qunlearn.errors import InputError
from qunlearn.hardware.bundle import Bundle, circuit_layer
from qunlearn.hardware.calibration import snapshot
from qunlearn.hardware.cost import JOB_SECONDS, Limits, Piece, cost_of, piece_of, rep_delay, split
from qunlearn.hardware.files import canonical, json_bytes, sha256, sync_folder, tensor_bytes, write_bytes
from qunlearn.hardware.folder import CALIBRATION, CIRCUITS, FORMAT, KIND, PLAN, SAMPLES, Folder
from qunlearn.hardware.halves import features_of
from qunlearn.hardware.journal import Row
from qunlearn.models import HybridClassifier
from qunlearn.models.files import model_files
from qunlearn.quantum.backends.device import find_device, is_local
from qunlearn.quantum.backends.opened import Opened, open_circuit

if TYPE_CHECKING:
    from qunlearn.quantum.backends.mitigation import Mitigation, Work

#: Seconds of the machine that a plan may cost unless its limit says otherwise: what the open plan gives a month.
LIMIT_SECONDS = 600.0
_VERSIONS = ("qunlearn", "qiskit", "qiskit-ibm-runtime", "qiskit-aer", "numpy", "torch", "safetensors")
Files = dict[str, bytes]


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
    rows = _Rows(bundle)
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
        "versions": _versions(),
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


class _Rows:
    """The rows of a bundle: samples in an order that mixes the sets, models by the structure of their circuits."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.order = sample_order({name: len(data) for name, data in bundle.sets.items()})
        self.features = {name: self._features(name) for name in bundle.models}
        opened = {name: open_circuit(circuit_layer(model, name).circuit.without_noise()) for name, model in self._named}
        kinds = dict.fromkeys(one.circuit for one in opened.values())
        self.structures: list[Opened] = [
            next(one for one in opened.values() if one.circuit == circuit) for circuit in kinds
        ]
        self.structure = {name: list(kinds).index(one.circuit) for name, one in opened.items()}
        self.models_of = [sum(found == index for found in self.structure.values()) for index in range(len(kinds))]
        self.opened = opened

    @property
    def _named(self) -> list[tuple[str, Any]]:
        return list(self.bundle.models.items())

    def _ordered(self, parts: Mapping[str, Tensor]) -> Tensor:
        """What is known of the samples of each set, in the order of the plan."""
        names = list(self.bundle.sets)
        starts = np.cumsum([0, *(len(parts[name]) for name in names)])
        index = torch.tensor([int(starts[number]) + position for number, position in self.order])
        return torch.cat([parts[name] for name in names])[index]

    def _features(self, name: str) -> Tensor:
        model = self.bundle.models[name]
        return self._ordered({key: features_of(model, data.x, name) for key, data in self.bundle.sets.items()})

    def angles(self, structure: int) -> NDArray[np.float64]:
        """The angles ``(samples, models, K)`` of all models of a structure."""
        parts = [
            self.opened[name].angles(self.features[name], circuit_layer(model).weights.detach().cpu())
            for name, model in self._named
            if self.structure[name] == structure
        ]
        found: NDArray[np.float64] = torch.stack(parts, 1).numpy()
        return found

    def describe(self) -> dict[str, Any]:
        """What the plan says of models and samples."""
        models = [
            {
                "name": name,
                "role": self.bundle.roles.get(name, ""),
                "key": self.bundle.keys.get(name, ""),
                "structure": self.structure[name],
                "file": f"models/{number:03d}",
                "own_code": not _rebuildable(model),
            }
            for number, (name, model) in enumerate(self._named)
        ]
        sizes = [[name, len(data)] for name, data in self.bundle.sets.items()]
        return {"models": models, "sets": sizes, "order": [list(place) for place in self.order]}

    def files(self) -> Files:
        """The samples and the models."""
        sets = self.bundle.sets
        arrays = {f"angles/{index}": self.angles(index) for index in range(len(self.structures))}
        arrays |= {f"features/{n}": self.features[name].numpy() for n, name in enumerate(self.bundle.models)}
        arrays["labels"] = self._ordered({name: data.y.cpu() for name, data in sets.items()}).numpy()
        arrays["ids"] = self._ordered({name: data.ids.cpu() for name, data in sets.items()}).numpy()
        if not all(_rebuildable(model) for model in self.bundle.models.values()):
            arrays["x"] = self._ordered({name: data.x.cpu() for name, data in sets.items()}).numpy()
        files = {SAMPLES: tensor_bytes(arrays)}
        for number, (_, model) in enumerate(self._named):
            factory = None if _rebuildable(model) else f"{type(model).__module__}:{type(model).__qualname__}"
            weights, card = model_files(model, factory=factory)
            files |= {f"models/{number:03d}.safetensors": weights, f"models/{number:03d}.json": card}
        return files


def sample_order(sizes: Mapping[str, int]) -> list[tuple[int, int]]:
    """(number of the set, position in it) of every sample, the sets spread evenly over the whole.

    >>> sample_order({"forget": 1, "test": 2})
    [(1, 0), (0, 0), (1, 1)]
    """
    places = [(number, position, size) for number, size in enumerate(sizes.values()) for position in range(size)]
    places.sort(key=lambda place: ((place[1] + 0.5) / place[2], place[0]))
    return [(number, position) for number, position, _ in places]


def _rebuildable(model: torch.nn.Module) -> bool:
    return type(model) is HybridClassifier


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


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a checkout that is not installed
            found[name] = "not installed"
    return found


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
