"""Valid input files of every kind, seeded mutations of their bytes, and what became of a mutated file.

Every outcome must be a result or one line of this package: an error that names the file, without a traceback.
"""

import gzip
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pydicom
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from bundle.ctfindings.cli.error_lines import input_error
from bundle.ctfindings.cli.options import read_configs
from bundle.ctfindings.data.datalist import load_datalist, split_names
from bundle.ctfindings.files.csv_table import read_table
from bundle.ctfindings.networks.checkpoint import read_checkpoint
from bundle.ctfindings.scan.load_scan import load_scan
from bundle.ctfindings.sources.preparation.columns import map_columns, read_labels

SHAPE = (24, 20, 6)
AFFINE = np.array([[-4.0, 0, 0, 48], [0, -4, 0, 40], [0, 0, 6, -18], [0, 0, 0, 1]])
EXTREMES = ("-1", "0", "1e308", "nan", "", "99999999999", "-0.0", "1\\2", "4", "[]", "null", "\u00e9")


class Outcome(NamedTuple):
    """What became of one mutated file; ``result`` is read, refused or the traceback's error."""

    kind: str
    seed: int
    result: str
    detail: str
    seconds: float


def chest() -> np.ndarray:
    """HU (X, Y, Z) int16: soft tissue with two lungs, in air, with noise."""
    hu = np.full(SHAPE, -1000)
    hu[3:21, 3:17] = 40
    hu[5:11, 6:14] = hu[13:19, 6:14] = -850
    return (hu + np.random.default_rng(0).integers(-15, 15, SHAPE)).astype(np.int16)


def _nifti(path: Path) -> None:
    nib.save(nib.Nifti1Image(chest(), AFFINE), path)


def _nifti2(path: Path) -> None:
    nib.save(nib.Nifti2Image(chest(), AFFINE), path)


def _nrrd(path: Path) -> None:
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 24 20 6\n"
        "space directions: (4,0,0) (0,4,0) (0,0,6)\nkinds: domain domain domain\nendian: little\n"
        "encoding: gzip\nspace origin: (-48,-40,-18)\n\n"
    )
    path.write_bytes(header.encode() + gzip.compress(chest().tobytes(order="F")))


def _metaimage(path: Path) -> None:
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = -48 -40 -18\nElementSpacing = 4 4 6\nDimSize = 24 20 6\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + chest().tobytes(order="F"))


