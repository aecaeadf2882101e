"""The clinical-aware augmentation: what it changes, and what of health and disease it must not change."""

import numpy as np
import pytest
import torch

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS
from bundle.ctfindings.phantom.case import Case, Site
from bundle.ctfindings.phantom.report.write_report import write_report
from bundle.ctfindings.reports.caption_augmentation import RandCaptionsd, sentences_with_flags

ABNORMAL = (
    "Trachea is open. Pleura is normal. No consolidation. 6 mm nodule in the lingula. No effusion. Airways are patent."
)
NORMAL = "Heart size is normal. No pericardial effusion. Cardiac contours are natural."


def study(**captions: str) -> dict:
    normal = torch.tensor([name not in captions or captions[name] == NORMAL for name in ANATOMY_NAMES])
    return {"id": "a", "captions": captions, "caption_normal": normal, "caption_id": torch.arange(6)}


def sentences(text: str) -> list[str]:
    return [sentence.strip(". ") for sentence in text.split(". ")]


def test_shuffling_keeps_every_sentence() -> None:
    transform = RandCaptionsd(shuffle_prob=1.0, drop_prob=0.0).set_random_state(seed=1)
    texts = [transform(study(lung=ABNORMAL))["captions"]["lung"] for _ in range(8)]
    assert all(sorted(sentences(text)) == sorted(sentences(ABNORMAL)) for text in texts)
    assert len(set(texts)) > 1


def test_an_abnormal_caption_always_keeps_an_abnormal_sentence() -> None:
    transform = RandCaptionsd(shuffle_prob=1.0, drop_prob=1.0, min_keep=0.0).set_random_state(seed=2)
    texts = [transform(study(lung=ABNORMAL))["captions"]["lung"] for _ in range(60)]
    assert all("nodule" in text for text in texts)
    assert min(len(sentences(text)) for text in texts) == 1


def test_a_normal_caption_may_lose_any_sentence_but_not_all() -> None:
    transform = RandCaptionsd(shuffle_prob=0.0, drop_prob=1.0, min_keep=0.0).set_random_state(seed=3)
    kept = [set(sentences(transform(study(heart=NORMAL))["captions"]["heart"])) for _ in range(60)]
    assert set.union(*kept) == set(sentences(NORMAL))
    assert set.intersection(*kept) == set()
    assert all(kept)


def test_the_share_that_stays_is_at_least_min_keep() -> None:
    transform = RandCaptionsd(shuffle_prob=0.0, drop_prob=1.0, min_keep=0.5).set_random_state(seed=4)
    assert min(len(sentences(transform(study(lung=ABNORMAL))["captions"]["lung"])) for _ in range(60)) == 3


def test_an_abnormal_caption_without_a_recognised_sentence_loses_none() -> None:
    text = "Heart size is normal. No pericardial effusion."
    given = {"captions": {"heart": text}, "caption_normal": torch.zeros(6, dtype=torch.bool)}
    transform = RandCaptionsd(shuffle_prob=0.0, drop_prob=1.0, min_keep=0.0).set_random_state(seed=5)
    assert all(transform(given)["captions"]["heart"] == text for _ in range(20))


def test_flags_identities_and_the_given_study_stay() -> None:
    given = study(lung=ABNORMAL, heart=NORMAL)
    result = RandCaptionsd(shuffle_prob=1.0, drop_prob=1.0).set_random_state(seed=6)(given)
    assert result["caption_normal"] is given["caption_normal"] and result["caption_id"] is given["caption_id"]
    assert given["captions"] == {"lung": ABNORMAL, "heart": NORMAL}


def test_the_random_state_decides_alone() -> None:
    def run(seed: int) -> list[dict]:
        transform = RandCaptionsd(min_keep=0.2).set_random_state(seed=seed)
        return [transform(study(lung=ABNORMAL, heart=NORMAL))["captions"] for _ in range(10)]

    assert run(7) == run(7)
    assert run(7) != run(8)


def test_of_a_limited_number_of_versions_each_is_drawn_and_is_the_same_in_every_run() -> None:
    def drawn(seed: int) -> set[str]:
        transform = RandCaptionsd(versions=3).set_random_state(seed=seed)
        return {transform(study(lung=ABNORMAL))["captions"]["lung"] for _ in range(60)}

    transform = RandCaptionsd(versions=3)
    versions = {transform.version(ABNORMAL, "lung", False, number) for number in range(3)}
    assert drawn(1) == drawn(2) == versions
    assert len(versions) == 3


def test_versions_are_drawn_among_all_that_there_are() -> None:
    free = RandCaptionsd().set_random_state(seed=0)
    unlimited = {free(study(lung=ABNORMAL))["captions"]["lung"] for _ in range(400)}
    bounded = RandCaptionsd(versions=400)
    limited = {bounded.version(ABNORMAL, "lung", False, number) for number in range(400)}
    assert abs(len(unlimited) - len(limited)) < 0.2 * len(unlimited)


def test_a_negative_number_of_versions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"versions: expected 0 .* got -1"):
        RandCaptionsd(versions=-1)


def test_without_strength_nothing_changes() -> None:
    given = study(lung=ABNORMAL)
    assert RandCaptionsd(shuffle_prob=0.0, drop_prob=0.0)(given)["captions"] == given["captions"]
    assert RandCaptionsd(prob=0.0, shuffle_prob=1.0)(given)["captions"] == given["captions"]


def test_a_study_without_captions_passes() -> None:
    assert RandCaptionsd()({"id": "a"}) == {"id": "a"}


@pytest.mark.parametrize("argument", ["shuffle_prob", "drop_prob", "min_keep", "prob"])
def test_a_share_outside_its_range_is_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        RandCaptionsd(**{argument: 1.5})


def test_an_abnormality_of_another_anatomy_is_no_reason_to_keep_a_sentence() -> None:
    caption = "The heart is normal and there is a pleural effusion. Pericardial effusion."
    assert sentences_with_flags(caption, "heart")[1] == (False, True)
    assert sentences_with_flags(caption, "lung")[1] == (True, False)


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.name)
def test_a_synthetic_caption_reduced_to_one_sentence_states_a_finding_of_its_anatomy(finding) -> None:
    """The writer of the synthetic reports knows what each sentence states; the rules here do not know the writer."""
    anatomy_of = {known.name: known.anatomy for known in FINDINGS}
    transform = RandCaptionsd(shuffle_prob=1.0, drop_prob=1.0, min_keep=0.0).set_random_state(seed=0)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        labels = tuple(int(name == finding.name) for name in FINDING_NAMES)
        case = Case(
            seed, "phantom", labels, [Site(finding.name, 0.9, "right")], image_count=100, z_bottom_mm=0.0, series=3
        )
        report = write_report(case, rng)
        caption = report.captions[finding.anatomy]
        if finding.anatomy == "thorax":
            continue  # its caption has a summary that belongs to no sentence
        stating = {s.plain for s in report.sentences for name in s.findings if anatomy_of[name] == finding.anatomy}
        given = {"captions": {finding.anatomy: caption.text}, "caption_normal": torch.zeros(6, dtype=torch.bool)}
        for _ in range(10):
            kept = transform(given)["captions"][finding.anatomy]
            assert any(sentence in kept for sentence in stating), kept
