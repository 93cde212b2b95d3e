"""A device's calibration as it was when jobs were planned: kept as JSON, and made a device again."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from qunlearn.quantum.backends.device import cut_device

if TYPE_CHECKING:
    from qiskit.providers import BackendV2


def snapshot(device: Any) -> dict[str, Any]:
    """The device's own figures as they are today: error and duration of every instruction, of every qubit its times."""
    target = device.target
    gates: dict[str, dict[str, list[float | None]]] = {}
    for name in sorted(target.operation_names):
        rows = {places: facts for places, facts in (target[name] or {}).items() if places is not None and facts}
        gates[name] = {
            " ".join(map(str, places)): [_finite(facts.error), _finite(facts.duration)]
            for places, facts in sorted(rows.items())
        }
    qubits = [
        {name: _finite(getattr(facts, name, None)) for name in ("t1", "t2", "frequency")} if facts else {}
        for facts in target.qubit_properties or []
    ]
    version = getattr(device, "backend_version", None)
    about = {"device": device.name, "qubits": device.num_qubits, "dt": target.dt}
    about["version"] = None if version is None else str(version)
    return {**about, "calibrated": _calibrated(device), "error_and_duration": gates, "qubit_properties": qubits}


def _calibrated(device: Any) -> str | None:
    """When the device was calibrated, as it says itself."""
    try:
        return str(device.properties().last_update_date)
    except Exception:  # not every device knows
        return None


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def rebuilt(kept: Mapping[str, Any]) -> BackendV2:
    """A device with the calibration of a `snapshot`: to transpile for, and to take noise from; it runs nothing.

    Instructions that are not in Qiskit's table of standard gates are left out.
    """
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.providers import QubitProperties
    from qiskit.transpiler import InstructionProperties, Target

    known = get_standard_gate_name_mapping()
    qubits = [QubitProperties(**facts) for facts in kept["qubit_properties"]]
    target = Target(num_qubits=kept["qubits"], dt=kept["dt"], qubit_properties=qubits or None)
    for name, rows in kept["error_and_duration"].items():
        facts = {
            tuple(map(int, places.split())): InstructionProperties(error=error, duration=duration)
            for places, (error, duration) in rows.items()
        }
        if name in known and facts:
            target.add_instruction(known[name], facts, name=name)
    whole = SimpleNamespace(name=kept["device"], num_qubits=kept["qubits"], target=target)
    return cut_device(whole, range(kept["qubits"]))
