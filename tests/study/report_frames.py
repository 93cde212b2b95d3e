"""Records, audits and histories of studies that were never run, of any size, for the tests of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from qunlearn.study.report.material import Material

FEW = ("fine-tune", "gradient-ascent", "scrub", "head-only")
MANY = (
    "fine-tune", "noisy-fine-tune", "l1-sparse", "gradient-ascent", "neggrad-plus", "fisher-penalty", "npo", "scrub",
    "random-label", "lca", "adaprob", "adv-uniform", "q-mul", "bad-teacher", "salun", "boundary-shrink",
    "boundary-expand", "unsir", "rmu", "cf-k", "eu-k", "fisher-forgetting", "ssd", "jit", "influence", "amnesiac",
    "sisa", "kernel-downdate", "certified-removal", "certified-newton", "langevin", "head-only", "my-own",
    "fine-tune, long", "scrub, rewind", "salun, half",
)  # fmt: skip
# audit: unit, the retrained models' middle, their half range, the original's value
AUDITS = {
    "membership_loss_auc": ("share", 0.505, 0.02, 0.58), "membership_trained_auc": ("share", 0.51, 0.025, 0.63),
    "u_lira_auc": ("share", 0.52, 0.02, 0.71), "u_lira_tpr_1pct": ("share", 0.011, 0.004, 0.04),
    "forgetting_quality": ("score", 0.8, 0.05, 0.05), "relearn_steps": ("steps", 40.0, 12.0, 0.0),
    "probe_linear_circuit": ("share", 0.75, 0.04, 0.89), "probe_rbf_circuit": ("share", 0.86, 0.05, 0.93),
    "probe_linear_states": ("share", 0.80, 0.04, 0.92), "probe_rbf_states": ("share", 0.90, 0.03, 0.97),
    "idi": ("score", 0.0, 0.08, 1.0), "streisand_auc": ("share", 0.51, 0.03, 0.55),
}  # fmt: skip
_KEYS: dict[str, Any] = {"study": "made", "protocol": "sound", "dataset": "digits", "circuit": "ring-cz", "qubits": 6,
         "depth": 2, "entanglement": "ring", "encoder": "pca", "head": "shallow"}  # fmt: skip


def trials(
    methods: Sequence[str], requests: Sequence[str], settings: Sequence[dict[str, Any]], splits: int, seeds: int
) -> pd.DataFrame:
    """One row a trial: the original, five retrained models, and each method; distances grow along the methods."""
    generator = np.random.default_rng(1)
    rows = []
    for setting in settings:
        for request in requests:
            for split in range(splits):
                for place, method in enumerate(("none", "retrain", *methods)):
                    for seed in range(1000, 1005) if method == "retrain" else range(seeds):
                        rows.append(
                            _trial(setting, request, split, method, seed, place / (len(methods) + 1), generator)
                        )
    return pd.DataFrame(rows)


def _trial(
    setting: dict[str, Any], request: str, split: int, method: str, seed: int, far: float, generator: Any
) -> dict[str, Any]:
    own = {"none": 3.4, "retrain": 1.0}.get(method, 0.9 + 2.8 * far**2)
    oracle = own * math.exp(generator.normal(0, 0.05))
    oracle = 1.0 if request == "5 %" and method == "none" else oracle  # nothing to forget there
    forget = {"none": 0.97, "retrain": 0.02 + generator.uniform(-0.02, 0.02)}.get(
        method, 0.02 + 0.6 * far * generator.uniform(0.5, 1.2)
    )
    forget = 0.02 if request == "5 %" and method == "none" else forget
    key = f"{request}-{method}-{split}-{seed}-{'-'.join(map(str, setting.values()))}"
    row: dict[str, Any] = (
        _KEYS | setting | {"trial": key, "split_seed": split, "request": request, "method": method, "seed": seed}
    )
    row |= {"accuracy_forget": forget, "accuracy_retain": 0.95 - 0.08 * far * generator.uniform(0, 1)}
    row |= {"accuracy_test": 0.93 - 0.05 * far, "accuracy_validation": 0.94 - 0.05 * far}
    row |= {"accuracy_forget_true": 0.9 - 0.5 * far if request == "corrupted samples" else np.nan}
    for part, floor in (("forget", 0.06), ("retain", 0.03), ("test", 0.04)):
        row |= {f"js_{part}": oracle * floor, f"js_{part}_floor": floor, f"js_{part}_floor_low": 0.85 * floor,
                f"js_{part}_floor_high": 1.2 * floor}  # fmt: skip
    row |= {"gap_forget": abs(forget - 0.02), "gap_forget_floor": 0.01, "gap_forget_floor_low": 0.002,
            "gap_forget_floor_high": 0.05}  # fmt: skip
    row |= {"oracle_distance": oracle, "oracle_distance_floor": 1.0, "oracle_distance_floor_low": 0.88,
            "oracle_distance_floor_high": 1.17, "tow": 1 - 0.3 * far}  # fmt: skip
    row |= {"membership_auc": 0.5 + 0.04 * (oracle - 1.0), "membership_auc_floor": 0.5,
            "membership_auc_floor_low": 0.48, "membership_auc_floor_high": 0.52}  # fmt: skip
    spent = {"none": 0, "retrain": 60000}.get(method, int(900 * math.exp(3.6 * ((far * 7.3) % 1.0))))
    row |= {"gradient_evaluations": spent, "circuit_evaluations": int(2.3 * spent) + (400 if method == "ssd" else 0)}
    return row | _certificate(method)


def _certificate(method: str) -> dict[str, Any]:
    none = dict.fromkeys(("epsilon", "delta", "epsilon_estimated", "delta_estimated"), np.nan)
    given: dict[str, dict[str, Any]] = {
        "sisa": {"certificate": "exact", "epsilon": 0.0, "delta": 0.0},
        "certified-removal": {"certificate": "certified", "epsilon": 0.7, "delta": 1e-5},
        "certified-newton": {"certificate": "estimated: not a guarantee", "epsilon_estimated": 31.4,
                             "delta_estimated": 1e-4},
    }  # fmt: skip
    return {"certificate": None} | none | given.get(method, {})


def audits(records: pd.DataFrame, names: Sequence[str] = tuple(AUDITS)) -> pd.DataFrame:
    """The audits' long table for the original and the methods of some records, with reasons where none was made."""
    generator = np.random.default_rng(2)
    rows = []
    methods = [name for name in dict.fromkeys(records["method"]) if name not in ("none", "retrain")]
    identity = [
        name for name in records.columns if name in (*_KEYS, "trial", "split_seed", "request", "method", "seed")
    ]
    for row in records[records["method"] != "retrain"][identity].to_dict("records"):
        far = 1.0 if row["method"] == "none" else methods.index(row["method"]) / max(len(methods), 1)
        for name in names:
            unit, middle, half, original = AUDITS[name]
            value = middle + 0.8 * (original - middle) * (far**2 - 0.1) + generator.normal(0, 0.2 * half)
            value = original if row["method"] == "none" else value
            if row["method"] == "head-only" and name.startswith("probe"):
                value = original
            reason = ""
            if name.startswith(("u_lira", "forgetting")) and far > 0.3 and row["method"] not in ("none", "head-only"):
                value, reason = np.nan, "not among the best 5 by validation"
            if name == "u_lira_tpr_1pct":
                value, reason = np.nan, "640 non-member scores, at least 1,000 are needed"
            value = max(round(value), 0) if unit == "steps" and value == value else value
            rows.append(row | {
                "audit": name, "value": value, "low": value - half, "high": value + half, "retrained": middle,
                "retrained_low": middle - half, "retrained_high": middle + half,
                "n": 64 if name == "forgetting_quality" else 120, "unit": unit, "reason": reason,
            })  # fmt: skip
    return pd.DataFrame(rows)


