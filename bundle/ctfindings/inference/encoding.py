"""From a file to an encoded scan: it is read, preprocessed and encoded once, and every answer reads the encoding."""

import math
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Transform
from numpy.typing import NDArray
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.data.chest_regions import ChestRegionsd
from bundle.ctfindings.inference.answers import ScoredAnswer
from bundle.ctfindings.inference.findings_record import AnatomyDomain, DomainAnswer, Evidence, ScanInfo
from bundle.ctfindings.inference.regions import GivenMask, Regions, body_tokens, find_regions
from bundle.ctfindings.networks.classifier import ZeroShotClassifier
from bundle.ctfindings.networks.domain import Domain, domain_features
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.scan.coordinates import Array, as_affine, orientation_code, voxel_spacing, voxel_to_world
from bundle.ctfindings.scan.lung_mask import ChestRegions
from bundle.ctfindings.scan.storage import SourceImages

FORMAT_NAMES = {"nifti": "NIfTI", "nrrd": "NRRD", "metaimage": "MetaImage", "npz": "NumPy", "dicom": "DICOM"}


CUT_SHARE = 0.75
"""A scan whose outermost sagittal plane shows more than this share of the largest area of the body is cut there."""


class TimedPreprocessing(Transform):
    """Image pipeline that also keeps the scan as loaded, finds its body and lungs, and measures its time.

    Adds ``scan``, ``[1, X, Y, Z]`` HU on its own grid, ``regions`` (see ``ChestRegionsd``), and ``seconds`` of the
    stages ``load`` and ``preprocess``.

    Args:
        steps: transforms of the image pipeline; the first one loads the scan.
    """

    def __init__(self, steps: Sequence[Transform]) -> None:
        self.load = steps[0]
        self.preprocess = Compose([ChestRegionsd("image"), *steps[1:]])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        started = time.perf_counter()
        loaded = self.load(data)
        loaded_at = time.perf_counter()
        study, scan = self.preprocess(loaded), loaded["image"]
        seconds = {"load": loaded_at - started, "preprocess": time.perf_counter() - loaded_at}
        return {**study, "scan": scan, "seconds": seconds}


@dataclass(frozen=True)
class EncodedScan:
    """A scan after its encoding, without its voxels."""

    embedding: ImageEmbedding  # of one scan, on the CPU
    scan: ScanInfo
    token_affine: Array  # token index to RAS mm of the token's centre, (4, 4)
    regions: Regions  # where the answers may look
    domain: DomainAnswer | None  # whether the scan is like the training scans; None if the weights do not know
    midline_mm: float | None  # world x of the patient's midline; None where the scan shows one side only
    warnings: Sequence[str]  # from reading the scan, one line each, without the folder of the scan
    unseen: Sequence[str]  # findings that the values of the file cannot show
    seconds: Mapping[str, float]  # time of the stages load, preprocess and encode
    source: SourceImages | None = None  # the DICOM images of the slices

    @property
    def grids(self) -> tuple[Array, Array, tuple[int, int, int]]:
        """Affines of the regions and of the scan, to RAS mm, and the shape of the scan."""
        return self.regions.affine, as_affine(self.scan.affine), self.scan.shape

    def on_source(self, evidence: Evidence | None) -> Evidence | None:
        """The evidence with the DICOM image of its slice, if the scan has one."""
        if evidence is None or self.source is None:
            return evidence
        index, source = evidence.slice_index, self.source
        return replace(
            evidence,
            sop_instance_uid=source.sop_uids[index],
            instance_number=source.instance_numbers[index],
            frame_number=source.frame_numbers[index],
        )

    def evidence_map(self, scored: ScoredAnswer) -> NDArray[np.float32]:
        """The evidence of an answer on the grid of the regions, zero outside its anatomy and a margin."""
        return self.regions.confine(scored.token_map.numpy(), scored.row)


