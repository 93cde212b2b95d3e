"""What every backend shares: rows of angles in, values out, and from that a differentiable function."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qunlearn.errors import InputError, NumericalError, QunlearnError, UnknownNameError, UnsupportedError
from qunlearn.quantum.backends.opened import Floats, Opened, open_circuit
from qunlearn.quantum.backends.shifts import shift_plan
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.transforms import check_one_forward_mode, is_tracked

GRADIENTS = ("parameter-shift", "spsa", "device")


@dataclass
class Spent:
    """What a backend was made to do.

    Attributes:
        jobs: calls of `Backend.run`.
        circuits: circuits in them: one for each row of angles and each basis that is measured.
        executions: shots of all circuits together; each circuit counts 1 where values are exact.
    """

    jobs: int = 0
    circuits: int = 0
    executions: int = 0


class Backend(ABC):
    """Something that runs circuits elsewhere, and is differentiated by running them at other angles.

    A subclass says what `run` does; everything else is here. One call of `expectations` is one job: where a gradient
    is wanted, the shifted circuits stand in the same job as the circuits themselves.

    Args:
        shots: measurements of each circuit, or None for exact values where the backend knows them.
        gradient: "parameter-shift", each gate's own rule for each of its occurrences, derivatives of any order; "spsa",
            first derivatives from two circuits a sample, however many angles there are; or "device", the device's own
            derivatives, where it has any.
        seed: of all that is drawn; every job draws from a child seed of its own.
        repetitions: of SPSA, whose gradients are averaged.
        step: of SPSA, in radians.

    The reading of SPSA: a perturbation moves all angles of one sample's circuit at once (every occurrence of a weight
    by itself), and every sample draws its own. Source: Spall 1992, IEEE Trans. Automat. Control 37, 332; there the
    perturbation moves the parameters of a scalar loss.

    Attributes:
        name: what `find_backend` knows it by.
        spent: jobs, circuits and executions so far.

    Raises:
        InputError: for an option out of range.
    """

    name: str = "backend"
    gradients: ClassVar[tuple[str, ...]] = ("parameter-shift", "spsa")

    def __init__(
        self,
        *,
        shots: int | None = None,
        gradient: str = "parameter-shift",
        seed: int = 0,
        repetitions: int = 1,
        step: float = 0.1,
    ) -> None:
        if shots is not None and (isinstance(shots, bool) or not isinstance(shots, int) or shots < 1):
            raise InputError(f"expected at least 1 shot, or None for exact values, got {shots!r}")
        if gradient not in GRADIENTS:
            raise UnknownNameError("gradient", gradient, GRADIENTS)
        if gradient not in self.gradients:
            raise UnsupportedError(f"expected gradient 'parameter-shift' or 'spsa' on {self.name!r}, got {gradient!r}")
        if repetitions < 1 or not step > 0:
            raise InputError(f"expected repetitions of at least 1 and a step above 0, got {repetitions} and {step}")
        self.shots, self.gradient, self.seed = shots, gradient, seed
        self.repetitions, self.step = repetitions, step
        self.spent = Spent()
        self._seeds = np.random.SeedSequence(seed)

    @abstractmethod
    def run(self, circuit: Circuit, angles: Floats) -> Floats:
        """The values ``(rows, observables)`` of an opened circuit at angles ``(rows, K)`` in radians: one job."""

    def run_derivatives(self, circuit: Circuit, angles: Floats) -> tuple[Floats, Floats]:
        """Values ``(rows, observables)`` and the device's own derivatives ``(rows, observables, K)``: one job.

        Only where "device" is among `gradients`.
        """
        raise UnsupportedError(f"expected a device with derivatives of its own, got {self.name!r}")

    def circuits_per_row(self, circuit: Circuit) -> int:
        """How many circuits a row of angles takes: one for each basis in which the observables are measured."""
        from qunlearn.quantum.sampling import measurement_bases

        return 1 if self.shots is None else len(measurement_bases(circuit.observables))

    def child_seed(self) -> int:
        """A fresh seed of 31 bits for the next job, determined by the seed and the number of seeds before."""
        return int(self._seeds.spawn(1)[0].generate_state(1)[0] >> 1)

    def expectations(self, circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
        """Expectation values ``(..., observables)`` of features ``(..., features)`` and weights ``(weights,)``.

        One job, and none for an empty batch. Differentiable by both, under every transform of ``torch.func`` too; no
        shifted circuit is run where no derivative is wanted. Float64 inside; the result has the wider type of both.

        Raises:
            NumericalError: for angles that are not finite.
            UnsupportedError: for a circuit that this backend cannot run.
        """
        opened = open_circuit(circuit)
        positions = opened.positions(features=is_tracked(features), weights=is_tracked(weights))
        coordinates = opened.coordinates(features, weights)
        rows = coordinates.reshape(features.shape[:-1].numel(), coordinates.shape[-1])
        values = _Derivative.apply(_Task(self, opened, positions), 0, rows, None)[0]  # type: ignore[no-untyped-call]
        dtype = torch.promote_types(features.dtype, weights.dtype)
        dtype = dtype if dtype in (torch.float32, torch.float64) else torch.float32
        found: Tensor = values.to(dtype).reshape(*features.shape[:-1], len(circuit.observables))
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        return self  # a backend is a place, not data: copies of a model go on running there

    def __repr__(self) -> str:
        parts = [repr(self.name), f"shots={self.shots}"]
        parts += [f"gradient={self.gradient!r}"] if self.gradient != "parameter-shift" else []
        return f"{type(self).__name__}({', '.join(parts)})"

    def _run(self, opened: Opened, coordinates: Floats) -> Floats:
        """The values of rows of coordinates, ``(rows, observables)``, in one job, counted and checked."""
        angles, factors = opened.rows(coordinates)
        self._start(opened.circuit, angles)
        values = np.asarray(self.run(opened.circuit, angles), dtype=np.float64)
        return _checked(self, values, (len(angles), len(opened.circuit.observables))) * factors[:, None]

    def _start(self, circuit: Circuit, angles: Floats) -> None:
        if not np.isfinite(angles).all():
            row = int(np.flatnonzero(~np.isfinite(angles).all(1))[0])
            raise NumericalError(f"expected finite angles for {self.name!r}, got one that is not in row {row}")
        self._count(len(angles) * self.circuits_per_row(circuit))

    def _count(self, circuits: int) -> None:
        self.spent.jobs += 1
        self.spent.circuits += circuits
        self.spent.executions += circuits * (self.shots or 1)


@dataclass(frozen=True, eq=False)
class _Task:
    """What is run where, and the coordinates by which it is differentiated."""

    backend: Backend
    opened: Opened
    positions: tuple[int, ...]

    def derivatives(self, coordinates: Floats, orders: tuple[int, ...]) -> list[Floats]:
        """Derivatives ``(rows, observables, positions, ...)`` of each order, the zeroth the values, in one job."""
        backend, opened, rows, places = self.backend, self.opened, len(coordinates), len(self.positions)
        shapes = [(rows, len(opened.circuit.observables), *[places] * order) for order in orders]
        if not rows or (not places and 0 not in orders):
            return [np.zeros(shape) for shape in shapes]
        if not places or backend.gradient == "parameter-shift":
            found = self._shifted(coordinates, orders)
        elif max(orders) > 1:
            raise UnsupportedError(
                f"expected first derivatives only with gradient={backend.gradient!r}, got one of order {max(orders)}; "
                "use gradient='parameter-shift'"
            )
        elif backend.gradient == "spsa":
            found = self._perturbed(coordinates, orders)
        else:
            found = self._own(coordinates, orders)
        return [value.reshape(shape) for value, shape in zip(found, shapes, strict=True)]

    def _shifted(self, coordinates: Floats, orders: tuple[int, ...]) -> list[Floats]:
        """By each gate's own rule."""
        orders = orders if self.positions else (0,) * len(orders)
        plan = shift_plan(self.opened, self.positions, orders)
        return plan.combine(self._at(coordinates + plan.shifts[:, None]))

    def _perturbed(self, coordinates: Floats, orders: tuple[int, ...]) -> list[Floats]:
        """By simultaneous perturbation."""
        backend, (rows, width) = self.backend, coordinates.shape
        signs = np.zeros((backend.repetitions, rows, width))
        drawn = np.random.default_rng(backend.child_seed()).integers(0, 2, (len(signs), rows, len(self.positions)))
        signs[:, :, self.positions] = 2.0 * drawn - 1
        offsets = np.concatenate([backend.step * signs, -backend.step * signs])
        points = np.concatenate([np.zeros((1 if 0 in orders else 0, rows, width)), offsets])
        values = self._at(coordinates + points)
        ahead, behind = np.split(values[-len(offsets) :], 2)
        slopes = (ahead - behind)[..., None] / (2 * backend.step) * signs[:, :, None, self.positions]
        return [values[0] if order == 0 else slopes.mean(0) for order in orders]

    def _own(self, coordinates: Floats, orders: tuple[int, ...]) -> list[Floats]:
        """By the device; encoded amplitudes, of which it knows the tree alone, by shifts."""
        opened, backend, offset = self.opened, self.backend, len(self.opened.shifted) - len(self.opened.rules)
        angles, factors = opened.rows(coordinates)
        backend._start(opened.circuit, angles)
        values, slopes = backend.run_derivatives(opened.circuit, angles)
        values = _checked(backend, values, (len(angles), len(opened.circuit.observables)))
        slopes = _checked(backend, slopes, (*values.shape, angles.shape[1])) * factors[:, None, None]
        found = slopes[:, :, [max(0, position - offset) for position in self.positions]]
        amplitudes = tuple(p for p in self.positions if p - offset < opened.tree)
        if amplitudes:
            found[:, :, : len(amplitudes)] = _Task(backend, opened, amplitudes)._shifted(coordinates, (1,))[0]
        return [values * factors[:, None] if order == 0 else found for order in orders]

    def _at(self, points: Floats) -> Floats:
        """Values ``(points, rows, observables)`` at coordinates ``(points, rows, C)``, in one job."""
        around, rows, width = points.shape
        return self.backend._run(self.opened, points.reshape(around * rows, width)).reshape(around, rows, -1)


