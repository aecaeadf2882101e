"""The sentence frames that the synthetic reports share over findings and anatomies, and the sentences that concern no
finding.

Slots: ``{np}`` a noun phrase with its article, ``{bare_np}`` without, ``{is}`` its verb, ``{at}`` the place with its
preposition, ``{region}`` one of ``REGIONS``, ``{n}`` what is denied. A ``+`` in front of a phrase marks the plural, as
in ``phrases.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

POSITIVE_FRAMES: tuple[str, ...] = (
    "{np} {at}.",
    "{np} {is} noted {at}.",
    "{np} {is} identified {at}.",
    "There {is} {np} {at}.",
    "The scan shows {np} {at}.",
    "{np} {is} demonstrated {at}.",
    "{np} can be made out {at}.",
    "Evidence of {bare_np} {at}.",
    "{at}, {np} {is} visible.",
    "{at} there {is} {np}.",
    "We note {np} {at}.",
    "{np} {is} apparent {at}.",
)
UNCERTAIN_FRAMES: tuple[str, ...] = (
    "Subtle change {at} that may represent {np}.",
    "Appearances {at} are suspicious for {np}.",
    "{np} {at} cannot be ruled out and {is} considered likely.",
    "Possible {bare_np} {at}.",
    "Faint abnormality {at}, probably {np}.",
    "There may be {np} {at}.",
    "Questionable {bare_np} {at}.",
    "Findings {at} raise suspicion of {np}.",
)
LARGEST_FRAMES: tuple[str, ...] = (
    "{np} {overall}, the largest {measuring} {at}.",
    "There are {np} {overall}; the largest lies {at}{comma_measuring}.",
    "{np} {overall} are noted, the biggest {at}{comma_measuring}.",
    "{np} {overall}, the dominant one {at}{comma_measuring}.",
)
IMPRESSION_FRAMES: tuple[str, ...] = (
    "{np} {at}.",
    "{np} {at}.",
    "{np} {at} as described.",
    "Findings in keeping with {np} {at}.",
    "Picture of {np} {at}.",
    "Appearances indicate {np} {at}.",
)
DENIAL_FRAMES: tuple[str, ...] = (
    "No {n} {is} identified.",
    "No evidence of {n}.",
    "No sign of {n}.",
    "{n} can be excluded.",
    "{n} {is} not demonstrated.",
    "The scan shows no {n}.",
    "Negative for {n}.",
    "No {n} visible.",
    "We see no {n}.",
    "Without {n}.",
)
JOINT_DENIAL_FRAMES: tuple[str, ...] = (
    "No {list_or}.",
    "No evidence of {list_or}.",
    "There is no {list_or}.",
    "No {list_or} can be identified.",
    "The scan is negative for {list_or}.",
    "Without {list_or}.",
    "The scan shows no {list_or}.",
    "No sign of {list_or}.",
)
EFFUSION_DENIALS: tuple[str, ...] = (
    "No pleural or pericardial effusion.",
    "Neither the pleural nor the pericardial space contains fluid.",
    "No effusion, pleural or pericardial.",
    "Pleural and pericardial spaces are free of fluid.",
    "There is no fluid in the pericardial sac or the pleural spaces.",
)
NORMAL_FRAMES: tuple[str, ...] = (
    "No abnormality in the {region}.",
    "The {region} {is} unremarkable.",
    "The {region} {is} normal.",
    "The {region} {shows} no significant abnormality.",
    "No pathological finding in the {region}.",
    "Normal appearance of the {region}.",
    "Nothing abnormal is detected in the {region}.",
    "The {region} {is} within normal limits.",
    "No focal change is found in the {region}.",
    "Assessment of the {region} is without abnormal result.",
)
NORMAL_WITHOUT_ORGAN: tuple[str, ...] = (
    "Unremarkable.",
    "Nothing abnormal to report.",
    "Normal appearances.",
    "Within normal limits.",
    "No significant abnormality.",
    "No pathological change.",
)
REMAINDER: tuple[str, ...] = (
    "Otherwise unremarkable.",
    "No further abnormality in the {region}.",
    "The remainder of the {region} {is} normal.",
    "Nothing else of note.",
    "Otherwise normal appearance of the {region}.",
)
REGIONS: dict[str, tuple[str, ...]] = {
    "lung": ("+lungs", "lung parenchyma", "pulmonary parenchyma", "+lungs and pleura", "+lung fields"),
    "heart": ("heart", "cardiac region", "+cardiac structures", "heart and pericardium"),
    "esophagus": ("oesophagus", "esophagus", "thoracic oesophagus", "oesophageal region"),
    "aorta": ("aorta", "thoracic aorta", "+aorta and its branches", "aortic region"),
    "mediastinum": ("mediastinum", "mediastinal region", "+mediastinal structures", "mediastinum and hila"),
    "thorax": ("chest", "thorax", "+thoracic organs"),
}
HEADINGS: dict[str, tuple[str, ...]] = {
    "lung": ("Lungs", "Lungs and pleura", "Parenchyma and pleura"),
    "heart": ("Heart", "Cardiac", "Heart and pericardium"),
    "esophagus": ("Oesophagus", "Esophagus"),
    "aorta": ("Aorta", "Great vessels", "Vessels"),
    "mediastinum": ("Mediastinum", "Lymph nodes", "Mediastinum and hila"),
    "thorax": ("Devices", "Support material", "General"),
}
NORMAL_IMPRESSIONS: tuple[str, ...] = (
    "Normal CT of the chest.",
    "No significant thoracic abnormality.",
    "Examination within normal limits.",
    "No acute abnormality in the chest.",
    "Unremarkable study.",
    "No pathological change in the thorax.",
)
QUIET_IMPRESSIONS: tuple[str, ...] = (
    "No acute abnormality in the chest.",
    "No urgent finding.",
    "No finding that needs immediate action.",
    "Nothing acute to report.",
)
"""For a report whose positive findings were all left out: true whatever the labels are."""
SUMMARIES: tuple[str, ...] = (
    "In summary, {list_and}.",
    "Abnormal chest CT with {list_and}.",
    "Overall picture: {list_and}.",
    "The examination is abnormal: {list_and}.",
    "Taken together, the scan shows {list_and}.",
)
INCIDENTALS: tuple[str, ...] = (
    "Degenerative changes of the thoracic spine.",
    "Marginal osteophytes along the vertebral bodies.",
    "Mild scoliosis of the dorsal spine.",
    "Bone density appears reduced.",
    "An old healed rib fracture is noted.",
    "Vertebral body heights are preserved.",
    "No destructive bone lesion.",
    "A simple cyst in the liver.",
    "Diffuse fatty change of the liver.",
    "Small hypodense hepatic lesion, most likely a cyst.",
    "A gallstone in the partly covered gallbladder.",
    "Cortical cyst of the kidney on the lowest sections.",
    "An accessory spleen at the hilum.",
    "The adrenal glands are slender.",
    "Upper abdominal organs, as far as covered, are unremarkable.",
    "A hypodense thyroid nodule for which ultrasound may be considered.",
    "The thyroid gland is slightly enlarged and heterogeneous.",
    "Subcutaneous soft tissues are normal.",
    "Mild gynaecomastia.",
    "Haemangioma of a vertebral body.",
)
TECHNIQUE: tuple[str, ...] = (
    "Axial sections of the chest were obtained {contrast}.",
    "CT of the thorax {contrast} with {spacing} mm sections.",
    "The examination was performed {contrast}.",
    "Helical acquisition {contrast}, reviewed in several windows.",
    "No earlier study is available for comparison.",
    "Image quality is limited by breathing motion.",
)
REFERENCES: tuple[str, ...] = (
    " (series {series}, image {image})",
    " (se {series}, im {image})",
    " (image {image} of series {series})",
    " on image {image} of series {series}",
    " (image {image}, series {series})",
)
LEADING_REFERENCE = "Series {series}, image {image}: "


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of the wordings, each equally likely."""
    return options[int(rng.integers(len(options)))]


def listed(parts: Sequence[str], word: str) -> str:
    """Joins phrases with commas and a last ``and`` or ``or``."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" {word} {parts[-1]}"
