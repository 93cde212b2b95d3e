"""Quantum states of one cell before and after forgetting, and retrained: Bloch vectors and fidelities of classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qunlearn import methods
from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.quantum.states import reduced_state
from qunlearn.study.prepare import split_of
from qunlearn.study.report.material import ORIGINAL, RETRAINED
from qunlearn.study.report.style import INK, MUTED
from qunlearn.study.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from qunlearn.study.results import Study

Floats = NDArray[np.float64]
MOST = 60  # samples drawn of each set
WIRES = 4  # wires drawn


@dataclass(frozen=True, eq=False)
class States:
    """States of models of one cell.

    Attributes:
        title: the cell in words.
        classes: names of the classes.
        models: "original", the method's label, "retrained".
        forget: by model Bloch vectors of forget samples ``(samples, wires, 3)``: <X>, <Y>, <Z>.
        retain: the same of retained samples.
        overlaps: by model the likeness of the classes' mean states ``(classes, classes)``, see `class_overlaps`.
    """

    title: str
    classes: tuple[str, ...]
    models: tuple[str, ...]
    forget: dict[str, Floats]
    retain: dict[str, Floats]
    overlaps: dict[str, Floats]


def states_of(study: Study, method: str | None = None, trial: str | None = None) -> States | None:
    """The states of an original, of what a method left of it, and of a retrained model.

    Args:
        study: with kept models.
        method: a method's label; any if None.
        trial: key of the trial that picks cell and seed; if None one of a method that aims to erase, of a class, with
            entanglement, of the deepest circuits, the first such in the study's order.

    Returns:
        None where no trial fits: of a study without circuits, say.

    Raises:
        InputError: for a trial that is not of that method.
    """
    for task in [study.task(trial)] if trial else sorted(study.done(), key=_turn):
        label = task.row["method"]
        if label not in (ORIGINAL, RETRAINED) and method in (None, label):
            if (found := _states(study, task)) is not None:
                return found
        elif trial:
            raise InputError(f"expected a trial of {method or 'a method'}, got one of {label}")
    return None


def _turn(task: Task) -> tuple[bool, bool, bool, int, bool]:
    """Where a picture shows most: states are moved, a class, entangled, deep, features before every layer."""
    row, method = task.row, methods.available().get((task.method or {"name": ""})["name"])
    return (
        getattr(method, "strategy", None) != "aims to erase",
        "class" not in task.request,
        row["entanglement"] == "none",
        -(row["depth"] or 0),
        not row.get("model.reupload"),
    )


def bloch_vectors(states: Tensor) -> Floats:
    """<X>, <Y>, <Z> of every wire of pure states ``(batch, 2, ..., 2)``: ``(batch, wires, 3)``."""
    wires = range(states.dim() - 1)
    rho = torch.stack([reduced_state(states, (wire,)) for wire in wires], dim=1)
    x, y = 2 * rho[..., 0, 1].real, -2 * rho[..., 0, 1].imag
    z = (rho[..., 0, 0] - rho[..., 1, 1]).real
    return np.asarray(torch.stack([x, y, z], dim=-1).cpu(), dtype=np.float64)


def class_overlaps(states: Tensor, labels: Tensor, classes: int) -> Floats:
    """Tr(rho sigma) / sqrt(Tr rho^2 Tr sigma^2) of the classes' mean states, ``(classes, classes)``.

    1 where two are the same, 0 where a measurement tells them apart for sure; NaN for a class without samples.
    """
    flat = states.flatten(1).to(torch.complex128)
    means = torch.full((classes, flat.shape[1], flat.shape[1]), torch.nan, dtype=torch.complex128)
    for label in range(classes):
        own = flat[labels == label]
        if len(own):
            means[label] = own.mT @ own.conj() / len(own)
    rows = means.flatten(1)
    products = (rows.conj() @ rows.mT).real
    sizes = products.diagonal().sqrt()
    return np.asarray(products / (sizes[:, None] * sizes), dtype=np.float64)


def _states(study: Study, task: Task) -> States | None:
    """Of a trial; None where one of the models has no trained circuit."""
    cell = [one for one in study.done() if (one.settings, one.request) == (task.settings, task.request)]
    same = [one for one in cell if one.row["method"] == ORIGINAL and one.original == task.original]
    others = [one for one in cell if one.row["method"] == RETRAINED and one.retrained[0] in task.retrained]
    if not same or not others:
        return None
    label = str(task.row["method"])
    models = {
        "original": study.model(same[0].key),
        label: study.model(task.key),
        "retrained": study.model(others[0].key),
    }
    if any(_circuit(model) is None for model in models.values()):
        return None
    split = split_of(task.settings, task.request, study.folder)
    forget, retain, overlaps = {}, {}, {}
    for name, model in models.items():
        forget[name] = bloch_vectors(_at(model, _some(split.forget)))
        retain[name] = bloch_vectors(_at(model, _some(split.retain)))
        overlaps[name] = class_overlaps(_at(model, split.train), split.train.y, len(split.train.classes))
    where = f"{task.row['circuit']}, depth {task.row['depth']}, {task.row['entanglement']}, seed {task.seed}"
    classes = tuple(map(str, split.train.classes))
    return States(f"{task.row['request']}: {where}", classes, tuple(models), forget, retain, overlaps)


def _circuit(model: Any) -> QuantumLayer | None:
    """The circuit, if it is trained: with a frozen one no state ever moves."""
    layer = getattr(model, "quantum", None)
    return layer if isinstance(layer, QuantumLayer) and layer.weights.requires_grad else None


def _at(model: Any, data: Dataset) -> Tensor:
    layer = _circuit(model)
    assert layer is not None
    with torch.no_grad():
        return layer.state(model.encoder(model._tensor(data.x))).cpu()


def _some(data: Dataset) -> Dataset:
    return data.select(np.unique(np.linspace(0, len(data) - 1, min(MOST, len(data))).round().astype(np.int64)))


def state_figures(states: States | None) -> Iterator[tuple[str, Figure, str, str]]:
    """The Bloch vectors, and the fidelities of classes: stem, figure, alternative text, title."""
    if states is not None:
        yield _bloch(states)
        yield _overlaps(states)


def _bloch(states: States) -> tuple[str, Figure, str, str]:
    """A row a model, a column a wire: X and Z of each sample in the unit circle."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    wires = min(WIRES, states.forget["original"].shape[1])
    figure = Figure(figsize=(7.1, 1.8 * len(states.models) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid, told = figure.subplots(len(states.models), wires, squeeze=False), []
    for row, name in enumerate(states.models):
        sets = (("retained", states.retain[name], MUTED, "o"), ("forget", states.forget[name], "#D55E00", "^"))
        for wire, axes in enumerate(grid[row]):
            axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor=INK, linewidth=0.6))
            for label, own, colour, marker in sets:
                axes.scatter(own[:, wire, 0], own[:, wire, 2], s=9, color=colour, marker=marker, alpha=0.7,
                             linewidths=0, label=f"{label} samples")  # fmt: skip
            axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
            axes.set_title(f"wire {wire}" if row == 0 else "", fontsize=7.5)
            if wire == 0:
                axes.set_ylabel(f"{name}\n\u27e8Z\u27e9")
            if row == len(states.models) - 1:
                axes.set_xlabel("\u27e8X\u27e9")
        apart = float(np.linalg.norm(states.forget[name].mean(0) - states.retain[name].mean(0), axis=-1).mean())
        told.append(f"{name}: mean vectors of forget and retained samples {apart:.2f} apart")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, title=f"Forget {states.title}",
                  alignment="left", title_fontsize=8)  # fmt: skip
    return "landscape-states", figure, f"Bloch vectors, forget {states.title}. " + "; ".join(told) + ".", states.title


def _overlaps(states: States) -> tuple[str, Figure, str, str]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.1, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid, told = figure.subplots(1, len(states.models), squeeze=False)[0], []
    for axes, name in zip(grid, states.models, strict=True):
        values = states.overlaps[name]
        axes.imshow(values, cmap="cividis", vmin=0, vmax=1)
        axes.grid(visible=False)
        axes.set_title(name, fontsize=8)
        places = range(len(states.classes))
        axes.set_xticks(places, states.classes, rotation=90 if max(map(len, states.classes)) > 3 else 0)
        axes.set_yticks(places, states.classes if axes is grid[0] else [""] * len(states.classes))
        apart = values[~np.eye(len(values), dtype=bool)]
        told.append(f"{name} {np.nanmean(apart):.2f}")
    bar = figure.colorbar(grid[0].images[0], ax=grid, location="bottom", fraction=0.06, aspect=50)
    bar.set_label(f"Likeness of the classes\u2019 mean states, forget {states.title}")
    alt = f"Likeness of different classes' mean states, mean over pairs: {', '.join(told)}."
    return "landscape-fidelities", figure, alt, states.title
