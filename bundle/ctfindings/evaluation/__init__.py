"""Evaluation of a checkpoint on a datalist, in sections."""

from bundle.ctfindings.evaluation.classification_section import Classification
from bundle.ctfindings.evaluation.evaluate import Evaluation
from bundle.ctfindings.evaluation.evaluated_model import EvaluatedModel
from bundle.ctfindings.evaluation.protocol_section import PublishedProtocol
from bundle.ctfindings.evaluation.report_sections import ReportRetrieval, SnippetLocalization

__all__ = [
    "Classification",
    "EvaluatedModel",
    "Evaluation",
    "PublishedProtocol",
    "ReportRetrieval",
    "SnippetLocalization",
]
