"""DICOM results: what they say, on which grid they lie, and that the same scan and weights give the same objects."""

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.inference.encoding import EncodedScan, describe_scan
from bundle.ctfindings.inference.evidence import locate
from bundle.ctfindings.inference.findings_record import FindingAnswer, FindingsRecord, ModelInfo, QueryAnswer
from bundle.ctfindings.inference.output.dicom.scan_answers import ScanAnswers
from bundle.ctfindings.inference.output.dicom.source_headers import _PATIENT, _STUDY
from bundle.ctfindings.inference.output.dicom.write_dicom import write_dicom
from bundle.ctfindings.scan.load_scan import load_scan
from bundle.ctfindings.scan.storage import SourceImages
from tests.enhanced_ct import images_of, write_enhanced

LUNG, HEART = 0, 1


class Written:
    """A DICOM series with a fabricated record: a lung nodule with evidence, and a finding that was not assessed."""

    def __init__(self, folder: Path) -> None:
        scan = load_scan(folder)
        self.path, self.source, self.affine, self.shape = (
            folder,
            scan.meta["source_images"],
            scan.affine,
            scan.shape[1:],
        )
        # Regions and maps on the scan's own grid, so that no interpolation is between them and the objects.
        self.regions = np.zeros((len(ANATOMIES), *self.shape), bool)
        self.regions[LUNG, 2:8, 3:9, 1:6] = True
        self.regions[HEART, 9:12, 3:9, 2:5] = True
        self.map = np.zeros(self.shape, np.float32)
        self.map[4:6, 4:6, 3] = 0.8
        place = locate(self.map, self.affine, self.affine, self.shape, midline_mm=-1000.0)
        assert place is not None
        # Of the encoded scan, only its source is read here.
        place = dataclasses.replace(EncodedScan.on_source(self, place), region="right lower zone")
        found = FindingAnswer("Lung nodule", 0.75, 0.5, True, "lung", evidence=place)
        reason = "the heart was not found"
        absent = FindingAnswer("Emphysema", 0.4, 0.5, False, "lung", evidence=place)
        unknown = FindingAnswer("Cardiomegaly", 0.4, 2.0, None, "heart", evidence=place, not_assessed=reason)
        self.record = FindingsRecord(
            describe_scan(folder, "DICOM", self.shape, self.affine, self.source.series_uid),
            ModelInfo("chest", "0.1.0", "ab" * 32, "Tower"),
            [unknown, absent, found],
            [
                QueryAnswer(
                    "fluid around the lung",
                    0.6,
                    "lung",
                    evidence=dataclasses.replace(place, region="left hilum"),
                    percentile=0.97,
                    meaning="Stands out.",
                    hints=["Ask again."],
                ),
                QueryAnswer("asdf", 0.0, "lung", meaning="The score means nothing, and no place is shown."),
            ],
            warnings=["a warning"],
        )

    def answers(self) -> ScanAnswers:
        return ScanAnswers(self.record, self.source, self.regions, {"Lung nodule": self.map}, self.affine)

    def write(self, folder: Path, **settings: Any) -> dict[str, pydicom.Dataset]:
        files = write_dicom(folder, self.path, self.answers(), **settings)
        return {file.stem: pydicom.dcmread(file) for file in files}


@pytest.fixture
def series(tmp_path, hu, affine, write_dicom) -> Written:
    return Written(write_dicom(tmp_path / "scan", hu, affine))


@pytest.fixture(params=["images", "frames", "parts"])
def any_series(request, tmp_path, series) -> Written:
    """Single images, an Enhanced CT with a localizer as its first frame, or two parts of a concatenation."""
    if request.param == "images":
        return series
    images = images_of(series.path)
    if request.param == "frames":
        localizer = pydicom.dcmread(next(series.path.iterdir()))
        localizer.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        write_enhanced(tmp_path / "enhanced" / "a", [localizer, *images])
    else:
        for number, part in enumerate((images[:3], images[3:]), start=1):
            write_enhanced(
                tmp_path / "enhanced" / str(number),
                part,
                ConcatenationUID="1.2.3",
                InConcatenationNumber=number,
                InstanceNumber=number,
            )
    return Written(tmp_path / "enhanced")


def position_of(folder: Path, reference: pydicom.Dataset) -> tuple[pydicom.Dataset, float]:
    """The image that an item refers to, and the z of its referenced frame, or of itself."""
    (image,) = [
        image
        for image in map(pydicom.dcmread, folder.iterdir())
        if image.SOPInstanceUID == reference.ReferencedSOPInstanceUID
    ]
    assert image.SOPClassUID == reference.ReferencedSOPClassUID
    place = image
    if "NumberOfFrames" in image:
        place = image.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1].PlanePositionSequence[0]
    else:
        assert "ReferencedFrameNumber" not in reference
    return image, float(place.ImagePositionPatient[2])


