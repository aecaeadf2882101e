"""Sources of anatomy masks: TotalSegmentator, a MONAI bundle, or thresholds, shape and the anatomy head."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from bundle.ctfindings.anatomy import ANATOMIES, ANATOMY_NAMES, THORAX
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.fingerprint import input_signature
from bundle.ctfindings.inference.service import FindingsService, load_service
from bundle.ctfindings.scan.anatomy_mask import load_anatomy_mask
from bundle.ctfindings.scan.body_mask import body_mask
from bundle.ctfindings.scan.load_scan import load_scan
from bundle.ctfindings.scan.lung_mask import lung_mask

MASK_VERSION = 2
"""Raised when a source gives other masks, so that older masks are made again."""

_LUNG = ANATOMIES[ANATOMY_NAMES.index("lung")].mask_id
_BODY = ANATOMIES[THORAX].mask_id


class MaskSource(NamedTuple):
    """Program that makes the masks."""

    name: str  # "totalsegmentator", "bundle" or "classical"
    folder: str = ""  # MONAI bundle for "bundle"; this bundle, whose weights are used, for "classical"
    fast: bool = False  # whether TotalSegmentator runs at 3 mm


class MaskTask(NamedTuple):
    """One mask to make."""

    image: str  # path of the scan
    stored: dict[str, Any] | None  # entry "stored" of its study record
    target: str  # path of the mask, .nii.gz
    source: MaskSource


def choose_source(
    bundle_root: str | Path, bundle: str | Path | None = None, wanted: str = "auto", fast: bool = False
) -> MaskSource:
    """The requested source; for ``auto`` the first available of MONAI bundle, TotalSegmentator and classical mask.

    ``bundle`` is the folder of the MONAI bundle ``wholeBody_ct_segmentation``; for ``fast`` see ``MaskSource``.
    ValueError if the requested source is not available.
    """
    if bundle is not None and wanted in ("auto", "bundle"):
        if not (Path(bundle) / "configs" / "inference.json").is_file():
            raise ValueError(
                f"{bundle}: expected a MONAI bundle, found no configs/inference.json; "
                "give the folder of wholeBody_ct_segmentation"
            )
        if not any((Path(bundle) / "models").glob("*.pt")):
            raise ValueError(
                f"{bundle}: no weights in models/; download them first: "
                "python -m monai.bundle download wholeBody_ct_segmentation --bundle_dir FOLDER"
            )
        return MaskSource("bundle", str(Path(bundle).resolve()))
    if wanted == "bundle":
        raise ValueError("--source bundle needs the folder of a MONAI bundle; add --bundle FOLDER")
    problem = _totalsegmentator_problem()
    if wanted == "totalsegmentator" and problem:
        raise ValueError(f"source totalsegmentator: {problem}")
    if wanted in ("auto", "totalsegmentator") and not problem:
        return MaskSource("totalsegmentator", fast=fast)
    return MaskSource("classical", str(Path(bundle_root).resolve()))


def _totalsegmentator_problem() -> str:
    """Why TotalSegmentator cannot run, empty if it can. Without weights it would start a download unasked."""
    if shutil.which("TotalSegmentator") is None:
        return "no program TotalSegmentator on PATH; install it, or omit --source"
    home = Path(os.environ.get("TOTALSEG_HOME_DIR", Path.home() / ".totalsegmentator"))
    weights = Path(os.environ.get("TOTALSEG_WEIGHTS_PATH", home / "nnunet" / "results"))
    if not weights.is_dir() or not any(weights.iterdir()):
        return f"no weights in {weights}; download them first: totalseg_download_weights -t total"
    return ""


def make_mask(task: MaskTask) -> int:
    """Writes the anatomy mask of a scan on its own grid, NIfTI uint8 with the ids of ``ANATOMIES``; returns its bytes.

    ScanError if the scan cannot be used or the source fails.
    """
    scan = load_scan(task.image, task.stored)
    hu, affine = scan[0].numpy(), np.asarray(scan.affine, np.float64)
    body = body_mask(hu, affine)
    labels = _classical(task, hu, affine, body) if task.source.name == "classical" else _external(task, scan)
    labels[(labels == 0) & body] = _BODY
    image = nib.Nifti1Image(labels, affine)
    image.header["descrip"] = f"ctfindings mask {MASK_VERSION} {task.source.name}".encode()
    with atomic_path(task.target) as temporary:
        nib.save(image, temporary)
        return temporary.stat().st_size


def _classical(
    task: MaskTask, hu: NDArray[np.float32], affine: NDArray[np.float64], body: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Lungs by threshold and shape; between them the anatomy head, which is often wrong elsewhere on real scans."""
    lungs = lung_mask(hu, affine)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "anatomy.nii.gz"
        _service(task.source.folder).answer_file(task.image, stored=task.stored).write_anatomy(path)
        labels = np.array(np.asanyarray(nib.load(path).dataobj), np.uint8)  # type: ignore[attr-defined]
    labels[(labels == _LUNG) | ~body | ~_between(lungs, affine)] = 0
    labels[lungs] = _LUNG
    return labels


def _between(lungs: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Voxels with lung on their left and on their right."""
    across = int(np.abs(affine[0, :3]).argmax())
    after = np.logical_or.accumulate(lungs, axis=across)
    return after & np.flip(np.logical_or.accumulate(np.flip(lungs, across), axis=across), across)


@lru_cache(maxsize=1)
def _service(folder: str) -> FindingsService:
    """One for each process, however many scans it gets."""
    return load_service(folder, text=False)


def _external(task: MaskTask, scan: MetaTensor) -> NDArray[np.uint8]:
    """Mask of another program, which gets the scan as NIfTI in HU whatever the scan's own format is."""
    with tempfile.TemporaryDirectory() as folder:
        given, answers = Path(folder) / "scan.nii.gz", Path(folder) / "answer"
        answers.mkdir()
        # Metal beyond the range would turn into air.
        hu = np.rint(scan[0].numpy()).clip(-(2**15), 2**15 - 1).astype(np.int16)
        nib.save(nib.Nifti1Image(hu, np.asarray(scan.affine, np.float64)), given)
        if task.source.name == "totalsegmentator":
            command = ["TotalSegmentator", "-i", str(given), "-o", str(answers / "mask.nii.gz"), "--ml", "--quiet"]
            command += ["--fast"] if task.source.fast else []
            mapping, where = "totalsegmentator", None
        else:
            command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
            command += ["--bundle_root", ".", "--datalist", json.dumps([str(given)]), "--output_dir", str(answers)]
            mapping, where = "totalsegmentator_v1", task.source.folder
        result = subprocess.run(
            command, cwd=where, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        masks = sorted(answers.rglob("*.nii.gz"))
        if result.returncode != 0 or len(masks) != 1:
            last = (result.stderr.strip().splitlines() or ["no message"])[-1]
            problem = f"{task.source.name} gave no mask ({last[:200]}); run it by hand to see why"
            raise ScanError(task.image, problem, "no-mask")
        mask, _ = load_anatomy_mask(masks[0], mapping, scan)
        return mask[0].numpy().copy()


def mask_signature(task: MaskTask) -> str:
    """Digest of all that a mask depends on: scan, ``stored``, source and weights."""
    paths = [task.image]
    if task.source.folder:
        # The config of another bundle chooses among several weights.
        paths.append(str(Path(task.source.folder) / "models" / ("model.pt" if task.source.name == "classical" else "")))
    return f"{MASK_VERSION}:{task.source.name}:{input_signature(paths, task.stored, task.source.fast)}"
