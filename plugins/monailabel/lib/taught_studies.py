"""What training learns from: the corrections of readers, and the study records and masks of the datastore, as a
datalist of the bundle.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from bundle.ctfindings.data.study_record import PATH_KEYS, check_study
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS
from bundle.ctfindings.reports.captions import read_report

from .corrections import CorrectionStore
from .datastores import SeriesDatastore
from .usage_error import UsageError

STUDY = "study"
"""Key of an image's info in the datastore; its value is a study record without paths."""

_FIELDS = ("patient", "report", "captions", "labels", "snippets")
_PASSED_OVER = ("id", "stored", *PATH_KEYS)
"""Of a datalist's record: the datastore knows these itself."""

Study = dict[str, Any]


def taught_studies(datastore: Datastore | None, corrections: CorrectionStore) -> list[Study]:
    """The study records of all scans that somebody said something about.

    Paths come from the server alone: a client must not make it read other files. A correction overrides what the
    datastore's record says of the same finding. Corrections of a scan whose content changed since are passed over.

    Args:
        datastore: of a folder of scans. That of a DICOMweb server keeps no records; its scans are read from the copies
            of the corrections, as for None.
        corrections: of the readers.
    """
    corrected = {record["scan"]: record for record in corrections.all()}
    studies = []
    if datastore is not None and not isinstance(datastore, SeriesDatastore):
        for image in datastore.list_images():
            study, correction = _known(datastore, image), corrected.pop(image, None)
            if correction is not None and corrections.is_of(correction, Path(study["image"])):
                studies.append(_corrected(study, correction))
            elif len(study) > 2:
                studies.append(study)
    for scan_id, correction in corrected.items():
        if (scan := corrections.kept_scan(scan_id)).is_file():
            studies.append(_corrected({"id": scan_id, "image": str(scan)}, correction))
    return studies


def write_datalist(path: Path, studies: Sequence[Study], share: float) -> dict[str, int]:
    """Studies by split; those of one patient stay together, and the same study is always on the same side of the same
    share. Returns the number of studies for training and for validation.

    Args:
        path: file to write.
        studies: records of a datalist.
        share: of the patients that are held out for validation; none for 0, else at least one.

    Raises:
        UsageError: if there are too few studies or patients.
    """
    patients = sorted(
        {_patient(study) for study in studies}, key=lambda patient: hashlib.sha256(patient.encode()).hexdigest()
    )
    if not studies:
        raise UsageError(400, "no scan has a correction, a study record or a final label; add some")
    if share and len(patients) < 2:
        raise UsageError(400, "all studies are of one patient; validation needs another")
    held_out = set(patients[: min(max(1, round(share * len(patients))), len(patients) - 1)] if share else ())
    splits: dict[str, Any] = {
        "training": [study for study in studies if _patient(study) not in held_out],
        "validation": [study for study in studies if _patient(study) in held_out],
        "test": [],
    }
    counts = {name: len(splits[name]) for name in ("training", "validation")}
    if share and counts["training"] < 2:
        raise UsageError(400, "fewer than 2 studies are left for training; lower val_split, or add studies")
    content = {"name": "datastore", "description": "studies and corrections of the server", **splits}
    write_text(path, json.dumps(content, indent=1))
    return counts


def check_taught(image: str, study: Any) -> None:
    """Refuses a study record that training could not read, when it is sent.

    Args:
        image: id of the scan.
        study: as it is sent; paths in it are not used.

    Raises:
        UsageError: says what is wrong with it.
    """
    if not isinstance(study, Mapping):
        raise UsageError(400, f"info: {STUDY} is not an object; give one with any of {', '.join(_FIELDS)}")
    unknown = sorted(set(study) - {*_FIELDS, *_PASSED_OVER})
    if unknown:
        raise UsageError(
            400, f"info: {STUDY} has the unknown field {unknown[0][:100]!r}; known are {', '.join(_FIELDS)}"
        )
    try:
        check_study({**{key: study[key] for key in _FIELDS if key in study}, "id": image}, "info")
    except ValueError as error:
        raise UsageError(400, str(error)) from error


def _known(datastore: Datastore, image: str) -> Study:
    """Id, path, and what the datastore knows besides."""
    known = datastore.get_image_info(image).get(STUDY) or {}
    study = {"id": image, "image": datastore.get_image_uri(image)}
    study |= {key: known[key] for key in _FIELDS if known.get(key)}
    if DefaultLabelTag.FINAL in datastore.get_labels_by_image_id(image):
        study["anatomy"] = datastore.get_label_uri(image, DefaultLabelTag.FINAL)
    return study


def _corrected(study: Study, correction: Mapping[str, Any]) -> Study:
    """A study with the verdicts as labels, the report with the captions that it makes, and each corrected place as a
    site and as a sentence about a height.
    """
    findings: Mapping[str, Any] = correction["findings"]
    labels = list(study.get("labels") or [-1] * len(FINDING_NAMES))
    sites, snippets = [], list(study.get("snippets") or ())
    for index, finding in enumerate(FINDINGS):
        if said := findings.get(finding.name):
            labels[index] = int(said["present"])
            if place := said["place_mm"]:
                sites.append({"finding": finding.name, "center_mm": place})
                snippets.append({"text": finding.positive[0], "z_mm": place[2]})
    study = {**study, "labels": labels}
    if report := correction["report"]:
        study["report"] = {"findings": report["text"], "impression": ""}
        captions = read_report(report["text"]).captions
        study["captions"] = {name: asdict(caption) for name, caption in captions.items()}
    return study | {key: values for key, values in (("sites", sites), ("snippets", snippets)) if values}


def _patient(study: Study) -> str:
    return str(study.get("patient") or study["id"])
