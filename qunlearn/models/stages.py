"""Stages: the ordered, named parts of any module, and what each parameter is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from qunlearn.errors import InputError
from qunlearn.models.controls import ClassicalTwin
from qunlearn.quantum.layer import QuantumLayer

Kind = Literal["circuit", "linear", "conv", "other"]
_CONVOLUTION = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
_NORM = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One part of a model.

    Attributes:
        name: short and unique in the model, such as ``"cnn"``, ``"circuit"``, ``"fc2"``.
        modules: dotted paths of its modules, in the order in which they run.
        parameters: full names, as ``model.named_parameters()`` gives them.
        kind: what it mainly is; a classical twin counts as the circuit that it stands in for.
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    kind: Kind

    @property
    def module(self) -> str:
        """Path of the last module; its output is the activation that the stage hands on."""
        return self.modules[-1]


def stages(model: nn.Module) -> tuple[Stage, ...]:
    """The ordered stages of a module; their parameters, put together, are the module's, each once.

    A module may define ``stage_names()``, a list of (name, path of the submodule that it starts with) in
    running order; a stage then reaches to where the next one starts, activations and norms included. In any
    other module each submodule with parameters of its own is a stage, in the order of registration, named by
    its path; a norm layer belongs to the stage before it.
    """
    declared = getattr(model, "stage_names", None)
    parts = dict(model.named_modules())
    if callable(declared):
        groups = _declared_groups(parts, list(declared()))
    else:
        groups = _found_groups(parts, type(model).__name__)
    names = {name for name, _ in model.named_parameters()}
    return tuple(_stage(name, paths, parts, names) for name, paths in groups if paths)


def angle_periods(model: nn.Module) -> dict[str, Tensor]:
    """Period in radians of every circuit angle: parameter name -> tensor of that parameter's shape.

    Holds the weights of the `QuantumLayer` parts only; every other parameter lives on a line.
    """
    return {
        f"{path}.weights".lstrip("."): part.periods
        for path, part in model.named_modules()
        if isinstance(part, QuantumLayer)
    }


def _owned(part: nn.Module) -> list[str]:
    return [name for name, _ in part.named_parameters(recurse=False)]


def _declared_groups(parts: dict[str, nn.Module], starts: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Modules that do work, dealt out to the stages that a model declares."""
    for name, path in starts:
        if path not in parts:
            raise InputError(f"expected stage {name!r} to start at a submodule, got the path {path!r}; see stage_names")
    if not starts:
        raise InputError("expected stage_names() to name at least one stage, got none")
    groups: list[tuple[str, list[str]]] = [(name, []) for name, _ in starts]
    current = 0  # what comes before the first stage belongs to it
    for path, part in parts.items():
        inside = [number for number, (_, start) in enumerate(starts) if f"{path}.".startswith(f"{start}.")]
        current = max(inside, key=lambda number: len(starts[number][1]), default=current)
        if _owned(part) or not list(part.children()):
            groups[current][1].append(path)
    return groups


def _found_groups(parts: dict[str, nn.Module], model_name: str) -> list[tuple[str, list[str]]]:
    """Modules that own parameters, each a stage, norm layers joined to the one before."""
    groups: list[tuple[str, list[str]]] = []
    for path, part in parts.items():
        if not _owned(part):
            continue
        if isinstance(part, _NORM) and groups:
            groups[-1][1].append(path)
        else:
            groups.append((path or model_name, [path]))
    return groups


def _stage(name: str, paths: list[str], parts: dict[str, nn.Module], names: set[str]) -> Stage:
    full = [f"{path}.{own}".lstrip(".") for path in paths for own in _owned(parts[path])]
    kind: Kind = next((_kind(parts[path]) for path in paths if _owned(parts[path])), "other")
    return Stage(name, tuple(paths), tuple(n for n in full if n in names), kind)


def _kind(part: nn.Module) -> Kind:
    if isinstance(part, (QuantumLayer, ClassicalTwin)) or _is_torch_layer(part):
        return "circuit"
    if isinstance(part, nn.Linear):
        return "linear"
    return "conv" if isinstance(part, _CONVOLUTION) else "other"


def _is_torch_layer(part: nn.Module) -> bool:
    """Whether it is PennyLane's TorchLayer, told without importing PennyLane."""
    return any(base.__name__ == "TorchLayer" and base.__module__.startswith("pennylane") for base in type(part).__mro__)
