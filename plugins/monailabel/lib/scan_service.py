"""From the path of a scan to its encoding, through the cache; and the scan's name in every sentence instead of the
path.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.inference.bundle_workflow import why_no_dicom
from bundle.ctfindings.inference.service import AnsweredScan, FindingsService, load_service

from .admission import Admission
from .dicom_outputs import write_objects
from .doubt import Doubt, doubt_of
from .encoding_cache import EncodingCache
from .logs import SERVER_LOG
from .options import Options
from .reader import Reader, check_mask, check_scan, preprocess, write_hu
from .scan_identity import ScanIdentity, Signature
from .usage_error import UsageError

logger = logging.getLogger(SERVER_LOG)

API = 1
"""Version of the HTTP interface; raised when a client of the version before would misread an answer."""

SAFE_NAME = "scan"
"""What a scan is called while it is encoded: its content may be known under several names."""


class ScanService:
    """The bundle's service with a cache of answered scans.

    Args:
        options: of the app.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        limits = options.limits
        self.admission = Admission(int(limits.readers), int(limits.waiting))
        self.reader = Reader(limits)
        self.cache: EncodingCache[AnsweredScan] = EncodingCache(options.cache_bytes, self.admission)
        self._identity = ScanIdentity()
        self._doubts: dict[str, Doubt] = {}  # by the digest of the scan
        self._loading = threading.Lock()
        self._findings: FindingsService | None = None

    @property
    def findings(self) -> FindingsService:
        """The bundle's service, loaded on first use; a process that trains never needs it."""
        with self._loading:
            if self._findings is None:
                self._findings = load_service(self.options.bundle, self.options.checkpoint, self.options.overlays)
            return self._findings

    def versions(self) -> Mapping[str, object]:
        """What a client compares with its own: interface, bundle and weights."""
        model = self.findings.model
        return {"api": API, "bundle_version": model.version, "weights_sha256": model.weights_sha256}

    def digest(self, path: Path) -> str:
        """SHA-256 of the content of a scan; UsageError when it cannot be opened."""
        return self._known(path)[1]

    def doubt(self, path: Path) -> Doubt | None:
        """How unsure the model is of a scan that it has answered; None if it has not, or the files changed since."""
        digest = self._identity.known(path)
        return None if digest is None else self._doubts.get(digest)

    def answered(self, path: str | Path) -> AnsweredScan:
        """A scan with its answers; encoded on the first request, and cached.

        Raises:
            UsageError: when the scan cannot be read within the limits, or changed while it was read.
        """
        path = Path(path)
        findings = self.findings
        signature, digest = self._known(path)

        def encode() -> AnsweredScan:
            started = time.perf_counter()
            study = self.reader.run(preprocess, path, findings.preprocessing)
            if self._known(path)[0] != signature:
                raise UsageError(
                    409, f"{path.name}: the scan changed while it was read; wait until it is written, then ask again"
                )
            scan = findings.answer(study, name=SAFE_NAME)
            logger.info("scan %s encoded in %.2f s", digest[:8], time.perf_counter() - started)
            return scan

        scan = self.cache.get((digest, findings.model.weights_sha256), encode)
        self._doubts[digest] = doubt_of(scan.record)
        info = dataclasses.replace(scan.record.scan, file=path.name)
        return dataclasses.replace(scan, record=dataclasses.replace(scan.record, scan=info))

    def _known(self, path: Path) -> tuple[Signature, str]:
        try:
            return self._identity.digest(path)
        except (OSError, ScanError) as error:
            raise UsageError(
                404, f"{path.name}: the scan cannot be opened; it was removed, or the server may not read it"
            ) from error

    def write_scan(self, path: str | Path, file: str | Path) -> None:
        """Writes a scan as the bundle reads it, see ``reader.write_hu``; UsageError when it cannot be read."""
        with self.admission.place(), self.admission.slot():
            self.reader.run(write_hu, Path(path), str(file))

    def write_dicom(
        self, path: str | Path, file: str, output: str, segment: str, scan: AnsweredScan, maps: Mapping[str, Any]
    ) -> None:
        """Writes answers as DICOM, see ``dicom_outputs.write_objects``.

        Raises:
            UsageError: for a scan that is not a DICOM series, or an answer without a region.
        """
        if reason := why_no_dicom(scan.encoded):
            raise UsageError(400, f"output={output}: {reason}; ask for output=json")
        with self.admission.place(), self.admission.slot():
            self.reader.run(write_objects, Path(path), file, output, segment, scan.dicom_answers(maps))

    def check_scan(self, path: Path) -> None:
        """Refuses a file that is not a chest CT with a UsageError."""
        with self.admission.place(), self.admission.slot():
            self.reader.run(check_scan, path)

    def check_mask(self, path: Path, scan: Path) -> None:
        """Refuses a file that is not an anatomy mask on the grid of its scan with a UsageError."""
        with self.admission.place(), self.admission.slot():
            self.reader.run(check_mask, path, scan)
