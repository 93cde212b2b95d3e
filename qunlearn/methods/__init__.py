"""Methods: one file each, all behind one interface.

>>> from qunlearn import methods
>>> methods.get("adaprob") == methods.AdaProb()
True
"""

from qunlearn.methods.adaprob import AdaProb
from qunlearn.methods.adv_uniform import AdvUniform
from qunlearn.methods.base import GradientMethod, Method
from qunlearn.methods.certificate import Guarantee
from qunlearn.methods.cf_k import CFK
from qunlearn.methods.eu_k import EUK
from qunlearn.methods.fine_tune import FineTune
from qunlearn.methods.fisher_penalty import FisherPenalty
from qunlearn.methods.gradient_ascent import GradientAscent
from qunlearn.methods.hyper import hyper
from qunlearn.methods.lca import LCA
from qunlearn.methods.neggrad_plus import NegGradPlus
from qunlearn.methods.noisy_fine_tune import NoisyFineTune
from qunlearn.methods.none import NoUnlearning
from qunlearn.methods.q_mul import QMul
from qunlearn.methods.random_label import RandomLabel
from qunlearn.methods.registry import available, get, register
from qunlearn.methods.retrain import Retrain
from qunlearn.methods.scrub import Scrub
from qunlearn.methods.task import Record, Task, Unlearned, Work
from qunlearn.methods.unlearn import unlearn

__all__ = [
    "CFK",
    "EUK",
    "LCA",
    "AdaProb",
    "AdvUniform",
    "FineTune",
    "FisherPenalty",
    "GradientAscent",
    "GradientMethod",
    "Guarantee",
    "Method",
    "NegGradPlus",
    "NoUnlearning",
    "NoisyFineTune",
    "QMul",
    "RandomLabel",
    "Record",
    "Retrain",
    "Scrub",
    "Task",
    "Unlearned",
    "Work",
    "available",
    "get",
    "hyper",
    "register",
    "unlearn",
]
