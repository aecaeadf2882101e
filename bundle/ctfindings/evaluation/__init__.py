"""Evaluation and calibration of a checkpoint on a datalist."""

from bundle.ctfindings.evaluation.evaluate import evaluate_checkpoint
from bundle.ctfindings.evaluation.retrieval_and_localization import evaluate_reports

__all__ = ["evaluate_checkpoint", "evaluate_reports"]
