"""What readers say of the answers: for each finding present or absent and where, for each scan a report. One JSON file
a scan, with a copy of the voxels of a scan that no folder of the server keeps. A scan whose content changes is a new
one, of which nobody has said anything.
"""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bundle.ctfindings.files.atomic_write import atomic_path, safe_name, write_text
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.fingerprint import file_signature
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.findings_record import FindingsRecord, ScanInfo
from bundle.ctfindings.scan.coordinates import world_to_voxel

from .usage_error import UsageError

SCHEMA_VERSION = "1.0"
LONGEST_REPORT = 20_000
LONGEST_READER = 64
"""In characters."""

_FIELDS = ("reader", "findings", "report")
_FINDING_FIELDS = ("present", "place_mm")


class CorrectionStore:
    """The corrections of the scans of one server. Threads may share it.

    Args:
        folder: of the files; made with the first correction.
        digest: SHA-256 of the content of a scan, by its path; UsageError when it cannot be opened.
    """

    def __init__(self, folder: Path, digest: Callable[[Path], str]) -> None:
        self.folder = folder
        self._digest = digest
        self._lock = threading.Lock()

    def read(self, scan_id: str, scan: Path) -> dict[str, Any]:
        """The record of a scan; without findings and report if nobody corrected it as it is now.

        Args:
            scan_id: of the scan.
            scan: its file or folder.
        """
        kept = self._kept(scan_id)
        if kept is not None and self.is_of(kept, scan):
            return kept
        return {"schema_version": SCHEMA_VERSION, "scan": scan_id, "findings": {}, "report": None}

    def has(self, scan_id: str, scan: Path | None) -> bool:
        """Whether a scan was corrected: as it is now, or for None, where it is not at hand, at any time."""
        kept = self._kept(scan_id)
        return kept is not None and (scan is None or self.is_of(kept, scan))

    def is_of(self, record: Mapping[str, Any], scan: Path) -> bool:
        """Whether a record speaks of what a scan holds now. Its content is read only if its files changed since.
        Earlier versions kept no digest: their records always do, as those of a scan that cannot be opened, which
        whoever reads it is told.
        """
        if record.get("scan_sha256") is None:
            return True
        try:
            unchanged = record.get("scan_files") == file_signature(scan)._asdict()
            return unchanged or record["scan_sha256"] == self._digest(scan)
        except (OSError, ScanError, UsageError):
            return True

    def all(self) -> list[dict[str, Any]]:
        """The records of all corrected scans, by the name of their file."""
        with self._lock:
            return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob("[!.]*.json"))]

    def kept_scan(self, scan_id: str) -> Path:
        """Where the voxels of a scan are kept that no folder of the server has."""
        return self.folder / "scans" / f"{safe_name(scan_id)}.nii.gz"

    def change(
        self,
        scan_id: str,
        scan: Path,
        change: Mapping[str, Any],
        answer: FindingsRecord,
        keep: Callable[[Path], None] | None = None,
    ) -> dict[str, Any]:
        """Changes what a request names, and returns the whole record. What is taken back is no longer kept. The first
        correction of a scan whose content changed replaces what was said of the earlier one, which is set aside in
        ``earlier``.

        Args:
            scan_id: of the scan.
            scan: its file or folder.
            change: ``findings`` by name, each ``{"present", "place_mm"}`` or None to take it back; ``report``, empty to
                take it back; ``reader``. Without ``place_mm``, a present finding keeps the place that it has; None
                removes it.
            answer: what the model says of the scan, which is kept with each correction.
            keep: writes the voxels of the scan to a path, if no folder of the server has them.

        Raises:
            UsageError: says what is wrong with the change.
        """
        check_change(change, answer.scan)
        said = {
            "reader": " ".join(str(change.get("reader") or "").split()),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "weights_sha256": answer.model.weights_sha256,
        }
        answers = {each.name: each for each in answer.findings}
        findings, text = change.get("findings") or {}, str(change.get("report") or "").strip()
        if keep is not None and (text or any(value is not None for value in findings.values())):
            # Before the lock: to read a scan takes seconds. A record never stands without its scan.
            self._keep(scan_id, keep, anew=not self.has(scan_id, scan))
        with self._lock:
            # The files before their content: if they change meanwhile, the content is read again.
            files = file_signature(scan)._asdict()
            record = {**self.read(scan_id, scan), "scan_sha256": self._digest(scan), "scan_files": files}
            for name, value in findings.items():
                earlier = record["findings"].pop(name, None) or {}
                if value is not None:
                    model = answers[name]
                    place = value.get("place_mm", earlier.get("place_mm") if value["present"] else None)
                    record["findings"][name] = {
                        "present": value["present"],
                        "place_mm": place,
                        "model": {"present": model.present, "probability": round(float(model.probability), 6)},
                        **said,
                    }
            if "report" in change:
                record["report"] = {"text": text, **said} if text else None
            if keep is not None and (record["findings"] or record["report"]):
                self._keep(scan_id, keep)  # Again, if another request took the last correction back meanwhile.
            self._write(scan_id, scan, record)
        return record

    def forget(self, scan_id: str) -> None:
        """Removes what is kept of a scan, which is no longer there."""
        with self._lock:
            self._file(scan_id).unlink(missing_ok=True)
            self.kept_scan(scan_id).unlink(missing_ok=True)
            shutil.rmtree(self._earlier(scan_id), ignore_errors=True)

    def _kept(self, scan_id: str) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self._file(scan_id).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def _keep(self, scan_id: str, keep: Callable[[Path], None], anew: bool = False) -> None:
        copy = self.kept_scan(scan_id)
        if anew or not copy.is_file():
            with atomic_path(copy) as temporary:
                keep(temporary)

    def _write(self, scan_id: str, scan: Path, record: Mapping[str, Any]) -> None:
        file = self._file(scan_id)
        if record["findings"] or record["report"] is not None:
            if file.is_file() and not self.has(scan_id, scan):
                name = f"{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.json"
                self._earlier(scan_id).mkdir(parents=True, exist_ok=True)
                os.replace(file, self._earlier(scan_id) / name)
            write_text(file, json.dumps(record, indent=1, allow_nan=False))
        elif self.has(scan_id, scan):  # What was said of an earlier content stays until this one is corrected.
            file.unlink(missing_ok=True)
            self.kept_scan(scan_id).unlink(missing_ok=True)

    def _file(self, scan_id: str) -> Path:
        return self.folder / f"{safe_name(scan_id)}.json"

    def _earlier(self, scan_id: str) -> Path:
        """Where the records of earlier contents of a scan are, by the start of the SHA-256 of each."""
        return self.folder / "earlier" / safe_name(scan_id)


