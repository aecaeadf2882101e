"""Negations of templates and of loose prose, words of typographic characters, and reports without full stops."""

import time

import pytest

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.reports.captions import read_report
from bundle.ctfindings.reports.snippets.miner import mine_report

EFFUSION, CONSOLIDATION, NODULE, MATERIAL = "Pleural effusion", "Consolidation", "Lung nodule", "Medical material"
DENIED = (
    "Pleural effusion: [ ] yes [x] no", "Pleural effusion [x] no [ ] yes", "Unlikely to represent pleural effusion.",
    "Pleural effusion: No", "Pleural effusion:No", "Left pleural effusion: not seen", "Pleural effusion = No",
    "Pleural effusion | none", "Pleural effusion: Nil", "Pleural effusion: 0", "Pleural effusion -",
    "[ ] Pleural effusion",
    "Pleural effusion \u2013 none", "Pleural effusion (\u2212)", "Pleural effusion: absent bilaterally",
    "PLEURAL EFFUSION: NO EVIDENCE", "Pleural effusion isn\u2019t seen.", "A pleural effusion wasn\u2018t detected.",
    "Pleural effusion is neither seen on the left nor right.", "Effusion is seen in neither pleural space.",
    "Pleural effusion is present on neither side.", "Effusion is seen in none of the pleural spaces.",
    "No longer seen is the left pleural effusion.", "No longer visible: pleural effusion.",
    "Not seen is a pleural effusion.", "Gone is the pleural effusion.", "The pleural effusion is no longer seen.",
    "Nowhere is there an effusion.", "There is nothing to suggest pleural effusion.", "Pleural effusion ruled out.",
    "Pleural effusion fails to be seen.", "Pleural effusion has been ruled out.",
    "Pleural effusion (no)", "Pleural effusion? No.", "Is there a pleural effusion? No.", "Q: Pleural effusion? A: No",
    "Pleural effusion: N", "Pleural effusion:\nNo\n", "Pleural effusion ..... absent", "Pleural effusion => none",
    '"pleural effusion": "no"', "pleural_effusion: no", "Pleural effusion: \u00abNo\u00bb", "# Pleural effusion\nnone",
    "Pleural effusion: \u2718", "[x] Emphysema [ ] Pleural effusion", "\u2611 Emphysema \u2610 Pleural effusion",
    "Pleural effusion\uff1ano", "<p>Pleural effusion: no</p>", "**Pleural effusion:** no",
    "Nil pleural effusion.", "Pleural effusion nil.", "Pleural effusion, none.", "Pleural effusion is lacking.",
    "The pleural effusion has cleared.", "Pleural effusion no longer seen.", "Pleural effusion can no longer be seen.",
    "Pleural effusion can\u2019t be seen.", "Pleural effusion isn't there.", "Pleural effusion has not developed.",
    "Resolved is the pleural effusion.", "Resolved pleural effusion.", "Excluded: pleural effusion.",
    "CT excludes pleural effusion.", "Effusion-free pleural spaces.", "Not a single effusion is seen.",
    "Pleural spaces: clear.", "Fails to reveal pleural effusion.", "We did not find pleural effusion.",
    "w/o pleural effusion", "Neg. for pleural effusion", "Ruled out pleural effusion.", "Pleural effusion\tN",
    "Failed to demonstrate pleural effusion.", "Negative: consolidation, pleural effusion.",
    "Pleural effusion was drained and no longer present.", "There is nothing suspicious for pleural effusion.",
    "Pleural effusion [ ]  Consolidation [x]",
)  # fmt: skip
OTHERS_DENIED = (
    ("There was no increase in heart size.", "Cardiomegaly"),
    ("No increase in cardiothoracic ratio was observed.", "Cardiomegaly"),
    ("The bronchial wall thickness is normal.", "Peribronchial thickening"),
    ("Interlobular septal thickness is normal.", "Interlobular septal thickening"),
    ("The aortic valve is calcified.", "Arterial wall calcification"),
)
OTHERS_STATED = (
    ("Due to the consolidation, the dimensions of the mass cannot be clearly selected.", CONSOLIDATION),
    ("The largest consolidation cannot be distinguished from the pleura.", CONSOLIDATION),
    ("The nodule does not require follow-up.", NODULE),
    ("A 4 mm nodule, which was not considered significant, is seen.", NODULE),
    ("New consolidation that was not seen on the CT of 12.03.2020.", CONSOLIDATION),
    ("Calcification of the aortic valve and of the aortic arch.", "Arterial wall calcification"),
    ("Nodules of 8 mm are seen in both lungs, consolidation not observed.", NODULE),
    ("An effusion was seen on the left and consolidation not detected.", EFFUSION),
)
STATED = (
    "Pleural effusion: [x] yes [ ] no", "There can be no doubt about a pleural effusion.",
    "Near-complete resolution of the pleural effusion.", "Pleural effusion, not seen before.",
    "Pleural effusion: yes", "Pleural effusion: small, left", "Pleural effusion (+)", "[x] Pleural effusion",
    "There is no doubt about the pleural effusion.", "Without doubt there is a pleural effusion.",
    "There is no question that a pleural effusion is present.", "No improvement in the pleural effusion.",
    "No resolution of the pleural effusion.", "The pleural effusion hasn\u2019t resolved.",
    "Pleural effusion cannot be denied.", "No evidence against pleural effusion.",
    "Not only pleural effusion but also consolidation is seen.", "Hydro-pneumothorax on the left.",
    "Pleural effusion? Yes.", "Pleural effusion: Y", "Pleural effusion: \u2713", "Pleural effusion: no change",
    "Pleural effusion: no significant change", "Partial resolution of the pleural effusion.",
    "Near complete resolution of the pleural effusion.", "No enlargement of the pleural effusion.",
    "The pleural effusion is no longer increasing.", "Pleural effusion, not previously seen.",
    "No surprise: the pleural effusion persists.", "No less than 2 litres of pleural effusion.",
    "There is no reason to drain the pleural effusion.", "No comparison, pleural effusion on the left.",
    "No pneumothorax, small pleural effusion on the left.", "No finding save for a pleural effusion.",
    "The pleural effusion has not cleared.", "Pleural e\ufb00usion.", "Pleural ef\u00adfusion.", "Pleural effu-\nsion.",
    "\uff30\uff4c\uff45\uff55\uff52\uff41\uff4c effusion", "Pleural effusion\u3002No nodule\u3002",
)  # fmt: skip