def items(content: pydicom.Dataset, name: str) -> list[pydicom.Dataset]:
    """Items of a report by the meaning of their concept, at any depth."""
    found = []
    for item in content.get("ContentSequence", []):
        if item.ConceptNameCodeSequence[0].CodeMeaning == name:
            found.append(item)
        found += items(item, name)
    return found


def test_the_report_has_value_threshold_verdict_and_place_of_each_finding(any_series, tmp_path) -> None:
    series = any_series
    report = series.write(tmp_path / "out")["report"]
    nodule, emphysema, heart, query, nonsense = items(report, "Measurement Group")
    assert [float(items(nodule, name)[0].MeasuredValueSequence[0].NumericValue) for name in (
        "Probability", "Threshold Value")] == [0.75, 0.5]  # fmt: skip
    assert items(nodule, "Presence")[0].ConceptCodeSequence[0].CodeMeaning == "Present"
    assert items(nodule, "Finding Site")[0].ConceptCodeSequence[0].CodeValue == "39607008"
    assert items(nodule, "Laterality")[0].ConceptCodeSequence[0].CodeMeaning == "Right"
    said = [
        [item.TextValue for item in items(each, "Place of the strongest evidence")]
        for each in (nodule, emphysema, heart, query, nonsense)
    ]
    place = series.record.findings[-1].evidence
    name = f"frame {place.frame_number}" if place.frame_number else f"image {place.instance_number}"
    assert said == [[f"right lower zone, {name}"], [], [], [f"left hilum, {name}"], []], (
        "only what is there has a place"
    )
    assert not items(heart, "Threshold Value"), "none was fitted"
    assert not items(emphysema, "Laterality") and not items(nonsense, "Finding Site")
    (image,) = items(items(nodule, "Probability")[0], "Source of Measurement")
    reference = image.ReferencedSOPSequence[0]
    shown, z_mm = position_of(series.path, reference)
    assert z_mm == pytest.approx(place.z_mm) == -300 + 3 * 3
    assert shown.InstanceNumber == place.instance_number
    assert reference.get("ReferencedFrameNumber") == place.frame_number
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert {item.ReferencedSOPInstanceUID for item in evidence} == set(series.source.sop_uids)
    assert items(heart, "Presence")[0].ConceptCodeSequence[0].CodeMeaning == "Not assessed"
    assert not items(heart, "Laterality") and not items(query, "Laterality")
    assert items(heart, "Finding")[0].ConceptCodeSequence[0].CodeValue == "8186001"
    assert [item.TextValue for item in items(heart, "Comment")] == ["Not assessed: the heart was not found"]
    (kind,) = items(nodule, "Finding")[0].ConceptCodeSequence
    (radlex,) = kind.EquivalentCodeSequence
    assert (kind.CodeValue, radlex.CodeValue, radlex.CodingSchemeDesignator) == ("LUNG_NODULE", "RID50149", "RADLEX")
    assert "EquivalentCodeSequence" not in items(heart, "Finding")[0].ConceptCodeSequence[0], "RadLex has none"
    assert not items(query, "Presence") and items(query, "Tracking Identifier")[0].TextValue.endswith("the lung")
    assert [item.TextValue for item in items(query, "Comment")] == ["Stands out.", "Ask again."]
    *_, disclaimer, warning, groups = report.ContentSequence
    assert [disclaimer.TextValue, warning.TextValue] == [series.record.disclaimer, "a warning"]
    assert groups.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurements"
    parameters = [item.TextValue for item in items(nodule, "Algorithm Parameters")]
    assert f"weights SHA-256 {'ab' * 32}" in parameters
    assert report.PatientName == "Doe^Jane" and report.StudyInstanceUID == shown.StudyInstanceUID


def test_what_was_not_assessed_has_no_number_in_the_report(series, tmp_path) -> None:
    unknown, *others = series.record.findings
    unknown = dataclasses.replace(unknown, threshold=0.5)
    query = dataclasses.replace(series.record.queries[0], not_assessed="the scan is unlike the training scans")
    series.record = dataclasses.replace(series.record, findings=[unknown, *others], queries=[query])
    nodule, _, heart, withheld = items(series.write(tmp_path / "out")["report"], "Measurement Group")
    assert items(nodule, "Probability") and items(nodule, "Threshold Value")
    for group in (heart, withheld):
        for name in ("Probability", "Threshold Value", "Score, not calibrated"):
            assert not items(group, name)
        assert not [item for item in group.ContentSequence if item.ValueType == "NUM"]
    assert [item.TextValue for item in items(withheld, "Comment")] == [f"Not assessed: {query.not_assessed}"]


