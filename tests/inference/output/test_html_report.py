"""The report: everything said is in it, nothing from outside runs in it, and pictures lie as a radiologist expects."""

import base64
import dataclasses
import html
import io
import re
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.evidence import locate
from bundle.ctfindings.inference.findings_record import DomainAnswer, ObservedStatement
from bundle.ctfindings.inference.output.html_report import write_report
from bundle.ctfindings.inference.output.report_pictures import SOFT_TISSUE, WINDOW_OF_FINDING, DisplayVolume


def page(case, tmp_path) -> str:
    write_report(tmp_path / "report.html", case.record, case.hu, case.affine, case.maps, case.token_affine)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_finding_query_and_warning_is_in_the_report(case, tmp_path) -> None:
    text = html.unescape(page(case, tmp_path))
    for answer in case.record.findings:
        assert answer.name in text
    assert case.record.queries[0].text in text and "a <i>warning</i>" in text and "scan <b>.nii.gz" in text
    assert "Research only. Not a diagnosis." in text and "ab" * 32 in text


def test_text_from_outside_is_escaped_and_nothing_is_loaded(case, tmp_path) -> None:
    tags, sources = set(), []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.add(tag)
            sources.extend(value for name, value in attrs if name in ("href", "src"))

    Reader().feed(page(case, tmp_path))
    assert not tags & {"script", "link", "iframe", "object"}
    assert sources and all(source.startswith(("data:image/", "#")) for source in sources)
    assert "i" in tags and "a <i>warning" not in page(case, tmp_path)


def test_present_findings_and_queries_have_pictures_and_absent_ones_have_none(case, tmp_path) -> None:
    titles = re.findall(r"<h3>(.*?)</h3>", page(case, tmp_path))
    expected = [answer.name for answer in case.record.ordered() if answer.present] + [case.record.queries[0].text]
    assert [html.unescape(title).strip() for title in titles] == expected


def test_tensors_of_monai_are_taken_as_they_are(case, tmp_path) -> None:
    hu = MetaTensor(torch.from_numpy(case.hu), affine=torch.from_numpy(case.affine))
    maps = {key: torch.tensor(scores, requires_grad=True) for key, scores in case.maps.items()}
    write_report(tmp_path / "tensor.html", case.record, hu, hu.affine, maps, torch.from_numpy(case.token_affine))
    assert (tmp_path / "tensor.html").read_text(encoding="utf-8") == page(case, tmp_path)


def test_observations_of_pathology_queries_are_listed_with_their_place(case, tmp_path) -> None:
    assert "pathology queries" not in page(case, tmp_path)
    place = case.record.findings[1].evidence
    statements = ["There is Lung nodule <1>.", "There is Emphysema."]
    observed = [ObservedStatement(0, statements[0], "Lung nodule", 0.41, 0.23, place)]
    observed.append(ObservedStatement(7, statements[1], "Emphysema", 0.4, 0.1))
    case.record = dataclasses.replace(case.record, observations=observed)
    table = page(case, tmp_path).partition('aria-label="Observations"')[2].partition("</section>")[0]
    assert [html.unescape(name) for name in re.findall(r'class="name">(.*?)</td>', table)] == statements
    assert f"image {place.image}" in table and "0.23" in table


def test_outside_the_domain_no_probability_is_called_calibrated(case, tmp_path) -> None:
    assert "Probability is calibrated" in page(case, tmp_path)
    case.record = dataclasses.replace(case.record, domain=DomainAnswer(3.0, 1.6, False, {}))
    assert "Probability is calibrated" not in page(case, tmp_path)


def test_the_notice_comes_before_the_findings(case, tmp_path) -> None:
    case.record = dataclasses.replace(case.record, notice="Outside the domain: nothing is reliable.")
    text = page(case, tmp_path)
    assert text.index("Outside the domain: nothing is reliable.") < text.index('aria-label="Findings"')


def test_a_notice_stands_beside_the_number_of_present_findings(case, tmp_path) -> None:
    assert "not reliable" not in page(case, tmp_path)
    case.record = dataclasses.replace(case.record, notice="Outside the domain")
    assert re.search(r"<h2>\d of \d findings[^/]*not reliable: outside the domain", page(case, tmp_path))


def test_present_findings_without_evidence_are_not_denied(case, tmp_path) -> None:
    unplaced = [dataclasses.replace(answer, evidence=None) for answer in case.record.findings]
    case.record = dataclasses.replace(case.record, findings=unplaced, queries=[])
    text = page(case, tmp_path)
    assert "These weights give no places." in text and "No finding is at or above" not in text


def test_a_scan_without_findings_still_gives_a_report(case, tmp_path) -> None:
    absent = [
        dataclasses.replace(answer, present=False, evidence=None, template_spread={}) for answer in case.record.findings
    ]
    record = dataclasses.replace(case.record, findings=absent, queries=[])
    write_report(tmp_path / "r.html", record, case.hu, case.affine, {}, case.token_affine)
    assert "No finding is at or above its threshold" in (tmp_path / "r.html").read_text(encoding="utf-8")
    record = dataclasses.replace(record, findings=[dataclasses.replace(answer, present=None) for answer in absent])
    write_report(tmp_path / "r.html", record, case.hu, case.affine, {}, case.token_affine)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<h2>No finding was assessed</h2>" in page
    assert not any(text in page for text in ("Where the model looked", "<th ", "at or above its threshold"))


@pytest.mark.parametrize("code", ["RAS", "LPS", "PIR", "SAL"])
def test_left_of_the_patient_is_right_on_the_picture_and_anterior_is_up(code) -> None:
    ras = np.full((40, 40, 20), -1000.0, dtype=np.float32)
    ras[2:38, 2:38] = 40
    ras[4:10, 28:36, 12] = 1000  # bone at the patient's left front, in one slice only
    affine = np.diag([3.0, 3, 5, 1])
    image = nib.Nifti1Image(ras, affine)
    image = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(code))
    )
    tokens = np.diag([12.0, 12, 10, 1])
    scores = np.zeros((10, 10, 10))
    scores[2, 8, 6] = 1.0  # (24, 96, 60) mm: slice 12
    place = locate(scores, tokens, image.affine, image.shape)
    assert place is not None
    picture = DisplayVolume(np.asarray(image.dataobj), image.affine).picture(
        "axial", place, SOFT_TISSUE, scores, tokens
    )
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.image.split(",")[1]))))
    rows, columns = np.nonzero(grey > 240)
    assert columns.mean() > 0.7 * grey.shape[1] and rows.mean() < 0.3 * grey.shape[0]
    assert (picture.width, picture.height) == pytest.approx((grey.shape[1] * 3, grey.shape[0] * 3))
    # Peak, box and heat lie on it as well.
    assert picture.peak == pytest.approx(((columns.mean() + 0.5) * 3, (rows.mean() + 0.5) * 3), abs=6)
    x, y, width, height = picture.box
    assert x <= picture.peak[0] <= x + width and y <= picture.peak[1] <= y + height
    heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.heat.split(",")[1]))))[..., 3]
    row, column = (np.argwhere(heat == heat.max()).mean(axis=0) + 0.5) / heat.shape
    assert (column * picture.width, row * picture.height) == pytest.approx(picture.peak, abs=6)


def test_findings_with_a_window_of_their_own_are_in_the_table() -> None:
    assert set(WINDOW_OF_FINDING) <= set(FINDING_NAMES)
