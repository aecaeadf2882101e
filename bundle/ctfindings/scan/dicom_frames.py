"""The frames of an Enhanced CT image, each with the header that a single image would have: one reader serves both.

DICOM PS3.3, Multi-frame Functional Groups Module: what all frames share is in one item, what a frame has of its own in
an item of that frame.
"""

import pydicom
from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

ENHANCED_CT = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
FRAME_TAGS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

_NAMES = {
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {"PixelSpacing": "PixelSpacing", "SliceThickness": "SliceThickness"},
    "PixelValueTransformationSequence": {"RescaleSlope": "RescaleSlope", "RescaleIntercept": "RescaleIntercept"},
    "CTImageFrameTypeSequence": {
        "FrameType": "ImageType", "VolumeBasedCalculationTechnique": "VolumeBasedCalculationTechnique"
    },
    "FrameContentSequence": {
        "FrameAcquisitionNumber": "AcquisitionNumber", "TemporalPositionIndex": "TemporalPositionIndex",
        "StackID": "StackID",
    },
}  # fmt: skip
"""By functional group: its elements, and the names that they have in the header of a single image."""


def frame_headers(header: pydicom.Dataset) -> list[pydicom.Dataset]:
    """A header for each frame, in their order, with all that the frames share.

    Elements are shared between the headers: replace them, do not change their values. ValueError if the header
    describes another number of frames than it names.
    """
    frames = header.get(FRAME_TAGS[1]) or []
    if len(frames) != int(header.get("NumberOfFrames") or 1):
        raise ValueError(f"{len(frames)} of {header.get('NumberOfFrames')} frames are described")
    shared = (header.get(FRAME_TAGS[0]) or [pydicom.Dataset()])[0]
    headers = []
    for frame in frames:
        result = pydicom.Dataset()
        result.update({element.tag: element for element in header if element.keyword not in FRAME_TAGS})
        for group, names in _NAMES.items():
            for item in [*(frame.get(group) or shared.get(group) or [])][:1]:
                for name, single in names.items():
                    if name in item:
                        result.add_new(single, item[name].VR, item[name].value)
        headers.append(result)
    return headers
