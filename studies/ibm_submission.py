"""Take the models of a study to an IBM machine, and set what comes back beside the simulation.

Edit the two lines below and run it: `python studies/ibm_submission.py`. The first run shows what it would cost and, for
a real machine, stops there; `--submit` sends the jobs. Run it again whenever you like, also after an interruption or on
another computer that has the folder: it goes on where it stopped, and no job is sent twice. A real machine needs an
account, saved once with Qiskit or set in the environment (docs/hardware.md); the fake ones run here.
"""

import argparse
from pathlib import Path

import qunlearn as qu

STUDY = "runs/quickstart"  # the results folder of `qunlearn run`
BACKEND = "fake_torino"  # or a machine of your account, such as "ibm_torino"

SAMPLES, SHOTS, LIMIT_SECONDS = 40, 1000, 600
MITIGATION = qu.hardware.Mitigation(readout=True)


def main() -> None:
    """Plan, submit, collect and compare, as far as each can go now."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--submit", action="store_true", help="send the jobs to a real machine, too")
    sends = parser.parse_args().submit or BACKEND.startswith("fake_")
    study, folder = qu.load_study(STUDY), Path(STUDY) / "hardware" / BACKEND
    if not (folder / "plan.json").is_file():
        bundle = study.bundle(samples=SAMPLES)
        plan = qu.hardware.plan(
            bundle, folder, backend=BACKEND, shots=SHOTS, mitigation=MITIGATION, limit_seconds=LIMIT_SECONDS
        )
        print(plan)
    if not sends:
        print("Nothing was sent. To send the jobs, run this again with --submit.")
        return
    qu.hardware.submit(folder)
    collected = qu.hardware.collect(folder)
    print(collected.status)
    if collected.complete:
        print(f"Comparison: {study.compare(collected)}")


if __name__ == "__main__":
    main()
