"""Whether the headers of a CT series say that it shows another part of the body than the chest."""

import re
from collections.abc import Mapping

BODY_PART_HEADERS = ("BodyPartExamined", "SeriesDescription", "StudyDescription")

# Terms of DICOM PS3.16, CID 4031, and words of descriptions. BodyPartExamined runs words together: CHESTABDPELVIS.
_CHEST = re.compile(
    r"CHEST|THORA|LUNG|PULMO|HEART|CARDIA|CORONAR|AORT|MEDIASTIN|ESOPHAG|TRACHEA|BRONCH|STERNUM|BREAST|TRUNK|TORSO|"
    r"WHOLE ?BODY|\b(?:WB|RIBS?|N?CAP|TAP)\b"
)
_ELSEWHERE = re.compile(
    r"\b(?:HEAD|BRAIN|SKULL|CEREBR|CRANI|ORBIT|FACE\b|FACIAL|SINUS|JAW|MANDIB|MAXILL|DENTAL|TEMPORAL BONE|NECK|LARYN|"
    r"CERVICAL|[CLST]?SPINE|LUMBAR|SACR|ABDOM|ABD\b|PELVI|HIPS?\b|LIVER|KIDNEY|RENAL|BLADDER|PANCREA|COLON|UROGRA|"
    r"[LU]?EXTREMITY|LEGS?\b|KNEES?\b|ANKLE|FOOT|FEET|FEMUR|TIBIA|ARMS?\b|ELBOW|WRIST|HANDS?\b|FINGER|SHOULDER|HUMERUS)"
)

_BESIDE = re.compile(r"\b(?:ABDOM|ABD\b|PELVI)")
"""Parts that are examined with the chest; scanners keep one of them as BodyPartExamined."""
_POSITION = re.compile(r"\b(?:ARMS? (?:UP|DOWN)|(?:HEAD|FEET|FOOT) FIRST)\b")


def other_body_part(headers: Mapping[str, str]) -> str:
    """Why a series is not of the chest, such as "BodyPartExamined names HEAD"; empty if it may be.

    The headers of the series decide before the description of the study, and one that names the chest, alone or among
    other parts, before one that names another part. Abdomen and pelvis do not decide against a study of the chest, nor
    do words that name no part of the body, or a position.

    Args:
        headers: values of ``BODY_PART_HEADERS`` by keyword; those that are missing decide nothing.
    """
    plain = {name: re.sub("[^A-Z]+", " ", headers.get(name, "").upper()) for name in BODY_PART_HEADERS}
    texts = {name: _POSITION.sub(" ", text) for name, text in plain.items()}
    of_chest = _CHEST.search(texts["StudyDescription"])
    for names in (BODY_PART_HEADERS[:2], BODY_PART_HEADERS[2:]):
        if any(_CHEST.search(texts[name]) for name in names):
            return ""
        for name in names:
            found = _ELSEWHERE.search(texts[name])
            if found and not (of_chest and _BESIDE.match(found[0])):
                return f"{name} names {found[0]}"
    return ""
