"""Quantum-kernel ridge classifier: a circuit read by the overlaps of its states, solved in closed form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.models.encoders import make_encoder
from qunlearn.models.hybrid import HybridClassifier
from qunlearn.models.initialise import isolated_random, redraw
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.layer import QuantumLayer

TARGETS = ("signs", "one-hot")
AMPLITUDES = 2**22  # of the states that a block holds at once, rows and columns each: 64 MiB in complex128
ROWS = 2048  # samples of a block at most: its overlaps take 64 MiB


class StateLayer(QuantumLayer):
    """A circuit whose output is its final state, complex ``(batch, 2**qubits)``, wire 0 most significant."""

    def forward(self, x: Tensor | ArrayLike) -> Tensor:
        """States of features ``(batch, features)``."""
        if self.backend is not None:
            raise UnsupportedError(
                f"expected a circuit that runs exactly on this machine, got one on {self.backend.name!r}: overlaps of "
                "states are computed, not sampled; use the model without with_backend"
            )
        return self.state(x).flatten(1)


class QuantumKernelClassifier(nn.Module):
    r"""Kernel ridge regression of class targets with the fidelity kernel of a circuit; one solve, no descent.

    .. math:: K_{ij} = |\langle\phi(x_i)|\phi(x_j)\rangle|^2, \quad A = (K + \lambda I)^{-1}, \quad \alpha = A T,
              \quad f(x) = \sum_i |\langle\phi(x)|\phi(x_i)\rangle|^2 \alpha_i

    The state phi(x) is the circuit's on the encoder's output, weights as they are: nothing of the embedding is
    trained. Row i of T is +1 for the class of sample i and -1 (or 0) for the others, so that each class is one ridge
    regression against the rest; the decision values f(x) serve as logits, with no intercept. The inverse is kept, since
    samples are removed from it in closed form (`remove`).

    Args:
        circuit: any without noise; its observables play no part.
        classes: number of classes, at least 2.
        encoder: as in `HybridClassifier`; what it takes from data is learnt by `fit_encoder` alone.
        inputs: shape of one sample; needed only for images other than 1x28x28.
        ridge: lambda, above 0; rounding errors of the solution grow with 1 / lambda.
        targets: ``"signs"`` (+1 and -1) or ``"one-hot"`` (1 and 0).
        dtype: of the embedding and of all that is stored; None for float64.
        generator: for the initial weights, as in `HybridClassifier`.

    Attributes:
        support: the training samples ``(n, ...)``.
        labels: theirs, ``(n,)`` int64.
        ids: theirs, ``(n,)`` int64.
        inverse: A, ``(n, n)``.
        alpha: ``(n, classes)``.

    Raises:
        InputError: for a noisy circuit or values out of range.

    Source: the fidelity kernel is Havlicek et al. 2019, arXiv 1804.11326, and Schuld and Killoran 2019, arXiv
        1803.07128; ridge regression on class targets is the least-squares classifier of Rifkin, Yeo and Poggio 2003.
    """

    support: Tensor
    labels: Tensor
    ids: Tensor
    inverse: Tensor
    alpha: Tensor
    recipe: Any = None

    def __init__(
        self,
        circuit: Circuit,
        classes: int,
        encoder: Literal["none", "pca", "cnn"] = "none",
        *,
        inputs: int | tuple[int, ...] | None = None,
        ridge: float = 0.01,
        targets: Literal["signs", "one-hot"] = "signs",
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check(circuit, classes, ridge, targets)
        shape = (inputs,) if isinstance(inputs, int) else None if inputs is None else tuple(inputs)
        self._config: dict[str, Any] = {
            "classes": classes, "encoder": encoder, "inputs": shape and list(shape), "ridge": ridge, "targets": targets,
        }  # fmt: skip
        self.circuit, self.classes, self.ridge, self.targets = circuit, classes, ridge, targets
        dtype = dtype or torch.float64
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device if generator else "cpu"))
        with isolated_random():
            self.encoder = make_encoder(encoder, circuit, shape).to(dtype)
            self.quantum = StateLayer(circuit, dtype=dtype)
        redraw(self, seed)
        self.requires_grad_(False)
        for name in ("support", "labels", "ids", "inverse", "alpha"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64 if name in ("labels", "ids") else dtype))
        self.unfit()

    @classmethod
    def embedding_of(
        cls, model: HybridClassifier, *, ridge: float = 0.01, targets: Literal["signs", "one-hot"] = "signs"
    ) -> QuantumKernelClassifier:
        """A classifier, not solved yet, with the encoder and the circuit of a hybrid model, at its weights.

        Raises:
            InputError: for a classical twin, which has no states.
        """
        if not isinstance(model.quantum, QuantumLayer):
            raise InputError("expected a model with a circuit for a quantum kernel, got its classical twin")
        config = model.config()
        with isolated_random():
            made = cls(
                model.circuit, model.classes, config["encoder"], inputs=config["inputs"], ridge=ridge, targets=targets
            )
        made.encoder.load_state_dict(model.encoder.state_dict())
        made.quantum.load_state_dict(model.quantum.state_dict())
        return made.to(next(model.quantum.parameters()).device)

    @property
    def data_fitted(self) -> bool:
        """Whether the encoder learns from data, so that it counts which data those were."""
        return hasattr(self.encoder, "fit")

    def fit_encoder(self, x: Tensor) -> QuantumKernelClassifier:
        """Learns what the encoder takes from samples ``(n, ...)``: not those that may have to be forgotten."""
        if self.data_fitted:
            cast(Any, self.encoder).fit(self._tensor(x))
        return self

    @torch.no_grad()
    def solve(self, x: Tensor, y: Tensor, ids: Tensor | None = None) -> QuantumKernelClassifier:
        """Solves for samples ``(n, ...)``, labels ``(n,)`` and ids ``(n,)`` (positions, if none are given)."""
        labels = torch.as_tensor(y, device=self.quantum.weights.device)
        if len(x) != len(labels) or len(x) == 0 or not _within(labels, self.classes):
            raise InputError(
                f"expected as many labels from 0 to {self.classes - 1} as samples, at least one, "
                f"got {len(x)} samples and {len(labels)} labels"
            )
        self.support, self.labels = self._tensor(x).clone(), labels.clone()
        self.ids = torch.arange(len(labels)).to(labels) if ids is None else torch.as_tensor(ids).to(labels)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(self._regularised()))
        self._keep(_symmetric(inverse))
        return self

    @torch.no_grad()
    def remove(self, ids: Tensor) -> float:
        r"""Removes samples from the solution, in place, as if it had been solved without them.

        .. math:: A \leftarrow A_{rr} - A_{rf} A_{ff}^{-1} A_{fr}, \qquad \alpha \leftarrow A T_r

        With n samples of which m go, n^2 m steps. The equations are then checked on the kernel, computed again; where
        earlier removals have left more than rounding, a Newton step A <- A (2 - (K + lambda) A) mends it.

        Args:
            ids: of the samples, each in `ids`; some must stay.

        Returns:
            The largest entry of ``|(K + lambda) alpha - T|``.

        Raises:
            InputError: for ids that are not there, or if nothing would stay.
        """
        gone = torch.isin(self.ids, ids.to(self.ids))
        if int(gone.sum()) != len(ids) or bool(gone.all()):
            raise InputError(
                f"expected ids of support samples, and fewer than all {len(self.ids)}, got {len(ids)} of which "
                f"{int(gone.sum())} are there; pass the samples with the ids that they were trained with"
            )
        inverse = _downdated(self.inverse.double(), gone)
        self.support, self.labels, self.ids = self.support[~gone], self.labels[~gone], self.ids[~gone]
        matrix = self._regularised()
        for _ in range(_REPAIRS):
            if float((matrix @ (inverse @ self._targets()) - self._targets()).abs().max()) <= _CLEAN:
                break
            inverse = _symmetric(2 * inverse - inverse @ matrix @ inverse)
        self._keep(inverse)
        return float((matrix @ self.alpha.double() - self._targets()).abs().max())

    def gram(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Fidelities ``(n, m)`` of samples ``(n, ...)`` with others ``(m, ...)``; with themselves if there are none.

        Computed block by block, so that beside the result no more than a few blocks are held.
        """
        rows = self._blocks(x)
        if other is not None:
            columns = self._blocks(other)
            return torch.cat(
                [torch.cat([_fidelities(a, self._states(b)) for b in columns], 1) for a in self._each(rows)]
            )
        whole = self.quantum.weights.new_empty(len(x), len(x))
        starts = np.cumsum([0, *(len(block) for block in rows)]).tolist()
        for i, states in enumerate(self._each(rows)):
            for j in range(i, len(rows)):
                part = _fidelities(states, states if i == j else self._states(rows[j]))
                whole[starts[i] : starts[i + 1], starts[j] : starts[j + 1]] = part
                whole[starts[j] : starts[j + 1], starts[i] : starts[i + 1]] = part.mT
        return _symmetric(whole)

    def forward(self, x: Tensor | NDArray[Any]) -> Tensor:
        """Samples ``(batch, ...)`` to decision values ``(batch, classes)``."""
        if not len(self.ids):
            raise UnsupportedError("expected a solved kernel classifier, got one without samples; call solve(x, y)")
        # The samples pass the layer and its hooks once; the support's states are not outputs of the model.
        states = self.quantum(self.encoder(self._tensor(x)))
        start, values = 0, states.real.new_zeros(len(states), self.classes)
        for block in self._blocks(self.support):
            values = values + _fidelities(states, self._states(block)) @ self.alpha[start : start + len(block)]
            start += len(block)
        return cast(Tensor, values)

    def unfit(self) -> None:
        """Forgets all samples."""
        self._resize((0,), 0)

    def stage_names(self) -> list[tuple[str, str]]:
        """(name, path of the submodule it starts with) of each stage, in running order; see `stages`."""
        front = [(n, f"encoder.{n}") for n in ("cnn", "to_angles") if hasattr(self.encoder, n)]
        return [*front, ("circuit", "quantum")]

    def config(self) -> dict[str, Any]:
        """All that `from_config` needs to build an equal model, but what was solved and dtype, as JSON values."""
        return {**self._config, "circuit": json.loads(self.circuit.to_json())}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], *, dtype: torch.dtype | None = None, generator: torch.Generator | None = None
    ) -> QuantumKernelClassifier:
        """A freshly initialised model from what `config` gave, with no samples."""
        rest = dict(config)
        circuit = Circuit.from_json(json.dumps(rest.pop("circuit")))
        return cls(circuit, **rest, dtype=dtype, generator=generator)

    def extra_repr(self) -> str:
        """The sizes, for printing."""
        return f"samples={len(self.ids)}, classes={self.classes}, ridge={self.ridge}, targets={self.targets!r}"

    def _tensor(self, x: Tensor | NDArray[Any]) -> Tensor:
        weights = self.quantum.weights
        tensor = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x), device=weights.device)
        return tensor.to(weights.dtype)

    def _blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        size = max(1, min(ROWS, AMPLITUDES >> self.circuit.qubits))
        return torch.split(self._tensor(x), size)

    def _states(self, block: Tensor) -> Tensor:
        return self.quantum.state(self.encoder(block)).flatten(1)

    def _each(self, blocks: tuple[Tensor, ...]) -> Iterator[Tensor]:
        return (self._states(block) for block in blocks)

    def _regularised(self) -> Tensor:
        """K + lambda I of the support, ``(n, n)`` float64."""
        matrix = self.gram(self.support).double()
        matrix.diagonal().add_(self.ridge)
        return matrix

    def _targets(self) -> Tensor:
        """T, ``(n, classes)`` float64."""
        hot = nn.functional.one_hot(self.labels, self.classes).double()
        return 2 * hot - 1 if self.targets == "signs" else hot

    def _keep(self, inverse: Tensor) -> None:
        self.inverse = inverse.to(self.quantum.weights)
        self.alpha = (inverse @ self._targets()).to(self.quantum.weights)

    def _resize(self, sample: tuple[int, ...], rows: int) -> None:
        self.support = self.support.new_zeros(rows, *sample)
        self.labels, self.ids = self.labels.new_zeros(rows), self.ids.new_zeros(rows)
        self.inverse, self.alpha = self.inverse.new_zeros(rows, rows), self.alpha.new_zeros(rows, self.classes)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}support")
        if saved is not None and saved.shape != self.support.shape:
            self._resize(tuple(saved.shape[1:]), len(saved))
        super()._load_from_state_dict(state_dict, prefix, *rest)


