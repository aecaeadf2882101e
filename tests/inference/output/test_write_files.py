"""The writer: three files in the scan's folder, or what was there before."""

import json

import nibabel as nib
import pytest

from bundle.ctfindings.inference.output.write_files import write_findings


def write(case, folder, draft=False):
    target = folder / "scan <b>"
    return write_findings(target, case.record, case.hu, case.affine, case.maps, case.token_affine, draft)


def test_one_folder_per_scan_with_the_three_files(case, tmp_path) -> None:
    record = write(case, tmp_path / "out")
    folder = tmp_path / "out" / "scan <b>"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [folder.name]
    assert sorted(path.name for path in folder.iterdir()) == ["evidence.nii.gz", "findings.json", "report.html"]
    data = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    assert data == record.to_dict()
    assert data["seconds"]["total"] == pytest.approx(3.0 + data["seconds"]["write"], abs=1e-5)


def test_channels_of_the_record_are_those_of_the_file(case, tmp_path) -> None:
    record = write(case, tmp_path)
    volume = nib.load(tmp_path / "scan <b>" / "evidence.nii.gz")
    assert volume.shape == (40, 36, 20, 2)
    assert record.evidence_channels == ["Lung nodule", record.queries[0].key]
    assert [answer.evidence.channel for answer in record.findings] == [None, 0, None]
    assert record.queries[0].evidence.channel == 1


@pytest.mark.parametrize("step", ["write_evidence", "write_report", "FindingsRecord.save"])
def test_a_failure_leaves_what_was_there_before(case, tmp_path, monkeypatch, step) -> None:
    def fail(*args, **kwargs):
        raise OSError("disk full")

    write(case, tmp_path / "old")
    before = {path: path.read_bytes() for path in (tmp_path / "old").rglob("*") if path.is_file()}
    monkeypatch.setattr(f"bundle.ctfindings.inference.output.write_files.{step}", fail)
    for folder in ("old", "new"):
        with pytest.raises(OSError, match="disk full"):
            write(case, tmp_path / folder)
    assert {path: path.read_bytes() for path in (tmp_path / "old").rglob("*") if path.is_file()} == before
    assert list((tmp_path / "new").iterdir()) == []


def test_evidence_and_draft_of_an_earlier_run_do_not_stay(case, tmp_path) -> None:
    folder = tmp_path / "scan <b>"
    write(case, tmp_path, draft=True)
    assert {"evidence.nii.gz", "draft_report.txt"} <= {path.name for path in folder.iterdir()}
    assert "Draft report" in (folder / "report.html").read_text(encoding="utf-8")
    case.maps = {}
    write(case, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["findings.json", "report.html"]
    assert "Draft report" not in (folder / "report.html").read_text(encoding="utf-8")


def test_a_map_without_an_answer_is_refused(case, tmp_path) -> None:
    case.maps["Lung nodul"] = case.maps["Lung nodule"]
    with pytest.raises(ValueError, match="Lung nodul"):
        write(case, tmp_path)
    assert not list(tmp_path.iterdir())