def test_the_notice_is_in_report_and_picture(series, tmp_path) -> None:
    without = series.write(tmp_path / "without")
    series.record = dataclasses.replace(series.record, notice="Outside the domain: nothing is reliable.")
    noticed = series.write(tmp_path / "noticed")
    *_, disclaimer, notice, warning, _groups = noticed["report"].ContentSequence
    assert (disclaimer.TextValue, warning.TextValue) == (series.record.disclaimer, "a warning")
    assert notice.TextValue == "Outside the domain: nothing is reliable."
    assert not np.array_equal(noticed["capture"].pixel_array, without["capture"].pixel_array)


def test_each_object_is_a_series_that_a_viewer_can_list(series, tmp_path) -> None:
    written = series.write(tmp_path / "out")
    assert len({each.SeriesInstanceUID for each in written.values()}) == len(written) == 4
    assert {name: (each.SeriesNumber, each.SeriesDescription) for name, each in written.items()} == {
        "report": (9100, "CT Findings: report (research only)"),
        "capture": (9101, "CT Findings: table and key images (research only)"),
        "anatomies": (9102, "CT Findings: anatomies (research only)"),
        "evidence-1": (9103, "CT Findings: Lung nodule (research only)"),
    }


def planes_of(segmentation: hd.seg.Segmentation, source: SourceImages) -> np.ndarray:
    """Planes of the slices, in their order, by the references of the segmentation to images or frames."""
    if source.frame_numbers[0] is None:
        return segmentation.get_pixels_by_source_instance(list(source.sop_uids), ignore_spatial_locations=True)
    # Planes without a region are not stored.
    options = {"ignore_spatial_locations": True, "assert_missing_frames_are_empty": True}
    return np.concatenate(
        [
            segmentation.get_pixels_by_source_frame(uid, [frame], **options)
            for uid, frame in zip(source.sop_uids, source.frame_numbers, strict=True)
        ]
    )


def test_segmentations_lie_on_the_voxels_of_the_scan(any_series, tmp_path) -> None:
    series = any_series
    series.write(tmp_path / "out")
    for name, expected in (
        ("anatomies", [series.regions[LUNG], series.regions[HEART]]),
        ("evidence-1", [series.map > 0.4]),
    ):
        read = hd.seg.segread(tmp_path / "out" / f"{name}.dcm")
        for item in read.PerFrameFunctionalGroupsSequence:
            _, z_mm = position_of(series.path, item.DerivationImageSequence[0].SourceImageSequence[0])
            assert z_mm == item.PlanePositionSequence[0].ImagePositionPatient[2]
        assert {item.ReferencedSOPInstanceUID for item in read.SourceImageSequence} == set(series.source.sop_uids)
        planes = planes_of(read, series.source)
        assert planes.shape[3] == len(expected)
        for segment, region in enumerate(expected):
            np.testing.assert_array_equal(planes[..., segment], region.transpose(2, 1, 0))


def test_planes_of_a_gap_go_to_no_other_image(tmp_path, hu, affine, write_dicom) -> None:
    folder = write_dicom(tmp_path / "scan", hu, affine)
    images = sorted(folder.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    images[3].unlink()
    images[4].unlink()
    series = Written(folder)
    assert len(set(series.source.sop_uids)) == len(series.source.sop_uids) - 2, "planes of the gap share its images"
    # Each plane of the lung has an area of its own.
    series.regions[:] = False
    for plane in range(series.shape[2]):
        series.regions[LUNG, 2 : 3 + plane, 3:9, plane] = True
    series.write(tmp_path / "out")
    read = hd.seg.segread(tmp_path / "out" / "anatomies.dcm")
    low = series.affine[2, 3]
    for item, plane in zip(read.PerFrameFunctionalGroupsSequence, read.pixel_array, strict=True):
        z_mm = float(item.PlanePositionSequence[0].ImagePositionPatient[2])
        index = round((z_mm - float(low)) / float(series.affine[2, 2]))
        assert int(plane.sum()) == int(series.regions[LUNG, :, :, index].sum())


def test_uids_depend_on_scan_weights_and_verdicts_only(series, tmp_path) -> None:
    first, again = series.write(tmp_path / "a"), series.write(tmp_path / "b")
    assert {name: each.SOPInstanceUID for name, each in first.items()} == {
        name: each.SOPInstanceUID for name, each in again.items()
    }
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), "two runs differ"
    assert first["report"].ContentDate == first["report"].StudyDate
    series.record = dataclasses.replace(series.record, model=ModelInfo("chest", "0.1.0", "cd" * 32, "Tower"))
    other = series.write(tmp_path / "a")
    assert not {each.SOPInstanceUID for each in first.values()} & {each.SOPInstanceUID for each in other.values()}


