"""Which region of the body a sentence of a report speaks of, and which of the six anatomies that is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

# Regions in order of preference where two of them match the same words. A region of the right column belongs to no mask
# of its own: its sentences go to the thorax, and a nodule or opacity in it is none of the lung.
_REGIONS: dict[str, tuple[str, str]] = {
    "coronary": ("heart", r"coronar\w*|lad\b|rca\b|lmca\b|cxa?\b|circumflex|left main"),
    "pericardium": ("heart", r"peri[ck]ard\w*"),
    "heart": (
        "heart",
        r"heart\w*|cardi(?!a\b)\w*|ct[rio]\b|atri(?:um|a|al)\b|biatrial|ventric\w*|myocard\w*|(?:mitral|aortic|tricuspid) (?:valve|"
        r"annul)\w*",
    ),
    "esophagus": ("esophagus", r"o?esophag\w*|hiat\w*|gastro-?o?esophag\w*|cardia\b"),
    "aorta": ("aorta", r"aort(?!o-?pulm|ic-?o-?pulm)\w*(?!\s*-?pulm)|arcus\b|supra-?aortic|arch\b"),
    "vessel": (
        "mediastinum",
        r"vascular structures?|pulmonary (?:trunk|conus|arter\w*|vein\w*|embol\w*|thromb\w*|vascul\w*)|vena cava\w*|subclavian|"
        r"brachiocephalic|"
        r"jugular|carotid|azygos|filling defect",
    ),
    "node": ("mediastinum", r"lymph(?!oma|angitic|edema|ocyt)\w*|laps?\b|adenopath\w*|nodal\b"),
    "mediastinum": (
        "mediastinum",
        r"mediastin\w*|(?:para|pre|pre-para)-?tracheal|trachea\w*|carina\w*|subcarinal|hilar\b|hil(?:um|us|a)\b|prevascular|aort(?:o|"
        r"ic)-?o?-?pulmon\w*|thym(?:us|ic)\w*|"
        r"main bronch\w*|para-?esophageal|peri-?esophageal",
    ),
    "pleura": (
        "lung",
        r"pleura(?!o?parench|l-based|l based)\w*|hemi-?thora\w*|hydro\w*thorax|pneumo\w*thorax|fissur\w*|costophrenic",
    ),
    "lung": (
        "lung",
        r"lungs?\b|pulmon\w*|parenchym\w*|(?:upper|middle|lower)[- ](?:and (?:upper|middle|lower)[- ])?lobes?|lingul\w*|bronch\w*|"
        r"airways?|aerat\w*|"
        r"alveol\w*|acinar|centri?l?[ai]?\w*acinar|centrilobular|(?:apico|postero|antero|latero|medio|para)\w*basal|basal segments?|"
        r"subpleural|"
        r"pleuro\w*parenchym\w*|pleural?[- ]based|emphysem\w*|atelecta\w*|ground[- ]?glass|consolidat\w*|tree[- ]in[- ]bud|septal|"
        r"interstiti\w*|"
        r"mosaic|apex\b|apical\b|infiltrat\w*|pneumoni\w*|bulla\w*|blebs?\b",
    ),
    "thyroid": ("thorax", r"thyroid\w*|isthmus"),
    "breast": ("thorax", r"breasts?\b|mamm\w*|retroareolar|gyn[a]?ecomast\w*|fibroglandular|nipple"),
    "abdomen": (
        "thorax",
        r"(?:intra-?|supra-?)?abdom\w*|peri-?(?:nephr|hepat|renal|splen|cholec)\w*|para-?vesical|liver|hepat\w*|spleen|splen\w*|"
        r"kidney\w*|renal|nephr\w*|adrenal\w*|surrenal\w*|pancrea\w*|gall-?bladder|chole\w*|bil(?:e|iary)\b|"
        r"stomach|gastric\b|duoden\w*|colon\w*|bowel|intestin\w*|mesenter\w*|periton\w*|ascit\w*|iliac|para-?aortic|paracaval|portal|"
        r"omental",
    ),
    "bone": (
        "thorax",
        r"bon[ey]\w*|(?:inter)?vertebr\w*|spondyl\w*|vertebr\w*|ribs?\b|costal\b|stern(?:um|al|otomy)\b|clavic\w*|scapul\w*|humer\w*|"
        r"spin(?:e|al|ous)|osteo\w*|kypho\w*|scolio\w*|"
        r"[tl]\d{1,2}\b|corpus|end-?plates?|sclerotic|lytic|medullary",
    ),
    "scan": (
        "thorax",
        r"(?:thora\w*|chest) (?:ct|examination)|(?:examination|inspection|findings?|study|scan) (?:(?:is|are) )?within (?:the )?normal",
    ),
    "wall": (
        "thorax",
        r"chest wall|thora\w* wall|subcutan\w*|cutaneous|muscl\w*|muscular|pectoral\w*|skin\b|axill\w*|soft tissue pla\w*|"
        r"surrounding soft tissue\w*|supraclavicular|infraclavicular|"
        r"neck\b|diaphragm\w*",
    ),
}
_PATTERN = re.compile(r"\b(?:" + "|".join(f"(?P<{name}>{words})" for name, (_, words) in _REGIONS.items()) + ")")

REGION_ANATOMY: dict[str, str] = {name: anatomy for name, (anatomy, _) in _REGIONS.items()}
"""The anatomy of each region."""


@lru_cache(maxsize=1 << 16)
def regions(text: str) -> tuple[tuple[str, int, int], ...]:
    """Mentions of regions in a text in lower case, in its order, as (region, start, end)."""
    return tuple((match.lastgroup or "", match.start(), match.end()) for match in _PATTERN.finditer(text))


def nearest_region(mentions: Sequence[tuple[str, int, int]], start: int, end: int) -> str | None:
    """The region whose words are nearest to ``[start, end)``; of two at the same distance the earlier. None without
    any.
    """
    best, distance = None, 10**9
    for region, first, last in mentions:
        gap = max(first - end, start - last, 0)
        if gap < distance:
            best, distance = region, gap
    return best
