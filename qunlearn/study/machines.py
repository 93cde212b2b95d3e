"""Which types of machines computed a study: on one type results are equal to the last bit, on several nearly so."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from qunlearn.errors import CorruptFileError
from qunlearn.files import write_bytes
from qunlearn.study.store import read_json
from qunlearn.study.task import canonical, json_text
from qunlearn.versions import versions_of

#: How far results of one study lie apart on machines of several types.
CLOSE = 1e-5
_BEAR = ("torch", "numpy", "scipy", "numba", "scikit-learn", "pennylane")


def this_machine() -> dict[str, Any]:
    """The type of this machine: processor, system, and the versions of what computes."""
    return {"cpu": _cpu(), "system": f"{platform.system()} {platform.machine()}", "versions": versions_of(_BEAR)}


def note_machines(root: Path, found: Iterable[dict[str, Any]]) -> None:
    """Add the types of the machines at work to those that have computed something of the study, in ``machines.json``.

    Args:
        root: the results folder.
        found: one a worker.
    """
    now, types = Counter(map(canonical, found)), {canonical(_type(one)): one for one in machines_of(root)}
    for one in found:
        workers = max(now[canonical(one)], types.get(canonical(one), {}).get("workers", 0))
        types[canonical(one)] = {**one, "workers": workers}
    write_bytes(root / "machines.json", json_text({"types": list(types.values())}).encode())


def machines_of(root: Path) -> list[dict[str, Any]]:
    """The types of machines noted of a study, each with the most ``workers`` of a run; none where none are noted."""
    with suppress(CorruptFileError, KeyError):
        return list(read_json(root / "machines.json")["types"])
    return []


def mixture(root: Path) -> str:
    """A sentence where machines of several types computed the study; empty where one type did all."""
    types = machines_of(root)
    if len(types) < 2:
        return ""
    told = "; ".join(f"{one['cpu']}, {_differing(one, types)}".rstrip(", ") for one in types)
    return (
        f"Machines of {len(types)} types computed this study ({told}): "
        f"its figures are repeated within {CLOSE:g}, not to the last bit."
    )


def _type(one: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key != "workers"}


def _differing(one: dict[str, Any], types: list[dict[str, Any]]) -> str:
    versions = one["versions"]
    return ", ".join(f"{name} {versions[name]}" for name in versions if len({t["versions"][name] for t in types}) > 1)


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
