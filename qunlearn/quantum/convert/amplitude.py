"""Amplitude encoding as a tree of rotations, for whoever has no state preparation with parameters.

A real state is prepared by uniformly controlled RY rotations, one for each wire from the first to the last
(Möttönen, Vartiainen, Bergholm & Salomaa 2004, quant-ph/0407010). With k controls a rotation becomes 2**k pairs
of RY and CX, and its 2**k angles are a Walsh transform, in Gray-code order, of the angles of the tree's nodes.
"""

from __future__ import annotations

import dataclasses

import torch

from qunlearn.errors import InputError, UnsupportedError
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate


def rotation_tree(circuit: Circuit) -> Circuit:
    """The same circuit from |0...0>: RY and CX first, whose ``2**qubits - 1`` angles are the features.

    Feature i of the new circuit is column i of `tree_angles`. A circuit without amplitude encoding is
    returned as it is. Source: Möttönen et al. 2004, quant-ph/0407010.

    Raises:
        UnsupportedError: if a gate of the circuit takes features too.
    """
    if not circuit.amplitude:
        return circuit
    for number, gate in enumerate(circuit.gates):
        if gate.angle is not None and gate.angle.factors:
            raise UnsupportedError(
                f"expected features in the amplitudes only, got gate {number} ({gate}) with features in its angle; "
                "a rotation tree holds angles in their place, so take amplitude encoding without re-uploading"
            )
    tree = tuple(gate for wire in range(circuit.qubits) for gate in _uniformly_controlled(wire))
    channels = tuple(dataclasses.replace(struck, after=struck.after + len(tree)) for struck in circuit.channels)
    return dataclasses.replace(
        circuit, gates=tree + circuit.gates, features=2**circuit.qubits - 1, amplitude=False, channels=channels
    )


def _uniformly_controlled(wire: int) -> list[Gate]:
    """RY on `wire`, controlled by all wires before it; its features start at 2**wire - 1."""
    gates = []
    for step in range(2**wire):
        feature = 2**wire - 1 + step
        gates.append(Gate("ry", (wire,), Angle(factors=(Factor(feature),))))
        if wire:
            changed = min(_trailing_zeros(step + 1), wire - 1)  # the last step returns to Gray code 0
            gates.append(Gate("cx", (wire - 1 - changed, wire)))
    return gates


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def tree_angles(circuit: Circuit, features: torch.Tensor) -> torch.Tensor:
    """The features of `rotation_tree`, in radians, for samples of an amplitude-encoded circuit.

    Args:
        circuit: a circuit with amplitude encoding.
        features: ``(batch, features)`` or ``(features,)``, real; zero-padded and normalised.

    Returns:
        ``(batch, 2**qubits - 1)``, or without the batch axis, float64.

    Raises:
        InputError: for another width, or a sample that is zero or not finite.
    """
    values = amplitudes(circuit, features)
    levels = [_node_angles(values.reshape(*values.shape[:-1], 2**wire, -1)) for wire in range(circuit.qubits)]
    return torch.cat([_walsh(level) for level in levels], dim=-1)


def amplitudes(circuit: Circuit, features: torch.Tensor) -> torch.Tensor:
    """Zero-padded, normalised features ``(..., 2**qubits)``, float64; the first wire is the most significant bit."""
    values = torch.as_tensor(features).to(torch.float64)
    if not circuit.amplitude or values.ndim not in (1, 2) or values.shape[-1] != circuit.features:
        expected = f"(batch, {circuit.features})" if circuit.amplitude else "a circuit with amplitude encoding"
        raise InputError(f"expected features of shape {expected}, got {tuple(values.shape)}")
    largest = values.abs().amax(dim=-1, keepdim=True)
    if not bool(((largest > 0) & largest.isfinite()).all()):
        raise InputError(
            "expected samples with a non-zero, finite entry for amplitude encoding, got one that is zero or not "
            "finite; leave such samples out or add a constant feature"
        )
    values = values / largest  # so that tiny samples don't underflow when squared
    values = values / values.norm(dim=-1, keepdim=True)
    return torch.nn.functional.pad(values, (0, 2**circuit.qubits - circuit.features))


def _node_angles(blocks: torch.Tensor) -> torch.Tensor:
    """Angles ``(..., nodes)`` that split each block ``(..., nodes, size)`` into halves; leaves keep their signs."""
    if blocks.shape[-1] == 2:
        low, high = blocks.unbind(-1)
    else:
        low, high = blocks.reshape(*blocks.shape[:-1], 2, -1).norm(dim=-1).unbind(-1)
    return 2 * torch.atan2(high, low)


def _walsh(angles: torch.Tensor) -> torch.Tensor:
    """theta_i = 2**-k sum_j (-1)**(j . gray(i)) alpha_j over the last axis of length 2**k."""
    index = torch.arange(angles.shape[-1])
    common = index[:, None] & (index ^ (index >> 1))[None, :]  # row j, column i
    parity = torch.zeros_like(common)
    while bool(common.any()):
        parity ^= common & 1
        common = common >> 1
    return angles @ (1.0 - 2.0 * parity).to(angles.dtype) / angles.shape[-1]
