"""Reports to captions: the anatomy of a sentence, abnormal captions, and the order of the two sections."""

import pytest

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.reports.body_regions import REGION_ANATOMY, regions
from bundle.ctfindings.reports.captions import read_report
from bundle.ctfindings.reports.statements import Kind, read_statement

FINDINGS = (
    "Trachea and both main bronchi are open. Heart size is normal. Pericardial effusion was not observed. There is a "
    "small sliding hiatal hernia. Calcific plaques are seen in the aortic arch. 6 mm nodule in the right upper lobe. "
    "It is stable. No pleural effusion. Degenerative changes in the bones. Clinical correlation is recommended."
)
IMPRESSION = "Stable nodule in the right upper lobe. Hiatal hernia."


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("6 mm nodule in the right upper lobe.", ("lung",)),
        ("Pericardial effusion.", ("heart",)),
        ("Sliding hiatal hernia.", ("esophagus",)),
        ("The ascending aorta is dilated.", ("aorta",)),
        ("Enlarged mediastinal lymph nodes.", ("mediastinum",)),
        ("Old fracture of the fifth rib.", ("thorax",)),
        ("Pleural and pericardial effusion.", ("lung", "heart")),
        ("Lymph node in the aortopulmonary window.", ("mediastinum",)),
        ("The largest measures 8 mm.", ()),
    ],
)
def test_anatomies_of_a_sentence(sentence: str, expected: tuple[str, ...]) -> None:
    assert {REGION_ANATOMY[region] for region, _, _ in regions(sentence.lower())} == set(expected)


@pytest.mark.parametrize(
    ("sentence", "kind", "abnormal"),
    [
        ("Trachea and both main bronchi are open.", Kind.NORMAL, ()),
        ("No mass or effusion.", Kind.NORMAL, ()),
        ("Atelectasis can be excluded.", Kind.NORMAL, ()),
        ("Calcific plaques in the aorta and the coronary arteries.", Kind.ABNORMAL, ("heart", "aorta")),
        ("The heart is normal and there is a pleural effusion.", Kind.ABNORMAL, ("lung",)),
        ("Pleural effusion next to the heart.", Kind.ABNORMAL, ("lung",)),
        ("Aneurysm of the ascending aorta.", Kind.ABNORMAL, ("aorta",)),
        ("Lungs without infiltrate.", Kind.NORMAL, ()),
        ("The trachea is without deviation.", Kind.NORMAL, ()),
        ("The thyroid is homogeneous.", Kind.NORMAL, ()),
        ("Lungs clear.", Kind.NORMAL, ()),
        ("Homogeneous density with air bronchograms", Kind.OTHER, ()),
        ("Symmetric areas of high attenuation in both lungs", Kind.OTHER, ()),
        ("Areas of low attenuation without walls", Kind.OTHER, ()),
        ("Areas of low attenuation that have no walls", Kind.OTHER, ()),
        ("The lungs are not clear.", Kind.ABNORMAL, ("lung",)),
        ("The heart size is not normal.", Kind.ABNORMAL, ("heart",)),
        ("The esophagus is not wider than normal.", Kind.NORMAL, ()),
        ("Pericardium is thickened and an effusion of 12 mm is seen.", Kind.ABNORMAL, ("heart",)),
        ("Emphysema (?) in the lungs.", Kind.ABNORMAL, ("lung",)),
        ("Clinical correlation is recommended.", Kind.REMARK, ()),
        ("The mediastinum could not be evaluated without contrast agent.", Kind.REMARK, ()),
    ],
)
def test_statements(sentence: str, kind: Kind, abnormal: tuple[str, ...]) -> None:
    statement = read_statement(sentence)
    assert (statement.kind, statement.abnormal) == (kind, abnormal)


def test_captions_hold_the_impression_first_and_each_sentence_once() -> None:
    captions = read_report(FINDINGS, IMPRESSION).captions
    assert captions["esophagus"].text == "Hiatal hernia. There is a small sliding hiatal hernia."
    assert captions["lung"].text.startswith("Stable nodule in the right upper lobe.")
    twice = read_report("Hiatal hernia. No pleural effusion.", "Hiatal hernia").captions
    assert twice["esophagus"].text == "Hiatal hernia."


def test_a_caption_is_normal_only_without_an_abnormality_of_its_own_anatomy() -> None:
    captions = read_report(FINDINGS, IMPRESSION).captions
    assert {name: caption.normal for name, caption in captions.items()} == {
        "lung": False, "heart": True, "esophagus": False, "aorta": False, "mediastinum": True, "thorax": False,
    }  # fmt: skip


def test_a_sentence_that_goes_on_belongs_to_what_it_continues() -> None:
    captions = read_report("6 mm nodule in the right upper lobe. It is stable. Heart is normal.").captions
    assert captions["lung"].text == "6 mm nodule in the right upper lobe. It is stable."


def test_remarks_are_in_no_caption() -> None:
    assert not any("recommended" in caption.text for caption in read_report(FINDINGS, IMPRESSION).captions.values())


def test_the_thorax_stands_for_the_whole_scan() -> None:
    with_impression = read_report(FINDINGS, IMPRESSION).captions["thorax"].text
    assert with_impression == "Stable nodule in the right upper lobe. Hiatal hernia. Degenerative changes in the bones."
    without = read_report(FINDINGS).captions["thorax"].text
    assert "6 mm nodule" in without and "Trachea" not in without


def test_a_sentence_without_an_anatomy_is_reported_and_kept_with_the_thorax() -> None:
    report = read_report("Heart is normal. Sarcoidosis.")
    assert report.unplaced == ["Sarcoidosis."]
    assert "Sarcoidosis." in report.captions["thorax"].text


@pytest.mark.parametrize("empty", ["", "  ", "Not given.", "nan", "None"])
def test_an_empty_report_has_no_captions_and_no_labels(empty: str) -> None:
    report = read_report(empty, empty, unmentioned=0)
    assert (report.captions, report.labels) == ({}, [-1] * 18)


def test_labels_come_from_both_sections() -> None:
    labels = dict(zip(FINDING_NAMES, read_report("No pleural effusion.", "Emphysema.").labels, strict=True))
    assert (labels["Pleural effusion"], labels["Emphysema"], labels["Bronchiectasis"]) == (0, 1, -1)


@pytest.mark.parametrize("uncertain", [-1, 0, 1])
def test_the_label_of_a_doubt_is_an_argument(uncertain: int) -> None:
    assert (
        read_report("Emphysema cannot be excluded.", uncertain=uncertain).labels[FINDING_NAMES.index("Emphysema")]
        == uncertain
    )


def test_the_label_of_a_finding_without_a_mention_is_an_argument() -> None:
    told = read_report("Emphysema cannot be excluded. Hiatal hernia.", unmentioned=0).labels
    labels = dict(zip(FINDING_NAMES, told, strict=True))
    assert (labels["Emphysema"], labels["Hiatal hernia"], labels["Lung nodule"]) == (-1, 1, 0)


def test_another_label_for_a_doubt_is_refused() -> None:
    with pytest.raises(ValueError, match="1, 0 or -1"):
        read_report("Emphysema?", uncertain=2)


def test_captions_are_named_as_the_anatomies() -> None:
    assert set(read_report(FINDINGS, IMPRESSION).captions) <= set(ANATOMY_NAMES)
