"""Published models of other groups behind the interface of this bundle."""

from bundle.ctfindings.published.classifier import (
    PublishedClassifier,
    fvlm_image_encoder,
    radfinder_image_encoder,
    warm_started_fvlm_tower,
)
from bundle.ctfindings.published.evaluate import evaluate_published
from bundle.ctfindings.published.fvlm.image_encoder import FvlmScorer
from bundle.ctfindings.published.preprocessing import fvlm_pipeline, radfinder_pipeline
from bundle.ctfindings.published.text_towers import fvlm_text_tower, radfinder_text_tower

__all__ = [
    "FvlmScorer",
    "PublishedClassifier",
    "evaluate_published",
    "fvlm_image_encoder",
    "fvlm_pipeline",
    "fvlm_text_tower",
    "radfinder_image_encoder",
    "radfinder_pipeline",
    "radfinder_text_tower",
    "warm_started_fvlm_tower",
]
