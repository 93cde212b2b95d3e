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
    from qunlearn.data import Dataset, ForgetRequest, Split, load_dataset
    from qunlearn.errors import QunlearnError
    from qunlearn.evaluation.evaluate import evaluate
    from qunlearn.methods import unlearn
    from qunlearn.models import HybridClassifier, load_model, reinitialise, save_model, stages
    from qunlearn.quantum import Circuit, QuantumLayer, load_circuit
    from qunlearn.study import load_study
    from qunlearn.training import Recipe, retrain, train

_ROOMS = {
    "data": ("Dataset", "ForgetRequest", "Split", "load_dataset"),
    "errors": ("QunlearnError",),
    "evaluation": ("evaluate",),
    "methods": ("unlearn",),
    "models": ("HybridClassifier", "load_model", "reinitialise", "save_model", "stages"),
    "quantum": ("Circuit", "QuantumLayer", "load_circuit"),
    "study": ("load_study",),
    "training": ("Recipe", "retrain", "train"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Circuit",
    "Dataset",
    "ForgetRequest",
    "HybridClassifier",
    "QuantumLayer",
    "QunlearnError",
    "Recipe",
    "Split",
    "evaluate",
    "hardware",
    "load_circuit",
    "load_dataset",
    "load_model",
    "load_study",
    "methods",
    "reinitialise",
    "retrain",
    "save_model",
    "stages",
    "train",
    "unlearn",
]


def __getattr__(name: str) -> Any:
    """Loads a room of the package when something of it is first asked for, so that importing stays quick."""
    if name in ("hardware", "methods"):
        return importlib.import_module(f"qunlearn.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'qunlearn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"qunlearn.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
