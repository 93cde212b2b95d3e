"""Exact removal from a quantum-kernel classifier, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from qunlearn.data import Dataset
from qunlearn.errors import InputError
from qunlearn.methods.base import Method
from qunlearn.methods.certificate import Guarantee, Kind
from qunlearn.methods.hyper import hyper
from qunlearn.methods.registry import register
from qunlearn.methods.task import Task, Work
from qunlearn.models import HybridClassifier, QuantumKernelClassifier
from qunlearn.quantum.circuit import Circuit
from qunlearn.training.counting import Counts
from qunlearn.training.loop import Progress
from qunlearn.training.recipe import Recipe, recipe_of
from qunlearn.training.trace import Trace, check_trained

_FITTED = (
    "expected an embedding that takes nothing from the training data, got the encoder {encoder}, which is fitted to "
    "them, so that removing samples from the solution would not remove them from the encoder; give kernel-downdate "
    "embedding='validation' (the encoder is fitted to the validation set) or embedding='amplitude' (no encoder), or "
    "take a model with encoder='none'"
)


@register
@dataclass(frozen=True, kw_only=True)
class KernelDowndate(Method):
    r"""Removes samples from a quantum-kernel ridge classifier by a Schur complement: what solving anew would give.

    .. math:: A \leftarrow A_{rr} - A_{rf} A_{ff}^{-1} A_{fr}, \qquad \alpha \leftarrow A\, T_r, \qquad
              A = (K + \lambda I)^{-1}

    `train` makes a `QuantumKernelClassifier` of the encoder and the circuit of a freshly initialised model, as they
    are drawn: neither is trained, hence the solution is all that the model knows of its data. With
    ``embedding="validation"`` an encoder that is fitted to data, such as principal components, is fitted to the
    validation set, of which nothing is ever asked to be forgotten. With ``embedding="amplitude"`` the samples,
    flattened and normalised, are the amplitudes of a state: no layer after that changes an overlap, so there is none.
    Of the recipe nothing is used.

    Equal to solving anew up to rounding: the equations are checked after every removal, and mended if need be.

    Source: block inversion, as for least-squares machines in Cauwenberghs and Poggio 2001; for kernels of circuits it
        is our derivation.
    """

    name: ClassVar[str] = "kernel-downdate"
    trains: ClassVar[bool] = True
    reshapes: ClassVar[bool] = True
    certifies: ClassVar[Kind | None] = "exact"
    ridge: float = hyper(0.01, "lambda, added to the diagonal of the kernel matrix", low=1e-6, search=(1e-4, 1.0))
    targets: Literal["signs", "one-hot"] = hyper("signs", "of one class against the rest", choices=("signs", "one-hot"))
    embedding: Literal["model", "validation", "amplitude"] = hyper(
        "model", "where states come from", choices=("model", "validation", "amplitude")
    )

    def check_model(self, model: nn.Module, data: Dataset) -> None:
        """Refuses models without a circuit, and encoders that would be fitted to what may have to be forgotten."""
        if not isinstance(model, (HybridClassifier, QuantumKernelClassifier)):
            raise InputError(f"expected a HybridClassifier for {self.name}, got {type(model).__name__}")
        if self.embedding != "amplitude" and self._unsolved(model).data_fitted and self.embedding == "model":
            raise InputError(_FITTED.format(encoder=type(model.encoder).__name__))

    def train(
        self,
        model: nn.Module,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> QuantumKernelClassifier:
        """The kernel classifier of a fresh model's embedding, solved for the data; nothing in it is random.

        Raises:
            InputError: for an embedding that depends on the data, or, where the validation set is to fit it, for one
                that is missing or shares samples with the data.
        """
        self.check_model(model, data)
        made = self._amplitudes(model, data) if self.embedding == "amplitude" else self._unsolved(model)
        if made.data_fitted and self.embedding == "validation":
            made.fit_encoder(_apart(validation, data).x)
        made.solve(data.x, data.y, data.ids)
        made.recipe = recipe or recipe_of(model)
        made.trace = Trace(self.name, self.hyperparameters(), facts={"samples": len(data), "seed": seed})  # type: ignore[assignment]
        made.training_counts = _cost(len(data))  # type: ignore[assignment]
        return made.eval()

    def run(self, model: nn.Module, task: Task, work: Work) -> nn.Module:
        """Drops the forget set's rows from every buffer."""
        if not isinstance(model, QuantumKernelClassifier):
            raise InputError(
                f"expected a kernel classifier for {self.name}, got {type(model).__name__}; train the original by "
                "methods.get('kernel-downdate').train(model, data)"
            )
        check_trained(model.ids, task.forget, task.retain)
        residual = model.remove(task.forget.ids)
        work.counts.add(_cost(len(model.ids)))
        work.guarantee = Guarantee(
            "exact",
            assumptions=_ASSUMPTIONS,
            covers=("support", "labels", "ids", "inverse", "alpha"),
            excludes=("Exact up to the rounding of double precision; the residual of the equations says how far.",),
            details={"residual": residual, "samples": len(model.ids), "ridge": model.ridge},
        )
        return model

    def _settings(self) -> dict[str, Any]:
        return {"ridge": self.ridge, "targets": self.targets}

    def _unsolved(self, model: Any) -> QuantumKernelClassifier:
        """The model's embedding, with no samples."""
        if isinstance(model, HybridClassifier):
            return QuantumKernelClassifier.embedding_of(model, **self._settings())
        made = QuantumKernelClassifier.from_config({**model.config(), **self._settings()})
        for name in ("encoder", "quantum"):
            getattr(made, name).load_state_dict(getattr(model, name).state_dict())
        return made

    def _amplitudes(self, model: Any, data: Dataset) -> QuantumKernelClassifier:
        """A kernel of the samples as amplitudes, zero-padded to a power of two."""
        features = data.x[0].numel()
        qubits = max(1, (features - 1).bit_length())
        circuit = Circuit(qubits, (), ("Z" + "I" * (qubits - 1),), features, 0, amplitude=True)
        with torch.random.fork_rng(devices=[]):
            made = QuantumKernelClassifier(circuit, model.classes, **self._settings())
        return made.to(data.x.device)


_ASSUMPTIONS = (
    "The embedding (encoder and circuit weights) was drawn or fitted without the training data.",
    "Lambda and all other settings were not tuned on the training data.",
    "The kernel is computed, not estimated from shots.",
)


def _cost(samples: int) -> Counts:
    """A kernel matrix: a state a sample here, and on a quantum computer a circuit for every overlap."""
    return Counts(circuit_evaluations=samples, hardware_circuits=samples * (samples - 1) // 2)


def _apart(validation: Dataset | None, data: Dataset) -> Dataset:
    """The validation set, if it can fit an encoder that forgets nothing."""
    if validation is None:
        raise InputError("expected a validation set for embedding='validation', got none; pass validation=")
    common = torch.isin(validation.ids, data.ids)
    if bool(common.any()):
        raise InputError(
            f"expected a validation set apart from the training set for embedding='validation', got "
            f"{int(common.sum())} ids in both; take the sound protocol, or embedding='amplitude'"
        )
    return validation
