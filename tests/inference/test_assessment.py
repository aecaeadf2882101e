"""Which findings and queries of a scan can be assessed."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bundle.ctfindings.inference.assessment import Assessment
from bundle.ctfindings.inference.findings_record import DomainAnswer, FindingAnswer, NearestFinding, QueryAnswer
from bundle.ctfindings.networks.classifier import NO_THRESHOLD
from bundle.ctfindings.scan.hu_check import UNSEEN_WHEN_CLIPPED

NODULE = FindingAnswer("Lung nodule", 0.9, 0.4, True, "lung")
OUTSIDE = DomainAnswer(3.1, 1.5, False, {})


def scan(
    litres: float = 5.0,
    domain: DomainAnswer | None = None,
    unseen: Sequence[str] = (),
    midline_mm: float | None = 0.0,
) -> Any:
    info, regions = SimpleNamespace(file="scan.nii.gz"), SimpleNamespace(lung_litres=litres)
    return SimpleNamespace(regions=regions, domain=domain, scan=info, unseen=unseen, midline_mm=midline_mm)


def test_outside_the_domain_no_finding_is_present_or_absent_and_its_probability_stays() -> None:
    for present in (True, False):
        answer = Assessment().of(replace(NODULE, present=present), scan(domain=OUTSIDE))
        assert isinstance(answer, FindingAnswer) and answer.present is None and answer.result == "not assessed"
        assert answer.probability == 0.9 and answer.not_assessed == "the scan is unlike the training scans"


def test_a_scan_inside_the_domain_or_without_one_is_answered() -> None:
    for domain in (None, replace(OUTSIDE, inside=True)):
        assert Assessment().of(NODULE, scan(domain=domain)) is NODULE
        assert Assessment().notice(domain) is None


def test_who_only_wants_a_warning_gets_the_findings_and_the_notice() -> None:
    warn = Assessment(outside_domain="warn")
    assert warn.of(NODULE, scan(domain=OUTSIDE)) is NODULE
    notice = str(warn.notice(OUTSIDE))
    assert notice.startswith("Outside the domain") and "(distance 3.10; typical 1.00, limit 1.50)" in notice


@pytest.mark.parametrize(("scans", "warned"), [(12, True), (99, True), (100, False), (None, False)])
def test_weights_that_learned_from_few_scans_are_warned_of(scans: int | None, warned: bool) -> None:
    lines = Assessment().warnings(scan(domain=replace(OUTSIDE, inside=True, scans=scans)))
    assert [line.startswith(f"Domain: fitted on {scans} training scans;") for line in lines] == [True] * warned


def test_a_finding_whose_anatomy_is_not_in_the_scan_is_not_assessed() -> None:
    hernia = FindingAnswer("Hiatal hernia", 0.9, 0.4, True, "esophagus", anatomy_found=False)
    answer = Assessment().of(hernia, scan())
    assert isinstance(answer, FindingAnswer) and answer.not_assessed == "esophagus was not found in the scan"


def test_without_air_filled_lung_only_findings_of_the_lung_are_not_assessed() -> None:
    answer = Assessment().of(NODULE, scan(litres=0.0))
    assert isinstance(answer, FindingAnswer) and answer.not_assessed == "the scan shows 0.0 litres of air-filled lung"
    heart = replace(NODULE, name="Cardiomegaly", anatomy="heart")
    assert Assessment().of(heart, scan(litres=0.0)) is heart


def test_a_finding_that_clipped_values_cannot_show_is_not_assessed() -> None:
    calcium = replace(NODULE, name="Arterial wall calcification", anatomy="aorta")
    answer = Assessment().of(calcium, scan(unseen=UNSEEN_WHEN_CLIPPED))
    assert isinstance(answer, FindingAnswer) and str(answer.not_assessed).startswith("the values of the scan were clip")
    assert Assessment().of(NODULE, scan(unseen=UNSEEN_WHEN_CLIPPED)) is NODULE


def test_a_finding_without_a_fitted_threshold_is_not_assessed() -> None:
    answer = Assessment().of(replace(NODULE, probability=1.0, threshold=NO_THRESHOLD), scan())
    assert isinstance(answer, FindingAnswer) and answer.present is None
    assert (
        answer.not_assessed
        == "no threshold could be fitted: too few scans with and without this finding, or an AUC at chance"
    )
    assert Assessment().of(replace(NODULE, threshold=1.0), scan()).not_assessed is None, "1 can be fitted"


def test_a_query_is_not_assessed_where_its_nearest_finding_is_not_and_its_score_stays() -> None:
    query = QueryAnswer(
        "fluid", 0.6, "lung", nearest_findings=[NearestFinding("Pleural effusion", 0.8)], percentile=0.9
    )
    calcium = replace(query, nearest_findings=[NearestFinding("Arterial wall calcification", 0.8)])
    for asked, given, reason in (
        (query, scan(domain=OUTSIDE), "the scan is unlike the training scans"),
        (replace(query, anatomy_found=False), scan(), "lung was not found in the scan"),
        (query, scan(litres=0.0), "the scan shows 0.0 litres of air-filled lung"),
        (calcium, scan(unseen=UNSEEN_WHEN_CLIPPED), "the values of the scan were clipped below the density"),
    ):
        answer = Assessment().of(asked, given)
        assert isinstance(answer, QueryAnswer) and str(answer.not_assessed).startswith(reason)
        assert (answer.score, answer.percentile, answer.result) == (0.6, None, "not assessed")
    assert Assessment().of(query, scan(unseen=UNSEEN_WHEN_CLIPPED)) is query
    assert Assessment(outside_domain="warn").of(query, scan(domain=OUTSIDE)) is query


def test_little_lung_and_a_missing_domain_are_warned_of() -> None:
    little, unknown = Assessment(min_lung_litres=1.5).warnings(scan(litres=0.8))
    assert little.startswith("scan.nii.gz: shows 0.8 litres of air-filled lung, less than the 1.5 of a whole chest")
    assert unknown.startswith("Domain: not available")
    assert Assessment().warnings(scan(litres=0.8, domain=replace(OUTSIDE, inside=True))) == []


def test_a_body_that_is_cut_at_a_side_is_warned_of() -> None:
    (line,) = Assessment().warnings(scan(domain=replace(OUTSIDE, inside=True), midline_mm=None))
    assert line == "scan.nii.gz: the field of view cuts the body on the left or right; places have no side"


def test_a_scan_outside_the_domain_comes_with_what_to_do_next() -> None:
    (line,) = Assessment().warnings(scan(domain=OUTSIDE))
    assert "adapt the model to scans of your own (docs/adapt_to_your_hospital.md)" in line


def test_an_unknown_way_with_scans_outside_is_rejected() -> None:
    with pytest.raises(ValueError, match="outside_domain: expected withhold or warn, got 'hide'"):
        Assessment(outside_domain="hide")
