"""Evaluation: predictions, scores, comparisons, calibration, reports and plots."""

from jmer.evaluation.calibration import Calibration, calibration
from jmer.evaluation.forward import Predictions
from jmer.evaluation.html_report import write_html_report
from jmer.evaluation.html_viewer import PredictedSplit
from jmer.evaluation.metrics import Scores, classification_report, confusion_matrix, mean_and_deviation
from jmer.evaluation.predictions import mean_probabilities, prediction_table, read_predictions, write_predictions
from jmer.evaluation.predictor import EnsemblePredictor, Predictor
from jmer.evaluation.report import Report, write_report
from jmer.evaluation.seed_report import seed_report, seed_table
from jmer.evaluation.significance import (
    BootstrapComparison,
    PairedComparison,
    bootstrap_conversations,
    compare_paired,
    holm,
    verdict,
)

__all__ = [
    "BootstrapComparison",
    "Calibration",
    "EnsemblePredictor",
    "PairedComparison",
    "PredictedSplit",
    "Predictions",
    "Predictor",
    "Report",
    "Scores",
    "bootstrap_conversations",
    "calibration",
    "classification_report",
    "compare_paired",
    "confusion_matrix",
    "holm",
    "mean_and_deviation",
    "mean_probabilities",
    "prediction_table",
    "read_predictions",
    "seed_report",
    "seed_table",
    "verdict",
    "write_html_report",
    "write_predictions",
    "write_report",
]