class _Derivative(torch.autograd.Function):
    """The derivative of some order of a task's values by its coordinates; its own derivative is that of the next.

    Coordinates are ``(rows, C)``, the derivative is ``(rows, observables, positions, ...)``. The values come with
    their first derivative, found in the same job; what is `known` costs nothing; all else is run when it is asked for.
    """

    @staticmethod
    def forward(task: _Task, order: int, coordinates: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
        if known is not None:
            return known.clone(), coordinates.new_empty(len(coordinates), 0)
        orders = (0, 1) if order == 0 and task.positions else (order,)
        found = task.derivatives(coordinates.detach().cpu().numpy(), orders)
        there = [torch.from_numpy(np.ascontiguousarray(value)).to(coordinates) for value in found]
        return there[0], there[1] if len(there) > 1 else coordinates.new_empty(len(coordinates), 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.task, ctx.order, coordinates, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(coordinates, output[1])
        ctx.save_for_forward(coordinates, output[1])

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> tuple[None, None, Tensor, None]:
        coordinates, kept = ctx.saved_tensors  # once: checkpoints allow no second look
        if not ctx.task.positions:
            return None, None, torch.zeros_like(coordinates), None
        products = slopes[0].unsqueeze(-1) * _next(ctx, coordinates, kept)
        moved = products.sum(tuple(range(1, products.dim() - 1)))  # (rows, positions)
        padded = torch.nn.functional.pad(moved, (0, 1))  # the last stands for coordinates that do not enter
        return None, None, padded.index_select(-1, _places(ctx.task, coordinates)), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        task, (coordinates, kept) = ctx.task, ctx.saved_tensors
        check_one_forward_mode(f"backend {task.backend.name!r}", "")
        index = torch.tensor(task.positions, dtype=torch.int64, device=coordinates.device)
        tangent = tangents[2].index_select(-1, index)
        tangent = tangent.reshape(len(tangent), *[1] * (1 + ctx.order), len(index))
        return (_next(ctx, coordinates, kept) * tangent).sum(-1), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, task: _Task, order: int, coordinates: Tensor, known: Tensor | None) -> Any:
        def fold(tensor: Tensor, dim: int | None) -> Tensor:
            wide = tensor.movedim(dim, 0) if dim is not None else tensor.expand(info.batch_size, *tensor.shape)
            return wide.flatten(0, 1)

        folded = fold(coordinates, in_dims[2]), None if known is None else fold(known, in_dims[3])
        found = _Derivative.apply(task, order, *folded)  # type: ignore[no-untyped-call]
        return tuple(value.unflatten(0, (info.batch_size, len(value) // info.batch_size)) for value in found), (0, 0)


# Kept, or PyTorch reads it off the function at every call.
vars(_Derivative.forward)["__signature__"] = inspect.signature(_Derivative.forward)


def _next(ctx: Any, coordinates: Tensor, kept: Tensor) -> Tensor:
    """The derivative of the next order, differentiable: what was found in the forward job, else a job of its own."""
    known = kept if kept.dim() > 2 else None
    found: Tensor = _Derivative.apply(ctx.task, ctx.order + 1, coordinates, known)[0]  # type: ignore[no-untyped-call]
    return found


def _places(task: _Task, like: Tensor) -> Tensor:
    """For every coordinate its place among the positions, or the place after the last."""
    places = np.full(len(task.opened.shifted), len(task.positions))
    places[list(task.positions)] = range(len(task.positions))
    return torch.from_numpy(places).to(like.device)


def _checked(backend: Backend, values: Floats, shape: tuple[int, ...]) -> Floats:
    if values.shape != shape:
        raise QunlearnError(f"expected values of shape {shape} from backend {backend.name!r}, got {values.shape}")
    return values
