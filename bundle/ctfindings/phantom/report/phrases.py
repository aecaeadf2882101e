"""The wordings of the synthetic reports: what a finding, its place, its absence and a normal region are called.

Conventions of the table. A noun phrase that takes a plural verb starts with ``+``; an article is written ``a`` and
becomes ``an`` where the next word wants it. Slots that have nothing to say are left empty: ``{grade}`` an adjective of
severity, ``{size}`` "8 mm", ``{measuring}`` "measuring 8 mm", ``{kind}`` the subtype, ``{side}`` "right-sided",
``{count}`` "three", ``{at}`` the place with its preposition. Wordings that hold an empty ``{at}`` or ``{size}`` must
still read well.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """How one finding is put into words.

    Attributes:
        domain: which table of places its ``{at}`` comes from.
        nouns: noun phrases for one occurrence, or for a diffuse change.
        several: noun phrases for more than one occurrence; empty where ``nouns`` serve.
        sentences: whole positive sentences, beside those that ``POSITIVE_FRAMES`` make of the noun phrases.
        denials: what follows "no".
        normals: whole sentences that deny it.
        short: names for a summary.
        mention: probability that a report denies it when it is absent.
    """

    domain: str
    nouns: tuple[str, ...]
    several: tuple[str, ...]
    sentences: tuple[str, ...]
    denials: tuple[str, ...]
    normals: tuple[str, ...]
    short: tuple[str, ...]
    mention: float


WORDINGS: dict[str, Wording] = {
    "Medical material": Wording(
        "device",
        (),  # DEVICES has them
        (),
        (),
        ("implanted device", "catheter or drain", "metallic foreign body", "+lines or tubes"),
        ("No hardware in the chest.", "The chest wall carries no implant."),
        ("medical device", "implanted material", "device in situ"),
        0.12,
    ),
    "Arterial wall calcification": Wording(
        "aorta",
        (
            "{grade} atherosclerotic calcification",
            "+{grade} calcified plaques",
            "+{grade} calcific atheromatous changes",
            "{grade} mural calcification",
            "{grade} vascular wall calcification",
        ),
        (),
        (
            "Calcified atheroma {at}, {grade_noun} in amount.",
            "The vessel wall is calcified {at}.",
            "Atherosclerosis with {grade} calcium deposits {at}.",
            "Wall calcium is visible {at}.",
        ),
        ("aortic wall calcification", "calcified aortic plaque", "atheromatous calcification of the aorta"),
        ("The aortic wall is smooth and free of calcium.", "Aortic walls show no calcium deposits."),
        ("aortic atherosclerosis", "calcified aorta", "arterial wall calcification"),
        0.2,
    ),
    "Cardiomegaly": Wording(
        "none",
        (
            "{grade} cardiomegaly",
            "{grade} cardiac enlargement",
            "a {grade} increase in the cardiothoracic ratio",
            "{grade} enlargement of the heart",
            "{grade} dilatation of the cardiac chambers",
            "a {grade} enlarged heart",
        ),
        (),
        (
            "The heart is {gradely} enlarged.",
            "Heart size is {gradely} increased.",
            "The cardiothoracic ratio is above one half, the increase being {grade_noun}.",
            "Cardiac dimensions exceed the normal range.",
            "The heart appears {gradely} bigger than expected.",
        ),
        ("cardiac enlargement", "dilatation of the cardiac chambers", "cardiomegaly"),
        ("Heart size is within normal limits.", "Cardiac dimensions are normal.", "The heart is not enlarged."),
        ("enlarged heart", "cardiac enlargement", "cardiomegaly"),
        0.45,
    ),
    "Pericardial effusion": Wording(
        "pericardium",
        (
            "a {amount} pericardial effusion",
            "a {amount} amount of pericardial fluid",
            "a {amount} volume of fluid around the heart",
            "a {amount} rim of fluid within the pericardial sac",
            "a {amount} collection in the pericardial space",
        ),
        (),
        (
            "The pericardial sac contains a {amount} amount of fluid.",
            "Fluid separates the pericardial layers, {amount} in quantity.",
            "Pericardial thickness is increased by a {amount} effusion.",
            "The pericardium is distended by fluid, {amount} in volume.",
        ),
        ("pericardial effusion", "pericardial fluid", "pericardial collection"),
        ("The pericardium is thin and dry.", "The pericardial sac holds no excess fluid."),
        ("pericardial effusion", "pericardial fluid"),
        0.5,
    ),
    "Coronary artery wall calcification": Wording(
        "coronary",
        (
            "{grade} coronary calcification",
            "+{grade} calcified coronary plaques",
            "{grade} coronary atherosclerosis with calcium",
            "+{grade} calcific atheroma plaques",
            "{grade} coronary artery calcium",
        ),
        (),
        (
            "The coronary arteries are {gradely} calcified{comma_at}.",
            "Calcium deposits line the coronary tree{comma_at}.",
            "Coronary artery disease with calcified plaque {at}.",
            "The coronary walls contain calcium{comma_at}, {grade_noun} in amount.",
        ),
        ("coronary calcification", "+calcified coronary plaques", "coronary calcium"),
        ("The coronary arteries are free of calcium.", "Coronary calcium score is visually zero."),
        ("coronary calcification", "coronary artery calcium", "coronary atherosclerosis"),
        0.25,
    ),
    "Hiatal hernia": Wording(
        "hiatus",
        (
            "a {amount} hiatal hernia",
            "a {amount} sliding hiatus hernia",
            "herniation of the stomach",
            "a {amount} hiatal herniation of gastric tissue",
            "a {amount} intrathoracic stomach portion",
        ),
        (),
        (
            "Part of the stomach lies above the diaphragm{comma_measuring}.",
            "The gastric fundus protrudes through the hiatus into the lower chest{comma_measuring}.",
            "The oesophageal hiatus is widened with {amount} gastric herniation.",
            "The gastro-oesophageal junction is displaced upwards by a {amount} hernia.",
            "A {amount} hernial sac with gastric folds is found behind the heart.",
        ),
        ("hiatal hernia", "hiatus hernia", "gastric herniation"),
        ("The stomach lies entirely below the diaphragm.", "The hiatus is not widened."),
        ("hiatal hernia", "hiatus hernia"),
        0.25,
    ),
    "Lymphadenopathy": Wording(
        "node",
        (
            "an enlarged {size} lymph node",
            "a lymph node of pathological size {measuring}",
            "{grade} lymphadenopathy",
            "{grade} nodal enlargement",
            "a {size} adenopathy",
        ),
        (
            "+enlarged lymph nodes",
            "+{count} enlarged lymph nodes",
            "+pathologically enlarged nodes",
            "+{count} lymph nodes above the size limit",
            "{grade} lymphadenopathy",
        ),
        (
            "Nodal tissue is increased {at}{comma_measuring}.",
            "Lymph nodes exceed the normal short axis {at}{comma_measuring}.",
            "Adenopathy {at}{comma_measuring}.",
            "Lymph nodes are prominent and enlarged {at}.",
        ),
        ("lymph node enlargement", "+enlarged lymph nodes", "adenopathy", "+pathological lymph nodes"),
        ("Lymph nodes are of normal size.", "Nodal stations show normal short axis diameters."),
        ("lymph node enlargement", "lymphadenopathy", "adenopathy"),
        0.5,
    ),
    "Emphysema": Wording(
        "lobe",
        (
            "{grade} emphysema",
            "+{grade} emphysematous changes",
            "{grade} {kind} emphysema",
            "{grade} parenchymal destruction of emphysematous type",
            "+{grade} wall-less lucencies",
        ),
        (),
        (
            "The parenchyma is {gradely} rarefied by emphysema {at}.",
            "Areas of low attenuation without walls are scattered {at}.",
            "{grade} loss of parenchymal density of emphysematous character {at}.",
            "Lung architecture is {gradely} destroyed by air spaces {at}.",
        ),
        ("emphysema", "emphysematous change", "emphysematous destruction"),
        ("Parenchymal density is preserved without lucent holes.", "The parenchyma is not emphysematous."),
        ("emphysema", "emphysematous change"),
        0.2,
    ),
    "Atelectasis": Wording(
        "lobe",
        (
            "{grade} atelectasis",
            "+{grade} atelectatic changes",
            "{grade} loss of aeration with crowded vessels",
            "{grade} {kind} atelectasis",
            "{grade} volume loss with collapse",
            "{grade} incomplete expansion of the parenchyma",
        ),
        (),
        (
            "Aeration is reduced by {grade} atelectasis {at}.",
            "Collapsed tissue {at}, {grade_noun} in extent.",
            "Partial collapse of {grade_noun} extent {at}.",
            "The tissue is incompletely expanded {at}.",
        ),
        ("atelectasis", "volume loss", "collapse", "atelectatic change"),
        ("Both lungs are fully expanded.", "Expansion of the lungs is complete."),
        ("atelectasis", "atelectatic change", "subsegmental collapse"),
        0.22,
    ),
    "Lung nodule": Wording(
        "lobe",
        (
            "a {size} {kind} nodule",
            "a {kind} pulmonary nodule {measuring}",
            "a {size} {kind} nodular lesion",
            "a round {kind} focus {measuring}",
            "a {size} nodular density",
            "a well-defined {kind} nodule {measuring}",
            "a {kind} spot of {size_noun} with rounded shape",
        ),
        (
            "+{count} {kind} nodules",
            "+{count} {kind} nodular lesions",
            "+{count} pulmonary nodules",
            "+{count} round {kind} foci",
            "+{count} nodular densities",
        ),
        (
            "A {kind} nodule {at} measures {size_noun} in diameter.",
            "A {size} {kind} lesion of nodular shape lies {at}.",
            "Focal rounded density {at}{comma_measuring}.",
            "A nodular lesion {at} has a diameter of {size_noun}.",
        ),
        ("nodule", "nodular lesion", "pulmonary nodule", "+nodules"),
        ("No focal lesion of nodular shape.", "The parenchyma is without nodular lesions."),
        ("pulmonary nodule", "nodule", "nodular lesion"),
        0.4,
    ),
    "Lung opacity": Wording(
        "lobe",
        (
            "{grade} ground-glass opacity",
            "+{grade} patchy opacities",
            "{grade} ground-glass attenuation",
            "{grade} parenchymal infiltration",
            "{grade} hazy increase in density",
            "an area of {grade} ground-glass density",
        ),
        ("+{grade} ground-glass opacities", "+areas of {grade} patchy density", "+{grade} infiltrates"),
        (
            "Parenchymal density is {gradely} increased with preserved vessels {at}.",
            "Veil-like clouding {at}, {grade_noun} in extent.",
            "A hazy infiltrate is evident {at}.",
            "The parenchyma is clouded {at}, vessels still being traceable.",
        ),
        ("infiltrate", "ground-glass opacity", "parenchymal opacity", "infiltration"),
        ("The lungs are clear of infiltrates.", "Lung parenchyma is free of haze."),
        ("ground-glass opacity", "infiltrate", "parenchymal opacity"),
        0.35,
    ),
    "Pulmonary fibrotic sequela": Wording(
        "lobe",
        (
            "+{grade} fibrotic sequelae",
            "+{grade} fibrotic bands",
            "{grade} scarring",
            "+{grade} pleuroparenchymal strands",
            "+{grade} sequelae of earlier infection",
            "{grade} fibrosis with distortion",
        ),
        (),
        (
            "Residual scar tissue {at}, {grade_noun} in extent.",
            "Coarse fibrous strands reach the pleura {at}.",
            "Old scars distort the parenchyma {at}.",
            "Chronic fibrotic remodelling of {grade_noun} degree {at}.",
        ),
        ("scarring", "fibrotic change", "+fibrotic bands", "post-infectious sequela"),
        ("The parenchyma carries no scars.", "Coarse strands are lacking."),
        ("scarring", "fibrotic bands", "fibrotic sequelae"),
        0.15,
    ),
    "Pleural effusion": Wording(
        "pleura",
        (
            "a {amount} {side} pleural effusion",
            "a {amount} volume of pleural fluid",
            "a {amount} {side} effusion",
            "a {amount} layer of free fluid",
            "a {amount} {side} pleural fluid collection",
        ),
        (),
        (
            "Fluid of {amount} volume has collected {at}.",
            "The pleural space contains a {amount} amount of fluid {at}.",
            "The pleural layers are separated by fluid {at}, {amount} in volume.",
            "Dependent fluid {at}, {amount} in amount.",
        ),
        ("pleural effusion", "pleural fluid", "effusion in the pleural space"),
        ("The pleural spaces are dry.", "Pleural recesses are free of fluid.", "The costophrenic recesses are clear."),
        ("pleural effusion", "pleural fluid"),
        0.5,
    ),
    "Mosaic attenuation pattern": Wording(
        "lobe",
        (
            "a {grade} mosaic attenuation pattern",
            "{grade} mosaic perfusion",
            "{grade} heterogeneous attenuation of mosaic type",
            "+{grade} geographic areas of differing density",
            "{grade} patchwork attenuation suggesting air trapping",
        ),
        (),
        (
            "Lung attenuation is {gradely} inhomogeneous in a mosaic manner {at}.",
            "Darker lobules alternate with brighter ones {at}.",
            "Aeration is uneven with a mosaic distribution {at}.",
            "Regional air trapping gives a patchwork of densities {at}.",
        ),
        ("mosaic attenuation", "mosaic perfusion", "air trapping"),
        ("Attenuation of the parenchyma is homogeneous.", "Aeration is even throughout."),
        ("mosaic attenuation", "mosaic pattern", "air trapping"),
        0.12,
    ),
    "Peribronchial thickening": Wording(
        "lobe",
        (
            "{grade} peribronchial thickening",
            "{grade} thickening of the bronchial walls",
            "{grade} bronchial wall thickening",
            "{grade} peribronchial cuffing",
            "+{grade} thick-walled airways",
        ),
        (),
        (
            "Bronchial walls are {gradely} thickened {at}.",
            "The airways have walls of increased thickness {at}.",
            "Thick bronchial walls of {grade_noun} degree {at}.",
            "Cuffs of soft tissue surround the bronchi {at}.",
        ),
        ("bronchial wall thickening", "peribronchial cuffing", "peribronchial thickening"),
        ("Bronchial walls are thin.", "The bronchial walls are of normal thickness."),
        ("bronchial wall thickening", "peribronchial thickening", "peribronchial cuffing"),
        0.12,
    ),
    "Consolidation": Wording(
        "lobe",
        (
            "a {size} consolidation",
            "an area of {grade} consolidation",
            "{grade} airspace consolidation",
            "{grade} consolidated parenchyma with air bronchograms",
            "a {grade} pneumonic consolidation {measuring}",
            "{grade} dense airspace filling",
        ),
        ("+{count} areas of consolidation", "+{count} consolidated areas", "+{grade} multifocal consolidations"),
        (
            "The parenchyma is consolidated {at}{comma_measuring}.",
            "Homogeneous density with air bronchograms {at}{comma_measuring}.",
            "Air spaces are replaced by dense tissue containing air bronchograms {at}.",
            "Consolidative change {at}, {grade_noun} in extent.",
        ),
        ("consolidation", "airspace consolidation", "pneumonic consolidation"),
        ("Air spaces are not filled anywhere.", "The parenchyma is free of consolidated areas."),
        ("consolidation", "airspace consolidation"),
        0.4,
    ),
    "Bronchiectasis": Wording(
        "lobe",
        (
            "{grade} bronchiectasis",
            "+{grade} bronchiectatic changes",
            "{grade} bronchial dilatation",
            "+{grade} dilated bronchi",
            "{grade} {kind} bronchiectasis",
        ),
        (),
        (
            "The bronchi are {gradely} widened {at}.",
            "Bronchial calibre exceeds that of the neighbouring artery {at}.",
            "Airways fail to taper and are dilated {at}.",
            "Ectatic bronchi {at}, {grade_noun} in degree.",
        ),
        ("bronchiectasis", "bronchial dilatation", "bronchiectatic change"),
        ("Bronchial calibre is normal.", "The bronchi taper normally."),
        ("bronchiectasis", "bronchial dilatation"),
        0.2,
    ),
    "Interlobular septal thickening": Wording(
        "lobe",
        (
            "{grade} interlobular septal thickening",
            "{grade} thickening of the interlobular septa",
            "{grade} septal thickening",
            "+{grade} septal lines",
            "{grade} smooth thickening of the septa",
        ),
        (),
        (
            "The interlobular septa are {gradely} thickened {at}.",
            "Septa are unduly visible {at}.",
            "Fine reticular lines of septal type {at}.",
            "Prominent septa outline the secondary lobules {at}.",
        ),
        ("septal thickening", "interlobular septal thickening", "+septal lines"),
        ("Interlobular septa are not thickened.", "The septa are thin."),
        ("septal thickening", "interlobular septal thickening"),
        0.12,
    ),
}

KINDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("Emphysema", "paraseptal"): (
        "+subpleural bullae",
        "+{grade} paraseptal air spaces",
        "bullous emphysema beneath the pleura",
    ),
    ("Emphysema", "centrilobular"): ("+{grade} centrilobular lucencies", "+tiny holes in the centre of the lobules"),
    ("Atelectasis", "linear"): ("+{grade} subsegmental atelectatic bands", "+{grade} plate-like densities of collapse"),
    ("Atelectasis", "wedge"): ("a {grade} wedge of dependent collapse", "{grade} dense dependent atelectasis"),
    ("Pulmonary fibrotic sequela", "scar"): ("+{grade} pleuroparenchymal scars", "{grade} scar tissue with traction"),
    ("Pulmonary fibrotic sequela", "reticulation"): (
        "{grade} reticulation",
        "{grade} fibrotic reticular change beneath the pleura",
    ),
    ("Pulmonary fibrotic sequela", "honeycombing"): (
        "{grade} honeycombing",
        "{grade} fibrosis with stacked subpleural cysts",
    ),
    ("Bronchiectasis", "cylindrical"): (
        "{grade} tubular bronchiectasis",
        "+{grade} tram-track airways of widened calibre",
    ),
    ("Bronchiectasis", "cystic"): ("{grade} saccular bronchiectasis", "+clusters of cystic dilated bronchi"),
}
"""Further noun phrases for a subtype; the other wordings of a finding are true of all its subtypes."""

DEVICES: dict[str, tuple[str, ...]] = {
    "pacemaker": (
        "a {side} cardiac pacemaker",
        "a {side} pacemaker with its leads",
        "a pulse generator in the {bare_side} chest wall",
        "a {side} pacing device",
        "+pacemaker leads",
        "a {side} implanted generator and wires",
    ),
    "central venous catheter": (
        "a {side} central venous catheter",
        "a {side} central line",
        "an indwelling {side} venous catheter",
        "a venous access catheter",
        "a {side} catheter with its tip towards the superior vena cava",
        "a {side} central venous line",
    ),
    "sternal wires": (
        "+sternal wires",
        "+sternotomy wires",
        "+cerclage wires after sternotomy",
        "+metal sutures of the sternum",
        "+wires of a previous median sternotomy",
        "+sternal cerclages",
    ),
    "chest tube": (
        "a {side} chest tube",
        "a {side} thoracic drain",
        "a {side} pleural drainage tube",
        "a {side} thoracostomy tube",
        "a {side} intercostal drain",
        "a drainage catheter in the {bare_side} hemithorax",
    ),
    "surgical clips": (
        "+surgical clips",
        "+metallic clips from earlier surgery",
        "+postoperative metal clips",
        "+{side} surgical clips",
        "+clips at the operation site",
        "+metallic suture clips",
    ),
    "": (
        "a medical device",
        "an implanted device",
        "+foreign materials of medical origin",
        "implanted metallic material",
        "surgical hardware",
        "indwelling medical material",
    ),
}
"""Noun phrases for each kind of medical material; the empty key serves a kind that is not in the table."""