@torch.inference_mode()
def encode_study(network: ZeroShotClassifier, study: Mapping[str, Any], name: str | None = None) -> EncodedScan:
    """Encodes one study, the output of ``TimedPreprocessing``, on the device of the network.

    Without a mask (``anatomy`` with ``anatomy_known``) the anatomy head's prediction is used. ``name`` is the name of
    the scan in the record, by default its file name.
    """
    started = time.perf_counter()
    device = network.finding_anatomy.device
    image: MetaTensor = study["image"]
    mask, known = (_batch(study[key], device) if key in study else None for key in ("anatomy", "anatomy_known"))
    affine = as_affine(image.affine)
    stride: Sequence[int] = network.image.tower.stride  # type: ignore[assignment]
    tokens = token_affine(affine, stride)
    grid = [-(-size // step) for size, step in zip(image.shape[1:], stride, strict=True)]
    chest = ChestRegions(study["regions"][0].numpy(), as_affine(study["regions_affine"]))
    body = torch.from_numpy(body_tokens(chest, tokens, grid)).flatten()[None].to(device)
    voxels = _batch(image, device).float()
    encoded = network.image.encode_scan(voxels, mask, known, body)
    domain = _domain_answer(network.domain, voxels, encoded, stride, body)
    embedding = moved(encoded, torch.device("cpu"))
    regions = find_regions(chest, embedding, 0, tokens, None if mask is None else _given_mask(study))
    seconds = {**study["seconds"], "encode": time.perf_counter() - started}
    scan: MetaTensor = study["scan"]
    file = scan.meta["filename_or_obj"]
    source: SourceImages | None = scan.meta["source_images"]
    uid = source and source.series_uid
    info = describe_scan(name or file, FORMAT_NAMES[scan.meta["source_format"]], scan.shape[1:], scan.affine, uid)
    # The folders of a path may name a patient.
    warnings = [str(line).replace(str(file), info.file) for line in scan.meta["warnings"]]
    unseen = scan.meta["not_assessed"]
    midline = _midline(chest, image.shape[1:], affine)
    return EncodedScan(embedding, info, tokens, regions, domain, midline, warnings, unseen, seconds, source)


def _midline(chest: ChestRegions, shape: Sequence[int], affine: Array) -> float | None:
    """World x of the middle of the body's extent; that of the network's grid if no body was found.

    None if the field of view cuts through the body on the left or right, see ``CUT_SHARE``: its middle is no midline.
    """
    body = chest.labels > 0
    if not body.any():
        return float(voxel_to_world([(size - 1) / 2 for size in shape], affine)[0])
    sagittal = np.moveaxis(body, int(np.abs(chest.affine[0, :3]).argmax()), 0).sum(axis=(1, 2))
    if max(sagittal[0], sagittal[-1]) > CUT_SHARE * sagittal.max():
        return None
    x = voxel_to_world(np.argwhere(body), chest.affine)[:, 0]
    return float(x.min() + x.max()) / 2


def token_affine(affine: Array, stride: Sequence[int]) -> Array:
    """Token index to RAS mm of the token's centre, ``(4, 4)``, from that of the network's grid and voxels per token."""
    to_voxel = np.diag([*stride, 1.0])
    to_voxel[:3, 3] = [(step - 1) / 2 for step in stride]
    return np.asarray(affine @ to_voxel)


def scan_body(study: Mapping[str, Any], stride: Any) -> Tensor:
    """Tokens of ``stride`` voxels that reach into the body, bool ``[1, N]``, of a scan from ``whole_scan_steps``."""
    grid = [size // int(step) for size, step in zip(study["image"].shape[1:], stride, strict=True)]
    chest = ChestRegions(study["regions"][0].numpy(), as_affine(study["regions_affine"]))
    tokens = body_tokens(chest, token_affine(study["image_affine"].numpy(), stride), grid)
    return torch.from_numpy(tokens).flatten()[None]


def describe_scan(
    file: str | Path, format: str, shape: Sequence[int], affine: Any, series_instance_uid: str | None = None
) -> ScanInfo:
    """Geometry of a scan from its shape ``(X, Y, Z)`` and affine (RAS mm); only the name of the path is kept."""
    matrix = as_affine(affine)
    spacing = voxel_spacing(matrix)
    x, y, z = (int(size) for size in shape)
    extent = (x * spacing[0], y * spacing[1], z * spacing[2])
    orientation = orientation_code(matrix)
    return ScanInfo(
        Path(file).name, format, (x, y, z), spacing, orientation, matrix.tolist(), extent, series_instance_uid
    )


def moved(embedding: ImageEmbedding, device: torch.device) -> ImageEmbedding:
    """The embedding on another device."""
    parts: list[Any] = [part.to(device) if isinstance(part, Tensor) else part for part in embedding]
    return ImageEmbedding(*parts)


def _domain_answer(
    domain: Domain, image: Tensor, encoded: ImageEmbedding, stride: Sequence[int], body: Tensor
) -> DomainAnswer | None:
    if not domain.fitted:
        return None
    score, by_anatomy = domain.score(domain_features(image, encoded, stride, body)[0])
    anatomies = {}
    for name, own, limit in zip(ANATOMY_NAMES, by_anatomy.tolist(), domain.anatomy_threshold.tolist(), strict=True):
        if math.isfinite(own) and math.isfinite(limit):
            anatomies[name] = AnatomyDomain(own, limit, own <= limit)
    threshold, scans = float(domain.threshold), int(domain.scans)
    if not anatomies:
        # Nothing of a chest was found.
        return DomainAnswer(None, threshold, False, {}, scans)
    return DomainAnswer(float(score), threshold, float(score) <= threshold, anatomies, scans)


def _given_mask(study: Mapping[str, Any]) -> GivenMask:
    mask: MetaTensor = study["anatomy"]
    return GivenMask(mask.as_tensor()[0].numpy(), study["anatomy_known"].numpy(), as_affine(mask.affine))


def _batch(tensor: Tensor, device: torch.device) -> Tensor:
    return (tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor)[None].to(device)
