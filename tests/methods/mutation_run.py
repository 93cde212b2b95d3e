"""Breaks every method in turn and runs the tests of behaviour: each break must turn them red.

python tests/methods/mutation_run.py [METHOD ...]

Two breaks run at a time; the tests that name the method come first, since one red test settles it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
# What holds of every method alike cannot tell a broken one.
COMMON = ("test_contract.py", "test_search.py", "test_together.py")
SUITE = tuple(str(p.relative_to(ROOT)) for p in sorted(Path(__file__).parent.glob("test_*.py")) if p.name not in COMMON)
GREEN, RED, NOTHING_SELECTED = 0, 1, 5  # exit codes of pytest


def survives(name: str, kind: str) -> bool:
    """Whether the tests stay green although the method is broken."""
    named = ("-k", f"{name} or {name.replace('-', '_')}")
    return all(_run(name, kind, *selection) != RED for selection in (named, ()))


def _run(name: str, kind: str, *selection: str) -> int:
    """pytest's exit code with the method broken; with no name and kind, as it is."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow"]
    command += [*selection, *SUITE]
    environment = {**os.environ, "QUNLEARN_MUTATION": f"{name}:{kind}" if name else ""}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if run.returncode not in (GREEN, RED, NOTHING_SELECTED):
        raise SystemExit(f"expected pytest to run for {name} {kind}, got exit code {run.returncode}:\n{run.stdout}")
    return run.returncode


def main() -> int:
    """Runs all breaks; the exit code is the number that went unnoticed."""
    from tests.methods.mutations import pairs

    chosen = [pair for pair in pairs() if not sys.argv[1:] or pair[0] in sys.argv[1:]]
    if _run("", "") != GREEN:
        raise SystemExit("expected the tests to be green without a break, got red ones; mend them first")
    alive = 0
    with ThreadPoolExecutor(2) as pool:
        for (name, kind), survived in zip(chosen, pool.map(lambda pair: survives(*pair), chosen), strict=True):
            alive += survived
            print(f"{name:20} {kind:10} {'NOT NOTICED' if survived else 'noticed'}", flush=True)
    print(f"{alive} of {len(chosen)} not noticed")
    return alive


if __name__ == "__main__":
    raise SystemExit(main())
