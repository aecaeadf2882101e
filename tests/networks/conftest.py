"""Networks that are small enough to build in milliseconds, with a tiny text encoder made on the spot."""

import string
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.image_tower import ConvolutionalTower
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel


def write_tiny_encoder(folder: Path, seed: int, pooler: bool = False) -> Path:
    """A random BERT of two layers with a vocabulary of letters, saved as transformers saves one."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = list(string.ascii_lowercase + string.digits + string.punctuation)
    vocabulary = {
        piece: index for index, piece in enumerate([*specials, *letters, *(f"##{letter}" for letter in letters)])
    }
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertModel(config, add_pooling_layer=pooler).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny text encoder."""
    return str(write_tiny_encoder(tmp_path_factory.mktemp("encoder"), seed=0))


@pytest.fixture(scope="session")
def other_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a text encoder of the same geometry with other weights, and with a pooler."""
    return str(write_tiny_encoder(tmp_path_factory.mktemp("other_encoder"), seed=1, pooler=True))


def convolutional_tower() -> ConvolutionalTower:
    """Tokens of 2 voxels, scans of multiples of 8 voxels."""
    torch.manual_seed(0)
    return ConvolutionalTower(patch=2, channels=(8, 8, 8, 16), blocks=(1, 1, 1, 1), width=12, heads=2)


def transformer_tower() -> VisionTransformerTower:
    """Tokens of 8 x 4 x 2 voxels on a base grid of 2 x 4 x 8."""
    torch.manual_seed(0)
    return VisionTransformerTower(
        patch=(8, 4, 2), size=(16, 16, 16), width=12, depth=4, heads=2, perceptron=16, levels=(0, 2)
    )


@pytest.fixture(params=[convolutional_tower, transformer_tower], ids=["convolutional", "transformer"])
def tower(request: pytest.FixtureRequest) -> ConvolutionalTower | VisionTransformerTower:
    """Each image tower in turn."""
    return request.param()


@pytest.fixture
def make_image() -> Callable[[], ImageEncoder]:
    """Builds an image encoder of embedding size 8, the same one at every call."""
    return lambda: ImageEncoder(convolutional_tower(), embedding=8, heads=2)


@pytest.fixture
def make_model(make_image: Callable[[], ImageEncoder], encoder: str) -> Callable[[], VisionLanguageModel]:
    """Builds the image-text model on that image encoder, the same one at every call."""
    return lambda: VisionLanguageModel(make_image(), TextTower(encoder, embedding=8, hidden=16), FindingScorer())
