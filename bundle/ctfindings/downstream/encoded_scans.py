"""Scans as the rows of a frozen image encoder: each is encoded once and kept on disk, by the weights that encoded it.

Shapes: S scans, K anatomies, Q pathology queries, C findings, E embedding.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import MapTransform, Transform
from torch import Tensor, nn

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.data.datalist import bare_studies
from bundle.ctfindings.data.scan_cache import CachedStudies
from bundle.ctfindings.evaluation.evaluated_model import whole_scan_steps
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDING_ANATOMY
from bundle.ctfindings.inference.encoding import scan_body
from bundle.ctfindings.networks.checkpoint import load_checkpoint
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding, ImageEncoder
from bundle.ctfindings.networks.image.token_levels import weights_digest
from bundle.ctfindings.networks.text.prompts import mean_over_templates, template_bank
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

Rows = dict[str, Tensor]
FEATURES = ("anatomy", "pathology", "field")


class EncodeRowsd(MapTransform):
    """Replaces a preprocessed scan by its rows; the study then holds ``id`` and the rows only.

    ``anatomy`` [K, E] with ``anatomy_valid``, ``pathology`` [Q, E] with ``pathology_valid``, ``field`` [2 E], the mean
    and the maximum of the token field over the body, and ``zero_shot`` [C], the logits of the prompt templates. The
    rows of what the scan does not show are zero.

    Args:
        image: encoder, on its device.
        scorer: scorer of the findings.
        deltas: positive minus negative prompt of each finding, [C, E].
    """

    not_in_cache_key = ("encoder", "scorer", "deltas")

    def __init__(self, image: ImageEncoder, scorer: nn.Module, deltas: Tensor) -> None:
        super().__init__("image")
        self.encoder, self.scorer, self.deltas = image, scorer, deltas
        self.weights = weights_digest(image, scorer, deltas)
        self.scoring = {name: value for name, value in vars(scorer).items() if isinstance(value, bool | int | float)}

    @torch.no_grad()
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        device = self.deltas.device
        body = scan_body(data, self.encoder.stride).to(device)  # type: ignore[arg-type]
        encoded: ImageEmbedding = self.encoder(data["image"].as_tensor()[None].to(device).float(), body=body)
        anatomies = torch.tensor(FINDING_ANATOMY, device=device)
        zero_shot, _ = self.scorer(
            encoded.anatomy, encoded.anatomy_valid, encoded.field, encoded.membership, self.deltas[None], anatomies
        )
        rows = {
            "anatomy": encoded.anatomy,
            "anatomy_valid": encoded.anatomy_valid,
            "pathology": encoded.pathology,
            "pathology_valid": encoded.pathology_valid,
            "field": _field_statistics(encoded),
            "zero_shot": zero_shot,
        }
        return {"id": data["id"], **{name: value[0].cpu().clone() for name, value in rows.items()}}


def _field_statistics(encoded: ImageEmbedding) -> Tensor:
    """Mean and maximum of the token field over the body, ``[B, 2 E]``; zero for a scan without a body."""
    body = encoded.membership[:, :, THORAX, None]
    mean = (encoded.field * body).sum(dim=1) / body.sum(dim=1).clamp(min=1)
    largest = encoded.field.masked_fill(~body, -2.0).amax(dim=1)
    return torch.cat([mean, largest * body.any(dim=1)], dim=1)


def check_features(features: Sequence[str]) -> None:
    """ValueError if there is no feature, or one that is not in ``FEATURES``."""
    if not features or (unknown := [name for name in features if name not in FEATURES]):
        got = repr(unknown[0]) if features else "none"
        raise ValueError(f"features: expected some of {', '.join(FEATURES)}, got {got}")


def scan_features(rows: Rows | ImageEmbedding, features: Sequence[str]) -> Tensor:
    """One vector a scan from its rows, ``[S, F]``.

    ValueError as ``check_features``, or the encoder has none of the features.
    """
    check_features(features)
    if isinstance(rows, ImageEmbedding):
        rows = {"anatomy": rows.anatomy, "pathology": rows.pathology, "field": _field_statistics(rows)}
    row = torch.cat([rows[name].flatten(1) for name in features], dim=1)
    if row.shape[1] == 0:
        raise ValueError(f"features: this encoder has no {' or '.join(features)}; add 'anatomy'")
    return row


def unseen_scans(studies: Sequence[Mapping[str, Any]], rows: Rows) -> list[str]:
    """A line that names the scans in which the encoder found no body, whose rows are zero; none if it always did."""
    unseen = [str(s["id"]) for s, seen in zip(studies, rows["anatomy_valid"][:, THORAX], strict=True) if not seen]
    return [f"no body was found in {', '.join(unseen)}: their rows are zero"] if unseen else []


class ScanEncoder:
    """The image-text model of a checkpoint, and the encoded scans of a data set.

    Args:
        network: geometry of the checkpoint.
        ckpt_path: checkpoint of the bundle; None keeps the random weights, for a baseline.
        preprocessing: image pipeline of whole scans.
        device: where scans are encoded.
        cache_dir: folder of the encoded scans; None encodes them at every run.
        cache_key: parameters of the pipeline, see ``cached_dataset``.

    Raises:
        ValueError: the network is not an image-text model of this bundle, such as a converted published one.
    """

    def __init__(
        self,
        network: VisionLanguageModel,
        ckpt_path: str | Path | None,
        preprocessing: Sequence[Transform],
        device: str | torch.device = "cpu",
        cache_dir: str | Path | None = None,
        cache_key: Any = None,
    ) -> None:
        if not isinstance(network, VisionLanguageModel):
            raise ValueError(
                f"network_def: expected an image-text model of this bundle, found {type(network).__name__}; the "
                "downstream tasks do not run on converted published models (fvlm.json, radfinder.json)"
            )
        self.network, self.ckpt_path, self.device = network, ckpt_path, torch.device(device)
        self.preprocessing, self.cache_dir, self.cache_key = list(preprocessing), cache_dir, cache_key

    def load(self) -> None:
        """Loads the checkpoint; ValueError if it does not fit the network."""
        if self.ckpt_path is not None:
            load_checkpoint(self.network, self.ckpt_path)
        self.network.to(self.device).eval()

    def encode(self, studies: Sequence[dict[str, Any]], name: str = "") -> Rows:
        """The rows of studies from ``load_datalist``, stacked in their order; `name` labels the progress bar."""
        with torch.no_grad():
            prompts = mean_over_templates(template_bank(self.network.text))
        deltas = (prompts[:, 0] - prompts[:, 1]).to(self.device)
        self.network.eval()
        step = EncodeRowsd(self.network.image, self.network.scorer, deltas)
        bare = bare_studies(studies)
        steps = [*whole_scan_steps(self.preprocessing), step]
        encoded = CachedStudies(bare, steps, (), self.cache_dir, ["rows", self.cache_key])
        scans = [encoded[index] for index in progress_bar(range(len(bare)), name, unit="scan")]
        return {key: torch.stack([scan[key] for scan in scans]) for key in scans[0] if key != "id"}
