"""Networks: image and text towers, pooling, scoring, the image-text model and the exported classifier."""

from bundle.ctfindings.networks.checkpoint import load_checkpoint, save_bundle_weights
from bundle.ctfindings.networks.classifier import FindingScores, PromptBank, ZeroShotClassifier
from bundle.ctfindings.networks.image_encoder import ImageEmbedding, ImageEncoder
from bundle.ctfindings.networks.image_tower import ConvolutionalTower, HounsfieldWindows
from bundle.ctfindings.networks.pooling import AnatomyPooling, depth_rows, token_membership
from bundle.ctfindings.networks.prompts import mean_over_templates, template_bank
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text_tower import ROLES, TextTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from bundle.ctfindings.networks.vit_tower import VisionTransformerTower

__all__ = [
    "ROLES",
    "AnatomyPooling",
    "ConvolutionalTower",
    "FindingScorer",
    "FindingScores",
    "HounsfieldWindows",
    "ImageEmbedding",
    "ImageEncoder",
    "PromptBank",
    "TextTower",
    "VisionLanguageModel",
    "VisionTransformerTower",
    "ZeroShotClassifier",
    "depth_rows",
    "load_checkpoint",
    "mean_over_templates",
    "save_bundle_weights",
    "template_bank",
    "token_membership",
]