def histories(settings: Sequence[dict[str, Any]], requests: Sequence[str], epochs: int = 40) -> pd.DataFrame:
    """Losses by epoch of three originals and two retrained models a request, at each setting."""
    generator = np.random.default_rng(3)
    rows = []
    for setting in settings:
        own = {key: value for key, value in (_KEYS | setting).items() if key not in ("study", "protocol")}
        for request, seed in [(None, 0), (None, 1), (None, 2), *((name, seed) for name in requests for seed in (0, 1))]:
            identity = own | {
                "split_seed": 0,
                "request": request,
                "kind": "retrained" if request else "original",
                "method": None,
            }
            pace = generator.uniform(5, 8)
            for epoch in range(epochs + 1):
                loss = 0.3 + 2.0 * math.exp(-epoch / pace) + generator.normal(0, 0.002)
                rows.append(identity | {
                    "seed": seed, "epoch": epoch, "loss": loss, "validation_loss": loss + 0.05,
                    "validation_accuracy": 0.9, "kept": epoch == epochs - seed,
                })  # fmt: skip
    return pd.DataFrame(rows)


def made(
    methods: Sequence[str] = FEW, requests: Sequence[str] = ("class 0", "5 %"),
    settings: Sequence[dict[str, Any]] = ({"depth": 2},), splits: int = 1, seeds: int = 3, audited: bool = True,
) -> Material:  # fmt: skip
    """A study's material with all that a report can show."""
    records = trials(methods, requests, settings, splits, seeds)
    return Material(
        name="made",
        records=records,
        times=pd.DataFrame({"trial": records["trial"], "seconds": 0.5}),
        file='name = "made"\n',
        audits=audits(records) if audited else None,
        histories=histories(settings, requests),
    )
