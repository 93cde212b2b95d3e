"""Audits: attacks on a model after unlearning, and probes of what it still holds, beside retrained models."""

from qunlearn.evaluation.audit.auditor import AUDITS, Auditor, Family, audit
from qunlearn.evaluation.audit.finding import Audit, Finding

REVISION = 1  # part of a study's keys: raise it when figures change

__all__ = ["AUDITS", "REVISION", "Audit", "Auditor", "Family", "Finding", "audit"]
