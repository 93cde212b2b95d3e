"""Make hybrid quantum-classical models forget chosen training data, and measure how well they forgot.

>>> import qunlearn as qu
>>> circuit = qu.load_circuit("ring-cz", qubits=4, depth=2)
>>> circuit.weights
24
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from qunlearn import hardware, methods
    from qunlearn.data import Corruption, Dataset, ForgetRequest, Split, load_dataset
    from qunlearn.errors import QunlearnError
    from qunlearn.evaluation.audit import audit
    from qunlearn.evaluation.evaluate import evaluate
    from qunlearn.methods import unlearn
    from qunlearn.methods.shadows import make_shadows
    from qunlearn.models import HybridClassifier, load_model, reinitialise, save_model, stages
    from qunlearn.models.execution import with_backend
    from qunlearn.quantum import Circuit, QuantumLayer, backends, load_circuit
    from qunlearn.quantum.noise import NoiseModel
    from qunlearn.study import load_study
    from qunlearn.training import Recipe, retrain, train

_ROOMS = {
    "data": ("Corruption", "Dataset", "ForgetRequest", "Split", "load_dataset"),
    "errors": ("QunlearnError",),
    "evaluation.audit": ("audit",),
    "evaluation": ("evaluate",),
    "methods.shadows": ("make_shadows",),
    "methods": ("unlearn",),
    "models.execution": ("with_backend",),
    "models": ("HybridClassifier", "load_model", "reinitialise", "save_model", "stages"),
    "quantum.noise": ("NoiseModel",),
    "quantum": ("Circuit", "QuantumLayer", "load_circuit"),
    "study": ("load_study",),
    "training": ("Recipe", "retrain", "train"),
}
_WHOLE = {"backends": "quantum.backends", "hardware": "hardware", "methods": "methods"}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Circuit",
    "Corruption",
    "Dataset",
    "ForgetRequest",
    "HybridClassifier",
    "NoiseModel",
    "QuantumLayer",
    "QunlearnError",
    "Recipe",
    "Split",
    "audit",
    "backends",
    "evaluate",
    "hardware",
    "load_circuit",
    "load_dataset",
    "load_model",
    "load_study",
    "make_shadows",
    "methods",
    "reinitialise",
    "retrain",
    "save_model",
    "stages",
    "train",
    "unlearn",
    "with_backend",
]


def __getattr__(name: str) -> Any:
    """Loads a room of the package when something of it is first asked for, so that importing stays quick."""
    if name in _WHOLE:
        return importlib.import_module(f"qunlearn.{_WHOLE[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'qunlearn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"qunlearn.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
