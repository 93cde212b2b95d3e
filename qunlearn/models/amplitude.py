"""Models whose inputs are a circuit's amplitudes: nothing in front of the circuit is fitted or trained."""

from __future__ import annotations

import math
from typing import Any

from qunlearn.errors import InputError
from qunlearn.models.hybrid import HybridClassifier
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Circuit


def amplitude_circuit(circuit: Circuit, scalars: int) -> Circuit:
    """The circuit of the same card, depth, pattern and rotations that takes samples as amplitudes.

    Args:
        circuit: made from a card that takes the knob ``encoding``.
        scalars: how many numbers a sample has; the circuit gets ``max(1, ceil(log2(scalars)))`` qubits.

    Raises:
        InputError: for a circuit that no card made, and where the card refuses amplitude encoding.
    """
    if not circuit.card:
        raise InputError(
            "expected a circuit made from a card to encode amplitudes in, got one without; use load_circuit, or make "
            "the amplitude-encoded circuit yourself"
        )
    kept: dict[str, Any] = {k: v for k, v in circuit.settings if k in ("entanglement", "rotations")}
    qubits = max(1, math.ceil(math.log2(scalars)))
    return load_circuit(
        circuit.card, qubits=qubits, depth=circuit.depth, encoding="amplitude", features=scalars, **kept
    )


def amplitude_model(model: HybridClassifier, inputs: tuple[int, ...]) -> HybridClassifier:
    """A freshly drawn model with the amplitude-encoded circuit of `model`'s card, no encoder and a linear head.

    The flattened samples, padded with zeros and normalised, are the amplitudes; a sample of zeros alone has no such
    state and is refused by the circuit. Draws come from torch's global generator; see `reinitialise`.

    Args:
        model: whose card, depth, classes, engine, control and dtype are taken.
        inputs: shape of one sample.
    """
    config, dtype = model.config(), next(model.parameters()).dtype
    circuit = amplitude_circuit(model.circuit, math.prod(inputs))
    made = HybridClassifier(
        circuit,
        model.classes,
        "none",
        "linear",
        inputs=inputs,
        control=config["control"],
        engine=config["engine"],
        dtype=dtype,
    )
    return made.to(next(model.parameters()).device)
