"""Scans of real reports: labels of people win, patients stay in one split, and a scan shows what its report states."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.files.csv_table import TableError
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from experiments.harness.report_scans import make_report_scans, stated_reports

EFFUSION, EMPHYSEMA = finding_index("Pleural effusion"), finding_index("Emphysema")


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    """Four reports without labels, two of one patient, and a table in which people labelled one of these texts."""
    reports = tmp_path / "reports.csv"
    reports.write_text(
        "VolumeName,Findings_EN,Impressions_EN\n"
        "valid_1_a_1.nii.gz,There is a left pleural effusion.,Pleural effusion.\n"
        "valid_1_b_1.nii.gz,Centrilobular emphysema is seen.,Emphysema.\n"
        "valid_2_a_1.nii.gz,The lungs are clear.,Normal.\n"
        "valid_2_a_2.nii.gz,The lungs are clear.,Normal.\n"
    )
    labels = tmp_path / "labels.csv"
    ones = ",".join("1" if name == "Emphysema" else "0" for name in FINDING_NAMES)
    labels.write_text("AccessionNo,report_text," + ",".join(FINDING_NAMES) + f"\ntrain_9,A text of its own.,{ones}\n")
    return [reports, labels]


def test_each_text_comes_once_and_labels_of_people_win(tables: list[Path]) -> None:
    reports = stated_reports(tables)
    assert [report.manual for report in reports] == [True, False, False, False]
    assert [index for index, label in enumerate(reports[0].labels) if label] == [EMPHYSEMA]
    assert [report.labels[EFFUSION] for report in reports[1:]] == [1, 0, 0]
    assert reports[1].patient == reports[2].patient != reports[3].patient


def test_scans_show_what_reports_state_and_patients_stay_together(tables: list[Path], tmp_path: Path) -> None:
    path = make_report_scans(tables, tmp_path / "scans", (1, 1, 1), workers=1)
    content = json.loads(path.read_text())
    patients = [{record["patient"] for record in content[split]} for split in ("training", "validation", "test")]
    assert not patients[0] & patients[1] and not patients[0] & patients[2] and not patients[1] & patients[2]
    for record in [record for split in ("training", "validation", "test") for record in content[split]]:
        shown = 0
        if "finding_masks" in record:
            shown = int(
                np.bitwise_or.reduce(
                    np.asarray(nib.load(path.parent / record["finding_masks"]).dataobj).astype(int), axis=None
                )
            )
        assert [(shown >> index) & 1 for index in range(18)] == record["labels"]
        assert "valid_" not in json.dumps(record), "the tables' names stay behind"


def test_other_settings_and_too_few_reports_are_refused(tables: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 distinct reports of 3 patients are too few for 3, 2, 1 scans"):
        make_report_scans(tables, tmp_path / "scans", (3, 2, 1), workers=1)
    make_report_scans(tables, tmp_path / "scans", (0, 0, 1), workers=1)
    with pytest.raises(ValueError, match="scans: contains scans of other reports or settings"):
        make_report_scans(tables, tmp_path / "scans", (0, 0, 1), seed=1, workers=1)
    make_report_scans(tables, tmp_path / "scans", (0, 0, 1), workers=1)


def test_as_many_reports_that_state_something_else_are_refused(tables: list[Path], tmp_path: Path) -> None:
    make_report_scans(tables, tmp_path / "scans", (0, 0, 1), workers=1)
    text = tables[0].read_text()
    tables[0].write_text(text.replace("left pleural effusion", "right pleural effusion"))
    with pytest.raises(
        ValueError, match="scans: contains scans of other reports or settings; use another folder or delete it"
    ):
        make_report_scans(tables, tmp_path / "scans", (0, 0, 1), workers=1)


def test_a_table_without_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("VolumeName,Emphysema\na,1\n")
    with pytest.raises(TableError, match=r"x\.csv: expected columns of texts"):
        stated_reports([tmp_path / "x.csv"])
