"""Fine-tuning of the image encoder on the labels of a subset, before a probe reads its rows."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.engines import SupervisedTrainer
from monai.transforms import Transform
from torch import Tensor, nn

from bundle.ctfindings.data.batches import prepare_image_batch
from bundle.ctfindings.data.datalist import bare_studies
from bundle.ctfindings.data.loaders import cached_dataset, study_loader
from bundle.ctfindings.downstream.encoded_scans import ScanEncoder, scan_features
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder


class EncoderTuning:
    """Trains a copy of the encoder with a linear head on the labels, unknown ones left out.

    Args:
        preprocessing: image pipeline of training, to scans of one size.
        epochs: passes over the subset.
        batch_size: scans of a step.
        learning_rate: of encoder and head, with AdamW.
        cache_dir, cache_key: see ``cached_dataset``.
    """

    def __init__(
        self,
        preprocessing: Sequence[Transform],
        epochs: int = 5,
        batch_size: int = 4,
        learning_rate: float = 0.0003,
        cache_dir: str | None = None,
        cache_key: Any = None,
    ) -> None:
        self.preprocessing, self.epochs, self.batch_size = list(preprocessing), epochs, batch_size
        self.learning_rate, self.cache_dir, self.cache_key = learning_rate, cache_dir, cache_key

    def __call__(
        self, encoder: ScanEncoder, studies: Sequence[dict[str, Any]], features: Sequence[str], seed: int
    ) -> ScanEncoder:
        """An encoder that was trained on the studies; the given one stays as it is. Head and order have the seed."""
        torch.manual_seed(seed)
        tuned = copy.copy(encoder)
        tuned.network = copy.deepcopy(encoder.network)
        tuned.cache_dir = None  # No other run has these weights.
        dataset = cached_dataset(
            bare_studies(studies, "labels"), self.preprocessing, (), self.cache_dir, self.cache_key
        )
        model = ProbedEncoder(tuned.network.image, features).to(encoder.device)
        with torch.no_grad():
            model(dataset[0]["image"][None].to(encoder.device).float())  # The head gets its size.
        SupervisedTrainer(
            device=encoder.device,
            max_epochs=self.epochs,
            train_data_loader=study_loader(dataset, self.batch_size, shuffle=True, seed=seed),
            network=model,
            optimizer=torch.optim.AdamW(model.parameters(), self.learning_rate),
            loss_function=lambda logits, targets: known_label_loss(logits, targets["labels"]),
            prepare_batch=prepare_image_batch,
        ).run()
        tuned.network.eval()
        return tuned


class ProbedEncoder(nn.Module):
    """An image encoder with a linear head on ``scan_features``: ``[B, 1, X, Y, Z]`` to logits ``[B, C]``."""

    def __init__(self, image: ImageEncoder, features: Sequence[str]) -> None:
        super().__init__()
        self.image, self.features = image, list(features)
        self.head = nn.LazyLinear(len(FINDING_NAMES))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the findings."""
        return self.head(scan_features(self.image(image), self.features))


def known_label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy over the known labels, 1 or 0; -1 is unknown. Zero if none is known."""
    known = labels >= 0
    loss = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).to(logits.dtype), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)
