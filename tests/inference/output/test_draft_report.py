"""The draft report says what the record holds, and nothing else."""

from dataclasses import replace

import pytest

from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS
from bundle.ctfindings.inference.findings_record import Evidence, FindingAnswer
from bundle.ctfindings.inference.output.draft_report import compose_report, format_draft
from bundle.ctfindings.reports.captions import read_report

PLACE = Evidence((-60.0, 5, -96), 0.8, None, 20, 2, 61, -96.0, side="left")


def answers(present: dict[int, float]) -> list[FindingAnswer]:
    """All 18 findings; those of ``present`` with a probability above the threshold, and a place."""
    return [
        FindingAnswer(f.name, present.get(i, 0.1), 0.5, i in present, f.anatomy, evidence=PLACE)
        for i, f in enumerate(FINDINGS)
    ]


@pytest.mark.parametrize("present", [{}, *({i: 0.9} for i in range(18)), dict.fromkeys(range(18), 0.9)], ids=str)
def test_the_report_reader_finds_exactly_the_present_findings(present: dict[int, float]) -> None:
    draft = compose_report(answers(present))
    text = " ".join(sentence for said in draft.findings.values() for sentence in said)
    labels = read_report(text, " ".join(draft.impression)).labels
    assert {i for i, label in enumerate(labels) if label == 1} == set(present)
    assert read_report(draft.text).labels == labels


def test_place_and_order_are_those_of_the_record() -> None:
    effusion, nodule = FINDING_NAMES.index("Pleural effusion"), FINDING_NAMES.index("Lung nodule")
    draft = compose_report(answers({nodule: 0.7, effusion: 0.936}))
    assert draft.findings["lung"] == [
        "Pleural effusion, strongest left of midline, image 61 (z -96 mm), probability 0.94.",
        "Lung nodule, strongest left of midline, image 61 (z -96 mm), probability 0.70.",
    ]
    assert draft.findings["heart"] == ["No finding at or above its threshold (3 assessed)."]
    assert draft.impression == [
        "Pleural effusion, strongest left of midline.",
        "Lung nodule, strongest left of midline.",
    ]


@pytest.mark.parametrize(("extent", "share"), [("diffuse", 0.42), ("scattered", 0.05)])
def test_a_finding_without_a_box_has_a_share_and_no_side(extent: str, share: float) -> None:
    (one,) = (a for a in answers({FINDING_NAMES.index("Emphysema"): 0.8}) if a.present)
    draft = compose_report([replace(one, evidence=replace(PLACE, extent=extent, share=share))])
    place = f"evidence {extent} over {share:.0%} of the lung, image 61 (z -96 mm)"
    assert draft.findings == {"lung": [f"Emphysema, {place}, probability 0.80."]}
    assert draft.impression == ["Emphysema."]


def test_anatomies_that_say_the_same_share_a_line_and_limits_are_the_warnings(case) -> None:
    reason = "the scan is unlike the training scans"
    every = [replace(a, present=None, not_assessed=reason) for a in answers({})]
    warnings = ["Domain: not known", f"{case.record.scan.file}: is short"]
    text = format_draft(replace(case.record, findings=every, warnings=warnings))
    assert text.count(f" (each): Not assessed: {reason}.") == 1
    assert text.splitlines()[-2:] == ["Domain: not known", f"{case.record.scan.file}: is short"]


def test_what_was_not_assessed_is_neither_stated_nor_denied() -> None:
    reason = "the scan is unlike the training scans"
    every = [replace(a, present=None, not_assessed=reason) for a in answers({0: 0.9, 5: 0.9})]
    draft = compose_report(every)
    assert set(map(tuple, draft.findings.values())) == {(f"Not assessed: {reason}.",)}
    assert draft.impression == ["Not assessed."]
    assert not any(name.lower() in draft.text.lower() for name in FINDING_NAMES)


def test_a_scan_with_one_anatomy_outside_the_field_of_view_says_so_for_that_anatomy_only() -> None:
    given = [
        replace(a, present=None, not_assessed="heart was not found in the scan") if a.anatomy == "heart" else a
        for a in answers({})
    ]
    draft = compose_report(given)
    assert draft.findings["heart"] == ["Not assessed: heart was not found in the scan."]
    assert draft.impression == ["No finding at or above its threshold (15 assessed)."]


def test_an_anatomy_that_was_assessed_in_part_says_how_many_were_not() -> None:
    calcium = FINDING_NAMES.index("Coronary artery wall calcification")
    given = answers({})
    given[calcium] = replace(given[calcium], present=None, not_assessed="the values were clipped")
    assert compose_report(given).findings["heart"] == [
        "No finding at or above its threshold (2 assessed).",
        "Not assessed (1 of 3): the values were clipped.",
    ]


def test_the_text_is_marked_as_a_draft_and_holds_notice_and_warnings(case) -> None:
    text = format_draft(replace(case.record, notice="Outside the domain."))
    assert text.splitlines()[0].startswith("DRAFT REPORT") and "Research only. Not a diagnosis." in text
    assert text.index("Outside the domain.") < text.index("FINDINGS") < text.index("IMPRESSION") < text.index("LIMITS")
    assert "a <i>warning</i>" in text and "IMPRESSION\nOutside the domain.\n1. " in text
    assert case.record.queries[0].text not in text
