"""From the path of a scan to its encoding, through the cache; and the scan's name in every sentence instead of the
path.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from pathlib import Path

import numpy as np

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.inference.service import AnsweredScan, FindingsService, load_service
from bundle.ctfindings.scan.load_scan import load_scan
from bundle.ctfindings.scan.nifti_writer import write_planes

from .encoding_cache import EncodingCache
from .errors import UsageError
from .logs import SERVER_LOG
from .options import Options
from .scan_identity import ScanIdentity, signature_of

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
        self.cache: EncodingCache[AnsweredScan] = EncodingCache(options.cache_bytes)
        self._identity = ScanIdentity()
        self._loading = threading.Lock()
        self._findings: FindingsService | None = None

    @property
    def findings(self) -> FindingsService:
        """The bundle's service, loaded on first use; a process that trains never needs it."""
        with self._loading:
            if self._findings is None:
                self._findings = load_service(self.options.bundle, self.options.checkpoint, self.options.overlays)
            return self._findings

    def versions(self) -> dict[str, object]:
        """What a client compares with its own: interface, bundle and weights."""
        model = self.findings.model
        return {"api": API, "bundle_version": model.version, "weights_sha256": model.weights_sha256}

    def answered(self, path: str | Path) -> AnsweredScan:
        """A scan with its answers; encoded on the first request, and cached.

        Raises:
            UsageError: when the scan cannot be read, or changed while it was read.
        """
        path = Path(path)
        findings = self.findings
        try:
            signature, digest = self._identity.digest(path)
        except OSError as error:
            raise UsageError(
                404, f"{path.name}: the scan cannot be opened; it was removed, or the server may not read it"
            ) from error

        def encode() -> AnsweredScan:
            started = time.perf_counter()
            try:
                scan = findings.answer_file(path, SAFE_NAME)
            except ScanError as error:
                raise UsageError(422, str(error).replace(str(path), path.name)) from error
            if signature_of(path) != signature:
                raise UsageError(
                    409, f"{path.name}: the scan changed while it was read; wait until it is written, then ask again"
                )
            logger.info("scan %s encoded in %.2f s", digest[:8], time.perf_counter() - started)
            return scan

        scan = self.cache.get((digest, findings.model.weights_sha256), encode)
        info = dataclasses.replace(scan.record.scan, file=path.name)
        return dataclasses.replace(scan, record=dataclasses.replace(scan.record, scan=info))

    def write_scan(self, path: str | Path, file: str | Path) -> None:
        """Writes a scan as the bundle reads it: NIfTI, int16 in HU, on the grid that maps and masks lie on.

        Raises:
            UsageError: when the scan cannot be read.
        """
        path = Path(path)
        try:
            scan = load_scan(path)
        except ScanError as error:
            raise UsageError(422, str(error).replace(str(path), path.name)) from error
        limits = np.iinfo(np.int16)
        hu = scan.as_tensor()[0].round_().clamp_(limits.min, limits.max).numpy().astype("<i2", copy=False)
        planes = (np.ascontiguousarray(hu[:, :, k].T) for k in range(hu.shape[2]))
        write_planes(file, planes, hu.shape, scan.affine.numpy(), "scan in HU", dtype="<i2")
