"""Downstream tasks on the image encoder of a checkpoint, at fractions of the labels."""

from bundle.ctfindings.downstream.best_training import BestTraining
from bundle.ctfindings.downstream.classification import Classification
from bundle.ctfindings.downstream.detection import Detection
from bundle.ctfindings.downstream.encoded_scans import ScanEncoder
from bundle.ctfindings.downstream.encoder_tuning import EncoderTuning
from bundle.ctfindings.downstream.report_generation import ReportGeneration
from bundle.ctfindings.downstream.report_methods import DecoderReports
from bundle.ctfindings.downstream.retrieval import Retrieval
from bundle.ctfindings.downstream.segmentation import Segmentation
from bundle.ctfindings.downstream.task_run import TaskRun

__all__ = [
    "BestTraining",
    "Classification",
    "DecoderReports",
    "Detection",
    "EncoderTuning",
    "ReportGeneration",
    "Retrieval",
    "ScanEncoder",
    "Segmentation",
    "TaskRun",
]
