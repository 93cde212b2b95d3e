"""What a model says about every set of a split, kept so that figures can be computed and computed again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qunlearn.data import Dataset, Split
from qunlearn.errors import CorruptFileError, InputError, NumericalError
from qunlearn.evaluation.reference import unseen, unseen_set
from qunlearn.files import tensor_digest, write_bytes
from qunlearn.models import angle_periods
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.training.net import evaluating

SETS = ("forget", "retain", "validation", "test", "holdout")
OUTSIDE = "outside"  # the name of the unseen samples among the states
STATE_SETS = ("forget", "retain", "test", OUTSIDE)
STATE_SAMPLES = 256  # states are long: 2**qubits numbers a sample, kept for evenly spaced samples of a set
STATE_QUBITS = 12
MIXED_QUBITS = range(2, 7)  # of noisy circuits: a density matrix is 4**qubits numbers
MIXED_SETS = ("forget", OUTSIDE)  # what `helstrom_forget` compares; other figures are of pure states
BATCH = 1024
FORMAT = 1

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's outputs on the sets of a split, each row aligned with the sample's id.

    Attributes:
        logits: by set ``(n, classes)``, float64, in evaluation mode.
        labels: by set ``(n,)``, int64.
        ids: by set ``(n,)``, int64, in the set's order.
        parameters: all parameters, flat ``(weights,)``, float64, in the order of ``named_parameters``.
        periods: ``(weights,)``; an angle's period in radians, ``inf`` for a weight that isn't periodic.
        states: by set the states of the model's circuit ``(m, 2**qubits)``, complex64, for the m samples at
            `state_positions`; ``"outside"`` are samples that no model was trained on (`reference.unseen`). Of a noisy
            circuit of 2 to 6 qubits density matrices ``(m, 2**qubits, 2**qubits)`` of "forget" and "outside" alone.
            Empty where the model has no circuit, a larger one, or one that runs on a backend.
    """

    logits: Arrays
    labels: Arrays
    ids: Arrays
    parameters: npt.NDArray[np.float64]
    periods: npt.NDArray[np.float64]
    states: Arrays

    @property
    def complete(self) -> bool:
        """Whether they hold the states of unseen samples, if any; those that earlier versions kept do not."""
        return not self.states or OUTSIDE in self.states

    def to_bytes(self) -> bytes:
        """A safetensors file that holds the hash of its content."""
        from safetensors.numpy import save

        tensors = _flat(self)
        note = json.dumps({"format": FORMAT, "sha256": tensor_digest(tensors)}, sort_keys=True)
        return save(tensors, metadata={"qunlearn": note})

    def save(self, path: str | Path) -> None:
        """Writes `to_bytes` to a file, which is there whole or not at all."""
        write_bytes(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """What `save` wrote.

        Raises:
            CorruptFileError: where the file is damaged or something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                note = json.loads((file.metadata() or {})["qunlearn"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            if note["format"] != FORMAT or note["sha256"] != tensor_digest(tensors):
                raise KeyError("sha256")
            return _deep(tensors)
        except FileNotFoundError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(f"expected predictions as they were written in {path}; predict again") from error


def state_positions(samples: int) -> npt.NDArray[np.int64]:
    """Positions of the samples of a set whose circuit states are kept: all, or 256 evenly spaced ones."""
    return np.unique(np.linspace(0, max(samples - 1, 0), min(samples, STATE_SAMPLES)).round().astype(np.int64))


@torch.no_grad()
def predict(model: nn.Module, split: Split) -> Predictions:
    """A model's predictions on all sets of a split; the model is left as it was.

    Args:
        model: maps samples ``(batch, ...)`` to logits ``(batch, classes)``. It runs in evaluation mode, on its own
            device and in its own dtype.
        split: the sets; those that hold the same samples in the same order are run once.

    Raises:
        InputError: for outputs of another shape.
        NumericalError: for logits that are not numbers.
    """
    sets = {name: getattr(split, name) for name in SETS}
    ids = {name: data.ids.cpu().numpy() for name, data in sets.items()}
    # Under the name of the first of them stand the sets of the same samples in the same order.
    same: dict[bytes, str] = {}
    first = {name: same.setdefault(ids[name].tobytes(), name) for name in SETS}
    runs = {name: sets[name] for name in same.values()}
    outside = _spoilt(split)
    first[OUTSIDE] = OUTSIDE if outside else first[unseen_set(split)]
    with evaluating(model):
        logits, features = _run(model, _circuit(model), runs | outside)
        states = _states(_circuit(model), {name: features[first[name]] for name in STATE_SETS} if features else {})
    return Predictions(
        logits={name: logits[first[name]] for name in SETS},
        labels={name: data.y.cpu().numpy() for name, data in sets.items()},
        ids=ids,
        parameters=_vector(dict(model.named_parameters())),
        periods=_periods(model),
        states=states,
    )


def _spoilt(split: Split) -> dict[str, Dataset]:
    """The unseen samples, where their inputs were spoilt and are those of no set."""
    data, clean = unseen(split).data, getattr(split, unseen_set(split))
    return {} if torch.equal(data.x, clean.x) else {OUTSIDE: data}


def _run(
    model: nn.Module, circuit: QuantumLayer | None, sets: dict[str, Dataset]
) -> tuple[Arrays, dict[str, Tensor] | None]:
    """By set the logits ``(n, classes)`` and, where there is a circuit, what entered it ``(n, features)``."""
    caught: list[Tensor] = []
    hook = circuit.register_forward_pre_hook(lambda _, args: caught.append(args[0])) if circuit is not None else None
    try:
        outputs = torch.cat([model(x) for x in _batches(model, sets)]).double().cpu()
    finally:
        if hook is not None:
            hook.remove()
    if outputs.ndim != 2 or len(outputs) != sum(len(data) for data in sets.values()):
        samples = " + ".join(f"{len(data)} {name}" for name, data in sets.items())
        raise InputError(f"expected logits (samples, classes) for {samples} samples, got {tuple(outputs.shape)}")
    logits = _apart(outputs, sets)
    for name, part in logits.items():
        if bool((part.isnan() | part.isposinf()).any()):
            raise NumericalError(f"expected finite logits on the {name} set, got others; the model has diverged")
    # A circuit that runs several times a sample, or on something else than rows, has no one state a sample.
    single = sum(len(part) for part in caught) == len(outputs) and all(part.ndim == 2 for part in caught)
    features = _apart(torch.cat(caught), sets) if caught and single else None
    return {name: part.numpy() for name, part in logits.items()}, features


def _apart(rows: Tensor, sets: Mapping[str, Dataset | Tensor]) -> dict[str, Tensor]:
    """Rows in the order of the sets, by set."""
    return dict(zip(sets, torch.split(rows, [len(part) for part in sets.values()]), strict=True))


def _batches(model: nn.Module, sets: dict[str, Dataset]) -> list[Tensor]:
    """The samples of all sets in order: small ones in one batch, for which a call costs more than its samples."""
    parts = [_like(model, data.x) for data in sets.values()]
    if sum(len(part) for part in parts) <= BATCH:
        return [torch.cat(parts)]
    return [batch for part in parts for batch in torch.split(part, BATCH)]


def _states(circuit: QuantumLayer | None, features: dict[str, Tensor]) -> Arrays:
    """By set the states of the chosen samples; none of a large circuit, on a backend, or of an empty set."""
    if circuit is None or getattr(circuit, "backend", None) is not None:
        return {}
    mixed, qubits = circuit.circuit.noisy, circuit.circuit.qubits
    if qubits not in (MIXED_QUBITS if mixed else range(STATE_QUBITS + 1)):
        return {}
    chosen = {name: x for name, x in features.items() if len(x) and (name in MIXED_SETS or not mixed)}
    if not chosen:
        return {}
    rows = {name: x[torch.from_numpy(state_positions(len(x))).to(x.device)] for name, x in chosen.items()}
    inputs = torch.cat(list(rows.values()))
    states = circuit.density_matrix(inputs) if mixed else circuit.state(inputs).flatten(1)
    return {name: part.numpy() for name, part in _apart(states.to(torch.complex64).cpu(), rows).items()}


def _circuit(model: nn.Module) -> QuantumLayer | None:
    layers = [module for module in model.modules() if isinstance(module, QuantumLayer)]
    return layers[0] if len(layers) == 1 else None


def _like(model: nn.Module, x: Tensor) -> Tensor:
    """Samples on the model's device and, where they are real numbers, in its dtype."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    if first is None:
        return x
    return x.to(first.device, first.dtype if x.is_floating_point() else x.dtype)


def _vector(tensors: Mapping[str, Tensor]) -> npt.NDArray[np.float64]:
    parts = [tensor.detach().double().flatten().cpu() for tensor in tensors.values()]
    vector: npt.NDArray[np.float64] = torch.cat(parts).numpy() if parts else np.empty(0)
    return vector


def _periods(model: nn.Module) -> npt.NDArray[np.float64]:
    known = angle_periods(model)
    return _vector({name: known.get(name, torch.full_like(p, torch.inf)) for name, p in model.named_parameters()})


def _flat(predictions: Predictions) -> Arrays:
    tensors: Arrays = {"parameters": predictions.parameters, "periods": predictions.periods}
    for kind in ("logits", "labels", "ids"):
        tensors |= {f"{kind}/{name}": array for name, array in getattr(predictions, kind).items()}
    # safetensors knows no complex numbers: real and imaginary part stand side by side.
    tensors |= {f"states/{name}": array.view(np.float32) for name, array in predictions.states.items()}
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}


def _deep(tensors: Arrays) -> Predictions:
    parts: dict[str, Arrays] = {"logits": {}, "labels": {}, "ids": {}, "states": {}}
    for name, array in tensors.items():
        kind, _, part = name.partition("/")
        if part:
            parts[kind][part] = array.view(np.complex64) if kind == "states" else array
    return Predictions(parameters=tensors["parameters"], periods=tensors["periods"], **parts)
