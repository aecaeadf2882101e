"""Training objectives, one per file; each takes explicit tensors, and `CompositeLoss` weighs them."""

from bundle.ctfindings.losses.anatomy_head import AnatomyHeadLoss
from bundle.ctfindings.losses.composite import CompositeLoss
from bundle.ctfindings.losses.cross_anatomy import CrossAnatomyLoss
from bundle.ctfindings.losses.disease_prompts import DiseasePromptLoss
from bundle.ctfindings.losses.gathering import AnatomyPairs, gather_pairs, gather_rows
from bundle.ctfindings.losses.grounding import GroundingLoss
from bundle.ctfindings.losses.local_anatomy import LocalAnatomyLoss
from bundle.ctfindings.losses.prompt_agreement import PromptAgreementLoss
from bundle.ctfindings.losses.prototypes import AnatomyPrototypeLoss
from bundle.ctfindings.losses.siglip import SigLIPLoss
from bundle.ctfindings.losses.snippet_localization import SnippetLocalizationLoss, points_into_scan
from bundle.ctfindings.losses.soft_targets import row_normalise, semantic_matrix
from bundle.ctfindings.losses.text_separation import TextSeparationLoss

__all__ = [
    "AnatomyHeadLoss",
    "AnatomyPairs",
    "AnatomyPrototypeLoss",
    "CompositeLoss",
    "CrossAnatomyLoss",
    "DiseasePromptLoss",
    "GroundingLoss",
    "LocalAnatomyLoss",
    "PromptAgreementLoss",
    "SigLIPLoss",
    "SnippetLocalizationLoss",
    "TextSeparationLoss",
    "gather_pairs",
    "gather_rows",
    "points_into_scan",
    "row_normalise",
    "semantic_matrix",
]