_CLEAN = 1e-11  # what rounding leaves of the equations for well-conditioned kernels
_REPAIRS = 3  # Newton steps at most: each squares the error


def _downdated(inverse: Tensor, gone: Tensor) -> Tensor:
    """The inverse of what is left when rows and columns go: a Schur complement, by Cholesky factors of A_ff."""
    factor = torch.linalg.cholesky(inverse[gone][:, gone])
    half = torch.linalg.solve_triangular(factor, inverse[gone][:, ~gone], upper=False)
    return _symmetric(inverse[~gone][:, ~gone] - half.mT @ half)


def _fidelities(a: Tensor, b: Tensor) -> Tensor:
    """|<a|b>|^2 for every pair of states ``(n, d)`` and ``(m, d)``: ``(n, m)``."""
    overlaps = a @ b.mH
    return overlaps.real.square() + overlaps.imag.square()


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


def _within(labels: Tensor, classes: int) -> bool:
    return int(labels.min()) >= 0 and int(labels.max()) < classes


def _check(circuit: Circuit, classes: object, ridge: object, targets: str) -> None:
    if circuit.noisy:
        raise InputError(
            "expected a circuit without noise for a fidelity kernel, got a noisy one; its states are mixed"
        )
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise InputError(f"expected classes to be a whole number of at least 2, got {classes!r}")
    if isinstance(ridge, bool) or not isinstance(ridge, (int, float)) or not 0 < ridge < float("inf"):
        raise InputError(f"expected a ridge above 0, got {ridge!r}")
    if targets not in TARGETS:
        raise UnknownNameError("kind of targets", targets, TARGETS)
