"""The rules that find the 18 findings in a report: which words mention one, and where they do not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from bundle.ctfindings.findings import FINDING_NAMES


@dataclass(frozen=True)
class Rule:
    """Words that mention a finding within one clause.

    Attributes:
        mention: the words whose assertion counts.
        near: words the clause needs as well.
        unless: words with which the clause does not mean the finding.
        denial_only: the words deny the finding when they are negated, and do not state it otherwise.
        not_in: regions of ``report_regions`` in which the words mean something else; the nearest one to the mention
            decides.
    """

    mention: re.Pattern[str]
    near: re.Pattern[str] | None = None
    unless: re.Pattern[str] | None = None
    not_in: frozenset[str] = field(default_factory=frozenset)
    denial_only: bool = False


def _rule(
    mention: str,
    near: str | None = None,
    unless: str | None = None,
    not_in: Iterable[str] = (),
    denial_only: bool = False,
) -> Rule:
    def compiled(words: str | None) -> re.Pattern[str] | None:
        return re.compile(words) if words else None

    return Rule(re.compile(rf"\b(?:{mention})"), compiled(near), compiled(unless), frozenset(not_in), denial_only)


_OUTSIDE_LUNG = (
    "thyroid",
    "breast",
    "abdomen",
    "bone",
    "wall",
    "heart",
    "pericardium",
    "coronary",
    "esophagus",
    "aorta",
)
_CALCIFIED = r"calcif\w*|ather\w*|(?<!pleural )\bplaques?\b(?!-like)"
_CORONARY = r"coronar\w*|\blad\b|\brca\b|\blmca\b|\bcxa?\b|circumflex|left main|anterior descending"
_THICK = r"thick\w*|cuffing"

RULES: dict[str, tuple[Rule, ...]] = {
    "Medical material": (
        _rule(
            r"catheter\w*|\bport(?:a|-?a-?cath|[- ]chamber| reservoir)?\b(?= (?:cath|chamb|reserv|is|was|in|on)|$)|\bstents?\b|"
            r"stented|sutur\w*|\bclips?\b|staple\w*|pace-?maker\w*|"
            r"defibrillat\w*|\bicd\b|electrode\w*|\bleads?\b(?= (?:in|end|terminat|extend))|sternal wires?|cerclage|cannula\w*|"
            r"(?:nasogastric|endotracheal|tracheostomy|tracheotomy|intubation|chest|thora\w*|drainage|feeding|ng|"
            r"gastrostomy)\s+tubes?|\bdrains?\b|\bpeg\b|"
            r"prosthe\w*|implant\w*|\bmesh\b|surgical (?:material|staple|clip|wire)\w*|metal\w* (?:sutur|material|densit|fixat|"
            r"implant|foreign|hardware|artifact|wire|clip|plate)\w*|"
            r"fixation (?:material|plate|device|screw)\w*|(?:fixat|stabili[sz]at|instrumentat|osteosynthes)\w*|\bscrews?\b|hardware|"
            r"nephrostomy|"
            r"(?:caval?|ivc) filter|\bcoils?\b|embolization material|(?:endovascular|vascular|aortic|bypass) grafts?|tavi|lvad|"
            r"tracheostom\w*|valve (?:replacement|prosthe\w*|repair|clip)|double[- ]?j|\b[dj]j?[- ]?catheter|gastric band|expander|"
            r"silicone|"
            r"medical (?:material|device)s?|foreign (?:body|bodies|material)|implanted devices?",
            unless=r"endplate|sclerot\w* implant|peritoneal implant|implant metasta\w*",
        ),
    ),
    "Arterial wall calcification": (
        _rule(
            _CALCIFIED,
            near=r"\baort(?!o-?pulm|ic-?o-?pulm)\w*|\barcus\b|\barch\b|(?:main |major |great )?(?:vascular structure|vessel)s?|"
            r"carotid|subclavian|brachiocephalic|supra-?aortic|iliac arter\w*|(?<!coronary )(?<!pulmonary )\barter(?:y|ies|ial) wall",
            unless=r"coronary vascular structure\w*(?!.*aort)|pleural plaq",
        ),
    ),
    "Cardiomegaly": (
        _rule(r"cardiomegal\w*|cardiac enlargement|cardiac (?:dilat|hypertroph)\w*|megacardia"),
        _rule(
            r"increas\w*|enlarge\w*|larger|dilat\w*|hypertroph\w*|big(?:ger)?|above normal|prominent|upper limit",
            near=r"\bheart (?:siz|dimension|is\b|was\b|cavit|chamb|compart|axis|volum|appears)\w*|(?:size|dimension|cavit|chamb|"
            r"volume)\w* of the heart|\bheart\b(?! contour)|cardio-?thoracic|cardiac (?:siz|dimens|cavit|chamb|space|compart|"
            r"contour|silhou)\w*|\bct[rio]\b",
            unless=r"pericard\w* (?:effus|thick|fluid)|aort\w*|pulmonary (?:arter|conus|trunk)|heart fail|vascular structures",
        ),
    ),
    "Pericardial effusion": (
        _rule(
            r"effusion\w*|\bfluid\b|\bcollection\b|smear\w*",
            near=r"peri[ck]ard(?!iac|iophren)\w*|pericardiac (?:effus|fluid|area|space)",
            unless=r"physiolog\w*|pericardial (?:cyst|fat)",
        ),
        _rule(r"h(?:a)?emopericardium|tamponade"),
    ),
    "Coronary artery wall calcification": (_rule(_CALCIFIED, near=_CORONARY),),
    "Hiatal hernia": (
        _rule(r"hiat\w*[- ](?:\w+ )?herni\w*|herni\w* (?:\w+ ){0,3}hiat\w*|sliding (?:type )?(?:\w+ )?herni\w*"),
        _rule(
            r"herniat\w*|\bherni\w*",
            near=r"hiat\w*|o?esophag\w*|stomach|gastric|fundus|paraesophag\w*",
            unless=r"inguinal|umbilic\w*|lumbar|ventral|incisional|morgagni|bochdalek|dis[ck] herni",
        ),
    ),
    "Lymphadenopathy": (
        _rule(
            r"lymph\s?nod\w*|lymphaden\w*|\blaps?\b|\blams?\b|(?<!lymph)adenopath\w*|nodal (?:mass|enlarg|conglomer|disease)\w*|"
            r"(?:enlarged|pathological\w*|abnormal|prominent|bulky) (?:\w+ ){0,2}nodes?\b",
            unless=r"(?:lymph node|lap) (?:stations?|dissection|sampling|biops)|evaluation of (?:\w+ ){0,2}lymph|"
            r"lymph nodes?(?: (?:is|are|were|appear) (?:\w+ ){0,3}|: (?:\w+ ){0,6})(?:normal|unremarkable|nothing)",
        ),
    ),
    "Emphysema": (
        _rule(
            r"emphysem\w*|emphisem\w*",
            unless=r"(?:subcutan|cutan|skin|mediastinal|muscul|soft tissue|surgical|intramuscular|wall)\w*[ -]*(?:\w+[ -]+){0,3}emphysem|"
            r"emphysem\w* (?:\w+ ){0,4}(?:subcutan|soft tissue|muscle|chest wall|pectoral|mediastin|skin)",
        ),
    ),
    "Atelectasis": (
        # Fibro-atelectatic bands are fibrotic sequelae in CT-RATE.
        _rule(r"(?<!fibro)(?<!fibro[ -])\bat[ae]l[ae]c?ta\w*"),
        _rule(
            r"\bcollaps\w*",
            near=r"\blungs?\b|\blob\w*|segment",
            unless=r"vertebr|corpus|bronchus|trache|esophag|\b[tl]\d",
        ),
    ),
    "Lung nodule": (
        # "Nodular" alone describes a shape: of a consolidation, a thickening, an opacity.
        _rule(r"(?:micro)?-?nodules?\b|granulomas?\b|nodularit\w*", not_in=_OUTSIDE_LUNG),
        _rule(r"nodular lesion|nodular or infiltrative", not_in=_OUTSIDE_LUNG, denial_only=True),
    ),
    "Lung opacity": (
        _rule(
            r"ground[- ]?-?glass\w*|\bggos?\b|\bopacit\w*|opacif\w*|crazy[- ]paving|frosted glass",
            not_in=("thyroid", "breast", "abdomen", "bone"),
        ),
        # CT-RATE calls ground glass and opacities so, an infiltrate of its own not; "no infiltrate" denies both.
        _rule(r"infiltrat\w*|pneumoni\w*", not_in=_OUTSIDE_LUNG, denial_only=True),
    ),
    "Pulmonary fibrotic sequela": (
        _rule(
            r"sequel\w*|sequal\w*|seque?la\w*",
            not_in=("bone", "abdomen", "thyroid", "breast", "wall", "node", "heart", "mediastinum"),
        ),
        _rule(
            r"fibro(?:sis|tic|atele\w*|-atele\w*|us band\w*|ic\b|linear)|\bscar\w*|cicatri\w*|pleuro-?parenchymal (?:band|density|"
            r"densities|recession|linear)",
            not_in=("bone", "abdomen", "thyroid", "breast", "wall", "heart"),
        ),
    ),
    "Pleural effusion": (
        _rule(r"pleural?(?:,| and| or|/|-| ){1,2}(?:\w+ )?peri[ck]ardial (?:effus|fluid)\w*"),
        _rule(
            r"effusion\w*|(?<!free )\bfluid\b",
            near=r"(?<!sub)pleur\w*|hemi-?thora\w*|fissur\w*|costophrenic",
            unless=r"abdom\w*|periton\w*|joint|peri-?(?:renal|nephr)|kidney",
            not_in=("pericardium",),
        ),
        _rule(
            r"effusion\w*",
            unless=r"peri[ck]ard\w*|abdom\w*|periton\w*|joint|pelvi\w*|effusion-thick|peri-?(?:renal|nephr)|kidney",
        ),
        _rule(
            r"hydrothorax|h(?:a)?emothorax|hydro-?pneumo-?thorax|h(?:a)?emopneumothorax|pyothorax|empyema|chylothorax"
        ),
    ),
    "Mosaic attenuation pattern": (_rule(r"mosaic\w*"), _rule(r"air[- ]?trapping")),
    "Peribronchial thickening": (
        _rule(
            _THICK,
            near=r"(?:peri-?bronch\w*|bronch\w* walls?)(?:(?!sept|pleura|\band\b)[^.;]){0,45}thick"
            r"|(?:thick\w*|cuffing)(?:(?!sept|pleura)[^.;]){0,45}(?:peri-?bronch|bronch\w* wall|walls? of (?:\w+ ){0,4}bronch|\bbronchi\b)"
            r"|peri-?bronch\w* cuffing|bronchial (?:\w+ )?thick",
            unless=r"o?esophag\w*",
        ),
    ),
    "Consolidation": (
        _rule(r"consolid\w*"),
        _rule(r"infiltrat\w*|pneumoni\w*", not_in=_OUTSIDE_LUNG, denial_only=True),
    ),
    "Bronchiectasis": (
        _rule(r"bronchi?o?l?-?ectas\w*|bronchiecta\w*|bron[ck]i?ectati\w*"),
        _rule(
            r"\bectas\w*|\bectatic|dilat\w*|widen\w*|enlarge\w*",
            near=r"\bbronch\w*",
            unless=r"aort\w*|arter\w*|vascul\w*|trachea|o?esophag\w*|lymph|\bbile|biliary",
        ),
    ),
    "Interlobular septal thickening": (
        _rule(
            r"thick\w*|prominen\w*|increas\w*",
            near=r"\b(?:inter|intra)\w*-?\s?(?:lobul|lobar|septa)\w*|\bsept(?:al|a|um|ae)\b|interlobul\w*",
            unless=r"interventric\w*|interatrial|nasal|ventric",
            not_in=("mediastinum",),
        ),
        _rule(r"interstiti\w* thick\w*|thick\w*[^.;]{0,40}\binterstiti\w*", unless=r"peri-?bronch\w*"),
        _rule(r"kerley"),
    ),
}
"""Rules of each finding by its CT-RATE name. Any rule may mention it."""

assert set(RULES) == set(FINDING_NAMES)

NORMAL_STATEMENTS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (
        re.compile(
            r"lymph nodes?(?: (?:is|are|were|appear) (?:\w+ ){0,3}|: (?:\w+ ){0,6})(?:normal|unremarkable|nothing)"
        ),
        ("Lymphadenopathy",),
    ),
    (
        re.compile(r"(?:\bheart\b|cardiac|cardio-?thoracic|\bct[rio]\b)[^.;]{0,60}\b(?:normal|natural|unremarkable)"),
        ("Cardiomegaly",),
    ),
    (re.compile(r"\blungs? (?:are|is) (?:\w+ )?clear\b|clear lungs"), ("Lung opacity", "Consolidation")),
    (
        re.compile(r"pericardi\w* (?:is|are|was|were|appears?) (?:\w+ )?(?:normal|natural|unremarkable)"),
        ("Pericardial effusion",),
    ),
    (
        re.compile(
            r"pleura\w* (?:(?:surfaces?|spaces?|leaves) )?(?:is|are|was|were|appears?) (?:\w+ )?(?:normal|natural|unremarkable|clear)"
        ),
        ("Pleural effusion",),
    ),
)
"""Statements that all is normal, and the findings they deny."""
