"""A static model of what a schedule costs: from the IR of its last stage, without running it."""

from gemmir.cost.predict import predict, predict_schedule
from gemmir.cost.prediction import Prediction

__all__ = ["Prediction", "predict", "predict_schedule"]
