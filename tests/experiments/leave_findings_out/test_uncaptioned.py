"""Concepts asked by free text: which scans count, who names them, and the comparison with a probe."""

import numpy as np
import pytest

from experiments.leave_findings_out.uncaptioned import CONCEPTS, compared, named_in

SEX, CONTRAST, CALCIFIED = CONCEPTS


def test_only_scans_with_a_nodule_are_asked_for_its_calcification() -> None:
    nodule, solid = {"finding": "Lung nodule", "kind": "calcified"}, {"finding": "Lung nodule", "kind": "solid"}
    other = {"finding": "Emphysema", "kind": "calcified"}
    found = [CALCIFIED.truth({"sites": sites}) for sites in ([solid, nodule], [solid, other], [other], [])]
    assert found == [True, False, None, None]


@pytest.mark.parametrize(
    ("concept", "text", "named"),
    [
        (SEX, "A 50-year-old woman.", True),
        (SEX, "Mild gynaecomastia.", True),
        (SEX, "Mesenteric fat.", False),
        (CONTRAST, "Helical acquisition without contrast agent.", True),
        (CONTRAST, "Axial sections of the chest.", False),
        (CALCIFIED, "A calcified nodule on the right.", True),
        (CALCIFIED, "The vessel wall is calcified. A nodule on the left.", False),
    ],
)
def test_a_report_or_caption_that_names_a_concept_is_counted(concept, text: str, named: bool) -> None:  # type: ignore[no-untyped-def]
    study = {"captions": {"lung": text}, "snippets": [], "report": {"findings": "Clear lungs."}}
    assert named_in([study], concept.named) == {"studies": 1, "reports": 0, "captions": int(named)}


def test_texts_are_compared_with_a_probe_that_never_scores_a_scan_that_it_was_fitted_on() -> None:
    draw = np.random.default_rng(0)
    truth = np.arange(80) % 2
    asked = np.stack([truth + 0.1 * draw.normal(size=80), -truth.astype(float)], axis=1)
    found = compared(asked, draw.normal(size=(80, 200)), truth, [f"p{row}" for row in range(80)])
    assert found["free_text"]["value"] > 0.99 and found["pairs"][0]["value"] == 0
    assert 0.25 < found["probe"]["value"] < 0.75, "more features than scans, and no signal"
    assert found["difference"]["value"] == pytest.approx(found["free_text"]["value"] - found["probe"]["value"])
