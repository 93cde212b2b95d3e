"""Jobs on quantum hardware: plan, submit, status, collect. May be killed at any point, and goes on where it stopped."""

from qunlearn.hardware.bundle import Bundle
from qunlearn.hardware.collect import Collected, collect, load
from qunlearn.hardware.cost import Limits
from qunlearn.hardware.folder import find_folder
from qunlearn.hardware.plan import Plan, plan
from qunlearn.hardware.status import Status, status
from qunlearn.hardware.submit import submit
from qunlearn.quantum.backends.mitigation import Mitigation

__all__ = [
    "Bundle",
    "Collected",
    "Limits",
    "Mitigation",
    "Plan",
    "Status",
    "collect",
    "find_folder",
    "load",
    "plan",
    "status",
    "submit",
]
