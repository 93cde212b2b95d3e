"""How well unlearning worked, judged beside the original and retrained models."""

from qunlearn.evaluation.evaluate import Judge, evaluate
from qunlearn.evaluation.predictions import Predictions, predict

__all__ = ["Judge", "Predictions", "evaluate", "predict"]
