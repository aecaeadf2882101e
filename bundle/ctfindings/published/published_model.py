"""A published model as the model of an evaluation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Transform

from bundle.ctfindings.data.datalist import label_rows
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.published_protocols import ZeroShotScores
from bundle.ctfindings.networks.classifier import load_classifier
from bundle.ctfindings.published.classifier import PublishedClassifier
from bundle.ctfindings.published.text_tower import PublishedTextTower


class PublishedModel:
    """Scores scans as in inference, with the mask of each study if it has one.

    Args:
        network: Published classifier.
        ckpt_path: Its converted checkpoint.
        text_tower: Makes its text tower; called if the checkpoint has no prompt embeddings.
        preprocessing: Image pipeline of the model.
    """

    def __init__(
        self,
        network: PublishedClassifier,
        ckpt_path: str | Path,
        text_tower: Callable[[], PublishedTextTower],
        preprocessing: Sequence[Transform],
        device: str | torch.device = "cpu",
    ) -> None:
        self.network, self.ckpt_path, self.text_tower = network, Path(ckpt_path), text_tower
        self.preprocessing, self.device = Compose(list(preprocessing)), torch.device(device)
        self.template_ids = network.template_ids
        scored = zip(FINDING_NAMES, network.scored, strict=True)
        self.not_scored = tuple(name for name, wanted in scored if not wanted)

    def load(self) -> None:
        """Loads the checkpoint; ``ValueError`` if it does not fit the network."""
        self.network.to(self.device).eval()
        load_classifier(self.network, self.ckpt_path, text_tower=self.text_tower)

    @torch.inference_mode()
    def score(self, studies: Sequence[dict[str, Any]], name: str) -> ZeroShotScores:
        """Scores of studies from ``load_datalist``, in their order; ``name`` labels the progress bar.

        ValueError if a scan has no mask and the model needs one.
        """
        logits, template_logits, valid = [], [], []
        for study in progress_bar(studies, name, unit="scan"):
            loaded = self.preprocessing({key: study[key] for key in ("image", "anatomy", "stored") if key in study})
            image: MetaTensor = loaded["image"]
            mask = loaded["anatomy"].as_tensor()[None].to(self.device) if "anatomy" in loaded else None
            known = loaded["anatomy_known"][None].to(self.device) if mask is not None else None
            try:
                encoded = self.network.image.encode_scan(image.as_tensor()[None].float().to(self.device), mask, known)
            except ValueError as error:
                raise ValueError(f"{study['image']}: {error}") from error
            scores = self.network.score(encoded)
            logits.append(scores.logits[0].double().cpu().numpy())
            template_logits.append(scores.template_logits[0].double().cpu().numpy())
            valid.append(encoded.anatomy_valid[0].cpu().numpy())
        return ZeroShotScores(
            ids=[study["id"] for study in studies],
            patients=[study["patient"] for study in studies],
            labels=label_rows(studies),
            logits=np.stack(logits),
            template_logits=np.stack(template_logits),
            anatomy_valid=np.stack(valid),
        )

    def settings(self) -> dict[str, Any]:
        """Settings for the record of an evaluation."""
        return {"device": self.device.type}
