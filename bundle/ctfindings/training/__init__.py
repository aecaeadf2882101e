"""Training: handlers, checkpoints, gradient caching, warm start, fine-tuning."""

from bundle.ctfindings.networks.checkpoint import sha256_of
from bundle.ctfindings.training.checkpointing import RunCheckpoint, studies_digest
from bundle.ctfindings.training.finetuning import export_finetuned, start_from
from bundle.ctfindings.training.glibc_allocator import keep_freed_memory, return_freed_memory
from bundle.ctfindings.training.gradient_cache import GradientCache, MicroBatches
from bundle.ctfindings.training.handlers import (
    EpochSeed,
    FreezeStandardization,
    LossLog,
    MacroAuc,
    MetricLog,
    UpdateTeacher,
)
from bundle.ctfindings.training.observation_metrics import ObservationMetrics
from bundle.ctfindings.training.parameter_groups import parameter_groups
from bundle.ctfindings.training.token_warm_start import TokenWarmStart, warm_started_parameters

__all__ = [
    "EpochSeed",
    "FreezeStandardization",
    "GradientCache",
    "LossLog",
    "MacroAuc",
    "MetricLog",
    "MicroBatches",
    "ObservationMetrics",
    "RunCheckpoint",
    "TokenWarmStart",
    "UpdateTeacher",
    "export_finetuned",
    "keep_freed_memory",
    "parameter_groups",
    "return_freed_memory",
    "sha256_of",
    "start_from",
    "studies_digest",
    "warm_started_parameters",
]
