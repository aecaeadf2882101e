"""A synthetic scan as a DICOM series of CT images, as a scanner would send it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from bundle.ctfindings.phantom.case import Case

RESCALE_INTERCEPT = -1024


def write_series(folder: Path, case: Case, image: NDArray[np.int16], affine: NDArray[np.float64]) -> None:
    """Writes one file per axial image, ``IM0001.dcm`` and so on; image 1 is the most superior one.

    The image is in HU, (X, Y, Z) in RAS+; the affine, (4, 4) without rotation, maps voxel indices to world RAS mm.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seed = [str(case.seed), case.id]
    study, series, frame = (generate_uid(entropy_srcs=[*seed, part]) for part in ("study", "series", "frame"))
    # DICOM counts to the left, to the back and upwards: x and y are turned round, rows run along y.
    stored = (image[::-1, ::-1].astype(np.int32) - RESCALE_INTERCEPT).clip(0, 65535).astype(np.uint16)
    corner = affine @ [image.shape[0] - 1, image.shape[1] - 1, 0, 1]
    for number in range(1, case.image_count + 1):
        level = case.image_count - number
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.set_pixel_data(np.ascontiguousarray(stored[:, :, level].T), "MONOCHROME2", 16)
        _describe(data, case)
        data.SOPClassUID = CTImageStorage
        data.SOPInstanceUID = generate_uid(entropy_srcs=[*seed, "image", str(number)])
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.InstanceNumber = number
        data.ImagePositionPatient = [round(-corner[0], 4), round(-corner[1], 4), round(case.z_of_image(number), 4)]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing = [round(case.spacing[1], 6), round(case.spacing[0], 6)]
        data.SliceThickness = round(case.spacing[2], 6)
        data.save_as(folder / f"IM{number:04d}.dcm", enforce_file_format=True)


def _describe(data: Dataset, case: Case) -> None:
    """Attributes of patient, study and display that all images of the series share."""
    data.PatientID = case.id
    data.PatientName = "Synthetic^Phantom"
    data.PatientBirthDate = ""
    data.PatientSex = case.sex
    data.PatientAge = f"{case.age:03d}Y"
    data.StudyDate, data.StudyTime, data.StudyID = "20200101", "120000", "1"
    data.AccessionNumber, data.ReferringPhysicianName = "", ""
    data.StudyDescription = "Synthetic chest CT, not a patient"
    data.SeriesDescription = "Chest, axial"
    data.SeriesNumber = case.series
    data.Modality = "CT"
    data.Manufacturer = "CT Findings"
    data.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    data.BodyPartExamined = "CHEST"
    data.PositionReferenceIndicator = ""
    data.PatientPosition = "HFS"
    data.KVP = 120
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = RESCALE_INTERCEPT, 1, "HU"
    data.WindowCenter, data.WindowWidth = 40, 400