def test_values_that_dicom_does_not_allow_are_left_out(series, tmp_path) -> None:
    for file in series.path.iterdir():
        image = pydicom.dcmread(file)
        with pydicom.config.disable_value_validation():
            image.PatientSex, image.PatientBirthDate, image.StudyTime = "U", "19500000", "12:30:00"
            image.save_as(file)
    report = series.write(tmp_path / "out")["report"]
    assert not report.PatientSex and not report.PatientBirthDate and report.StudyDate and report.PatientName


def test_a_query_of_any_characters_is_written(series, tmp_path) -> None:
    query = dataclasses.replace(series.record.queries[0], text="Erguss \u00fcber dem Zwerchfell \\ \u2013 links")
    series.record = dataclasses.replace(series.record, queries=[query])
    answers = series.answers()._replace(maps={query.key: series.map})
    write_dicom(tmp_path / "out", series.path, answers)
    evidence, report = (pydicom.dcmread(tmp_path / "out" / f"{name}.dcm") for name in ("evidence-1", "report"))
    assert evidence.SegmentSequence[0].SegmentLabel == query.key.replace("\\", "/")[:64]
    assert query.key in [element.value for element in report.iterall() if element.VR == "UT"]
    assert report.PatientName == series.write(tmp_path / "b")["report"].PatientName


@pytest.mark.parametrize(
    ("characters", "name", "study"),
    [
        ("ISO_IR 100", "M\u00fcller^J\u00fcrgen", "\u00dcbersicht"),
        ("ISO 2022 IR 100", "M\u00fcller^J\u00fcrgen", "\u00dcbersicht"),
        (
            ["", "ISO 2022 IR 87"],
            "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046",
            "\u80f8\u90e8",
        ),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=\u6d2a^\u5409\u6d1e=\ud64d^\uae38\ub3d9", "\ud749\ubd80"),
        # pydicom writes no escape sequences of this one by itself.
        (["", "ISO 2022 IR 58"], "Zhang^XiaoDong=\x1b$)A\u5f20^\x1b$)A\u5c0f\u4e1c", "\x1b$)A\u80f8\u90e8"),
        ("ISO_IR 6", "Doe^Jane", "Chest"),
        ("", "Doe^Jane", "Chest"),
    ],
)
def test_names_of_every_character_set_are_kept(series, tmp_path, characters, name, study) -> None:
    for file in series.path.iterdir():
        image = pydicom.dcmread(file)
        image.SpecificCharacterSet, image.PatientName, image.StudyDescription = characters, name, study
        image.save_as(file)
        assert name.isascii() or name.encode() not in file.read_bytes()
    written = series.write(tmp_path / "out")
    assert len(written) == 4
    name, study = (text.replace("\x1b$)A", "") for text in (name, study))
    for file in (tmp_path / "out").iterdir():
        assert name.encode() in file.read_bytes(), "in UTF-8"
    for each in written.values():
        assert each.SpecificCharacterSet == "ISO_IR 192" and str(each.PatientName) == name
        assert each.get("StudyDescription", study) == study


def test_a_header_that_no_result_can_have_is_an_error_of_its_scan_that_does_not_name_the_patient(
    series, tmp_path
) -> None:
    for file in series.path.iterdir():
        image = pydicom.dcmread(file)
        image.PatientName = ["Doe^Jane", "Roe^Zelda"]
        image.save_as(file)
    with pytest.raises(ScanError, match=r"no DICOM result can have \(TypeError\)") as refused:
        series.write(tmp_path / "out")
    assert refused.value.code == "dicom-refused" and "Jane" not in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("same_series", [False, True])
def test_images_with_the_same_uids_that_were_not_read_give_no_name(series, tmp_path, same_series) -> None:
    for file in list(series.path.iterdir()):
        image = pydicom.dcmread(file)
        image.PatientName, image.PatientID = "Roe^Zelda", "0815"
        if not same_series:
            image.SeriesInstanceUID, image.Modality = "1.2.3", "MR"
        image.save_as(series.path / f"z{file.name}")
    for each in series.write(tmp_path / "out").values():
        assert (each.PatientName, each.PatientID) == ("Doe^Jane", "4711")


