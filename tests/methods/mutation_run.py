"""Breaks every method in turn and runs the tests of behaviour: each break must turn them red.

python tests/methods/mutation_run.py [METHOD ...]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
SUITE = ("tests/methods/test_behaviour.py", "tests/methods/test_published_steps.py")


def survives(name: str, kind: str) -> bool:
    """Whether the tests stay green although the method is broken."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *SUITE]
    environment = {**os.environ, "QUNLEARN_MUTATION": f"{name}:{kind}"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if run.returncode not in (0, 1):
        raise SystemExit(f"expected pytest to run for {name} {kind}, got exit code {run.returncode}:\n{run.stdout}")
    return run.returncode == 0


def main() -> int:
    """Runs all breaks; the exit code is the number that went unnoticed."""
    from tests.methods.mutations import pairs

    wanted, alive = sys.argv[1:], 0
    for name, kind in pairs():
        if wanted and name not in wanted:
            continue
        survived = survives(name, kind)
        alive += survived
        print(f"{name:20} {kind:10} {'NOT NOTICED' if survived else 'noticed'}", flush=True)
    print(f"{alive} not noticed")
    return alive


if __name__ == "__main__":
    raise SystemExit(main())
