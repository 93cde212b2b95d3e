"""How well unlearning worked, judged beside the original and retrained models."""

from qunlearn.evaluation.evaluate import Judge, evaluate
from qunlearn.evaluation.predictions import Predictions, predict
from qunlearn.evaluation.verdict import VERDICTS, usual_range, verdict

__all__ = ["VERDICTS", "Judge", "Predictions", "evaluate", "predict", "usual_range", "verdict"]
