"""What a circuit is and how it runs on this machine. PennyLane and Qiskit are imported only by converters."""

from __future__ import annotations

from qunlearn.quantum.card import Card, available_cards, find_card, load_circuit, register_folder
from qunlearn.quantum.circuit import Angle, Channel, Circuit, Factor, Gate
from qunlearn.quantum.encoding import Encoding
from qunlearn.quantum.engines import ENGINES, expectations, state
from qunlearn.quantum.entanglement import PATTERNS, pairs
from qunlearn.quantum.gates import GATES, GateSpec, gate
from qunlearn.quantum.layer import QuantumLayer, weight_periods
from qunlearn.quantum.liveness import dead_weights, live_gates
from qunlearn.quantum.noise import CHANNELS, NoiseModel, Strike
from qunlearn.quantum.states import concurrence, fidelity, meyer_wallach, purity, reduced_state

__all__ = [
    "CHANNELS",
    "ENGINES",
    "GATES",
    "PATTERNS",
    "Angle",
    "Card",
    "Channel",
    "Circuit",
    "Encoding",
    "Factor",
    "Gate",
    "GateSpec",
    "NoiseModel",
    "QuantumLayer",
    "Strike",
    "available_cards",
    "concurrence",
    "dead_weights",
    "expectations",
    "fidelity",
    "find_card",
    "gate",
    "live_gates",
    "load_circuit",
    "meyer_wallach",
    "pairs",
    "purity",
    "reduced_state",
    "register_folder",
    "state",
    "weight_periods",
]
