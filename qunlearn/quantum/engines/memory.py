"""A guard: how much memory a circuit's states take, checked before anything is allocated."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from qunlearn.errors import InputError
from qunlearn.quantum.circuit import Circuit

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def check_memory(circuit: Circuit, features: torch.Tensor) -> None:
    """Refuse a batch whose states do not fit: batch * 2**qubits * bytes of a complex number, three times.

    Three, because a step reads one state, writes another, and keeps one for the gradient at the least. The
    compiled program holds one real number for each basis state and angle of a two-wire gate besides.

    Raises:
        InputError: with what it would take and what there is.
    """
    if circuit.qubits <= 12 and features.numel() < 2**12:
        return  # at most some hundred MB; not worth asking the system on every call
    batch = max(1, math.prod(features.shape[:-1]))
    number = 16 if features.dtype == torch.float64 else 8
    angles = sum(gate.angle is not None and len(gate.wires) > 1 for gate in circuit.gates)
    needed = (3 * batch * number + 8 * angles) * 2**circuit.qubits
    there = available_bytes(features.device)
    if needed > there:
        raise InputError(
            f"expected states that fit into {there / 2**30:.1f} GiB of memory, got {circuit.qubits} qubits and a batch "
            f"of {batch}: three times {batch} * 2**{circuit.qubits} * {number} bytes and the program make "
            f"{_gibibytes(needed)} GiB; use fewer qubits or smaller batches"
        )


def _gibibytes(needed: int) -> str:
    return f"{needed / 2**30:.4g}" if needed.bit_length() < 1000 else f"2**{needed.bit_length() - 31}"


def available_bytes(device: torch.device) -> int:
    """The memory of a device in bytes: of this machine (or its control group), or what a GPU has free."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(_CGROUP_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return total
