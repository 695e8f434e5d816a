"""Evaluation: predictions, scores, reports and plots."""

from jmer.evaluation.metrics import Scores, classification_report, confusion_matrix, mean_and_deviation
from jmer.evaluation.predict import predict
from jmer.evaluation.predictions import prediction_table, write_predictions
from jmer.evaluation.report import Report, write_report

__all__ = [
    "Report",
    "Scores",
    "classification_report",
    "confusion_matrix",
    "mean_and_deviation",
    "predict",
    "prediction_table",
    "write_predictions",
    "write_report",
]
