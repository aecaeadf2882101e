"""Decodes the images of one DICOM series to HU, with the rescale of each image applied once and padding as air."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian
from scipy import ndimage

from bundle.ctfindings.files.errors import ScanError, library_errors
from bundle.ctfindings.scan.dicom_frames import frame_headers
from bundle.ctfindings.scan.dicom_images import Image, describe
from bundle.ctfindings.scan.hu_check import LOWEST_HU

TISSUE_LIKE_HU = (-900.0, 3071.0)
"""A padding value in this range is also a value of the patient: only what touches the border of an image is padding."""


def read_pixels(images: Sequence[Image], path: str | Path) -> np.ndarray:
    """HU (Z, rows, columns) float32, with the slope and intercept of each image.

    An element that is empty counts as absent, as slope 1 and intercept 0. ScanError if an image cannot be decoded, or
    has no rescale although others have one.
    """
    header = images[0].header
    slices = np.empty((len(images), int(header.Rows), int(header.Columns)), np.float32)
    without, rescaled = [], False
    by_file: dict[Path, list[int]] = defaultdict(list)
    for index in sorted(range(len(images)), key=lambda index: images[index].frame or 0):
        by_file[images[index].file].append(index)
    for file, places in by_file.items():
        contents = _contents(file, [images[index].frame for index in places])
        for index in places:
            image = images[index]
            name = f"frame {image.frame}" if image.frame else f"image {image.header.get('InstanceNumber')}"
            problem = f"{name} of {describe(images)} cannot be decoded ({{error}}); export the series again"
            with library_errors(path, problem, "undecodable-image"):
                dataset, pixels, decodes = next(contents)
                told = [dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")]
                slope, intercept = (
                    default if value in (None, "") else float(value)
                    for value, default in zip(told, (1, 0), strict=True)
                )
                padding = _padding(dataset)
            if pixels.shape != slices.shape[1:] or not np.isfinite([slope, intercept]).all() or slope == 0:
                shown = f"shape {pixels.shape}, slope {slope:g}, intercept {intercept:g}"
                raise ScanError(path, problem.replace("{error}", shown), "undecodable-image")
            hu = slices[index]
            np.multiply(pixels, np.float32(slope if decodes else 1), out=hu, casting="unsafe")
            if decodes:
                hu += np.float32(intercept)
            if padding is not None:
                first, last = sorted(
                    float(np.float32(value) * np.float32(slope) + np.float32(intercept)) for value in padding
                )
                _replace_padding(hu, first, last)
            if (slope, intercept) != (1, 0):
                rescaled = True
            elif None in told or "" in told:
                without.append(f"{name} of {describe(images)}")
    if without and rescaled:
        problem = f"{without[0]} has no rescale slope and intercept, others have; export the series again"
        raise ScanError(path, problem, "rescale-missing")
    return slices


def _contents(file: Path, frames: Sequence[int | None]) -> Iterator[tuple[pydicom.Dataset, np.ndarray, bool]]:
    """Header, pixels (rows, columns) and whether they still need the rescale: of the image in a file, whose only frame
    is None, or of some of its frames in ascending order.
    """
    dataset = pydicom.dcmread(file, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    headers = [dataset] if frames[0] is None else frame_headers(dataset)
    wanted = [(frame or 1) - 1 for frame in frames]
    if decoder.is_available:
        # Of all frames pydicom makes one pass; a list of them is looked up one by one from the start of the file.
        decoded = decoder.iter_array(dataset, indices=wanted if len(wanted) < len(headers) else None)
        for index, (pixels, _) in zip(wanted, decoded, strict=False):
            yield headers[index], pixels, True
    elif frames[0] is None:
        yield dataset, _read_pixels_with_gdcm(file), False
    else:
        stored = list(generate_frames(dataset.PixelData, number_of_frames=len(headers)))
        with tempfile.TemporaryDirectory(prefix="ctfindings_") as folder:
            for index in wanted:
                single = headers[index]
                single.add_new("PixelData", "OB", encapsulate([stored[index]]))
                single.add_new("NumberOfFrames", "IS", 1)
                single.add_new("SOPClassUID", "UI", CTImageStorage)
                single.file_meta = dataset.file_meta
                single.save_as(Path(folder) / "image", enforce_file_format=True)
                yield single, _read_pixels_with_gdcm(Path(folder) / "image"), False


def _read_pixels_with_gdcm(file: Path) -> np.ndarray:
    """HU (rows, columns). For JPEG Lossless, which pydicom needs plug-ins for; GDCM applies the rescale itself."""
    import itk

    itk.Object.SetGlobalWarningDisplay(False)
    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=str(file), ImageIO=itk.GDCMImageIO.New())
    reader.Update()
    return np.array(itk.array_view_from_image(reader.GetOutput()))[0]


def _padding(dataset: pydicom.Dataset) -> tuple[int, int] | None:
    """The stored values, from and to, that fill an image outside the reconstruction; None without them."""
    value = dataset.get("PixelPaddingValue")
    if value in (None, "") or dataset.BitsAllocated not in (8, 16, 32):
        return None
    kind = np.dtype(f"{'i' if dataset.get('PixelRepresentation') else 'u'}{dataset.BitsAllocated // 8}")
    limit = dataset.get("PixelPaddingRangeLimit")
    # Often written in the other signedness: 63536 stands for -2000.
    first, last = (int(np.int64(each).astype(kind)) for each in (value, value if limit in (None, "") else limit))
    return min(first, last), max(first, last)


def _replace_padding(hu: np.ndarray, first: float, last: float) -> None:
    """Sets the padding of an image (rows, columns) to air, in place."""
    padded = (hu >= first) & (hu <= last)
    if last > TISSUE_LIKE_HU[0] and first < TISSUE_LIKE_HU[1] and padded.any():
        regions, _ = ndimage.label(padded)
        outside = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
        padded = np.isin(regions, outside[outside > 0])
    hu[padded] = LOWEST_HU