def check_change(change: Mapping[str, Any], scan: ScanInfo) -> None:
    """Refuses a change that is not of the form of ``CorrectionStore.change``, or names a place outside the scan.

    Raises:
        UsageError: 400, says what is wrong and what would be right.
    """
    _check_fields("the correction", change, _FIELDS)
    reader, findings, report = (change.get(name) for name in _FIELDS)
    if reader is not None and not (isinstance(reader, str) and len(reader) <= LONGEST_READER and reader.isprintable()):
        raise UsageError(400, f"reader: expected a name of at most {LONGEST_READER} printable characters")
    if report is not None and not (isinstance(report, str) and len(report) <= LONGEST_REPORT):
        raise UsageError(400, f"report: expected a text of at most {LONGEST_REPORT:,} characters")
    if findings is not None and not isinstance(findings, Mapping):
        raise UsageError(400, 'findings: expected an object such as {"Lung nodule": {"present": true}}')
    for name, value in (findings or {}).items():
        if name not in FINDING_NAMES:
            raise UsageError(400, f"finding {str(name)[:100]!r} is unknown; known are {', '.join(FINDING_NAMES)}")
        if value is not None:
            _check_finding(name, value, scan)


def agreement(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How often readers agree with the model, by finding in table order.

    ``confirmed``: model and reader say present; ``rejected``: the model alone; ``added``: the reader alone;
    ``both_absent``: neither; ``not_assessed``: the model did not say; ``placed``: the reader set the place.
    """
    rows = []
    for name in FINDING_NAMES:
        given = [record["findings"][name] for record in records if name in record["findings"]]
        pairs = [(each["model"]["present"], each["present"]) for each in given]
        rows.append(
            {
                "finding": name,
                "confirmed": pairs.count((True, True)),
                "rejected": pairs.count((True, False)),
                "added": pairs.count((False, True)),
                "both_absent": pairs.count((False, False)),
                "not_assessed": sum(model is None for model, _ in pairs),
                "placed": sum(each["place_mm"] is not None for each in given),
            }
        )
    return rows


def _check_finding(name: str, value: Any, scan: ScanInfo) -> None:
    if not isinstance(value, Mapping) or not isinstance(value.get("present"), bool):
        raise UsageError(400, f'{name}: expected {{"present": true}} or {{"present": false}}, or null to take it back')
    _check_fields(name, value, _FINDING_FIELDS)
    place = value.get("place_mm")
    if place is None:
        return
    if not value["present"]:
        raise UsageError(400, f"{name}: an absent finding has no place; leave place_mm out")
    if not isinstance(place, list) or len(place) != 3 or not all(map(_is_coordinate, place)):
        raise UsageError(400, f"{name}: place_mm: expected three numbers, x, y and z in mm of world RAS")
    voxel = world_to_voxel(place, np.array(scan.affine))
    if (voxel < -0.5).any() or (voxel > np.array(scan.shape) - 0.5).any():
        raise UsageError(400, f"{name}: place_mm {place} lies outside the scan; give a point in mm of world RAS in it")


def _is_coordinate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e5


def _check_fields(where: str, value: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise UsageError(400, f"{where}: unknown field {unknown[0][:100]!r}; known are {', '.join(known)}")
