"""What every test shares: one thread, no windows, the same hypothesis examples in every run."""

from __future__ import annotations

import os

# Before torch, numpy and matplotlib are imported: they read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# Derandomised: a test that passes today passes tomorrow. No deadline: a shared machine is slow at times.
settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("deterministic")
