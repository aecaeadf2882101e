"""Glue between the package and MONAI's Ignite engines."""

from bundle.ctfindings.engines.allocation import keep_freed_memory
from bundle.ctfindings.engines.batches import prepare_batch, prepare_image_batch, prepare_report_batch
from bundle.ctfindings.engines.calibration import calibrate
from bundle.ctfindings.engines.checkpointing import RunCheckpoint
from bundle.ctfindings.engines.evaluation import evaluate_checkpoint
from bundle.ctfindings.engines.gradient_cache import GradientCache, MicroBatches
from bundle.ctfindings.engines.handlers import EpochSeed, FreezeStandardization, LossLog, MacroAuc, MetricLog
from bundle.ctfindings.engines.loading import cached_dataset, study_loader
from bundle.ctfindings.engines.options import check_options
from bundle.ctfindings.engines.parameter_groups import parameter_groups
from bundle.ctfindings.engines.published_evaluation import evaluate_published
from bundle.ctfindings.engines.running import input_error, input_errors_in_one_line, run_or_exit
from bundle.ctfindings.engines.scoring import SplitScores, collect_scores
from bundle.ctfindings.engines.token_warm_start import TokenWarmStart

__all__ = [
    "EpochSeed",
    "FreezeStandardization",
    "GradientCache",
    "LossLog",
    "MacroAuc",
    "MetricLog",
    "MicroBatches",
    "RunCheckpoint",
    "SplitScores",
    "TokenWarmStart",
    "cached_dataset",
    "calibrate",
    "check_options",
    "collect_scores",
    "evaluate_checkpoint",
    "evaluate_published",
    "input_error",
    "input_errors_in_one_line",
    "keep_freed_memory",
    "parameter_groups",
    "prepare_batch",
    "prepare_image_batch",
    "prepare_report_batch",
    "run_or_exit",
    "study_loader",
]
