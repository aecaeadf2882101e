"""Fixtures of a small scan that looks different from every side, and a writer of DICOM series."""

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SPACING = (2.0, 2.5, 3.0)
ORIGIN = (-61.0, 17.0, -300.0)
LPS = np.diag([-1.0, -1.0, 1.0])


@pytest.fixture(scope="session")
def hu() -> np.ndarray:
    """HU (X, Y, Z) int16 in RAS: a body with two unlike lungs, a calcified ball at the left front top, on a table."""
    x, y, z = np.meshgrid(*(np.arange(size, dtype=float) for size in (64, 52, 44)), indexing="ij")
    volume = np.full(x.shape, -1000.0)
    volume[((x - 32) / 26) ** 2 + ((y - 28) / 18) ** 2 < 1] = 40
    for centre, radius in ((20, 9), (44, 7)):
        volume[((x - centre) / radius) ** 2 + ((y - 28) / 11) ** 2 + ((z - 22) / 18) ** 2 < 1] = -850
    volume[(x - 22) ** 2 + (y - 36) ** 2 + (z - 34) ** 2 < 16] = 700
    volume[4:60, 3, :] = 100
    return (volume + 5 * np.sin(x + 2 * y + 3 * z)).round().astype(np.int16)


@pytest.fixture(scope="session")
def affine() -> np.ndarray:
    """Voxels of ``hu`` to RAS mm."""
    matrix = np.diag([*SPACING, 1.0])
    matrix[:3, 3] = ORIGIN
    return matrix


@pytest.fixture
def nifti(tmp_path: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(hu, affine), path)
    return path


WriteDicom = Callable[..., Path]


@pytest.fixture(scope="session")
def write_dicom() -> WriteDicom:
    """Write HU (X, Y, Z) in RAS as an axial series, slices in no particular order, with an intercept of -1024."""

    def write(
        folder: Path,
        hu: np.ndarray,
        affine: np.ndarray,
        number: int = 3,
        description: str = "Chest",
        image_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "AXIAL"),
        keep: Sequence[int] | None = None,
        slope: float = 1.0,
        tilt_degrees: float = 0.0,
        orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        series, study, frame = generate_uid(), generate_uid(), generate_uid()
        # DICOM rows run to the left and columns to the back: the first pixel is the right front one.
        for z in np.random.default_rng(0).permutation(hu.shape[2]) if keep is None else keep:
            pixels = hu[::-1, ::-1, z].T
            first = LPS @ (affine @ [hu.shape[0] - 1, hu.shape[1] - 1, z, 1])[:3]
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
            image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
            image.PatientName, image.PatientID, image.PatientSex = "Doe^Jane", "4711", "F"
            image.StudyInstanceUID, image.FrameOfReferenceUID, image.StudyDate = study, frame, "20200229"
            image.Modality, image.SeriesInstanceUID, image.SeriesNumber = "CT", series, number
            image.SeriesDescription, image.ImageType, image.InstanceNumber = description, list(image_type), int(z) + 1
            image.ImagePositionPatient = [float(value) for value in first]
            cos, sin = np.cos(np.radians(tilt_degrees)), np.sin(np.radians(tilt_degrees))
            image.ImageOrientationPatient = [1, 0, 0, 0, float(cos), float(sin)] if tilt_degrees else list(orientation)
            image.PixelSpacing = [float(np.linalg.norm(affine[:3, 1])), float(np.linalg.norm(affine[:3, 0]))]
            image.Rows, image.Columns = pixels.shape
            image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
            image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
            image.RescaleSlope, image.RescaleIntercept = slope, -1024
            image.PixelData = (
                np.ascontiguousarray((pixels.astype(float) + 1024) / slope).round().astype(np.uint16).tobytes()
            )
            pydicom.dcmwrite(folder / f"{series[-8:]}_{z:03d}", image, enforce_file_format=True)
        return folder

    return write
