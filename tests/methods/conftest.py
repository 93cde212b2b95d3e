"""Lets `mutation_run.py` replace a method before its tests run."""

from __future__ import annotations

import os

from tests.methods.mutations import mutate

if found := os.environ.get("QUNLEARN_MUTATION"):
    mutate(*found.split(":"))
