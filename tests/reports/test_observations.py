"""Observations of a report: which statements count, of what, and which of them a step draws."""

import pytest

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.reports.observations import (
    Observation,
    RandObservationsd,
    check_observations,
    normalise,
    read_observations,
)

LUNG, HEART = ANATOMY_NAMES.index("lung"), ANATOMY_NAMES.index("heart")
CARDIOMEGALY, EFFUSION, CONSOLIDATION = (
    FINDING_NAMES.index(name) for name in ("Cardiomegaly", "Pleural effusion", "Consolidation")
)


def test_observations_are_the_statements_of_the_report_with_their_anatomy() -> None:
    findings = "FINDINGS: Consolidation in the right lower lobe. Heart size is normal. Heart and aorta are normal."
    assert read_observations(findings, "Pleural effusion on the left.") == (
        Observation("Pleural effusion on the left.", LUNG, False, (EFFUSION,)),
        Observation("Consolidation in the right lower lobe.", LUNG, False, (CONSOLIDATION,)),
        Observation("Heart size is normal.", HEART, True, (CARDIOMEGALY,)),
        Observation("Heart and aorta are normal.", -1, True, (CARDIOMEGALY,)),
    )


@pytest.mark.parametrize(
    "text",
    [
        "A follow-up CT is recommended.",
        "The nodule in the right upper lobe is stable.",
        "Effusion decreased compared to the previous examination.",
        "The spleen is enlarged.",
        "A cyst is seen in the left thyroid lobe.",
        "Helical acquisition without contrast agent.",
        "LUNGS:",
        "Not given.",
        "",
    ],
)
def test_remarks_comparisons_and_organs_outside_the_field_of_view_are_left_out(text: str) -> None:
    assert read_observations(text) == ()


def test_a_sentence_with_several_findings_is_divided_into_its_clauses() -> None:
    found = read_observations("There is a pleural effusion on the right, and cardiomegaly is seen.")
    assert [(observation.anatomy, observation.normal) for observation in found] == [(LUNG, False), (HEART, False)]
    assert "cardiomegaly" not in found[0].text and "effusion" not in found[1].text


def test_a_clause_without_a_region_is_about_the_last_one_of_its_sentence() -> None:
    found = read_observations("Pleural effusion and emphysema are seen, the thyroid is enlarged and nodules are seen.")
    assert (found[-1].text, found[-1].anatomy, found[-1].findings) == ("nodules are seen.", THORAX, ())
    found = read_observations(
        "A consolidation and emphysema are seen, the pericardium is thick and an effusion is seen."
    )
    assert (found[-1].text, found[-1].anatomy, found[-1].findings) == ("an effusion is seen.", HEART, ())


@pytest.mark.parametrize(
    "text", ["Homogeneous density with air bronchograms", "Areas of low attenuation in the lung without walls"]
)
def test_a_description_of_something_abnormal_is_no_normal_observation(text: str) -> None:
    assert not [each for each in read_observations(text) if each.normal]


def test_a_normal_statement_names_the_findings_that_it_denies() -> None:
    (denial,) = read_observations("There is no pleural effusion or consolidation.")
    assert denial.normal and set(denial.findings) == {EFFUSION, CONSOLIDATION}


def test_two_normal_parts_of_the_chest_wall_are_on_no_common_anatomy() -> None:
    assert [observation.anatomy for observation in read_observations("No rib fracture. Breasts are normal.")] == [
        -1,
        -1,
    ]


def test_equal_texts_count_once_and_are_equal_but_for_case_blanks_and_full_stop() -> None:
    assert len(read_observations("Emphysema in both lungs. EMPHYSEMA  in both lungs", "Emphysema in both lungs.")) == 1
    assert normalise("No  effusion.") == normalise("no effusion") != normalise("No effusions")


def test_a_step_draws_a_few_normal_and_most_abnormal_observations() -> None:
    findings = " ".join(
        [f"A nodule of {size} mm in the left upper lobe." for size in range(3, 9)]
        + [f"No {finding} in the lungs." for finding in ("nodule", "effusion", "emphysema", "consolidation", "mass")]
    )
    study = {"report": {"findings": findings, "impression": None}, "id": "x"}
    draw = RandObservationsd(abnormal=4, normal=2).set_random_state(seed=0)
    drawn = [draw(study)["observations"] for _ in range(6)]
    assert all([item.normal for item in given] == [False] * 4 + [True] * 2 for given in drawn)
    assert len({item.text for given in drawn for item in given}) == 11
    fixed = RandObservationsd(abnormal=4, normal=2, draw=False)
    assert fixed(study)["observations"] == fixed(study)["observations"]
    assert [item.text for item in fixed(study)["observations"]][:2] == [
        "A nodule of 3 mm in the left upper lobe.",
        "A nodule of 4 mm in the left upper lobe.",
    ]
    assert RandObservationsd()({"id": "x"})["observations"] == []


def test_studies_from_whose_reports_nothing_can_be_learned_are_refused() -> None:
    read = {"report": {"findings": "There is a nodule in the right upper lobe."}}
    unread = {"report": {"findings": "Rundherd im rechten Oberlappen."}}
    check_observations(training=[unread, {"report": None}, {}, read], validation=[])
    with pytest.raises(ValueError, match=r"validation: no report states an observation .* give English reports"):
        check_observations(training=[read], validation=[unread, {"report": None}, {}])
