"""Writes the images of a series as Enhanced CT, so that both can be read and compared."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from pydicom.uid import EnhancedCTImageStorage, generate_uid


def images_of(folder: Path) -> list[pydicom.Dataset]:
    """The images of a series in the order of their numbers."""
    return sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda image: int(image.InstanceNumber))


def write_legacy_converted(target: Path, images: Sequence[pydicom.Dataset]) -> Path:
    """A Legacy Converted Enhanced CT by highdicom."""
    image = hd.legacy.LegacyConvertedEnhancedCTImage(
        images, generate_uid(), images[0].SeriesNumber, generate_uid(), instance_number=1
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(target, enforce_file_format=True)
    return target


def write_enhanced(
    target: Path, images: Sequence[pydicom.Dataset], frames: Sequence[dict[str, Any]] | None = None, **top: Any
) -> Path:
    """An Enhanced CT whose frames are images in their order. Groups that are equal for all frames are shared.

    Args:
        target: file to write.
        images: single images of one size.
        frames: for each frame, elements of its FrameContentSequence, such as StackID.
        top: other elements of the image, such as SOPInstanceUID.
    """
    result = copy.deepcopy(images[0])
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        del result[name]
    result.SOPClassUID, result.SOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    result.InstanceNumber, result.NumberOfFrames = 1, len(images)
    result.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    groups = [_groups(image, number) for number, image in enumerate(images, start=1)]
    for group, content in zip(groups, frames or [{}] * len(groups), strict=True):
        for name, value in content.items():
            setattr(group["FrameContentSequence"], name, value)
    shared = {name: item for name, item in groups[0].items() if all(each[name] == item for each in groups)}
    result.SharedFunctionalGroupsSequence = [_item(shared)]
    result.PerFrameFunctionalGroupsSequence = [
        _item({name: item for name, item in group.items() if name not in shared}) for group in groups
    ]
    result.PixelData = np.stack([image.pixel_array for image in images]).tobytes()
    for name, value in top.items():
        setattr(result, name, value)
    result.file_meta.MediaStorageSOPClassUID = result.SOPClassUID
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    target.parent.mkdir(parents=True, exist_ok=True)
    result.save_as(target, enforce_file_format=True)
    return target


def _groups(image: pydicom.Dataset, number: int) -> dict[str, pydicom.Dataset]:
    content = pydicom.Dataset()
    content.StackID, content.InStackPositionNumber, content.FrameAcquisitionNumber = "1", number, 1
    groups = {"FrameContentSequence": content}
    for name, keywords in (
        ("PlanePositionSequence", ["ImagePositionPatient"]),
        ("PlaneOrientationSequence", ["ImageOrientationPatient"]),
        ("PixelMeasuresSequence", ["PixelSpacing"]),
        ("PixelValueTransformationSequence", ["RescaleSlope", "RescaleIntercept"]),
    ):
        groups[name] = pydicom.Dataset()
        for keyword in keywords:
            groups[name][keyword] = image[keyword]
    kind = pydicom.Dataset()
    kind.FrameType = image.ImageType
    return groups | {"CTImageFrameTypeSequence": kind}


def _item(groups: dict[str, pydicom.Dataset]) -> pydicom.Dataset:
    item = pydicom.Dataset()
    for name, content in groups.items():
        setattr(item, name, [content])
    return item
