"""Networks: image and text towers, pooling, scoring, the image-text model and the exported classifier."""

from bundle.ctfindings.networks.checkpoint import load_checkpoint, save_bundle_weights
from bundle.ctfindings.networks.classifier import FindingScores, PromptBank, ZeroShotClassifier
from bundle.ctfindings.networks.depth import DepthStem, depth_logits, depth_positions, depth_profile
from bundle.ctfindings.networks.fvlm import FvlmScorer
from bundle.ctfindings.networks.hounsfield_windows import HounsfieldWindows
from bundle.ctfindings.networks.image_encoder import ImageEmbedding, ImageEncoder
from bundle.ctfindings.networks.image_tower import ConvolutionalTower
from bundle.ctfindings.networks.locked_image import LockedImageModel
from bundle.ctfindings.networks.pooling import AnatomyPooling, depth_rows, token_membership
from bundle.ctfindings.networks.prompts import mean_over_templates, template_bank
from bundle.ctfindings.networks.published_classifier import (
    PublishedClassifier,
    fvlm_image_encoder,
    load_classifier,
    radfinder_image_encoder,
    warm_started_fvlm_tower,
)
from bundle.ctfindings.networks.published_text import PublishedTextTower, fvlm_text_tower, radfinder_text_tower
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text_tower import ROLES, TextTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from bundle.ctfindings.networks.vit_tower import VisionTransformerTower

__all__ = [
    "ROLES",
    "AnatomyPooling",
    "ConvolutionalTower",
    "DepthStem",
    "FindingScorer",
    "FindingScores",
    "FvlmScorer",
    "HounsfieldWindows",
    "ImageEmbedding",
    "ImageEncoder",
    "LockedImageModel",
    "PromptBank",
    "PublishedClassifier",
    "PublishedTextTower",
    "TextTower",
    "VisionLanguageModel",
    "VisionTransformerTower",
    "ZeroShotClassifier",
    "depth_logits",
    "depth_positions",
    "depth_profile",
    "depth_rows",
    "fvlm_image_encoder",
    "fvlm_text_tower",
    "load_checkpoint",
    "load_classifier",
    "mean_over_templates",
    "radfinder_image_encoder",
    "radfinder_text_tower",
    "save_bundle_weights",
    "template_bank",
    "token_membership",
    "warm_started_fvlm_tower",
]
