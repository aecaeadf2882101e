"""Training objectives, one per file; `CompositeLoss` weighs them."""

from bundle.ctfindings.losses.anatomy_head import AnatomyHeadLoss
from bundle.ctfindings.losses.composite import CompositeLoss
from bundle.ctfindings.losses.correlation_exploration import CorrelationExplorationLoss
from bundle.ctfindings.losses.cross_anatomy import CrossAnatomyLoss
from bundle.ctfindings.losses.disease_prompts import DiseasePromptLoss
from bundle.ctfindings.losses.grounding import GroundingLoss
from bundle.ctfindings.losses.local_anatomy import LocalAnatomyLoss
from bundle.ctfindings.losses.pathology_alignment import PathologyAlignmentLoss
from bundle.ctfindings.losses.prompt_agreement import PromptAgreementLoss
from bundle.ctfindings.losses.prototypes import AnatomyPrototypeLoss
from bundle.ctfindings.losses.siglip import SigLIPLoss
from bundle.ctfindings.losses.snippet_localization import SnippetLocalizationLoss
from bundle.ctfindings.losses.text_separation import TextSeparationLoss

__all__ = [
    "AnatomyHeadLoss",
    "AnatomyPrototypeLoss",
    "CompositeLoss",
    "CorrelationExplorationLoss",
    "CrossAnatomyLoss",
    "DiseasePromptLoss",
    "GroundingLoss",
    "LocalAnatomyLoss",
    "PathologyAlignmentLoss",
    "PromptAgreementLoss",
    "SigLIPLoss",
    "SnippetLocalizationLoss",
    "TextSeparationLoss",
]
