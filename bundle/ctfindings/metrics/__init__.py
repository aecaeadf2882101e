"""Evaluation metrics: numpy in, numpy out; independent of networks, losses and data."""

from bundle.ctfindings.metrics.bootstrap import (
    AucIntervals,
    Interval,
    bootstrap_auc,
    bootstrap_interval,
    paired_bootstrap_auc,
    paired_bootstrap_interval,
    resample_weights,
    weighted_auc,
)
from bundle.ctfindings.metrics.calibration import apply_platt, expected_calibration_error, fit_platt
from bundle.ctfindings.metrics.classification import (
    DecisionCounts,
    balanced_accuracy,
    decision_counts,
    finding_accuracy,
    finding_auc,
    finding_average_precision,
    finding_f1,
    finding_precision,
    macro_auc,
    macro_average,
    sensitivity_specificity,
    weighted_f1,
)
from bundle.ctfindings.metrics.evaluation import evaluate_split, format_table
from bundle.ctfindings.metrics.localization import evidence_distance, evidence_hit, evidence_hit_rate
from bundle.ctfindings.metrics.paraphrases import load_paraphrases, paraphrase_accuracy, rank_of_finding
from bundle.ctfindings.metrics.plots import plot_auc_by_finding, plot_roc_grid
from bundle.ctfindings.metrics.thresholds import check_disjoint, choose_thresholds, corner_thresholds, youden_thresholds

__all__ = [
    "AucIntervals",
    "DecisionCounts",
    "Interval",
    "apply_platt",
    "balanced_accuracy",
    "bootstrap_auc",
    "bootstrap_interval",
    "check_disjoint",
    "choose_thresholds",
    "corner_thresholds",
    "decision_counts",
    "evaluate_split",
    "evidence_distance",
    "evidence_hit",
    "evidence_hit_rate",
    "expected_calibration_error",
    "finding_accuracy",
    "finding_auc",
    "finding_average_precision",
    "finding_f1",
    "finding_precision",
    "fit_platt",
    "format_table",
    "load_paraphrases",
    "macro_auc",
    "macro_average",
    "paired_bootstrap_auc",
    "paired_bootstrap_interval",
    "paraphrase_accuracy",
    "plot_auc_by_finding",
    "plot_roc_grid",
    "rank_of_finding",
    "resample_weights",
    "sensitivity_specificity",
    "weighted_auc",
    "weighted_f1",
    "youden_thresholds",
]
