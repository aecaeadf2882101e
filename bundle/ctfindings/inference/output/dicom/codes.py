"""Coded concepts of the results: SNOMED CT and DICOM where they have the concept, otherwise 99CTF, our own; RadLex."""

from highdicom.sr import CodedConcept

from bundle.ctfindings.anatomy import ANATOMIES, anatomy_index
from bundle.ctfindings.findings import FINDINGS, finding_index

PRESENCE = CodedConcept("PRESENCE", "99CTF", "Presence")
RESULTS = {
    "present": CodedConcept("52101004", "SCT", "Present"),
    "not present": CodedConcept("2667000", "SCT", "Absent"),
    "not assessed": CodedConcept("NOT_ASSESSED", "99CTF", "Not assessed"),
}
SIDES = {
    "left": CodedConcept("7771000", "SCT", "Left"),
    "right": CodedConcept("24028007", "SCT", "Right"),
    "midline": CodedConcept("261129000", "SCT", "Midline"),
}
PROBABILITY = CodedConcept("122157", "DCM", "Probability")
THRESHOLD = CodedConcept("122411", "DCM", "Threshold Value")
SCORE = CodedConcept("SCORE", "99CTF", "Score, not calibrated")
QUERY = CodedConcept("FREE_TEXT_QUERY", "99CTF", "Free-text query")
EVIDENCE = CodedConcept("EVIDENCE_REGION", "99CTF", "Region of the evidence")
PLACE = CodedConcept("EVIDENCE_PLACE", "99CTF", "Place of the strongest evidence")
NO_UNIT = CodedConcept("1", "UCUM", "no units")
COMMENT = CodedConcept("121106", "DCM", "Comment")
CT_OF_CHEST = CodedConcept("169069000", "SCT", "Computed tomography of chest")
ANATOMICAL_STRUCTURE = CodedConcept("123037004", "SCT", "Anatomical Structure")
ARTIFICIAL_INTELLIGENCE = CodedConcept("123110", "DCM", "Artificial Intelligence")


def finding_code(name: str) -> CodedConcept:
    """The code of a finding, by its CT-RATE name, with its RadLex code as an equivalent one."""
    finding = FINDINGS[finding_index(name)]
    concept = CodedConcept(*finding.code)
    if finding.radlex:
        rid, meaning = finding.radlex
        concept.EquivalentCodeSequence = [CodedConcept(rid, "RADLEX", meaning)]
    return concept


def anatomy_code(name: str) -> CodedConcept:
    """The code of an anatomy, by its name."""
    return CodedConcept(*ANATOMIES[anatomy_index(name)].code)
