"""From a file to an encoded scan: it is read, preprocessed and encoded once, and every answer reads the encoding."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Transform
from torch import Tensor

from bundle.ctfindings.inference.findings_record import ScanInfo
from bundle.ctfindings.networks.classifier import ZeroShotClassifier
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.scan.coordinates import Array, as_affine, orientation_code, voxel_spacing, voxel_to_world
from bundle.ctfindings.scan.lung_mask import lung_litres

FORMAT_NAMES = {"nifti": "NIfTI", "nrrd": "NRRD", "metaimage": "MetaImage", "npz": "NumPy", "dicom": "DICOM"}


class TimedPreprocessing(Transform):
    """Image pipeline that also keeps the scan as loaded, measures its time, and warns if the scan shows no whole chest.

    Adds ``scan``, ``[1, X, Y, Z]`` HU on its own grid, and ``seconds`` of the stages ``load`` and ``preprocess``.

    Args:
        steps: transforms of the image pipeline; the first one loads the scan.
        min_lung_litres: litres of air-filled lung below which a scan gets a warning; 0 switches the check off.
    """

    def __init__(self, steps: Sequence[Transform], min_lung_litres: float = 0.0) -> None:
        self.min_lung_litres = min_lung_litres
        self.load = steps[0]
        self.preprocess = Compose(list(steps[1:]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        started = time.perf_counter()
        loaded = self.load(data)
        loaded_at = time.perf_counter()
        study, scan = self.preprocess(loaded), loaded["image"]
        if self.min_lung_litres > 0:
            self._check_chest(scan)
        seconds = {"load": loaded_at - started, "preprocess": time.perf_counter() - loaded_at}
        return {**study, "scan": scan, "seconds": seconds}

    def _check_chest(self, scan: MetaTensor) -> None:
        litres = lung_litres(scan.as_tensor()[0].numpy(), scan.affine.numpy())
        if litres < self.min_lung_litres:
            scan.meta["warnings"].append(
                f"{scan.meta['filename_or_obj']}: shows {litres:.1f} litres of air-filled lung, less than the "
                f"{self.min_lung_litres:g} of a whole chest; findings outside the field of view cannot be seen"
            )


@dataclass(frozen=True)
class EncodedScan:
    """A scan after its encoding, without its voxels."""

    embedding: ImageEmbedding  # of one scan, on the CPU
    scan: ScanInfo
    token_affine: Array  # token index to RAS mm of the token's centre, (4, 4)
    midline_mm: float  # world x of the patient's midline
    warnings: Sequence[str]  # from reading the scan, one line each, without the folder of the scan
    seconds: Mapping[str, float]  # time of the stages load, preprocess and encode

    @property
    def grids(self) -> tuple[Array, Array, tuple[int, int, int]]:
        """Affines of the tokens and of the scan, to RAS mm, and the shape of the scan."""
        return self.token_affine, as_affine(self.scan.affine), self.scan.shape


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
    embedding = moved(network.image.encode_scan(_batch(image, device).float(), mask, known), torch.device("cpu"))
    seconds = {**study["seconds"], "encode": time.perf_counter() - started}
    scan: MetaTensor = study["scan"]
    file = scan.meta["filename_or_obj"]
    info = describe_scan(name or file, FORMAT_NAMES[scan.meta["source_format"]], scan.shape[1:], scan.affine)
    affine = as_affine(image.affine)
    # The pipeline crops to the body and pads evenly, so the centre of the network's grid is the body's midline.
    centre = voxel_to_world([(size - 1) / 2 for size in image.shape[1:]], affine)
    tokens = token_affine(affine, network.image.tower.stride)  # type: ignore[arg-type]
    # The folders of a path may name a patient.
    warnings = [str(line).replace(str(file), info.file) for line in scan.meta["warnings"]]
    return EncodedScan(embedding, info, tokens, float(centre[0]), warnings, seconds)


def token_affine(affine: Array, stride: Sequence[int]) -> Array:
    """Token index to RAS mm of the token's centre, ``(4, 4)``, from that of the network's grid and voxels per token."""
    to_voxel = np.diag([*stride, 1.0])
    to_voxel[:3, 3] = [(step - 1) / 2 for step in stride]
    return np.asarray(affine @ to_voxel)


def describe_scan(file: str | Path, format: str, shape: Sequence[int], affine: Any) -> ScanInfo:
    """Geometry of a scan from its shape ``(X, Y, Z)`` and affine (RAS mm); only the name of the path is kept."""
    matrix = as_affine(affine)
    spacing = voxel_spacing(matrix)
    x, y, z = (int(size) for size in shape)
    extent = (x * spacing[0], y * spacing[1], z * spacing[2])
    return ScanInfo(
        Path(file).name, format, (x, y, z), spacing, orientation_code(matrix), matrix.tolist(), extent_mm=extent
    )


def moved(embedding: ImageEmbedding, device: torch.device) -> ImageEmbedding:
    """The embedding on another device."""
    parts: list[Any] = [part.to(device) if isinstance(part, Tensor) else part for part in embedding]
    return ImageEmbedding(*parts)


def _batch(tensor: Tensor, device: torch.device) -> Tensor:
    return (tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor)[None].to(device)
