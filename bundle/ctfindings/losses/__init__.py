"""Training objectives, one per file; each takes explicit tensors, and `CompositeLoss` weighs them."""

from bundle.ctfindings.losses.anatomy_head import AnatomyHeadLoss
from bundle.ctfindings.losses.composite import CompositeLoss
from bundle.ctfindings.losses.cross_anatomy import CrossAnatomyLoss
from bundle.ctfindings.losses.disease_prompts import DiseasePromptLoss
from bundle.ctfindings.losses.gathering import gather_rows
from bundle.ctfindings.losses.grounding import GroundingLoss
from bundle.ctfindings.losses.local_anatomy import LocalAnatomyLoss
from bundle.ctfindings.losses.soft_targets import row_normalise, semantic_matrix
from bundle.ctfindings.losses.text_separation import TextSeparationLoss

__all__ = [
    "AnatomyHeadLoss",
    "CompositeLoss",
    "CrossAnatomyLoss",
    "DiseasePromptLoss",
    "GroundingLoss",
    "LocalAnatomyLoss",
    "TextSeparationLoss",
    "gather_rows",
    "row_normalise",
    "semantic_matrix",
]