def label(text: str, finding: str) -> int:
    return read_report(text).labels[FINDING_NAMES.index(finding)]


@pytest.mark.parametrize("text", DENIED)
def test_denied(text: str) -> None:
    assert label(text, EFFUSION) == 0


@pytest.mark.parametrize(
    ("text", "finding", "expected"), [(*each, 0) for each in OTHERS_DENIED] + [(*each, 1) for each in OTHERS_STATED]
)
def test_words_of_other_findings(text: str, finding: str, expected: int) -> None:
    assert max(label(text, finding), 0) == expected


@pytest.mark.parametrize("text", STATED)
def test_stated(text: str) -> None:
    assert label(text, EFFUSION) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Pleural effusion not excluded.",
        "Pleural effusion: possible",
        "Pleural effusion?",
        "Pleural effusion: n/a",
        "Pleural effusion: not assessed",
        "Pleural effusion n/a",
        "Pleural effusion: not evaluable.",
        "Cannot exclude pleural effusion.",
        "?pleural effusion on the left",
        "If a pleural effusion develops, repeat the examination.",
        "Indication: evaluate for pleural effusion. Findings: clear lungs.",
        "INDICATION:\nPneumonia.\nEvaluate for pleural effusion.\n\nFINDINGS:\nClear lungs.",
    ],
)
def test_in_doubt(text: str) -> None:
    assert label(text, EFFUSION) == -1


@pytest.mark.parametrize(
    ("text", "finding", "expected"),
    [
        ("Pleural effusion: no, consolidation: yes", CONSOLIDATION, 1),
        ("Consolidation: yes, pleural effusion: no", CONSOLIDATION, 1),
        ("Consolidation: yes, pleural effusion: no", EFFUSION, 0),
        ("Consolidation: No Nodule: No Pleural effusion: Yes", EFFUSION, 1),
        ("Consolidation: No Nodule: No Pleural effusion: Yes", NODULE, 0),
        ("- Consolidation: No\n- Nodule: No\n- Pleural effusion: Yes", EFFUSION, 1),
        ("Emphysema (+), consolidation (-)", "Emphysema", 1),
        ("Emphysema (+), consolidation (-)", CONSOLIDATION, 0),
        ("Pleural effusion | no | Consolidation | yes", CONSOLIDATION, 1),
        ("Pleural effusion\tno\nConsolidation\tyes", EFFUSION, 0),
        ("1) Consolidation: No 2) Nodule: Yes", NODULE, 1),
        ("Lymph nodes are not pathologically enlarged.", "Lymphadenopathy", 0),
        ("None of the lymph nodes is enlarged.", "Lymphadenopathy", 0),
        ("Non-dilated bronchi.", "Bronchiectasis", 0),
        ("The heart is nonenlarged.", "Cardiomegaly", 0),
        ("Noncalcified nodule.", NODULE, 1),
        ("Hickman line in place.", MATERIAL, 1),
        ("No: pleural effusion, consolidation", CONSOLIDATION, 0),
        ("Pleural effusion [ ]  Consolidation [x]", CONSOLIDATION, 1),
        ("Technique: without contrast. There is a pleural effusion.", EFFUSION, 1),
        ("Technique:\nThere is a pleural effusion.", EFFUSION, 1),
        ("No LN enlargement.", "Lymphadenopathy", 0),
        ("Normal heart size.", "Cardiomegaly", 0),
        ("Upper normal heart size, cardiomegaly.", "Cardiomegaly", 1),
        ("The nodule is neither calcified nor cavitated.", NODULE, 1),
        ("Port-a-cath tip in the SVC.", MATERIAL, 1),
        ("PORT\u2011A\u2011CATH tip in the SVC.", MATERIAL, 1),
        ("Pace-maker is seen.", MATERIAL, 1),
        ("Ground\u2011glass opacity.", "Lung opacity", 1),
        ("Cardio-megaly.", "Cardiomegaly", 1),
    ],
)
def test_each_answer_of_a_template_counts_for_its_own_finding(text: str, finding: str, expected: int) -> None:
    assert label(text, finding) == expected


@pytest.mark.parametrize(
    "words",
    [
        "nodule: no ",
        "[ ] nodule ",
        "effusion ..... no ",
        "nodule ",
        "no nodule, ",
        "nodule 3/45 and ",
        "nodule (3/45, ",
    ],
)
def test_a_report_of_20000_words_without_a_full_stop_is_read_in_linear_time(words: str) -> None:
    text = words * (20_000 // len(words.split()))
    started = time.process_time()
    read_report(text)
    mine_report([text])
    # A second or two; two hours where the time grows with the square of the length.
    assert time.process_time() - started < 30
