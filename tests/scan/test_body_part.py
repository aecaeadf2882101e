"""Which headers say that a CT series is not of the chest."""

import pytest

from bundle.ctfindings.scan.body_part import other_body_part


@pytest.mark.parametrize(
    "part",
    ["CHEST", "THORAX", "Lung", "HEART", "CHESTABDOMEN", "CHESTABDPELVIS", "NECKCHEST", "NECKCHESTABDPELV", "WHOLEBODY",
     "CORONARYARTERY", "", "PORT CHEST", "UNKNOWN", "TRAUMA"],
)  # fmt: skip
def test_a_chest_alone_or_with_other_parts_is_kept_and_so_is_what_names_no_part(part: str) -> None:
    assert not other_body_part({"BodyPartExamined": part})
    assert not other_body_part({"StudyDescription": f"CT {part}"})


@pytest.mark.parametrize(
    "part", ["HEAD", "BRAIN", "ABDOMEN", "ABDOMENPELVIS", "PELVIS", "HEADNECK", "LSPINE", "KNEE", "EXTREMITY", "HIP"]
)
def test_another_part_is_named(part: str) -> None:
    assert other_body_part({"BodyPartExamined": part}).startswith("BodyPartExamined names ")
    assert other_body_part({"SeriesDescription": f"{part} 1.0 B30"}).startswith("SeriesDescription names ")
    assert other_body_part({"StudyDescription": f"ct_{part.lower()}"}).startswith("StudyDescription names ")


def test_the_series_decides_before_the_study_and_the_chest_before_other_parts() -> None:
    study = {"StudyDescription": "CT chest, abdomen and pelvis"}
    assert other_body_part(study | {"BodyPartExamined": "HEAD"}) == "BodyPartExamined names HEAD"
    assert other_body_part(study | {"BodyPartExamined": "ABDOMEN"}) == ""
    assert other_body_part(study | {"SeriesDescription": "PELVIS 5.0", "BodyPartExamined": "ABDOMEN"}) == ""
    assert other_body_part({"StudyDescription": "CT abdomen", "BodyPartExamined": "CHEST"}) == ""
    assert other_body_part({"BodyPartExamined": "ABDOMEN", "SeriesDescription": "Thorax 1.0"}) == ""
    assert other_body_part(study | {"SeriesDescription": "1.0 B30f axial"}) == ""


@pytest.mark.parametrize(
    "text",
    ["handheld export", "harmonic kernel", "legacy reconstruction", "surface", "ARMS UP", "HEAD_FIRST"],
)
def test_a_word_that_only_begins_like_a_part_decides_nothing(text: str) -> None:
    assert other_body_part({"SeriesDescription": text}) == ""