def test_anonymous_results_have_nothing_of_patient_and_study(series, tmp_path) -> None:
    file = dataclasses.replace(series.record.scan, file="Doe^Jane")
    series.record = dataclasses.replace(series.record, scan=file, warnings=["Doe^Jane: is tilted by 12 degrees"])
    named = series.write(tmp_path / "named")
    anonymous = series.write(tmp_path / "out", anonymous=True)
    for each in anonymous.values():
        assert not each.PatientName and not each.PatientID and not each.StudyDate
        assert each.StudyInstanceUID != named["report"].StudyInstanceUID
    for file in (tmp_path / "out").iterdir():
        assert b"Doe" not in file.read_bytes()


def test_no_attribute_of_patient_or_study_is_in_an_anonymous_result(series, tmp_path) -> None:
    private = {
        "PatientName": "Roe^Zelda",
        "PatientID": "ID-90817",
        "PatientBirthDate": "19470619",
        "PatientAge": "073Y",
        "PatientSize": "1.7391",
        "PatientWeight": "68.352",
        "StudyID": "STUDY-5566",
        "StudyDate": "20211117",
        "StudyTime": "134759.21",
        "AccessionNumber": "ACC-73105",
        "ReferringPhysicianName": "Quill^Ada",
        "StudyDescription": "Fall from horse",
    }
    for file in series.path.iterdir():
        image = pydicom.dcmread(file)
        for name, value in private.items():
            setattr(image, name, value)
        image.save_as(file)
    assert {*private, "PatientSex"} == {*_PATIENT, *_STUDY}

    def said(folder: Path) -> set[str]:
        written = b"".join(file.read_bytes() for file in folder.iterdir())
        return {name for name, value in private.items() if value.encode() in written}

    series.write(tmp_path / "named")
    anonymous = series.write(tmp_path / "anonymous", anonymous=True)
    assert said(tmp_path / "named") == set(private)
    assert not said(tmp_path / "anonymous") and not any(each.PatientSex for each in anonymous.values())


def test_a_name_of_one_part_is_not_printed(series, tmp_path, recwarn) -> None:
    for file in series.path.iterdir():
        image = pydicom.dcmread(file)
        image.PatientName = "Doe"
        image.save_as(file)
    assert series.write(tmp_path / "out")["report"].PatientName == "Doe"
    assert not [warning for warning in recwarn if "Doe" in str(warning.message)]


def test_evidence_of_an_earlier_run_does_not_stay(series, tmp_path) -> None:
    series.write(tmp_path / "out")
    (tmp_path / "out" / "evidence-7.dcm").write_bytes(b"old")
    series.write(tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "anatomies.dcm", "capture.dcm", "evidence-1.dcm", "report.dcm"
    ]  # fmt: skip


def test_a_zip_beside_the_images_is_not_opened(series, tmp_path) -> None:
    (series.path / "series.zip").write_bytes(b"no zip")
    assert set(series.write(tmp_path / "out")) == {"anatomies", "capture", "evidence-1", "report"}


def test_images_that_are_gone_are_named(series, tmp_path) -> None:
    next(series.path.iterdir()).unlink()
    with pytest.raises(ScanError, match="1 of its images are gone"):
        series.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("dsrdump") is None, reason="needs dsrdump of Debian's dcmtk")
def test_dsrdump_reads_the_report(any_series, tmp_path) -> None:
    series = any_series
    series.write(tmp_path / "out")
    command = ["dsrdump", str(tmp_path / "out" / "report.dcm")]
    said = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    # dsrdump does not check texts in UTF-8, and says so.
    known = "W: The VR checker does not support this Specific Character Set: ISO_IR 192"
    assert set(said.stderr.splitlines()) <= {known} and "Lung nodule" in said.stdout
    assert 'TEXT:(,,"Place of the strongest evidence")="right lower zone, ' in said.stdout


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy of Debian's dicom3tools")
def test_dciodvfy_finds_no_error(any_series, tmp_path) -> None:
    any_series.write(tmp_path / "out")
    for file in (tmp_path / "out").iterdir():
        said = subprocess.run(["dciodvfy", str(file)], capture_output=True, encoding="utf-8", check=False).stderr
        assert not [line for line in said.splitlines() if line.startswith("Error")], file.name
