"""Glue between the package and MONAI's Ignite engines."""

from bundle.ctfindings.engines.batches import prepare_batch, prepare_image_batch
from bundle.ctfindings.engines.handlers import EpochSeed, LossLog, MacroAuc
from bundle.ctfindings.engines.loading import cached_dataset, study_loader

__all__ = ["EpochSeed", "LossLog", "MacroAuc", "cached_dataset", "prepare_batch", "prepare_image_batch", "study_loader"]
