"""Models: the hybrid classifier, its encoders, heads and controls, the stages of any module, model files."""

from qunlearn.models.controls import ClassicalTwin
from qunlearn.models.dropout import Dropout
from qunlearn.models.encoders import DirectEncoder, ImageEncoder, PCAEncoder, PiTanh
from qunlearn.models.ensemble import Ensemble
from qunlearn.models.files import load_model, save_model
from qunlearn.models.frozen_head import FrozenHead
from qunlearn.models.hybrid import HybridClassifier, published_weights
from qunlearn.models.initialise import reinitialise
from qunlearn.models.kernel import QuantumKernelClassifier
from qunlearn.models.stages import Stage, angle_periods, stages

__all__ = [
    "ClassicalTwin",
    "DirectEncoder",
    "Dropout",
    "Ensemble",
    "FrozenHead",
    "HybridClassifier",
    "ImageEncoder",
    "PCAEncoder",
    "PiTanh",
    "QuantumKernelClassifier",
    "Stage",
    "angle_periods",
    "load_model",
    "published_weights",
    "reinitialise",
    "save_model",
    "stages",
]