def _dicom(path: Path) -> None:
    """The slices of a series behind each other: the mutated bytes are those of the folder as a whole."""
    path.mkdir()
    hu = chest()
    for z in range(SHAPE[2]):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = UID(f"1.2.3.{z + 1}")
        image.Modality, image.SeriesInstanceUID, image.SeriesNumber = "CT", "1.2.3", 3
        image.InstanceNumber, image.AcquisitionNumber, image.ImageType = z + 1, 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.ImagePositionPatient, image.ImageOrientationPatient = [-48, -40, -18 + 6 * z], [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.Rows, image.Columns = [4, 4], SHAPE[1], SHAPE[0]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.RescaleSlope, image.RescaleIntercept, image.PixelPaddingValue = 1, 0, -2000
        image.PixelData = hu[:, :, z].T.astype("<i2").tobytes()
        pydicom.dcmwrite(path / f"{z}.dcm", image, enforce_file_format=True)


def _datalist(path: Path) -> None:
    study = {
        "id": "a", "patient": "p", "image": "a.nii.gz", "labels": [1, 0, -1] * 6, "stored": {"intercept": -8192},
        "report": {"findings": "No effusion.", "impression": ""}, 
        "captions": {"lung": {"text": "Clear.", "normal": True}},
        "snippets": [{"text": "Nodule.", "z_mm": 3.5}],
    }  # fmt: skip
    path.write_text(json.dumps({"training": [study], "validation": [], "test": [study]}))


def _csv(path: Path) -> None:
    path.write_text('id,image,findings,Pleural effusion\na,a.nii.gz,"No effusion, clear.",0\nb,b.nii.gz,Effusion.,1\n')


def _checkpoint(path: Path) -> None:
    torch.save({"image.weight": torch.arange(12.0).reshape(3, 4), "bank.bias": torch.zeros(3)}, path)


def _config(path: Path) -> None:
    path.write_text(
        json.dumps({"imports": ["$import torch"], "spacing": [4, 4, 3], "net": {"_target_": "a.B", "x": "@spacing"}})
    )


def _read_datalist(path: Path) -> None:
    for split in split_names(path):
        load_datalist(path, split)


def _read_csv(path: Path) -> None:
    mapping = map_columns(read_table(path), {})
    for row in mapping.table.rows:
        read_labels(mapping.table, row, mapping.labels)


KINDS: dict[str, tuple[str, Callable[[Path], None], Callable[[Path], Any]]] = {
    "NIfTI": ("a.nii", _nifti, load_scan),
    "NIfTI 2": ("a.nii", _nifti2, load_scan),
    "NIfTI, gzip": ("a.nii.gz", _nifti, load_scan),
    "NRRD": ("a.nrrd", _nrrd, load_scan),
    "MetaImage": ("a.mha", _metaimage, load_scan),
    "DICOM": ("series", _dicom, load_scan),
    "datalist": ("datalist.json", _datalist, _read_datalist),
    "CSV": ("table.csv", _csv, _read_csv),
    "checkpoint": ("model.pt", _checkpoint, read_checkpoint),
    "config": ("config.json", _config, lambda path: read_configs([str(path)])),
}
"""By kind of file: its name, the writer of a valid one, and the reader."""


def mutate(content: bytes, rng: np.random.Generator, is_text: bool) -> bytes:
    """One to three changes, most of them in the first kilobyte, where headers are."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        reach = min(len(data), 1024) if rng.random() < 0.8 else len(data)
        at = int(rng.integers(0, max(1, reach)))
        length = int(rng.choice([1, 2, 4, 8, 64]))
        match int(rng.integers(0, 7)):
            case 0:
                data[at : at + length] = rng.bytes(min(length, len(data) - at))
            case 1:
                data[at : at + length] = bytes(min(length, len(data) - at))
            case 2:
                data[at : at + length] = b"\xff" * min(length, len(data) - at)
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length]
            case 5 if is_text:
                numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", bytes(data[:2048])))
                if numbers:
                    number = numbers[int(rng.integers(len(numbers)))]
                    data[number.start() : number.end()] = str(rng.choice(EXTREMES)).encode()
            case 5 if at < len(data):
                data[at] ^= 1 << int(rng.integers(0, 8))
            case _ if rng.random() < 0.3:
                del data[int(rng.integers(0, len(data) + 1)) :]
    return bytes(data)


def outcome(kind: str, seed: int, folder: Path) -> Outcome:
    """Writes a file of a kind into an empty folder, mutates it, and reads it."""
    name, write, read = KINDS[kind]
    rng = np.random.default_rng([seed, *kind.encode()])
    path = folder / name
    write(path)
    if path.is_dir():
        for file in rng.permutation(sorted(path.iterdir()))[: int(rng.integers(1, 4))]:
            file.write_bytes(mutate(file.read_bytes(), rng, False))
    elif name.endswith(".gz") and rng.random() < 0.7:
        path.write_bytes(gzip.compress(mutate(gzip.decompress(path.read_bytes()), rng, False), 1))
    else:
        path.write_bytes(mutate(path.read_bytes(), rng, name.endswith((".json", ".csv", ".nrrd", ".mha"))))
    started = time.perf_counter()
    result, detail = "read", ""
    try:
        read(path)
    except Exception as error:
        ours = input_error(error)
        one_line = ours is not None and "\n" not in str(ours) and (path.name in str(ours) or str(path) in str(ours))
        result = "refused" if one_line else type(error).__name__
        detail = str(error)
    return Outcome(kind, seed, result, detail, time.perf_counter() - started)
