"""To and from PennyLane, Qiskit and OpenQASM 3.

Every ``from_`` works the same way: the foreign circuit is run through with numbers in the place of its
parameters, and `tracing` finds from a few such runs how every angle depends on them.
"""

from qunlearn.quantum.convert.amplitude import rotation_tree, tree_angles
from qunlearn.quantum.convert.openqasm import from_openqasm3, to_openqasm3
from qunlearn.quantum.convert.with_pennylane import from_pennylane, to_pennylane
from qunlearn.quantum.convert.with_qiskit import (
    from_qiskit,
    qiskit_label,
    qiskit_observables,
    qiskit_readout,
    to_qiskit,
)

__all__ = [
    "from_openqasm3",
    "from_pennylane",
    "from_qiskit",
    "qiskit_label",
    "qiskit_observables",
    "qiskit_readout",
    "rotation_tree",
    "to_openqasm3",
    "to_pennylane",
    "to_qiskit",
    "tree_angles",
]
