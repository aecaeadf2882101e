"""Networks: image and text towers, scoring, the image-text model and the exported classifier."""

from bundle.ctfindings.networks.classifier import ZeroShotClassifier
from bundle.ctfindings.networks.correlation_explorer import CorrelationExplorer
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.image_tower import ConvolutionalTower
from bundle.ctfindings.networks.image.observation_extractor import ObservationExtractor
from bundle.ctfindings.networks.image.resnet_tower import ResNetTower
from bundle.ctfindings.networks.image.token_teacher import TokenTeacher
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower
from bundle.ctfindings.networks.product_embedding import ProductEmbedding
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

__all__ = [
    "ConvolutionalTower",
    "CorrelationExplorer",
    "FindingScorer",
    "ImageEncoder",
    "ObservationExtractor",
    "ProductEmbedding",
    "ResNetTower",
    "TextTower",
    "TokenTeacher",
    "VisionLanguageModel",
    "VisionTransformerTower",
    "ZeroShotClassifier",
]
