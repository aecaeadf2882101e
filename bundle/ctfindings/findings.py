"""The finding table: the 18 findings of CT-RATE in its column order, their anatomy, prompts and label-set mappings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from bundle.ctfindings.anatomy import anatomy_index


@dataclass(frozen=True)
class Finding:
    """One of the 18 findings.

    Attributes:
        name: the column name in CT-RATE's label table.
        anatomy: name of the anatomy whose embedding row answers for it.
        localized: whether the finding has a bounded site, so that the position of its evidence can be scored.
        positive: training prompts that state it, in three registers: presence, radiologist's phrase, image description.
        negative: training prompts that deny it, in the same order.
        radchestct: Rad-ChestCT abnormalities that make it positive, as in the literature ("standard").
        radchestct_extended: the clinically closer choice, where it differs; not comparable with published numbers.
        synonyms: other noun phrases for it, used in training with ``TRAINING_TEMPLATES``.
    """

    name: str
    anatomy: str
    localized: bool
    positive: tuple[str, str, str]
    negative: tuple[str, str, str]
    radchestct: tuple[str, ...] = ()
    radchestct_extended: tuple[str, ...] | None = None
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template:
    """A pair of zero-shot prompt templates; ``{a}`` is the finding in lower case."""

    id: str
    positive: str
    negative: str


# Templates of the RadFinder evaluation (T5 is fVLM's wording, T7 CT-CLIP's). They are for scoring: no training text
# uses them.
TEMPLATES: tuple[Template, ...] = (
    Template("T1", "{a}.", "No {a}."),
    Template("T2", "Findings are compatible with {a}.", "Findings are not compatible with {a}."),
    Template("T3", "There is {a}.", "There is no {a}."),
    Template("T4", "{a} is seen.", "{a} is not seen."),
    Template("T5", "{a}.", "Not {a}."),
    Template("T6", "{a} is observed.", "{a} is not observed."),
    Template("T7", "{a} is present.", "{a} is not present."),
)


# Presence statements for training, none of which is a scoring template.
TRAINING_TEMPLATES: tuple[tuple[str, str], ...] = (
    ("{a} identified", "No evidence of {a}"),
    ("Evidence of {a}", "Without {a}"),
    ("The scan shows {a}", "The scan does not show {a}"),
    ("{a} was detected", "{a} was not detected"),
    ("Positive for {a}", "Negative for {a}"),
    ("Consistent with {a}", "Absence of {a}"),
    ("{a} noted", "Free of {a}"),
    ("Presence of {a}", "{a} is absent"),
)


def fill_template(template: str, phrase: str) -> str:
    """Puts a phrase into a template: lower case inside, capital at the start of the sentence."""
    text = template.format(a=phrase[:1].lower() + phrase[1:])
    return text[:1].upper() + text[1:]


FINDINGS: tuple[Finding, ...] = (
    Finding(
        "Medical material",
        "thorax",
        False,
        (
            "Foreign material of medical origin is in the chest",
            "An implanted device or indwelling catheter",
            "A dense metallic object with streak artefacts",
        ),
        (
            "The chest is free of medical devices",
            "Without implants, lines or tubes",
            "No metallic object and no streak artefact anywhere",
        ),
        (
            "catheter_or_port",
            "tracheal_tube",
            "chest_tube",
            "breast_implant",
            "pacemaker_or_defib",
            "stent",
            "clip",
            "staple",
            "gi_tube",
            "hardware",
            "suture",
        ),
        (
            "catheter_or_port",
            "tracheal_tube",
            "chest_tube",
            "breast_implant",
            "pacemaker_or_defib",
            "stent",
            "clip",
            "staple",
            "gi_tube",
            "hardware",
            "suture",
            "heart_valve_replacement",
            "cabg",
            "sternotomy",
        ),
        synonyms=(
            "medical device",
            "implanted hardware",
            "catheter or pacemaker",
            "pacemaker leads",
            "central venous line",
            "surgical clips",
            "sternal wires",
            "chest drain",
            "endotracheal tube",
            "metal implant",
            "port catheter",
            "prosthetic heart valve",
            "postoperative material",
            "vascular stent",
        ),
    ),
    Finding(
        "Arterial wall calcification",
        "aorta",
        False,
        (
            "Calcification of the arterial wall on this CT",
            "Calcified atheromatous plaques along the aorta",
            "Thin bright crescents lining the wall of the great vessel",
        ),
        (
            "Arterial walls without calcification on this CT",
            "No calcified plaque along the aorta",
            "Smooth vessel outline without any dense rim",
        ),
        ("calcification",),
        ("atherosclerosis",),
        synonyms=(
            "calcified aortic plaque",
            "atherosclerotic wall calcification",
            "calcification of the thoracic aorta",
            "aortic calcification",
            "atherosclerosis of the aorta",
            "calcified atheroma of the arch",
            "calcium deposits in the vessel wall",
            "hardening of the arteries",
            "atheromatous plaque",
            "sclerotic aorta",
            "vascular calcification",
        ),
    ),
    Finding(
        "Cardiomegaly",
        "heart",
        False,
        (
            "Cardiomegaly on this CT",
            "Enlarged heart with dilated chambers",
            "A cardiac outline wider than half of the chest",
        ),
        ("Cardiomegaly is absent", "Heart of normal size", "A cardiac outline narrower than half of the chest"),
        ("cardiomegaly",),
        synonyms=(
            "enlarged heart",
            "cardiac enlargement",
            "increased heart size",
            "dilated heart",
            "dilated cardiac chambers",
            "ventricular dilatation",
            "heart larger than normal",
            "dilated cardiomyopathy",
        ),
    ),
    Finding(
        "Pericardial effusion",
        "heart",
        False,
        (
            "Pericardial effusion on this CT",
            "Fluid collecting within the pericardial sac",
            "A band of water density encircling the cardiac chambers",
        ),
        (
            "Pericardial effusion is absent",
            "Pericardial sac without excess fluid",
            "Only fat and a thin membrane around the cardiac chambers",
        ),
        ("pericardial_effusion",),
        synonyms=(
            "fluid in the pericardial sac",
            "pericardial fluid collection",
            "pericardial fluid",
            "effusion around the heart",
            "haemopericardium",
            "fluid within the pericardium",
            "liquid surrounding the heart",
            "fluid in the sac of the heart",
        ),
    ),
    Finding(
        "Coronary artery wall calcification",
        "heart",
        False,
        (
            "Calcification of the coronary arteries on this CT",
            "Calcified plaques in the coronary vessels",
            "Bright specks in the fat of the grooves on the cardiac surface",
        ),
        (
            "Coronary arteries without calcification on this CT",
            "Coronary vessels free of calcified plaque",
            "No bright speck in the grooves on the cardiac surface",
        ),
        ("calcification",),
        ("coronary_artery_disease",),
        synonyms=(
            "coronary calcification",
            "calcified coronary plaque",
            "coronary artery calcium",
            "calcified left anterior descending artery",
            "calcium in the arteries of the heart",
            "coronary artery disease",
            "atherosclerotic coronary arteries",
            "calcified plaques of the coronaries",
        ),
    ),
    Finding(
        "Hiatal hernia",
        "esophagus",
        True,
        (
            "Hiatal hernia on this CT",
            "Stomach sliding upwards through the oesophageal hiatus",
            "A rounded soft tissue mass with gas behind the cardiac chambers",
        ),
        (
            "Hiatal hernia is absent",
            "Stomach wholly below the diaphragm",
            "No soft tissue or gas pocket behind the cardiac chambers",
        ),
        ("hernia",),
        synonyms=(
            "hiatus hernia",
            "herniation of the stomach through the hiatus",
            "intrathoracic stomach",
            "sliding hernia",
            "stomach above the diaphragm",
            "paraoesophageal hernia",
            "gastric herniation into the chest",
            "diaphragmatic hernia",
            "herniated gastric fundus",
            "part of the stomach in the chest",
        ),
    ),
    Finding(
        "Lymphadenopathy",
        "mediastinum",
        False,
        (
            "Lymphadenopathy on this CT",
            "Enlarged mediastinal or hilar lymph nodes",
            "Oval soft tissue masses in the fat beside the airways",
        ),
        ("Lymphadenopathy is absent", "Lymph nodes of normal size", "Clean fat planes beside the airways"),
        ("lymphadenopathy",),
        synonyms=(
            "enlarged lymph nodes",
            "nodal enlargement",
            "pathologically enlarged mediastinal nodes",
            "adenopathy",
            "swollen lymph glands",
            "enlarged hilar nodes",
            "mediastinal lymphadenopathy",
            "bulky nodes",
            "nodal disease",
            "lymph nodes above normal size",
            "swollen glands in the chest",
        ),
    ),
    Finding(
        "Emphysema",
        "lung",
        False,
        (
            "Emphysema on this CT",
            "Emphysematous destruction of the parenchyma",
            "Scattered black holes without a visible wall",
        ),
        ("Emphysema is absent", "Parenchyma without emphysematous change", "Even grey parenchyma without black holes"),
        ("emphysema",),
        synonyms=(
            "emphysematous change",
            "destroyed lung with air spaces",
            "bullous lung disease",
            "centrilobular emphysema",
            "paraseptal emphysema",
            "bullae",
            "enlarged air spaces",
            "hyperinflated lungs",
            "destroyed alveoli",
            "low density holes in the lung",
            "overinflated lung",
            "chronic obstructive lung disease",
        ),
    ),
    Finding(
        "Atelectasis",
        "lung",
        False,
        (
            "Atelectasis on this CT",
            "Collapse of lung tissue with loss of volume",
            "Dense bands at the base drawn towards the diaphragm",
        ),
        (
            "Atelectasis is absent",
            "Fully expanded lungs without collapse",
            "Bases aerated down to the diaphragm, without dense bands",
        ),
        ("atelectasis",),
        synonyms=(
            "lung collapse",
            "volume loss of the lung",
            "atelectatic band",
            "collapsed lung tissue",
            "partial collapse of a lobe",
            "plate-like atelectasis",
            "compressed lung",
            "incomplete expansion of the lung",
            "subsegmental collapse",
            "airless lung",
            "dependent collapse",
        ),
    ),
    Finding(
        "Lung nodule",
        "lung",
        True,
        (
            "Lung nodule on this CT",
            "Focal nodular lesion of the parenchyma",
            "A small round dense spot surrounded by air",
        ),
        ("Lung nodule is absent", "Parenchyma without nodular lesions", "No round spot apart from vessels seen end-on"),
        ("nodule", "nodulegr1cm"),
        synonyms=(
            "pulmonary nodule",
            "small round lung lesion",
            "nodular lesion in the lung",
            "spot on the lung",
            "small lung tumour",
            "pulmonary mass",
            "micronodule",
            "focal lung lesion",
            "lump in the lung",
            "solid nodule",
            "lung metastases",
        ),
    ),
    Finding(
        "Lung opacity",
        "lung",
        False,
        (
            "Lung opacity on this CT",
            "Ground-glass or patchy infiltration of the parenchyma",
            "A hazy veil through which vessels remain visible",
        ),
        ("Lung opacity is absent", "Clear lungs without infiltration", "Dark parenchyma without any haze"),
        ("opacity",),
        ("opacity", "groundglass", "infiltrate", "airspace_disease"),
        synonyms=(
            "ground-glass opacity",
            "hazy lung density",
            "increased lung density",
            "patchy infiltrate",
            "ground glass",
            "hazy area in the lung",
            "cloudy lung",
            "pulmonary infiltrates",
            "frosted glass density",
            "viral pneumonia pattern",
            "shadow in the lung",
            "veil-like density",
        ),
    ),
    Finding(
        "Pulmonary fibrotic sequela",
        "lung",
        False,
        (
            "Fibrotic sequela on this CT",
            "Scarring from an earlier disease of the parenchyma",
            "Coarse strands that pull on the pleura and distort their surroundings",
        ),
        ("Fibrotic sequela is absent", "Parenchyma without scars", "Undistorted parenchyma without coarse strands"),
        ("scarring",),
        ("fibrosis", "reticulation", "honeycombing", "scarring", "interstitial_lung_disease"),
        synonyms=(
            "fibrotic scarring of the lung",
            "sequela changes of the lung",
            "pulmonary fibrosis",
            "lung scar",
            "scar tissue",
            "fibrotic bands",
            "old scars",
            "scarring after infection",
            "parenchymal bands",
            "residual changes of an earlier infection",
            "architectural distortion",
            "apical scarring",
        ),
    ),
    Finding(
        "Pleural effusion",
        "lung",
        True,
        (
            "Pleural effusion on this CT",
            "Free fluid in the pleural space",
            "A crescent of water density along the posterior chest wall",
        ),
        (
            "Pleural effusion is absent",
            "Pleural spaces without fluid",
            "Aerated parenchyma in contact with the posterior chest wall",
        ),
        ("pleural_effusion",),
        synonyms=(
            "fluid in the pleural space",
            "pleural fluid",
            "water in the chest cavity",
            "fluid at the lung base",
            "fluid between lung and chest wall",
            "haemothorax",
            "pleural collection",
            "liquid in the pleural cavity",
            "layering fluid",
            "effusion of the pleura",
        ),
    ),
    Finding(
        "Mosaic attenuation pattern",
        "lung",
        False,
        (
            "Mosaic attenuation of the lungs on this CT",
            "Inhomogeneous aeration suggesting air trapping",
            "A patchwork of sharply bordered darker and lighter areas",
        ),
        ("Mosaic attenuation is absent", "Homogeneous aeration of both lungs", "Parenchyma of one even shade"),
        (),
        ("air_trapping",),
        synonyms=(
            "mosaic perfusion",
            "patchy air trapping",
            "heterogeneous lung attenuation",
            "air trapping",
            "mosaic pattern",
            "patchwork of lung density",
            "uneven lung density",
            "small airways disease",
            "light and dark areas of lung",
            "geographic attenuation",
            "inhomogeneous ventilation",
        ),
    ),
    Finding(
        "Peribronchial thickening",
        "lung",
        False,
        (
            "Peribronchial thickening on this CT",
            "Thickened bronchial walls",
            "Airways seen end-on as thick white rings",
        ),
        ("Peribronchial thickening is absent", "Bronchial walls of normal thickness", "Airways with hairline walls"),
        ("bronchial_wall_thickening",),
        synonyms=(
            "bronchial wall thickening",
            "thickened airway walls",
            "peribronchial cuffing",
            "thick bronchial walls",
            "inflamed airways",
            "thickening around the bronchi",
            "bronchitis",
            "swollen bronchial walls",
            "cuffing of the bronchi",
            "thickened bronchovascular bundles",
        ),
    ),
    Finding(
        "Consolidation",
        "lung",
        True,
        (
            "Consolidation on this CT",
            "Consolidated parenchyma with air bronchograms",
            "A solid white area that hides its vessels and contains dark branching airways",
        ),
        (
            "Consolidation is absent",
            "No consolidated parenchyma",
            "Vessels can be followed everywhere, no solid white area",
        ),
        ("consolidation",),
        synonyms=(
            "airspace consolidation",
            "consolidated lung",
            "pneumonic infiltrate",
            "pneumonia",
            "solid lung area with air bronchograms",
            "alveolar filling",
            "dense airspace disease",
            "filled air sacs",
            "lobar consolidation",
            "lung filled with fluid or pus",
        ),
    ),
    Finding(
        "Bronchiectasis",
        "lung",
        False,
        ("Bronchiectasis on this CT", "Permanently dilated bronchi", "Airways wider than the artery beside them"),
        (
            "Bronchiectasis is absent",
            "Bronchi of normal calibre",
            "Airways that taper and are no wider than the artery beside them",
        ),
        ("bronchiectasis",),
        ("bronchiectasis", "bronchiolectasis"),
        synonyms=(
            "dilated bronchi",
            "bronchial dilatation",
            "enlarged bronchi",
            "ectatic bronchi",
            "widened bronchial tubes",
            "cystic bronchiectasis",
            "traction bronchiectasis",
            "abnormally wide airways",
            "dilation of the bronchial tree",
        ),
    ),
    Finding(
        "Interlobular septal thickening",
        "lung",
        False,
        (
            "Thickening of the interlobular septa on this CT",
            "Thickened septa between the secondary lobules",
            "A network of fine white lines that reach the pleura",
        ),
        (
            "Interlobular septa without thickening on this CT",
            "Septa of normal thickness",
            "No network of fine lines beneath the pleura",
        ),
        ("septal_thickening",),
        synonyms=(
            "septal thickening",
            "thickened interlobular septa",
            "prominent septal lines",
            "Kerley lines",
            "interstitial oedema",
            "thickened lobular septa",
            "reticular lines",
            "fine lines at the lung edge",
            "interstitial thickening",
            "lines between lung lobules",
            "thickened partitions between lobules",
        ),
    ),
)

FINDING_NAMES: tuple[str, ...] = tuple(finding.name for finding in FINDINGS)
FINDING_ANATOMY: tuple[int, ...] = tuple(anatomy_index(finding.anatomy) for finding in FINDINGS)
"""For each finding the row of its anatomy in ``ANATOMIES``."""


def finding_index(name: str) -> int:
    """Column of a finding by its CT-RATE name, in any case.

    Raises:
        ValueError: when the name is not in the table.
    """
    lowered = [known.lower() for known in FINDING_NAMES]
    if name.lower() not in lowered:
        raise ValueError(f"finding {name!r} is unknown; known are {', '.join(FINDING_NAMES)}")
    return lowered.index(name.lower())


_NO_ORGAN_IN_FVLM = ("Medical material", "Lymphadenopathy")
_MERGED_OR_DROPPED_IN_RADCHESTCT = ("Coronary artery wall calcification", "Mosaic attenuation pattern")

LABEL_SETS: dict[str, tuple[str, ...]] = {
    "ctrate18": FINDING_NAMES,
    "ctrate16_fvlm": tuple(name for name in FINDING_NAMES if name not in _NO_ORGAN_IN_FVLM),
    "radchest16": tuple(name for name in FINDING_NAMES if name not in _MERGED_OR_DROPPED_IN_RADCHESTCT),
    "radchest14": tuple(
        name for name in FINDING_NAMES if name not in _NO_ORGAN_IN_FVLM + _MERGED_OR_DROPPED_IN_RADCHESTCT
    ),
}
"""Which findings a mean is taken over; print the name beside the number. ``ctrate16_fvlm`` lacks the findings without
an organ in fVLM, ``radchest16`` is CT-CLIP's external protocol, ``radchest14`` what both have."""


@cache
def training_wordings(finding: Finding) -> tuple[tuple[str, str], ...]:
    """Pairs of a positive and a negative training text: the prompt bank, and the training templates over all names."""
    phrases = (finding.name, *finding.synonyms)
    filled = tuple(
        (fill_template(yes, phrase), fill_template(no, phrase)) for phrase in phrases for yes, no in TRAINING_TEMPLATES
    )
    return tuple(zip(finding.positive, finding.negative, strict=True)) * 4 + filled
