"""How far a model is from the retrained ones: in activations, in weights, as a function, in the circuit's states."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qunlearn import metrics
from qunlearn.evaluation.audit.bench import Case
from qunlearn.evaluation.audit.finding import Figure, absent
from qunlearn.evaluation.audit.intervals import mean_bounds
from qunlearn.evaluation.audit.subject import Subject
from qunlearn.metrics.arrays import log_softmax
from qunlearn.models import angle_periods
from qunlearn.quantum.states import fidelity

Floats = npt.NDArray[np.float64]
NORMS = {"l1": 1, "l2": 2}


def distances(case: Case) -> Iterator[Figure]:
    """Distances to the retrained models, averaged over them; a retrained model's own are those to the others.

    ``distance_activation_<norm>_<stage>``: mean over forget samples of the L1 or L2 norm of the difference of what a
    stage hands on. ``distance_weights_<stage>``: |theta - theta_r| / |theta_0 - theta_r| of a stage's weights, angles
    wrapped by their period; 1 is where the original stands. ``distance_function_<set>``: mean L2 distance of the
    probabilities. ``distance_states``: 1 - mean fidelity of the circuit's states on the forget set.

    Fooled by: symmetries. Equal functions have many weights and activations, so that two retrained models are far
    apart: only values beyond theirs say anything, and values below say nothing.

    Source: Golatkar et al. 2020, arXiv 1911.04933 (L1), Chundawat et al. 2023, arXiv 2205.08096 (L2); Goel et al.
    2022, arXiv 2201.06640 (layer-wise distance).
    """
    if not case.others:
        yield absent("distances", "no retrained model to measure the distance to", "relative")
        return
    yield from _activations(case)
    yield from _weights(case)
    for name in ("forget", "test"):
        yield _function(case, name)
    yield _states(case)


def _activations(case: Case) -> Iterator[Figure]:
    for stage in case.subject.stages:
        mine = case.subject.outputs.stages.get(stage.name)
        theirs = [other.outputs.stages.get(stage.name) for other in case.others]
        for norm, order in NORMS.items():
            name = f"distance_activation_{norm}_{stage.name}"
            shapes = {None if part is None else part["forget"].shape for part in (mine, *theirs)}
            if mine is None or len(shapes) > 1:
                yield absent(name, "the models' stages are not alike", "score")
                continue
            parts = [_norm(mine["forget"] - other["forget"], order) for other in theirs if other is not None]
            yield _over_samples(name, parts)


def _weights(case: Case) -> Iterator[Figure]:
    original = case.bench.original
    if original is None:
        yield absent("distance_weights", "no original model was given", "relative")
        return
    for stage in case.subject.stages:
        ratios = [_ratio(case.subject, original, other, stage.parameters) for other in case.others]
        name = f"distance_weights_{stage.name}"
        if np.isnan(ratios).any():
            yield absent(name, "the weights are of other shapes, or the same in original and retrained", "relative")
        else:
            yield Figure(name, mean_bounds(ratios, low=0.0), len(ratios), "relative")


def _ratio(subject: Subject, original: Subject, other: Subject, names: tuple[str, ...]) -> float:
    """|theta - theta_r| / |theta_0 - theta_r| over some parameters; NaN where there is no such number."""
    models = [one.model for one in (subject, original, other)]
    tensors = [dict(model.named_parameters()) for model in models]
    if not names or any(len({_shape(part.get(name)) for part in tensors}) > 1 for name in names):
        return float("nan")
    known = angle_periods(models[0])
    periods = _flat([known.get(name, torch.full_like(tensors[0][name], torch.inf)) for name in names])
    mine, before, reference = (_flat([part[name] for name in names]) for part in tensors)
    return metrics.layer_distance(mine, before, reference, periods)


def _function(case: Case, name: str) -> Figure:
    y = case.bench.y(name)
    kept = y != case.bench.forget_class if name == "test" and case.bench.forget_class is not None else y >= 0

    def probabilities(one: Subject) -> Tensor:
        return torch.from_numpy(np.exp(log_softmax(one.outputs.logits[name][kept])))

    mine = probabilities(case.subject)
    return _over_samples(f"distance_function_{name}", [_norm(mine - probabilities(o), 2) for o in case.others])


def _states(case: Case) -> Figure:
    name = "distance_states"
    found = [one.states("forget") for one in (case.subject, *case.others)]
    states = [state for state in found if state is not None]
    if len(states) < len(found) or len({state.shape for state in states}) > 1:
        return absent(name, case.subject.stateless or "the retrained models' circuits are others")
    mine, *theirs = states
    return _over_samples(name, [1 - fidelity(mine, other).numpy() for other in theirs], "share")


def _over_samples(name: str, parts: list[Floats], unit: str = "score") -> Figure:
    """A figure whose samples are means over the retrained models."""
    samples = np.mean(parts, axis=0)
    return Figure(name, mean_bounds(samples, low=0.0, high=1.0 if unit == "share" else np.inf), len(samples), unit)


def _norm(difference: Tensor, order: int) -> Floats:
    found: Floats = torch.linalg.vector_norm(difference.double(), order, dim=1).numpy()
    return found


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape


def _flat(tensors: list[Tensor]) -> Floats:
    found: Floats = torch.cat([tensor.detach().double().flatten().cpu() for tensor in tensors]).numpy()
    return found
