"""What is there to use: methods, circuits, data sets, metrics, engines, backends, audits; and what is installed."""

from __future__ import annotations

import dataclasses
import inspect
import os
import platform
from collections.abc import Callable
from typing import Any, get_args

from qunlearn.errors import UnknownNameError
from qunlearn.versions import versions_of

Rows = list[dict[str, Any]]
_PACKAGES = (
    "qunlearn", "torch", "numpy", "scipy", "pennylane", "qiskit", "numba", "scikit-learn", "pandas", "pyarrow",
    "matplotlib", "pydantic", "typer", "rich", "safetensors", "qiskit-aer", "qiskit-ibm-runtime",
)  # fmt: skip


def listing(kind: str) -> Rows:
    """Rows, each with "name", of all that there is of a kind.

    Raises:
        UnknownNameError: for another kind than methods, circuits, datasets, metrics, engines, backends or audits.
    """
    if kind not in KINDS:
        raise UnknownNameError("list", kind, KINDS)
    return KINDS[kind]()


def _methods() -> Rows:
    from qunlearn import methods
    from qunlearn.methods.base import Strategy
    from qunlearn.methods.search import in_words, searched

    rows = []
    groups = get_args(Strategy)
    for name, cls in sorted(methods.available().items(), key=lambda item: groups.index(item[1].strategy)):
        fields = {item.name: item.default for item in dataclasses.fields(cls)}
        needs = sorted(cls.needs)
        row = {"name": name, "about": _summary(cls), "needs": needs, "hyper-parameters": fields}
        row |= {"certifies": cls.certifies or "", "trains": "its own originals" if cls.trains else ""}
        row["quantum strategy"] = cls.strategy
        rows.append({**row, "search": {item.name: in_words(item) for item in searched(cls)}})
    return rows


def _circuits() -> Rows:
    from qunlearn.quantum.card import available_cards

    return [
        {"name": name, "about": card.title, "knobs": list(card.knobs), "source": card.source}
        for name, card in available_cards().items()
    ]


def _datasets() -> Rows:
    from qunlearn.data import available_datasets

    return [{"name": name, "about": about} for name, about in available_datasets().items()]


def _metrics() -> Rows:
    from qunlearn.metrics.registry import METRICS

    better = {True: "higher", False: "lower", None: "nearer to the retrained models"}
    return [
        {"name": name, "about": metric.doc, "unit": metric.unit, "better": better[metric.higher_is_better]}
        for name, metric in METRICS.items()
    ]


def _engines() -> Rows:
    from qunlearn.quantum.engines import ENGINES

    rows = [{"name": name, "about": _summary(engine)} for name, engine in ENGINES.items()]
    return [*rows, {"name": "trajectories", "about": "Noisy circuits on many qubits, by averaging runs with errors."}]


def _backends() -> Rows:
    from qunlearn.quantum.backends import available_backends

    return [{"name": name, "about": about} for name, about in available_backends().items()]


def _audits() -> Rows:
    from qunlearn.evaluation.audit import AUDITS

    return [
        {"name": name, "about": family.doc, "cost": family.cost, "needs": sorted(family.needs)}
        for name, family in AUDITS.items()
    ]


KINDS: dict[str, Callable[[], Rows]] = {
    "methods": _methods,
    "circuits": _circuits,
    "datasets": _datasets,
    "metrics": _metrics,
    "engines": _engines,
    "backends": _backends,
    "audits": _audits,
}


def about() -> dict[str, Any]:
    """Versions, devices and threads: what a bug report needs."""
    import torch

    devices = ["cpu", *(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count()))]
    return {
        "versions": versions_of(_PACKAGES),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "devices": devices,
        "threads": torch.get_num_threads(),
    }


def _summary(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]
