"""Methods: one file each, all behind one interface.

>>> from qunlearn import methods
>>> methods.get("adaprob") == methods.AdaProb()
True
"""

from qunlearn.methods.adaprob import AdaProb
from qunlearn.methods.adv_uniform import AdvUniform
from qunlearn.methods.amnesiac import Amnesiac
from qunlearn.methods.angle_dampening import AngleDampening
from qunlearn.methods.bad_teacher import BadTeacher
from qunlearn.methods.base import Method
from qunlearn.methods.boundary_expand import BoundaryExpand
from qunlearn.methods.boundary_shrink import BoundaryShrink
from qunlearn.methods.certificate import Guarantee
from qunlearn.methods.certified_newton import CertifiedNewton
from qunlearn.methods.certified_removal import CertifiedRemoval
from qunlearn.methods.cf_k import CFK
from qunlearn.methods.channel_forgetting import ChannelForgetting
from qunlearn.methods.distribution_guided import DistributionGuided
from qunlearn.methods.entangler_cut import EntanglerCut
from qunlearn.methods.eu_k import EUK
from qunlearn.methods.fine_tune import FineTune
from qunlearn.methods.fisher_forgetting import FisherForgetting
from qunlearn.methods.fisher_penalty import FisherPenalty
from qunlearn.methods.gradient import GradientMethod
from qunlearn.methods.gradient_ascent import GradientAscent
from qunlearn.methods.head_only import HeadOnly
from qunlearn.methods.hyper import hyper
from qunlearn.methods.influence import Influence
from qunlearn.methods.jit import JiT
from qunlearn.methods.kernel_downdate import KernelDowndate
from qunlearn.methods.kernel_guided import KernelGuided
from qunlearn.methods.l1_sparse import L1Sparse
from qunlearn.methods.langevin import Langevin
from qunlearn.methods.layer_reset import LayerReset
from qunlearn.methods.lca import LCA
from qunlearn.methods.natural_ascent import NaturalAscent
from qunlearn.methods.neggrad_plus import NegGradPlus
from qunlearn.methods.noisy_fine_tune import NoisyFineTune
from qunlearn.methods.none import NoUnlearning
from qunlearn.methods.npo import NPO
from qunlearn.methods.observable_edit import ObservableEdit
from qunlearn.methods.q_mul import QMul
from qunlearn.methods.random_label import RandomLabel
from qunlearn.methods.registry import available, get, register
from qunlearn.methods.relative_ascent import RelativeAscent
from qunlearn.methods.retrain import Retrain
from qunlearn.methods.rmu import RMU
from qunlearn.methods.salun import SalUn
from qunlearn.methods.scrub import Scrub
from qunlearn.methods.sensitivity_noise import SensitivityNoise
from qunlearn.methods.sisa import Sisa
from qunlearn.methods.ssd import SSD
from qunlearn.methods.state_erasure import StateErasure
from qunlearn.methods.task import Record, Task, Unlearned, Work
from qunlearn.methods.unlearn import unlearn
from qunlearn.methods.unsir import UNSIR

__all__ = [
    "CFK",
    "EUK",
    "LCA",
    "NPO",
    "RMU",
    "SSD",
    "UNSIR",
    "AdaProb",
    "AdvUniform",
    "Amnesiac",
    "AngleDampening",
    "BadTeacher",
    "BoundaryExpand",
    "BoundaryShrink",
    "CertifiedNewton",
    "CertifiedRemoval",
    "ChannelForgetting",
    "DistributionGuided",
    "EntanglerCut",
    "FineTune",
    "FisherForgetting",
    "FisherPenalty",
    "GradientAscent",
    "GradientMethod",
    "Guarantee",
    "HeadOnly",
    "Influence",
    "JiT",
    "KernelDowndate",
    "KernelGuided",
    "L1Sparse",
    "Langevin",
    "LayerReset",
    "Method",
    "NaturalAscent",
    "NegGradPlus",
    "NoUnlearning",
    "NoisyFineTune",
    "ObservableEdit",
    "QMul",
    "RandomLabel",
    "Record",
    "RelativeAscent",
    "Retrain",
    "SalUn",
    "Scrub",
    "SensitivityNoise",
    "Sisa",
    "StateErasure",
    "Task",
    "Unlearned",
    "Work",
    "available",
    "get",
    "hyper",
    "register",
    "unlearn",
]
