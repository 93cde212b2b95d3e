"""Backends run circuits elsewhere: PennyLane devices, Qiskit simulators, IBM machines."""

from __future__ import annotations

from qunlearn.quantum.backends.base import Backend, Spent
from qunlearn.quantum.backends.opened import Opened, open_circuit

__all__ = ["Backend", "Opened", "Spent", "open_circuit"]
