"""Finding masks reach the network's grid at the right place, and small lesions are not lost on it."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.ctfindings.data.finding_masks import ResampleFindingMaskd
from bundle.ctfindings.files.errors import ScanError


def image_of(spacing: float = 4.0, size: int = 10, origin: float = 0.0, scan_origin: float = 0.0) -> MetaTensor:
    """A part of a scan of 40 voxels along each axis."""
    affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64))
    affine[:3, 3] = origin
    scan = affine.clone()
    scan[:3, 3] = scan_origin
    meta = {"original_affine": scan, "spatial_shape": np.array([40, 40, 40])}
    return MetaTensor(torch.zeros(1, size, size, size), affine=affine, meta=meta)


def mask_of(folder: Path, bits: np.ndarray, affine: np.ndarray) -> str:
    path = folder / "masks.nii.gz"
    nib.save(nib.Nifti1Image(bits.astype(np.int32), affine), path)
    return str(path)


def test_one_marked_voxel_marks_the_voxel_it_falls_into_whatever_the_orientation(tmp_path: Path) -> None:
    bits = np.zeros((20, 20, 20))
    bits[3, 5, 7] = 1 << 9
    # Stored as L, A, I: x = 38 - 2 i, y = 2 j, z = 38 - 2 k.
    affine = np.array([[-2.0, 0, 0, 38], [0, 2, 0, 0], [0, 0, -2, 38], [0, 0, 0, 1]])
    study = ResampleFindingMaskd()({"finding_masks": mask_of(tmp_path, bits, affine), "image": image_of()})
    voxels = study["finding_masks"]
    assert voxels.shape == (1, 10, 10, 10) and voxels.dtype == torch.int32
    assert voxels.nonzero().tolist() == [[0, 8, 2, 6]]
    assert voxels[0, 8, 2, 6] == 1 << 9


def test_findings_that_share_a_voxel_keep_their_bits(tmp_path: Path) -> None:
    bits = np.zeros((20, 20, 20))
    bits[4, 4, 4], bits[5, 5, 5] = 1, 1 << 17
    voxels = ResampleFindingMaskd()(
        {"finding_masks": mask_of(tmp_path, bits, np.diag([1.0, 1, 1, 1])), "image": image_of()}
    )["finding_masks"]
    assert voxels[0, 1, 1, 1] == 1 | 1 << 17


def test_a_large_finding_has_no_gaps_where_its_slices_are_thicker_than_the_grid(tmp_path: Path) -> None:
    bits = np.zeros((20, 20, 8))
    bits[4:16, 4:16, 2:6] = 1
    study = {"finding_masks": mask_of(tmp_path, bits, np.diag([2.0, 2, 5, 1])), "image": image_of(3.0)}
    marked = ResampleFindingMaskd()(study)["finding_masks"][0].numpy()
    z = np.flatnonzero(marked.any(axis=(0, 1)))
    assert np.array_equal(z, np.arange(z[0], z[-1] + 1)) and (z[0], z[-1]) == (
        3,
        9,
    )  # 9 to 27 mm
    assert np.ptp([marked[:, :, level].sum() for level in z]) == 0


def test_what_lies_outside_the_image_is_left_out(tmp_path: Path) -> None:
    bits = np.ones((4, 4, 4))
    voxels = ResampleFindingMaskd()(
        {"finding_masks": mask_of(tmp_path, bits, np.diag([4.0, 4, 4, 1])), "image": image_of(origin=100.0)}
    )
    assert voxels["finding_masks"].sum() == 0


def test_a_mask_of_another_place_is_refused(tmp_path: Path) -> None:
    path = mask_of(tmp_path, np.ones((4, 4, 4)), np.diag([4.0, 4, 4, 1]))
    with pytest.raises(ScanError, match=r"masks\.nii\.gz: does not overlap the scan"):
        ResampleFindingMaskd()({"finding_masks": path, "image": image_of(origin=200.0, scan_origin=200.0)})


def test_a_study_without_masks_stays_as_it_is() -> None:
    assert set(ResampleFindingMaskd()({"image": image_of()})) == {"image"}


@pytest.mark.parametrize("content", ["damaged", "foreign bits"])
def test_a_file_that_is_no_finding_mask_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = mask_of(tmp_path, np.full((4, 4, 4), 1 << 20), np.eye(4))
    if content == "damaged":
        Path(path).write_bytes(Path(path).read_bytes()[:40])
    with pytest.raises(ScanError, match=r"masks\.nii\.gz: "):
        ResampleFindingMaskd()({"finding_masks": path, "image": image_of()})
