"""The 18 labels from report text, on sentences of many styles and on real reports where they are at hand."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS, TRAINING_TEMPLATES, fill_template
from bundle.ctfindings.reports.assertion import Assertion
from bundle.ctfindings.reports.captions import read_report
from bundle.ctfindings.reports.finding_mentions import (
    LABEL_OF_ASSERTION,
    find_mentions,
    strongest,
    to_labels,
)

MANUAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "reports" / "manual_labels_18.csv"


def label(text: str, finding: str) -> int:
    return read_report(text).labels[FINDING_NAMES.index(finding)]


# Wording of different schools; none is from a report.
@pytest.mark.parametrize(
    ("finding", "text"),
    [
        ("Medical material", "Right-sided port catheter with its tip in the superior vena cava."),
        ("Medical material", "Dual-chamber pacemaker leads in situ; sternal wires after bypass."),
        ("Arterial wall calcification", "Moderate calcified plaque of the aortic arch."),
        ("Arterial wall calcification", "Atherosclerotic calcifications of the thoracic aorta."),
        ("Cardiomegaly", "The heart is mildly enlarged."),
        ("Cardiomegaly", "Increased cardiothoracic ratio."),
        ("Pericardial effusion", "Small amount of fluid in the pericardial sac."),
        ("Pericardial effusion", "Pleural and pericardial effusions."),
        ("Coronary artery wall calcification", "Dense calcification of the LAD."),
        ("Hiatal hernia", "Small sliding hiatus hernia."),
        ("Lymphadenopathy", "Enlarged subcarinal lymph nodes, up to 18 mm in short axis."),
        ("Lymphadenopathy", "Pathologically enlarged nodes at the right hilum."),
        ("Lymphadenopathy", "Lymph nodes: enlarged in the mediastinum."),
        ("Emphysema", "Upper lobe predominant centrilobular emphysema."),
        ("Atelectasis", "Plate-like atelectasis at both bases."),
        ("Lung nodule", "Solid 6 mm nodule in the lingula."),
        ("Lung nodule", "Scattered micronodules in both lungs."),
        ("Lung opacity", "Patchy ground-glass opacities in the lower lobes."),
        ("Lung opacity", "Crazy paving in both lungs."),
        ("Lung opacity", "Mild increase in parenchymal density at the right base."),
        ("Lung opacity", "Density increases of the dependent parenchyma in both lower lobes."),
        ("Pulmonary fibrotic sequela", "Biapical scarring."),
        ("Pulmonary fibrotic sequela", "Fibroatelectatic bands in the middle lobe."),
        ("Pleural effusion", "Bilateral effusions, larger on the right."),
        ("Pleural effusion", "Left hydropneumothorax."),
        ("Mosaic attenuation pattern", "Mosaic perfusion with air trapping."),
        ("Peribronchial thickening", "Diffuse bronchial wall thickening."),
        ("Peribronchial thickening", "Peribronchial cuffing."),
        ("Consolidation", "Consolidation of the left lower lobe with air bronchograms."),
        ("Bronchiectasis", "Cylindrical bronchiectasis in the middle lobe."),
        ("Bronchiectasis", "Dilated bronchi at the bases."),
        ("Interlobular septal thickening", "Smooth thickening of the interlobular septa."),
        ("Interlobular septal thickening", "Kerley lines."),
    ],
)
def test_stated_findings(finding: str, text: str) -> None:
    assert label(text, finding) == 1


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        ("Cardiomegaly", "Heart size is normal."),
        ("Pericardial effusion", "No pleural or pericardial effusion."),
        ("Pleural effusion", "No pleural or pericardial effusion."),
        ("Lymphadenopathy", "No pathologically enlarged lymph nodes."),
        ("Lung nodule", "No nodule, mass or consolidation."),
        ("Consolidation", "No nodule, mass or consolidation."),
        ("Lung opacity", "The lungs are clear."),
        ("Consolidation", "No infiltrate."),
        ("Lymphadenopathy", "Lymph nodes are of normal size."),
        ("Lymphadenopathy", "Lymph nodes: The mediastinum and hila are normal."),
        ("Cardiomegaly", "The heart is not enlarged."),
        ("Emphysema", "Emphysema was not observed."),
    ],
)
def test_denied_findings(finding: str, text: str) -> None:
    assert label(text, finding) == 0


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        ("Lung nodule", "Nodule in the right lobe of the thyroid."),
        ("Lung nodule", "The thyroid is large. The nodule measures 2 cm."),
        ("Lung nodule", "Nodular thickening of the left adrenal gland."),
        ("Emphysema", "Subcutaneous emphysema of the chest wall."),
        ("Lung opacity", "Increased density of the liver parenchyma."),
        ("Lung opacity", "Linear density increases of the parenchyma, sequelae."),
        ("Pleural effusion", "Pericardial effusion."),
        ("Pleural effusion", "Effusion of the knee joint is known."),
        ("Arterial wall calcification", "Calcified granuloma of the liver."),
        ("Arterial wall calcification", "Calcified pleural plaques."),
        ("Atelectasis", "Compression fracture with collapse of the vertebral body T6."),
        ("Bronchiectasis", "Ectasia of the ascending aorta."),
        ("Interlobular septal thickening", "Hypertrophy of the interventricular septum."),
        ("Hiatal hernia", "Umbilical hernia with fat."),
        ("Medical material", "End-plate sclerosis."),
        ("Medical material", "Findings are consistent with consistency."),
    ],
)
def test_the_same_words_elsewhere_state_nothing(finding: str, text: str) -> None:
    assert label(text, finding) != 1


@pytest.mark.parametrize(
    ("finding", "text", "expected"),
    [
        ("Cardiomegaly", "Cardiac dimensions exceed the normal range.", 1),
        ("Cardiomegaly", "Cardiac chambers are wider than normal.", 1),
        ("Cardiomegaly", "The heart size is above the upper limit of normal.", 1),
        ("Cardiomegaly", "The heart does not exceed normal limits.", 0),
        ("Cardiomegaly", "The heart is not significantly larger than normal.", 0),
        ("Cardiomegaly", "The heart size is not normal.", -1),
        ("Cardiomegaly", "The heart is displaced to the left and the aorta is normal.", -1),
        ("Cardiomegaly", "Calcification of the heart valves, the aorta is normal.", -1),
        ("Cardiomegaly", "Heart contour, size are normal.", 0),
        ("Lung opacity", "The lungs are not clear.", -1),
        ("Consolidation", "The lungs are not completely clear.", -1),
        ("Pericardial effusion", "The pericardium is not normal.", -1),
        ("Lymphadenopathy", "Lymph nodes are larger than normal.", 1),
        ("Lymphadenopathy", "Lymph nodes are not larger than normal.", 0),
    ],
)
def test_normal_counts_in_its_clause_and_unless_it_is_negated(finding: str, text: str, expected: int) -> None:
    assert label(text, finding) == expected


@pytest.mark.parametrize(
    ("finding", "text", "expected"),
    [
        ("Lung nodule", "The left adrenal gland is thickened and a 15 mm nodule is seen in the lateral crus.", -1),
        ("Lung nodule", "The thyroid is enlarged and nodules are seen in both lobes.", -1),
        ("Lung nodule", "The thyroid parenchyma is coarse and a nodule is seen on the left.", -1),
        ("Lung nodule", "The lungs are hyperinflated. The liver is enlarged and a nodule is seen.", -1),
        ("Lung nodule", "The thyroid is enlarged and a nodule is seen in the right upper lobe.", 1),
        ("Pleural effusion", "Pericardium is thickened and an effusion of 12 mm is seen.", -1),
        ("Pleural effusion", "The pericardium is normal and bilateral effusions are seen.", 1),
    ],
)
def test_a_clause_without_a_region_is_about_the_last_one_of_its_sentence(
    finding: str, text: str, expected: int
) -> None:
    assert label(text, finding) == expected


def test_an_empty_report_leaves_every_label_unknown() -> None:
    assert read_report("").labels == [-1] * 18


def test_a_stated_finding_outweighs_a_denial_elsewhere_in_the_report() -> None:
    assert label("No nodule in the right lung. 4 mm nodule in the left lung.", "Lung nodule") == 1
    assert label("4 mm nodule in the left lung. No nodule in the right lung.", "Lung nodule") == 1


def test_doubt_and_history_leave_a_label_unknown_unless_asked_otherwise() -> None:
    assert label("Emphysema cannot be excluded.", "Emphysema") == -1
    assert label("Status post pacemaker.", "Medical material") == -1
    said = strongest([find_mentions("Emphysema cannot be excluded.")])
    assert to_labels(said, {**LABEL_OF_ASSERTION, Assertion.UNCERTAIN: 1})[FINDING_NAMES.index("Emphysema")] == 1


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.name)
@pytest.mark.parametrize(("positive", "negative"), TRAINING_TEMPLATES)
def test_names_of_the_finding_table_in_its_own_templates(finding, positive: str, negative: str) -> None:
    assert label(fill_template(positive, finding.name), finding.name) == 1
    assert label(fill_template(negative, finding.name), finding.name) == 0


@pytest.mark.skipif(
    not MANUAL.is_file(), reason="the reports with manual labels are not at hand (../shared/data/reports)"
)
def test_labels_of_real_reports_agree_with_manual_ones() -> None:
    csv.field_size_limit(10_000_000)
    with MANUAL.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    truth = np.array([[int(row[name]) for name in FINDING_NAMES] for row in rows])
    found = np.array([read_report(row["report_text"]).labels for row in rows]) == 1
    f1 = f1_score(truth, found, average=None)
    assert f1.mean() >= 0.85
    assert f1.min() >= 0.70, dict(zip(FINDING_NAMES, f1.round(3), strict=True))
